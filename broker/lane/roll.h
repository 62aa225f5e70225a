/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Of all that are noted, those under way longest, in that order: as many as there is room for. Pure.
 */
#include <lessor/status.h>

struct roll {
        struct lessor_status_lane *entries; /* the caller's */
        unsigned n, room;
};

void roll_note(struct roll *roll, const struct lessor_status_lane *entry);

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The share of operations that failed of late: totals are sampled once a second, the oldest sample is SHARE_SECONDS old.
 * Pure; the totals are the workers' word, so that it is shown and decides nothing.
 */
#include <stdbool.h>
#include <stdint.h>

#define SHARE_SECONDS 10U
#define SHARE_OPERATIONS 20U /* fewer say nothing */
#define SHARE_PERCENT 10U    /* more is worth a word */

struct share {
        struct {
                uint64_t ok, failed;
        } sample[SHARE_SECONDS];
        unsigned next;
        uint64_t next_sample;
        unsigned percent; /* of the window before the last sample; 0 with too few operations */
};

void share_update(struct share *s, uint64_t ok, uint64_t failed, uint64_t now);
static inline bool share_high(const struct share *s) { return s->percent > SHARE_PERCENT; }

/* SPDX-License-Identifier: MIT */
#pragma once
/* What differs between two configurations, and what a running broker can take over. Pure. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "config.h"
#include "keys.h"

enum config_change_kind { CONFIG_ADDED, CONFIG_REMOVED, CONFIG_CHANGED };

struct config_change {
        enum config_change_kind kind;
        char name[LESSOR_NAME_SIZE]; /* the database's; "": the broker itself, which is always CONFIG_CHANGED */
        uint64_t keys;               /* of CONFIG_CHANGED: bit `enum config_key_id` for each changed key */
        enum config_reload reload;   /* the most any of its keys needs */
};

struct config_diff {
        struct config_change *changes; /* the broker, then removed, then added and changed in the new order */
        unsigned n;
        bool restart; /* some key is not taken over by a running broker */
};

/* 0; -ENOMEM. *ret is the caller's, for config_diff_deinit(); untouched unless 0. */
int config_diff(const struct config *before, const struct config *after, struct config_diff *ret);
void config_diff_deinit(struct config_diff *diff);

/* One line a change: "cache: changed max_connections, host (drain)". Names keys, never values. */
void config_diff_write(const struct config_diff *diff, FILE *f);

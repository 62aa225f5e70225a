/* SPDX-License-Identifier: MIT */
#pragma once
/* The schema (schema.h) as a table to look things up in. Pure. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"

enum config_type {
        CONFIG_TYPE_COUNT,
        CONFIG_TYPE_BOOL,
        CONFIG_TYPE_DURATION,
        CONFIG_TYPE_SIZE,
        CONFIG_TYPE_MODE,
        CONFIG_TYPE_NAME,
        CONFIG_TYPE_TEXT,
        CONFIG_TYPE_HOST,
        CONFIG_TYPE_PATH,
        CONFIG_TYPE_SECRET,
        CONFIG_TYPE_GROUP,
        CONFIG_TYPE_HANDOVER,
        CONFIG_TYPE_ROUTE,
        CONFIG_TYPE_LOG_LEVEL,
        CONFIG_TYPE_ALLOW,
};

enum config_reload { CONFIG_RELOAD_LIVE, CONFIG_RELOAD_DRAIN, CONFIG_RELOAD_RESTART };

struct config_key {
        enum config_key_id id;
        const char *name;
        bool database; /* of each database; else the broker's */
        enum config_type type;
        uint64_t min, max;
        const char *fallback; /* the default as text; NULL: none */
        const char *unit, *alias;
        enum config_reload reload;
        const char *help;
        size_t offset; /* of its field in struct config or struct config_database */
};

extern const struct config_key config_keys[CONFIG_KEYS]; /* by enum config_key_id */

#define CONFIG_ROOT "redis_databases" /* the original's name; `databases` is the same */
#define CONFIG_ROOT_SHORT "databases"

/* The key of exactly this name (not terminated), NULL: none. */
const struct config_key *config_key_find(const char *name, size_t length);
const char *config_key_ignored(const char *name, size_t length); /* why the key is ignored; NULL: it is not */

/* The word that `name` was probably meant to be, NULL if none is near: keys of databases; with `broker`, all that may
 * stand at the top level. */
const char *config_key_nearest(const char *name, size_t length, bool broker);

/* The number of edits (insert, delete, replace, swap neighbours) between two words, at most CONFIG_EDITS_MAX. */
#define CONFIG_EDITS_MAX 64U
unsigned config_edits(const char *a, size_t na, const char *b, size_t nb);
bool config_edits_near(unsigned edits, size_t length); /* few enough for a suggestion */

/* The words of an enumeration by number; NULL after the last, and for other types. */
const char *config_word(enum config_type type, unsigned i);
const char *config_type_text(enum config_type type);
const char *config_reload_text(enum config_reload reload);

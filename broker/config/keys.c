/* SPDX-License-Identifier: MIT */
/* The schema as a table, and what a misspelt word was meant to be. */
#include "keys.h"

#include <string.h>

#include <base/cleanup.h>

#define MEMBER_COUNT(name) name
#define MEMBER_BOOL(name) name
#define MEMBER_DURATION(name) name##_ns
#define MEMBER_SIZE(name) name
#define MEMBER_MODE(name) name
#define MEMBER_NAME(name) name
#define MEMBER_TEXT(name) name
#define MEMBER_HOST(name) name
#define MEMBER_PATH(name) name
#define MEMBER_SECRET(name) name
#define MEMBER_GROUP(name) name
#define MEMBER_HANDOVER(name) name
#define MEMBER_ROUTE(name) name
#define MEMBER_LOG_LEVEL(name) name
#define MEMBER_ALLOW(name) name

#define ENTRY(owner, is_database, name_, type_, min_, max_, fallback_, unit_, alias_, reload_, help_)                  \
        [CONFIG_KEY_##name_] = {.id = CONFIG_KEY_##name_,                                                              \
                                .name = #name_,                                                                        \
                                .database = is_database,                                                               \
                                .type = CONFIG_TYPE_##type_,                                                           \
                                .min = min_,                                                                           \
                                .max = max_,                                                                           \
                                .fallback = fallback_,                                                                 \
                                .unit = unit_,                                                                         \
                                .alias = alias_,                                                                       \
                                .reload = CONFIG_RELOAD_##reload_,                                                     \
                                .help = help_,                                                                         \
                                .offset = offsetof(struct owner, MEMBER_##type_(name_))},

const struct config_key config_keys[CONFIG_KEYS] = {
#define CONFIG_BROKER_KEY(...) ENTRY(config, false, __VA_ARGS__)
#define CONFIG_DATABASE_KEY(...) ENTRY(config_database, true, __VA_ARGS__)
#include "schema.h"
};

/* A diff names changed keys by the bits of one word. */
_Static_assert(CONFIG_KEYS <= 64, "struct config_change needs more bits");

static const struct {
        const char *name, *why;
} ignored[] = {
#define CONFIG_IGNORED_KEY(name, why) {#name, why},
#include "schema.h"
};

static bool same(const char *word, const char *name, size_t length) {
        return strlen(word) == length && memcmp(word, name, length) == 0;
}

const struct config_key *config_key_find(const char *name, size_t length) {
        for (unsigned i = 0; i < CONFIG_KEYS; i++)
                if (same(config_keys[i].name, name, length))
                        return &config_keys[i];
        return NULL;
}

const char *config_key_ignored(const char *name, size_t length) {
        for (unsigned i = 0; i < ARRAY_SIZE(ignored); i++)
                if (same(ignored[i].name, name, length))
                        return ignored[i].why;
        return NULL;
}

static unsigned least(unsigned a, unsigned b) { return a < b ? a : b; }

/* Optimal string alignment, by three rows. */
unsigned config_edits(const char *a, size_t na, const char *b, size_t nb) {
        unsigned rows[3][CONFIG_EDITS_MAX + 1];
        unsigned *before = rows[0], *above = rows[1], *row = rows[2];
        if (na > CONFIG_EDITS_MAX || nb > CONFIG_EDITS_MAX)
                return CONFIG_EDITS_MAX;
        for (unsigned j = 0; j <= nb; j++)
                above[j] = j;
        for (unsigned i = 1; i <= na; i++) {
                row[0] = i;
                for (unsigned j = 1; j <= nb; j++) {
                        row[j] = least(least(above[j], row[j - 1]) + 1, above[j - 1] + (a[i - 1] != b[j - 1]));
                        if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                                row[j] = least(row[j], before[j - 2] + 1);
                }
                unsigned *oldest = before;
                before = above;
                above = row;
                row = oldest;
        }
        return above[nb];
}

bool config_edits_near(unsigned edits, size_t length) { return edits <= 1 + length / 4; }

struct search {
        const char *name;
        size_t length;
        const char *best;
        unsigned edits;
};

static void consider(struct search *s, const char *word) {
        unsigned edits = config_edits(s->name, s->length, word, strlen(word));
        if (edits < s->edits) {
                s->edits = edits;
                s->best = word;
        }
}

const char *config_key_nearest(const char *name, size_t length, bool broker) {
        struct search s = {name, length, NULL, CONFIG_EDITS_MAX};
        for (unsigned i = 0; i < CONFIG_KEYS; i++)
                if (broker || config_keys[i].database)
                        consider(&s, config_keys[i].name);
        if (broker) {
                consider(&s, CONFIG_ROOT);
                consider(&s, CONFIG_ROOT_SHORT);
        }
        return config_edits_near(s.edits, length) ? s.best : NULL;
}

const char *config_word(enum config_type type, unsigned i) {
        static const char *const handover[] = {
                [CONFIG_HANDOVER_AUTO] = "auto", [CONFIG_HANDOVER_RESET] = "reset", [CONFIG_HANDOVER_CLOSE] = "close"};
        static const char *const route[] = {
                [CONFIG_ROUTE_AUTO] = "auto", [CONFIG_ROUTE_LEASE] = "lease", [CONFIG_ROUTE_LANE] = "lane"};
        static const char *const log_level[] = {[CONFIG_LOG_DEBUG] = "debug",
                                                [CONFIG_LOG_INFO] = "info",
                                                [CONFIG_LOG_WARNING] = "warning",
                                                [CONFIG_LOG_ERROR] = "error"};
        static const char *const truth[] = {"no", "yes"};
        if (type == CONFIG_TYPE_HANDOVER)
                return i < ARRAY_SIZE(handover) ? handover[i] : NULL;
        if (type == CONFIG_TYPE_ROUTE)
                return i < ARRAY_SIZE(route) ? route[i] : NULL;
        if (type == CONFIG_TYPE_LOG_LEVEL)
                return i < ARRAY_SIZE(log_level) ? log_level[i] : NULL;
        if (type == CONFIG_TYPE_BOOL)
                return i < ARRAY_SIZE(truth) ? truth[i] : NULL;
        return NULL;
}

const char *config_type_text(enum config_type type) {
        switch (type) {
        case CONFIG_TYPE_COUNT:
                return "number";
        case CONFIG_TYPE_BOOL:
                return "boolean";
        case CONFIG_TYPE_DURATION:
                return "duration";
        case CONFIG_TYPE_SIZE:
                return "size";
        case CONFIG_TYPE_MODE:
                return "file mode";
        case CONFIG_TYPE_NAME:
                return "name";
        case CONFIG_TYPE_TEXT:
                return "text";
        case CONFIG_TYPE_HOST:
                return "host";
        case CONFIG_TYPE_PATH:
                return "path";
        case CONFIG_TYPE_SECRET:
                return "secret";
        case CONFIG_TYPE_GROUP:
                return "group";
        case CONFIG_TYPE_HANDOVER:
        case CONFIG_TYPE_ROUTE:
        case CONFIG_TYPE_LOG_LEVEL:
                return "word";
        case CONFIG_TYPE_ALLOW:
                return "map";
        }
        return "text";
}

const char *config_reload_text(enum config_reload reload) {
        switch (reload) {
        case CONFIG_RELOAD_LIVE:
                return "live";
        case CONFIG_RELOAD_DRAIN:
                return "drain";
        case CONFIG_RELOAD_RESTART:
                return "restart";
        }
        return "restart";
}

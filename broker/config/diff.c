/* SPDX-License-Identifier: MIT */
#include "diff.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool same_text(const char *a, const char *b) { return a && b ? strcmp(a, b) == 0 : a == b; }

static bool same_ids(const struct config_ids *a, const struct config_ids *b) {
        return a->n == b->n && (a->n == 0 || memcmp(a->ids, b->ids, a->n * sizeof(*a->ids)) == 0);
}

static bool same_allow(const struct config_allow *a, const struct config_allow *b) {
        return a->everyone == b->everyone && same_ids(&a->uids, &b->uids) && same_ids(&a->gids, &b->gids);
}

static bool same_value(const struct config_key *key, const void *a, const void *b) {
        switch (key->type) {
        case CONFIG_TYPE_BOOL:
                return *(const bool *)a == *(const bool *)b;
        case CONFIG_TYPE_DURATION:
        case CONFIG_TYPE_SIZE:
                return *(const uint64_t *)a == *(const uint64_t *)b;
        case CONFIG_TYPE_COUNT:
        case CONFIG_TYPE_MODE:
                return *(const unsigned *)a == *(const unsigned *)b;
        case CONFIG_TYPE_HANDOVER:
                return *(const enum config_handover *)a == *(const enum config_handover *)b;
        case CONFIG_TYPE_ROUTE:
                return *(const enum config_route *)a == *(const enum config_route *)b;
        case CONFIG_TYPE_LOG_LEVEL:
                return *(const enum config_log_level *)a == *(const enum config_log_level *)b;
        case CONFIG_TYPE_NAME:
                return strcmp(a, b) == 0;
        case CONFIG_TYPE_TEXT:
        case CONFIG_TYPE_HOST:
        case CONFIG_TYPE_PATH:
        case CONFIG_TYPE_SECRET:
        case CONFIG_TYPE_GROUP:
                return same_text(*(char *const *)a, *(char *const *)b);
        case CONFIG_TYPE_ALLOW:
                return same_allow(a, b);
        }
        return false;
}

static uint64_t changed_keys(bool database, const void *a, const void *b) {
        uint64_t keys = 0;
        for (unsigned i = 0; i < CONFIG_KEYS; i++) {
                const struct config_key *key = &config_keys[i];
                if (key->database == database &&
                    !same_value(key, (const char *)a + key->offset, (const char *)b + key->offset))
                        keys |= UINT64_C(1) << i;
        }
        return keys;
}

/* Of two databases on Unix sockets nobody looks at host and port. */
static uint64_t changed_database(const struct config_database *a, const struct config_database *b) {
        uint64_t keys = changed_keys(true, a, b);
        if (a->unix_socket && b->unix_socket)
                keys &= ~(UINT64_C(1) << CONFIG_KEY_host | UINT64_C(1) << CONFIG_KEY_port);
        return keys;
}

static enum config_reload most(uint64_t keys) {
        enum config_reload reload = CONFIG_RELOAD_LIVE;
        for (unsigned i = 0; i < CONFIG_KEYS; i++)
                if (keys >> i & 1 && config_keys[i].reload > reload)
                        reload = config_keys[i].reload;
        return reload;
}

/* There is room: at most one change for each database of either side, and one for the broker. */
static void add(struct config_diff *diff, enum config_change_kind kind, const char *name, uint64_t keys,
                enum config_reload reload) {
        struct config_change *change = &diff->changes[diff->n++];
        *change = (struct config_change){.kind = kind, .keys = keys, .reload = reload};
        memcpy(change->name, name, strlen(name) + 1);
        diff->restart |= reload == CONFIG_RELOAD_RESTART;
}

int config_diff(const struct config *before, const struct config *after, struct config_diff *ret) {
        struct config_diff diff = {0};
        uint64_t keys = changed_keys(false, before, after);
        diff.changes = calloc((size_t)before->n_databases + after->n_databases + 1, sizeof(*diff.changes));
        if (!diff.changes)
                return -ENOMEM;
        /* A group may keep its name and change its number. */
        if (before->socket_gid != after->socket_gid)
                keys |= UINT64_C(1) << CONFIG_KEY_socket_group;
        if (keys)
                add(&diff, CONFIG_CHANGED, "", keys, most(keys));
        for (unsigned i = 0; i < before->n_databases; i++)
                if (!config_find(after, before->databases[i].name))
                        add(&diff, CONFIG_REMOVED, before->databases[i].name, 0, CONFIG_RELOAD_DRAIN);
        for (unsigned i = 0; i < after->n_databases; i++) {
                const struct config_database *db = &after->databases[i], *old = config_find(before, db->name);
                keys = old ? changed_database(old, db) : 0;
                if (!old)
                        add(&diff, CONFIG_ADDED, db->name, 0, CONFIG_RELOAD_LIVE);
                else if (keys)
                        add(&diff, CONFIG_CHANGED, db->name, keys, most(keys));
        }
        *ret = diff;
        return 0;
}

void config_diff_deinit(struct config_diff *diff) {
        free(diff->changes);
        *diff = (struct config_diff){0};
}

static void put_keys(FILE *f, uint64_t keys) {
        const char *comma = " ";
        for (unsigned i = 0; i < CONFIG_KEYS; i++)
                if (keys >> i & 1) {
                        fprintf(f, "%s%s", comma, config_keys[i].name);
                        comma = ", ";
                }
}

void config_diff_write(const struct config_diff *diff, FILE *f) {
        static const char *const kinds[] = {
                [CONFIG_ADDED] = "added", [CONFIG_REMOVED] = "removed", [CONFIG_CHANGED] = "changed"};
        for (unsigned i = 0; i < diff->n; i++) {
                const struct config_change *change = &diff->changes[i];
                fprintf(f, "%s: %s", *change->name ? change->name : "broker", kinds[change->kind]);
                put_keys(f, change->keys);
                fprintf(f, " (%s)\n", config_reload_text(change->reload));
        }
}

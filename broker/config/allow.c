/* SPDX-License-Identifier: MIT */
/*
 * `allow`: who may lease. Names are looked up once, here: a name that does not exist is an error, not a rule that never
 * matches. The numbers are kept sorted, each once, so that two lists are equal when their bytes are.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "value.h"

#define ENTRIES_MAX 1024U

void config_allow_deinit(struct config_allow *a) {
        free(a->uids.ids);
        free(a->gids.ids);
        free(a->text);
        *a = (struct config_allow){0};
}

static int ids_copy(const struct config_ids *from, struct config_ids *ret) {
        *ret = (struct config_ids){0};
        if (from->n == 0)
                return 0;
        ret->ids = malloc(from->n * sizeof(*ret->ids));
        if (!ret->ids)
                return -ENOMEM;
        memcpy(ret->ids, from->ids, from->n * sizeof(*ret->ids));
        ret->n = from->n;
        return 0;
}

int config_allow_copy(const struct config_allow *from, struct config_allow *ret) {
        struct config_allow a = {.everyone = from->everyone, .text = from->text ? strdup(from->text) : NULL};
        int r = from->text && !a.text ? -ENOMEM : 0;
        if (r == 0)
                r = ids_copy(&from->uids, &a.uids);
        if (r == 0)
                r = ids_copy(&from->gids, &a.gids);
        if (r == 0)
                *ret = a;
        else
                config_allow_deinit(&a);
        return r;
}

struct reading {
        const struct config_reader *reader;
        const struct config_origin *origin;
        FILE *text; /* the canonical form */
};

static int refuse(const struct reading *rd, const struct config_node *node, const char *instead) {
        char found[CONFIG_QUOTE_SIZE];
        struct config_origin at = config_node_origin(node, rd->origin);
        config_say(rd->reader->report, CONFIG_ERROR, &at, "`allow`: found %s: %s",
                   config_found(node, found, sizeof(found)), instead);
        return CONFIG_E_INVALID;
}

/* Letters, digits and what else real user names have: such a word needs no quotes in a YAML list. */
static bool word(const struct config_node *node) {
        if (node->kind != CONFIG_NODE_SCALAR || node->length == 0 || node->length > 255)
                return false;
        for (size_t i = 0; i < node->length; i++) {
                char c = node->text[i];
                if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
                      (i > 0 && (c == '-' || c == '.' || c == '$' || c == '@' || c == '\\'))))
                        return false;
        }
        return true;
}

static int insert_sorted(struct config_ids *ids, uint32_t id) {
        unsigned at = 0;
        while (at < ids->n && ids->ids[at] < id)
                at++;
        if (at < ids->n && ids->ids[at] == id)
                return 0;
        uint32_t *more = realloc(ids->ids, (ids->n + 1) * sizeof(*more));
        if (!more)
                return -ENOMEM;
        memmove(more + at + 1, more + at, (ids->n - at) * sizeof(*more));
        more[at] = id;
        ids->ids = more;
        ids->n++;
        return 0;
}

static int read_entry(const struct reading *rd, bool users, const struct config_node *node, struct config_ids *ids) {
        uint64_t number;
        uint32_t id = 0;
        int r = -ENOENT;
        if (!word(node) || config_node_null(node))
                return refuse(rd, node, users ? "write a user's name or number" : "write a group's name or number");
        if (config_parse_count(node->text, &number) == 0 && number < UINT32_MAX)
                id = (uint32_t)number, r = 0;
        else if (node->text[0] < '0' || node->text[0] > '9')
                r = users ? rd->reader->host->user(node->text, &id) : rd->reader->host->group(node->text, &id);
        if (r == -ENOENT)
                return refuse(rd, node,
                              users ? "no such user on this host: write an existing name, or a number"
                                    : "no such group on this host: write an existing name, or a number");
        if (r < 0)
                return r == -ENOMEM ? r : refuse(rd, node, "the host's user database cannot be read: write a number");
        const char *quote = node->quoted ? "'" : "";
        fprintf(rd->text, "%s%s%s%s", ids->n ? ", " : "", quote, node->text, quote);
        return insert_sorted(ids, id);
}

static int read_list(const struct reading *rd, bool users, const struct config_node *list, struct config_ids *ids) {
        int result = 0;
        if (list->kind != CONFIG_NODE_LIST || list->n > ENTRIES_MAX)
                return refuse(rd, list,
                              users ? "write a list of users such as [www-data, 1000]"
                                    : "write a list of groups such as [redis, 1000]");
        fprintf(rd->text, "%s: [", users ? "users" : "groups");
        for (unsigned i = 0; i < list->n; i++) {
                int r = read_entry(rd, users, list->children[i], ids);
                if (r < 0)
                        return r;
                if (r > 0)
                        result = r;
        }
        fputs("]", rd->text);
        return result;
}

static int read_map(const struct reading *rd, const struct config_node *map, struct config_allow *allow) {
        bool seen[2] = {false, false};
        int result = 0, r;
        fputs("{", rd->text);
        for (unsigned i = 0; i < map->n; i += 2) {
                const struct config_node *name = map->children[i];
                bool users = strcmp(name->text, "users") == 0;
                if (!users && strcmp(name->text, "groups") != 0)
                        r = refuse(rd, name, "write `users` or `groups`");
                else if (seen[users])
                        r = refuse(rd, name, "it stands there twice: write one list");
                else {
                        fputs(seen[!users] ? ", " : "", rd->text);
                        r = read_list(rd, users, map->children[i + 1], users ? &allow->uids : &allow->gids);
                        seen[users] = true;
                }
                if (r < 0)
                        return r;
                if (r > 0)
                        result = r;
        }
        fputs("}", rd->text);
        if (result == 0 && allow->uids.n + allow->gids.n == 0)
                return refuse(rd, map, "it allows nobody: name users or groups, or write everyone");
        return result;
}

int config_allow_read(const struct config_reader *reader, const struct config_node *node,
                      const struct config_origin *origin, struct config_allow *ret) {
        struct config_allow allow = {0};
        struct reading rd = {reader, origin, NULL};
        size_t size;
        int r;
        if (node->kind == CONFIG_NODE_SCALAR && strcmp(node->text, "everyone") == 0) {
                *ret = (struct config_allow){.everyone = true};
                return 0;
        }
        if (node->kind != CONFIG_NODE_MAP)
                return refuse(&rd, node, "write everyone, or a map such as {users: [www-data], groups: [redis]}");
        rd.text = open_memstream(&allow.text, &size);
        if (!rd.text)
                return -ENOMEM;
        r = read_map(&rd, node, &allow);
        if (fclose(rd.text) != 0 && r == 0)
                r = -ENOMEM;
        if (r == 0)
                *ret = allow;
        else
                config_allow_deinit(&allow);
        return r;
}

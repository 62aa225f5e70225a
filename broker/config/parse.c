/* SPDX-License-Identifier: MIT */
/*
 * The file's tree, key by key, and the order of the whole: file, environment, command line, model, checks. Reading goes
 * on after an error, so that all errors come at once; the model is given out only when there was none.
 */
#include "parse.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "draft.h"

/* The key before child `i` of the map that has the same name; NULL: none. */
static const struct config_node *earlier(const struct config_node *map, unsigned i) {
        const struct config_node *name = map->children[i];
        for (unsigned j = 0; j < i; j += 2)
                if (map->children[j]->length == name->length &&
                    memcmp(map->children[j]->text, name->text, name->length) == 0)
                        return map->children[j];
        return NULL;
}

/* More errors than are shown: no use looking for more, and a file that is made of them takes long. */
static bool hopeless(const struct config_draft *d) { return d->report->errors >= CONFIG_REPORT_MAX; }

static bool duplicate(struct config_draft *d, const char *what, const struct config_node *map, unsigned i,
                      const struct config_origin *at) {
        char quoted[CONFIG_QUOTE_SIZE];
        const struct config_node *first = earlier(map, i), *name = map->children[i];
        if (first)
                config_say(d->report, CONFIG_ERROR, at, "%s %s stands there twice, first in line %u: remove one", what,
                           config_quote(name->text, name->length, quoted, sizeof(quoted)), first->line);
        return first;
}

static void unknown_key(struct config_draft *d, const struct config_node *name, bool top,
                        const struct config_origin *at) {
        char quoted[CONFIG_QUOTE_SIZE];
        const char *nearest = config_key_nearest(name->text, name->length, top);
        config_quote(name->text, name->length, quoted, sizeof(quoted));
        if (name->length == 2 && memcmp(name->text, "<<", 2) == 0)
                config_say(d->report, CONFIG_ERROR, at,
                           "found the merge key `<<`: write the keys out; what all databases share stands at the top "
                           "level, once");
        else if (nearest)
                config_say(d->report, CONFIG_ERROR, at, "unknown key %s: did you mean `%s`?", quoted, nearest);
        else
                config_say(d->report, CONFIG_ERROR, at, "unknown key %s: `lessord --help-config` lists those known",
                           quoted);
}

static int read_key(struct config_draft *d, struct config_scope *scope, const struct config_node *name,
                    const struct config_node *value, const struct config_origin *origin) {
        bool top = scope == &d->top;
        struct config_origin at = config_node_origin(name, origin);
        const struct config_key *key = config_key_find(name->text, name->length);
        const char *ignored = config_key_ignored(name->text, name->length);
        if (ignored) {
                config_say(d->report, CONFIG_NOTE, &at, "`%s` is accepted and ignored: %s", name->text, ignored);
                return 0;
        }
        if (!key) {
                unknown_key(d, name, top, &at);
                return 0;
        }
        if (!key->database && !top) {
                config_say(d->report, CONFIG_ERROR, &at,
                           "`%s` is the broker's, not a database's: write it at the top level", key->name);
                return 0;
        }
        return config_draft_set(d, scope, key, value, origin);
}

static int read_keys(struct config_draft *d, struct config_scope *scope, const struct config_node *map,
                     const struct config_origin *origin) {
        for (unsigned i = 0; i < map->n && !hopeless(d); i += 2) {
                struct config_origin at = config_node_origin(map->children[i], origin);
                if (duplicate(d, "the key", map, i, &at))
                        continue;
                int r = read_key(d, scope, map->children[i], map->children[i + 1], origin);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int read_database(struct config_draft *d, const struct config_node *map, unsigned i,
                         const struct config_origin *origin) {
        const struct config_node *name = map->children[i], *value = map->children[i + 1];
        struct config_origin at = config_node_origin(name, origin), there = config_node_origin(value, origin);
        char quoted[CONFIG_QUOTE_SIZE], found[CONFIG_QUOTE_SIZE];
        config_quote(name->text, name->length, quoted, sizeof(quoted));
        if (duplicate(d, "the database", map, i, &at))
                return 0;
        if (!config_name_valid(name->text, name->length)) {
                config_say(d->report, CONFIG_ERROR, &at,
                           "found the database name %s: write 1 to 63 letters, digits, `_`, `.` and `-`", quoted);
                return 0;
        }
        int r = config_draft_add(d, name->text, &at);
        if (r < 0)
                return r;
        if (value->kind != CONFIG_NODE_MAP) {
                config_say(d->report, CONFIG_ERROR, &there,
                           "the database %s: found %s: write a map of its keys such as {db: 0}, or {} for the defaults",
                           quoted, config_found(value, found, sizeof(found)));
                return 0;
        }
        return read_keys(d, d->databases[d->n_databases - 1], value, origin);
}

static int read_databases(struct config_draft *d, const struct config_node *map, const struct config_origin *origin) {
        struct config_origin at = config_node_origin(map, origin);
        char found[CONFIG_QUOTE_SIZE];
        if (map->kind != CONFIG_NODE_MAP || map->n == 0) {
                config_say(d->report, CONFIG_ERROR, &at,
                           "found %s in the place of the databases: write a map such as {main: {db: 0}}",
                           map->kind == CONFIG_NODE_MAP ? "an empty map" : config_found(map, found, sizeof(found)));
                return 0;
        }
        for (unsigned i = 0; i < map->n && !hopeless(d); i += 2) {
                if (d->n_databases == LESSOR_DATABASES_MAX) {
                        at = config_node_origin(map->children[i], origin);
                        config_say(d->report, CONFIG_ERROR, &at,
                                   "more than %u databases: remove those beyond, or run a second instance",
                                   LESSOR_DATABASES_MAX);
                        return 0;
                }
                int r = read_database(d, map, i, origin);
                if (r < 0)
                        return r;
        }
        return 0;
}

static bool is_root(const struct config_node *name) {
        return strcmp(name->text, CONFIG_ROOT) == 0 || strcmp(name->text, CONFIG_ROOT_SHORT) == 0;
}

/* The top level: its own keys first, then the databases, whichever way round they stand. */
static int read_top(struct config_draft *d, const struct config_node *top, const struct config_origin *origin) {
        const struct config_node *databases = NULL;
        struct config_origin start = config_node_origin(top, origin);
        int r = 0;
        for (unsigned i = 0; i < top->n && r == 0 && !hopeless(d); i += 2) {
                const struct config_node *name = top->children[i];
                struct config_origin at = config_node_origin(name, origin);
                if (duplicate(d, "the key", top, i, &at))
                        continue;
                if (!is_root(name)) {
                        r = read_key(d, &d->top, name, top->children[i + 1], origin);
                } else if (databases) {
                        config_say(d->report, CONFIG_ERROR, &at,
                                   "found both `" CONFIG_ROOT "` and `" CONFIG_ROOT_SHORT
                                   "`: they are the same, put all databases under one");
                } else {
                        databases = top->children[i + 1];
                        r = read_databases(d, databases, origin);
                }
        }
        if (r == 0 && !databases)
                config_say(d->report, CONFIG_ERROR, &start,
                           "no databases: write at least `" CONFIG_ROOT ": {main: {db: 0}}`");
        return r;
}

static int read_tree(struct config_draft *d, const struct config_tree *tree, const struct config_origin *origin) {
        char found[CONFIG_QUOTE_SIZE];
        struct config_origin at = *origin;
        at.line = at.column = 1;
        if (!tree->root || config_node_null(tree->root)) {
                config_say(d->report, CONFIG_ERROR, &at,
                           "the file is empty: write at least `" CONFIG_ROOT
                           ": {main: {db: 0}}`, or remove the file to run with just that");
                return CONFIG_E_INVALID;
        }
        if (tree->root->kind != CONFIG_NODE_MAP) {
                at = config_node_origin(tree->root, origin);
                config_say(d->report, CONFIG_ERROR, &at,
                           "found %s: write a map such as `" CONFIG_ROOT ": {main: {db: 0}}`",
                           config_found(tree->root, found, sizeof(found)));
                return CONFIG_E_INVALID;
        }
        return read_top(d, tree->root, origin);
}

/* 0; CONFIG_E_INVALID: the file says nothing that could be checked against the other sources; -ENOMEM. */
static int read_file(struct config_draft *d) {
        const struct config_input *in = d->input;
        struct config_origin origin = {.source = CONFIG_SOURCE_DEFAULT};
        struct config_tree tree = {0};
        if (!in->name)
                return config_draft_add(d, "main", &origin);
        origin.source = CONFIG_SOURCE_FILE;
        origin.name = config_draft_string(d, in->name);
        if (!origin.name)
                return -ENOMEM;
        int r = config_tree_read(in->data, in->size, &origin, d->report, &tree);
        if (r == 0)
                r = read_tree(d, &tree, &origin);
        config_tree_deinit(&tree);
        return r;
}

static int read_all(struct config_draft *d, struct config *c) {
        int r = read_file(d);
        if (r == 0)
                r = config_read_environment(d);
        if (r == 0)
                r = config_read_command_line(d);
        if (r == 0)
                r = config_resolve(d, c);
        if (r == 0)
                config_check(d, c);
        return r;
}

int config_parse(const struct config_input *input, struct config_report *report, struct config **ret) {
        unsigned errors = report->errors;
        struct config *c = calloc(1, sizeof(*c));
        struct config_draft *d = calloc(1, sizeof(*d));
        int r = -ENOMEM;
        if (c && d) {
                config_draft_init(d, input, report);
                r = read_all(d, c);
        }
        if (r == 0 && report->errors > errors)
                r = CONFIG_E_INVALID;
        if (report->out_of_memory)
                r = -ENOMEM;
        if (d)
                config_draft_deinit(d);
        free(d);
        if (r == 0)
                *ret = c;
        else
                config_free(c);
        return r;
}

/* SPDX-License-Identifier: MIT */
#include "draft.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void config_draft_init(struct config_draft *d, const struct config_input *input, struct config_report *report) {
        *d = (struct config_draft){.input = input, .report = report, .reader = {input->host, report}};
}

static void scope_deinit(struct config_scope *scope) {
        for (unsigned i = 0; i < CONFIG_KEYS; i++)
                config_value_deinit(&scope->settings[i].value);
}

void config_draft_deinit(struct config_draft *d) {
        scope_deinit(&d->top);
        for (unsigned i = 0; i < d->n_databases; i++) {
                scope_deinit(d->databases[i]);
                free(d->databases[i]);
        }
        for (unsigned i = 0; i < d->n_strings; i++)
                free(d->strings[i]);
        free(d->strings);
        free(d->databases);
}

/* Room for one more in an array of pointers that grows by doubling at powers of two. */
static void *grow(void *array, unsigned n) {
        if (n & (n - 1))
                return array;
        return realloc(array, (n ? 2 * (size_t)n : 1) * sizeof(void *));
}

const char *config_draft_string(struct config_draft *d, const char *text) {
        for (unsigned i = d->n_strings; i-- > 0;)
                if (strcmp(d->strings[i], text) == 0)
                        return d->strings[i];
        char **strings = grow(d->strings, d->n_strings);
        if (!strings)
                return NULL;
        d->strings = strings;
        strings[d->n_strings] = strdup(text);
        return strings[d->n_strings] ? strings[d->n_strings++] : NULL;
}

int config_draft_add(struct config_draft *d, const char *name, const struct config_origin *declared) {
        struct config_scope **databases = grow(d->databases, d->n_databases);
        if (!databases)
                return -ENOMEM;
        d->databases = databases;
        struct config_scope *scope = calloc(1, sizeof(*scope));
        if (!scope)
                return -ENOMEM;
        memcpy(scope->name, name, strlen(name) + 1); /* the caller has checked the name */
        scope->declared = *declared;
        databases[d->n_databases++] = scope;
        return 0;
}

struct config_scope *config_draft_find(const struct config_draft *d, const char *name, size_t length) {
        for (unsigned i = 0; i < d->n_databases; i++)
                if (strlen(d->databases[i]->name) == length && memcmp(d->databases[i]->name, name, length) == 0)
                        return d->databases[i];
        return NULL;
}

int config_draft_set(struct config_draft *d, struct config_scope *scope, const struct config_key *key,
                     const struct config_node *node, const struct config_origin *origin) {
        struct config_setting *setting = &scope->settings[key->id];
        struct config_value value = {0};
        int r = config_value_read(&d->reader, key, node, origin, &value);
        if (r < 0)
                return r;
        config_value_deinit(&setting->value);
        setting->value = value;
        setting->said = true;
        setting->invalid = r != 0;
        setting->origin = config_node_origin(node, origin);
        setting->origin.own = key->database && scope != &d->top;
        return 0;
}

/* `allow` has a form of its own, which outside of a file too is YAML's. */
static int set_yaml(struct config_draft *d, struct config_scope *scope, const struct config_key *key, const char *text,
                    const struct config_origin *origin) {
        struct config_tree tree = {0};
        int r = config_tree_read(text, strlen(text), origin, d->report, &tree);
        if (r == 0 && tree.root)
                r = config_draft_set(d, scope, key, tree.root, origin);
        config_tree_deinit(&tree);
        return r < 0 ? r : 0;
}

int config_draft_set_text(struct config_draft *d, struct config_scope *scope, const struct config_key *key,
                          const char *text, const struct config_origin *origin) {
        if (key->type == CONFIG_TYPE_ALLOW)
                return set_yaml(d, scope, key, text, origin);
        char *copy = strdup(text);
        if (!copy)
                return -ENOMEM;
        struct config_node node = {.kind = CONFIG_NODE_SCALAR, .text = copy, .length = strlen(copy), .quoted = true};
        int r = config_draft_set(d, scope, key, &node, origin);
        explicit_bzero(copy, node.length);
        free(copy);
        return r;
}

const struct config_setting *config_draft_effective(const struct config_draft *d, const struct config_scope *scope,
                                                    enum config_key_id id) {
        if (scope->settings[id].said)
                return &scope->settings[id];
        return d->top.settings[id].said ? &d->top.settings[id] : NULL;
}

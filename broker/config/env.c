/* SPDX-License-Identifier: MIT */
/*
 * The environment and the command line.
 *
 *      AUTOBOT_REDIS_HOST              the original's few names, for the top level's values
 *      LESSOR_REDIS_HOST               the top level's, any key of a database
 *      LESSOR_REDIS_<DATABASE>_<KEY>   the database's own
 *      LESSOR_<KEY>                    the broker's
 *
 * A variable that is set to nothing counts as not set, as shells and containers have it. One that begins with
 * LESSOR_REDIS_ and names nothing known is a warning: somebody meant something by it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "draft.h"

#define PREFIX "LESSOR_"
#define PREFIX_REDIS "LESSOR_REDIS_"
#define PREFIX_ORIGINAL "AUTOBOT_REDIS_"
#define VARIABLE_MAX 256U /* longer than any name that could mean something */

static char upper(char c) { return c == '-' || c == '.' ? '_' : (c >= 'a' && c <= 'z') ? (char)(c - 'a' + 'A') : c; }

/* Is `variable` the upper-case form of `word`, up to the length of `word`? */
static bool upper_prefix(const char *variable, const char *word) {
        for (; *word; word++, variable++)
                if (*variable != upper(*word))
                        return false;
        return true;
}

static bool upper_same(const char *variable, const char *word) {
        return strlen(variable) == strlen(word) && upper_prefix(variable, word);
}

struct target {
        struct config_scope *scope;
        const struct config_key *key;
        unsigned n; /* in how many ways the name can be read */
        struct config_scope *other;
};

static void add_target(struct target *t, struct config_scope *scope, const struct config_key *key) {
        if (t->n++ == 0) {
                t->scope = scope;
                t->key = key;
        } else {
                t->other = scope;
        }
}

/* `rest`: after LESSOR_REDIS_. */
static struct target find_target(struct config_draft *d, const char *rest) {
        struct target t = {0};
        for (unsigned k = 0; k < CONFIG_KEYS; k++)
                if (config_keys[k].database && upper_same(rest, config_keys[k].name))
                        add_target(&t, &d->top, &config_keys[k]);
        for (unsigned i = 0; i < d->n_databases; i++) {
                size_t length = strlen(d->databases[i]->name);
                if (!upper_prefix(rest, d->databases[i]->name) || rest[length] != '_')
                        continue;
                for (unsigned k = 0; k < CONFIG_KEYS; k++)
                        if (config_keys[k].database && upper_same(rest + length + 1, config_keys[k].name))
                                add_target(&t, d->databases[i], &config_keys[k]);
        }
        return t;
}

/* The name that was probably meant: over all that could stand there. `buffer` holds VARIABLE_MAX bytes. */
static const char *nearest_variable(const struct config_draft *d, const char *rest, char *buffer) {
        char candidate[VARIABLE_MAX];
        unsigned best = CONFIG_EDITS_MAX;
        for (unsigned i = 0; i <= d->n_databases; i++)
                for (unsigned k = 0; k < CONFIG_KEYS; k++) {
                        const char *scope = i < d->n_databases ? d->databases[i]->name : "";
                        if (!config_keys[k].database)
                                continue;
                        snprintf(candidate, sizeof(candidate), "%s%s%s", scope, *scope ? "_" : "", config_keys[k].name);
                        for (char *p = candidate; *p; p++)
                                *p = upper(*p);
                        unsigned edits = config_edits(rest, strlen(rest), candidate, strlen(candidate));
                        if (edits < best) {
                                best = edits;
                                memcpy(buffer, candidate, sizeof(candidate));
                        }
                }
        return config_edits_near(best, strlen(rest)) ? buffer : NULL;
}

static void unknown_variable(struct config_draft *d, const char *rest, const struct config_origin *origin) {
        char buffer[VARIABLE_MAX];
        const char *nearest = nearest_variable(d, rest, buffer);
        if (nearest)
                config_say(d->report, CONFIG_WARNING, origin,
                           "no database and key of this name, so it has no effect: did you mean " PREFIX_REDIS "%s?",
                           nearest);
        else
                config_say(d->report, CONFIG_WARNING, origin,
                           "no database and key of this name, so it has no effect: write " PREFIX_REDIS
                           "<KEY> or " PREFIX_REDIS "<DATABASE>_<KEY>");
}

static int set_lessor(struct config_draft *d, const char *rest, const char *value, const struct config_origin *origin) {
        struct target t = find_target(d, rest);
        if (t.n == 0) {
                unknown_variable(d, rest, origin);
                return 0;
        }
        if (t.n > 1) {
                config_say(d->report, CONFIG_ERROR, origin,
                           "it could be meant for `%s` or for `%s`: use --set, or the file",
                           *t.scope->name ? t.scope->name : "all databases", t.other->name);
                return 0;
        }
        struct config_setting *before = &t.scope->settings[t.key->id];
        if (before->said && before->origin.source == CONFIG_SOURCE_ENVIRONMENT)
                config_say(d->report, CONFIG_NOTE, &before->origin, "it has no effect: $%s is set too and wins",
                           origin->name);
        return config_draft_set_text(d, t.scope, t.key, value, origin);
}

static int set_original(struct config_draft *d, const char *name, const char *value,
                        const struct config_origin *origin) {
        for (unsigned k = 0; k < CONFIG_KEYS; k++)
                if (config_keys[k].alias && strcmp(config_keys[k].alias, name) == 0)
                        return config_draft_set_text(d, &d->top, &config_keys[k], value, origin);
        config_say(d->report, CONFIG_NOTE, origin,
                   "it is not one of the original's variables that lessord knows: ignored");
        return 0;
}

static int set_broker(struct config_draft *d, const char *rest, const char *value, const struct config_origin *origin) {
        for (unsigned k = 0; k < CONFIG_KEYS; k++)
                if (!config_keys[k].database && upper_same(rest, config_keys[k].name))
                        return config_draft_set_text(d, &d->top, &config_keys[k], value, origin);
        return 0; /* the library's, the tools', somebody else's */
}

static bool prefixed(const char *text, const char *prefix) { return strncmp(text, prefix, strlen(prefix)) == 0; }

/* Has an entry before the `i`-th the same name? getenv() finds the first, so it counts here too. */
static bool repeated(char *const *environment, unsigned i, size_t name_length) {
        for (unsigned j = 0; j < i; j++)
                if (strncmp(environment[j], environment[i], name_length + 1) == 0)
                        return true;
        return false;
}

static int set_variable(struct config_draft *d, const char *name, const char *value, bool original) {
        struct config_origin origin = {.source = CONFIG_SOURCE_ENVIRONMENT};
        if (original != prefixed(name, PREFIX_ORIGINAL))
                return 0;
        origin.name = config_draft_string(d, name);
        if (!origin.name)
                return -ENOMEM;
        if (original)
                return set_original(d, name, value, &origin);
        if (prefixed(name, PREFIX_REDIS))
                return set_lessor(d, name + strlen(PREFIX_REDIS), value, &origin);
        return set_broker(d, name + strlen(PREFIX), value, &origin);
}

/* One family at a time: ours replaces the original's. */
static int read_family(struct config_draft *d, bool original) {
        char *const *environment = d->input->environment;
        char name[VARIABLE_MAX];
        for (unsigned i = 0; environment && environment[i]; i++) {
                const char *equals = strchr(environment[i], '=');
                size_t length = equals ? (size_t)(equals - environment[i]) : 0;
                if (!prefixed(environment[i], original ? PREFIX_ORIGINAL : PREFIX) || length == 0 ||
                    length >= sizeof(name) || !equals[1] || repeated(environment, i, length))
                        continue;
                memcpy(name, environment[i], length);
                name[length] = '\0';
                int r = set_variable(d, name, equals + 1, original);
                if (r < 0)
                        return r;
        }
        return 0;
}

int config_read_environment(struct config_draft *d) {
        int r = read_family(d, true);
        return r < 0 ? r : read_family(d, false);
}

static void unknown_set_key(struct config_draft *d, const char *key, bool top, const struct config_origin *origin) {
        const char *nearest = config_key_nearest(key, strlen(key), top);
        const struct config_key *known = config_key_find(key, strlen(key));
        if (known)
                config_say(d->report, CONFIG_ERROR, origin,
                           "`%s` is the broker's, not a database's: write --set %s=VALUE", key, key);
        else if (nearest)
                config_say(d->report, CONFIG_ERROR, origin, "unknown key: did you mean `%s`?", nearest);
        else
                config_say(d->report, CONFIG_ERROR, origin, "unknown key: `lessord --help-config` lists those known");
}

static void unknown_set_database(struct config_draft *d, const struct config_origin *origin) {
        char names[400] = "";
        size_t at = 0;
        for (unsigned i = 0; i < d->n_databases && at < sizeof(names) - LESSOR_NAME_SIZE - 8; i++)
                at += (size_t)snprintf(names + at, sizeof(names) - at, "%s%s", i ? ", " : "", d->databases[i]->name);
        config_say(d->report, CONFIG_ERROR, origin, "no such database: write one of %s%s", names,
                   at >= sizeof(names) - LESSOR_NAME_SIZE - 8 ? " ..." : "");
}

/* `target` is "DB.KEY" or "KEY"; keys have no dot in them, databases may. */
static int set_one(struct config_draft *d, const char *target, const char *value, const struct config_origin *origin) {
        const char *dot = strrchr(target, '.'), *name = dot ? dot + 1 : target;
        struct config_scope *scope = dot ? config_draft_find(d, target, (size_t)(dot - target)) : &d->top;
        const struct config_key *key = config_key_find(name, strlen(name));
        if (!scope)
                unknown_set_database(d, origin);
        else if (!key || (dot && !key->database))
                unknown_set_key(d, name, !dot, origin);
        else
                return config_draft_set_text(d, scope, key, value, origin);
        return 0;
}

static int read_set(struct config_draft *d, const char *text) {
        struct config_origin origin = {.source = CONFIG_SOURCE_COMMAND_LINE, .name = "--set"};
        const char *equals = strchr(text, '=');
        char target[VARIABLE_MAX], name[VARIABLE_MAX + 8];
        size_t length = equals ? (size_t)(equals - text) : 0;
        if (length == 0 || length >= sizeof(target) || !config_utf8_valid(text, length)) {
                config_say(d->report, CONFIG_ERROR, &origin, "write --set DATABASE.KEY=VALUE or --set KEY=VALUE");
                return 0;
        }
        memcpy(target, text, length);
        target[length] = '\0';
        snprintf(name, sizeof(name), "--set %s", target);
        origin.name = config_draft_string(d, name);
        if (!origin.name)
                return -ENOMEM;
        return set_one(d, target, equals + 1, &origin);
}

static int read_option(struct config_draft *d, enum config_key_id id, const char *option, const char *value) {
        struct config_origin origin = {.source = CONFIG_SOURCE_COMMAND_LINE};
        if (!value)
                return 0;
        origin.name = config_draft_string(d, option);
        return origin.name ? config_draft_set_text(d, &d->top, &config_keys[id], value, &origin) : -ENOMEM;
}

int config_read_command_line(struct config_draft *d) {
        int r = 0;
        for (unsigned i = 0; i < d->input->n_sets && r == 0; i++)
                r = read_set(d, d->input->sets[i]);
        if (r == 0)
                r = read_option(d, CONFIG_KEY_instance, "--instance", d->input->instance);
        if (r == 0)
                r = read_option(d, CONFIG_KEY_socket, "--socket", d->input->socket);
        return r;
}

/* SPDX-License-Identifier: MIT */
/*
 * From what was said to what is in force: each key of each database takes its own value, else the top level's, else the
 * default. Two pairs exclude each other, host and port against unix_socket, password against password_file: there the
 * one with the higher rank (parse.h, PRECEDENCE) is meant, and a tie is an error.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "draft.h"

static int copy_text(const char *from, char **ret) {
        char *copy = from ? strdup(from) : NULL;
        if (from && !copy)
                return -ENOMEM;
        *ret = copy;
        return 0;
}

/* Into the field of the model that belongs to the key; `owner` is the struct config or struct config_database. */
static int store(const struct config_key *key, const struct config_value *value, void *owner) {
        void *field = (char *)owner + key->offset;
        switch (key->type) {
        case CONFIG_TYPE_BOOL:
                *(bool *)field = value->number;
                return 0;
        case CONFIG_TYPE_DURATION:
        case CONFIG_TYPE_SIZE:
                *(uint64_t *)field = value->number;
                return 0;
        case CONFIG_TYPE_COUNT:
        case CONFIG_TYPE_MODE:
                *(unsigned *)field = (unsigned)value->number;
                return 0;
        case CONFIG_TYPE_HANDOVER:
                *(enum config_handover *)field = (enum config_handover)value->number;
                return 0;
        case CONFIG_TYPE_ROUTE:
                *(enum config_route *)field = (enum config_route)value->number;
                return 0;
        case CONFIG_TYPE_LOG_LEVEL:
                *(enum config_log_level *)field = (enum config_log_level)value->number;
                return 0;
        case CONFIG_TYPE_NAME:
                snprintf(field, LESSOR_NAME_SIZE, "%s", value->text);
                return 0;
        case CONFIG_TYPE_TEXT:
        case CONFIG_TYPE_HOST:
        case CONFIG_TYPE_PATH:
        case CONFIG_TYPE_SECRET:
        case CONFIG_TYPE_GROUP:
                return copy_text(value->text, field);
        case CONFIG_TYPE_ALLOW:
                return config_allow_copy(&value->allow, field);
        }
        return 0;
}

/* A refused value counts as its default, so that the checks after it have something to look at. */
static int store_default(const struct config_draft *d, const struct config_key *key, void *owner) {
        struct config_node node = {.kind = CONFIG_NODE_SCALAR, .quoted = true};
        struct config_origin origin = {.source = CONFIG_SOURCE_DEFAULT};
        struct config_value value = {0};
        if (!key->fallback)
                return 0;
        node.text = strdup(key->fallback);
        if (!node.text)
                return -ENOMEM;
        node.length = strlen(node.text);
        int r = config_value_read(&d->reader, key, &node, &origin, &value);
        if (r == 0)
                r = store(key, &value, owner);
        config_value_deinit(&value);
        free(node.text);
        return r;
}

static int resolve_key(const struct config_draft *d, const struct config_scope *scope, const struct config_key *key,
                       void *owner, struct config_origin *origins) {
        const struct config_setting *setting = config_draft_effective(d, scope, key->id);
        if (!setting)
                return store_default(d, key, owner);
        origins[key->id] = setting->origin;
        if (setting->invalid)
                return store_default(d, key, owner);
        return store(key, &setting->value, owner);
}

static unsigned rank(const struct config_origin *o) { return (o->own ? 8U : 0U) + (unsigned)o->source; }

static void drop(char **text) {
        if (*text)
                explicit_bzero(*text, strlen(*text));
        free(*text);
        *text = NULL;
}

/* unix_socket, or host and port: the model keeps unix_socket only where it is meant. */
static void choose_endpoint(const struct config_draft *d, struct config_database *db) {
        const struct config_origin *path = &db->origin[CONFIG_KEY_unix_socket];
        const struct config_origin *tcp = &db->origin[CONFIG_KEY_host];
        if (rank(&db->origin[CONFIG_KEY_port]) > rank(tcp))
                tcp = &db->origin[CONFIG_KEY_port];
        if (!db->unix_socket || rank(path) > rank(tcp))
                return;
        if (rank(path) == rank(tcp))
                config_say(
                        d->report, CONFIG_ERROR, path,
                        "found both `unix_socket` and `host` or `port`: a database has one endpoint, remove the other");
        drop(&db->unix_socket);
}

static void refuse_secret(const struct config_draft *d, const struct config_origin *at, const char *path, int r) {
        char quoted[CONFIG_QUOTE_SIZE];
        const char *why = "";
        config_quote(path, strlen(path), quoted, sizeof(quoted));
        if (r < 0) {
                config_say(d->report, CONFIG_ERROR, at, "the password file %s cannot be read: %s", quoted,
                           strerror(-r));
                return;
        }
        switch ((enum config_secret)r) {
        case CONFIG_SECRET_EXPOSED:
                why = "others than its owner and group may read or write it: chmod o= it, and change the password";
                break;
        case CONFIG_SECRET_NOT_FILE:
                why = "it is not a file: write the path of a file with the password in it";
                break;
        case CONFIG_SECRET_EMPTY:
                why = "it is empty: write the password into it, or remove the key";
                break;
        case CONFIG_SECRET_UNFIT:
                why = "it is not a password of one line and at most 4096 bytes";
                break;
        }
        config_say(d->report, CONFIG_ERROR, at, "the password file %s: %s", quoted, why);
}

static int read_secret(const struct config_draft *d, const struct config_origin *at, const char *path,
                       char **password) {
        int r = d->input->host->secret(path, password);
        if (r != 0 && r != -ENOMEM)
                refuse_secret(d, at, path, r);
        return r == -ENOMEM ? r : 0;
}

/* 0: taken or not there; -ENOMEM. */
static int read_credential(struct config_draft *d, struct config_database *db, const char *name, bool own) {
        char path[4096];
        const char *directory = NULL;
        struct config_origin origin = {.source = CONFIG_SOURCE_CREDENTIAL, .own = own};
        for (unsigned i = 0; d->input->environment && d->input->environment[i] && !directory; i++)
                if (strncmp(d->input->environment[i], "CREDENTIALS_DIRECTORY=", 22) == 0)
                        directory = d->input->environment[i] + 22;
        if (!directory || directory[0] != '/' ||
            snprintf(path, sizeof(path), "%s/%s", directory, name) >= (int)sizeof(path))
                return 0;
        char *password = NULL;
        int r = d->input->host->secret(path, &password);
        if (r == -ENOENT || r == -ENOMEM)
                return r == -ENOENT ? 0 : r;
        origin.name = config_draft_string(d, path);
        if (!origin.name) {
                drop(&password);
                return -ENOMEM;
        }
        if (r != 0)
                refuse_secret(d, &origin, path, r);
        drop(&db->password);
        drop(&db->password_file);
        db->password = password;
        db->origin[CONFIG_KEY_password] = origin;
        return 0;
}

/* A systemd credential: `<database>.password` is the database's own, `password` is for all. */
static int look_for_credential(struct config_draft *d, struct config_database *db, unsigned best) {
        char name[LESSOR_NAME_SIZE + 16];
        const struct config_origin own = {.source = CONFIG_SOURCE_CREDENTIAL, .own = true};
        const struct config_origin all = {.source = CONFIG_SOURCE_CREDENTIAL};
        snprintf(name, sizeof(name), "%s.password", db->name);
        int r = best < rank(&own) ? read_credential(d, db, name, true) : 0;
        if (r == 0 && best < rank(&all) && db->origin[CONFIG_KEY_password].source == CONFIG_SOURCE_DEFAULT)
                r = read_credential(d, db, "password", false);
        return r;
}

static int choose_password(struct config_draft *d, struct config_database *db) {
        const struct config_origin *text = &db->origin[CONFIG_KEY_password];
        const struct config_origin *file = &db->origin[CONFIG_KEY_password_file];
        if (db->password && db->password_file && rank(text) == rank(file))
                config_say(d->report, CONFIG_ERROR, file,
                           "found both `password` and `password_file`: remove one of them");
        bool by_file = rank(file) > rank(text) || (rank(file) == rank(text) && !db->password);
        if (!by_file) {
                drop(&db->password_file);
                return look_for_credential(d, db, rank(text));
        }
        drop(&db->password);
        if (db->password_file) {
                int r = read_secret(d, file, db->password_file, &db->password);
                if (r < 0)
                        return r;
        }
        unsigned best = rank(file);
        db->origin[CONFIG_KEY_password] = *file;
        return look_for_credential(d, db, best);
}

static int resolve_database(struct config_draft *d, const struct config_scope *scope, struct config_database *db) {
        int r = 0;
        memcpy(db->name, scope->name, sizeof(db->name));
        db->declared = scope->declared;
        for (unsigned i = 0; i < CONFIG_KEYS && r == 0; i++)
                if (config_keys[i].database)
                        r = resolve_key(d, scope, &config_keys[i], db, db->origin);
        if (r < 0)
                return r;
        choose_endpoint(d, db);
        return choose_password(d, db);
}

static int resolve_broker(struct config_draft *d, struct config *c) {
        char socket[LESSOR_NAME_SIZE + 32];
        const struct config_setting *group = &d->top.settings[CONFIG_KEY_socket_group];
        int r = 0;
        for (unsigned i = 0; i < CONFIG_KEYS && r == 0; i++)
                if (!config_keys[i].database)
                        r = resolve_key(d, &d->top, &config_keys[i], c, c->origin);
        c->socket_gid = group->value.text ? (gid_t)group->value.number : (gid_t)-1;
        snprintf(socket, sizeof(socket), "/run/lessor/%s.sock", c->instance);
        if (r == 0 && !c->socket)
                r = copy_text(socket, &c->socket);
        return r < 0 ? r : copy_text(d->input->name, &c->file);
}

int config_resolve(struct config_draft *d, struct config *c) {
        int r = resolve_broker(d, c);
        c->databases = calloc(d->n_databases ? d->n_databases : 1, sizeof(*c->databases));
        if (!c->databases)
                r = -ENOMEM;
        for (; c->n_databases < d->n_databases && r == 0; c->n_databases++)
                r = resolve_database(d, d->databases[c->n_databases], &c->databases[c->n_databases]);
        c->strings = d->strings;
        c->n_strings = d->n_strings;
        d->strings = NULL;
        d->n_strings = 0;
        return r;
}

/* SPDX-License-Identifier: MIT */
/*
 * What --print-config writes is YAML that loads again to the same configuration, but for passwords: every database's
 * values are written out as its own, so that no other source but the command line could change them.
 */
#include "print.h"

#include <string.h>
#include <strings.h>

#include "keys.h"
#include "value.h"

enum { SOURCE_COLUMN = 48 };

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

static bool all_of(const char *text, const char *signs) { return strspn(text, signs) == strlen(text); }

/* Such a word is the same text to every YAML reader; anything else goes in quotes. */
static bool bare(const char *text) {
        uint64_t number;
        if (all_of(text, "0123456789."))
                return strchr(text, '.') != strrchr(text, '.'); /* an address, or at least no number */
        return strchr(LETTERS "_/", text[0]) && all_of(text, LETTERS "0123456789_./-") &&
               strcasecmp(text, "null") != 0 && config_parse_bool(text, &number) < 0;
}

static int put_text(FILE *f, const char *text) {
        if (bare(text))
                return fprintf(f, "%s", text);
        int n = fprintf(f, "\"");
        for (const char *p = text; *p; p++)
                n += fprintf(f, *p == '"' || *p == '\\' ? "\\%c" : "%c", *p);
        return n + fprintf(f, "\"");
}

static int put_value(FILE *f, const struct config_key *key, const void *field) {
        char buffer[64];
        uint64_t number = 0;
        switch (key->type) {
        case CONFIG_TYPE_BOOL:
                number = *(const bool *)field;
                break;
        case CONFIG_TYPE_DURATION:
        case CONFIG_TYPE_SIZE:
                number = *(const uint64_t *)field;
                break;
        case CONFIG_TYPE_COUNT:
        case CONFIG_TYPE_MODE:
                number = *(const unsigned *)field;
                break;
        case CONFIG_TYPE_HANDOVER:
                number = *(const enum config_handover *)field;
                break;
        case CONFIG_TYPE_ROUTE:
                number = *(const enum config_route *)field;
                break;
        case CONFIG_TYPE_LOG_LEVEL:
                number = *(const enum config_log_level *)field;
                break;
        case CONFIG_TYPE_NAME:
                return put_text(f, field);
        case CONFIG_TYPE_TEXT:
        case CONFIG_TYPE_HOST:
        case CONFIG_TYPE_PATH:
        case CONFIG_TYPE_GROUP:
                return put_text(f, *(char *const *)field);
        case CONFIG_TYPE_SECRET:
                return fprintf(f, "(not shown)");
        case CONFIG_TYPE_ALLOW: {
                const struct config_allow *allow = field;
                return fprintf(f, "%s", allow->everyone ? "everyone" : allow->text);
        }
        }
        return fprintf(f, "%s", config_number_text(key, number, buffer, sizeof(buffer)));
}

static bool is_text(enum config_type type) {
        return type == CONFIG_TYPE_TEXT || type == CONFIG_TYPE_HOST || type == CONFIG_TYPE_PATH ||
               type == CONFIG_TYPE_SECRET || type == CONFIG_TYPE_GROUP;
}

static void put_source(FILE *f, int column, const struct config_key *key, const struct config_origin *origin) {
        char where[4352];
        bool for_all = key->database && !origin->own && origin->source != CONFIG_SOURCE_DEFAULT;
        fprintf(f, "%*s # %s%s\n", column < SOURCE_COLUMN ? SOURCE_COLUMN - column : 0, "",
                config_origin_text(origin, where, sizeof(where)), for_all ? " (for all)" : "");
}

/* One line; as a comment where YAML would not take it back: no value, a secret, an endpoint that is not used. */
static void put_key(FILE *f, int indent, const struct config_key *key, const void *owner, bool unused,
                    const struct config_origin *origin) {
        const void *field = (const char *)owner + key->offset;
        bool none = is_text(key->type) && !*(char *const *)field;
        bool comment = none || unused || key->type == CONFIG_TYPE_SECRET;
        int column = fprintf(f, "%*s%s%s: ", indent, "", comment ? "# " : "", key->name);
        if (none)
                column += fprintf(f, "none");
        else
                column += put_value(f, key, field);
        put_source(f, column, key, origin);
}

static void put_database(FILE *f, const struct config_database *db) {
        fprintf(f, "  ");
        put_text(f, db->name);
        fprintf(f, ":\n");
        for (unsigned i = 0; i < CONFIG_KEYS; i++) {
                const struct config_key *key = &config_keys[i];
                bool unused = db->unix_socket && (key->id == CONFIG_KEY_host || key->id == CONFIG_KEY_port);
                if (key->database)
                        put_key(f, 4, key, db, unused, &db->origin[i]);
        }
}

void config_write(const struct config *c, FILE *f) {
        fprintf(f, "# The configuration in force, each value with its source. Read: %s.\n",
                c->file ? c->file : "no file, the built-in database");
        for (unsigned i = 0; i < CONFIG_KEYS; i++)
                if (!config_keys[i].database)
                        put_key(f, 0, &config_keys[i], c, false, &c->origin[i]);
        fprintf(f, "\n%s:\n", CONFIG_ROOT);
        for (unsigned i = 0; i < c->n_databases; i++)
                put_database(f, &c->databases[i]);
}

void config_write_summary(const struct config *c, FILE *f) {
        fprintf(f,
                "%s: valid: %u database%s, at most %llu connections on this host, at most %llu file descriptors "
                "(%u sessions)\n",
                c->file ? c->file : "the built-in configuration", c->n_databases, c->n_databases == 1 ? "" : "s",
                (unsigned long long)config_connections(c), (unsigned long long)config_fd_need(c), c->max_sessions);
}

static void put_upper(FILE *f, const char *text) {
        for (; *text; text++)
                fputc(*text >= 'a' && *text <= 'z' ? *text - 'a' + 'A' : *text, f);
}

static void put_environment(FILE *f, const struct config_key *key) {
        fprintf(f, "environment: LESSOR_%s", key->database ? "REDIS_" : "");
        put_upper(f, key->name);
        if (key->alias)
                fprintf(f, " %s", key->alias);
        if (key->database) {
                fprintf(f, " LESSOR_REDIS_<DATABASE>_");
                put_upper(f, key->name);
        }
        fputc('\n', f);
}

static void put_range(FILE *f, const struct config_key *key) {
        char min[64], max[64];
        if (key->type == CONFIG_TYPE_COUNT || key->type == CONFIG_TYPE_DURATION || key->type == CONFIG_TYPE_SIZE ||
            key->type == CONFIG_TYPE_MODE) {
                fprintf(f, "range: %s .. %s\n", config_number_text(key, key->min, min, sizeof(min)),
                        config_number_text(key, key->max, max, sizeof(max)));
        } else if (config_word(key->type, 0)) {
                fprintf(f, "range:");
                for (unsigned i = 0; config_word(key->type, i); i++)
                        fprintf(f, " %s", config_word(key->type, i));
                fputc('\n', f);
        }
}

void config_write_keys(FILE *f) {
        for (unsigned i = 0; i < CONFIG_KEYS; i++) {
                const struct config_key *key = &config_keys[i];
                fprintf(f, "%skey: %s\nof: %s\ntype: %s\n", i ? "\n" : "", key->name,
                        key->database ? "database" : "broker", config_type_text(key->type));
                put_range(f, key);
                if (key->fallback)
                        fprintf(f, "default: %s\n", key->fallback);
                if (*key->unit)
                        fprintf(f, "unit: %s\n", key->unit);
                put_environment(f, key);
                fprintf(f, "reload: %s\nhelp: %s\n", config_reload_text(key->reload), key->help);
        }
}

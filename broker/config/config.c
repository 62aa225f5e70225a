/* SPDX-License-Identifier: MIT */
/* The model: what it owns, and sums over it. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "value.h"

/*
 * What one session may hold in the broker: its socket, the worker's pidfd, its segment's memfd. FDS_FIXED is for the
 * rest: log, listener, status segment, control page, resolver, and connections being accepted or refused.
 */
enum { FDS_PER_SESSION = 3, FDS_PER_THREAD = 72, FDS_FIXED = 64 };

static void wipe(char *secret) {
        if (secret)
                explicit_bzero(secret, strlen(secret));
        free(secret);
}

#define CONFIG_FREE_COUNT(field)
#define CONFIG_FREE_BOOL(field)
#define CONFIG_FREE_DURATION(field)
#define CONFIG_FREE_SIZE(field)
#define CONFIG_FREE_MODE(field)
#define CONFIG_FREE_NAME(field)
#define CONFIG_FREE_HANDOVER(field)
#define CONFIG_FREE_ROUTE(field)
#define CONFIG_FREE_LOG_LEVEL(field)
#define CONFIG_FREE_TEXT(field) free(c->field);
#define CONFIG_FREE_HOST(field) free(c->field);
#define CONFIG_FREE_PATH(field) free(c->field);
#define CONFIG_FREE_GROUP(field) free(c->field);
#define CONFIG_FREE_SECRET(field) wipe(c->field);
#define CONFIG_FREE_ALLOW(field) config_allow_deinit(&c->field);

static void database_deinit(struct config_database *c) {
#define CONFIG_DATABASE_KEY(name, type, ...) CONFIG_FREE_##type(name)
#include "schema.h"
}

void config_wipe_secrets(struct config *c) {
        for (unsigned i = 0; i < c->n_databases; i++) {
                wipe(c->databases[i].password);
                c->databases[i].password = NULL;
        }
}

void config_free(struct config *c) {
        if (!c)
                return;
        for (unsigned i = 0; i < c->n_databases; i++)
                database_deinit(&c->databases[i]);
#define CONFIG_BROKER_KEY(name, type, ...) CONFIG_FREE_##type(name)
#include "schema.h"
        for (unsigned i = 0; i < c->n_strings; i++)
                free(c->strings[i]);
        free(c->strings);
        free(c->databases);
        free(c->file);
        free(c);
}

const struct config_database *config_find(const struct config *c, const char *name) {
        for (unsigned i = 0; i < c->n_databases; i++)
                if (strcmp(c->databases[i].name, name) == 0)
                        return &c->databases[i];
        return NULL;
}

uint64_t config_connections(const struct config *c) {
        uint64_t sum = 0;
        for (unsigned i = 0; i < c->n_databases; i++)
                sum += c->databases[i].max_connections;
        return sum;
}

uint64_t config_fd_need(const struct config *c) {
        return FDS_FIXED + (uint64_t)c->threads * FDS_PER_THREAD + (uint64_t)c->max_sessions * FDS_PER_SESSION +
               config_connections(c);
}

char *config_server_text(const struct config_database *db, char *buffer, size_t size) {
        if (db->unix_socket)
                snprintf(buffer, size, "unix:%s", db->unix_socket);
        else if (strchr(db->host, ':'))
                snprintf(buffer, size, "[%s]:%u", db->host, db->port);
        else
                snprintf(buffer, size, "%s:%u", db->host, db->port);
        return buffer;
}

bool config_same_server(const struct config_database *a, const struct config_database *b) {
        if (a->unix_socket || b->unix_socket)
                return a->unix_socket && b->unix_socket && strcmp(a->unix_socket, b->unix_socket) == 0;
        return a->port == b->port && strcasecmp(a->host, b->host) == 0;
}

uint64_t config_server_connections(const struct config *c, unsigned i) {
        uint64_t sum = 0;
        for (unsigned j = 0; j < c->n_databases; j++)
                if (config_same_server(&c->databases[i], &c->databases[j]))
                        sum += c->databases[j].max_connections;
        return sum;
}

/* SPDX-License-Identifier: MIT */
/* A database in a reload: its target replaced, its pool's limits moved, or its end. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "database_internal.h"
#include "log.h"

static void wipe(char *secret) {
        if (secret)
                explicit_bzero(secret, strlen(secret));
        free(secret);
}

void reconfigure_free_target(struct database *db) {
        free(db->owned.host);
        free(db->owned.unix_socket);
        free(db->owned.username);
        wipe(db->owned.password);
        memset(&db->owned, 0, sizeof(db->owned));
}

static bool copy(char **ret, const char *text) {
        *ret = text ? strdup(text) : NULL;
        return *ret || !text;
}

static void describe_endpoint(struct database *db, const struct config_database *c) {
        if (c->unix_socket)
                snprintf(db->endpoint, sizeof(db->endpoint), "unix:%s/%u", c->unix_socket, c->db);
        else
                snprintf(db->endpoint, sizeof(db->endpoint), strchr(c->host, ':') ? "[%s]:%u/%u" : "%s:%u/%u", c->host,
                         c->port, c->db);
}

int reconfigure_target(struct database *db, const struct config_database *c) {
        struct database fresh = {0};
        if (!copy(&fresh.owned.host, c->host) || !copy(&fresh.owned.unix_socket, c->unix_socket) ||
            !copy(&fresh.owned.username, c->username) || !copy(&fresh.owned.password, c->password)) {
                reconfigure_free_target(&fresh);
                return -ENOMEM;
        }
        reconfigure_free_target(db);
        db->owned.host = fresh.owned.host;
        db->owned.unix_socket = fresh.owned.unix_socket;
        db->owned.username = fresh.owned.username;
        db->owned.password = fresh.owned.password;
        snprintf(db->client_name, sizeof(db->client_name), "lessor:%s:%s", db->o.instance, c->name);
        db->target = (struct upstream_target){.host = db->owned.host,
                                              .port = c->port,
                                              .unix_socket = db->owned.unix_socket,
                                              .username = db->owned.username,
                                              .password = db->owned.password,
                                              .db = c->db,
                                              .client_name = db->client_name,
                                              .keepalive = c->socket_keepalive,
                                              .connect_timeout_ns = c->socket_connect_timeout_ns};
        describe_endpoint(db, c);
        return 0;
}

static bool same(const char *a, const char *b) { return a && b ? strcmp(a, b) == 0 : a == b; }

/* Would a connection dialled for one be as good for the other? */
static bool same_target(const struct upstream_target *t, const struct config_database *c) {
        bool place = c->unix_socket || t->unix_socket ? same(c->unix_socket, t->unix_socket)
                                                      : same(c->host, t->host) && c->port == t->port;
        return place && same(c->username, t->username) && same(c->password, t->password) && c->db == t->db &&
               c->socket_keepalive == t->keepalive;
}

/* They were begun for another server, or with another password. */
static void drop_dials(struct database *db, uint64_t now) {
        for (unsigned i = 0; i < db->pool.places; i++) {
                struct connection *c = &db->connections[i];
                if (c->conn->state != CONN_DIALLING)
                        continue;
                dial_cancel(c->dial);
                c->dial = NULL;
                learn_cancel(c);
                pool_dial_dropped(&db->pool, c->conn, now);
        }
}

int database_reconfigure(struct database *db, const struct config_database *config, unsigned fd_cache) {
        uint64_t now = clock_now();
        struct pool_limits limits = dialling_limits(config);
        bool other = !same_target(&db->target, config);
        if (other)
                drop_dials(db, now); /* they borrow the target */
        if (other && reconfigure_target(db, config) < 0)
                return -ENOMEM;
        db->target.connect_timeout_ns = config->socket_connect_timeout_ns;
        __atomic_store_n(&db->o.config, config, __ATOMIC_RELEASE);
        db->o.fd_cache = fd_cache;
        list_for_each (&db->accounts, it) {
                struct pool_account *a = &container_of(it, struct account, link)->account;
                a->max_leased = config->max_leases_per_user;
                a->max_waiting = config->max_waiters_per_user;
        }
        pool_adjust(&db->pool, &limits, now);
        if (other) {
                pool_turn(&db->pool, now);
                db->trouble = LESSOR_TROUBLE_NONE;
        }
        database_pump(db, now);
        return 0;
}

void database_remove(struct database *db) {
        uint64_t now = clock_now();
        db->last_config = *db->o.config;
        db->last_config.host = db->last_config.unix_socket = db->last_config.username = NULL;
        db->last_config.password = db->last_config.password_file = NULL;
        db->last_config.allow = (struct config_allow){0};
        memset(db->last_config.origin, 0, sizeof(db->last_config.origin));
        snprintf(db->last_error, sizeof(db->last_error), "it was removed from the configuration");
        drop_dials(db, now);
        __atomic_store_n(&db->o.config, &db->last_config, __ATOMIC_RELEASE);
        atomic_store_explicit(&db->removed, true, memory_order_release);
        pool_retire(&db->pool, LESSOR_E_UNKNOWN_DATABASE, now);
        database_pump(db, now);
}

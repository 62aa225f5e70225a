/* SPDX-License-Identifier: MIT */
/* For now the built-in database alone; reading files follows. */
#include "load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "print.h"

static int builtin(struct config *c) {
        struct config_database *d = calloc(1, sizeof(*d));
        if (!d)
                return -ENOMEM;
        *d = (struct config_database){.name = "main", .port = 6379, .max_connections = 20, .max_waiters = 4096};
        d->host = strdup("127.0.0.1");
        d->socket_keepalive = d->breaker_early_probe = d->allow.everyone = true;
        d->socket_timeout_ns = d->wait_timeout_ns = CONFIG_S(5);
        d->socket_connect_timeout_ns = CONFIG_S(3);
        d->health_check_interval_ns = d->retry_max_ns = CONFIG_S(30);
        d->retry_base_ns = CONFIG_S(2);
        d->retry_attempts = d->breaker_failures = 5;
        d->idle_timeout_ns = CONFIG_S(300);
        d->idle_check_interval_ns = d->breaker_open_time_ns = d->lease_warn_ns = CONFIG_S(60);
        c->databases = d;
        c->n_databases = 1;
        return d->host ? 0 : -ENOMEM;
}

int config_load(const struct config_options *options, struct config_report *report, struct config **ret) {
        struct config *c = calloc(1, sizeof(*c));
        char socket[128];
        int r = c ? builtin(c) : -ENOMEM;
        if (r < 0)
                return config_free(c), r;
        snprintf(c->instance, sizeof(c->instance), "%s", options->instance ? options->instance : "default");
        snprintf(socket, sizeof(socket), "/run/lessor/%s.sock", c->instance);
        c->socket = strdup(options->socket ? options->socket : socket);
        c->socket_mode = 0660;
        c->socket_gid = (gid_t)-1;
        c->threads = 1;
        c->max_sessions = 4096;
        c->log_level = CONFIG_LOG_INFO;
        c->fd_cache = 4;
        c->lane_size = CONFIG_KIB(64);
        c->reply_budget = CONFIG_MIB(64);
        if (!c->socket)
                return config_free(c), -ENOMEM;
        *ret = c;
        return 0;
}

void config_write(const struct config *c, FILE *f) { config_write_summary(c, f); }
void config_write_summary(const struct config *c, FILE *f) { fprintf(f, "%u databases\n", c->n_databases); }
void config_write_keys(FILE *f) { fputc('\n', f); }

/* SPDX-License-Identifier: MIT */
/*
 * footprint: what the broker weighs, as PSS (its own pages, and its share of those it shares): at its start with
 * thirteen databases configured; what each of 260 open connections adds; what each of 1,000 attached sessions adds to
 * that.
 */
#include <string.h>
#include <sys/wait.h>

#include <base/cleanup.h>
#include <lessor.h>

#include "bench.h"

enum { DATABASES = 13, PER_DATABASE = 20, CONNECTIONS = DATABASES * PER_DATABASE, PROCESSES = 20, HANDLES = 50 };
enum { SESSIONS = PROCESSES * HANDLES, BASE_BAR = 8 << 20, SESSION_BAR = 16 << 10, CONNECTION_BAR = 4 << 10 };

static const char *const names[DATABASES] = {"main",  "knowledge", "prompts",   "agents", "metrics",
                                             "cache", "sessions",  "workflows", "logs",   "temp",
                                             "audit", "analytics", "codebase"};

static int start(struct servers *s) {
        char *config = NULL;
        size_t size;
        FILE *out = open_memstream(&config, &size);
        int r = -ENOMEM;

        if (!out)
                return servers_fail(s, -ENOMEM, "out of memory");
        fputs("databases:\n", out);
        for (int i = 0; i < DATABASES; i++)
                fprintf(out, "  %s: {db: %d, unix_socket: %s, max_connections: %d}\n", names[i], i, s->redis_socket,
                        PER_DATABASE);
        if (fclose(out) == 0)
                r = servers_start_broker(s, config);
        free(config);
        return r;
}

static int pss(struct servers *s, double *ret) {
        char path[48], line[160];
        unsigned long kib = 0;
        FILE *in;

        snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)s->broker);
        in = fopen(path, "re");
        if (!in)
                return servers_fail(s, -errno, "%s: %s", path, strerror(errno));
        while (fgets(line, sizeof(line), in))
                if (sscanf(line, "Pss: %lu kB", &kib) == 1)
                        break;
        fclose(in);
        *ret = (double)kib * 1024;
        return kib ? 0 : servers_fail(s, -EIO, "%s says no Pss", path);
}

/* ---- connections ----------------------------------------------------------------------------------------------- */

static bool all_open_and_free(const struct lessor_status *status, void *argument) {
        uint64_t available = 0;
        for (unsigned i = 0; i < lessor_status_databases(status); i++) {
                struct lessor_status_database d;
                if (lessor_status_read_database(status, i, LESSOR_STATUS_NO_HISTOGRAMS, &d) < 0)
                        return false;
                available += d.available_connections;
        }
        return available == CONNECTIONS && lessor_status_word(&status->header->sessions) == 0;
}

static int lease_all(struct servers *s, lessor *l, lessor_lease **leases) {
        lessor_error e = {0};
        for (int i = 0; i < CONNECTIONS; i++) {
                lessor_db *db;
                if (lessor_database(l, names[i % DATABASES], &db, &e) != 0)
                        return servers_fail(s, e.code, "cannot attach: %s", e.text);
                leases[i] = lessor_acquire(db, 10000, &e);
                if (!leases[i])
                        return servers_fail(s, e.code, "cannot lease connection %d: %s", i, e.text);
        }
        return 0;
}

/* All at once, so that the broker must dial every one; then none is held any more, and all stay open. */
static int open_connections(struct servers *s) {
        lessor_lease *leases[CONNECTIONS] = {NULL};
        lessor *l;
        int r;

        if (lessor_open(s->broker_socket, &l) < 0)
                return servers_fail(s, -ENOMEM, "out of memory");
        r = lease_all(s, l, leases);
        for (int i = 0; i < CONNECTIONS; i++)
                lessor_release(leases[i]);
        lessor_close(l);
        return r < 0 ? r : servers_wait_status(s, all_open_and_free, NULL);
}

/* ---- sessions -------------------------------------------------------------------------------------------------- */

/* Attaches, and stays until the parent closes its end of the pipe. */
static void stay_attached(const struct servers *s, int until) {
        char byte;
        for (int i = 0; i < HANDLES; i++) {
                lessor *l;
                lessor_db *db;
                lessor_error e;
                if (lessor_open(s->broker_socket, &l) < 0 || lessor_database(l, NULL, &db, &e) != 0) {
                        fprintf(stderr, "lessor bench footprint: session %d: %s\n", i, e.text);
                        _exit(1);
                }
        }
        _exit(read(until, &byte, 1) == 0 ? 0 : 1);
}

static bool all_attached(const struct lessor_status *status, void *argument) {
        return lessor_status_word(&status->header->sessions) == SESSIONS;
}

static int pss_with_sessions(struct servers *s, double *ret) {
        pid_t children[PROCESSES];
        int until[2], n = 0, r;

        if (pipe2(until, O_CLOEXEC) < 0)
                return servers_fail(s, -errno, "pipe: %s", strerror(errno));
        for (; n < PROCESSES; n++) {
                children[n] = servers_fork();
                if (children[n] < 0)
                        break;
                if (children[n] == 0) {
                        close(until[1]);
                        stay_attached(s, until[0]);
                }
        }
        r = n < PROCESSES ? servers_fail(s, -errno, "fork: %s", strerror(errno))
                          : servers_wait_status(s, all_attached, NULL);
        if (r == 0)
                r = pss(s, ret);
        close(until[0]);
        close(until[1]);
        while (n > 0)
                waitpid(children[--n], NULL, 0);
        return r;
}

/* ---------------------------------------------------------------------------------------------------------------- */

struct weights {
        struct sample base, connection, session;
};

static int run_round(struct servers *s, struct weights *w) {
        double base, open, attached;
        int r = start(s);
        if (r == 0)
                r = pss(s, &base);
        if (r == 0)
                r = open_connections(s);
        if (r == 0)
                r = pss(s, &open);
        if (r == 0)
                r = pss_with_sessions(s, &attached);
        servers_stop_broker(s);
        if (r < 0)
                return r;
        sample_add(&w->base, base);
        sample_add(&w->connection, (open - base) / CONNECTIONS);
        sample_add(&w->session, (attached - open) / SESSIONS);
        return 0;
}

static void tell(json_t *extra, const char *name, struct sample *s, double bar) {
        json_t *o = bench_spread(s);
        char named[48];
        bench_put(extra, name, o);
        snprintf(named, sizeof(named), "%s_bar", name);
        bench_put(extra, named, json_real(bar));
        snprintf(named, sizeof(named), "%s_met", name);
        bench_put(extra, named, json_boolean(sample_median(s) <= bar));
}

static int run(const struct bench_options *o, struct servers *s, struct bench_result *ret) {
        struct weights w = {0};
        int r = servers_start_redis(s);

        for (unsigned i = 0; i < o->rounds && r == 0; i++)
                r = run_round(s, &w);
        if (r == 0) {
                ret->value = sample_median(&w.base);
                ret->reference = BASE_BAR;
                tell(ret->extra, "base_bytes", &w.base, BASE_BAR);
                tell(ret->extra, "session_bytes", &w.session, SESSION_BAR);
                tell(ret->extra, "connection_bytes", &w.connection, CONNECTION_BAR);
                bench_put(ret->extra, "sessions", json_integer(SESSIONS));
                bench_put(ret->extra, "connections", json_integer(CONNECTIONS));
        }
        sample_deinit(&w.base);
        sample_deinit(&w.connection);
        sample_deinit(&w.session);
        return r;
}

const struct bench bench_footprint = {
        .name = "footprint",
        .unit = "bytes",
        .summary = "the broker's memory (PSS) at its start against 8 MiB; per session and connection in extra",
        .at_most = true,
        .bar = 1,
        .own_broker = true,
        .run = run,
};

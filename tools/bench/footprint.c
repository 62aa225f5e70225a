/* SPDX-License-Identifier: MIT */
/*
 * footprint: what the broker weighs, as PSS (its own pages, and its share of those it shares): at its start with
 * thirteen databases configured; what each of 260 open connections adds; what each of 1,000 sessions adds to that, after
 * its 10,000 commands.
 */
#include <inttypes.h>
#include <string.h>

#include <base/cleanup.h>
#include <lessor.h>

#include "bench.h"
#include "crew.h"

enum { DATABASES = 13, PER_DATABASE = 20, CONNECTIONS = DATABASES * PER_DATABASE, PROCESSES = 20, HANDLES = 50 };
enum { SESSIONS = PROCESSES * HANDLES, BASE_BAR = 8 << 20, SESSION_BAR = 16 << 10, CONNECTION_BAR = 4 << 10 };
/* A session's life in ten jobs; in each some commands of their own, the others in pipes: ten million, one by one, take minutes. */
enum { COMMANDS = 10000, TENTHS = 10, SINGLY = 20, PIPED = 98 };

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

enum job { ATTACH, WORK };

static lessor *handles[HANDLES]; /* of each worker */
static lessor_db *databases[HANDLES];

static void attach(struct crew *c, unsigned self) {
        lessor_error e;
        for (unsigned i = 0; i < HANDLES; i++)
                if (lessor_open(c->servers->broker_socket, &handles[i]) < 0 ||
                    lessor_database(handles[i], names[i % DATABASES], &databases[i], &e) != 0)
                        crew_trouble(c, self, "session %u: %s", i, e.text);
}

static bool expect(redisReply *reply, const char *text) {
        bool ok = reply && reply->str && strcmp(reply->str, text) == 0;
        freeReplyObject(reply);
        return ok;
}

/* SET and GET in turn, by one connection: the GETs must give what was set just before. */
static void work_by_pipe(struct crew *c, unsigned self, lessor_db *db, const char *key, const char *value) {
        lessor_pipe *pipe = lessor_pipe_new(db, 0);
        redisReply **replies = NULL;
        lessor_error e = {.text = "out of memory"};
        size_t n = 0;

        for (unsigned i = 0; i < PIPED && pipe; i++)
                if (i % 2 ? lessor_pipe_add(pipe, "GET %s", key) : lessor_pipe_add(pipe, "SET %s %s", key, value))
                        crew_trouble(c, self, "a pipe cannot take its command");
        if (!pipe || lessor_pipe_run(pipe, 30000, &replies, &n, &e) != 0)
                crew_trouble(c, self, "%s", e.text);
        for (size_t i = 0; i < n; i++)
                crew_member(c, self)->wrong += !replies[i]->str || strcmp(replies[i]->str, i % 2 ? value : "OK") != 0;
        crew_member(c, self)->all += n;
        lessor_pipe_replies_free(replies, n);
        lessor_pipe_free(pipe);
}

static void work_singly(struct crew *c, unsigned self, lessor_db *db, const char *key, const char *value) {
        lessor_error e = {0};
        for (unsigned i = 0; i < SINGLY; i += 2) {
                crew_member(c, self)->wrong += !expect(lessor_command(db, &e, "SET %s %s", key, value), "OK");
                crew_member(c, self)->wrong += !expect(lessor_command(db, &e, "GET %s", key), value);
                crew_member(c, self)->all += 2;
        }
        if (e.code)
                crew_trouble(c, self, "%s", e.text);
}

/* What a session is used for in its life: commands of their own and whole pipes. One job is a tenth of it. */
static void work(struct crew *c, unsigned self, unsigned job) {
        if (job == ATTACH) {
                attach(c, self);
                return;
        }
        for (unsigned i = 0; i < HANDLES && !crew_member(c, self)->trouble[0]; i++) {
                char key[48], value[96];
                snprintf(key, sizeof(key), "lessor:bench:%d:%u", (int)getpid(), i);
                snprintf(value, sizeof(value), "%s of worker %u", key, self);
                work_singly(c, self, databases[i], key, value);
                for (unsigned n = SINGLY; n < COMMANDS / TENTHS; n += PIPED)
                        work_by_pipe(c, self, databases[i], key, value);
        }
}

static int do_job(struct crew *c, enum job job) {
        crew_begin(c, job);
        return crew_finish(c);
}

static bool all_attached(const struct lessor_status *status, void *argument) {
        return lessor_status_word(&status->header->sessions) == SESSIONS;
}

static int pss_with_sessions(struct servers *s, double *ret_attached, double *ret_worked) {
        struct crew c;
        uint64_t commands = 0;
        int r = crew_start(&c, s, PROCESSES, 0, work, NULL);

        if (r == 0)
                r = do_job(&c, ATTACH);
        if (r == 0)
                r = servers_wait_status(s, all_attached, NULL);
        if (r == 0)
                r = pss(s, ret_attached);
        for (unsigned i = 0; i < TENTHS && r == 0; i++) {
                r = do_job(&c, WORK);
                commands += crew_sum(&c, offsetof(struct crew_member, all));
        }
        if (r == 0 && commands != (uint64_t)SESSIONS * COMMANDS)
                r = servers_fail(s, -EIO, "the sessions said %" PRIu64 " commands, not %u each", commands, COMMANDS);
        if (r == 0)
                r = pss(s, ret_worked);
        crew_end(&c);
        return r;
}

/* ---------------------------------------------------------------------------------------------------------------- */

struct weights {
        struct sample base, connection, attached, session;
};

static int run_round(struct servers *s, struct weights *w) {
        double base, open, attached, worked;
        int r = start(s);
        if (r == 0)
                r = pss(s, &base);
        if (r == 0)
                r = open_connections(s);
        if (r == 0)
                r = pss(s, &open);
        if (r == 0)
                r = pss_with_sessions(s, &attached, &worked);
        if (r < 0)
                return r; /* the broker's last words are wanted */
        servers_stop_broker(s);
        sample_add(&w->base, base);
        sample_add(&w->connection, (open - base) / CONNECTIONS);
        sample_add(&w->attached, (attached - open) / SESSIONS);
        sample_add(&w->session, (worked - open) / SESSIONS);
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
                bench_put(ret->extra, "session_bytes_attached", bench_spread(&w.attached));
                tell(ret->extra, "connection_bytes", &w.connection, CONNECTION_BAR);
                bench_put(ret->extra, "sessions", json_integer(SESSIONS));
                bench_put(ret->extra, "commands_per_session", json_integer(COMMANDS));
                bench_put(ret->extra, "connections", json_integer(CONNECTIONS));
        }
        sample_deinit(&w.base);
        sample_deinit(&w.connection);
        sample_deinit(&w.attached);
        sample_deinit(&w.session);
        return r;
}

const struct bench bench_footprint = {
        .name = "footprint",
        .own_arm = "base_bytes",
        .limit_s = 150,
        .unit = "bytes",
        .summary = "the broker's memory (PSS) at its start against 8 MiB; per session and connection in extra",
        .at_most = true,
        .bar = 1,
        .own_broker = true,
        .run = run,
};

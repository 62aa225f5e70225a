/* SPDX-License-Identifier: MIT */
/*
 * direct: what a lease costs once it is held. One worker says SET and GET in turn, on a lease and on a private hiredis
 * connection to the same server, in slices of some 10 ms, ABBA; the worker on one CPU, Redis on another, where there are two.
 */
#include <string.h>
#include <sys/resource.h>

#include <base/clock.h>
#include <lessor.h>

#include "bench.h"
#include "syscalls.h"

enum { SLICE_PAIRS = 200, SLICES = 40, TRACED_PAIRS = 500 };

static const char VALUE[] = "0123456789abcdef0123456789abcdef";

struct side {
        const char *name;
        bool (*pair)(struct side *side); /* one SET, one GET; false: an error, or a wrong reply */
        redisContext *connection;
        lessor_lease *lease;
        char key[48];
        struct sample slices, rounds; /* operations per second */
        double redis_us, client_us, operations;
        lessor_error error; /* of the lease */
};

static bool expect(redisReply *reply, const char *text) {
        bool ok = reply && reply->str && strcmp(reply->str, text) == 0;
        freeReplyObject(reply);
        return ok;
}

static bool reference_pair(struct side *s) {
        return expect(redisCommand(s->connection, "SET %s %s", s->key, VALUE), "OK") &&
               expect(redisCommand(s->connection, "GET %s", s->key), VALUE);
}

static bool subject_pair(struct side *s) {
        return expect(lessor_lease_command(s->lease, &s->error, "SET %s %s", s->key, VALUE), "OK") &&
               expect(lessor_lease_command(s->lease, &s->error, "GET %s", s->key), VALUE);
}

static double own_cpu_us(void) {
        struct rusage u;
        getrusage(RUSAGE_SELF, &u);
        return 1e6 * (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
               (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* `admin` may be NULL: Redis' CPU is not asked for then. */
static int slice(struct servers *s, struct side *side, redisContext *admin) {
        double redis = admin ? servers_redis_cpu_us(admin) : 0, own = own_cpu_us();
        uint64_t start = clock_now(), end;

        for (int i = 0; i < SLICE_PAIRS; i++)
                if (!side->pair(side))
                        return servers_fail(s, -EIO, "the %s failed or gave a wrong reply: %s", side->name,
                                            side->lease ? side->error.text : side->connection->errstr);
        end = clock_now();
        side->client_us += own_cpu_us() - own;
        side->redis_us += (admin ? servers_redis_cpu_us(admin) : 0) - redis;
        side->operations += 2 * SLICE_PAIRS;
        sample_add(&side->slices, 2 * SLICE_PAIRS * 1e9 / (double)(end - start));
        return 0;
}

static int run_round(struct servers *s, struct side *reference, struct side *subject, redisContext *admin,
                     struct sample *paired) {
        sample_clear(&reference->slices);
        sample_clear(&subject->slices);
        for (int i = 0; i < SLICES; i++) {
                struct side *first = i & 1 ? subject : reference, *second = i & 1 ? reference : subject;
                int r = slice(s, first, admin);
                if (r == 0)
                        r = slice(s, second, admin);
                if (r < 0)
                        return r;
                sample_add(paired, subject->slices.values[i] / reference->slices.values[i]);
        }
        sample_add(&reference->rounds, sample_median(&reference->slices));
        sample_add(&subject->rounds, sample_median(&subject->slices));
        return 0;
}

/* ---- system calls, in a traced child: of the reference by a connection of the child, of the subject by a lease -- */

struct traced {
        const char *socket;
        struct side *side; /* connected anew in the child */
};

static void marked_pairs(struct side *side) {
        if (!side->pair(side))
                _exit(1);
        syscalls_mark();
        for (int i = 0; i < TRACED_PAIRS; i++)
                if (!side->pair(side))
                        _exit(1);
        syscalls_mark();
}

static void traced_work(void *argument) {
        struct traced *t = argument;
        lessor *l;
        lessor_db *db;
        struct servers ignored;

        if (lessor_open(t->socket, &l) < 0 || lessor_database(l, NULL, &db, NULL) != 0)
                _exit(1);
        lessor_lease *lease = lessor_acquire(db, 5000, NULL);
        if (!lease)
                _exit(1);
        if (t->side->lease)
                t->side->lease = lease;
        else
                t->side->connection = bench_connect_like(&ignored, lessor_context(lease)->fd);
        marked_pairs(t->side);
}

static json_t *syscalls_per_op(const char *socket, const struct side *side) {
        struct side copy = *side;
        int64_t n = syscalls_count(traced_work, &(struct traced){socket, &copy});
        return n < 0 ? json_null() : json_real((double)n / (2 * TRACED_PAIRS));
}

/* ---------------------------------------------------------------------------------------------------------------- */

static void tell(struct side *reference, struct side *subject, struct sample *paired, double connections,
                 const char *socket, json_t *extra) {
        bench_put(extra, "paired_ratio",
                  json_pack("{s:f, s:f, s:f}", "median", sample_median(paired), "p25", sample_quantile(paired, 0.25),
                            "p75", sample_quantile(paired, 0.75)));
        bench_put(extra, "subject_ops_per_s", bench_spread(&subject->rounds));
        bench_put(extra, "reference_ops_per_s", bench_spread(&reference->rounds));
        bench_put(extra, "redis_cpu_us_per_op", json_real(subject->redis_us / subject->operations));
        bench_put(extra, "reference_redis_cpu_us_per_op", json_real(reference->redis_us / reference->operations));
        bench_put(extra, "client_cpu_us_per_op", json_real(subject->client_us / subject->operations));
        bench_put(extra, "reference_client_cpu_us_per_op", json_real(reference->client_us / reference->operations));
        bench_put(extra, "syscalls_per_op", syscalls_per_op(socket, subject));
        bench_put(extra, "reference_syscalls_per_op", syscalls_per_op(socket, reference));
        bench_put(extra, "redis_connections", json_real(connections));
}

static int measure(const struct bench_options *o, struct servers *s, struct side *reference, struct side *subject,
                   struct bench_result *ret, const char *socket) {
        redisContext *admin = bench_connect_like(s, reference->connection->fd);
        struct sample paired = {0};
        int r = admin ? 0 : -EIO;

        for (unsigned i = 0; i < o->rounds && r == 0; i++)
                r = run_round(s, reference, subject, admin, &paired);
        if (r == 0) {
                ret->value = sample_median(&subject->rounds);
                ret->reference = sample_median(&reference->rounds);
                tell(reference, subject, &paired, servers_redis_connections(admin), socket, ret->extra);
                bench_put(ret->extra, "worker_cpu", json_integer(s->cpu_client));
                bench_put(ret->extra, "redis_cpu", o->socket ? json_null() : json_integer(s->cpu_server));
        }
        if (admin)
                redisFree(admin);
        sample_deinit(&paired);
        sample_deinit(&reference->slices);
        sample_deinit(&reference->rounds);
        sample_deinit(&subject->slices);
        sample_deinit(&subject->rounds);
        return r;
}

static int with_database(const struct bench_options *o, struct servers *s, struct bench_result *ret, lessor_db *db,
                         const char *socket) {
        struct side reference = {.name = "private connection", .pair = reference_pair};
        struct side subject = {.name = "lease", .pair = subject_pair};
        lessor_error e;
        int r = -EIO;

        snprintf(subject.key, sizeof(subject.key), "lessor:bench:%d", (int)getpid());
        memcpy(reference.key, subject.key, sizeof(subject.key));
        subject.lease = lessor_acquire(db, 5000, &e);
        if (!subject.lease)
                return servers_fail(s, e.code, "cannot lease: %s", e.text);
        reference.connection = bench_connect_like(s, lessor_context(subject.lease)->fd);
        if (reference.connection) {
                servers_pin(0, s->cpu_client);
                r = measure(o, s, &reference, &subject, ret, socket);
                freeReplyObject(redisCommand(reference.connection, "DEL %s", subject.key));
                redisFree(reference.connection);
        }
        lessor_release(subject.lease);
        return r;
}

static int run(const struct bench_options *o, struct servers *s, struct bench_result *ret) {
        const char *socket = bench_broker(o, s, 4);
        lessor *l;
        lessor_db *db;
        lessor_error e;
        int r;

        if (!socket)
                return -EIO;
        r = lessor_open(socket, &l);
        if (r < 0)
                return servers_fail(s, r, "%s: %s", socket, strerror(-r));
        if (lessor_database(l, NULL, &db, &e) != 0)
                r = servers_fail(s, e.code, "cannot attach: %s", e.text);
        else
                r = with_database(o, s, ret, db, socket);
        lessor_close(l);
        return r;
}

const struct bench bench_direct = {
        .name = "direct",
        .unit = "ops/s",
        .summary = "SET and GET on a held lease, against a private hiredis connection",
        .bar = 0.97,
        .run = run,
};

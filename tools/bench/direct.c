/* SPDX-License-Identifier: MIT */
/*
 * direct: what a lease costs once it is held. One worker says SET and GET in turn, on a lease and on a private hiredis
 * connection to the same server, in slices of a few milliseconds, ABBA.
 *
 * In four situations, each the same for both sides, because they answer differently: by Unix socket and by TCP, Redis
 * on another CPU than the worker, as it mostly is (unix_two_cpus is the ratio told), and both on one CPU, where no
 * wake-up from CPU to CPU hides what the client itself costs. With --socket there is only the one that is found.
 *
 * The machine's speed drifts more from second to second than the sides differ: what is told as the subject's figure is
 * the reference's median times the median ratio of neighbouring slices.
 */
#include <string.h>
#include <sys/resource.h>

#include <base/clock.h>
#include <lessor.h>

#include "bench.h"
#include "syscalls.h"

enum { SLICE_PAIRS = 50, SLICES = 50, SLICES_TOLD = 100, TRACED_PAIRS = 500, WARM_PAIRS = 10 };

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

struct placement {
        const char *name, *database;
        int cpu;    /* of Redis; -1: wherever it is */
        int slices; /* by round */
        struct side reference, subject;
        struct sample paired;       /* subject / reference of slices side by side */
        struct sample paired_round; /* their medians, by round */
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

static int slice(struct servers *s, struct side *side, redisContext *admin, double asking_us) {
        double redis = servers_redis_cpu_us(admin), own = own_cpu_us();
        uint64_t start = clock_now(), end;

        for (int i = 0; i < SLICE_PAIRS; i++)
                if (!side->pair(side))
                        return servers_fail(s, -EIO, "the %s failed or gave a wrong reply: %s", side->name,
                                            side->lease ? side->error.text : side->connection->errstr);
        end = clock_now();
        side->client_us += own_cpu_us() - own;
        side->redis_us += servers_redis_cpu_us(admin) - redis - asking_us;
        side->operations += 2 * SLICE_PAIRS;
        sample_add(&side->slices, 2 * SLICE_PAIRS * 1e9 / (double)(end - start));
        return 0;
}

static int run_round(struct servers *s, struct placement *p, redisContext *admin, double asking_us) {
        struct sample ratios = {0};
        int r = 0;

        if (p->cpu >= 0)
                servers_pin(s->redis, p->cpu);
        for (int i = 0; i < p->slices && r == 0; i++) {
                struct side *first = i & 1 ? &p->subject : &p->reference, *second = i & 1 ? &p->reference : &p->subject;
                r = slice(s, first, admin, asking_us);
                if (r == 0)
                        r = slice(s, second, admin, asking_us);
                if (r == 0)
                        sample_add(&ratios, p->subject.slices.values[i] / p->reference.slices.values[i]);
        }
        for (size_t i = 0; i < ratios.n; i++)
                sample_add(&p->paired, ratios.values[i]);
        sample_add(&p->paired_round, sample_median(&ratios));
        sample_add(&p->reference.rounds, sample_median(&p->reference.slices));
        sample_add(&p->subject.rounds, sample_median(&p->subject.slices));
        sample_clear(&p->reference.slices);
        sample_clear(&p->subject.slices);
        sample_deinit(&ratios);
        return r;
}

/* By a lease of its own: one whose raw context was ever asked for is treated with more care, and is slower. */
static redisContext *connect_like_a_lease(struct servers *s, lessor_db *db) {
        lessor_error e;
        lessor_lease *lease = lessor_acquire(db, 5000, &e);
        redisContext *raw = lease ? lessor_context(lease) : NULL, *connection;

        connection = raw ? bench_connect_like(s, raw->fd) : NULL;
        if (!raw)
                servers_fail(s, e.code, "cannot lease: %s", e.text);
        lessor_release(lease);
        return connection;
}

/* ---- system calls, in a traced child: of the reference by a connection of the child, of the subject by a lease -- */

struct traced {
        const char *socket, *database;
        struct side *side; /* connected anew in the child */
};

static void marked_pairs(struct side *side) {
        for (int i = 0; i < WARM_PAIRS + TRACED_PAIRS; i++) {
                if (i == WARM_PAIRS)
                        syscalls_mark();
                if (!side->pair(side))
                        _exit(1);
        }
        syscalls_mark();
}

static void traced_work(void *argument) {
        struct traced *t = argument;
        lessor *l;
        lessor_db *db;
        struct servers ignored;

        if (lessor_open(t->socket, &l) < 0 || lessor_database(l, t->database, &db, NULL) != 0)
                _exit(1);
        if (t->side->lease)
                t->side->lease = lessor_acquire(db, 5000, NULL);
        else
                t->side->connection = connect_like_a_lease(&ignored, db);
        if (!t->side->lease && !t->side->connection)
                _exit(1);
        marked_pairs(t->side);
}

static json_t *syscalls_per_op(const char *socket, const char *database, const struct side *side) {
        struct side copy = *side;
        int64_t n = syscalls_count(traced_work, &(struct traced){socket, database, &copy});
        return n < 0 ? json_null() : json_real((double)n / (2 * TRACED_PAIRS));
}

/* ---------------------------------------------------------------------------------------------------------------- */

static json_t *tell_placement(struct placement *p, const char *socket) {
        json_t *o = json_object();
        double ours = p->subject.operations, theirs = p->reference.operations;
        bench_put(o, "ratio", bench_spread(&p->paired_round));
        bench_put(o, "ratio_p25", json_real(sample_quantile(&p->paired, 0.25)));
        bench_put(o, "ratio_p75", json_real(sample_quantile(&p->paired, 0.75)));
        bench_put(o, "ops_per_s", bench_spread(&p->subject.rounds));
        bench_put(o, "reference_ops_per_s", bench_spread(&p->reference.rounds));
        bench_put(o, "redis_cpu_us_per_op", json_real(p->subject.redis_us / ours));
        bench_put(o, "reference_redis_cpu_us_per_op", json_real(p->reference.redis_us / theirs));
        bench_put(o, "client_cpu_us_per_op", json_real(p->subject.client_us / ours));
        bench_put(o, "reference_client_cpu_us_per_op", json_real(p->reference.client_us / theirs));
        bench_put(o, "syscalls_per_op", syscalls_per_op(socket, p->database, &p->subject));
        bench_put(o, "reference_syscalls_per_op", syscalls_per_op(socket, p->database, &p->reference));
        return o;
}

static int placement_init(struct placement *p, struct servers *s, lessor *l) {
        lessor_db *db;
        lessor_error e;

        p->slices = p->slices ? p->slices : SLICES;
        p->reference = (struct side){.name = "private connection", .pair = reference_pair};
        p->subject = (struct side){.name = "lease", .pair = subject_pair};
        snprintf(p->subject.key, sizeof(p->subject.key), "lessor:bench:%d", (int)getpid());
        memcpy(p->reference.key, p->subject.key, sizeof(p->subject.key));
        if (lessor_database(l, p->database, &db, &e) != 0)
                return servers_fail(s, e.code, "cannot attach: %s", e.text);
        p->reference.connection = connect_like_a_lease(s, db);
        if (!p->reference.connection)
                return -EIO;
        p->subject.lease = lessor_acquire(db, 5000, &e);
        return p->subject.lease ? 0 : servers_fail(s, e.code, "cannot lease: %s", e.text);
}

static void placement_deinit(struct placement *p) {
        if (p->reference.connection) {
                freeReplyObject(redisCommand(p->reference.connection, "DEL %s", p->reference.key));
                redisFree(p->reference.connection);
        }
        lessor_release(p->subject.lease);
        sample_deinit(&p->reference.slices);
        sample_deinit(&p->reference.rounds);
        sample_deinit(&p->subject.slices);
        sample_deinit(&p->subject.rounds);
        sample_deinit(&p->paired);
        sample_deinit(&p->paired_round);
}

enum { PLACEMENTS = 4 };

/* Which can be had here, the one whose ratio is told first; returns how many. */
static unsigned choose_placements(const struct bench_options *o, const struct servers *s, struct placement *ret) {
        int one = s->cpu_client, other = s->cpu_server;
        unsigned n = 0;

        if (o->socket)
                ret[n++] = (struct placement){.name = "as_it_is", .cpu = -1};
        else if (one != other)
                ret[n++] = (struct placement){.name = "unix_two_cpus", .cpu = other};
        if (!o->socket)
                ret[n++] = (struct placement){.name = "unix_one_cpu", .cpu = one};
        if (!o->socket && one != other)
                ret[n++] = (struct placement){.name = "tcp_two_cpus", .cpu = other, .database = "tcp"};
        if (!o->socket)
                ret[n++] = (struct placement){.name = "tcp_one_cpu", .cpu = one, .database = "tcp"};
        ret[0].slices = SLICES_TOLD; /* a wake-up from CPU to CPU varies more than what is measured */
        return n;
}

static void tell(struct placement *p, unsigned n, const char *socket, redisContext *admin, struct bench_result *ret) {
        ret->reference = sample_median(&p[0].reference.rounds);
        ret->value = ret->reference * sample_median(&p[0].paired);
        bench_put(ret->extra, "placement", json_string(p[0].name));
        bench_put(ret->extra, "redis_connections", json_real(servers_redis_connections(admin)));
        for (unsigned i = 0; i < n; i++)
                bench_put(ret->extra, p[i].name, tell_placement(&p[i], socket));
        bench_put(ret->extra, "syscalls_per_op",
                  json_incref(json_object_get(json_object_get(ret->extra, p[0].name), "syscalls_per_op")));
}

static int measure(const struct bench_options *o, struct servers *s, lessor *l, const char *socket,
                   struct bench_result *ret) {
        struct placement placements[PLACEMENTS] = {0};
        unsigned n = choose_placements(o, s, placements);
        redisContext *admin = NULL;
        double asking_us;
        int r = 0;

        for (unsigned i = 0; i < n && r == 0; i++)
                r = placement_init(&placements[i], s, l);
        admin = r == 0 ? bench_connect_like(s, placements[0].reference.connection->fd) : NULL;
        if (!admin)
                r = -EIO;
        servers_pin(0, s->cpu_client);
        asking_us = admin ? servers_redis_cpu_of_asking_us(admin) : 0;
        for (unsigned i = 0; i < o->rounds * n && r == 0; i++)
                r = run_round(s, &placements[i % n], admin, asking_us);
        if (r == 0)
                tell(placements, n, socket, admin, ret);
        if (admin)
                redisFree(admin);
        for (unsigned i = 0; i < n; i++)
                placement_deinit(&placements[i]);
        return r;
}

static int start(struct servers *s) {
        char config[512];
        int r = servers_start_redis(s);

        snprintf(config, sizeof(config),
                 "databases:\n  main: {db: 0, unix_socket: %s}\n  tcp: {db: 0, host: 127.0.0.1, port: %u}\n",
                 s->redis_socket, s->redis_port);
        return r < 0 ? r : servers_start_broker(s, config);
}

static int run(const struct bench_options *o, struct servers *s, struct bench_result *ret) {
        const char *socket = o->socket ? o->socket : s->broker_socket;
        lessor *l;
        int r = o->socket ? 0 : start(s);

        if (r < 0)
                return r;
        if (lessor_open(socket, &l) < 0)
                return servers_fail(s, -EINVAL, "%s cannot be the path of a socket", socket);
        r = measure(o, s, l, socket, ret);
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

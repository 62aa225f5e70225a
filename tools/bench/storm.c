/* SPDX-License-Identifier: MIT */
/*
 * storm: a host whose 1,000 workers start at once. They are forked beforehand and wait; let go, each attaches to a broker
 * that has not dialled yet, asks its first command and keeps what it has. The reference: each connects to Redis and asks.
 * What is compared is the time until the last has its answer.
 *
 * A broker of its own for each storm. The values asked for name key and worker and are checked. That the cap held is
 * asked of both who can tell: the broker's own peak, and Redis' list of clients while all workers are attached.
 */
#include <string.h>

#include <base/cleanup.h>
#include <base/clock.h>
#include <lessor.h>

#include "bench.h"
#include "crew.h"
#include "usage.h"

enum { WORKERS = 1000, CAP = 20 };
enum job { UNIX, TCP, PLACEMENTS }; /* how Redis is reached */

static void name_value(unsigned worker, char key[48], char value[96]) {
        snprintf(key, 48, "lessor:bench:storm:%u", worker);
        snprintf(value, 96, "%s of worker %u", key, worker);
}

static int write_values(redisContext *admin, struct servers *s) {
        char key[48], value[96];
        redisReply *reply = NULL;

        for (unsigned i = 0; i < WORKERS; i++) {
                name_value(i, key, value);
                redisAppendCommand(admin, "SET %s %s", key, value);
        }
        for (unsigned i = 0; i < WORKERS; i++) {
                if (redisGetReply(admin, (void **)&reply) != REDIS_OK)
                        return servers_fail(s, -EIO, "SET: %s", admin->errstr);
                freeReplyObject(reply);
        }
        return 0;
}

/* ---- workers --------------------------------------------------------------------------------------------------- */

static void check_reply(struct crew *c, unsigned self, redisReply *reply, const char *value, const char *why) {
        if (!reply)
                crew_trouble(c, self, "%s", why);
        else
                crew_member(c, self)->wrong += !reply->str || strcmp(reply->str, value) != 0;
        freeReplyObject(reply);
}

static void by_lessor(struct crew *c, unsigned self, unsigned job) {
        char key[48], value[96];
        lessor_db *db;
        lessor_error e;

        name_value(self, key, value);
        if (lessor_database(c->argument, job == TCP ? "tcp" : "unix", &db, &e) != 0)
                crew_trouble(c, self, "cannot attach: %s", e.text);
        else
                check_reply(c, self, lessor_command(db, &e, "GET %s", key), value, e.text);
}

static void directly(struct crew *c, unsigned self, unsigned job) {
        struct servers *s = c->servers;
        redisContext *connection =
                job == TCP ? redisConnect("127.0.0.1", (int)s->redis_port) : redisConnectUnix(s->redis_socket);
        char key[48], value[96];

        name_value(self, key, value);
        if (!connection || connection->err)
                crew_trouble(c, self, "cannot connect: %s", connection ? connection->errstr : "out of memory");
        else
                check_reply(c, self, redisCommand(connection, "GET %s", key), value, connection->errstr);
}

/* ---- one storm ------------------------------------------------------------------------------------------------- */

struct arm {
        crew_work *work;
        struct sample each;                            /* of one storm, ms */
        struct sample p50, all;                        /* by round */
        struct sample workers_us, broker_us, redis_us; /* CPU for each worker, by round */
};

static double cpu_us(pid_t pid) {
        struct usage u = {0};
        usage_add(pid, &u);
        return u.cpu_us;
}

static double crew_cpu_us(struct crew *c) {
        double sum = 0;
        for (unsigned i = 0; i < c->n; i++)
                sum += cpu_us(c->pids[i]);
        return sum;
}

static void collect(struct arm *a, struct crew *c) {
        sample_clear(&a->each);
        for (unsigned i = 0; i < c->n; i++)
                sample_add(&a->each, (double)(crew_member(c, i)->ended_ns - crew_begun_ns(c)) / NS_PER_MS);
        sample_add(&a->p50, sample_median(&a->each));
        sample_add(&a->all, sample_most(&a->each));
}

/* `meanwhile` is called while all workers still have what they got. */
static int storm(struct servers *s, struct arm *a, enum job job, lessor *handle,
                 int (*meanwhile)(struct servers *, void *), void *argument) {
        struct crew c = {0};
        int r = crew_start(&c, s, WORKERS, 0, a->work, handle);

        double workers = crew_cpu_us(&c), broker = cpu_us(s->broker), redis = cpu_us(s->redis);
        if (r == 0) {
                crew_begin(&c, job);
                r = crew_finish(&c);
        }
        if (r == 0) {
                sample_add(&a->workers_us, (crew_cpu_us(&c) - workers) / WORKERS);
                sample_add(&a->broker_us, (cpu_us(s->broker) - broker) / WORKERS);
                sample_add(&a->redis_us, (cpu_us(s->redis) - redis) / WORKERS);
                collect(a, &c);
        }
        if (r == 0 && meanwhile)
                r = meanwhile(s, argument);
        crew_end(&c);
        return r;
}

/* ---- the cap --------------------------------------------------------------------------------------------------- */

struct cap {
        redisContext *admin;
        double before, peak, listed, accepted; /* connections; the last three the most of all rounds */
};

static double listed_clients(redisContext *admin) {
        redisReply *reply = redisCommand(admin, "CLIENT LIST");
        double n = 0;
        for (const char *at = reply ? reply->str : NULL; at && (at = strstr(at, "name=lessor:")); at++)
                n++;
        freeReplyObject(reply);
        return n;
}

static void most(double *of, double value) { *of = value > *of ? value : *of; }

static bool all_counted(const struct lessor_status *status, void *argument) {
        struct lessor_status_database d;
        for (unsigned i = 0; i < lessor_status_databases(status); i++) {
                if (lessor_status_read_database(status, i, LESSOR_STATUS_NO_HISTOGRAMS, &d) != 0)
                        return false;
                most(argument, (double)d.peak_connections);
        }
        return lessor_status_word(&status->header->sessions) == WORKERS;
}

static int look_at_cap(struct servers *s, void *argument) {
        struct cap *cap = argument;
        int r = servers_wait_status(s, all_counted, &cap->peak);

        most(&cap->listed, listed_clients(cap->admin));
        most(&cap->accepted, servers_redis_connections(cap->admin) - cap->before);
        if (r == 0 && (cap->peak > CAP || cap->listed > CAP))
                return servers_fail(s, -EIO, "the cap of %d did not hold: %.0f open at once, %.0f seen by Redis", CAP,
                                    cap->peak, cap->listed);
        return r;
}

static int start_broker(struct servers *s) {
        char config[320];
        int r;

        snprintf(config, sizeof(config),
                 "max_connections: %d\ndatabases:\n  unix: {db: 0, unix_socket: %s}\n"
                 "  tcp: {db: 0, host: 127.0.0.1, port: %u}\n",
                 CAP, s->redis_socket, s->redis_port);
        r = servers_start_broker(s, config);
        if (r == 0)
                servers_unpin(s->broker);
        return r;
}

static int lessor_storm(struct servers *s, struct arm *a, enum job job, struct cap *cap) {
        lessor *l;
        int r = start_broker(s);

        if (r == 0 && lessor_open(s->broker_socket, &l) < 0)
                r = servers_fail(s, -ENOMEM, "out of memory");
        if (r < 0)
                return r;
        cap->before = servers_redis_connections(cap->admin);
        r = storm(s, a, job, l, look_at_cap, cap);
        lessor_close(l);
        if (r == 0)
                servers_stop_broker(s); /* else its last words are wanted */
        return r;
}

/* ---------------------------------------------------------------------------------------------------------------- */

/* Redis by a Unix socket or by TCP; the same for both sides. */
struct placement {
        const char *name;
        enum job job;
        struct arm ours, theirs;
        struct sample ratios;
};

static int run_round(struct servers *s, struct placement *p, struct cap *cap, bool ours_first) {
        int r = ours_first ? lessor_storm(s, &p->ours, p->job, cap) : 0;
        if (r == 0)
                r = storm(s, &p->theirs, p->job, NULL, NULL, NULL);
        if (r == 0 && !ours_first)
                r = lessor_storm(s, &p->ours, p->job, cap);
        if (r == 0)
                sample_add(&p->ratios, p->ours.all.values[p->ratios.n] / p->theirs.all.values[p->ratios.n]);
        return r;
}

static json_t *tell_cpu(struct arm *a) {
        return json_pack("{s:f, s:f, s:f}", "workers", sample_median(&a->workers_us), "broker",
                         sample_median(&a->broker_us), "redis", sample_median(&a->redis_us));
}

static json_t *tell_placement(struct placement *p) {
        json_t *o = json_object();
        bench_put(o, "ratio", bench_spread(&p->ratios));
        bench_put(o, "last_ms", bench_spread(&p->ours.all));
        bench_put(o, "reference_last_ms", bench_spread(&p->theirs.all));
        bench_put(o, "median_worker_ms", bench_spread(&p->ours.p50));
        bench_put(o, "reference_median_worker_ms", bench_spread(&p->theirs.p50));
        bench_put(o, "cpu_us_per_worker", tell_cpu(&p->ours));
        bench_put(o, "reference_cpu_us_per_worker", tell_cpu(&p->theirs));
        return o;
}

static void tell(struct placement *p, const struct cap *cap, struct bench_result *ret) {
        json_t *x = ret->extra;

        ret->reference = sample_median(&p[0].theirs.all);
        ret->value = ret->reference * sample_median(&p[0].ratios);
        bench_put(x, "placement", json_string(p[0].name));
        for (unsigned i = 0; i < PLACEMENTS; i++)
                bench_put(x, p[i].name, tell_placement(&p[i]));
        bench_put(x, "workers", json_integer(WORKERS));
        bench_put(x, "cap", json_integer(CAP));
        bench_put(x, "peak_connections", json_real(cap->peak));
        bench_put(x, "redis_clients", json_real(cap->listed));
        bench_put(x, "redis_accepted", json_real(cap->accepted));
        bench_put(x, "cap_held", json_true()); /* or we should not be here */
        bench_put(x, "wrong_replies", json_integer(0));
}

static void arm_deinit(struct arm *a) {
        struct sample *all[] = {&a->each, &a->p50, &a->all, &a->workers_us, &a->broker_us, &a->redis_us};
        for (size_t i = 0; i < ARRAY_SIZE(all); i++)
                sample_deinit(all[i]);
}

static int measure(const struct bench_options *o, struct servers *s, struct cap *cap, struct bench_result *ret) {
        struct placement p[PLACEMENTS] = {{.name = "unix", .job = UNIX}, {.name = "tcp", .job = TCP}};
        int r = write_values(cap->admin, s);

        for (unsigned i = 0; i < PLACEMENTS; i++) {
                p[i].ours.work = by_lessor;
                p[i].theirs.work = directly;
        }
        for (unsigned i = 0; i < o->rounds * PLACEMENTS && r == 0; i++)
                r = run_round(s, &p[i % PLACEMENTS], cap, i / PLACEMENTS % 2);
        if (r == 0)
                tell(p, cap, ret);
        for (unsigned i = 0; i < PLACEMENTS; i++) {
                arm_deinit(&p[i].ours);
                arm_deinit(&p[i].theirs);
                sample_deinit(&p[i].ratios);
        }
        return r;
}

static int run(const struct bench_options *o, struct servers *s, struct bench_result *ret) {
        struct cap cap = {0};
        int r = servers_start_redis(s);

        if (r < 0)
                return r;
        servers_unpin(s->redis);
        cap.admin = servers_connect(s);
        if (!cap.admin)
                return -EIO;
        r = measure(o, s, &cap, ret);
        redisFree(cap.admin);
        return r;
}

const struct bench bench_storm = {
        .name = "storm",
        .unit = "ms",
        .summary = "1,000 workers attach at once and ask a first command, against as many direct connections",
        .at_most = true,
        .bar = 1,
        .own_broker = true,
        .run = run,
};

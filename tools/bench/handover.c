/* SPDX-License-Identifier: MIT */
/*
 * handover: what it costs to share. 200 worker processes take turns on 20 connections, each lease exclusive, for one
 * command and for ten; the reference are 20 workers with a private connection each. All processes go where the
 * scheduler puts them, as on a host.
 *
 * Three arms, in slices one after the other and back again, each slice's rate set against that of the private arm in
 * the same turn. Commands are SET and GET in turn, of a value that names key, worker and number: a reply that went
 * astray is told from the right one, and makes the benchmark fail.
 */
#include <inttypes.h>
#include <string.h>

#include <base/cleanup.h>
#include <base/clock.h>
#include <lessor.h>

#include "bench.h"
#include "crew.h"
#include "usage.h"

enum { WORKERS = 200, CONNECTIONS = 20, MANY = 10, TURNS = 2, TIMES = 16384 };
enum job { CONNECT, ONE, TEN, PRIVATE };
#define WARM_NS (40 * NS_PER_MS)
#define MEASURE_NS (250 * NS_PER_MS)
#define ONE_BAR 0.35
#define TEN_BAR 0.6
#define P99_BAR 3.0

/* ---- workers --------------------------------------------------------------------------------------------------- */

struct worker {
        struct crew *crew;
        unsigned self;
        struct crew_member *me;
        lessor_db *db;
        lessor_lease *lease;
        redisContext *connection;
        uint64_t number;
        lessor_error error;
};

static struct worker worker; /* each process has one */

static void connect_lessor(struct worker *w) {
        lessor *l = w->crew->argument;
        if (lessor_database(l, NULL, &w->db, &w->error) != 0)
                crew_trouble(w->crew, w->self, "cannot attach: %s", w->error.text);
}

static void connect_private(struct worker *w) {
        w->connection = servers_connect(w->crew->servers);
        if (!w->connection)
                crew_trouble(w->crew, w->self, "%s", w->crew->servers->error);
}

/* By a lease, or by the private connection. */
static redisReply *say(struct worker *w, const char *key, const char *value) {
        bool set = value != NULL;
        if (w->lease && set)
                return lessor_lease_command(w->lease, &w->error, "SET %s %s", key, value);
        if (w->lease)
                return lessor_lease_command(w->lease, &w->error, "GET %s", key);
        return set ? redisCommand(w->connection, "SET %s %s", key, value) : redisCommand(w->connection, "GET %s", key);
}

static bool command(struct worker *w) {
        char key[48], value[96];
        bool set = w->number % 2 == 0;
        redisReply *reply;

        snprintf(key, sizeof(key), "lessor:bench:%d", (int)getpid());
        snprintf(value, sizeof(value), "%s, worker %u, %" PRIu64, key, w->self, w->number++ / 2);
        reply = say(w, key, set ? value : NULL);
        if (!reply) {
                crew_trouble(w->crew, w->self, "%s", w->lease ? w->error.text : w->connection->errstr);
                return false;
        }
        w->me->wrong += !reply->str || strcmp(reply->str, set ? "OK" : value) != 0;
        w->me->all++;
        w->me->operations += crew_phase(w->crew) == CREW_MEASURING;
        freeReplyObject(reply);
        return true;
}

static bool lease_and_use(struct worker *w, unsigned commands) {
        uint64_t start = clock_now();
        bool ok = true;

        w->lease = lessor_acquire(w->db, 5000, &w->error);
        if (!w->lease) {
                crew_trouble(w->crew, w->self, "%s", w->error.text);
                return false;
        }
        if (crew_phase(w->crew) == CREW_MEASURING)
                crew_time(w->crew, w->self, clock_now() - start);
        for (unsigned i = 0; i < commands && ok && crew_phase(w->crew) != CREW_OVER; i++)
                ok = command(w);
        lessor_release(w->lease);
        w->lease = NULL;
        return ok;
}

static void prepare(struct worker *w, struct crew *c, unsigned self) {
        w->crew = c;
        w->self = self;
        w->me = crew_member(c, self);
}

static void work_lessor(struct crew *c, unsigned self, unsigned job) {
        prepare(&worker, c, self);
        if (job == CONNECT)
                connect_lessor(&worker);
        else
                while (crew_phase(c) != CREW_OVER && lease_and_use(&worker, job == ONE ? 1 : MANY))
                        ;
}

static void work_private(struct crew *c, unsigned self, unsigned job) {
        prepare(&worker, c, self);
        if (job == CONNECT)
                connect_private(&worker);
        else
                while (crew_phase(c) != CREW_OVER && command(&worker))
                        ;
}

/* ---- one arm of the comparison --------------------------------------------------------------------------------- */

struct arm {
        const char *name;
        enum job job;
        struct crew *crew;
        struct sample rates, ratios; /* of the slices of a round; against the private arm in the same turn */
        struct sample waits;         /* of a round, in us */
        struct sample rate, ratio;   /* by round, likewise below */
        struct sample p50, p99, most, unfairness;
        struct usage workers, broker, redis;
        double operations, leases;
};

static struct usage usage_of_crew(struct crew *c) {
        struct usage u = {0};
        for (unsigned i = 0; i < c->n; i++)
                usage_add(c->pids[i], &u);
        return u;
}

static struct usage usage_of(pid_t pid) {
        struct usage u = {0};
        usage_add(pid, &u);
        return u;
}

static void used(struct usage *sum, const struct usage *before, struct usage after) {
        after = usage_between(before, &after);
        sum->cpu_us += after.cpu_us;
        sum->switches += after.switches;
}

static void collect(struct arm *a, uint64_t elapsed) {
        a->operations += (double)crew_sum(a->crew, offsetof(struct crew_member, all));
        sample_add(&a->rates,
                   (double)crew_sum(a->crew, offsetof(struct crew_member, operations)) * 1e9 / (double)elapsed);
        for (unsigned i = 0; i < a->crew->n; i++) {
                struct crew_member *m = crew_member(a->crew, i);
                for (size_t t = 0; t < m->n_times; t++)
                        sample_add(&a->waits, (double)m->times[t] / NS_PER_US);
                a->leases += (double)m->n_times;
        }
}

static int slice(struct servers *s, struct arm *a) {
        struct usage workers = usage_of_crew(a->crew), broker = usage_of(s->broker), redis = usage_of(s->redis);
        uint64_t elapsed;
        int r;

        crew_begin(a->crew, a->job);
        elapsed = crew_measure(a->crew, WARM_NS, MEASURE_NS);
        r = crew_finish(a->crew);
        used(&a->redis, &redis, usage_of(s->redis));
        used(&a->broker, &broker, usage_of(s->broker));
        used(&a->workers, &workers, usage_of_crew(a->crew));
        if (r == 0)
                collect(a, elapsed);
        return r;
}

static void end_round(struct arm *a) {
        double p50 = sample_median(&a->waits), p99 = sample_quantile(&a->waits, 0.99);

        sample_add(&a->rate, sample_median(&a->rates));
        sample_add(&a->ratio, sample_median(&a->ratios));
        sample_add(&a->p50, p50);
        sample_add(&a->p99, p99);
        sample_add(&a->most, sample_most(&a->waits));
        sample_add(&a->unfairness, p50 > 0 ? p99 / p50 : 0);
        sample_clear(&a->rates);
        sample_clear(&a->ratios);
        sample_clear(&a->waits);
}

static void arm_deinit(struct arm *a) {
        struct sample *all[] = {&a->rates, &a->ratios, &a->waits, &a->rate,      &a->ratio,
                                &a->p50,   &a->p99,    &a->most,  &a->unfairness};
        for (size_t i = 0; i < ARRAY_SIZE(all); i++)
                sample_deinit(all[i]);
}

/* ---- the comparison -------------------------------------------------------------------------------------------- */

enum { ARMS = 3 }; /* the private one is the first */

static int run_round(struct servers *s, struct arm *arms) {
        int r = 0;
        for (unsigned turn = 0; turn < TURNS && r == 0; turn++) {
                for (unsigned i = 0; i < ARMS && r == 0; i++)
                        r = slice(s, &arms[turn % 2 ? ARMS - 1 - i : i]);
                for (unsigned i = 0; i < ARMS && r == 0; i++)
                        sample_add(&arms[i].ratios, arms[i].rates.values[turn] / arms[0].rates.values[turn]);
        }
        for (unsigned i = 0; i < ARMS; i++)
                end_round(&arms[i]);
        return r;
}

static json_t *per_operation(const struct arm *a, const struct usage *u) {
        return json_pack("{s:f, s:f}", "cpu_us", u->cpu_us / a->operations, "switches", u->switches / a->operations);
}

/* Of all processes: less at the mercy of what else runs than the rates are. */
static double cpu_us_per_operation(const struct arm *a) {
        return (a->workers.cpu_us + a->broker.cpu_us + a->redis.cpu_us) / a->operations;
}

static json_t *tell_arm(struct arm *a, const struct arm *reference) {
        json_t *o = json_object();
        bench_put(o, "ops_per_s", bench_spread(&a->rate));
        bench_put(o, "cpu_us_per_op", json_real(cpu_us_per_operation(a)));
        if (a->job != PRIVATE) {
                bench_put(o, "ratio", bench_spread(&a->ratio));
                bench_put(o, "cpu_ratio", json_real(cpu_us_per_operation(reference) / cpu_us_per_operation(a)));
                bench_put(o, "wait_us_p50", bench_spread(&a->p50));
                bench_put(o, "wait_us_p99", bench_spread(&a->p99));
                bench_put(o, "wait_us_max", bench_spread(&a->most));
                bench_put(o, "wait_p99_by_p50", bench_spread(&a->unfairness));
                bench_put(o, "wait_bar", json_real(P99_BAR));
                bench_put(o, "wait_met", json_boolean(sample_median(&a->unfairness) <= P99_BAR));
                bench_put(o, "broker_per_op", per_operation(a, &a->broker));
        }
        bench_put(o, "redis_per_op", per_operation(a, &a->redis));
        bench_put(o, "workers_per_op", per_operation(a, &a->workers));
        return o;
}

static void tell(struct arm *arms, struct bench_result *ret) {
        ret->reference = sample_median(&arms[0].rate);
        ret->value = ret->reference * sample_median(&arms[1].ratio);
        for (unsigned i = 0; i < ARMS; i++)
                bench_put(ret->extra, arms[i].name, tell_arm(&arms[i], &arms[0]));
        bench_put(ret->extra, "ten_bar", json_real(TEN_BAR));
        bench_put(ret->extra, "ten_met", json_boolean(sample_median(&arms[2].ratio) >= TEN_BAR));
        bench_put(ret->extra, "workers", json_integer(WORKERS));
        bench_put(ret->extra, "connections", json_integer(CONNECTIONS));
        bench_put(ret->extra, "wrong_replies", json_integer(0)); /* or we should not be here */
}

static int measure(const struct bench_options *o, struct servers *s, struct crew *shared, struct crew *private,
                   struct bench_result *ret) {
        struct arm arms[ARMS] = {{.name = "private", .job = PRIVATE, .crew = private},
                                 {.name = "one", .job = ONE, .crew = shared},
                                 {.name = "ten", .job = TEN, .crew = shared}};
        int r = 0;

        for (unsigned i = 0; i < o->rounds && r == 0; i++)
                r = run_round(s, arms);
        if (r == 0)
                tell(arms, ret);
        for (unsigned i = 0; i < ARMS; i++)
                arm_deinit(&arms[i]);
        return r;
}

static int connect_all(struct crew *c) {
        crew_begin(c, CONNECT);
        return crew_finish(c);
}

static int run(const struct bench_options *o, struct servers *s, struct bench_result *ret) {
        struct crew shared = {0}, private = {0};
        lessor *l = NULL;
        int r = bench_broker(o, s, CONNECTIONS) ? 0 : -EIO;

        if (r < 0)
                return r;
        servers_unpin(s->redis);
        servers_unpin(s->broker);
        if (lessor_open(s->broker_socket, &l) < 0)
                return servers_fail(s, -ENOMEM, "out of memory");
        r = crew_start(&private, s, CONNECTIONS, 0, work_private, NULL);
        if (r == 0)
                r = crew_start(&shared, s, WORKERS, TIMES, work_lessor, l);
        if (r == 0)
                r = connect_all(&private);
        if (r == 0)
                r = connect_all(&shared);
        if (r == 0)
                r = measure(o, s, &shared, &private, ret);
        crew_end(&shared);
        crew_end(&private);
        lessor_close(l);
        return r;
}

const struct bench bench_handover = {
        .name = "handover",
        .own_arm = "one",
        .unit = "ops/s",
        .summary = "200 workers share 20 connections, a lease for each command, against 20 private connections; ten "
                   "commands a lease in extra",
        .bar = ONE_BAR,
        .own_broker = true,
        .run = run,
};

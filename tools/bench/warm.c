/* SPDX-License-Identifier: MIT */
/*
 * warm: acquire and release, again and again, by one thread and by four. The reference is what one would write
 * instead, in the same process: connected hiredis contexts behind a mutex and a condition. No command is sent while the
 * time is taken; each connection shows before and after that it is one.
 *
 * Slices of some milliseconds in turn, ABBA. Each thread times itself, in batches that are small against a slice and
 * large against reading the clock. The one thread has a CPU of its own; the four go where the scheduler puts them.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <base/cleanup.h>
#include <base/clock.h>
#include <lessor.h>

#include "bench.h"
#include "pool.h"
#include "syscalls.h"

enum { THREADS = 4, BATCH = 64, TRACED_PAIRS = 1000 };
#define ONE_BAR 0.6
#define FOUR_BAR 0.3

/* ---- both, by one pair of calls -------------------------------------------------------------------------------- */

struct warm {
        struct servers *servers;
        const char *socket;
        lessor *handle;
        lessor_db *db;
        struct pool pool;
        int like; /* the fd of a connection as the pool's shall be */
};

typedef bool pair_calls(struct warm *w, lessor_error *error); /* acquire, release; false: see *error */

static bool reference_pair(struct warm *w, lessor_error *error) {
        redisContext *c = pool_get(&w->pool, 5000);
        if (c)
                pool_put(&w->pool, c);
        else
                error->code = LESSOR_E_UNAVAILABLE;
        return c != NULL;
}

static bool subject_pair(struct warm *w, lessor_error *error) {
        lessor_lease *lease = lessor_acquire(w->db, 5000, error);
        lessor_release(lease);
        return lease != NULL;
}

static redisContext *connect_one(void *argument) {
        struct warm *w = argument;
        return bench_connect_like(w->servers, w->like);
}

static bool pong(redisReply *reply) {
        bool ok = reply && reply->type == REDIS_REPLY_STATUS && strcmp(reply->str, "PONG") == 0;
        freeReplyObject(reply);
        return ok;
}

/* What is handed out really is a connection, on either side. */
static int use_both(struct warm *w) {
        lessor_error e = {.text = "not a PONG"};
        redisContext *c = pool_get(&w->pool, 5000);
        lessor_lease *lease = lessor_acquire(w->db, 5000, &e);
        bool ok = c && pong(redisCommand(c, "PING")) && lease && pong(lessor_lease_command(lease, &e, "PING"));
        lessor_release(lease);
        if (c)
                pool_put(&w->pool, c);
        return ok ? 0 : servers_fail(w->servers, -EIO, "a connection was not usable: %s", e.text);
}

/* ---- threads that do it for a while ---------------------------------------------------------------------------- */

struct gang;

struct member {
        struct gang *gang;
        pthread_t thread;
        double ns, pairs;
        lessor_error error; /* code 0: none */
};

struct gang {
        struct warm *warm;
        unsigned n, started;
        pthread_barrier_t start, end;
        pair_calls *pair; /* of this slice; NULL: leave */
        atomic_bool over;
        struct member members[THREADS];
};

static void work(struct member *m) {
        struct gang *g = m->gang;
        uint64_t start = clock_now(), now;

        do {
                for (unsigned i = 0; i < BATCH; i++)
                        if (!g->pair(g->warm, &m->error))
                                return;
                m->pairs += BATCH;
                now = clock_now();
        } while (!atomic_load_explicit(&g->over, memory_order_relaxed));
        m->ns += (double)(now - start);
}

static void *live(void *argument) {
        struct member *m = argument;
        for (;;) {
                pthread_barrier_wait(&m->gang->start);
                if (!m->gang->pair)
                        return NULL;
                work(m);
                pthread_barrier_wait(&m->gang->end);
        }
}

static int gang_init(struct gang *g, struct warm *w, unsigned n) {
        *g = (struct gang){.warm = w, .n = n};
        pthread_barrier_init(&g->start, NULL, n + 1);
        pthread_barrier_init(&g->end, NULL, n + 1);
        for (; g->started < n; g->started++) {
                struct member *m = &g->members[g->started];
                m->gang = g;
                if (pthread_create(&m->thread, NULL, live, m) != 0)
                        return servers_fail(w->servers, -EAGAIN, "cannot start a thread");
        }
        return 0;
}

static void gang_deinit(struct gang *g) {
        if (g->n == 0 || g->started < g->n) /* those that were started wait at the barrier, and go with the process */
                return;
        g->pair = NULL;
        pthread_barrier_wait(&g->start);
        for (unsigned i = 0; i < g->n; i++)
                pthread_join(g->members[i].thread, NULL);
        pthread_barrier_destroy(&g->start);
        pthread_barrier_destroy(&g->end);
}

/* ns a pair, as each thread saw it. */
static int slice(struct gang *g, pair_calls *pair, uint64_t span_ns, double *ret) {
        double ns = 0, pairs = 0;

        g->pair = pair;
        atomic_store(&g->over, false);
        pthread_barrier_wait(&g->start);
        nanosleep(&(struct timespec){.tv_nsec = (long)span_ns}, NULL);
        atomic_store(&g->over, true);
        pthread_barrier_wait(&g->end);
        for (unsigned i = 0; i < g->n; i++) {
                struct member *m = &g->members[i];
                if (m->error.code)
                        return servers_fail(g->warm->servers, m->error.code, "cannot lease: %s", m->error.text);
                ns += m->ns;
                pairs += m->pairs;
                m->ns = m->pairs = 0;
        }
        *ret = ns / pairs;
        return 0;
}

/* ---- the comparison -------------------------------------------------------------------------------------------- */

struct arm {
        struct gang gang;
        uint64_t span_ns; /* of a slice; four threads must have taken turns in it */
        unsigned slices;
        int cpu; /* -1: any */
        struct sample subject, reference, ratio, ratio_round, subject_round, reference_round;
        double sleeps, subject_pairs; /* of the subject's slices: voluntary context switches */
};

static double sleeps_so_far(void) {
        struct rusage u;
        getrusage(RUSAGE_SELF, &u);
        return (double)u.ru_nvcsw;
}

static int both(struct arm *a, bool subject_first) {
        double reference, subject, before = 0;
        int r = 0;

        for (unsigned i = 0; i < 2 && r == 0; i++) {
                bool is_subject = subject_first == (i == 0);
                before = is_subject ? sleeps_so_far() : before;
                r = slice(&a->gang, is_subject ? subject_pair : reference_pair, a->span_ns,
                          is_subject ? &subject : &reference);
                if (is_subject && r == 0) {
                        a->sleeps += sleeps_so_far() - before;
                        a->subject_pairs += (double)a->span_ns * a->gang.n / subject;
                }
        }
        if (r == 0) {
                sample_add(&a->subject, subject);
                sample_add(&a->reference, reference);
                sample_add(&a->ratio, subject / reference);
        }
        return r;
}

static int run_round(struct arm *a) {
        int r = 0;

        if (a->cpu >= 0)
                servers_pin(0, a->cpu);
        else
                servers_unpin(0);
        for (unsigned i = 0; i < a->slices && r == 0; i++)
                r = both(a, i & 1);
        sample_add(&a->subject_round, sample_median(&a->subject));
        sample_add(&a->reference_round, sample_median(&a->reference));
        sample_add(&a->ratio_round, sample_median(&a->ratio));
        sample_clear(&a->subject);
        sample_clear(&a->reference);
        sample_clear(&a->ratio);
        return r;
}

static void arm_deinit(struct arm *a) {
        struct sample *all[] = {&a->subject,     &a->reference,     &a->ratio,
                                &a->ratio_round, &a->subject_round, &a->reference_round};
        gang_deinit(&a->gang);
        for (size_t i = 0; i < ARRAY_SIZE(all); i++)
                sample_deinit(all[i]);
}

/* ---- system calls, in a traced child --------------------------------------------------------------------------- */

struct traced {
        struct warm *warm;
        pair_calls *pair;
};

static void traced_work(void *argument) {
        struct traced *t = argument;
        lessor_error e;

        for (int i = 0; i < 2 * TRACED_PAIRS; i++) { /* the child attaches at the first */
                if (i == TRACED_PAIRS)
                        syscalls_mark();
                if (!t->pair(t->warm, &e))
                        _exit(1);
        }
        syscalls_mark();
}

static double syscalls_a_pair(struct warm *w, pair_calls *pair) {
        int64_t n = syscalls_count(traced_work, &(struct traced){w, pair});
        return n < 0 ? -1 : (double)n / TRACED_PAIRS;
}

static void tell_syscalls(struct warm *w, json_t *o) {
        double n = syscalls_a_pair(w, subject_pair);
        bench_put(o, "syscalls_per_pair", n < 0 ? json_null() : json_real(n));
        bench_put(o, "syscalls_met", n < 0 ? json_null() : json_boolean(n == 0));
        n = syscalls_a_pair(w, reference_pair);
        bench_put(o, "reference_syscalls_per_pair", n < 0 ? json_null() : json_real(n));
}

/* ---------------------------------------------------------------------------------------------------------------- */

static json_t *tell_arm(struct arm *a, double bar) {
        json_t *o = json_object();
        bench_put(o, "ratio", bench_spread(&a->ratio_round));
        bench_put(o, "ns", bench_spread(&a->subject_round));
        bench_put(o, "reference_ns", bench_spread(&a->reference_round));
        bench_put(o, "sleeps_per_pair", json_real(a->sleeps / a->subject_pairs));
        bench_put(o, "bar", json_real(bar));
        bench_put(o, "met", json_boolean(sample_median(&a->ratio_round) <= bar));
        return o;
}

static int measure(const struct bench_options *o, struct warm *w, struct bench_result *ret) {
        struct arm one = {.span_ns = 5 * NS_PER_MS, .slices = 40, .cpu = w->servers->cpu_client},
                   four = {.span_ns = 50 * NS_PER_MS, .slices = 6, .cpu = -1};
        int r = gang_init(&one.gang, w, 1);

        if (r == 0)
                r = gang_init(&four.gang, w, THREADS);
        for (unsigned i = 0; i < o->rounds && r == 0; i++) {
                r = run_round(&one);
                if (r == 0)
                        r = run_round(&four);
        }
        if (r == 0)
                r = use_both(w);
        if (r == 0) {
                ret->reference = sample_median(&one.reference_round);
                ret->value = ret->reference * sample_median(&one.ratio_round);
                bench_put(ret->extra, "one_thread", tell_arm(&one, ONE_BAR));
                bench_put(ret->extra, "four_threads", tell_arm(&four, FOUR_BAR));
                tell_syscalls(w, ret->extra);
        }
        arm_deinit(&one);
        arm_deinit(&four);
        return r;
}

/* A context for each thread, connected to what a lease is connected to. */
static int fill_pool(struct warm *w) {
        redisContext *contexts[THREADS] = {NULL};
        lessor_error e;
        LESSOR_SCOPED lessor_lease *lease = lessor_acquire(w->db, 5000, &e);
        redisContext *raw = lease ? lessor_context(lease) : NULL;
        int r = 0;

        if (!raw)
                return servers_fail(w->servers, e.code, "cannot lease: %s", e.text);
        w->like = raw->fd;
        for (unsigned i = 0; i < THREADS && r == 0; i++)
                r = (contexts[i] = pool_get(&w->pool, 0)) ? 0 : -EIO;
        for (unsigned i = 0; i < THREADS; i++)
                if (contexts[i])
                        pool_put(&w->pool, contexts[i]);
        return r;
}

static int run(const struct bench_options *o, struct servers *s, struct bench_result *ret) {
        struct warm w = {.servers = s, .socket = bench_broker(o, s, POOL_MAX)};
        lessor_error e;
        int r;

        if (!w.socket)
                return -EIO;
        if (lessor_open(w.socket, &w.handle) < 0)
                return servers_fail(s, -EINVAL, "%s cannot be the path of a socket", w.socket);
        pool_init(&w.pool, connect_one, &w);
        r = lessor_database(w.handle, NULL, &w.db, &e);
        r = r == 0 ? fill_pool(&w) : servers_fail(s, e.code, "cannot attach: %s", e.text);
        if (r == 0)
                r = use_both(&w);
        if (r == 0)
                r = measure(o, &w, ret);
        pool_deinit(&w.pool);
        lessor_close(w.handle);
        return r;
}

const struct bench bench_warm = {
        .name = "warm",
        .own_arm = "one_thread",
        .unit = "ns",
        .summary = "acquire and release, against a pool in the process behind a mutex; four threads in extra",
        .at_most = true,
        .bar = ONE_BAR,
        .run = run,
};

/* SPDX-License-Identifier: MIT */
/*
 * Workers are killed at random instants, and others take their places, while all of them lease, use and park a few
 * connections. Nobody reads a reply that is not his, no place is lost, the cap holds. $LESSOR_TORTURE=N: N times as many
 * kills (tools/check --torture N).
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/timerfd.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"

enum { WORKERS = 24, CAP = 6, KILLS = 100, PAUSE_US = 20000, WAIT_MS = 60000, RECLAIM_MS = 1000 };

struct scene {
        const char *socket;
        _Atomic bool end;
        _Atomic uint64_t turns, commands, wrong, errors;
        _Atomic uint64_t longest_wait_ms;
};

/* ---- workers ---------------------------------------------------------------------------------------------------------- */

struct worker {
        struct scene *scene;
        lessor_db *db;
        uint64_t random;
        unsigned number;
};

static unsigned roll(uint64_t *state, unsigned n) {
        *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (unsigned)(*state >> 33) % n;
}

/* What is set is got again, and carries whose it is. */
static bool set_and_get(struct worker *w, lessor_lease *lease, unsigned i) {
        char key[64], value[128];
        lessor_error e = {0};
        snprintf(key, sizeof(key), "key:%d:%u", (int)getpid(), w->number);
        snprintf(value, sizeof(value), "%s:%u:%llu", key, i, (unsigned long long)w->random);
        redisReply *set = lessor_lease_command(lease, &e, "SET %s %s", key, value);
        bool good = set && set->type == REDIS_REPLY_STATUS;
        redisReply *got = good ? lessor_lease_command(lease, &e, "GET %s", key) : NULL;
        if (!set || (good && !got)) {
                fprintf(stderr, "worker %d: %s\n", (int)getpid(), e.text);
                atomic_fetch_add(&w->scene->errors, 1);
        } else if (!good || !got->str || strcmp(got->str, value) != 0) {
                fprintf(stderr, "worker %d: %s is `%s`, expected `%s`\n", (int)getpid(), key,
                        got && got->str ? got->str : "", value);
                atomic_fetch_add(&w->scene->wrong, 1);
        }
        if (set)
                freeReplyObject(set);
        if (got)
                freeReplyObject(got);
        return set && (!good || got);
}

static void note_wait(struct scene *s, uint64_t took) {
        uint64_t longest = atomic_load(&s->longest_wait_ms);
        while (took > longest && !atomic_compare_exchange_weak(&s->longest_wait_ms, &longest, took))
                ;
}

static void *work(void *arg) {
        struct worker *w = arg;
        struct scene *s = w->scene;
        lessor_error e = {0};
        while (!atomic_load(&s->end)) {
                uint64_t began = now_ms();
                lessor_lease *lease = lessor_acquire(w->db, WAIT_MS, &e);
                if (!lease) {
                        fprintf(stderr, "worker %d: acquire: %s\n", (int)getpid(), e.text);
                        atomic_fetch_add(&s->errors, 1);
                        continue;
                }
                note_wait(s, now_ms() - began);
                unsigned n = 1 + roll(&w->random, 3);
                for (unsigned i = 0; i < n && set_and_get(w, lease, i); i++)
                        atomic_fetch_add(&s->commands, 2);
                lessor_release(lease);
                atomic_fetch_add(&s->turns, 1);
        }
        return NULL;
}

/* One in four has three threads. */
static int be_a_worker(unsigned index, void *arg) {
        enum { THREADS = 3 };
        struct worker workers[THREADS];
        pthread_t threads[THREADS];
        struct scene *s = arg;
        lessor_error e = {0};
        lessor_db *db;
        lessor *l;
        unsigned n = getpid() % 4 == 0 ? THREADS : 1;

        child_check(lessor_open(s->socket, &l) == 0);
        child_check(lessor_database(l, NULL, &db, &e) == 0);
        for (unsigned i = 0; i < n; i++) {
                workers[i] = (struct worker){.scene = s, .db = db, .random = (uint64_t)getpid() << 8 | i, .number = i};
                if (i > 0)
                        child_check(pthread_create(&threads[i], NULL, work, &workers[i]) == 0);
        }
        work(&workers[0]);
        for (unsigned i = 1; i < n; i++)
                child_check(pthread_join(threads[i], NULL) == 0);
        lessor_close(l);
        return 0;
}

/* ---- the killer ------------------------------------------------------------------------------------------------------- */

/* Exponentially distributed: no instant of a lease's life is spared. */
static void pause_at_random(int timer, uint64_t *random) {
        double u = (1 + roll(random, 1000000)) / 1000001.0;
        long ns = (long)(-log(u) * PAUSE_US * 1000) + 1;
        struct itimerspec t = {.it_value = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000}};
        uint64_t expired;
        check(timerfd_settime(timer, 0, &t, NULL) == 0);
        check(read(timer, &expired, sizeof(expired)) == sizeof(expired));
}

static bool holds_something(struct lessor_status *status, pid_t pid) {
        struct lessor_status_connection c;
        int r;
        for (unsigned i = 0; (r = lessor_status_read_connection(status, i, &c)) != -ENOENT; i++)
                if (r == 0 && c.holder_pid == pid)
                        return true;
        return false;
}

/* How long until nothing is shown as his any more, in what is published after his death: that is once in 100 ms. */
static uint64_t reclaim_time(struct lessor_status *status, pid_t pid) {
        uint64_t began = now_ms();
        check_msg(wait_until(!holds_something(status, pid), 10 * RECLAIM_MS), "pid %d has connections after %d ms",
                  (int)pid, 10 * RECLAIM_MS);
        return now_ms() - began;
}

static unsigned times(void) {
        const char *text = getenv("LESSOR_TORTURE");
        unsigned n = text ? (unsigned)strtoul(text, NULL, 10) : 1;
        return n > 0 ? n : 1;
}

static void kill_and_replace(struct host *h, struct scene *s, struct workers *w, unsigned kills) {
        struct lessor_status status = {0};
        uint64_t random = (uint64_t)getpid(), longest = 0;
        int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
        unsigned most = 0;

        check(timer >= 0);
        check_eq(lessor_status_open(h->broker.instance, &status), 0);
        for (unsigned i = 0; i < kills; i++) {
                pause_at_random(timer, &random);
                unsigned n = roll(&random, WORKERS);
                pid_t pid = w[n].pid[0];
                workers_kill(&w[n], 0);
                workers_start(&w[n], 1, be_a_worker, s);
                uint64_t took = reclaim_time(&status, pid);
                longest = took > longest ? took : longest;
                unsigned now = redis_connections(&h->redis, NULL);
                most = now > most ? now : most;
        }
        lessor_status_close(&status);
        close(timer);
        fprintf(stderr, "%u kills: reclaimed after at most %llu ms; at most %u connections of %d\n", kills,
                (unsigned long long)longest, most, CAP);
        check(most <= CAP);
        check_msg(longest <= RECLAIM_MS * PROCESS_SLOW, "reclaimed after %llu ms", (unsigned long long)longest);
}

static void check_all_places_are_there(struct host *h) {
        lessor_lease *lease[CAP];
        lessor_error e = {0};
        lessor *l = client_open(&h->broker);
        for (unsigned i = 0; i < CAP; i++)
                check_msg((lease[i] = lessor_acquire(client_database(l, NULL), RECLAIM_MS, &e)), "place %u: %s", i,
                          e.text);
        for (unsigned i = 0; i < CAP; i++)
                lessor_release(lease[i]);
        lessor_close(l);
}

TEST_WITH(torture, workers_killed_at_random_cost_no_reply_and_no_place, .timeout = 3600) {
        struct scene *s = shared_memory(sizeof(*s));
        struct workers w[WORKERS];
        struct host h;

        host_start(&h, "max_connections: 6, wait_timeout: 60s, socket_timeout: 60s");
        redis_say(&h.redis, "CONFIG SET maxclients %d", CAP + 1);
        redis_say(&h.redis, "CONFIG RESETSTAT");
        s->socket = h.broker.socket;
        for (unsigned i = 0; i < WORKERS; i++)
                workers_start(&w[i], 1, be_a_worker, s);
        check_soon(s->turns > 10 * WORKERS, WAIT_MS);
        kill_and_replace(&h, s, w, KILLS * times());
        unsigned long long turns = s->turns;
        check_soon(s->turns > turns + WORKERS, WAIT_MS); /* and it goes on */
        atomic_store(&s->end, true);
        unsigned good = 0;
        for (unsigned i = 0; i < WORKERS; i++)
                good += workers_wait(&w[i], WAIT_MS);
        fprintf(stderr, "%llu leases, %llu commands, longest wait %llu ms\n", (unsigned long long)s->turns,
                (unsigned long long)s->commands, (unsigned long long)s->longest_wait_ms);
        check_eq(good, WORKERS);
        check_eq(s->wrong, 0);
        check_eq(s->errors, 0);
        check_eq(redis_info(&h.redis, "rejected_connections"), 0);
        check(broker_figures_now(&h.broker, "main").peak_connections <= CAP);
        check_all_places_are_there(&h);
        host_end(&h);
}

/* SPDX-License-Identifier: MIT */
/*
 * The cap is a cap, and whoever waits is served. Redis itself is the judge: its maxclients leaves room for the cap and
 * the test's own connection, so that one connection too many would be refused and counted by it.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"

enum { CAP = 20, PROCESSES = 100, WAIT_MS = 60000 };

struct run {
        const char *socket;
        struct stage ready, start, holding, most_hold;
        _Atomic unsigned results;
};

static void forbid_more_than(struct host *h, unsigned connections) {
        redis_say(&h->redis, "CONFIG SET maxclients %d", (int)connections + 1);
        redis_say(&h->redis, "CONFIG RESETSTAT");
}

/* Looks on while the workers work: the most connections of ours that Redis had at once. */
static unsigned watch(struct host *h, struct workers *w) {
        uint64_t deadline = deadline_in(WAIT_MS);
        unsigned most = 0, now;
        do {
                now = redis_connections(&h->redis, NULL);
                most = now > most ? now : most;
        } while (!workers_ended(w) && look_again_before(deadline));
        return most;
}

static void check_never_more_than(struct host *h, unsigned connections, unsigned seen) {
        check_msg(seen <= connections, "Redis saw %u connections", seen);
        check_eq(redis_info(&h->redis, "rejected_connections"), 0);
        check(redis_connections(&h->redis, NULL) <= connections);
}

static int increment_once(unsigned index, void *arg) {
        struct run *run = arg;
        lessor *l;
        lessor_db *db;
        lessor_error e;

        child_check(lessor_open(run->socket, &l) == 0);
        child_check(lessor_database(l, NULL, &db, &e) == 0);
        stage_advance(&run->ready);
        child_check(stage_reached(&run->start, 1, WAIT_MS));
        redisReply *reply = lessor_command(db, &e, "INCR operations");
        child_check(reply && reply->type == REDIS_REPLY_INTEGER);
        atomic_fetch_add(&run->results, 1);
        freeReplyObject(reply);
        lessor_close(l);
        return 0;
}

TEST_WITH(pool_cap, a_hundred_operations_of_a_hundred_processes_give_a_hundred_results, .timeout = 240) {
        struct run *run = shared_memory(sizeof(*run));
        struct workers w;
        struct host h;

        host_start(&h, "max_connections: 20, wait_timeout: 60s, socket_timeout: 60s");
        forbid_more_than(&h, CAP);
        run->socket = h.broker.socket;
        workers_start(&w, PROCESSES, increment_once, run);
        check(stage_reached(&run->ready, PROCESSES, WAIT_MS));
        stage_advance(&run->start);
        check_never_more_than(&h, CAP, watch(&h, &w));
        check_eq(workers_wait(&w, WAIT_MS), PROCESSES);
        check_eq(atomic_load(&run->results), PROCESSES);
        check_eq(redis_integer(&h.redis, "GET operations"), PROCESSES);
        check_figure_soon(&h.broker, "main", operations_ok, PROCESSES, 5000);
        struct lessor_status_database d = broker_figures_now(&h.broker, "main");
        check(d.peak_connections <= CAP);
        check_eq(d.exhausted + d.lease_timeouts, 0);
        host_end(&h);
}

/* Nobody gives back before the whole cap is out on lease: it is reached, and not passed. */
static int hold_until_all_places_are_taken(unsigned index, void *arg) {
        struct run *run = arg;
        lessor *l;
        lessor_db *db;
        lessor_error e;

        child_check(lessor_open(run->socket, &l) == 0);
        child_check(lessor_database(l, NULL, &db, &e) == 0);
        lessor_lease *lease = lessor_acquire(db, WAIT_MS, &e);
        child_check(lease);
        stage_advance(&run->holding);
        child_check(stage_reached(&run->holding, CAP, WAIT_MS));
        redisReply *reply = lessor_lease_command(lease, &e, "INCR operations");
        child_check(reply && reply->type == REDIS_REPLY_INTEGER);
        freeReplyObject(reply);
        lessor_release(lease);
        lessor_close(l);
        return 0;
}

TEST_WITH(pool_cap, all_places_are_used_before_anybody_waits_and_none_beyond, .timeout = 240) {
        struct run *run = shared_memory(sizeof(*run));
        struct workers w;
        struct host h;

        host_start(&h, "max_connections: 20, wait_timeout: 60s");
        forbid_more_than(&h, CAP);
        run->socket = h.broker.socket;
        workers_start(&w, PROCESSES, hold_until_all_places_are_taken, run);
        unsigned seen = watch(&h, &w);
        check_eq(workers_wait(&w, WAIT_MS), PROCESSES);
        check_never_more_than(&h, CAP, seen);
        check_eq(redis_integer(&h.redis, "GET operations"), PROCESSES);
        check_figure_soon(&h.broker, "main", peak_connections, CAP, 5000);
        check_figure_soon(&h.broker, "main", leases, PROCESSES, 5000);
        host_end(&h);
}

enum { GRID_PROCESSES = 8, GRID_THREADS = 16, GRID_TOTAL = GRID_PROCESSES * GRID_THREADS * HOST_DATABASES };

struct grid_thread {
        pthread_t thread;
        struct run *run;
        lessor *l;
        unsigned number;
};

/* Every database once, each thread beginning with another. */
static void *visit_all_databases(void *arg) {
        struct grid_thread *t = arg;
        for (unsigned i = 0; i < HOST_DATABASES; i++) {
                lessor_error e = {0};
                lessor_db *db;
                child_check(lessor_database(t->l, host_databases[(t->number + i) % HOST_DATABASES], &db, &e) == 0);
                lessor_lease *lease = lessor_acquire(db, WAIT_MS, &e);
                if (!lease)
                        fprintf(stderr, "%s\n", e.text);
                child_check(lease);
                redisReply *reply = lessor_lease_command(lease, &e, "ECHO %u-%u", t->number, i);
                char expected[32];
                snprintf(expected, sizeof(expected), "%u-%u", t->number, i);
                child_check(reply && reply->type == REDIS_REPLY_STRING && strcmp(reply->str, expected) == 0);
                freeReplyObject(reply);
                lessor_release(lease);
                atomic_fetch_add(&t->run->results, 1);
        }
        return NULL;
}

static uint64_t visits(struct lessor_status_database d) { return d.leases + d.warm_leases; }

static int work_with_sixteen_threads(unsigned index, void *arg) {
        struct grid_thread threads[GRID_THREADS];
        struct run *run = arg;
        lessor *l;

        child_check(lessor_open(run->socket, &l) == 0);
        stage_advance(&run->ready);
        child_check(stage_reached(&run->start, 1, WAIT_MS));
        for (unsigned i = 0; i < GRID_THREADS; i++) {
                threads[i] = (struct grid_thread){.run = run, .l = l, .number = index * GRID_THREADS + i};
                child_check(pthread_create(&threads[i].thread, NULL, visit_all_databases, &threads[i]) == 0);
        }
        for (unsigned i = 0; i < GRID_THREADS; i++)
                child_check(pthread_join(threads[i].thread, NULL) == 0);
        lessor_close(l);
        return 0;
}

TEST_WITH(pool_cap, eight_processes_of_sixteen_threads_on_thirteen_databases_stay_below_260, .timeout = 240) {
        struct run *run = shared_memory(sizeof(*run));
        struct workers w;
        struct host h;
        uint64_t peaks = 0, leases = 0;

        host_start_many(&h, "max_connections: 20, wait_timeout: 60s");
        forbid_more_than(&h, CAP * HOST_DATABASES);
        run->socket = h.broker.socket;
        workers_start(&w, GRID_PROCESSES, work_with_sixteen_threads, run);
        check(stage_reached(&run->ready, GRID_PROCESSES, WAIT_MS));
        stage_advance(&run->start);
        check_never_more_than(&h, CAP * HOST_DATABASES, watch(&h, &w));
        check_eq(workers_wait(&w, WAIT_MS), GRID_PROCESSES);
        check_eq(atomic_load(&run->results), GRID_TOTAL);
        for (unsigned i = 0; i < HOST_DATABASES; i++) {
                struct lessor_status_database d;
                check_soon(visits(d = broker_figures(&h.broker, host_databases[i])) >= GRID_TOTAL / HOST_DATABASES,
                           5000);
                check(d.peak_connections <= CAP);
                peaks += d.peak_connections;
                leases += visits(d);
        }
        check(peaks <= (uint64_t)CAP * HOST_DATABASES);
        check_eq(leases, GRID_TOTAL);
        host_end(&h);
}

TEST(pool_cap, connections_stay_between_uses_and_are_used_again) {
        struct host h;

        host_start(&h, "max_connections: 20");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        for (unsigned i = 0; i < 50; i++)
                freeReplyObject(client_command(db, "INCR n"));
        check_eq(redis_integer(&h.redis, "GET n"), 50);
        check_eq(redis_connections(&h.redis, broker_client_name(&h.broker, "main")), 1);
        check_figure(&h.broker, "main", created_connections, 1);
        lessor_close(l);
        host_end(&h);
}

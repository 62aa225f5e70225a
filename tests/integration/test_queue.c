/* SPDX-License-Identifier: MIT */
/* Who finds no connection free waits his turn: first come, first served, with a deadline, and only so many. */
#include <stdatomic.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"

enum { WAIT_MS = 30000, WAITERS = 6 };

static lessor_lease *acquire(lessor_db *db, int wait_ms) {
        lessor_error e = {0};
        lessor_lease *lease = lessor_acquire(db, wait_ms, &e);
        check_msg(lease, "acquire: %s", e.text);
        return lease;
}

static void check_refused(lessor_db *db, int wait_ms, int code) {
        lessor_error e = {0};
        check(!lessor_acquire(db, wait_ms, &e));
        check_msg(e.code == code, "refused with %d, expected %d: %s", e.code, code, e.text);
        check(!e.may_have_run);
        check(e.text[0] != '\0');
}

TEST(queue, a_wait_ends_at_its_deadline_and_says_so) {
        struct host h;

        host_start(&h, "max_connections: 1");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_lease *lease = acquire(db, WAIT_MS);
        uint64_t began = now_ms();
        check_refused(db, 300, LESSOR_E_TIMEOUT);
        uint64_t took = now_ms() - began;
        check_msg(took >= 290 && took < 2000 * PROCESS_SLOW, "refused after %llu ms", (unsigned long long)took);
        check_figure_soon(&h.broker, "main", lease_timeouts, 1, 5000);
        check_figure(&h.broker, "main", waiting, 0);
        lessor_release(lease);
        lessor_close(l);
        host_end(&h);
}

TEST(queue, the_configured_wait_applies_unless_the_caller_says_otherwise) {
        struct host h;

        host_start(&h, "max_connections: 1, wait_timeout: 200ms");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_lease *lease = acquire(db, WAIT_MS);
        uint64_t began = now_ms();
        check_refused(db, LESSOR_WAIT_CONFIGURED, LESSOR_E_TIMEOUT);
        uint64_t took = now_ms() - began;
        check_msg(took >= 190 && took < 2000 * PROCESS_SLOW, "refused after %llu ms", (unsigned long long)took);
        lessor_error e = {0};
        check(!lessor_command(db, &e, "PING"));
        check_eq(e.code, LESSOR_E_TIMEOUT);
        lessor_release(lease);
        freeReplyObject(client_command(db, "PING"));
        lessor_close(l);
        host_end(&h);
}

TEST(queue, who_will_not_wait_is_told_at_once) {
        struct host h;

        host_start(&h, "max_connections: 1");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_lease *lease = acquire(db, WAIT_MS);
        check_refused(db, 0, LESSOR_E_EXHAUSTED);
        check_figure_soon(&h.broker, "main", exhausted, 1, 5000);
        lessor_release(lease);
        check_figure_soon(&h.broker, "main", available_connections, 1, 5000);
        lessor_release(acquire(db, 0));
        lessor_close(l);
        host_end(&h);
}

TEST(queue, who_will_not_wait_by_configuration_is_told_the_same) {
        struct host h;

        host_start(&h, "max_connections: 1, wait_timeout: 0s");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_lease *lease = acquire(db, WAIT_MS);
        check_refused(db, LESSOR_WAIT_CONFIGURED, LESSOR_E_EXHAUSTED);
        check_figure(&h.broker, "main", exhausted, 1);
        check_figure(&h.broker, "main", lease_timeouts, 0);
        lessor_release(lease);
        lessor_close(l);
        host_end(&h);
}

struct line {
        const char *socket;
        struct stage served;
        _Atomic unsigned order[WAITERS];
        int wait_ms;
};

/* Says who it was, in the order of being served; holds while it says so. */
static int wait_in_line(unsigned index, void *arg) {
        struct line *line = arg;
        lessor *l;
        lessor_db *db;
        lessor_error e;

        child_check(lessor_open(line->socket, &l) == 0);
        child_check(lessor_database(l, NULL, &db, &e) == 0);
        lessor_lease *lease = lessor_acquire(db, line->wait_ms, &e);
        child_check(lease);
        unsigned turn = atomic_load(&line->served.count);
        child_check(turn < WAITERS);
        atomic_store(&line->order[turn], index + 1);
        stage_advance(&line->served);
        lessor_release(lease);
        lessor_close(l);
        return 0;
}

static int wait_in_line_as(unsigned index, void *arg) {
        struct line *line = *(struct line **)arg;
        unsigned number = ((unsigned *)arg)[sizeof(line) / sizeof(unsigned)];
        return wait_in_line(number, line);
}

/* Each joins the queue when the broker has counted the one before. */
static void join_one(struct host *h, struct workers *w, struct line *line, unsigned number) {
        struct {
                struct line *line;
                unsigned number;
        } who = {line, number};
        workers_start(w, 1, wait_in_line_as, &who);
        check_figure_soon(&h->broker, "main", waiting, number + 1, WAIT_MS);
}

TEST(queue, first_come_first_served) {
        struct line *line = shared_memory(sizeof(*line));
        struct workers w[WAITERS];
        struct host h;

        host_start(&h, "max_connections: 1");
        *line = (struct line){.socket = h.broker.socket, .wait_ms = WAIT_MS};
        lessor *l = client_open(&h.broker);
        lessor_lease *lease = acquire(client_database(l, NULL), WAIT_MS);
        for (unsigned i = 0; i < WAITERS; i++)
                join_one(&h, &w[i], line, i);
        check_figure_soon(&h.broker, "main", peak_waiting, WAITERS, 5000);
        lessor_release(lease);
        for (unsigned i = 0; i < WAITERS; i++)
                check_eq(workers_wait(&w[i], WAIT_MS), 1);
        for (unsigned i = 0; i < WAITERS; i++)
                check_eq(atomic_load(&line->order[i]), i + 1);
        lessor_close(l);
        host_end(&h);
}

TEST(queue, nobody_passes_those_who_wait) {
        struct line *line = shared_memory(sizeof(*line));
        struct workers w;
        struct host h;

        host_start(&h, "max_connections: 1");
        *line = (struct line){.socket = h.broker.socket, .wait_ms = WAIT_MS};
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_lease *lease = acquire(db, WAIT_MS);
        join_one(&h, &w, line, 0);
        lessor_release(lease);
        lease = acquire(db, WAIT_MS); /* behind the other, although this process gave it back a moment ago */
        check_eq(atomic_load(&line->served.count), 1);
        lessor_release(lease);
        check_eq(workers_wait(&w, WAIT_MS), 1);
        lessor_close(l);
        host_end(&h);
}

TEST(queue, the_queue_has_a_bound) {
        struct line *line = shared_memory(sizeof(*line));
        struct workers w[2];
        struct host h;

        host_start(&h, "max_connections: 1, max_waiters: 2");
        *line = (struct line){.socket = h.broker.socket, .wait_ms = WAIT_MS};
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_lease *lease = acquire(db, WAIT_MS);
        join_one(&h, &w[0], line, 0);
        join_one(&h, &w[1], line, 1);
        uint64_t began = now_ms();
        check_refused(db, WAIT_MS, LESSOR_E_EXHAUSTED);
        check(now_ms() - began < WAIT_MS / 2);
        check_figure_soon(&h.broker, "main", exhausted, 1, 5000);
        lessor_release(lease);
        check_eq(workers_wait(&w[0], WAIT_MS) + workers_wait(&w[1], WAIT_MS), 2);
        lessor_close(l);
        host_end(&h);
}

TEST(queue, without_a_queue_whom_a_free_place_serves_is_served) {
        struct host h;

        host_start(&h, "max_connections: 1, max_waiters: 0");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_release(acquire(db, WAIT_MS)); /* dialled for him */
        lessor_lease *lease = acquire(db, WAIT_MS);
        check_refused(db, WAIT_MS, LESSOR_E_EXHAUSTED);
        lessor_release(lease);
        lessor_close(l);
        host_end(&h);
}

TEST(queue, a_waiter_who_dies_leaves_the_line_without_holding_it_up) {
        struct line *line = shared_memory(sizeof(*line));
        struct workers w[3];
        struct host h;

        host_start(&h, "max_connections: 1");
        *line = (struct line){.socket = h.broker.socket, .wait_ms = WAIT_MS};
        lessor *l = client_open(&h.broker);
        lessor_lease *lease = acquire(client_database(l, NULL), WAIT_MS);
        for (unsigned i = 0; i < 3; i++)
                join_one(&h, &w[i], line, i);
        workers_kill(&w[0], 0);
        check_figure_soon(&h.broker, "main", waiting, 2, 1000);
        lessor_release(lease);
        check_eq(workers_wait(&w[1], WAIT_MS) + workers_wait(&w[2], WAIT_MS), 2);
        check_eq(atomic_load(&line->order[0]), 2);
        check_eq(atomic_load(&line->order[1]), 3);
        check_figure_soon(&h.broker, "main", cancelled, 1, 5000);
        lessor_close(l);
        host_end(&h);
}

TEST(queue, a_place_that_a_deadline_missed_is_not_lost) {
        struct host h;

        host_start(&h, "max_connections: 1");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        for (unsigned i = 0; i < 30; i++) {
                lessor_lease *lease = acquire(db, WAIT_MS);
                check_refused(db, (int)(i % 4) + 1, LESSOR_E_TIMEOUT);
                lessor_release(lease);
        }
        freeReplyObject(client_command(db, "PING"));
        lessor_close(l);
        host_end(&h);
}

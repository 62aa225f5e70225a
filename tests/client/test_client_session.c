/* SPDX-License-Identifier: MIT */
/* The session: asking, being answered, by many threads at once, and every way a broker can fail us meanwhile. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <lessor.h>

#include "base/clock.h"
#include "client/fake.h"
#include "client/helpers.h"
#include "support/check.h"

static void one_command(struct fake *f, void *unused) {
        union wire_message m, r;
        int redis;

        need(f, fake_attach(f));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        need(f, m.lease.database == 1 && m.lease.tid > 0 && m.lease.wait_ns == LESSOR_WAIT_DEFAULT);
        redis = fake_grant(f, &m);
        need(f, fake_expect(redis, "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"));
        need(f, fake_say(redis, "$5\r\nvalue\r\n"));
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &r));
        need(f, r.giveback.database == 1 && r.giveback.slot == 3 && r.giveback.generation == 5);
        need(f, r.giveback.lease == 1 && r.giveback.flags == LESSOR_RETURN_CLEAN);
        need(f, r.giveback.requests == 1 && r.giveback.replies == 1);
        need(f, fake_ended(redis));
        close(redis);
        need(f, fake_gone(f));
}

TEST(client_session, a_command_borrows_a_connection_and_gives_it_back_clean) {
        struct fake f;
        lessor_error e;
        redisReply *r;
        lessor *l;

        fake_start(&f, one_command, NULL);
        l = client_open(&f);
        r = lessor_command(client_db(l, "cache"), &e, "GET %s", "k");
        check_msg(r, "%s", e.text);
        check_eq(e.code, 0);
        check_str(r->str, "value");
        freeReplyObject(r);
        lessor_close(l);
        fake_stop(&f);
}

static void refuse_all(struct fake *f, void *unused) {
        union wire_message m;

        need(f, fake_attach(f));
        for (int outcome = LESSOR_E_TIMEOUT; outcome <= LESSOR_E_LOADING; outcome++) {
                need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
                need(f, m.lease.wait_ns <= 250000000 && m.lease.wait_ns > 150000000);
                need(f, strncmp(m.lease.site, "test_client_session.c:", 22) == 0);
                need(f, fake_refuse(f, m.header.request, outcome, 0, "because of the weather"));
        }
        need(f, fake_gone(f));
}

TEST(client_session, a_refusal_tells_the_brokers_outcome_and_text) {
        struct fake f;
        lessor_error e;
        lessor *l;

        fake_start(&f, refuse_all, NULL);
        l = client_open(&f);
        for (int outcome = LESSOR_E_TIMEOUT; outcome <= LESSOR_E_LOADING; outcome++) {
                check(!lessor_acquire(client_db(l, NULL), 250, &e));
                check_eq(e.code, outcome);
                check_eq(e.retry_ms, 2); /* 1.5 ms, rounded up */
                check(!e.may_have_run);
                check(strstr(e.text, "because of the weather") && strstr(e.text, "`main`") && strstr(e.text, f.path));
        }
        lessor_close(l);
        fake_stop(&f);
}

/* ---- deadlines ---- */

static void silent_then_cancelled(struct fake *f, void *unused) {
        union wire_message m, c;
        int redis;

        need(f, fake_attach(f));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        need(f, m.lease.wait_ns == 0);
        need(f, fake_receive(f, LESSOR_MSG_CANCEL, &c));
        need(f, c.header.request == m.header.request && c.cancel.database == m.lease.database);
        need(f, fake_refuse(f, m.header.request, LESSOR_E_CANCELLED, 0, "taken back"));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m)); /* the session goes on */
        redis = fake_grant(f, &m);
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &m));
        close(redis);
        need(f, fake_gone(f));
}

TEST(client_session, a_broker_that_does_not_answer_in_time_is_asked_to_cancel) {
        struct fake f;
        lessor_error e;
        lessor_lease *lease;
        uint64_t start;
        lessor *l;

        fake_start(&f, silent_then_cancelled, NULL);
        l = client_open(&f);
        client_db(l, "main");
        start = clock_now();
        check(!lessor_acquire(client_db(l, "main"), 0, &e));
        check(clock_now() - start < 5 * NS_PER_S);
        check_eq(e.code, LESSOR_E_UNAVAILABLE);
        lease = lessor_acquire(client_db(l, "main"), 5000, &e);
        check_msg(lease, "%s", e.text);
        lessor_release(lease);
        lessor_close(l);
        fake_stop(&f);
}

static void late_grant(struct fake *f, void *unused) {
        union wire_message first, second, m;
        int held, late;

        need(f, fake_attach(f));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &first));
        held = fake_grant(f, &first);
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &second));
        need(f, fake_receive(f, LESSOR_MSG_CANCEL, &m));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &first)); /* it has left by now: this is its next request */
        late = fake_grant(f, &second);
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &m));
        need(f, m.giveback.lease == 2 && m.giveback.flags == LESSOR_RETURN_CLEAN);
        need(f, fake_ended(late));
        need(f, fake_refuse(f, first.header.request, LESSOR_E_EXHAUSTED, 0, "no more"));
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &m));
        need(f, m.giveback.lease == 1);
        close(held);
        close(late);
        need(f, fake_gone(f));
}

TEST(client_session, a_grant_that_comes_too_late_is_given_back_by_whoever_reads_it) {
        struct fake f;
        lessor_error e;
        lessor_lease *held;
        lessor *l;

        fake_start(&f, late_grant, NULL);
        l = client_open(&f);
        held = lessor_acquire(client_db(l, "main"), 0, &e);
        check_msg(held, "%s", e.text);
        check(!lessor_acquire(client_db(l, "main"), 0, &e));
        check_eq(e.code, LESSOR_E_UNAVAILABLE);
        check(!lessor_acquire(client_db(l, "main"), 0, &e));
        check_eq(e.code, LESSOR_E_EXHAUSTED);
        lessor_release(held);
        lessor_close(l);
        fake_stop(&f);
}

static void late_grant_at_release(struct fake *f, void *data) {
        union wire_message first, second, m;
        pthread_barrier_t *granted = data;
        int held, late;

        need(f, fake_attach(f));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &first));
        held = fake_grant(f, &first);
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &second));
        need(f, fake_receive(f, LESSOR_MSG_CANCEL, &m));
        pthread_barrier_wait(granted); /* it has left */
        late = fake_grant(f, &second);
        pthread_barrier_wait(granted);
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &m));
        need(f, m.giveback.lease == 2);
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &m));
        need(f, m.giveback.lease == 1);
        need(f, fake_ended(late));
        close(held);
        close(late);
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m)); /* no orphan is left: the session may stay */
        need(f, fake_refuse(f, m.header.request, LESSOR_E_EXHAUSTED, 0, "no more"));
        need(f, fake_gone(f));
}

TEST(client_session, a_release_looks_for_grants_that_came_too_late) {
        pthread_barrier_t granted;
        struct fake f;
        lessor_error e;
        lessor_lease *held;
        lessor *l;

        pthread_barrier_init(&granted, NULL, 2);
        fake_start(&f, late_grant_at_release, &granted);
        l = client_open(&f);
        held = lessor_acquire(client_db(l, "main"), 0, &e);
        check(!lessor_acquire(client_db(l, "main"), 0, &e));
        pthread_barrier_wait(&granted);
        pthread_barrier_wait(&granted);
        lessor_release(held);
        check(!lessor_acquire(client_db(l, "main"), 0, &e));
        check_eq(e.code, LESSOR_E_EXHAUSTED);
        lessor_close(l);
        fake_stop(&f);
}

static void never_answers(struct fake *f, void *unused) {
        union wire_message m;

        need(f, fake_attach(f));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        need(f, fake_gone(f)); /* rather than leave a grant lying in the socket of an idle process */
        need(f, fake_attach(f));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        need(f, fake_refuse(f, m.header.request, LESSOR_E_EXHAUSTED, 0, "back again"));
        need(f, fake_gone(f));
}

TEST(client_session, a_session_with_an_unanswered_request_and_no_lease_is_given_up) {
        struct fake f;
        lessor_error e;
        lessor *l;

        fake_start(&f, never_answers, NULL);
        l = client_open(&f);
        check(!lessor_acquire(client_db(l, "main"), 0, &e));
        check_eq(e.code, LESSOR_E_UNAVAILABLE);
        check(!lessor_acquire(client_db(l, "main"), 0, &e));
        check_eq(e.code, LESSOR_E_EXHAUSTED);
        lessor_close(l);
        fake_stop(&f);
}

enum { FLOOD = 600 };

static void reads_no_more(struct fake *f, void *data) {
        pthread_barrier_t *released = data;
        union wire_message m;
        int pair[2];

        need(f, socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        need(f, fake_attach(f));
        for (int i = 0; i < FLOOD; i++) {
                need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
                need(f, fake_grant_fd(f, &m, pair[1]));
        }
        pthread_barrier_wait(released);
        need(f, fake_gone(f));
        close(pair[0]);
        close(pair[1]);
}

TEST(client_session, a_broker_that_reads_no_more_holds_up_no_release_for_long) {
        static lessor_lease *leases[FLOOD];
        pthread_barrier_t released;
        struct fake f;
        uint64_t start;
        lessor *l;

        pthread_barrier_init(&released, NULL, 2);
        fake_start(&f, reads_no_more, &released);
        l = client_open(&f);
        for (int i = 0; i < FLOOD; i++)
                leases[i] = client_lease(l);
        start = clock_now();
        for (int i = 0; i < FLOOD; i++)
                lessor_release(leases[i]);
        check(clock_now() - start >= NS_PER_S / 2); /* the socket was full ... */
        check(clock_now() - start < 10 * NS_PER_S); /* ... and waited for once */
        pthread_barrier_wait(&released);
        lessor_close(l);
        fake_stop(&f);
}

/* ---- the broker's end ---- */

static void dies_with_a_lease_out(struct fake *f, void *unused) {
        union wire_message m;
        int redis;

        need(f, fake_attach(f));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        redis = fake_grant(f, &m);
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        fake_hang_up(f);
        need(f, fake_expect(redis, "*1\r\n$4\r\nPING\r\n"));
        need(f, fake_say(redis, "+PONG\r\n"));
        need(f, fake_ended(redis));
        close(redis);
        f->attached.instance = f->control->instance = 8;
        need(f, fake_attach(f));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        redis = fake_grant(f, &m);
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &m));
        close(redis);
        need(f, fake_gone(f));
}

TEST(client_session, when_the_broker_dies_waiters_are_told_and_held_leases_go_on) {
        struct fake f;
        lessor_error e;
        lessor_lease *held;
        redisReply *r;
        lessor *l;

        fake_start(&f, dies_with_a_lease_out, NULL);
        l = client_open(&f);
        held = lessor_acquire(client_db(l, "main"), 5000, &e);
        check_msg(held, "%s", e.text);
        check(!lessor_acquire(client_db(l, "main"), 5000, &e));
        check_eq(e.code, LESSOR_E_UNAVAILABLE);
        check(!e.may_have_run);
        r = lessor_lease_command(held, &e, "PING");
        check_msg(r, "%s", e.text);
        freeReplyObject(r);
        lessor_release(held);
        held = lessor_acquire(client_db(l, "main"), 5000, &e);
        check_msg(held, "%s", e.text);
        lessor_release(held);
        lessor_close(l);
        fake_stop(&f);
}

static void restarts_between_requests(struct fake *f, void *data) {
        pthread_barrier_t *gone = data;
        union wire_message m;
        int redis;

        need(f, fake_attach(f));
        fake_hang_up(f);
        pthread_barrier_wait(gone);
        need(f, fake_attach(f));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        redis = fake_grant(f, &m);
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &m));
        close(redis);
        need(f, fake_gone(f));
}

TEST(client_session, a_broker_restarted_between_requests_is_not_noticed) {
        pthread_barrier_t gone;
        struct fake f;
        lessor_error e;
        lessor_lease *lease;
        lessor_db *db;
        lessor *l;

        pthread_barrier_init(&gone, NULL, 2);
        fake_start(&f, restarts_between_requests, &gone);
        l = client_open(&f);
        db = client_db(l, "jobs");
        pthread_barrier_wait(&gone);
        lease = lessor_acquire(db, 0, &e);
        check_msg(lease, "%s", e.text);
        lessor_release(lease);
        lessor_close(l);
        fake_stop(&f);
}

static void ends_with_a_reason(struct fake *f, void *unused) {
        union wire_message m;

        need(f, fake_attach(f));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        need(f, fake_refuse(f, 0, LESSOR_E_LIMIT, LESSOR_FATAL, "too many of you"));
        need(f, fake_gone(f));
}

TEST(client_session, a_fatal_error_is_told_to_those_who_wait) {
        struct fake f;
        lessor_error e;
        lessor *l;

        fake_start(&f, ends_with_a_reason, NULL);
        l = client_open(&f);
        check(!lessor_acquire(client_db(l, "main"), 5000, &e));
        check_eq(e.code, LESSOR_E_LIMIT);
        check(strstr(e.text, "too many of you"));
        lessor_close(l);
        fake_stop(&f);
}

/* ---- a broker that does not keep to the protocol ---- */

enum breach {
        BREACH_SHORT,
        BREACH_LONG,
        BREACH_NO_FD,
        BREACH_AN_FD_TOO_MANY,
        BREACH_FD_WITH_ERROR,
        BREACH_TYPE,
        BREACH_OUT_OF_ORDER,
        BREACH_WORKERS_MESSAGE,
        BREACH_NOT_ASKED,
        BREACH_OTHER_DATABASE,
        BREACH_OUTCOME,
        BREACHES,
};

static void breach(struct fake *f, enum breach which, const union wire_message *lease) {
        char large[2048] = {0};
        union wire_message m, e;
        int fds[2] = {f->control_fd, f->segment_fd};

        wire_init(&m, LESSOR_MSG_GRANT, lease->header.request);
        m.grant.database = lease->lease.database;
        wire_init(&e, LESSOR_MSG_ERROR, lease->header.request);
        e.error.outcome = LESSOR_E_TIMEOUT;
        memcpy(large, &m, sizeof(m.grant));
        switch (which) {
        case BREACH_SHORT:
                need(f, fake_send(f, &m, 7, NULL, 0));
                break;
        case BREACH_LONG:
                need(f, fake_send(f, large, sizeof(large), fds, 1));
                break;
        case BREACH_NO_FD:
                need(f, fake_send(f, &m, sizeof(m.grant), NULL, 0));
                break;
        case BREACH_AN_FD_TOO_MANY:
                need(f, fake_send(f, &m, sizeof(m.grant), fds, 2));
                break;
        case BREACH_FD_WITH_ERROR:
                need(f, fake_send(f, &e, sizeof(e.error), fds, 1));
                break;
        case BREACH_TYPE:
                m.header.type = 99;
                need(f, fake_send(f, &m, sizeof(m.grant), fds, 1));
                break;
        case BREACH_OUT_OF_ORDER:
                need(f, fake_attached(f));
                break;
        case BREACH_WORKERS_MESSAGE:
                need(f, fake_send(f, lease, sizeof(lease->lease), NULL, 0));
                break;
        case BREACH_NOT_ASKED:
                m.header.request += 1000;
                need(f, fake_send(f, &m, sizeof(m.grant), fds, 1));
                break;
        case BREACH_OTHER_DATABASE:
                m.grant.database++;
                need(f, fake_send(f, &m, sizeof(m.grant), fds, 1));
                break;
        case BREACH_OUTCOME:
                e.error.outcome = -ENOMEM;
                need(f, fake_send(f, &e, sizeof(e.error), NULL, 0));
                break;
        case BREACHES:
                break;
        }
}

static void breaches(struct fake *f, void *unused) {
        union wire_message m;

        for (enum breach which = 0; which < BREACHES; which++) {
                need(f, fake_attach(f));
                need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
                breach(f, which, &m);
                need(f, fake_gone(f));
        }
}

TEST(client_session, a_broker_that_breaks_the_protocol_loses_the_session) {
        unsigned fds = count_fds();
        struct fake f;
        lessor_error e;
        lessor *l;

        fake_start(&f, breaches, NULL);
        l = client_open(&f);
        for (enum breach which = 0; which < BREACHES; which++) {
                check(!lessor_acquire(client_db(l, "main"), 5000, &e));
                check_msg(e.code == LESSOR_E_PROTOCOL, "%d: %d %s", which, e.code, e.text);
        }
        lessor_close(l);
        fake_stop(&f);
        check_eq(count_fds(), fds);
}

/* ---- limits ---- */

/* The limit is for new fds, those that are open stay: lowered once the script has its socketpair; 1, for poll(). */
static void one_without_room(struct fake *f, void *data) {
        struct rlimit before, none = {.rlim_cur = 1};
        union wire_message m;
        int pair[2];

        need(f, fake_attach(f));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        need(f, socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        need(f, getrlimit(RLIMIT_NOFILE, &before) == 0);
        none.rlim_max = before.rlim_max;
        need(f, setrlimit(RLIMIT_NOFILE, &none) == 0);
        fake_grant_fd(f, &m, pair[1]);
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &m));
        need(f, setrlimit(RLIMIT_NOFILE, &before) == 0);
        need(f, m.giveback.lease == 1 && m.giveback.flags == LESSOR_RETURN_CLEAN);
        close(pair[0]);
        close(pair[1]);
        need(f, fake_gone(f));
}

TEST(client_session, a_grant_without_room_for_its_fd_is_given_back) {
        struct fake f;
        lessor_error e;
        lessor *l;

        fake_start(&f, one_without_room, NULL);
        l = client_open(&f);
        check(!lessor_acquire(client_db(l, "main"), 5000, &e));
        check_msg(e.code == -EMFILE, "%d %s", e.code, e.text);
        lessor_close(l);
        fake_stop(&f);
}

struct asker {
        pthread_t thread;
        lessor_db *db;
        lessor_error error;
        bool granted;
};

static void *ask(void *data) {
        struct asker *a = data;
        lessor_lease *lease = lessor_acquire(a->db, 5000, &a->error);
        a->granted = lease;
        lessor_release(lease);
        return NULL;
}

static void holds_two(struct fake *f, void *data) {
        pthread_barrier_t *both = data;
        union wire_message first, second, m;
        int redis;

        f->attached.requests_max = 2;
        need(f, fake_attach(f));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &first));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &second));
        pthread_barrier_wait(both); /* a third is refused by the library itself */
        pthread_barrier_wait(both);
        redis = fake_grant(f, &second); /* answers may overtake each other */
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &m));
        close(redis);
        need(f, fake_refuse(f, first.header.request, LESSOR_E_EXHAUSTED, 0, "you were first"));
        need(f, fake_gone(f));
}

TEST(client_session, answers_find_their_askers_and_askers_over_the_limit_are_refused) {
        pthread_barrier_t both;
        struct asker askers[2];
        struct fake f;
        lessor_error e;
        lessor_db *db;
        lessor *l;

        pthread_barrier_init(&both, NULL, 2);
        fake_start(&f, holds_two, &both);
        l = client_open(&f);
        db = client_db(l, "main");
        for (int i = 0; i < 2; i++) {
                askers[i].db = db;
                check_eq(pthread_create(&askers[i].thread, NULL, ask, &askers[i]), 0);
        }
        pthread_barrier_wait(&both);
        check(!lessor_acquire(db, 5000, &e));
        check_eq(e.code, LESSOR_E_LIMIT);
        pthread_barrier_wait(&both);
        for (int i = 0; i < 2; i++)
                pthread_join(askers[i].thread, NULL);
        check_eq(askers[0].granted + askers[1].granted, 1);
        for (int i = 0; i < 2; i++)
                check(askers[i].granted || askers[i].error.code == LESSOR_E_EXHAUSTED);
        lessor_close(l);
        fake_stop(&f);
}

/* ---- many threads ---- */

enum { THREADS = 16, ROUNDS = 100 };

static void *many_commands(void *data) {
        lessor_db *db = data;
        for (int i = 0; i < ROUNDS; i++) {
                lessor_error e;
                redisReply *r = lessor_command(db, &e, "PING");
                check_msg(r && strcmp(r->str, "PONG") == 0, "%s", e.text);
                freeReplyObject(r);
        }
        return NULL;
}

TEST(client_session, threads_share_one_session) {
        pthread_t threads[THREADS];
        lessor_db *db = NULL;
        struct fake f;
        lessor *l;

        fake_init(&f);
        f.wait_ns = f.control->database[0].wait_timeout_ns = 20 * NS_PER_S;
        f.control->database[0].socket_timeout_ns = 20 * NS_PER_S;
        fake_run(&f, fake_serve, NULL);
        l = client_open(&f);
        db = client_db(l, "main");
        for (int i = 0; i < THREADS; i++)
                check_eq(pthread_create(&threads[i], NULL, many_commands, db), 0);
        for (int i = 0; i < THREADS; i++)
                pthread_join(threads[i], NULL);
        lessor_close(l);
        fake_stop(&f);
        check_eq(f.sessions, 1);
        check_eq(f.leases, THREADS * ROUNDS);
        check_eq(f.returned, THREADS * ROUNDS);
        check_eq(f.returned_clean, THREADS * ROUNDS);
}

static void *first_use(void *data) {
        lessor_db *db;
        lessor_error e;
        check_msg(lessor_database(data, "cache", &db, &e) == 0, "%s", e.text);
        return db;
}

TEST(client_session, threads_that_come_first_together_attach_once) {
        pthread_t threads[THREADS];
        void *db[THREADS];
        struct fake f;
        lessor *l;

        fake_start(&f, fake_serve, NULL);
        l = client_open(&f);
        for (int i = 0; i < THREADS; i++)
                check_eq(pthread_create(&threads[i], NULL, first_use, l), 0);
        for (int i = 0; i < THREADS; i++)
                pthread_join(threads[i], &db[i]);
        for (int i = 1; i < THREADS; i++)
                check(db[i] == db[0]);
        lessor_close(l);
        fake_stop(&f);
        check_eq(f.sessions, 1);
}

TEST(client_session, a_process_may_hold_many_leases) {
        enum { LEASES = 150 };
        lessor_lease *leases[LEASES];
        redisContext *contexts[LEASES];
        struct fake f;
        lessor *l;

        fake_init(&f);
        f.attached.requests_max = 1; /* unanswered ones, that is */
        fake_run(&f, fake_serve, NULL);
        l = client_open(&f);
        for (int i = 0; i < LEASES; i++) {
                leases[i] = client_lease(l);
                contexts[i] = lessor_context(leases[i]);
                check(contexts[i]);
        }
        for (int i = 0; i < LEASES; i++)
                check(lessor_lease_of(contexts[i]) == leases[i]);
        for (int i = 0; i < LEASES; i++)
                lessor_release(leases[i]);
        lessor_close(l);
        fake_stop(&f);
        check_eq(f.returned, LEASES);
}

struct cancelled {
        lessor_db *db;
        pthread_barrier_t asking;
        atomic_bool went_on;
};

static void ask_once(struct cancelled *c) {
        lessor_error e;
        lessor_lease *lease = lessor_acquire(c->db, 5000, &e);
        atomic_store(&c->went_on, lease != NULL);
        lessor_release(lease);
}

static void *ask_and_be_cancelled(void *data) {
        ask_once(data);
        pthread_testcancel(); /* here, with no variable on the stack: AddressSanitizer does not see frames end by this */
        return NULL;
}

static void grants_after_a_while(struct fake *f, void *data) {
        struct cancelled *c = data;
        union wire_message m, r;
        int redis;

        need(f, fake_attach(f));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        pthread_barrier_wait(&c->asking);
        pthread_barrier_wait(&c->asking);
        redis = fake_grant(f, &m);
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &r));
        close(redis);
        need(f, fake_gone(f));
}

TEST(client_session, a_thread_cancelled_while_it_waits_finishes_the_call) {
        struct cancelled c = {0};
        pthread_t thread;
        struct fake f;
        lessor *l;
        void *end;

        pthread_barrier_init(&c.asking, NULL, 2);
        fake_start(&f, grants_after_a_while, &c);
        l = client_open(&f);
        c.db = client_db(l, NULL);
        check_eq(pthread_create(&thread, NULL, ask_and_be_cancelled, &c), 0);
        pthread_barrier_wait(&c.asking);
        check_eq(pthread_cancel(thread), 0);
        pthread_barrier_wait(&c.asking);
        check_eq(pthread_join(thread, &end), 0);
        check(end == PTHREAD_CANCELED && atomic_load(&c.went_on));
        lessor_close(l);
        fake_stop(&f);
}

/* SPDX-License-Identifier: MIT */
/* Leases held for too long, users who want too much, and a broker that dies with connections parked. */
#include <grp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"
#include "support/words.h"

enum { WAIT_MS = 30000, STRANGER = 65534 };
#define NS_PER_MS UINT64_C(1000000)
#define WORD_SEQUENCE_ONE (UINT64_C(1) << 27)

static lessor_lease *acquire(lessor_db *db) {
        lessor_error e = {0};
        lessor_lease *lease = lessor_acquire(db, WAIT_MS, &e);
        check_msg(lease, "%s", e.text);
        return lease;
}

static bool can_use(lessor_lease *lease) {
        lessor_error e = {0};
        redisReply *reply = lessor_lease_command(lease, &e, "PING");
        if (reply)
                freeReplyObject(reply);
        return reply != NULL;
}

/* ---- too long ------------------------------------------------------------------------------------------------------- */

TEST(warm_limits, a_lease_over_lease_warn_is_logged_with_who_and_where_and_once) {
        char who[256];
        struct host h;

        host_start(&h, "max_connections: 2, lease_warn: 300ms");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_release(acquire(db)); /* parked for as long: not warned of */
        lessor_error e = {0};
        lessor_lease *lease = lessor_acquire(db, WAIT_MS, &e);
        int line = __LINE__ - 1;
        check_figure_soon(&h.broker, "main", overdue_leases, 1, 5000);
        snprintf(who, sizeof(who), "db=main slot=0 pid=%d tid=%d program=", (int)getpid(), (int)syscall(SYS_gettid));
        check_msg(broker_log_has(&h.broker, who), "no line with %s", who);
        snprintf(who, sizeof(who), "site=\"test_warm_limits.c:%d\"", line);
        if (!broker_log_has(&h.broker, who)) {
                snprintf(who, sizeof(who), "site=test_warm_limits.c:%d", line);
                if (!broker_log_has(&h.broker, who))
                        broker_dump_log(&h.broker);
                check_msg(broker_log_has(&h.broker, who), "no line with %s", who);
        }
        check(can_use(lease));
        check_figure(&h.broker, "main", overdue_leases, 1);
        lessor_release(lease);
        /* The next holding of the same word is another one. */
        lease = acquire(db);
        check_figure_soon(&h.broker, "main", overdue_leases, 2, 5000);
        lessor_release(lease);
        check_figure(&h.broker, "main", leases, 1);
        lessor_close(l);
        host_end(&h);
}

TEST(warm_limits, a_lease_over_lease_timeout_is_cut_off_and_its_release_harms_nobody) {
        struct host h;

        host_start(&h, "max_connections: 1, lease_timeout: 300ms");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_release(acquire(db));
        lessor_lease *lease = acquire(db);
        check(can_use(lease));
        check_figure_soon(&h.broker, "main", revocations, 1, 5000);
        check_soon(!can_use(lease), 5000);
        check_figure_soon(&h.broker, "main", discards_revoked, 1, 5000);
        /* The place is free for others while the holder still sits on it. */
        lessor *other = client_open(&h.broker);
        freeReplyObject(client_command(client_database(other, NULL), "PING"));
        lessor_close(other);
        lessor_release(lease);
        freeReplyObject(client_command(db, "PING"));
        check_eq(broker_sessions_now(&h.broker), 1); /* the same session: nothing was wrong with it */
        check(!broker_log_has(&h.broker, "not this session's"));
        lessor_close(l);
        host_end(&h);
}

TEST(warm_limits, what_is_parked_is_never_cut_off) {
        struct host h;

        host_start(&h, "max_connections: 2, lease_timeout: 200ms");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_lease *a = acquire(db), *b = acquire(db);
        lessor_release(a);
        /* One held past the limit is the clock for the other, which is parked for longer. */
        check_figure_soon(&h.broker, "main", revocations, 1, 5000);
        check_figure(&h.broker, "main", parked_connections, 1);
        lessor_release(b);
        for (unsigned i = 0; i < 100; i++)
                freeReplyObject(client_command(db, "PING"));
        check_figure(&h.broker, "main", revocations, 1);
        lessor_close(l);
        host_end(&h);
}

static void *keep_retaking(void *arg) {
        struct {
                lessor_db *db;
                _Atomic bool end;
        } *t = arg;
        lessor_error e;
        while (!atomic_load(&t->end))
                lessor_release(lessor_acquire(t->db, WAIT_MS, &e));
        return NULL;
}

TEST(warm_limits, many_short_leases_are_not_one_long_one) {
        struct {
                lessor_db *db;
                _Atomic bool end;
        } t = {0};
        pthread_t thread;
        struct host h;

        host_start(&h, "max_connections: 2, lease_timeout: 300ms, lease_warn: 200ms");
        lessor *l = client_open(&h.broker);
        t.db = client_database(l, NULL);
        lessor_lease *held = acquire(t.db);
        check(pthread_create(&thread, NULL, keep_retaking, &t) == 0);
        check_figure_soon(&h.broker, "main", revocations, 1, 5000);
        check_soon(broker_figures_now(&h.broker, "main").warm_leases > 1000, WAIT_MS);
        atomic_store(&t.end, true);
        check(pthread_join(thread, NULL) == 0);
        check_figure(&h.broker, "main", revocations, 1);
        check(broker_figures_now(&h.broker, "main").overdue_leases <=
              1); /* it may have been cut off before it was looked at */
        lessor_release(held);
        lessor_close(l);
        host_end(&h);
}

TEST(warm_limits, whoever_counts_up_his_wanted_word_is_cut_off_all_the_same) {
        struct lessor_msg_grant g;
        struct words w;
        struct host h;

        host_start(&h, "max_connections: 1, lease_timeout: 500ms");
        check(words_attach(&w, h.broker.socket, "main"));
        int fd = words_lease(&w, 1000 * NS_PER_MS, &g);
        check(fd >= 0);
        check_eq(words_ask(&w, 9, 60000 * NS_PER_MS), 0); /* somebody waits */
        check_figure_soon(&h.broker, "main", waiting, 1, 5000);
        uint64_t value = words_load(&w, g.word);
        check_soon((words_store(&w, g.word, value += WORD_SEQUENCE_ONE),
                    broker_figures(&h.broker, "main").revocations == 1),
                   10000);
        close(fd);
        words_detach(&w);
        host_end(&h);
}

/* ---- users ---------------------------------------------------------------------------------------------------------- */

struct crowd {
        const char *socket;
        struct stage held, end;
        _Atomic int outcome;
};

static void become(uid_t uid) { child_check(setgroups(0, NULL) == 0 && setgid(uid) == 0 && setuid(uid) == 0); }

/* Holds one and wants another: the outcome of that. */
static int hold_one_and_want_another(unsigned index, void *arg) {
        struct crowd *c = arg;
        lessor_error e = {0};
        lessor_db *db;
        lessor *l;
        become(STRANGER);
        child_check(lessor_open(c->socket, &l) == 0 && lessor_database(l, NULL, &db, &e) == 0);
        lessor_lease *one = lessor_acquire(db, WAIT_MS, &e), *two = lessor_acquire(db, 300, &e);
        child_check(one);
        atomic_store(&c->outcome, two ? 0 : e.code);
        stage_advance(&c->held);
        child_check(stage_reached(&c->end, 1, WAIT_MS));
        lessor_release(one);
        lessor_release(two);
        lessor_close(l);
        return 0;
}

static void start_open_to_all(struct host *h, const char *top, const char *keys) {
        redis_start(&h->redis, NULL);
        broker_start(&h->broker, "socket_mode: 0666\n%s\ndatabases: {main: {%s, %s}}\n", top, redis_address(&h->redis),
                     keys);
}

TEST(warm_limits, one_user_has_only_so_many_leases_and_others_are_served) {
        struct crowd *c = shared_memory(sizeof(*c));
        struct workers w;
        struct host h;

        if (geteuid() != 0)
                test_skip("only root can be two users");
        start_open_to_all(&h, "", "max_connections: 4, max_leases_per_user: 1");
        c->socket = h.broker.socket;
        workers_start(&w, 1, hold_one_and_want_another, c);
        check(stage_reached(&c->held, 1, WAIT_MS));
        check_eq(atomic_load(&c->outcome), LESSOR_E_TIMEOUT);
        lessor *l = client_open(&h.broker);
        freeReplyObject(client_command(client_database(l, NULL), "PING"));
        check(broker_figures_now(&h.broker, "main").created_connections <=
              2); /* none is dialled for who may not have it */
        stage_advance(&c->end);
        check_eq(workers_wait(&w, WAIT_MS), 1);
        lessor_close(l);
        host_end(&h);
}

/* Alone in the queue before a free connection, which is not for him. */
static int hold_one_and_will_not_wait(unsigned index, void *arg) {
        struct crowd *c = arg;
        struct lessor_msg_grant g;
        struct words w;
        become(STRANGER);
        child_check(words_attach(&w, c->socket, "main") && words_lease(&w, LESSOR_WAIT_DEFAULT, &g) >= 0);
        stage_advance(&c->held);
        child_check(stage_reached(&c->end, 1, WAIT_MS));
        child_check(words_lease(&w, 0, &g) == -LESSOR_E_EXHAUSTED);
        child_check(words_lease(&w, 100 * NS_PER_MS, &g) == -LESSOR_E_TIMEOUT);
        words_detach(&w);
        return 0;
}

TEST(warm_limits, one_user_is_told_in_time_though_connections_are_free) {
        struct crowd *c = shared_memory(sizeof(*c));
        struct workers w;
        struct host h;

        if (geteuid() != 0)
                test_skip("only root can be two users");
        start_open_to_all(&h, "", "max_connections: 4, max_leases_per_user: 1");
        c->socket = h.broker.socket;
        workers_start(&w, 1, hold_one_and_will_not_wait, c);
        check(stage_reached(&c->held, 1, WAIT_MS));
        lessor *l = client_open(&h.broker);
        freeReplyObject(client_command(client_database(l, NULL), "PING"));
        lessor_close(l); /* what it had parked is free */
        check_figure_soon(&h.broker, "main", available_connections, 1, 5000);
        check_figure(&h.broker, "main", parked_connections, 0);
        stage_advance(&c->end);
        check_eq(workers_wait(&w, WAIT_MS), 1);
        host_end(&h);
}

static int wait_thrice(unsigned index, void *arg) {
        struct crowd *c = arg;
        struct words w;
        struct lessor_msg_grant g;
        become(STRANGER);
        child_check(words_attach(&w, c->socket, "main"));
        for (uint64_t i = 0; i < 3; i++)
                child_check(words_ask(&w, 10 + i, 60000 * NS_PER_MS) == 0);
        atomic_store(&c->outcome, -words_answer(&w, &g)); /* the third's: the others wait */
        stage_advance(&c->held);
        child_check(stage_reached(&c->end, 1, WAIT_MS));
        words_detach(&w);
        return 0;
}

TEST(warm_limits, one_user_has_only_so_many_requests_waiting) {
        struct crowd *c = shared_memory(sizeof(*c));
        struct workers w;
        struct host h;

        if (geteuid() != 0)
                test_skip("only root can be two users");
        start_open_to_all(&h, "", "max_connections: 1, max_waiters_per_user: 2");
        c->socket = h.broker.socket;
        lessor *l = client_open(&h.broker);
        lessor_lease *lease = acquire(client_database(l, NULL));
        workers_start(&w, 1, wait_thrice, c);
        check(stage_reached(&c->held, 1, WAIT_MS));
        check_eq(atomic_load(&c->outcome), LESSOR_E_LIMIT);
        check_figure(&h.broker, "main", waiting, 2);
        stage_advance(&c->end);
        check_eq(workers_wait(&w, WAIT_MS), 1);
        lessor_release(lease);
        lessor_close(l);
        host_end(&h);
}

static int attach_as_stranger(unsigned index, void *arg) {
        struct lessor_msg_attached attached;
        become(STRANGER);
        int fd = raw_attach(((struct crowd *)arg)->socket, 0, &attached);
        if (fd < 0)
                return 3;
        stage_advance(&((struct crowd *)arg)->held);
        child_check(stage_reached(&((struct crowd *)arg)->end, 1, WAIT_MS));
        return 0;
}

TEST(warm_limits, one_user_has_only_so_many_sessions_and_gets_them_back) {
        struct crowd *c = shared_memory(sizeof(*c));
        struct workers w[3];
        struct host h;

        if (geteuid() != 0)
                test_skip("only root can be two users");
        start_open_to_all(&h, "max_sessions_per_user: 2", "max_connections: 4");
        c->socket = h.broker.socket;
        workers_start(&w[0], 1, attach_as_stranger, c);
        workers_start(&w[1], 1, attach_as_stranger, c);
        check(stage_reached(&c->held, 2, WAIT_MS));
        workers_start(&w[2], 1, attach_as_stranger, c);
        check_eq(program_wait(w[2].pid[0], WAIT_MS), 3);
        check(broker_log_has(&h.broker, "max_sessions_per_user (2)"));
        lessor *l = client_open(&h.broker); /* another user */
        freeReplyObject(client_command(client_database(l, NULL), "PING"));
        workers_kill(&w[0], 0);
        check_soon(broker_sessions_now(&h.broker) == 2, 5000);
        workers_start(&w[2], 1, attach_as_stranger, c);
        check(stage_reached(&c->held, 3, WAIT_MS));
        stage_advance(&c->end);
        check_eq(workers_wait(&w[1], WAIT_MS) + workers_wait(&w[2], WAIT_MS), 2);
        lessor_close(l);
        host_end(&h);
}

/* ---- the broker's death --------------------------------------------------------------------------------------------- */

TEST(warm_limits, what_is_parked_outlives_a_killed_broker_until_there_is_a_new_one) {
        struct host h;

        host_start(&h, "max_connections: 3");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_lease *lease[3];
        for (unsigned i = 0; i < 3; i++)
                lease[i] = acquire(db);
        for (unsigned i = 0; i < 3; i++)
                lessor_release(lease[i]);
        check_figure_soon(&h.broker, "main", parked_connections, 3, 5000);
        unsigned fds = fd_count(getpid());
        broker_kill(&h.broker);
        for (unsigned i = 0; i < 100; i++)
                freeReplyObject(client_command(db, "INCR n"));
        for (unsigned i = 0; i < 3; i++)
                lease[i] = acquire(db);
        lessor_error e = {0};
        check(!lessor_acquire(db, 100, &e)); /* there are no more than those */
        check_eq(e.code, LESSOR_E_UNAVAILABLE);
        check(can_use(lease[2]));
        for (unsigned i = 0; i < 3; i++)
                lessor_release(lease[i]);
        check_eq(redis_connections(&h.redis, NULL), 3);
        broker_launch(&h.broker);
        check_soon((freeReplyObject(client_command(db, "INCR n")), broker_sessions_now(&h.broker) == 1), WAIT_MS);
        /* The old ones end: the new broker's cap is the only one. */
        check_soon(redis_connections(&h.redis, NULL) == 1, WAIT_MS);
        check_soon(fd_count(getpid()) <= fds, WAIT_MS);
        lessor_close(l);
        host_end(&h);
}

TEST(warm_limits, one_held_across_a_brokers_death_goes_on_and_ends_with_its_release) {
        struct host h;

        host_start(&h, "max_connections: 2");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_release(acquire(db));
        lessor_lease *held = acquire(db);
        broker_kill(&h.broker);
        broker_launch(&h.broker);
        check_soon((freeReplyObject(client_command(db, "INCR n")), broker_sessions_now(&h.broker) == 1), WAIT_MS);
        check(can_use(held));
        lessor_release(held);
        check_soon(redis_connections(&h.redis, NULL) == 1, WAIT_MS);
        lessor_close(l);
        host_end(&h);
}

/* SPDX-License-Identifier: MIT */
/*
 * Warm leases: a parked connection is its worker's for nothing, and anybody's who waits. Whoever waits is served before
 * the holder is served again; fds go over the socket once.
 */
#include <errno.h>
#include <stdatomic.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"
#include "support/words.h"

enum { WAIT_MS = 30000, S = 1000000000 };

struct scene {
        const char *socket;
        struct stage parked, go, done;
        unsigned n;
        _Atomic unsigned order[256];
        _Atomic unsigned turns;
};

static lessor_db *open_in_child(const char *socket, lessor **ret) {
        lessor_db *db;
        lessor_error e = {0};
        child_check(lessor_open(socket, ret) == 0);
        child_check(lessor_database(*ret, NULL, &db, &e) == 0);
        return db;
}

static lessor_lease *acquire_in_child(lessor_db *db) {
        lessor_error e = {0};
        lessor_lease *lease = lessor_acquire(db, WAIT_MS, &e);
        if (!lease)
                fprintf(stderr, "acquire: %s\n", e.text);
        child_check(lease);
        return lease;
}

static void use_in_child(lessor_lease *lease, unsigned value) {
        lessor_error e = {0};
        char expected[32];
        snprintf(expected, sizeof(expected), "%u", value);
        redisReply *reply = lessor_lease_command(lease, &e, "ECHO %u", value);
        if (!reply)
                fprintf(stderr, "ECHO: %s\n", e.text);
        child_check(reply && reply->str && strcmp(reply->str, expected) == 0);
        freeReplyObject(reply);
}

/* ---- parking and recall --------------------------------------------------------------------------------------------- */

static int park_and_stay(unsigned index, void *arg) {
        struct scene *s = arg;
        lessor *l;
        lessor_db *db = open_in_child(s->socket, &l);
        lessor_lease *lease[8];
        for (unsigned i = 0; i < s->n; i++)
                lease[i] = acquire_in_child(db);
        for (unsigned i = 0; i < s->n; i++) {
                use_in_child(lease[i], i);
                lessor_release(lease[i]);
        }
        stage_advance(&s->parked);
        child_check(stage_reached(&s->go, 1, WAIT_MS));
        use_in_child(lease[0] = acquire_in_child(db), 7); /* and it is served again, whoever had it meanwhile */
        lessor_release(lease[0]);
        lessor_close(l);
        return 0;
}

static void start_parked(struct host *h, struct scene **s, struct workers *w, const char *keys, unsigned n) {
        host_start(h, keys);
        *s = shared_memory(sizeof(**s));
        (*s)->socket = h->broker.socket;
        (*s)->n = n;
        workers_start(w, 1, park_and_stay, *s);
        check(stage_reached(&(*s)->parked, 1, WAIT_MS));
}

TEST(warm, what_one_process_has_parked_serves_another_that_waits) {
        struct scene *s;
        struct workers w;
        struct host h;
        lessor_error e = {0};

        start_parked(&h, &s, &w, "max_connections: 2", 2);
        check_figure_soon(&h.broker, "main", parked_connections, 2, 5000);
        check_figure(&h.broker, "main", available_connections, 2);
        check_figure(&h.broker, "main", in_use_connections, 0);
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_lease *lease = lessor_acquire(db, WAIT_MS, &e);
        check_msg(lease, "%s", e.text);
        redisReply *reply = lessor_lease_command(lease, &e, "ECHO mine");
        check_msg(reply, "%s", e.text);
        check_str(reply->str, "mine");
        freeReplyObject(reply);
        struct lessor_status_database d = broker_figures_now(&h.broker, "main");
        check_eq(d.recalls, 1);
        check_eq(d.parked_connections, 1); /* the other one was let be */
        check_eq(d.in_use_connections, 1);
        check_eq(d.created_connections, 2);
        check_eq(d.discards_dirty + d.discards_holder + d.discards_lost + d.discards_stray, 0);
        stage_advance(&s->go);
        check_eq(workers_wait(&w, WAIT_MS), 1);
        lessor_release(lease);
        lessor_close(l);
        host_end(&h);
}

TEST(warm, even_who_will_not_wait_gets_what_others_have_parked) {
        struct scene *s;
        struct workers w;
        struct host h;
        lessor_error e = {0};

        start_parked(&h, &s, &w, "max_connections: 1", 1);
        lessor *l = client_open(&h.broker);
        lessor_lease *lease = lessor_acquire(client_database(l, NULL), 0, &e);
        check_msg(lease, "%s", e.text);
        lessor_release(lease);
        stage_advance(&s->go);
        check_eq(workers_wait(&w, WAIT_MS), 1);
        lessor_close(l);
        host_end(&h);
}

TEST(warm, what_a_killed_worker_had_parked_is_handed_on_as_it_is) {
        struct scene *s;
        struct workers w;
        struct host h;

        start_parked(&h, &s, &w, "max_connections: 2", 2);
        workers_kill(&w, 0);
        check_soon(broker_sessions_now(&h.broker) == 0, 1000);
        struct lessor_status_database d = broker_figures_now(&h.broker, "main");
        check_eq(d.available_connections, 2);
        check_eq(d.parked_connections + d.in_use_connections + d.reclaims + d.discards_holder, 0);
        lessor *l = client_open(&h.broker);
        freeReplyObject(client_command(client_database(l, NULL), "PING"));
        check_figure(&h.broker, "main", created_connections, 2);
        lessor_close(l);
        host_end(&h);
}

TEST(warm, each_acquire_is_counted_cold_or_warm) {
        enum { ROUNDS = 1000 };
        struct host h;
        lessor_error e = {0};

        host_start(&h, "max_connections: 2");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        for (unsigned i = 0; i < ROUNDS; i++) {
                lessor_lease *lease = lessor_acquire(db, WAIT_MS, &e);
                check_msg(lease, "%s", e.text);
                lessor_release(lease);
        }
        struct lessor_status_database d = broker_figures_now(&h.broker, "main");
        check_eq(d.leases, 1);
        check_eq(d.warm_leases, ROUNDS - 1);
        check_eq(d.recalls, 0);
        lessor_close(l);
        /* Nothing is lost with the session: what was counted since the last look is counted at its end. */
        check_soon(broker_sessions_now(&h.broker) == 0, WAIT_MS);
        check_figure(&h.broker, "main", warm_leases, ROUNDS - 1);
        host_end(&h);
}

/* ---- the queue ------------------------------------------------------------------------------------------------------ */

enum { ROUNDS = 50 };

/* Holds until told; then releases and at once wants it again. */
static int take_turns(unsigned index, void *arg) {
        struct scene *s = arg;
        lessor *l;
        lessor_db *db = open_in_child(s->socket, &l);

        for (unsigned i = 0; i < ROUNDS / 2; i++) {
                lessor_lease *lease = acquire_in_child(db);
                unsigned turn = atomic_fetch_add(&s->turns, 1);
                atomic_store(&s->order[turn], index);
                use_in_child(lease, turn);
                stage_advance(&s->parked);
                child_check(stage_reached(&s->go, turn + 1, WAIT_MS));
                lessor_release(lease);
        }
        lessor_close(l);
        return 0;
}

TEST_WITH(warm, a_holder_does_not_take_it_again_past_those_who_wait, .timeout = 120) {
        struct scene *s = shared_memory(sizeof(*s));
        struct workers w;
        struct host h;

        host_start(&h, "max_connections: 1");
        s->socket = h.broker.socket;
        workers_start(&w, 2, take_turns, s);
        for (unsigned turn = 0; turn < ROUNDS; turn++) {
                check(stage_reached(&s->parked, turn + 1, WAIT_MS));
                if (turn < ROUNDS - 1) /* the other one is in the queue */
                        check_soon(broker_figures_now(&h.broker, "main").waiting == 1, WAIT_MS);
                stage_advance(&s->go);
        }
        check_eq(workers_wait(&w, WAIT_MS), 2);
        for (unsigned turn = 1; turn < ROUNDS; turn++)
                check_msg(s->order[turn] != s->order[turn - 1], "worker %u had turns %u and %u", s->order[turn],
                          turn - 1, turn);
        check_figure(&h.broker, "main", created_connections, 1);
        host_end(&h);
}

struct waiter {
        const char *socket;
        int wait_ms;
        struct stage *served;
};

static int wait_and_hold(unsigned index, void *arg) {
        struct waiter *waiter = arg;
        lessor *l;
        lessor_db *db = open_in_child(waiter->socket, &l);
        lessor_error e = {0};
        lessor_lease *lease = lessor_acquire(db, waiter->wait_ms, &e);
        if (!lease)
                return e.code == LESSOR_E_TIMEOUT ? 3 : 1;
        use_in_child(lease, 5);
        stage_advance(waiter->served);
        lessor_release(lease);
        lessor_close(l);
        return 0;
}

TEST(warm, waiters_who_died_or_gave_up_are_skipped) {
        struct scene *s = shared_memory(sizeof(*s));
        struct workers w[3];
        struct host h;
        lessor_error e = {0};

        host_start(&h, "max_connections: 1");
        lessor *l = client_open(&h.broker);
        lessor_lease *lease = lessor_acquire(client_database(l, NULL), WAIT_MS, &e);
        check_msg(lease, "%s", e.text);
        for (unsigned i = 0; i < 3; i++) {
                struct waiter waiter = {h.broker.socket, i == 1 ? 1500 * PROCESS_SLOW : WAIT_MS, &s->done};
                workers_start(&w[i], 1, wait_and_hold, &waiter);
                check_figure_soon(&h.broker, "main", waiting, i + 1, 5000);
        }
        workers_kill(&w[0], 0);
        check_eq(program_wait(w[1].pid[0], WAIT_MS), 3);
        check_figure_soon(&h.broker, "main", waiting, 1, 5000);
        lessor_release(lease);
        check(stage_reached(&s->done, 1, 1000 * PROCESS_SLOW));
        check_eq(workers_wait(&w[2], WAIT_MS), 1);
        check_figure(&h.broker, "main", cancelled, 1);
        check_figure(&h.broker, "main", lease_timeouts, 1);
        lessor_close(l);
        host_end(&h);
}

TEST(warm, when_those_who_waited_are_gone_the_holder_may_park_again) {
        struct scene *s = shared_memory(sizeof(*s));
        struct workers w;
        struct host h;
        lessor_error e = {0};

        host_start(&h, "max_connections: 1");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_lease *lease = lessor_acquire(db, WAIT_MS, &e);
        struct waiter waiter = {h.broker.socket, WAIT_MS, &s->done};
        workers_start(&w, 1, wait_and_hold, &waiter);
        check_figure_soon(&h.broker, "main", waiting, 1, 5000);
        workers_kill(&w, 0);
        check_figure_soon(&h.broker, "main", waiting, 0, 5000);
        lessor_release(lease);
        check_figure_soon(&h.broker, "main", parked_connections, 1, 5000);
        lessor_release(lessor_acquire(db, WAIT_MS, &e));
        check_figure_soon(&h.broker, "main", warm_leases, 1, 5000);
        lessor_close(l);
        host_end(&h);
}

/* Its deadline passes while the broker stands still; then the process does nothing any more. */
static int leave_an_orphan_and_stay(unsigned index, void *arg) {
        struct scene *s = arg;
        lessor_error e = {0};
        lessor *l;
        lessor_db *db = open_in_child(s->socket, &l);
        lessor_lease *lease = acquire_in_child(db);
        stage_advance(&s->parked);
        child_check(stage_reached(&s->go, 1, WAIT_MS)); /* the broker stands still */
        child_check(!lessor_acquire(db, 100, &e));
        lessor_release(lease);
        stage_advance(&s->parked);
        child_check(stage_reached(&s->go, 2, WAIT_MS));
        lessor_close(l);
        return 0;
}

TEST(warm, a_grant_that_comes_too_late_does_not_stay_with_an_idle_process) {
        struct scene *s = shared_memory(sizeof(*s));
        struct workers w;
        struct host h;
        lessor_error e = {0};

        host_start(&h, "max_connections: 1");
        s->socket = h.broker.socket;
        workers_start(&w, 1, leave_an_orphan_and_stay, s);
        check(stage_reached(&s->parked, 1, WAIT_MS));
        broker_pause(&h.broker);
        stage_advance(&s->go);
        check(stage_reached(&s->parked, 2, WAIT_MS));
        broker_resume(&h.broker);
        lessor *l = client_open(&h.broker);
        lessor_lease *lease = lessor_acquire(client_database(l, NULL), 5000 * PROCESS_SLOW, &e);
        check_msg(lease, "%s", e.text);
        lessor_release(lease);
        stage_advance(&s->go);
        check_eq(workers_wait(&w, WAIT_MS), 1);
        lessor_close(l);
        host_end(&h);
}

/* ---- fds -------------------------------------------------------------------------------------------------------------- */

TEST(warm, a_connection_that_the_worker_still_has_comes_without_an_fd) {
        struct lessor_msg_grant g, again;
        struct words w;
        struct host h;

        host_start(&h, "max_connections: 1");
        check(words_attach(&w, h.broker.socket, "main"));
        int fd = words_lease(&w, S, &g);
        check_msg(fd >= 0, "%d", fd);
        check(words_ping(fd));
        check_eq(words_return(&w, &g, LESSOR_RETURN_CLEAN | LESSOR_RETURN_KEPT), 0);
        check_eq(words_lease(&w, S, &again), WORDS_FD_KEPT);
        check(again.word == g.word && again.slot == g.slot && again.generation == g.generation);
        check(again.lease != g.lease && again.sequence > g.sequence);
        check(words_ping(fd));
        /* Recalled while it was parked: likewise. */
        check(words_park(&w, g.word));
        lessor *l = client_open(&h.broker);
        freeReplyObject(client_command(client_database(l, NULL), "PING"));
        check(!words_retake(&w, g.word));
        check_eq(words_lease(&w, S, &g), WORDS_FD_KEPT);
        check(words_ping(fd));
        /* Given back without it: it is sent again. */
        check_eq(words_return(&w, &g, LESSOR_RETURN_CLEAN), 0);
        close(fd);
        fd = words_lease(&w, S, &g);
        check_msg(fd >= 0, "%d", fd);
        check(words_ping(fd));
        check_figure(&h.broker, "main", created_connections, 1);
        close(fd);
        words_detach(&w);
        lessor_close(l);
        host_end(&h);
}

TEST(warm, a_connection_dialled_anew_comes_with_its_fd_whatever_the_worker_says_he_has) {
        struct lessor_msg_grant g, again;
        struct words w;
        struct host h;

        host_start(&h, "max_connections: 1");
        check(words_attach(&w, h.broker.socket, "main"));
        int fd = words_lease(&w, S, &g);
        check_eq(words_return(&w, &g, LESSOR_RETURN_KEPT), 0); /* not clean, and no proof */
        int other = words_lease(&w, 5ULL * S, &again);
        check_msg(other >= 0 || (other == WORDS_FD_KEPT && again.generation == g.generation), "%d", other);
        check(words_ping(other >= 0 ? other : fd));
        close(fd);
        close(other);
        words_detach(&w);
        host_end(&h);
}

enum { CAP = 8, CACHE = 2 };

static int hold_all_then_one_by_one(unsigned index, void *arg) {
        struct scene *s = arg;
        lessor *l;
        lessor_db *db = open_in_child(s->socket, &l);
        lessor_lease *lease[CAP];
        for (unsigned i = 0; i < CAP; i++)
                lease[i] = acquire_in_child(db);
        unsigned full = fd_count(getpid());
        for (unsigned i = 0; i < CAP; i++)
                lessor_release(lease[i]);
        stage_advance(&s->parked);
        child_check(stage_reached(&s->go, 1, WAIT_MS)); /* all were recalled meanwhile */
        for (unsigned i = 0; i < 2 * CAP; i++) {
                lease[0] = acquire_in_child(db);
                use_in_child(lease[0], i);
                stage_advance(&s->done);
                child_check(stage_reached(&s->go, 2 + i, WAIT_MS));
                lessor_release(lease[0]);
                child_check(stage_reached(&s->parked, 2 + i, WAIT_MS)); /* recalled */
        }
        unsigned now = fd_count(getpid()), most = full - CAP + CACHE + 1;
        if (now > most)
                fprintf(stderr, "%u fds, at most %u expected\n", now, most);
        child_check(now <= most);
        lessor_close(l);
        return 0;
}

TEST(warm, a_worker_keeps_fds_of_what_it_has_and_of_no_more_than_fd_cache_others) {
        struct scene *s = shared_memory(sizeof(*s));
        lessor_lease *lease[CAP];
        lessor_error e = {0};
        struct workers w;
        struct host h;

        redis_start(&h.redis, NULL);
        broker_start(&h.broker, "fd_cache: %d\ndatabases: {main: {%s, max_connections: %d}}\n", CACHE,
                     redis_address(&h.redis), CAP);
        s->socket = h.broker.socket;
        workers_start(&w, 1, hold_all_then_one_by_one, s);
        check(stage_reached(&s->parked, 1, WAIT_MS));
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        for (unsigned i = 0; i < CAP; i++)
                check((lease[i] = lessor_acquire(db, WAIT_MS, &e)));
        check_figure(&h.broker, "main", recalls, CAP);
        stage_advance(&s->go);
        for (unsigned i = 0; i < 2 * CAP; i++) {
                unsigned n = i % CAP; /* another connection each time */
                lessor_release(lease[n]);
                check(stage_reached(&s->done, i + 1, WAIT_MS));
                stage_advance(&s->go);
                check((lease[n] = lessor_acquire(db, WAIT_MS, &e)));
                stage_advance(&s->parked);
        }
        check_eq(workers_wait(&w, WAIT_MS), 1);
        for (unsigned i = 0; i < CAP; i++)
                lessor_release(lease[i]);
        lessor_close(l);
        host_end(&h);
}

static int check_site(const char *site, const struct host *h) {
        char *text;
        int status = program_run((const char *[]){tool_path(), "leases", "--instance", h->broker.instance, NULL}, &text,
                                 WAIT_MS);
        check_msg(status == 0 && strstr(text, site), "%s in (%d):\n%s", site, status, text);
        free(text);
        return status;
}

TEST(warm, leases_names_the_site_of_the_last_acquire_not_of_the_first) {
        char site[64];
        struct host h;
        lessor_error e = {0};

        host_start(&h, "max_connections: 1");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_release(lessor_acquire(db, WAIT_MS, &e));
        lessor_release(lessor_acquire(db, WAIT_MS, &e));
        lessor_lease *lease = lessor_acquire(db, WAIT_MS, &e);
        snprintf(site, sizeof(site), "test_warm.c:%d", __LINE__ - 1);
        check_str(broker_connection_held(&h.broker).site, site);
        check_eq(broker_connection_held(&h.broker).holder_tid, getpid());
        check_site(site, &h);
        lessor_release(lease);
        lease = lessor_acquire_at(db, WAIT_MS, "other.c", 77, &e);
        check_str(broker_connection_held(&h.broker).site, "other.c:77");
        lessor_release(lease);
        check_figure(&h.broker, "main", leases, 1);
        lessor_close(l);
        host_end(&h);
}

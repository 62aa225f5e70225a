/* SPDX-License-Identifier: MIT */
/* The broker dies or stops: what is held goes on, who asks is told, and the next broker is found by itself. */
#include <errno.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"

enum { WAIT_MS = 20000 };

static lessor_lease *acquire(lessor_db *db) {
        lessor_error e = {0};
        lessor_lease *lease = lessor_acquire(db, WAIT_MS, &e);
        check_msg(lease, "%s", e.text);
        return lease;
}

static void check_alive(lessor_lease *lease) {
        lessor_error e = {0};
        redisReply *r = lessor_lease_command(lease, &e, "INCR n");
        check_msg(r && r->type == REDIS_REPLY_INTEGER, "%s", e.text);
        freeReplyObject(r);
}

/* Who asks meanwhile is told that nobody answers; who asks afterwards is served, whoever he is. */
static void check_goes_on(void (*end)(struct broker *)) {
        struct host h;
        lessor_error e = {0};

        host_start(&h, "max_connections: 2");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_lease *lease = acquire(db);
        check_alive(lease);
        end(&h.broker);
        check_alive(lease);
        check(!lessor_command(db, &e, "PING"));
        check_msg(e.code == LESSOR_E_UNAVAILABLE && !e.may_have_run, "%d: %s", e.code, e.text);
        check_alive(lease);
        broker_launch(&h.broker);
        redisReply *r = NULL;
        check_soon((r = lessor_command(db, &e, "PING")) != NULL, WAIT_MS);
        freeReplyObject(r);
        check_alive(lease);
        lessor_release(lease);
        check_soon(redis_connections(&h.redis, NULL) == 1, WAIT_MS);
        check_eq(broker_sessions_now(&h.broker), 1);
        lessor_close(l);
        host_end(&h);
}

TEST(broker_death, a_held_lease_goes_on_and_the_next_broker_is_found) { check_goes_on(broker_kill); }

TEST(broker_death, a_stop_is_no_worse_than_a_crash) { check_goes_on(broker_stop); }

struct waiter {
        const char *socket;
        struct stage asking;
};

static int wait_and_be_told(unsigned index, void *arg) {
        struct waiter *w = arg;
        lessor *l;
        lessor_db *db;
        lessor_error e = {0};

        child_check(lessor_open(w->socket, &l) == 0 && lessor_database(l, NULL, &db, &e) == 0);
        child_check(!lessor_acquire(db, 10 * WAIT_MS, &e));
        child_check(e.code == LESSOR_E_UNAVAILABLE && !e.may_have_run);
        lessor_close(l);
        return 0;
}

static void check_waiters_are_told(void (*end)(struct broker *)) {
        struct waiter *w = shared_memory(sizeof(*w));
        struct workers workers;
        struct host h;

        host_start(&h, "max_connections: 1");
        lessor *l = client_open(&h.broker);
        lessor_lease *lease = acquire(client_database(l, NULL));
        w->socket = h.broker.socket;
        workers_start(&workers, 5, wait_and_be_told, w);
        check_figure_soon(&h.broker, "main", waiting, 5, WAIT_MS);
        end(&h.broker);
        check_eq(workers_wait(&workers, WAIT_MS), 5);
        check_alive(lease);
        lessor_release(lease);
        lessor_close(l);
        broker_free(&h.broker);
        redis_stop(&h.redis);
}

TEST(broker_death, those_who_wait_are_told_when_the_broker_is_killed) { check_waiters_are_told(broker_kill); }

TEST(broker_death, those_who_wait_are_told_when_the_broker_stops) { check_waiters_are_told(broker_stop); }

TEST(broker_death, without_a_broker_every_call_says_so_at_once) {
        struct host h;
        lessor_error e = {0};
        lessor_db *db;
        lessor *l;

        host_start(&h, "max_connections: 1");
        broker_stop(&h.broker);
        check_eq(lessor_open(h.broker.socket, &l), 0);
        uint64_t began = now_ms();
        check_eq(lessor_database(l, NULL, &db, &e), LESSOR_E_UNAVAILABLE);
        check(now_ms() - began < 2000 * PROCESS_SLOW);
        check_msg(strstr(e.text, h.broker.socket), "%s", e.text);
        broker_launch(&h.broker);
        check_soon(lessor_database(l, NULL, &db, &e) == 0, WAIT_MS);
        freeReplyObject(client_command(db, "PING"));
        lessor_close(l);
        host_end(&h);
}

TEST(broker_death, a_database_is_found_again_by_name_when_its_number_has_changed) {
        struct host h;
        struct broker *b = &h.broker;

        redis_start(&h.redis, NULL);
        broker_start(b, "databases:\n  alpha: {%s, db: 1}\n  main: {unix_socket: %s, db: 2}\n", redis_address(&h.redis),
                     h.redis.socket);
        lessor *l = client_open(b);
        lessor_db *main_db = client_database(l, NULL), *alpha = client_database(l, "alpha");
        freeReplyObject(client_command(main_db, "SET who main"));
        freeReplyObject(client_command(alpha, "SET who alpha"));
        broker_stop(b);
        FILE *f = fopen(b->config, "we");
        check(f && fprintf(f, "databases:\n  main: {unix_socket: %s, db: 2}\n", h.redis.socket) > 0 && fclose(f) == 0);
        broker_launch(b);
        lessor_error e = {0};
        redisReply *r = NULL;
        check_soon((r = lessor_command(main_db, &e, "GET who")) != NULL, WAIT_MS);
        check_str(r->str, "main");
        freeReplyObject(r);
        /* What alpha had parked ends with the old broker's session; the new one does not know it. */
        check_soon((r = lessor_command(alpha, &e, "GET who")) == NULL || (freeReplyObject(r), false), WAIT_MS);
        check_msg(e.code == LESSOR_E_UNKNOWN_DATABASE, "%d: %s", e.code, e.text);
        lessor_close(l);
        host_end(&h);
}

TEST(broker_death, a_stopped_broker_is_a_wait_that_ends_at_its_deadline) {
        struct host h;
        lessor_error e = {0};

        host_start(&h, "max_connections: 1");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        freeReplyObject(client_command(db, "PING"));
        broker_pause(&h.broker);
        /* One is parked, and serves without a broker. A second one is the broker's to give. */
        lessor_lease *parked = lessor_acquire(db, 300, &e);
        check_msg(parked, "%s", e.text);
        uint64_t began = now_ms();
        check(!lessor_acquire(db, 300, &e));
        uint64_t took = now_ms() - began;
        lessor_release(parked);
        broker_resume(&h.broker);
        check_msg(took < 10000 * PROCESS_SLOW, "after %llu ms", (unsigned long long)took);
        check_msg(e.code == LESSOR_E_TIMEOUT || e.code == LESSOR_E_UNAVAILABLE, "%d: %s", e.code, e.text);
        redisReply *r = NULL;
        check_soon((r = lessor_command(db, &e, "PING")) != NULL, WAIT_MS);
        freeReplyObject(r);
        lessor_close(l);
        host_end(&h);
}

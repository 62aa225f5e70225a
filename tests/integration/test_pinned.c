/* SPDX-License-Identifier: MIT */
/*
 * Leases of those who block (BLPOP, SUBSCRIBE): with `max_pinned` they leave connections for those who do not, wherever
 * they come from, and wait for one of their own kind to end.
 */
#include <pthread.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"
#include "support/words.h"

enum { WAIT_MS = 30000, SHORT_MS = 300 };

static lessor_lease *pin(lessor_db *db, int wait_ms) {
        lessor_error e = {0};
        lessor_lease *lease = lessor_acquire_pinned(db, wait_ms, &e);
        check_msg(lease, "%s", e.text);
        return lease;
}

/* Not by the library's own patience, which is a second longer than the broker's: that one would be LESSOR_E_UNAVAILABLE. */
static void check_no_room(lessor_db *db, int wait_ms, int expected) {
        lessor_error e = {0};
        check(!lessor_acquire_pinned(db, wait_ms, &e));
        check_msg(e.code == expected, "%d instead of %d: %s", e.code, expected, e.text);
        check_msg(strstr(e.text, "max_pinned"), "%s", e.text);
        check(!e.may_have_run);
}

TEST(pinned, no_more_than_max_pinned_are_held_and_the_error_says_so) {
        struct host h;
        lessor_lease *held[2];

        host_start(&h, "max_connections: 5, max_pinned: 2");
        lessor *l = client_open(&h.broker), *other = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        held[0] = pin(db, WAIT_MS);
        held[1] = pin(client_database(other, NULL), WAIT_MS);
        check_no_room(db, 0, LESSOR_E_EXHAUSTED);
        check_no_room(db, SHORT_MS, LESSOR_E_TIMEOUT);
        check_figure(&h.broker, "main", in_use_connections, 2);
        check_figure(&h.broker, "main", waiting, 0);
        /* One of them ends: its place is the next one's. What was pinned is not parked: nobody would recall it. */
        lessor_release(held[1]);
        check_figure_soon(&h.broker, "main", in_use_connections, 1, 5000);
        check_figure(&h.broker, "main", parked_connections, 0);
        held[1] = pin(db, WAIT_MS);
        check_no_room(db, 0, LESSOR_E_EXHAUSTED);
        lessor_release(held[0]);
        lessor_release(held[1]);
        lessor_close(other);
        lessor_close(l);
        host_end(&h);
}

/* Alone in the queue, and a connection free: he is not served at once, but is told in time. */
TEST(pinned, who_is_at_the_limit_is_told_in_time_though_connections_are_free) {
        struct host h;

        host_start(&h, "max_connections: 4, max_pinned: 1");
        lessor *l = client_open(&h.broker), *other = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_lease *held = pin(db, WAIT_MS);
        freeReplyObject(client_command(client_database(other, NULL), "PING"));
        lessor_close(other); /* what it had parked is free */
        check_figure_soon(&h.broker, "main", available_connections, 1, 5000);
        check_figure(&h.broker, "main", parked_connections, 0);
        check_no_room(db, 0, LESSOR_E_EXHAUSTED);
        check_no_room(db, SHORT_MS, LESSOR_E_TIMEOUT);
        lessor_release(held);
        lessor_close(l);
        host_end(&h);
}

TEST(pinned, those_who_do_not_block_are_served_past_those_who_wait_to) {
        struct host h;
        struct words waits;
        struct lessor_msg_lease ask;

        host_start(&h, "max_connections: 2, max_pinned: 1");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_lease *held = pin(db, WAIT_MS);
        check(words_attach(&waits, h.broker.socket, "main"));
        ask = raw_lease_message(5, waits.database, UINT64_C(1000000) * WAIT_MS);
        ask.flags = LESSOR_LEASE_PINNED;
        check_eq(raw_say(waits.socket, &ask), 0);
        check_figure_soon(&h.broker, "main", waiting, 1, 5000);
        for (unsigned i = 0; i < 50; i++)
                freeReplyObject(client_command(db, "PING"));
        check_figure(&h.broker, "main", waiting, 1);
        /* Who waited is served as soon as one of his kind has ended. */
        lessor_release(held);
        struct lessor_msg_grant grant;
        int fd = words_answer(&waits, &grant);
        check(fd >= 0 && words_ping(fd));
        close(fd);
        words_detach(&waits);
        lessor_close(l);
        host_end(&h);
}

TEST(pinned, a_command_that_blocks_is_pinned_by_itself) {
        struct host h;
        lessor_error e = {0};

        host_start(&h, "max_connections: 2, max_pinned: 1");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_lease *held = pin(db, WAIT_MS);
        check(!lessor_command_argv(db, SHORT_MS, 3, (const char *[]){"BLPOP", "nothing", "1"}, NULL, &e));
        check_eq(e.code, LESSOR_E_TIMEOUT);
        check(!e.may_have_run);
        freeReplyObject(client_command(db, "LPUSH something here"));
        lessor_release(held);
        redisReply *reply = lessor_command_argv(db, WAIT_MS, 3, (const char *[]){"BLPOP", "something", "1"}, NULL, &e);
        check_msg(reply && reply->elements == 2, "%s", e.text);
        freeReplyObject(reply);
        lessor_close(l);
        host_end(&h);
}

static int pin_until_killed(unsigned index, void *arg) {
        struct stage *s = arg;
        lessor_error e = {0};
        lessor *l;
        lessor_db *db;
        child_check(lessor_open(getenv("LESSOR_SOCKET"), &l) == 0 && lessor_database(l, NULL, &db, &e) == 0);
        child_check(lessor_acquire_pinned(db, WAIT_MS, &e));
        stage_advance(s);
        stage_reached(s, 100, 2 * WAIT_MS);
        return 0;
}

TEST(pinned, a_pinned_lease_whose_holder_is_killed_is_anothers) {
        struct stage *s = shared_memory(sizeof(*s));
        struct workers w;
        struct host h;

        host_start(&h, "max_connections: 3, max_pinned: 1");
        setenv("LESSOR_SOCKET", h.broker.socket, 1);
        workers_start(&w, 1, pin_until_killed, s);
        check(stage_reached(s, 1, WAIT_MS));
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        check_no_room(db, 0, LESSOR_E_EXHAUSTED);
        workers_kill(&w, 0);
        lessor_release(pin(db, WAIT_MS));
        lessor_close(l);
        host_end(&h);
}

/* SPDX-License-Identifier: MIT */
/* Plain calls by lane: what comes back, and every way to a lease. */
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "base/clock.h"
#include "client/lane_client.h"

/* ---- replies ------------------------------------------------------------------------------------------------------- */

static void replies(struct fake *f, void *unused) {
        need(f, script_begins(f));
        need(f, fake_lane_take_command(&lane, GET_K));
        need(f, lane.request.database == 0 && lane.request.deadline_ns > clock_now());
        need(f, fake_lane_reply(&lane, lane.request.tag, "$5\r\nvalue\r\n"));
        need(f, fake_lane_take_command(&lane, GET_K));
        need(f, fake_lane_reply(&lane, lane.request.tag, "-ERR no\r\n"));
        need(f, fake_lane_take_command(&lane, GET_K));
        need(f, fake_lane_reply(&lane, lane.request.tag, "*2\r\n:1\r\n$-1\r\n"));
        script_ends(f);
        need(f, f->segment->session == 11);
}

TEST(client_lane, a_command_goes_by_lane_and_its_reply_comes) {
        struct lessor_segment_database *counted;
        struct client c;
        redisReply *r;

        client_start(&c, replies);
        r = get(&c, LESSOR_WAIT_CONFIGURED);
        check_msg(r, "%s", c.e.text);
        check_str(r->str, "value");
        check_eq(c.e.code, 0);
        freeReplyObject(r);
        r = lessor_command(c.db, &c.e, "GET %s", "k");
        check_msg(r, "%s", c.e.text);
        check_eq(r->type, REDIS_REPLY_ERROR);
        check_str(r->str, "ERR no");
        freeReplyObject(r);
        r = get(&c, 1000);
        check_msg(r && r->type == REDIS_REPLY_ARRAY && r->elements == 2, "%s", c.e.text);
        check_eq(r->element[1]->type, REDIS_REPLY_NIL);
        freeReplyObject(r);
        counted = (void *)((char *)c.f.segment + sizeof(struct lessor_segment));
        check_eq(counted->operations_ok, 2);
        check_eq(counted->operations_failed, 1);
        client_end(&c);
}

static void quiet(struct fake *f, void *unused) {
        need(f, script_begins(f));
        lane.quiet = true;
        for (int i = 0; i < 3; i++) {
                need(f, fake_lane_take_command(&lane, GET_K));
                need(f, fake_lane_reply(&lane, lane.request.tag, "+OK\r\n"));
        }
        script_ends(f);
}

TEST(client_lane, the_lanes_own_bell_is_rung_too) {
        struct client c;

        client_start(&c, quiet);
        for (int i = 0; i < 3; i++) {
                redisReply *r = get(&c, 5000);
                check_msg(r, "%s", c.e.text);
                freeReplyObject(r);
        }
        client_end(&c);
}

static void one_reply_is_none(struct fake *f, void *reply) {
        need(f, script_begins(f));
        need(f, fake_lane_take_command(&lane, GET_K));
        need(f, fake_lane_reply(&lane, lane.request.tag, *(const char **)reply));
        need(f, fake_lane_take_command(&lane, GET_K));
        need(f, fake_lane_reply(&lane, lane.request.tag, "+OK\r\n"));
        script_ends(f);
}

TEST(client_lane, what_is_not_one_whole_reply_is_that_calls_error_alone) {
        static const char *const bad[] = {"", "$5\r\nval", "+A\r\n+B\r\n", "%1\r\n+a\r\n+b\r\n", "nonsense", "*1\r\n"};

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                const char *data = bad[i];
                struct client c;
                redisReply *r;
                client_prepare(&c);
                client_run(&c, one_reply_is_none, &data);
                check(!get(&c, 5000));
                check_eq(c.e.code, LESSOR_E_PROTOCOL);
                check(c.e.may_have_run && strstr(c.e.text, "`main`") && strstr(c.e.text, "may have run"));
                r = get(&c, 5000);
                check_msg(r, "%s", c.e.text);
                freeReplyObject(r);
                client_end(&c);
        }
}

/* ---- errors -------------------------------------------------------------------------------------------------------- */

static void errors(struct fake *f, void *unused) {
        static const char text[] = {'n', 'o', ' ', 'c', 'o', 'n', 'n'};

        need(f, script_begins(f));
        need(f, fake_lane_take(&lane));
        need(f, fake_lane_complete(&lane, &(struct lane_answer){.tag = lane.request.tag,
                                                                .outcome = LESSOR_E_UPSTREAM,
                                                                .data = text,
                                                                .length = sizeof(text)}));
        need(f, fake_lane_wake(&lane));
        need(f, fake_lane_take(&lane));
        need(f, fake_lane_refuse(&lane, lane.request.tag, LESSOR_E_REPLY_TIMEOUT, LANE_MAY_HAVE_RUN, NULL));
        need(f, fake_lane_take(&lane));
        need(f, fake_lane_refuse(&lane, lane.request.tag, -5, 0, NULL));
        script_ends(f);
}

TEST(client_lane, an_error_says_what_the_broker_says_and_whether_it_may_have_run) {
        struct client c;

        client_start(&c, errors);
        check(!get(&c, 5000));
        check_eq(c.e.code, LESSOR_E_UPSTREAM);
        check(!c.e.may_have_run && strstr(c.e.text, "no conn; the command was not sent") && strstr(c.e.text, c.f.path));
        check(!get(&c, 5000));
        check_eq(c.e.code, LESSOR_E_REPLY_TIMEOUT);
        check(c.e.may_have_run && strstr(c.e.text, "may have run"));
        check(!get(&c, 5000));
        check_eq(c.e.code, LESSOR_E_PROTOCOL);
        client_end(&c);
}

/* ---- by lease all the same ------------------------------------------------------------------------------------------ */

static void refused_then_leased(struct fake *f, void *unused) {
        need(f, script_begins(f));
        need(f, fake_lane_take_command(&lane, GET_K));
        need(f, fake_lane_refuse(&lane, lane.request.tag, LESSOR_E_NEEDS_LEASE, 0, "the command blocks"));
        lease_once(f, GET_K);
        script_ends(f);
}

TEST(client_lane, what_the_broker_does_not_take_goes_by_lease) {
        struct client c;
        redisReply *r;

        client_start(&c, refused_then_leased);
        r = get(&c, 5000);
        check_msg(r, "%s", c.e.text);
        check_str(r->str, "leased");
        check_eq(c.e.code, 0);
        freeReplyObject(r);
        client_end(&c);
}

static void leased_without_a_lane(struct fake *f, void *command) {
        need(f, fake_attach(f));
        lease_once(f, command);
        need(f, fake_gone(f));
}

static void check_leased(int argc, const char **argv, const char *command) {
        struct client c;

        client_prepare(&c);
        client_run(&c, leased_without_a_lane, (void *)(uintptr_t)command);
        check_reply(&c, lessor_command_argv(c.db, 5000, argc, argv, NULL, &c.e), "leased");
        client_end(&c);
}

TEST(client_lane, what_leaves_something_behind_or_blocks_goes_by_lease_at_once) {
        check_leased(2, (const char *[]){"SELECT", "1"}, "*2\r\n$6\r\nSELECT\r\n$1\r\n1\r\n");
        check_leased(3, (const char *[]){"BLPOP", "k", "0"}, "*3\r\n$5\r\nBLPOP\r\n$1\r\nk\r\n$1\r\n0\r\n");
        check_leased(2, (const char *[]){"xread", "k"}, "*2\r\n$5\r\nxread\r\n$1\r\nk\r\n");
        check_leased(1, (const char *[]){"MODULE.CMD"}, "*1\r\n$10\r\nMODULE.CMD\r\n");
}

static void no_lane(struct fake *f, void *unused) {
        union wire_message m;

        need(f, fake_attach(f));
        need(f, fake_receive(f, LESSOR_MSG_LANE, &m));
        need(f, m.lane.thread == 0);
        need(f, fake_refuse(f, m.header.request, LESSOR_E_LIMIT, 0, "no more lanes"));
        lease_once(f, GET_K);
        lease_once(f, GET_K); /* and it is not asked again at once */
        need(f, fake_gone(f));
}

TEST(client_lane, who_is_refused_a_lane_leases) {
        struct client c;

        client_start(&c, no_lane);
        for (int i = 0; i < 2; i++) {
                check_reply(&c, get(&c, 5000), "leased");
        }
        client_end(&c);
}

static void advice_changes(struct fake *f, void *unused) {
        need(f, script_begins(f));
        need(f, fake_lane_take(&lane));
        fake_advise(f, LESSOR_PATH_DIRECT);
        need(f, fake_lane_reply(&lane, lane.request.tag, "+by lane\r\n"));
        lease_once(f, GET_K);
        fake_advise(f, LESSOR_PATH_LANE);
        need(f, fake_lane_take(&lane));
        need(f, fake_lane_reply(&lane, lane.request.tag, "+by lane\r\n"));
        script_ends(f);
}

TEST(client_lane, the_control_page_says_how) {
        static const char *const ways[] = {"by lane", "leased"};
        struct client c;

        client_start(&c, advice_changes);
        for (int i = 0; i < 2; i++) {
                check_reply(&c, get(&c, 5000), ways[i]);
        }
        while (__atomic_load_n(&c.f.control->database[0].path, __ATOMIC_RELAXED) != LESSOR_PATH_LANE)
                sched_yield();
        freeReplyObject(get(&c, 5000));
        check_eq(c.e.code, 0);
        client_end(&c);
}

static void small_lane(struct fake *f, void *unused) {
        struct lane_geometry g = {.entries = 4, .requests_size = 100, .replies_size = 100};

        need(f, fake_attach(f) && fake_lane_open_with(f, &lane, &g));
        need(f, fake_lane_take_command(&lane, GET_K));
        need(f, fake_lane_reply(&lane, lane.request.tag, "+by lane\r\n"));
        union wire_message m;
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        need(f, !fake_lane_has(&lane));
        need(f, fake_refuse(f, m.header.request, LESSOR_E_EXHAUSTED, 0, "seen"));
        script_ends(f);
}

TEST(client_lane, what_never_fits_goes_by_lease) {
        static char large[8192];
        struct client c;
        redisReply *r;

        memset(large, 'x', sizeof(large) - 1);
        client_start(&c, small_lane);
        r = get(&c, 5000);
        check_msg(r, "%s", c.e.text);
        freeReplyObject(r);
        check(!lessor_command_argv(c.db, 5000, 3, (const char *[]){"SET", "k", large}, NULL, &c.e));
        check_eq(c.e.code, LESSOR_E_EXHAUSTED);
        client_end(&c);
}

static void breaker_opens(struct fake *f, void *unused) {
        struct lessor_control_database *d = &f->control->database[0];

        need(f, script_begins(f));
        need(f, fake_lane_take(&lane));
        strcpy(d->breaker_text, "it is down");
        d->breaker_length = strlen(d->breaker_text);
        d->breaker_retry_ns = clock_now() + 60 * NS_PER_S;
        __atomic_store_n(&d->breaker, LESSOR_BREAKER_OPEN | 4, __ATOMIC_RELEASE);
        need(f, fake_lane_reply(&lane, lane.request.tag, "+OK\r\n"));
        need(f, fake_gone(f));
        need(f, !fake_lane_has(&lane));
        fake_lane_close(&lane);
}

TEST(client_lane, an_open_breaker_refuses_without_a_word_to_the_broker) {
        struct client c;

        client_start(&c, breaker_opens);
        freeReplyObject(get(&c, 5000));
        check_eq(c.e.code, 0);
        check(!get(&c, 5000));
        check_eq(c.e.code, LESSOR_E_BREAKER_OPEN);
        check_str(c.e.text, "it is down");
        client_end(&c);
}

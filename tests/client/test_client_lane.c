/* SPDX-License-Identifier: MIT */
/* Plain calls by lane: what comes back, what becomes of those that do not, and every way to a lease. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <lessor.h>

#include "base/clock.h"
#include "client/fake.h"
#include "client/helpers.h"
#include "client/lanes.h"
#include "support/check.h"

#define GET_K "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
#define SET_K "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"
#define INCR_K "*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n"

static struct fake_lane lane; /* of the script: large, and one is enough */

struct client {
        struct fake f;
        lessor *l;
        lessor_db *db;
        lessor_error e;
};

static void client_start(struct client *c, fake_script script) {
        fake_init(&c->f);
        fake_offer_lanes(&c->f);
        fake_run(&c->f, script, NULL);
        c->l = client_open(&c->f);
        c->db = client_db(c->l, "main");
}

static void client_end(struct client *c) {
        lessor_close(c->l);
        fake_stop(&c->f);
}

static redisReply *get(struct client *c, int wait_ms) {
        return lessor_command_argv(c->db, wait_ms, 2, (const char *[]){"GET", "k"}, NULL, &c->e);
}

static bool script_begins(struct fake *f) { return fake_attach(f) && fake_lane_open(f, &lane); }

static void script_ends(struct fake *f) {
        need(f, fake_gone(f));
        fake_lane_close(&lane);
}

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
                fake_init(&c.f);
                fake_offer_lanes(&c.f);
                fake_run(&c.f, one_reply_is_none, &data);
                c.l = client_open(&c.f);
                c.db = client_db(c.l, "main");
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

static void lease_once(struct fake *f, const char *command) {
        union wire_message m;
        int redis;

        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        redis = fake_grant(f, &m);
        need(f, fake_expect(redis, command) && fake_say(redis, "+leased\r\n"));
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &m));
        close(redis);
}

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
        redisReply *r;

        fake_init(&c.f);
        fake_offer_lanes(&c.f);
        fake_run(&c.f, leased_without_a_lane, (void *)(uintptr_t)command);
        c.l = client_open(&c.f);
        c.db = client_db(c.l, "main");
        r = lessor_command_argv(c.db, 5000, argc, argv, NULL, &c.e);
        check_msg(r, "%s", c.e.text);
        check_str(r->str, "leased");
        freeReplyObject(r);
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
                redisReply *r = get(&c, 5000);
                check_msg(r, "%s", c.e.text);
                check_str(r->str, "leased");
                freeReplyObject(r);
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
                redisReply *r = get(&c, 5000);
                check_msg(r, "%s", c.e.text);
                check_str(r->str, ways[i]);
                freeReplyObject(r);
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

/* ---- deadlines ----------------------------------------------------------------------------------------------------- */

static void wait_and_take(struct fake *f, void *go) {
        eventfd_t n;

        need(f, script_begins(f));
        need(f, read(*(int *)go, &n, sizeof(n)) == sizeof(n));
        need(f, fake_lane_take_command(&lane, SET_K));
        need(f, fake_lane_reply(&lane, lane.request.tag, "+OK\r\n"));
        script_ends(f);
}

TEST(client_lane, a_call_that_the_broker_does_not_take_is_taken_back_and_surely_was_not_sent) {
        int go = eventfd(0, EFD_CLOEXEC);
        struct client c;
        redisReply *r;

        fake_init(&c.f);
        fake_offer_lanes(&c.f);
        fake_run(&c.f, wait_and_take, &go);
        c.l = client_open(&c.f);
        c.db = client_db(c.l, "main");
        check(!get(&c, 10));
        check_eq(c.e.code, LESSOR_E_UNAVAILABLE);
        check(!c.e.may_have_run && strstr(c.e.text, "was not sent"));
        check_eq(eventfd_write(go, 1), 0);
        r = lessor_command(c.db, &c.e, "SET k v");
        check_msg(r, "%s", c.e.text);
        freeReplyObject(r);
        client_end(&c);
        close(go);
}

static void taken_and_forgotten(struct fake *f, void *unused) {
        uint64_t late;

        need(f, script_begins(f));
        need(f, fake_lane_take_command(&lane, GET_K));
        late = lane.request.tag;
        need(f, fake_lane_take_command(&lane, SET_K));
        need(f, lane.request.tag != late);
        need(f, fake_lane_reply(&lane, late, "+too late\r\n"));
        need(f, fake_lane_reply(&lane, lane.request.tag, "+OK\r\n"));
        script_ends(f);
}

TEST(client_lane, a_call_that_is_not_answered_may_have_run_and_its_late_reply_is_nobodys) {
        struct client c;
        redisReply *r;

        fake_init(&c.f);
        fake_offer_lanes(&c.f);
        c.f.control->database[0].socket_timeout_ns = 10 * NS_PER_MS;
        fake_run(&c.f, taken_and_forgotten, NULL);
        c.l = client_open(&c.f);
        c.db = client_db(c.l, "main");
        check(!get(&c, 10));
        check_eq(c.e.code, LESSOR_E_REPLY_TIMEOUT);
        check(c.e.may_have_run && strstr(c.e.text, "may have run"));
        r = lessor_command(c.db, &c.e, "SET k v");
        check_msg(r, "%s", c.e.text);
        check_str(r->str, "OK");
        freeReplyObject(r);
        client_end(&c);
}

static void broken_off_then_answered(struct fake *f, void *unused) {
        need(f, script_begins(f));
        need(f, fake_lane_take_command(&lane, GET_K));
        need(f, fake_lane_refuse(&lane, lane.request.tag, LESSOR_E_CONNECTION, LANE_MAY_HAVE_RUN, "cut"));
        need(f, fake_lane_take_command(&lane, GET_K));
        need(f, fake_lane_reply(&lane, lane.request.tag, "+again\r\n"));
        need(f, fake_lane_take_command(&lane, GET_K));
        script_ends(f);
}

TEST(client_lane, an_idempotent_call_is_made_again_until_its_time_is_over) {
        struct client c;
        redisReply *r;

        client_start(&c, broken_off_then_answered);
        r = lessor_command_idempotent(c.db, 5000, 2, (const char *[]){"GET", "k"}, NULL, &c.e);
        check_msg(r, "%s", c.e.text);
        check_str(r->str, "again");
        freeReplyObject(r);
        check(!lessor_command_idempotent(c.db, 50, 2, (const char *[]){"GET", "k"}, NULL, &c.e));
        check_eq(c.e.code, LESSOR_E_REPLY_TIMEOUT);
        check(c.e.may_have_run);
        client_end(&c);
}

/* ---- replies that come apart --------------------------------------------------------------------------------------- */

enum { LARGE = 300000 };

/* A bulk string, larger than the lane. */
static const char *large_reply(size_t *ret_size) {
        static char reply[LARGE + 32];
        int n = snprintf(reply, sizeof(reply), "$%d\r\n", LARGE);
        memset(reply + n, 'y', LARGE);
        memcpy(reply + n + LARGE, "\r\n", 3);
        *ret_size = (size_t)n + LARGE + 2;
        return reply;
}

static void apart(struct fake *f, void *unused) {
        const char *reply;
        size_t size;

        reply = large_reply(&size);
        need(f, script_begins(f));
        need(f, fake_lane_take(&lane));
        need(f, fake_lane_send_apart(&lane, lane.request.tag, reply, size));
        need(f, fake_lane_complete_apart(&lane, lane.request.tag));
        need(f, fake_lane_take(&lane));
        need(f, fake_lane_complete_apart(&lane, lane.request.tag));
        need(f, fake_lane_send_apart(&lane, lane.request.tag, reply, size));
        need(f, fake_lane_take(&lane));
        need(f, fake_lane_complete_apart(&lane, lane.request.tag));
        need(f, fake_lane_send_apart(&lane, lane.request.tag, reply, size - 1));
        need(f, fake_lane_take(&lane));
        need(f, fake_lane_reply(&lane, lane.request.tag, "+OK\r\n"));
        script_ends(f);
}

TEST(client_lane, a_reply_too_large_for_the_lane_comes_apart_before_or_after_its_completion) {
        struct client c;
        redisReply *r;

        client_start(&c, apart);
        for (int i = 0; i < 2; i++) {
                r = get(&c, 5000);
                check_msg(r, "%s", c.e.text);
                check(r->type == REDIS_REPLY_STRING && r->len == LARGE && r->str[0] == 'y' && r->str[LARGE - 1] == 'y');
                freeReplyObject(r);
        }
        check(!get(&c, 5000));
        check_eq(c.e.code, LESSOR_E_PROTOCOL);
        check(c.e.may_have_run);
        r = get(&c, 5000);
        check_msg(r, "%s", c.e.text);
        freeReplyObject(r);
        client_end(&c);
}

static void apart_but_not(struct fake *f, void *unused) {
        need(f, script_begins(f));
        need(f, fake_lane_take(&lane));
        need(f, fake_lane_complete_apart(&lane, lane.request.tag));
        fake_hang_up(f);
        fake_lane_close(&lane);
}

TEST(client_lane, a_reply_that_never_comes_apart_may_have_run) {
        struct client c;

        client_start(&c, apart_but_not);
        check(!get(&c, 5000));
        check_eq(c.e.code, LESSOR_E_UNAVAILABLE);
        check(c.e.may_have_run);
        client_end(&c);
}

/* ---- the broker's end ----------------------------------------------------------------------------------------------- */

struct ending {
        bool taken, completed;
};

static void ends_somewhere(struct fake *f, void *data) {
        const struct ending *e = data;

        need(f, script_begins(f));
        need(f, fake_lane_take(&lane));
        need(f, fake_lane_reply(&lane, lane.request.tag, "+first\r\n"));
        while (!fake_lane_has(&lane))
                sched_yield();
        if (e->taken)
                need(f, fake_lane_take(&lane));
        if (e->completed)
                need(f, fake_lane_complete(&lane, &(struct lane_answer){
                                                          .tag = lane.request.tag, .data = "+last\r\n", .length = 7}));
        fake_hang_up(f);
        fake_lane_close(&lane);
        if (!e->taken) { /* sent again by itself, to the next broker */
                need(f, fake_attach(f) && fake_lane_open(f, &lane));
                need(f, fake_lane_take_command(&lane, GET_K));
                need(f, fake_lane_reply(&lane, lane.request.tag, "+next\r\n"));
                script_ends(f);
        }
}

static redisReply *ended(struct client *c, struct ending *e) {
        redisReply *r;

        fake_init(&c->f);
        fake_offer_lanes(&c->f);
        fake_run(&c->f, ends_somewhere, e);
        c->l = client_open(&c->f);
        c->db = client_db(c->l, "main");
        r = get(c, 5000);
        check_msg(r, "%s", c->e.text);
        check_str(r->str, "first");
        freeReplyObject(r);
        return get(c, 5000);
}

TEST(client_lane, what_was_taken_when_the_broker_died_may_have_run) {
        struct ending e = {.taken = true};
        struct client c;

        check(!ended(&c, &e));
        check_eq(c.e.code, LESSOR_E_UNAVAILABLE);
        check(c.e.may_have_run && strstr(c.e.text, "may have run"));
        client_end(&c);
}

TEST(client_lane, what_was_not_taken_when_the_broker_died_is_sent_to_the_next_one) {
        struct ending e = {.taken = false};
        struct client c;
        redisReply *r = ended(&c, &e);

        check_msg(r, "%s", c.e.text);
        check_str(r->str, "next");
        freeReplyObject(r);
        client_end(&c);
}

TEST(client_lane, what_was_answered_when_the_broker_died_counts) {
        struct ending e = {.taken = true, .completed = true};
        struct client c;
        redisReply *r = ended(&c, &e);

        check_msg(r, "%s", c.e.text);
        check_str(r->str, "last");
        freeReplyObject(r);
        client_end(&c);
}

/* ---- garbage -------------------------------------------------------------------------------------------------------- */

enum garbage { WRONG_TAG, TWICE, OUTSIDE, REAPED_APART, UNASKED, KINDS_OF_GARBAGE };

static bool throw_garbage(struct fake *f, enum garbage kind) {
        struct lessor_completion *completion = &lane.broker.completions[1];
        uint64_t tag = lane.request.tag;
        union wire_message m;

        switch (kind) {
        case WRONG_TAG:
                return fake_lane_reply(&lane, tag + 256, "+OK\r\n");
        case TWICE: /* of one that is answered already */
                return fake_lane_reply(&lane, tag - 256, "+OK\r\n");
        case OUTSIDE:
                completion->tag = tag;
                completion->outcome = completion->flags = 0;
                completion->offset = 0xffffff00U;
                completion->length = 0x200;
                atomic_store(&completion->state, 2);
                lane.broker.untold = true;
                return fake_lane_wake(&lane);
        case REAPED_APART:
                return fake_lane_send_apart(&lane, tag - 256, "+OK\r\n", 5);
        case UNASKED:
                wire_init(&m, LESSOR_MSG_LANE_OPENED, 77);
                m.lane_opened.size = lane.size;
                return fake_send(f, &m, m.header.size, (int[]){lane.memory_fd, lane.doorbell}, 2);
        case KINDS_OF_GARBAGE:
                break;
        }
        return false;
}

static void play_garbage(struct fake *f, void *kind) {
        need(f, script_begins(f));
        need(f, fake_lane_take(&lane));
        need(f, fake_lane_reply(&lane, lane.request.tag, "+first\r\n"));
        need(f, fake_lane_take(&lane));
        need(f, throw_garbage(f, *(enum garbage *)kind));
        need(f, fake_gone(f));
        fake_lane_close(&lane);
        need(f, fake_attach(f) && fake_lane_open(f, &lane));
        need(f, fake_lane_take(&lane));
        need(f, fake_lane_reply(&lane, lane.request.tag, "+afterwards\r\n"));
        script_ends(f);
}

TEST(client_lane, garbage_ends_the_session_and_nothing_else) {
        for (int kind = 0; kind < KINDS_OF_GARBAGE; kind++) {
                enum garbage g = (enum garbage)kind;
                struct client c;
                redisReply *r;
                fake_init(&c.f);
                fake_offer_lanes(&c.f);
                c.f.control->database[0].socket_timeout_ns = 60 * NS_PER_S;
                fake_run(&c.f, play_garbage, &g);
                c.l = client_open(&c.f);
                c.db = client_db(c.l, "main");
                r = get(&c, 5000);
                check_msg(r, "%s", c.e.text);
                freeReplyObject(r);
                check_msg(!get(&c, 5000), "kind %d", kind);
                check_eq(c.e.code, LESSOR_E_PROTOCOL);
                check(c.e.may_have_run);
                r = get(&c, 5000);
                check_msg(r, "kind %d: %s", kind, c.e.text);
                check_str(r->str, "afterwards");
                freeReplyObject(r);
                client_end(&c);
        }
}

static void bad_opening(struct fake *f, void *unused) {
        struct lane_geometry g = {.entries = 4, .requests_size = 100, .replies_size = 100};

        need(f, fake_attach(f));
        union wire_message m;
        need(f, fake_receive(f, LESSOR_MSG_LANE, &m));
        int memory = memfd_create("bad", MFD_CLOEXEC | MFD_ALLOW_SEALING), bell = eventfd(0, EFD_CLOEXEC);
        need(f, ftruncate(memory, (off_t)lane_size(&g)) == 0 && fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
        uint64_t request = m.header.request;
        wire_init(&m, LESSOR_MSG_LANE_OPENED, request);
        m.lane_opened.size = lane_size(&g);
        need(f, fake_send(f, &m, m.header.size, (int[]){memory, bell}, 2));
        close(memory);
        close(bell);
        lease_once(f, GET_K);
        need(f, fake_gone(f));
}

TEST(client_lane, a_lane_that_is_none_is_not_used) {
        struct client c;
        redisReply *r;

        client_start(&c, bad_opening);
        r = get(&c, 5000);
        check_msg(r, "%s", c.e.text);
        check_str(r->str, "leased");
        freeReplyObject(r);
        client_end(&c);
}

/* ---- pipes ---------------------------------------------------------------------------------------------------------- */

static lessor_pipe *pipe_of(struct client *c) {
        lessor_pipe *p = lessor_pipe_new(c->db, 0);
        check(p);
        check_eq(lessor_pipe_add(p, "SET k v"), 0);
        check_eq(lessor_pipe_add(p, "INCR k"), 0);
        check_eq(lessor_pipe_add(p, "GET k"), 0);
        return p;
}

static void pipe_at_once(struct fake *f, void *unused) {
        uint64_t tags[3];

        need(f, script_begins(f));
        need(f, fake_lane_take_command(&lane, SET_K));
        tags[0] = lane.request.tag;
        need(f, fake_lane_take_command(&lane, INCR_K));
        tags[1] = lane.request.tag;
        need(f, fake_lane_take_command(&lane, GET_K));
        tags[2] = lane.request.tag;
        need(f, fake_lane_reply(&lane, tags[2], "$1\r\nv\r\n") && fake_lane_reply(&lane, tags[1], "-ERR no\r\n") &&
                        fake_lane_reply(&lane, tags[0], "+OK\r\n"));
        need(f, fake_lane_take(&lane));
        need(f, fake_lane_reply(&lane, lane.request.tag, "+OK\r\n"));
        need(f, fake_lane_take(&lane));
        need(f, fake_lane_refuse(&lane, lane.request.tag, LESSOR_E_UPSTREAM, 0, "gone"));
        need(f, fake_lane_take(&lane));
        need(f, fake_lane_refuse(&lane, lane.request.tag, LESSOR_E_UPSTREAM, 0, "gone"));
        script_ends(f);
}

TEST(client_lane, a_pipe_goes_as_a_unit_and_its_replies_come_in_order) {
        struct client c;
        redisReply **replies;
        lessor_pipe *p;
        size_t n;

        client_start(&c, pipe_at_once);
        p = pipe_of(&c);
        check_msg(lessor_pipe_run(p, 5000, &replies, &n, &c.e) == 0, "%s", c.e.text);
        check_eq(n, 3);
        check_str(replies[0]->str, "OK");
        check_str(replies[1]->str, "ERR no");
        check_str(replies[2]->str, "v");
        lessor_pipe_replies_free(replies, n);
        lessor_pipe_free(p);
        p = pipe_of(&c);
        check_eq(lessor_pipe_run(p, 5000, &replies, &n, &c.e), LESSOR_E_UPSTREAM);
        check(c.e.may_have_run);
        lessor_pipe_free(p);
        client_end(&c);
}

static void pipe_leased(struct fake *f, void *unused) {
        struct lane_geometry g = {.entries = 2, .requests_size = 100, .replies_size = 100};
        union wire_message m;
        int redis;

        need(f, fake_attach(f) && fake_lane_open_with(f, &lane, &g));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        need(f, !fake_lane_has(&lane));
        redis = fake_grant(f, &m);
        need(f, fake_expect(redis, SET_K INCR_K GET_K) && fake_say(redis, "+OK\r\n:1\r\n+x\r\n"));
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &m));
        close(redis);
        script_ends(f);
}

TEST(client_lane, a_pipe_that_does_not_fit_goes_by_lease_as_a_whole) {
        struct client c;
        redisReply **replies;
        lessor_pipe *p;
        size_t n;

        client_start(&c, pipe_leased);
        p = pipe_of(&c);
        check_msg(lessor_pipe_run(p, 5000, &replies, &n, &c.e) == 0, "%s", c.e.text);
        check_eq(n, 3);
        lessor_pipe_replies_free(replies, n);
        lessor_pipe_free(p);
        client_end(&c);
}

/* ---- threads and processes ------------------------------------------------------------------------------------------ */

enum { THREADS = 8, ROUNDS = 2000 };

struct caller {
        lessor_db *db;
        unsigned number;
        unsigned wrong;
};

static void *calls(void *data) {
        struct caller *me = data;

        for (unsigned i = 0; i < ROUNDS; i++) {
                char expected[32];
                lessor_error e;
                redisReply *r;
                snprintf(expected, sizeof(expected), "%u:%u", me->number, i);
                r = lessor_command(me->db, &e, "ECHO %s", expected);
                me->wrong += !r || r->type != REDIS_REPLY_STRING || strcmp(r->str, expected) != 0;
                if (!r)
                        fprintf(stderr, "%s\n", e.text);
                freeReplyObject(r);
        }
        return NULL;
}

static bool echoes(lessor_db *db, const char *text) {
        lessor_error e;
        redisReply *r = lessor_command(db, &e, "ECHO %s", text);
        bool good = r && r->type == REDIS_REPLY_STRING && strcmp(r->str, text) == 0;
        if (!r)
                fprintf(stderr, "%s\n", e.text);
        freeReplyObject(r);
        return good;
}

TEST(client_lane, many_threads_share_a_lane_and_each_gets_its_own_replies) {
        struct caller callers[THREADS];
        pthread_t threads[THREADS];
        struct client c;

        client_start(&c, fake_lane_serve);
        check(echoes(c.db, "open") && echoes(client_db(c.l, "jobs"), "open")); /* who comes while it opens leases */
        for (unsigned i = 0; i < THREADS; i++) {
                callers[i] = (struct caller){.db = client_db(c.l, i % 4 == 3 ? "jobs" : "main"), .number = i};
                check_eq(pthread_create(&threads[i], NULL, calls, &callers[i]), 0);
        }
        for (unsigned i = 0; i < THREADS; i++) {
                pthread_join(threads[i], NULL);
                check_eq(callers[i].wrong, 0);
        }
        client_end(&c);
        check_eq(c.f.sessions, 1);
}

static void parent_and_child(struct fake *f, void *unused) {
        int parents = -1;

        need(f, script_begins(f));
        need(f, fake_lane_take(&lane));
        need(f, fake_lane_reply(&lane, lane.request.tag, "$1\r\na\r\n"));
        struct fake_lane *childs = malloc(sizeof(*childs));
        parents = dup(f->session);
        need(f, fake_attach(f) && fake_lane_open(f, childs));
        need(f, fake_lane_take(childs));
        need(f, !fake_lane_has(&lane));
        need(f, fake_lane_reply(childs, childs->request.tag, "$1\r\nb\r\n"));
        need(f, fake_gone(f));
        fake_lane_close(childs);
        free(childs);
        fake_hang_up(f);
        f->session = parents;
        need(f, fake_lane_take(&lane));
        need(f, fake_lane_reply(&lane, lane.request.tag, "$1\r\nc\r\n"));
        script_ends(f);
}

TEST(client_lane, a_child_has_a_lane_of_its_own_and_its_parents_goes_on) {
        struct client c;
        pid_t child;

        client_start(&c, parent_and_child);
        check(echoes(c.db, "a"));
        child = fork();
        if (child == 0) {
                child_check(echoes(c.db, "b"));
                lessor_close(c.l);
                _exit(0);
        }
        child_ends_well(child);
        check(echoes(c.db, "c"));
        client_end(&c);
}

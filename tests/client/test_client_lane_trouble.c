/* SPDX-License-Identifier: MIT */
/* Plain calls by lane, when something goes wrong: deadlines, replies that come apart, the broker's end, garbage. */
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "client/lane_client.h"

/* ---- deadlines ----------------------------------------------------------------------------------------------------- */

static void wait_and_take(struct fake *f, void *go) {
        eventfd_t n;

        need(f, script_begins(f));
        need(f, read(*(int *)go, &n, sizeof(n)) == sizeof(n));
        need(f, fake_lane_take_command(&lane, SET_K));
        need(f, fake_lane_reply(&lane, lane.request.tag, "+OK\r\n"));
        script_ends(f);
}

TEST(client_lane_trouble, a_call_that_the_broker_does_not_take_is_taken_back_and_surely_was_not_sent) {
        int go = eventfd(0, EFD_CLOEXEC);
        struct client c;
        redisReply *r;

        client_prepare(&c);
        client_run(&c, wait_and_take, &go);
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

TEST(client_lane_trouble, a_call_that_is_not_answered_may_have_run_and_its_late_reply_is_nobodys) {
        struct client c;

        client_prepare(&c);
        c.f.control->database[0].socket_timeout_ns = 10 * NS_PER_MS;
        client_run(&c, taken_and_forgotten, NULL);
        check(!get(&c, 10));
        check_eq(c.e.code, LESSOR_E_REPLY_TIMEOUT);
        check(c.e.may_have_run && strstr(c.e.text, "may have run"));
        check_reply(&c, lessor_command(c.db, &c.e, "SET k v"), "OK");
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

TEST(client_lane_trouble, an_idempotent_call_is_made_again_until_its_time_is_over) {
        struct client c;

        client_start(&c, broken_off_then_answered);
        check_reply(&c, lessor_command_idempotent(c.db, 5000, 2, (const char *[]){"GET", "k"}, NULL, &c.e), "again");
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

TEST(client_lane_trouble, a_reply_too_large_for_the_lane_comes_apart_before_or_after_its_completion) {
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

TEST(client_lane_trouble, a_reply_that_never_comes_apart_may_have_run) {
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

TEST(client_lane_trouble, what_was_taken_when_the_broker_died_may_have_run) {
        struct ending e = {.taken = true};
        struct client c;

        check(!ended(&c, &e));
        check_eq(c.e.code, LESSOR_E_UNAVAILABLE);
        check(c.e.may_have_run && strstr(c.e.text, "may have run"));
        client_end(&c);
}

TEST(client_lane_trouble, what_was_not_taken_when_the_broker_died_is_sent_to_the_next_one) {
        struct ending e = {.taken = false};
        struct client c;
        redisReply *r = ended(&c, &e);

        check_msg(r, "%s", c.e.text);
        check_str(r->str, "next");
        freeReplyObject(r);
        client_end(&c);
}

TEST(client_lane_trouble, what_was_answered_when_the_broker_died_counts) {
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

TEST(client_lane_trouble, garbage_ends_the_session_and_nothing_else) {
        for (int kind = 0; kind < KINDS_OF_GARBAGE; kind++) {
                enum garbage g = (enum garbage)kind;
                struct client c;
                redisReply *r;
                client_prepare(&c);
                c.f.control->database[0].socket_timeout_ns = 60 * NS_PER_S;
                client_run(&c, play_garbage, &g);
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

TEST(client_lane_trouble, a_lane_that_is_none_is_not_used) {
        struct client c;

        client_start(&c, bad_opening);
        check_reply(&c, get(&c, 5000), "leased");
        client_end(&c);
}

/* SPDX-License-Identifier: MIT */
/*
 * An event loop against a broker whose every word is scripted: what it does next, it does when the test says so, after turns
 * that must not have waited for it. A turn that waits ends in a timeout, and in another outcome than the one expected.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <lessor/async.h>

#include "base/clock.h"
#include "client/fake.h"
#include "client/helpers.h"
#include "client/lanes.h"
#include "support/check.h"
#include "support/turns.h"

enum { PATIENCE_MS = 20000, SEEN_MAX = 2048 };

static struct fake_lane lane;
static int go = -1;   /* the test's word to the script */
static int word = -1; /* and the other way round */

struct seen {
        unsigned called, good;
        int codes[SEEN_MAX];
        bool may_have_run[SEEN_MAX];
        uintptr_t order[SEEN_MAX]; /* of the data */
        lessor_async *free_at_once;
};
static struct seen seen;

struct client {
        struct fake f;
        lessor *l;
        lessor_async *a;
        lessor_async_db *db;
};

static void note(const lessor_error *e, void *data) {
        check(seen.called < SEEN_MAX);
        seen.order[seen.called] = (uintptr_t)data;
        seen.codes[seen.called] = e->code;
        seen.may_have_run[seen.called] = e->may_have_run;
        seen.called++;
}

static void got(lessor_async_db *db, redisReply *reply, const lessor_error *e, void *data) {
        (void)db;
        seen.good += reply && reply->type != REDIS_REPLY_ERROR;
        note(e, data);
        if (seen.free_at_once) {
                lessor_async *a = seen.free_at_once;
                seen.free_at_once = NULL;
                lessor_async_free(a);
        }
}

static void client_prepare(struct client *c) {
        memset(&seen, 0, sizeof(seen));
        go = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
        word = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        fake_init(&c->f);
        fake_offer_lanes(&c->f);
        fake_advise(&c->f, LESSOR_PATH_LANE);
}

static void client_run(struct client *c, fake_script script) {
        fake_run(&c->f, script, NULL);
        c->l = client_open(&c->f);
        check_eq(lessor_async_new(c->l, &c->a), 0);
        check_eq(lessor_async_database(c->a, "main", &c->db), 0);
}

static void client_start(struct client *c, fake_script script) {
        client_prepare(c);
        client_run(c, script);
}

static void client_end(struct client *c) {
        lessor_async_free(c->a);
        lessor_close(c->l);
        fake_stop(&c->f);
        close(go);
        close(word);
}

static int ask(struct client *c, uintptr_t number, int wait_ms) {
        char text[32];
        snprintf(text, sizeof(text), "%lu", (unsigned long)number);
        return lessor_async_command_argv(c->db, wait_ms, got, (void *)number, 2, (const char *[]){"ECHO", text}, NULL);
}

/* Whatever there is to do is done; what would be waited for is not there yet. */
static void some_turns(struct client *c) {
        for (unsigned n = 0; turns_one(c->a, 20); n++)
                check_msg(n < 100, "it turns round and round");
}

static void say_go(void) { check_eq(eventfd_write(go, 1), 0); }

/* The script has come so far. */
static bool is_there(void) {
        eventfd_t n;
        return read(word, &n, sizeof(n)) == sizeof(n);
}

static bool told_to(void) {
        eventfd_t n;
        return read(go, &n, sizeof(n)) == sizeof(n);
}

static bool reply_next(const char *reply) {
        return fake_lane_take(&lane) && fake_lane_reply(&lane, lane.request.tag, reply);
}

static void script_ends(struct fake *f) {
        need(f, fake_gone(f));
        fake_lane_close(&lane);
}

/* ---- nothing waits ---------------------------------------------------------------------------------------------------- */

static void slow_at_everything(struct fake *f) {
        union wire_message m;
        char byte;

        need(f, told_to());
        need(f, fake_accept(f));
        need(f, told_to());
        need(f, fake_attached(f));
        need(f, told_to());
        need(f, fake_lane_open(f, &lane));
        need(f, recv(f->session, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0); /* who waits for it in vain leases */
        need(f, told_to());
        need(f, reply_next("+1\r\n"));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m)); /* for SELECT */
        need(f, told_to());
        int redis = fake_grant(f, &m);
        need(f, fake_expect(redis, "*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n"));
        need(f, told_to());
        need(f, fake_say(redis, "+O"));
        need(f, told_to());
        need(f, fake_say(redis, "K\r\n"));
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &m));
        need(f, m.giveback.flags == LESSOR_RETURN_RESETTABLE && m.giveback.requests == 1 && m.giveback.replies == 1);
        close(redis);
        script_ends(f);
}

static void slow_at_everything_script(struct fake *f, void *unused) {
        (void)unused;
        slow_at_everything(f);
}

TEST(client_async, no_turn_waits_for_the_broker_or_for_redis) {
        struct client c;

        client_start(&c, slow_at_everything_script);
        check_eq(ask(&c, 1, 60000), 0);
        check_eq(lessor_async_command(c.db, got, (void *)2, "SELECT 3"), 0);
        for (int i = 0; i < 4; i++) {
                some_turns(&c);
                check_eq(seen.called, 0);
                say_go();
        }
        check(turns_until(c.a, seen.called == 1, PATIENCE_MS));
        for (int i = 0; i < 3; i++) {
                some_turns(&c);
                check_eq(seen.called, 1);
                say_go();
        }
        check(turns_run(c.a, PATIENCE_MS));
        check_eq(seen.good, 2);
        client_end(&c);
}

static void accepts_at_last(struct fake *f, void *unused) {
        (void)unused;
        need(f, told_to());
        for (int i = 0; i < 20 && !fake_attach(f); i++) /* those before us, who have hung up */
                ;
        need(f, fake_lane_open(f, &lane) && reply_next("+1\r\n"));
        script_ends(f);
}

TEST(client_async, a_full_backlog_is_tried_again) {
        enum { OTHERS = 8 };
        int others[OTHERS];
        struct sockaddr_un {
                sa_family_t family;
                char path[108];
        } address = {.family = AF_UNIX};
        struct client c;
        unsigned n = 0;

        client_prepare(&c);
        check_eq(listen(c.f.listener, 0), 0);
        strcpy(address.path, c.f.path);
        for (; n < OTHERS; n++) {
                others[n] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
                if (connect(others[n], (struct sockaddr *)&address, sizeof(address)) < 0)
                        break;
        }
        check(n < OTHERS && errno == EAGAIN);
        for (unsigned i = 0; i <= n; i++)
                close(others[i]);
        client_run(&c, accepts_at_last);
        check_eq(ask(&c, 1, 60000), 0);
        some_turns(&c);
        check_eq(seen.called, 0);
        say_go();
        check(turns_run(c.a, PATIENCE_MS));
        check_eq(seen.good, 1);
        client_end(&c);
}

static void attaches_late(struct fake *f, void *unused) {
        (void)unused;
        need(f, fake_accept(f));
        need(f, told_to());
        need(f, fake_attached(f));
        need(f, fake_lane_open(f, &lane) && reply_next("+2\r\n"));
        script_ends(f);
}

TEST(client_async, an_attach_that_nobody_waits_for_any_more_comes_to_its_end) {
        struct client c;

        client_start(&c, attaches_late);
        check_eq(ask(&c, 1, 10), 0);
        check(turns_run(c.a, PATIENCE_MS));
        check_eq(seen.codes[0], LESSOR_E_UNAVAILABLE);
        check(!seen.may_have_run[0]);
        say_go();
        some_turns(&c);
        check_eq(ask(&c, 2, 60000), 0);
        check(turns_run(c.a, PATIENCE_MS));
        check_eq(seen.good, 1);
        client_end(&c);
}

static void attaches_once(struct fake *f, void *unused) {
        (void)unused;
        need(f, fake_accept(f));
        need(f, told_to());
        need(f, fake_attached(f));
        need(f, fake_lane_open(f, &lane) && reply_next("+1\r\n"));
        script_ends(f);
}

static void *goes_later(void *unused) {
        usleep(50000); /* whether the other one waits by then or not: both are to work */
        say_go();
        return unused;
}

TEST(client_async, a_thread_that_waits_takes_over_an_attach_that_a_loop_has_begun) {
        pthread_t thread;
        struct client c;

        client_start(&c, attaches_once);
        check_eq(ask(&c, 1, 60000), 0);
        some_turns(&c);
        check_eq(pthread_create(&thread, NULL, goes_later, NULL), 0);
        client_db(c.l, "cache");
        pthread_join(thread, NULL);
        check(turns_run(c.a, PATIENCE_MS));
        check_eq(seen.good, 1);
        client_end(&c);
}

/* More requests than the socket holds, while nobody reads them. */
static void reads_late(struct fake *f, void *unused) {
        union wire_message m;

        (void)unused;
        need(f, fake_attach(f));
        need(f, told_to());
        for (int i = 0; i < 1000; i++) {
                need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
                while (!fake_refuse(f, m.header.request, LESSOR_E_EXHAUSTED, 0, "no")) {
                        struct pollfd p = {.fd = f->session, .events = POLLOUT}; /* now the loop does not read */
                        need(f, poll(&p, 1, PATIENCE_MS) == 1);
                }
        }
        need(f, fake_gone(f));
}

static int attach_nothing(void *data, redisAsyncContext *ac) {
        (void)data;
        (void)ac;
        return REDIS_OK;
}

static void leased(lessor_async_db *db, redisAsyncContext *ac, const lessor_error *e, void *data) {
        (void)db;
        seen.good += ac != NULL;
        note(e, data);
        lessor_async_release(ac);
}

static void can_lease(struct client *c) {
        check_eq(lessor_async_set_adapter(c->a, &(struct lessor_async_adapter){.attach = attach_nothing}), 0);
}

TEST(client_async, what_the_broker_does_not_read_is_sent_when_it_does) {
        struct client c;

        client_prepare(&c);
        c.f.attached.requests_max = 1024;
        client_run(&c, reads_late);
        can_lease(&c);
        for (uintptr_t i = 0; i < 1000; i++)
                check_eq(lessor_async_acquire(c.db, 60000, leased, (void *)i), 0);
        some_turns(&c);
        check_eq(seen.called, 0);
        say_go();
        check(turns_run(c.a, PATIENCE_MS));
        check_eq(seen.called, 1000);
        for (int i = 0; i < 1000; i++)
                check_eq(seen.codes[i], LESSOR_E_EXHAUSTED);
        client_end(&c);
}

/* ---- the broker ends -------------------------------------------------------------------------------------------------- */

static void dies_once(struct fake *f, void *unused) {
        (void)unused;
        need(f, fake_attach(f) && fake_lane_open_with(f, &lane, &(struct lane_geometry){4, 4096, 4096}));
        need(f, fake_lane_take(&lane));
        need(f, reply_next("+1\r\n"));
        fake_hang_up(f);
        fake_lane_close(&lane);
        need(f, fake_attach(f) && fake_lane_open(f, &lane));
        for (int i = 2; i < 10; i++) {
                char echo[64], reply[16];
                snprintf(echo, sizeof(echo), "*2\r\n$4\r\nECHO\r\n$1\r\n%d\r\n", i);
                snprintf(reply, sizeof(reply), "+%d\r\n", i);
                need(f, fake_lane_take_command(&lane, echo));
                need(f, fake_lane_reply(&lane, lane.request.tag, reply));
        }
        script_ends(f);
}

/* Two were taken, two lay in the lane, six waited for room. */
TEST(client_async, what_was_surely_not_sent_goes_on_to_the_next_broker_in_order) {
        struct client c;

        client_start(&c, dies_once);
        for (uintptr_t i = 0; i < 10; i++)
                check_eq(ask(&c, i, 60000), 0);
        check(turns_run(c.a, PATIENCE_MS));
        check_eq(seen.called, 10);
        check_eq(seen.good, 9);
        for (unsigned i = 0, next = 1; i < 10; i++) {
                if (seen.order[i] == 0) {
                        check_eq(seen.codes[i], LESSOR_E_UNAVAILABLE);
                        check(seen.may_have_run[i]);
                } else {
                        check_eq(seen.order[i], next++);
                }
        }
        client_end(&c);
}

static void takes_one(struct fake *f, void *unused) {
        (void)unused;
        need(f, fake_attach(f) && fake_lane_open(f, &lane));
        need(f, fake_lane_take(&lane));
        script_ends(f);
}

TEST(client_async, a_broker_that_hangs_costs_no_more_than_the_deadlines) {
        struct client c;

        client_prepare(&c);
        c.f.control->database[0].socket_timeout_ns = 20 * NS_PER_MS;
        client_run(&c, takes_one);
        /* Time enough to attach in: what is not sent by then is another error. */
        for (uintptr_t i = 0; i < 2; i++)
                check_eq(ask(&c, i, 1000), 0);
        check(turns_run(c.a, PATIENCE_MS));
        for (int i = 0; i < 2; i++) {
                bool taken = seen.order[i] == 0;
                check_eq(seen.codes[i], taken ? LESSOR_E_REPLY_TIMEOUT : LESSOR_E_UNAVAILABLE);
                check_eq(seen.may_have_run[i], taken);
        }
        client_end(&c);
}

/* ---- cancelled, freed --------------------------------------------------------------------------------------------------- */

static void answers_the_third(struct fake *f, void *unused) {
        uint64_t tag;

        (void)unused;
        need(f, fake_attach(f) && fake_lane_open(f, &lane));
        need(f, fake_lane_take(&lane));
        tag = lane.request.tag;
        need(f, eventfd_write(word, 1) == 0 && told_to());
        need(f, fake_lane_reply(&lane, tag, "+late\r\n"));
        need(f, fake_lane_take(&lane)); /* the third: the second was never seen */
        need(f, fake_lane_reply(&lane, lane.request.tag, "+3\r\n"));
        script_ends(f);
}

TEST(client_async, what_is_cancelled_is_called_back_once_and_says_whether_it_may_have_run) {
        struct client c;

        client_start(&c, answers_the_third);
        check_eq(ask(&c, 1, 60000), 0);
        check(turns_until(c.a, is_there(), PATIENCE_MS)); /* taken */
        check_eq(ask(&c, 2, 60000), 0);
        check_eq(ask(&c, 3, 60000), 0);
        check_eq(lessor_async_cancel(c.a, (void *)1), 1);
        check_eq(lessor_async_cancel(c.a, (void *)2), 1);
        check_eq(lessor_async_cancel(c.a, (void *)2), 0);
        check_eq(seen.called, 0); /* not from within */
        say_go();
        check(turns_run(c.a, PATIENCE_MS));
        check_eq(seen.called, 3);
        for (int i = 0; i < 2; i++) {
                check_eq(seen.codes[i], LESSOR_E_CANCELLED);
                check_eq(seen.may_have_run[i], seen.order[i] == 1);
        }
        check_eq(seen.order[2], 3);
        check_eq(seen.good, 1);
        client_end(&c);
}

static void answers_one(struct fake *f, void *unused) {
        (void)unused;
        need(f, fake_attach(f) && fake_lane_open_with(f, &lane, &(struct lane_geometry){4, 4096, 4096}));
        need(f, reply_next("+0\r\n"));
        script_ends(f);
}

TEST(client_async, it_may_be_freed_from_within_a_callback_and_all_others_are_called_before) {
        struct client c;

        client_start(&c, answers_one);
        for (uintptr_t i = 0; i < 20; i++)
                check_eq(ask(&c, i, 60000), 0);
        check_eq(lessor_async_command(c.db, got, (void *)20, "SELECT 3"), 0);
        seen.free_at_once = c.a;
        check(turns_until(c.a, seen.called > 0, PATIENCE_MS));
        check_eq(seen.called, 21);
        check_eq(seen.codes[0], 0);
        for (int i = 1; i < 21; i++)
                check_eq(seen.codes[i], LESSOR_E_CANCELLED);
        c.a = NULL;
        client_end(&c);
}

TEST(client_async, freed_without_a_broker_it_calls_back_what_was_asked_for) {
        lessor_async_db *db;
        lessor_async *a;
        lessor *l;

        memset(&seen, 0, sizeof(seen));
        check_eq(lessor_open("/nonexistent/lessor.sock", &l), 0);
        check_eq(lessor_async_new(l, &a), 0);
        check_eq(lessor_async_database(a, NULL, &db), 0);
        for (int i = 0; i < 3; i++)
                check_eq(lessor_async_command(db, got, NULL, "PING"), 0);
        turns_one(a, 10);
        lessor_async_free(a);
        check_eq(seen.called, 3);
        for (int i = 0; i < 3; i++)
                check_eq(seen.codes[i], LESSOR_E_CANCELLED);
        lessor_close(l);
}

/* The grant crosses the CANCEL, and is given back. */
static void grants_too_late(struct fake *f, void *unused) {
        union wire_message lease, m;

        (void)unused;
        need(f, fake_attach(f));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &lease) && eventfd_write(word, 1) == 0);
        need(f, fake_receive(f, LESSOR_MSG_CANCEL, &m) && m.header.request == lease.header.request);
        int redis = fake_grant(f, &lease);
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &m));
        need(f, m.giveback.flags & LESSOR_RETURN_CLEAN);
        need(f, fake_ended(redis));
        close(redis);
        need(f, fake_gone(f));
}

TEST(client_async, a_lease_that_was_taken_back_is_given_back_when_it_comes_all_the_same) {
        struct client c;

        client_start(&c, grants_too_late);
        can_lease(&c);
        check_eq(lessor_async_acquire(c.db, 60000, leased, (void *)1), 0);
        check(turns_until(c.a, is_there(), PATIENCE_MS));
        check_eq(lessor_async_cancel(c.a, (void *)1), 1);
        check_eq(lessor_async_cancel(c.a, (void *)1), 0);
        check_eq(seen.called, 0);
        check(turns_run(c.a, PATIENCE_MS));
        check_eq(seen.called, 1);
        check_eq(seen.codes[0], LESSOR_E_CANCELLED);
        client_end(&c);
}

/* ---- which way ---------------------------------------------------------------------------------------------------------- */

static void wants_a_lease(struct fake *f, void *unused) {
        union wire_message m;

        (void)unused;
        need(f, fake_attach(f) && fake_lane_open(f, &lane));
        for (int i = 0; i < 2; i++) {
                need(f, fake_lane_take(&lane));
                need(f, fake_lane_refuse(&lane, lane.request.tag, LESSOR_E_NEEDS_LEASE, 0, "not by lane"));
        }
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        int redis = fake_grant(f, &m);
        need(f, fake_expect(redis, "*2\r\n$4\r\nECHO\r\n$1\r\n1\r\n*2\r\n$4\r\nECHO\r\n$1\r\n2\r\n"));
        need(f, fake_say(redis, "+1\r\n+2\r\n"));
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &m));
        need(f, m.giveback.flags & LESSOR_RETURN_CLEAN);
        need(f, m.giveback.requests == 2 && m.giveback.replies == 2);
        close(redis);
        script_ends(f);
}

TEST(client_async, what_the_broker_refuses_by_lane_goes_by_one_lease_in_order) {
        struct client c;

        client_start(&c, wants_a_lease);
        check_eq(ask(&c, 1, 60000), 0);
        check_eq(ask(&c, 2, 60000), 0);
        check(turns_run(c.a, PATIENCE_MS));
        check_eq(seen.good, 2);
        check_eq(seen.order[0], 1);
        check_eq(seen.order[1], 2);
        client_end(&c);
}

#define ECHO_OF(digit) "*2\r\n$4\r\nECHO\r\n$1\r\n" digit "\r\n"

static void takes_the_first_of_a_pipe(struct fake *f, void *unused) {
        uint64_t tags[3];
        union wire_message m;

        (void)unused;
        need(f, fake_attach(f) && fake_lane_open(f, &lane));
        for (unsigned i = 0; i < 3; i++) {
                need(f, fake_lane_take(&lane));
                tags[i] = lane.request.tag;
        }
        need(f, fake_lane_refuse(&lane, tags[1], LESSOR_E_NEEDS_LEASE, 0, "not by lane") &&
                        fake_lane_refuse(&lane, tags[2], LESSOR_E_NEEDS_LEASE, 0, "behind it") &&
                        fake_lane_reply(&lane, tags[0], "+1\r\n"));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        int redis = fake_grant(f, &m);
        need(f, fake_expect(redis, ECHO_OF("2") ECHO_OF("3")));
        need(f, fake_say(redis, "+2\r\n+3\r\n"));
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &m));
        need(f, m.giveback.flags & LESSOR_RETURN_CLEAN);
        need(f, m.giveback.requests == 2 && m.giveback.replies == 2);
        close(redis);
        script_ends(f);
}

static void got_three(lessor_async_db *db, redisReply **replies, size_t n, const lessor_error *error, void *data) {
        unsigned *good = data;

        (void)db;
        (void)error;
        for (size_t i = 0; n == 3 && i < n; i++)
                *good += replies[i] && replies[i]->str && replies[i]->str[0] == "123"[i];
}

TEST(client_async, of_a_pipe_what_the_broker_does_not_take_goes_by_lease_behind_what_it_took) {
        struct client c;
        unsigned good = 0;

        client_start(&c, takes_the_first_of_a_pipe);
        lessor_pipe *pipe = lessor_async_pipe_new(c.db, 0);
        for (int i = 1; i <= 3; i++)
                check_eq(lessor_pipe_add(pipe, "ECHO %d", i), 0);
        check_eq(lessor_async_pipeline(c.db, pipe, 60000, got_three, &good), 0);
        check(turns_run(c.a, PATIENCE_MS));
        check_eq(good, 3);
        lessor_pipe_free(pipe);
        client_end(&c);
}

/* Redis goes away in the middle of three: one answered, one sent, one not. */
static void redis_goes(struct fake *f, void *unused) {
        union wire_message m;

        (void)unused;
        need(f, fake_attach(f));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        int redis = fake_grant(f, &m);
        need(f, fake_expect(redis, "*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n1\r\n"));
        need(f, fake_say(redis, "+OK\r\n"));
        close(redis);
        need(f, fake_receive(f, LESSOR_MSG_REPORT, &m) && m.report.kind == LESSOR_REPORT_CONNECTION);
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &m));
        need(f, m.giveback.flags == 0);
        need(f, fake_gone(f));
}

TEST(client_async, a_connection_that_breaks_says_which_may_have_run) {
        struct client c;

        client_start(&c, redis_goes);
        for (uintptr_t i = 0; i < 2; i++)
                check_eq(lessor_async_command(c.db, got, (void *)i, "SELECT %d", (int)i), 0);
        check(turns_run(c.a, PATIENCE_MS));
        check_eq(seen.good, 1);
        check_eq(seen.codes[1], LESSOR_E_CONNECTION);
        check(seen.may_have_run[1]);
        client_end(&c);
}

static void reads_nothing(struct fake *f, void *unused) {
        union wire_message m;

        (void)unused;
        need(f, fake_attach(f));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        int redis = fake_grant(f, &m);
        need(f, redis >= 0 && eventfd_write(word, 1) == 0);
        need(f, fake_gone(f));
        close(redis);
}

TEST(client_async, what_is_cancelled_before_a_byte_of_it_was_sent_is_not_sent) {
        enum { SIZE = 8 * 1024 * 1024 };
        char *large = calloc(1, SIZE + 1);
        struct client c;

        memset(large, '1', SIZE);
        client_start(&c, reads_nothing);
        check_eq(lessor_async_command(c.db, got, (void *)1, "SELECT %s", large), 0);
        for (uintptr_t i = 2; i < 5; i++)
                check_eq(lessor_async_command(c.db, got, (void *)i, "SELECT %d", (int)i), 0);
        check(turns_until(c.a, is_there(), PATIENCE_MS));
        some_turns(&c); /* the first is half written, the others are behind it */
        check_eq(lessor_async_cancel(c.a, (void *)3), 1);
        check_eq(lessor_async_cancel(c.a, (void *)1), 1);
        some_turns(&c);
        check_eq(seen.called, 2);
        for (int i = 0; i < 2; i++) {
                check_eq(seen.codes[i], LESSOR_E_CANCELLED);
                check_eq(seen.may_have_run[i], seen.order[i] == 1);
        }
        client_end(&c);
        check_eq(seen.called, 4);
        free(large);
}

static void comes_apart(struct fake *f, void *unused) {
        static const char reply[] = "$5\r\nlarge\r\n";

        (void)unused;
        need(f, fake_attach(f) && fake_lane_open(f, &lane));
        for (int i = 0; i < 2; i++) {
                need(f, fake_lane_take(&lane));
                if (i == 0)
                        need(f, fake_lane_send_apart(&lane, lane.request.tag, reply, sizeof(reply) - 1));
                need(f, fake_lane_complete_apart(&lane, lane.request.tag));
                if (i == 1)
                        need(f, fake_lane_send_apart(&lane, lane.request.tag, reply, sizeof(reply) - 1));
        }
        script_ends(f);
}

TEST(client_async, a_reply_that_comes_apart_is_a_reply) {
        struct client c;

        client_start(&c, comes_apart);
        for (uintptr_t i = 0; i < 2; i++)
                check_eq(ask(&c, i, 60000), 0);
        check(turns_run(c.a, PATIENCE_MS));
        check_eq(seen.good, 2);
        client_end(&c);
}

TEST(client_async, what_cannot_be_is_refused_at_once) {
        struct client c;
        lessor_pipe *p;
        lessor_db *other;

        client_start(&c, fake_lane_serve);
        check_eq(lessor_async_command(NULL, got, NULL, "PING"), LESSOR_E_INVALID);
        check_eq(lessor_async_command(c.db, got, NULL, "%y"), LESSOR_E_INVALID);
        check_eq(lessor_async_command_argv(c.db, -2, got, NULL, 1, (const char *[]){"PING"}, NULL), LESSOR_E_INVALID);
        check_eq(lessor_async_command_argv(c.db, 1, got, NULL, 0, NULL, NULL), LESSOR_E_INVALID);
        check_eq(lessor_async_database(c.a, "", &c.db), LESSOR_E_INVALID);
        check_eq(lessor_async_acquire(c.db, 1, leased, NULL), LESSOR_E_INVALID); /* no adapter */
        other = client_db(c.l, "cache");
        p = lessor_pipe_new(other, 0);
        check_eq(lessor_async_pipeline(c.db, p, 1, NULL, NULL), LESSOR_E_INVALID);
        lessor_pipe_free(p);
        check_eq(lessor_async_in_flight(c.a), 0);
        check_eq(lessor_async_new(NULL, &c.a), -EINVAL);
        lessor_async_free(NULL);
        lessor_async_dispatch(NULL);
        check_eq(lessor_async_fd(NULL), -1);
        client_end(&c);
}

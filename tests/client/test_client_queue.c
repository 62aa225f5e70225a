/* SPDX-License-Identifier: MIT */
/* Queues: many commands under way from one thread, each with exactly one result, whatever becomes of the broker. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <lessor/queue.h>

#include "base/clock.h"
#include "client/fake.h"
#include "client/helpers.h"
#include "client/lanes.h"
#include "support/check.h"

enum { PATIENCE_MS = 20000 };

static struct fake_lane lane;

struct client {
        struct fake f;
        lessor *l;
        lessor_db *db;
        lessor_queue *q;
        lessor_error e;
        lessor_result r;
};

static void client_start_with(struct client *c, fake_script script, void *data, enum lessor_path path) {
        fake_init(&c->f);
        fake_offer_lanes(&c->f);
        fake_advise(&c->f, path);
        fake_run(&c->f, script, data);
        c->l = client_open(&c->f);
        c->db = client_db(c->l, "main");
        check_eq(lessor_queue_new(c->l, &c->q), 0);
}

static void client_start(struct client *c, fake_script script) {
        client_start_with(c, script, NULL, LESSOR_PATH_DIRECT);
}

static void client_end(struct client *c) {
        lessor_queue_free(c->q);
        lessor_close(c->l);
        fake_stop(&c->f);
}

static int submit_to(struct client *c, lessor_db *db, const char *text, void *userdata) {
        return lessor_submit(c->q, db, LESSOR_WAIT_CONFIGURED, 2, (const char *[]){"ECHO", text}, NULL, userdata,
                             &c->e);
}

static int submit(struct client *c, uintptr_t number) {
        char text[32];
        snprintf(text, sizeof(text), "%lu", (unsigned long)number);
        return submit_to(c, c->db, text, (void *)number);
}

static int reap(struct client *c) { return lessor_reap(c->q, PATIENCE_MS, &c->r); }

/* The result is the reply to what was submitted with that number. */
static void check_result(struct client *c) {
        check_msg(c->r.reply, "%s", c->r.error.text);
        check_eq(strtoul(c->r.reply->str, NULL, 10), (uintptr_t)c->r.userdata);
        check_eq(c->r.error.code, 0);
        freeReplyObject(c->r.reply);
}

static bool script_begins(struct fake *f) { return fake_attach(f) && fake_lane_open(f, &lane); }

static void script_ends(struct fake *f) {
        need(f, fake_gone(f));
        fake_lane_close(&lane);
}

/* ---- submitting and reaping ------------------------------------------------------------------------------------------ */

TEST(client_queue, each_command_has_its_result) {
        enum { N = 1000 };
        unsigned char seen[N] = {0};
        unsigned submitted = 0, reaped = 0;
        struct client c;

        client_start(&c, fake_lane_serve);
        while (reaped < N) {
                while (submitted < N && submit(&c, submitted) == 0)
                        submitted++;
                check(submitted == N || c.e.code == LESSOR_E_EXHAUSTED);
                check_eq(reap(&c), 1);
                check_eq(seen[(uintptr_t)c.r.userdata]++, 0);
                check_result(&c);
                reaped++;
                check_eq(lessor_queue_in_flight(c.q), submitted - reaped);
        }
        check_eq(lessor_reap(c.q, -1, &c.r), 0); /* nothing is under way */
        client_end(&c);
}

TEST(client_queue, what_is_in_flight_may_go_to_several_lanes) {
        enum { N = 200 };
        struct client c;
        lessor_db *jobs;

        client_start(&c, fake_lane_serve);
        jobs = client_db(c.l, "jobs");
        for (uintptr_t i = 0; i < N; i++) {
                char text[32];
                snprintf(text, sizeof(text), "%lu", (unsigned long)i);
                while (submit_to(&c, i % 2 ? jobs : c.db, text, (void *)i) != 0) {
                        check_eq(c.e.code, LESSOR_E_EXHAUSTED);
                        check_eq(reap(&c), 1);
                        check_result(&c);
                }
        }
        while (lessor_queue_in_flight(c.q) > 0) {
                check_eq(reap(&c), 1);
                check_result(&c);
        }
        client_end(&c);
}

static void full(struct fake *f, void *go) {
        struct lane_geometry g = {.entries = 2, .requests_size = 100, .replies_size = 100};
        eventfd_t n;

        need(f, fake_attach(f) && fake_lane_open_with(f, &lane, &g));
        need(f, read(*(int *)go, &n, sizeof(n)) == sizeof(n));
        for (int i = 0; i < 2; i++)
                need(f, fake_lane_take(&lane) && fake_lane_reply(&lane, lane.request.tag, "+0\r\n"));
        script_ends(f);
}

TEST(client_queue, too_much_under_way_is_said_and_changes_nothing) {
        int go = eventfd(0, EFD_CLOEXEC);
        struct client c;

        client_start_with(&c, full, &go, LESSOR_PATH_DIRECT);
        check_eq(submit(&c, 0), 0);
        check_eq(submit(&c, 0), 0);
        check_eq(submit(&c, 0), LESSOR_E_EXHAUSTED);
        check_eq(lessor_queue_in_flight(c.q), 2);
        check_eq(lessor_reap(c.q, 0, &c.r), 0);
        check_eq(eventfd_write(go, 1), 0);
        for (int i = 0; i < 2; i++) {
                check_eq(reap(&c), 1);
                check_result(&c);
        }
        client_end(&c);
        close(go);
}

static void only_attached(struct fake *f, void *unused) {
        need(f, fake_attach(f));
        need(f, fake_gone(f));
}

TEST(client_queue, what_cannot_go_by_lane_is_refused_with_a_reason) {
        static const char *const refused[][2] = {{"SELECT", "1"}, {"SUBSCRIBE", "c"}, {"BLPOP", "k"}, {"MULTI", "x"}};
        struct client c;

        client_start_with(&c, only_attached, NULL, LESSOR_PATH_LEASE);
        for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
                check_eq(lessor_submit(c.q, c.db, 0, 2, (const char **)(uintptr_t)refused[i], NULL, NULL, &c.e),
                         LESSOR_E_NEEDS_LEASE);
                check(strstr(c.e.text, refused[i][0]));
        }
        check_eq(submit(&c, 1), LESSOR_E_NEEDS_LEASE); /* the database goes by lease alone */
        check_eq(lessor_submit(c.q, NULL, 0, 1, NULL, NULL, NULL, &c.e), LESSOR_E_INVALID);
        check_eq(lessor_submit(NULL, c.db, 0, 1, NULL, NULL, NULL, &c.e), LESSOR_E_INVALID);
        check_eq(lessor_submit(c.q, c.db, -2, 1, NULL, NULL, NULL, &c.e), LESSOR_E_INVALID);
        check_eq(lessor_submit(c.q, c.db, 0, 0, NULL, NULL, NULL, &c.e), LESSOR_E_INVALID);
        check_eq(lessor_reap(c.q, 0, NULL), LESSOR_E_INVALID);
        check_eq(lessor_queue_in_flight(c.q), 0);
        client_end(&c);
}

static void errors(struct fake *f, void *unused) {
        need(f, script_begins(f));
        need(f, fake_lane_take(&lane));
        need(f, fake_lane_refuse(&lane, lane.request.tag, LESSOR_E_UPSTREAM, 0, "no connection"));
        need(f, fake_lane_take(&lane));
        need(f, fake_lane_refuse(&lane, lane.request.tag, LESSOR_E_NEEDS_LEASE, 0, "the command is not known"));
        need(f, fake_lane_take(&lane));
        need(f, fake_lane_complete_apart(&lane, lane.request.tag));
        need(f, fake_lane_send_apart(&lane, lane.request.tag, "+3\r\n", 4));
        need(f, fake_lane_take(&lane));
        need(f, fake_lane_send_apart(&lane, lane.request.tag, "+4\r\n", 4));
        need(f, fake_lane_complete_apart(&lane, lane.request.tag));
        script_ends(f);
}

TEST(client_queue, results_are_errors_too_and_replies_that_come_apart) {
        static const int outcomes[] = {LESSOR_E_UPSTREAM, LESSOR_E_NEEDS_LEASE};
        struct client c;

        client_start(&c, errors);
        for (uintptr_t i = 0; i < 2; i++) {
                check_eq(submit(&c, i), 0);
                check_eq(reap(&c), 1);
                check(!c.r.reply && (uintptr_t)c.r.userdata == i && !c.r.error.may_have_run);
                check_eq(c.r.error.code, outcomes[i]);
                check(strstr(c.r.error.text, "`main`"));
        }
        for (uintptr_t i = 3; i < 5; i++) {
                check_eq(submit(&c, i), 0);
                check_eq(reap(&c), 1);
                check_result(&c);
        }
        client_end(&c);
}

/* ---- the fd ---------------------------------------------------------------------------------------------------------- */

static bool is_readable(struct client *c, int wait_ms) {
        struct pollfd p = {.fd = lessor_queue_fd(c->q), .events = POLLIN};
        return poll(&p, 1, wait_ms) == 1;
}

TEST(client_queue, the_fd_is_readable_when_there_is_something) {
        struct client c;

        client_start(&c, fake_lane_serve);
        for (uintptr_t i = 0; i < 300; i++) {
                int r;
                check_eq(submit(&c, i), 0);
                if (i % 3 == 0)
                        check(submit(&c, i) == 0);
                while ((r = lessor_reap(c.q, 0, &c.r)) == 1)
                        check_result(&c);
                check_eq(r, 0);
                while (lessor_queue_in_flight(c.q) > 0) {
                        check(is_readable(&c, PATIENCE_MS));
                        while ((r = lessor_reap(c.q, 0, &c.r)) == 1)
                                check_result(&c);
                        check_eq(r, 0);
                }
        }
        check(!is_readable(&c, 0));
        client_end(&c);
}

static void *blocking_calls(void *data) {
        struct client *c = data;
        uintptr_t wrong = 0;

        for (int i = 0; i < 2000; i++) {
                char text[32];
                lessor_error e;
                redisReply *r;
                snprintf(text, sizeof(text), "b%d", i);
                r = lessor_command(c->db, &e, "ECHO %s", text);
                wrong += !r || strcmp(r->str, text) != 0;
                freeReplyObject(r);
        }
        return (void *)wrong;
}

/* Others lead, and reap for the queue; or nobody does, and it is told by message. */
TEST(client_queue, a_queue_and_threads_that_wait_share_a_lane) {
        pthread_t threads[2];
        struct client c;
        void *wrong;

        client_start_with(&c, fake_lane_serve, NULL, LESSOR_PATH_LANE);
        check_eq(submit(&c, 1), 0);
        check_eq(reap(&c), 1);
        check_result(&c);
        for (int i = 0; i < 2; i++)
                check_eq(pthread_create(&threads[i], NULL, blocking_calls, &c), 0);
        for (uintptr_t i = 0; i < 2000; i++) {
                int r;
                while (submit(&c, i) != 0)
                        check_eq(c.e.code, LESSOR_E_EXHAUSTED);
                if (i % 2) {
                        check_eq(reap(&c), 1);
                        check_result(&c);
                }
                while (lessor_queue_in_flight(c.q) > 8) {
                        while ((r = lessor_reap(c.q, 0, &c.r)) == 1)
                                check_result(&c);
                        check_eq(r, 0);
                        if (lessor_queue_in_flight(c.q) > 8)
                                check(is_readable(&c, PATIENCE_MS));
                }
        }
        while (lessor_queue_in_flight(c.q) > 0) {
                check_eq(reap(&c), 1);
                check_result(&c);
        }
        for (int i = 0; i < 2; i++) {
                pthread_join(threads[i], &wrong);
                check_eq((uintptr_t)wrong, 0);
        }
        client_end(&c);
}

static void told_in_time(struct fake *f, void *go) {
        eventfd_t n;

        need(f, script_begins(f));
        for (int i = 0; i < 2; i++) {
                need(f, fake_lane_take(&lane));
                need(f, read(*(int *)go, &n, sizeof(n)) == sizeof(n));
                need(f, fake_lane_reply(&lane, lane.request.tag, "+7\r\n"));
        }
        script_ends(f);
}

TEST(client_queue, arming_is_enough_and_says_whether_there_is_something) {
        int go = eventfd(0, EFD_CLOEXEC);
        struct client c;

        client_start_with(&c, told_in_time, &go, LESSOR_PATH_DIRECT);
        for (int i = 0; i < 2; i++) {
                check_eq(submit(&c, 7), 0);
                check_eq(lessor_queue_arm(c.q), 0);
                check(!is_readable(&c, 0));
                check_eq(eventfd_write(go, 1), 0);
                check(is_readable(&c, PATIENCE_MS));
                check_eq(lessor_queue_arm(c.q), 1);
                check_eq(lessor_reap(c.q, 0, &c.r), 1);
                check_result(&c);
        }
        client_end(&c);
        close(go);
}

/* ---- deadlines, cancelling, the broker's end --------------------------------------------------------------------------- */

static void takes_one(struct fake *f, void *unused) {
        need(f, script_begins(f));
        need(f, fake_lane_take(&lane));
        need(f, fake_gone(f));
        fake_lane_close(&lane);
}

TEST(client_queue, a_broker_that_hangs_costs_no_more_than_the_deadlines) {
        bool seen[2] = {false, false};
        struct client c;

        fake_init(&c.f);
        fake_offer_lanes(&c.f);
        c.f.control->database[0].socket_timeout_ns = 20 * NS_PER_MS;
        fake_run(&c.f, takes_one, NULL);
        c.l = client_open(&c.f);
        c.db = client_db(c.l, "main");
        check_eq(lessor_queue_new(c.l, &c.q), 0);
        for (uintptr_t i = 0; i < 2; i++)
                check_eq(lessor_submit(c.q, c.db, 20, 2, (const char *[]){"GET", "k"}, NULL, (void *)i, &c.e), 0);
        for (int i = 0; i < 2; i++) {
                check_eq(reap(&c), 1);
                check(!c.r.reply);
                bool taken = (uintptr_t)c.r.userdata == 0;
                check_eq(c.r.error.code, taken ? LESSOR_E_REPLY_TIMEOUT : LESSOR_E_UNAVAILABLE);
                check_eq(c.r.error.may_have_run, taken);
                seen[!taken] = true;
        }
        check(seen[0] && seen[1]);
        client_end(&c);
}

static void cancelled(struct fake *f, void *data) {
        int *go = data;
        eventfd_t n;
        uint64_t tag;

        need(f, script_begins(f));
        need(f, fake_lane_take(&lane));
        tag = lane.request.tag;
        need(f, eventfd_write(go[0], 1) == 0 && read(go[1], &n, sizeof(n)) == sizeof(n));
        need(f, fake_lane_reply(&lane, tag, "+late\r\n"));
        need(f, fake_lane_take(&lane)); /* the third: the second was never seen */
        need(f, fake_lane_reply(&lane, lane.request.tag, "+3\r\n"));
        script_ends(f);
}

TEST(client_queue, what_is_cancelled_has_a_result_that_says_whether_it_may_have_run) {
        int go[2] = {eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC)};
        struct client c;
        eventfd_t n;

        client_start_with(&c, cancelled, go, LESSOR_PATH_DIRECT);
        check_eq(submit(&c, 1), 0);
        check_eq(read(go[0], &n, sizeof(n)), (ssize_t)sizeof(n));
        check_eq(submit(&c, 2), 0);
        check_eq(submit(&c, 3), 0);
        check_eq(lessor_queue_cancel(c.q, (void *)1), 1);
        check_eq(lessor_queue_cancel(c.q, (void *)2), 1);
        check_eq(lessor_queue_cancel(c.q, (void *)2), 0);
        check_eq(eventfd_write(go[1], 1), 0);
        for (uintptr_t i = 1; i < 3; i++) {
                check_eq(reap(&c), 1);
                check_eq((uintptr_t)c.r.userdata, i);
                check_eq(c.r.error.code, LESSOR_E_CANCELLED);
                check_eq(c.r.error.may_have_run, i == 1);
        }
        check_eq(reap(&c), 1);
        check_result(&c);
        client_end(&c);
        close(go[0]);
        close(go[1]);
}

static void dies_once(struct fake *f, void *go) {
        eventfd_t n;

        need(f, script_begins(f));
        need(f, read(*(int *)go, &n, sizeof(n)) == sizeof(n));
        need(f, fake_lane_take(&lane) && fake_lane_take(&lane));
        need(f,
             fake_lane_complete(&lane, &(struct lane_answer){.tag = lane.request.tag, .data = "+1\r\n", .length = 4}));
        fake_hang_up(f);
        fake_lane_close(&lane);
        need(f, fake_attach(f) && fake_lane_open(f, &lane));
        need(f, fake_lane_take(&lane) && fake_lane_reply(&lane, lane.request.tag, "+9\r\n"));
        script_ends(f);
}

TEST(client_queue, when_the_broker_dies_each_has_its_result_and_the_next_one_is_found) {
        int go = eventfd(0, EFD_CLOEXEC), r;
        unsigned replies = 0, may = 0;
        struct client c;

        client_start_with(&c, dies_once, &go, LESSOR_PATH_DIRECT);
        check_eq(submit(&c, 0), 0);
        check_eq(submit(&c, 1), 0);
        check_eq(lessor_reap(c.q, 0, &c.r), 0);
        check_eq(eventfd_write(go, 1), 0);
        while (replies + may < 2) {
                check(is_readable(&c, PATIENCE_MS));
                while ((r = lessor_reap(c.q, 0, &c.r)) == 1) {
                        if (c.r.reply) {
                                replies++;
                                check_result(&c);
                                continue;
                        }
                        check_eq(c.r.error.code, LESSOR_E_UNAVAILABLE);
                        check(c.r.error.may_have_run);
                        may++;
                }
                check_eq(r, 0);
        }
        check_eq(replies, 1);
        check_eq(may, 1);
        check_eq(lessor_reap(c.q, 0, &c.r), 0);
        check(!is_readable(&c, 0)); /* a dead socket does not keep the loop busy */
        check_eq(submit(&c, 9), 0);
        check_eq(reap(&c), 1);
        check_result(&c);
        client_end(&c);
        close(go);
}

static void left_alone(struct fake *f, void *unused) {
        need(f, script_begins(f));
        script_ends(f);
}

TEST(client_queue, a_queue_may_go_with_calls_under_way) {
        struct client c;

        client_start(&c, left_alone);
        check_eq(submit(&c, 0), 0);
        check_eq(submit(&c, 1), 0);
        client_end(&c);
}

/* ---- order ------------------------------------------------------------------------------------------------------------- */

static void one_after_the_other(struct fake *f, void *go) {
        eventfd_t n;
        union wire_message m;
        uint64_t first;
        int redis;

        need(f, script_begins(f));
        need(f, fake_lane_take(&lane));
        first = lane.request.tag;
        need(f, fake_lane_take(&lane));
        need(f, read(*(int *)go, &n, sizeof(n)) == sizeof(n));
        need(f, fake_lane_reply(&lane, lane.request.tag, "+2\r\n"));
        need(f, recv(f->session, &m, sizeof(m), MSG_PEEK | MSG_DONTWAIT) < 0); /* it does not ask as yet */
        need(f, fake_lane_reply(&lane, first, "+1\r\n"));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        redis = fake_grant(f, &m);
        need(f, fake_expect(redis, "*1\r\n$4\r\nPING\r\n") && fake_say(redis, "+PONG\r\n"));
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &m));
        close(redis);
        script_ends(f);
}

TEST(client_queue, a_command_by_lease_waits_for_what_its_thread_has_submitted) {
        int go = eventfd(0, EFD_CLOEXEC);
        struct client c;

        client_start_with(&c, one_after_the_other, &go, LESSOR_PATH_DIRECT);
        check_eq(submit(&c, 1), 0);
        check_eq(submit(&c, 2), 0);
        check(!lessor_acquire(c.db, 0, &c.e)); /* they are not done, and it does not wait */
        check_eq(c.e.code, LESSOR_E_TIMEOUT);
        check_eq(eventfd_write(go, 1), 0);
        check(client_pings(c.db)); /* by lease: PATH_DIRECT */
        for (int i = 0; i < 2; i++) {
                check_eq(lessor_reap(c.q, 0, &c.r), 1);
                check_result(&c);
        }
        client_end(&c);
        close(go);
}

/* ---- fork -------------------------------------------------------------------------------------------------------------- */

TEST(client_queue, a_queue_is_its_process_own) {
        struct client c;
        pid_t child;

        client_start(&c, fake_lane_serve);
        check_eq(submit(&c, 1), 0);
        child = fork();
        if (child == 0) {
                child_check(lessor_queue_in_flight(c.q) == 0 && lessor_queue_fd(c.q) == -1);
                child_check(submit(&c, 2) == LESSOR_E_FORKED && c.e.code == LESSOR_E_FORKED);
                child_check(lessor_reap(c.q, 0, &c.r) == LESSOR_E_FORKED);
                child_check(lessor_queue_arm(c.q) == LESSOR_E_FORKED);
                child_check(lessor_queue_cancel(c.q, (void *)1) == 0);
                lessor_queue_free(c.q);
                lessor_close(c.l);
                _exit(0);
        }
        child_ends_well(child);
        check_eq(reap(&c), 1);
        check_result(&c);
        client_end(&c);
}

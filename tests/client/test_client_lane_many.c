/* SPDX-License-Identifier: MIT */
/* Many calls in one lane: pipes, threads, forked children. */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "client/lane_client.h"

/* ---- pipes ---------------------------------------------------------------------------------------------------------- */

static lessor_pipe *pipe_of(struct client *c) {
        lessor_pipe *p = lessor_pipe_new(c->db, 0);
        check(p);
        check_eq(lessor_pipe_add(p, "SET k v"), 0);
        check_eq(lessor_pipe_add(p, "INCR k"), 0);
        check_eq(lessor_pipe_add(p, "GET k"), 0);
        return p;
}

enum { REPLIES = 3 };

/* Runs one; the replies are the caller's. */
static redisReply **pipe_replies(struct client *c) {
        redisReply **replies;
        lessor_pipe *p = pipe_of(c);
        size_t n;

        check_msg(lessor_pipe_run(p, 5000, &replies, &n, &c->e) == 0, "%s", c->e.text);
        check_eq(n, REPLIES);
        lessor_pipe_free(p);
        return replies;
}

static void check_pipe_fails(struct client *c, int code) {
        redisReply **replies;
        lessor_pipe *p = pipe_of(c);
        size_t n;

        check_eq(lessor_pipe_run(p, 5000, &replies, &n, &c->e), code);
        check(c->e.may_have_run);
        lessor_pipe_free(p);
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

TEST(client_lane_many, a_pipe_goes_as_a_unit_and_its_replies_come_in_order) {
        struct client c;
        redisReply **replies;

        client_start(&c, pipe_at_once);
        replies = pipe_replies(&c);
        check_str(replies[0]->str, "OK");
        check_str(replies[1]->str, "ERR no");
        check_str(replies[2]->str, "v");
        lessor_pipe_replies_free(replies, REPLIES);
        check_pipe_fails(&c, LESSOR_E_UPSTREAM);
        client_end(&c);
}

static void pipe_leased(struct fake *f, void *unused) {
        struct lane_geometry g = {.entries = 2, .requests_size = 100, .replies_size = 100};

        need(f, fake_attach(f) && fake_lane_open_with(f, &lane, &g));
        lease_for(f, SET_K INCR_K GET_K, "+OK\r\n:1\r\n+x\r\n");
        need(f, !fake_lane_has(&lane));
        script_ends(f);
}

TEST(client_lane_many, a_pipe_that_does_not_fit_goes_by_lease_as_a_whole) {
        struct client c;
        redisReply **replies;

        client_start(&c, pipe_leased);
        replies = pipe_replies(&c);
        lessor_pipe_replies_free(replies, REPLIES);
        client_end(&c);
}

static void pipe_in_two_parts(struct fake *f, void *unused) {
        static const char *const commands[] = {SET_K, INCR_K, GET_K};
        uint64_t tags[3];

        need(f, script_begins(f));
        for (unsigned i = 0; i < 3; i++) {
                need(f, fake_lane_take_command(&lane, commands[i]));
                need(f, lane.request.flags == (i > 0 ? LANE_LINKED : 0));
                tags[i] = lane.request.tag;
        }
        need(f, fake_lane_refuse(&lane, tags[1], LESSOR_E_NEEDS_LEASE, 0, "not by lane") &&
                        fake_lane_refuse(&lane, tags[2], LESSOR_E_NEEDS_LEASE, 0, "behind it") &&
                        fake_lane_reply(&lane, tags[0], "+OK\r\n"));
        lease_for(f, INCR_K GET_K, ":1\r\n+x\r\n");
        script_ends(f);
}

TEST(client_lane_many, of_a_pipe_what_the_broker_does_not_take_goes_by_lease_behind_what_it_took) {
        struct client c;
        redisReply **replies;

        client_start(&c, pipe_in_two_parts);
        replies = pipe_replies(&c);
        check_str(replies[0]->str, "OK");
        check_eq(replies[1]->integer, 1);
        check_str(replies[2]->str, "x");
        lessor_pipe_replies_free(replies, REPLIES);
        client_end(&c);
}

static void second_part_refused(struct fake *f, void *unused) {
        union wire_message m;
        uint64_t tags[3];

        need(f, script_begins(f));
        for (unsigned i = 0; i < 3; i++) {
                need(f, fake_lane_take(&lane));
                tags[i] = lane.request.tag;
        }
        need(f, fake_lane_reply(&lane, tags[0], "+OK\r\n"));
        for (unsigned i = 1; i < 3; i++)
                need(f, fake_lane_refuse(&lane, tags[i], LESSOR_E_NEEDS_LEASE, 0, "not by lane"));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        need(f, fake_refuse(f, m.header.request, LESSOR_E_EXHAUSTED, 0, "all in use"));
        script_ends(f);
}

TEST(client_lane_many, a_pipe_whose_second_part_finds_no_lease_may_have_run) {
        struct client c;

        client_start(&c, second_part_refused);
        check_pipe_fails(&c, LESSOR_E_EXHAUSTED);
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

TEST(client_lane_many, many_threads_share_a_lane_and_each_gets_its_own_replies) {
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

TEST(client_lane_many, a_child_has_a_lane_of_its_own_and_its_parents_goes_on) {
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

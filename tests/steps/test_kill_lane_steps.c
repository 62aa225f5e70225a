/* SPDX-License-Identifier: MIT */
/*
 * A worker is killed at every step of a call's way through his lane, while others call by theirs: they get their own
 * replies, and nothing of his is left.
 */
#include "steps/kill.h"

enum { OTHERS = 3, LARGE = 20000 };

static const char *const steps[] = {"lane entry written", "lane entry published", "lane about to sleep",
                                    "lane completion seen", "lane completion released"};
enum { STEPS = sizeof(steps) / sizeof(steps[0]) };

struct scene {
        const char *socket;
        _Atomic bool end;
        _Atomic uint64_t served;
};

static void echo(lessor_db *db, unsigned i, size_t size) {
        char text[LARGE + 1];
        const char *argv[] = {"ECHO", text};
        lessor_error e = {0};
        memset(text, 'a' + (int)(i % 26), size);
        size_t n = (size_t)snprintf(text, sizeof(text), "%d-%u", (int)getpid(), i);
        text[n] = '.';
        redisReply *reply = lessor_command_argv(db, WAIT_MS, 2, argv, (size_t[]){4, size}, &e);
        if (!reply)
                fprintf(stderr, "%s\n", e.text);
        child_check(reply && (size_t)reply->len == size && memcmp(reply->str, text, size) == 0);
        freeReplyObject(reply);
}

static int be_another(unsigned index, void *arg) {
        struct scene *s = arg;
        lessor *l;
        lessor_db *db = open_in_child(s->socket, &l);
        for (unsigned i = 0; !atomic_load(&s->end); i++) {
                echo(db, i, i % 7 ? 40 : LARGE);
                atomic_fetch_add(&s->served, 1);
        }
        lessor_close(l);
        return 0;
}

static int die_at(unsigned index, void *arg) {
        struct scene *s = arg;
        lessor *l;
        lessor_db *db = open_in_child(s->socket, &l);
        for (unsigned i = 0; i < UINT32_MAX; i++)
                echo(db, i, i % 5 ? 40 : LARGE);
        return 0;
}

static void kill_at(struct scene *s, const char *step, unsigned after) {
        check_killed_at(step, after, die_at, s);
        uint64_t served = s->served;
        check_soon(s->served > served + 10 * OTHERS, WAIT_MS);
}

TEST_WITH(kill_lane_steps, whatever_a_worker_was_about_in_his_lane_the_others_go_on, .timeout = 280) {
        struct scene *s = shared_memory(sizeof(*s));
        struct workers others;
        struct host h;

        host_start(&h, "path: lane, max_connections: 3, socket_timeout: 50s, wait_timeout: 50s");
        s->socket = h.broker.socket;
        workers_start(&others, OTHERS, be_another, s);
        for (unsigned i = 0; i < STEPS; i++)
                for (unsigned after = 0; after < 12; after += 1 + after / 2)
                        kill_at(s, steps[i], after);
        atomic_store(&s->end, true);
        check_eq(workers_wait(&others, WAIT_MS), OTHERS);
        check(broker_figures_now(&h.broker, "main").lane_calls > s->served / 2);
        host_end(&h);
}

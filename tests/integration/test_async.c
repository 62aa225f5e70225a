/* SPDX-License-Identifier: MIT */
/* An event loop's commands: each called back exactly once, by lane or by lease, whatever becomes of Redis and the broker. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <lessor/adapters/libevent.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"
#include "support/turns.h"

enum { PATIENCE_MS = 60000 };

struct client {
        struct host h;
        lessor *l;
        lessor_async *a;
        lessor_async_db *db;
};

static lessor_async_db *database(lessor_async *a, const char *name) {
        lessor_async_db *db = NULL;
        check_eq(lessor_async_database(a, name, &db), 0);
        return db;
}

static void client_begin(struct client *c, const char *keys) {
        host_start(&c->h, keys);
        c->l = client_open(&c->h.broker);
        check_eq(lessor_async_new(c->l, &c->a), 0);
        c->db = database(c->a, NULL);
}

static void client_end(struct client *c) {
        lessor_async_free(c->a);
        lessor_close(c->l);
        host_end(&c->h);
}

struct tally {
        unsigned called, good, failed, may_have_run, unsent;
        int code;
        char text[LESSOR_ERROR_TEXT];
        long long value;
};

static void note(struct tally *t, const lessor_error *e) {
        t->failed++;
        t->may_have_run += e->may_have_run;
        t->unsent += !e->may_have_run;
        t->code = e->code;
        memcpy(t->text, e->text, sizeof(t->text));
}

static void count(lessor_async_db *db, redisReply *reply, const lessor_error *e, void *data) {
        struct tally *t = data;

        (void)db;
        t->called++;
        if (!reply)
                note(t, e);
        else if (reply->type != REDIS_REPLY_ERROR) {
                t->good++;
                t->value = reply->integer;
        }
}

/* What is shown of both ways. "auto" is, for one process, a connection borrowed for its commands; but now and then a lane. */
#define BOTH_WAYS(name)                                                                                                \
        static void name(const char *path);                                                                            \
        TEST(async, name##_by_lane) { name("lane"); }                                                                  \
        TEST(async, name##_as_advised) { name("auto"); }                                                               \
        static void name(const char *path)

static void client_begin_by(struct client *c, const char *path, const char *keys) {
        char all[256];
        snprintf(all, sizeof(all), "path: %s, %s", path, keys);
        client_begin(c, all);
}

/* ---- commands ------------------------------------------------------------------------------------------------------- */

BOTH_WAYS(a_hundred_commands_at_once_have_a_hundred_results_on_twenty_connections) {
        struct tally t = {0};
        struct client c;

        client_begin_by(&c, path, "max_connections: 20");
        for (int i = 0; i < 100; i++)
                check_eq(lessor_async_command(c.db, count, &t, "SET k%d %d", i, i), 0);
        check_eq(t.called, 0); /* not from within */
        check_eq(lessor_async_in_flight(c.a), 100);
        check(turns_run(c.a, PATIENCE_MS));
        check_msg(t.good == 100, "%u good: %s", t.good, t.text);
        client_end(&c);
}

struct order {
        unsigned next, wrong;
};
struct step {
        struct order *order;
        unsigned number;
};

static void in_order(lessor_async_db *db, redisReply *reply, const lessor_error *e, void *data) {
        struct step *s = data;

        (void)db;
        (void)e;
        if (!reply || reply->type != REDIS_REPLY_INTEGER || reply->integer != s->number + 1)
                s->order->wrong++;
        s->order->next++;
}

/* Of a stream: exactly the one entry that was added before, and none of those after. */
static void sees_one(lessor_async_db *db, redisReply *reply, const lessor_error *e, void *data) {
        struct tally *t = data;

        count(db, reply, e, t);
        if (reply && (reply->type != REDIS_REPLY_ARRAY || reply->element[0]->element[1]->elements != 1))
                t->failed++;
}

/* APPEND's reply is the length so far: so it tells when each ran. XREAD may block, so it never goes by lane. */
BOTH_WAYS(commands_run_in_the_order_in_which_they_were_submitted_whichever_way_they_go) {
        enum { N = 2000 };
        struct step steps[N];
        struct order order = {0};
        struct tally t = {0};
        struct client c;

        client_begin_by(&c, path, "max_connections: 4");
        for (int i = 0; i < N; i++) {
                steps[i] = (struct step){.order = &order, .number = (unsigned)i};
                check_eq(lessor_async_command(c.db, in_order, &steps[i], "APPEND log x"), 0);
                if (i % 7 == 0)
                        check_eq(lessor_async_command(c.db, count, &t, "XADD s 0-%d f v", i + 1), 0);
                if (i % 7 == 0)
                        check_eq(lessor_async_command(c.db, sees_one, &t, "XREAD STREAMS s 0-%d", i), 0);
                if (i % 7 == 1)
                        check_eq(lessor_async_command(c.db, count, &t, "SELECT 0"), 0);
        }
        check(turns_run(c.a, PATIENCE_MS));
        check_eq(order.next, N);
        check_eq(order.wrong, 0);
        check_eq(t.failed, 0);
        client_end(&c);
}

BOTH_WAYS(what_is_too_large_for_a_lane_goes_by_lease) {
        enum { SIZE = 20 * 1024 * 1024 };
        char *value = malloc(SIZE);
        const char *set[] = {"SET", "large", value}, *get[] = {"STRLEN", "large"};
        size_t lengths[] = {3, 5, SIZE};
        struct tally t = {0}, after = {0};
        struct client c;

        memset(value, 'v', SIZE);
        client_begin_by(&c, path, "max_connections: 4");
        check_eq(lessor_async_command_argv(c.db, 30000, count, &t, 3, set, lengths), 0);
        check_eq(lessor_async_command_argv(c.db, 30000, count, &after, 2, get, NULL), 0);
        check(turns_run(c.a, PATIENCE_MS));
        check_msg(t.good == 1 && after.good == 1, "%s %s", t.text, after.text);
        check_eq(after.value, SIZE);
        check_eq(lessor_async_command(c.db, count, &t, "GET large"), 0); /* comes apart */
        check(turns_run(c.a, PATIENCE_MS));
        check_msg(t.good == 2, "%s", t.text);
        free(value);
        client_end(&c);
}

TEST(async, an_unknown_database_is_told_by_callback_with_those_that_are_known) {
        struct tally t = {0};
        struct client c;

        client_begin(&c, "max_connections: 2");
        check_eq(lessor_async_command(database(c.a, "mian"), count, &t, "PING"), 0);
        check_eq(lessor_async_command(database(c.a, NULL), count, &t, "PING"), 0);
        check(database(c.a, NULL) == c.db);
        check(turns_run(c.a, PATIENCE_MS));
        check_eq(t.good, 1);
        check_eq(t.code, LESSOR_E_UNKNOWN_DATABASE);
        check_msg(strstr(t.text, "main"), "%s", t.text);
        client_end(&c);
}

TEST(async, a_pool_of_one_connection_has_no_lane_and_serves_all_the_same) {
        struct tally t = {0};
        struct client c;

        client_begin(&c, "max_connections: 1");
        for (int i = 0; i < 1000; i++)
                check_eq(lessor_async_command(c.db, count, &t, "INCR n"), 0);
        check(turns_run(c.a, PATIENCE_MS));
        check_msg(t.good == 1000, "%u good: %s", t.good, t.text);
        check_eq(t.value, 1000);
        check_figure_soon(&c.h.broker, "main", available_connections, 1, 5000); /* parked, or given back */
        client_end(&c);
}

/* ---- back-pressure -------------------------------------------------------------------------------------------------- */

struct flood {
        struct tally t;
        lessor_async_db *db;
        unsigned submitted, total, refused;
};

static void flood_on(struct flood *f);

static void flood_done(lessor_async_db *db, redisReply *reply, const lessor_error *e, void *data) {
        struct flood *f = data;
        count(db, reply, e, &f->t);
        flood_on(f);
}

static void flood_on(struct flood *f) {
        int r = 0;
        while (r == 0 && f->submitted < f->total) {
                r = lessor_async_command(f->db, flood_done, f, "SET key:%d %d", (int)(f->submitted % 1000), 7);
                f->submitted += r == 0;
        }
        f->refused += r == LESSOR_E_EXHAUSTED;
        check(r == 0 || r == LESSOR_E_EXHAUSTED);
}

static long memory_kb(void) {
        struct rusage u;
        getrusage(RUSAGE_SELF, &u);
        return u.ru_maxrss;
}

BOTH_WAYS(a_hundred_thousand_commands_need_no_more_memory_than_those_in_flight) {
        struct flood f = {.total = 100000};
        struct client c;
        long before;

        client_begin_by(&c, path, "max_connections: 20, wait_timeout: 60s");
        before = memory_kb();
        f.db = c.db;
        flood_on(&f);
        check_eq(f.submitted, LESSOR_ASYNC_MAX);
        check_eq(f.refused, 1);
        check(turns_until(c.a, f.t.called == f.total, PATIENCE_MS));
        check_msg(f.t.good == f.total, "%u good: %s", f.t.good, f.t.text);
        check_eq(lessor_async_in_flight(c.a), 0);
        check_msg(memory_kb() - before < 64 * 1024 * PROCESS_SLOW, "%ld KiB more", memory_kb() - before);
        client_end(&c);
}

TEST(async, bytes_are_counted_too) {
        enum { SIZE = 1024 * 1024 };
        char *value = calloc(1, SIZE);
        const char *set[] = {"SET", "large", value};
        size_t lengths[] = {3, 5, SIZE};
        struct tally t = {0};
        unsigned n = 0;
        struct client c;
        int r;

        client_begin(&c, "max_connections: 4");
        while ((r = lessor_async_command_argv(c.db, 60000, count, &t, 3, set, lengths)) == 0)
                n++;
        check_eq(r, LESSOR_E_EXHAUSTED);
        check_eq(n, LESSOR_ASYNC_BYTES_MAX / SIZE - 1);
        check(turns_run(c.a, PATIENCE_MS));
        check_msg(t.good == n, "%u good: %s", t.good, t.text);
        free(value);
        client_end(&c);
}

/* ---- pipelines ------------------------------------------------------------------------------------------------------ */

struct pipe_tally {
        unsigned called;
        size_t n;
        int code, types[8];
        char text[LESSOR_ERROR_TEXT];
};

static void pipe_done(lessor_async_db *db, redisReply **replies, size_t n, const lessor_error *e, void *data) {
        struct pipe_tally *t = data;

        (void)db;
        t->called++;
        t->n = n;
        t->code = e->code;
        memcpy(t->text, e->text, sizeof(t->text));
        for (size_t i = 0; i < n && i < 8; i++)
                t->types[i] = replies[i]->type;
}

static void check_pipe(const char *path, unsigned flags) {
        struct pipe_tally t = {0}, empty = {0};
        struct client c;
        lessor_pipe *p;

        client_begin_by(&c, path, "max_connections: 4");
        p = lessor_async_pipe_new(c.db, flags);
        check(p);
        check_eq(lessor_pipe_add(p, "SET s text"), 0);
        check_eq(lessor_pipe_add(p, "INCR s"), 0); /* an error, in its place */
        check_eq(lessor_pipe_add(p, "INCR n"), 0);
        check_eq(lessor_async_pipeline(c.db, p, 5000, pipe_done, &t), 0);
        check_eq(lessor_async_pipeline(c.db, p, 5000, pipe_done, &empty), 0); /* it is empty again */
        lessor_pipe_free(p);
        check(turns_run(c.a, PATIENCE_MS));
        check_eq(t.called, 1);
        check_msg(t.n == 3, "%s", t.text);
        check_eq(t.types[0], REDIS_REPLY_STATUS);
        check_eq(t.types[1], REDIS_REPLY_ERROR);
        check_eq(t.types[2], REDIS_REPLY_INTEGER);
        check_eq(empty.called, 1);
        check_eq(empty.n, 0);
        check_eq(empty.code, 0);
        client_end(&c);
}

BOTH_WAYS(a_pipeline_gives_every_reply_with_each_error_in_its_place) { check_pipe(path, 0); }
BOTH_WAYS(an_atomic_pipeline_likewise) { check_pipe(path, LESSOR_ATOMIC); }

BOTH_WAYS(a_pipeline_larger_than_a_lane_goes_by_lease) {
        enum { N = 3000 };
        struct pipe_tally t = {0};
        struct client c;
        lessor_pipe *p;

        client_begin_by(&c, path, "max_connections: 4");
        p = lessor_async_pipe_new(c.db, 0);
        for (int i = 0; i < N; i++)
                check_eq(lessor_pipe_add(p, "SET k%d %d", i, i), 0);
        check_eq(lessor_async_pipeline(c.db, p, 5000, pipe_done, &t), 0);
        check(turns_run(c.a, PATIENCE_MS));
        check_msg(t.n == N, "%s", t.text);
        lessor_pipe_free(p);
        client_end(&c);
}

/* ---- the broker and Redis end ----------------------------------------------------------------------------------------- */

/* Every callback exactly once; and what is said not to have been sent was not. */
static void check_through_ends(const char *path, bool redis) {
        enum { ROUNDS = 5 };
        struct flood f = {.total = UINT32_MAX};
        unsigned before;
        struct client c;

        client_begin_by(&c, path, "max_connections: 8, wait_timeout: 20s");
        f.db = c.db;
        flood_on(&f);
        for (int i = 0; i < ROUNDS; i++) {
                before = f.t.good;
                check(turns_until(c.a, f.t.good > before + 2000, PATIENCE_MS));
                if (redis) {
                        redis_kill(&c.h.redis);
                        redis_restart(&c.h.redis);
                } else {
                        broker_kill(&c.h.broker);
                        broker_relaunch(&c.h.broker);
                }
        }
        before = f.t.good;
        check(turns_until(c.a, f.t.good > before + 2000, PATIENCE_MS));
        f.total = f.submitted;
        check(turns_run(c.a, PATIENCE_MS));
        check_eq(f.t.called, f.submitted);
        check_eq(f.t.good + f.t.failed, f.submitted);
        if (!redis)
                check_msg(f.t.unsent == 0, "%u unsent: %s", f.t.unsent, f.t.text); /* it went on to the next broker */
        client_end(&c);
}

BOTH_WAYS(every_callback_comes_once_when_the_broker_is_killed_under_load) { check_through_ends(path, false); }
BOTH_WAYS(every_callback_comes_once_when_redis_is_killed_under_load) { check_through_ends(path, true); }

TEST(async, without_a_broker_commands_wait_for_one_until_their_deadline) {
        struct tally t = {0}, late = {0};
        struct client c;

        client_begin(&c, "max_connections: 4");
        broker_kill(&c.h.broker);
        check_eq(lessor_async_command_argv(c.db, 200, count, &t, 1, (const char *[]){"PING"}, NULL), 0);
        check_eq(lessor_async_command_argv(c.db, 60000, count, &late, 1, (const char *[]){"PING"}, NULL), 0);
        check(turns_until(c.a, t.called == 1, PATIENCE_MS));
        check_eq(t.code, LESSOR_E_UNAVAILABLE);
        check_eq(t.may_have_run, 0);
        check_eq(late.called, 0);
        broker_relaunch(&c.h.broker);
        check(turns_run(c.a, PATIENCE_MS));
        check_msg(late.good == 1, "%s", late.text);
        client_end(&c);
}

/* It sleeps while a command blocks. */
TEST(async, who_waits_does_not_turn) {
        struct tally t = {0};
        unsigned turns = 0;
        struct client c;

        client_begin(&c, "max_connections: 4");
        check_eq(lessor_async_command(c.db, count, &t, "BLPOP nothing 1"), 0);
        while (t.called == 0) {
                check(turns_one(c.a, PATIENCE_MS));
                turns++;
        }
        check_msg(t.good == 1, "%s", t.text);
        check_msg(turns < 50, "%u turns", turns);
        client_end(&c);
}

TEST(async, who_waits_for_a_broker_does_not_turn_and_who_no_longer_does_stands_still) {
        struct tally t = {0};
        unsigned turns = 0;
        struct client c;

        client_begin_by(&c, "lane", "max_connections: 4");
        check_eq(lessor_async_command(c.db, count, &t, "PING"), 0);
        check(turns_run(c.a, PATIENCE_MS));
        broker_kill(&c.h.broker);
        check_eq(lessor_async_command_argv(c.db, 500, count, &t, 1, (const char *[]){"PING"}, NULL), 0);
        while (t.called == 1) {
                check(turns_one(c.a, PATIENCE_MS));
                turns++;
        }
        check_eq(t.code, LESSOR_E_UNAVAILABLE);
        for (int i = 0; i < 300; i++)
                turns += turns_one(c.a, 2);
        check_msg(turns < 100, "%u turns", turns);
        broker_relaunch(&c.h.broker);
        check_eq(lessor_async_command(c.db, count, &t, "PING"), 0);
        check(turns_run(c.a, PATIENCE_MS));
        check_eq(t.good, 2);
        client_end(&c);
}

/* ---- a loop of libevent ----------------------------------------------------------------------------------------------- */

TEST(async, a_loop_of_libevent_ends_when_nothing_is_under_way) {
        struct event_base *base;
        struct tally t = {0};
        struct client c;

        client_begin(&c, "max_connections: 20");
        for (int i = 0; i < 3; i++) { /* made and destroyed one after the other */
                base = event_base_new();
                check_eq(lessor_libevent_attach(c.a, base), 0);
                check_eq(event_base_dispatch(base), 1); /* no events */
                for (int k = 0; k < 100; k++)
                        check_eq(lessor_async_command(c.db, count, &t, "SET k%d v", k), 0);
                check_eq(event_base_dispatch(base), 1);
                check_eq(t.good, 100 * (i + 1));
                lessor_async_free(c.a);
                event_base_free(base);
                check_eq(lessor_async_new(c.l, &c.a), 0);
                c.db = database(c.a, NULL);
        }
        client_end(&c);
}

/* ---- several, mixed, forked ------------------------------------------------------------------------------------------- */

struct worker {
        lessor *l;
        const char *error;
        pthread_t thread;
};

static void *loop_worker(void *data) {
        struct worker *w = data;
        struct flood f = {.total = 3000};
        lessor_async *a;

        if (lessor_async_new(w->l, &a) != 0 || lessor_async_database(a, NULL, &f.db) != 0) {
                w->error = "cannot be made";
                return NULL;
        }
        flood_on(&f);
        if (!turns_until(a, f.t.called == f.total, PATIENCE_MS) || f.t.good != f.total)
                w->error = "not all were good";
        lessor_async_free(a);
        return NULL;
}

static void *waiting_worker(void *data) {
        struct worker *w = data;
        lessor_error e;
        lessor_db *db;

        if (lessor_database(w->l, NULL, &db, &e) != 0)
                w->error = "no database";
        for (int i = 0; i < 1000 && !w->error; i++) {
                redisReply *r = lessor_command(db, &e, "SET sync%d %d", i, i);
                if (!r || r->type == REDIS_REPLY_ERROR)
                        w->error = "a call failed";
                freeReplyObject(r);
        }
        return NULL;
}

BOTH_WAYS(several_loops_and_threads_that_wait_share_one_handle) {
        enum { N = 4 };
        struct worker workers[N];
        struct client c;

        client_begin_by(&c, path, "max_connections: 6, wait_timeout: 60s");
        for (int i = 0; i < N; i++) {
                workers[i] = (struct worker){.l = c.l};
                check_eq(pthread_create(&workers[i].thread, NULL, i % 2 ? waiting_worker : loop_worker, &workers[i]),
                         0);
        }
        for (int i = 0; i < N; i++) {
                pthread_join(workers[i].thread, NULL);
                check_msg(!workers[i].error, "%s", workers[i].error);
        }
        client_end(&c);
}

static int forked(unsigned index, void *data) {
        struct client *c = data;
        struct tally t = {0};
        lessor_async_db *db;
        lessor_async *a;

        (void)index;
        child_check(lessor_async_command(c->db, count, &t, "PING") == LESSOR_E_FORKED);
        child_check(lessor_async_fd(c->a) == -1);
        child_check(lessor_async_cancel(c->a, &t) == 0);
        lessor_async_free(c->a);
        child_check(t.called == 0);
        child_check(lessor_async_new(c->l, &a) == 0 && lessor_async_database(a, NULL, &db) == 0);
        for (int i = 0; i < 100; i++)
                child_check(lessor_async_command(db, count, &t, "INCR n") == 0);
        child_check(turns_run(a, PATIENCE_MS) && t.good == 100);
        lessor_async_free(a);
        lessor_close(c->l);
        return 0;
}

BOTH_WAYS(a_child_of_a_fork_makes_its_own_on_the_same_handle) {
        struct tally t = {0};
        struct client c;

        client_begin_by(&c, path, "max_connections: 8");
        for (int i = 0; i < 1000; i++) /* under way, pending, on a connection: all the parent's */
                check_eq(lessor_async_command(c.db, count, &t, i % 500 ? "SET a%d 1" : "SELECT %d", i % 500), 0);
        turns_one(c.a, 1000);
        check_eq(workers_run(4, forked, &c, PATIENCE_MS), 4);
        check(turns_run(c.a, PATIENCE_MS));
        check_eq(t.called, 1000);
        check_msg(t.good == 1000, "%u good: %s", t.good, t.text);
        client_end(&c);
}

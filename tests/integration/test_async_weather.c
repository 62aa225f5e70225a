/* SPDX-License-Identifier: MIT */
/*
 * Loops under load while the broker and Redis are killed and started again: every callback is called exactly once, what is said to
 * have never run never ran, nothing is stuck, and all of it is given back.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "support/check.h"
#include "support/host.h"
#include "support/loops.h"
#include "support/process.h"

enum { CALLERS = 64, LEASING = 16, WAIT_MS = 60000, MOVES = PROCESS_SLOW > 1 ? 100 : 500 };

struct load;

/* One who always has one call under way: the first LEASING by a lease of their own. */
struct caller {
        struct load *load;
        bool leases;
        bool expects; /* a callback */
        bool expects_reply;
        bool expects_end; /* of a context */
};

struct load {
        const struct loop_kind *kind;
        lessor *l;
        pthread_t thread;
        struct loop loop;
        struct caller callers[CALLERS];
        bool good;
        _Atomic bool stop;
        _Atomic uint64_t done, begun, ended, replies, maybe, errors, unexpected;
};

static void call(struct caller *c);

/* Said once for each call, whatever came of it. */
static void ended(struct caller *c, bool reply, bool may_have_run) {
        struct load *load = c->load;

        load->ended++;
        load->replies += reply;
        load->maybe += !reply && may_have_run;
        load->errors += !reply;
        if (!reply) /* who is refused at once does not ask at once again */
                look_again_before(UINT64_MAX);
        load->done += reply;
        if (!load->stop)
                call(c);
}

/* A callback that comes when none was due is counted, and kept from doing harm. */
static bool due(struct load *load, bool *expected) {
        bool was = *expected;
        *expected = false;
        load->unexpected += !was;
        return was;
}

static void command_answered(lessor_async_db *db, redisReply *reply, const lessor_error *error, void *data) {
        struct caller *c = data;
        if (due(c->load, &c->expects))
                ended(c, reply && reply->type == REDIS_REPLY_INTEGER, error->may_have_run);
}

static void context_ended(const redisAsyncContext *ac, int status) {
        struct caller *c = ac->data;
        due(c->load, &c->expects_end);
}

static void lease_answered(redisAsyncContext *ac, void *reply, void *data) {
        struct caller *c = data;

        if (!due(c->load, &c->expects_reply))
                return;
        if (reply)
                lessor_async_release(ac);
        ended(c, reply && ((redisReply *)reply)->type == REDIS_REPLY_INTEGER, true);
}

static void lease_granted(lessor_async_db *db, redisAsyncContext *ac, const lessor_error *error, void *data) {
        struct caller *c = data;

        if (!due(c->load, &c->expects))
                return;
        if (!ac) {
                ended(c, false, error->may_have_run);
                return;
        }
        /* The last context's end may be told after the callback in which it was released. */
        c->load->unexpected += c->expects_end;
        ac->data = c;
        redisAsyncSetDisconnectCallback(ac, context_ended);
        c->expects_end = c->expects_reply = true;
        if (redisAsyncCommand(ac, lease_answered, c, "INCR count") != REDIS_OK)
                c->load->unexpected++;
}

static void call(struct caller *c) {
        struct load *load = c->load;
        int r;

        c->expects = true;
        load->begun++;
        r = c->leases ? lessor_async_acquire(load->loop.db, LESSOR_WAIT_CONFIGURED, lease_granted, c)
                      : lessor_async_command(load->loop.db, command_answered, c, "INCR count");
        load->unexpected += r != 0;
}

static void *load_thread(void *arg) {
        struct load *load = arg;

        load->good = loop_try_start(&load->loop, load->kind, load->l);
        for (unsigned i = 0; load->good && i < CALLERS; i++) {
                load->callers[i] = (struct caller){.load = load, .leases = i < LEASING};
                call(&load->callers[i]);
        }
        loop_run(&load->loop); /* ends by itself when nobody calls again */
        load->good = load->good && lessor_async_in_flight(load->loop.async) == 0;
        loop_end(&load->loop);
        return NULL;
}

static void load_start(struct load *load, const struct loop_kind *kind, lessor *l) {
        *load = (struct load){.kind = kind, .l = l};
        check_eq(pthread_create(&load->thread, NULL, load_thread, load), 0);
}

static void check_moves(struct load *load) {
        uint64_t done = load->done;
        check_soon(load->done >= done + MOVES, WAIT_MS);
}

static void load_stop(struct load *load) {
        load->stop = true;
        check_soon(load->ended == load->begun, WAIT_MS);
        pthread_join(load->thread, NULL);
        check(load->good);
        check_eq(load->unexpected, 0);
        check_eq(load->ended, load->begun);
        for (unsigned i = 0; i < CALLERS; i++) {
                const struct caller *c = &load->callers[i];
                check(!c->expects && !c->expects_reply && !c->expects_end);
        }
}

static void a_broker_killed_under_load(const struct loop_kind *kind) {
        struct load *load = calloc(1, sizeof(*load));
        struct host h;
        long long count;

        host_start(&h, "max_connections: 8, wait_timeout: 20s");
        lessor *l = client_open(&h.broker);
        load_start(load, kind, l);
        for (unsigned i = 0; i < 5; i++) {
                check_moves(load);
                broker_kill(&h.broker);
                broker_relaunch(&h.broker);
        }
        check_moves(load);
        load_stop(load);
        /* What was answered has run, what may have run may, and nothing else. */
        count = redis_integer(&h.redis, "GET count");
        check_msg(count >= (long long)load->replies && count <= (long long)(load->replies + load->maybe),
                  "%lld ran; %llu were answered, %llu more may have run", count, (unsigned long long)load->replies,
                  (unsigned long long)load->maybe);
        lessor_close(l);
        free(load);
        host_end(&h);
}
TEST_LOOPS(async_weather, a_broker_killed_under_load)

static void redis_killed_under_load(const struct loop_kind *kind) {
        struct load *load = calloc(1, sizeof(*load));
        struct host h;

        host_start(&h, "max_connections: 8, wait_timeout: 20s");
        lessor *l = client_open(&h.broker);
        load_start(load, kind, l);
        for (unsigned i = 0; i < 3; i++) {
                check_moves(load);
                redis_kill(&h.redis);
                redis_restart(&h.redis);
        }
        check_moves(load);
        load_stop(load);
        lessor_close(l);
        free(load);
        host_end(&h);
}
TEST_LOOPS(async_weather, redis_killed_under_load)

static void both_killed_under_load(const struct loop_kind *kind) {
        struct load *load = calloc(1, sizeof(*load));
        struct host h;

        host_start(&h, "max_connections: 8, wait_timeout: 20s");
        lessor *l = client_open(&h.broker);
        load_start(load, kind, l);
        for (unsigned i = 0; i < 2; i++) {
                check_moves(load);
                broker_kill(&h.broker);
                redis_kill(&h.redis);
                redis_restart(&h.redis);
                broker_relaunch(&h.broker);
                check_moves(load);
                redis_kill(&h.redis);
                broker_kill(&h.broker);
                redis_restart(&h.redis);
                broker_relaunch(&h.broker);
        }
        check_moves(load);
        load_stop(load);
        lessor_close(l);
        free(load);
        host_end(&h);
}
TEST_LOOPS(async_weather, both_killed_under_load)

/* ---- freed in the midst of it --------------------------------------------------------------------------------------------- */

struct midst {
        struct loop *loop;
        struct answers answers;
        unsigned free_at;
};

static void free_in_callback(lessor_async_db *db, redisReply *reply, const lessor_error *error, void *data) {
        struct midst *m = data;

        answer_command(db, reply, error, &m->answers);
        if (answers_total(&m->answers) == m->free_at)
                loop_free_async(m->loop);
}

static void freed_in_a_callback_everything_is_called_back_once(const struct loop_kind *kind) {
        enum { COMMANDS = 10000 };
        struct loop loop;
        struct host h;

        host_start(&h, "max_connections: 8, wait_timeout: 20s");
        lessor *l = client_open(&h.broker);
        for (unsigned i = 0; i < 5; i++) {
                struct midst m = {.loop = &loop, .free_at = 1 + i * 100};
                struct answers leases = {0};
                loop_start(&loop, kind, l);
                for (unsigned k = 0; k < COMMANDS; k++) {
                        check_eq(lessor_async_command(loop.db, free_in_callback, &m, "INCR count"), 0);
                        check_eq(k % 100 ? 0 : lessor_async_acquire(loop.db, WAIT_MS, answer_lease, &leases), 0);
                }
                loop_run(&loop);
                check(!loop.async);
                check_eq(answers_total(&m.answers), COMMANDS);
                /* Those that were answered already are told so. */
                check_msg(m.answers.errors == 0 || m.answers.last.code == LESSOR_E_CANCELLED, "%s",
                          m.answers.last.text);
                check_eq(answers_total(&leases), COMMANDS / 100);
                loop_end(&loop);
        }
        lessor_close(l);
        host_end(&h);
}
TEST_LOOPS(async_weather, freed_in_a_callback_everything_is_called_back_once)

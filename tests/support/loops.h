/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Event loops for tests of lessor/async.h: the same test runs on libevent, libev and libuv, each by its adapter.
 *
 *      static void commands_are_answered(const struct loop_kind *kind) {
 *              struct loop loop;
 *              ...
 *              loop_start(&loop, kind, l);
 *              check_eq(lessor_async_command(loop.db, got, &n, "PING"), 0);
 *              loop_run(&loop);                // until nothing is under way
 *              loop_end(&loop);
 *      }
 *      TEST_LOOPS(async, commands_are_answered)
 */
#include <lessor/async.h>

#include "check.h"

/* A loop's own way: each in a file to itself, because their headers do not go together. */
struct loop_kind {
        const char *name;
        void *(*make)(void);
        int (*attach)(void *base, lessor_async *);
        void (*run)(void *base);  /* until nothing is under way */
        void (*turn)(void *base); /* once, waiting for something to happen */
        void (*destroy)(void *base);
};
extern const struct loop_kind loop_libevent, loop_libev, loop_libuv;

struct loop {
        const struct loop_kind *kind;
        void *base;
        lessor_async *async;
        lessor_async_db *db; /* main */
};

bool loop_try_start(struct loop *, const struct loop_kind *, lessor *); /* false: of no use, for children and threads */
void loop_start(struct loop *, const struct loop_kind *, lessor *);
void loop_run(struct loop *);
void loop_turn(struct loop *);
void loop_free_async(struct loop *); /* the lessor_async alone; loop_end() does the rest */
void loop_end(struct loop *);

#define TEST_LOOP(suite, function, kind)                                                                               \
        TEST_WITH(suite, function##_on_##kind, .timeout = 120) { function(&loop_##kind); }
#define TEST_LOOPS(suite, function)                                                                                    \
        TEST_LOOP(suite, function, libevent)                                                                           \
        TEST_LOOP(suite, function, libev)                                                                              \
        TEST_LOOP(suite, function, libuv)

/* What came of some number of calls: hand it in as `data`, and answer_command() and the others as callbacks. */
struct answers {
        unsigned replies;  /* and no error of Redis */
        unsigned refused;  /* errors of Redis */
        unsigned errors;   /* ours */
        unsigned ran;      /* of these: may have run */
        lessor_error last; /* of ours */
};
void answer_command(lessor_async_db *, redisReply *, const lessor_error *, void *answers);
/* A lease: INCR `leased`, answered, and released. */
void answer_lease(lessor_async_db *, redisAsyncContext *, const lessor_error *, void *answers);
static inline unsigned answers_total(const struct answers *a) { return a->replies + a->refused + a->errors; }

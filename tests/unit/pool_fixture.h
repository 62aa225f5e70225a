/* SPDX-License-Identifier: MIT */
#pragma once
/* A pool without an owner: the tests report what happened, and look at what it wants done. */
#include <errno.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "pool/pool.h"
#include "support/check.h"

#define MAX 3U
#define WAITERS 64U

static _unused_ struct pool pool;
static _unused_ struct pool_waiter waiters[WAITERS];
static _unused_ struct pool_account account;
static _unused_ uint64_t now;

static inline void setup(void) {
        const struct pool_limits limits = {.max_connections = MAX,
                                           .max_waiters = WAITERS,
                                           .retry_base_ns = 2 * NS_PER_S,
                                           .retry_max_ns = 30 * NS_PER_S,
                                           .retry_attempts = 5};
        now = 1000 * NS_PER_S;
        account = (struct pool_account){0};
        check_eq(pool_init(&pool, &limits, 0, now), 0);
}

static inline void teardown(void) { pool_deinit(&pool); }

#define POOL_TEST(name) TEST_WITH(pool, name, .init = setup, .fini = teardown, .timeout = 60)

/* What must hold after whatever happens. */
static inline void check_sound(void) {
        unsigned total = 0, queued = 0;
        for (unsigned state = 0; state < CONN_STATES; state++) {
                unsigned n = 0;
                list_for_each (&pool.by_state[state], it) {
                        check_eq(((struct pool_conn *)(void *)it)->state, state);
                        n++;
                }
                check_eq(n, pool.count[state]);
                total += n;
        }
        check_eq(total, MAX);
        check(pool_open(&pool) <= MAX);
        list_for_each (&pool.queue, it)
                queued += it != NULL;
        check_eq(queued, pool.waiting);
        check(pool.giving_up <= pool.waiting);
        check_eq(account.waiting, pool.waiting);
        check_eq(account.leased, pool.count[CONN_LEASED]);
        check(pool.wanted <= pool.count[CONN_LEASED]);
}

static inline bool is_about_words(const struct pool_action *action) {
        return action->type == POOL_RECALL || action->type == POOL_UNWANT;
}

/* The next action, whatever it is. */
static inline struct pool_action next_of_all(void) {
        struct pool_action action = pool_next(&pool, now);
        check_sound();
        return action;
}

/* Of those that move connections: here a recalled one is always held, and comes back when its holder says so. */
static inline struct pool_action next(void) {
        struct pool_action action;
        do
                action = next_of_all();
        while (is_about_words(&action));
        return action;
}

static inline struct pool_action expect(enum pool_action_type type) {
        struct pool_action action = next();
        check_eq(action.type, type);
        return action;
}

static inline int lease(struct pool_waiter *waiter, uint64_t session) {
        waiter->session = session;
        waiter->account = &account;
        return pool_lease(&pool, waiter, now);
}

static inline void ask(unsigned i) { check_eq(lease(&waiters[i], 100 + i), 0); }

static inline struct pool_conn *dial_one(unsigned waiter) {
        ask(waiter);
        struct pool_conn *conn = expect(POOL_DIAL).conn;
        pool_dialled(&pool, conn, now);
        return conn;
}

/* A connection leased to waiter i. */
static inline struct pool_conn *lease_one(unsigned i) {
        dial_one(i);
        struct pool_action action = expect(POOL_GRANT);
        check(action.waiter == &waiters[i]);
        return action.conn;
}

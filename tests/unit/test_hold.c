/* SPDX-License-Identifier: MIT */
/* A pool that an operator holds: nothing is granted, dialled, checked or counted against the server, until it goes on. */
#include "base/clock.h"
#include "pool/pool.h"
#include "support/check.h"

#define MAX 3U

static struct pool pool;
static struct pool_waiter waiters[8];
static struct pool_account account;
static uint64_t now;

static void setup(void) {
        const struct pool_limits limits = {
                .max_connections = MAX,
                .max_waiters = 4,
                .retry_base_ns = 2 * NS_PER_S,
                .retry_max_ns = 30 * NS_PER_S,
                .retry_attempts = 1,
                .breaker = {.failures = 1, .open_ns = 60 * NS_PER_S, .early_probe = true},
                .upkeep = {.health_ns = 30 * NS_PER_S, .idle_ns = 300 * NS_PER_S, .sweep_ns = 60 * NS_PER_S}};
        now = 1000 * NS_PER_S;
        check_eq(pool_init(&pool, &limits, 0, now), 0);
        account = (struct pool_account){0};
        for (unsigned i = 0; i < 8; i++)
                waiters[i] = (struct pool_waiter){.account = &account, .session = i};
}

static void teardown(void) { pool_deinit(&pool); }

#define HOLD_TEST(name) TEST_WITH(hold, name, .init = setup, .fini = teardown, .timeout = 60)

static struct pool_action expect(enum pool_action_type type) {
        struct pool_action action = pool_next(&pool, now);
        check_eq(action.type, type);
        return action;
}

static void ask(unsigned i) { check_eq(pool_lease(&pool, &waiters[i], now), 0); }

static struct pool_conn *lease_one(unsigned i) {
        ask(i);
        pool_dialled(&pool, expect(POOL_DIAL).conn, now);
        return expect(POOL_GRANT).conn;
}

static struct pool_conn *free_one(void) {
        struct pool_conn *conn = lease_one(0);
        pool_return(&pool, conn, POOL_RETURN_CLEAN, now);
        return conn;
}

HOLD_TEST(a_paused_pool_grants_nothing_and_dials_for_nobody) {
        check(free_one());
        pool_hold(&pool, POOL_PAUSED, now);
        ask(1);
        ask(2);
        expect(POOL_NOTHING);
        now += 3600 * NS_PER_S;
        pool_closed(&pool, expect(POOL_CLOSE).conn, now); /* idle for longer than idle_timeout: that goes on */
        expect(POOL_NOTHING);
        check_eq(pool.waiting, 2);
        pool_hold(&pool, POOL_SERVING, now);
        expect(POOL_DIAL);
}

HOLD_TEST(what_is_free_is_granted_in_order_when_it_goes_on) {
        struct pool_conn *conn = free_one();
        pool_hold(&pool, POOL_PAUSED, now);
        ask(1);
        ask(2);
        pool_hold(&pool, POOL_SERVING, now);
        struct pool_action action = expect(POOL_GRANT);
        check(action.conn == conn && action.waiter == &waiters[1]);
        expect(POOL_DIAL);
}

HOLD_TEST(what_is_leased_is_asked_for_and_may_be_kept_once_it_goes_on) {
        struct pool_conn *conn = lease_one(0);
        expect(POOL_NOTHING);
        pool_hold(&pool, POOL_PAUSED, now);
        check(expect(POOL_RECALL).conn == conn);
        expect(POOL_NOTHING);
        pool_hold(&pool, POOL_SERVING, now);
        check(expect(POOL_UNWANT).conn == conn);
        expect(POOL_NOTHING);
}

HOLD_TEST(the_queue_has_its_bound_and_no_place_counts) {
        free_one();
        pool_hold(&pool, POOL_PAUSED, now);
        for (unsigned i = 0; i < 4; i++)
                ask(i);
        check_eq(pool_lease(&pool, &waiters[4], now), LESSOR_E_EXHAUSTED);
}

HOLD_TEST(the_servers_end_meanwhile_trips_nothing) {
        lease_one(0);
        pool_return(&pool, lease_one(1), POOL_RETURN_CLEAN, now);
        ask(2);
        ask(3);
        expect(POOL_GRANT);
        struct pool_conn *fresh = expect(POOL_DIAL).conn;
        pool_cancel(&pool, &waiters[3]);
        pool_dialled(&pool, fresh, now);
        pool_hold(&pool, POOL_PAUSED, now);
        check(!fresh->left);
        pool_lost(&pool, fresh, now);
        check_eq(pool.breaker.state, BREAKER_CLOSED);
        check_eq(pool.breaker.failures, 0);
}

HOLD_TEST(who_waits_is_told_nothing_of_a_dial_that_fails_meanwhile) {
        ask(0);
        struct pool_conn *conn = expect(POOL_DIAL).conn;
        pool_hold(&pool, POOL_PAUSED, now);
        pool.breaker.limits.failures = 100;
        pool_dial_failed(&pool, conn, LESSOR_E_UPSTREAM, now, 0);
        expect(POOL_NOTHING);
        check_eq(pool.waiting, 1);
        pool_hold(&pool, POOL_SERVING, now);
        now += NS_PER_S;
        expect(POOL_DIAL);
        check_eq(pool.waiting, 1);
}

HOLD_TEST(nothing_is_checked_meanwhile_and_all_that_is_due_afterwards) {
        free_one();
        pool_hold(&pool, POOL_PAUSED, now);
        now += 40 * NS_PER_S;
        expect(POOL_NOTHING);
        check(!pool_suspect(&pool, now) || pool_next(&pool, now).type == POOL_NOTHING);
        pool.suspicious = false;
        pool_hold(&pool, POOL_SERVING, now);
        expect(POOL_CHECK);
}

HOLD_TEST(a_drained_pool_closes_what_is_free_now_and_what_is_leased_as_it_comes_back) {
        struct pool_conn *held = lease_one(0), *idle = lease_one(1);
        pool_return(&pool, idle, POOL_RETURN_CLEAN, now);
        pool_hold(&pool, POOL_DRAINED, now);
        check(expect(POOL_CLOSE).conn == idle);
        pool_closed(&pool, idle, now);
        check(expect(POOL_RECALL).conn == held);
        pool_return(&pool, held, POOL_RETURN_CLEAN, now);
        check(expect(POOL_CLOSE).conn == held);
        pool_closed(&pool, held, now);
        ask(2);
        expect(POOL_NOTHING);
        check_eq(pool_open(&pool), 0);
        check_eq(pool.stats.discards[POOL_DISCARD_OUTDATED], 2);
        pool_hold(&pool, POOL_SERVING, now);
        expect(POOL_DIAL);
}

HOLD_TEST(a_dial_under_way_when_it_is_drained_comes_to_nothing) {
        ask(0);
        struct pool_conn *conn = expect(POOL_DIAL).conn;
        pool_hold(&pool, POOL_DRAINED, now);
        pool_dialled(&pool, conn, now);
        check(expect(POOL_CLOSE).conn == conn);
        pool_closed(&pool, conn, now);
        expect(POOL_NOTHING);
        check_eq(pool_open(&pool), 0);
}

HOLD_TEST(an_open_breaker_is_not_probed_meanwhile_and_refuses) {
        ask(0);
        pool_dial_failed(&pool, expect(POOL_DIAL).conn, LESSOR_E_UPSTREAM, now, 0);
        check_eq(pool.breaker.state, BREAKER_OPEN);
        check_eq(expect(POOL_FAIL).outcome, LESSOR_E_BREAKER_OPEN);
        pool_hold(&pool, POOL_PAUSED, now);
        now += 3600 * NS_PER_S;
        check_eq(pool_lease(&pool, &waiters[1], now), LESSOR_E_BREAKER_OPEN);
        expect(POOL_NOTHING);
        pool_hold(&pool, POOL_SERVING, now);
        expect(POOL_DIAL);
}

HOLD_TEST(lanes_give_their_connections_back_and_get_them_again) {
        pool_want_lanes(&pool, 1);
        struct pool_conn *conn = expect(POOL_DIAL).conn;
        pool_dialled(&pool, conn, now);
        check(expect(POOL_LANE).conn == conn);
        pool_hold(&pool, POOL_PAUSED, now);
        check(expect(POOL_DRAIN).conn == conn);
        pool_lane_done(&pool, conn, POOL_LANE_FREE, now, 0);
        expect(POOL_NOTHING);
        pool_hold(&pool, POOL_SERVING, now);
        check(expect(POOL_LANE).conn == conn);
}

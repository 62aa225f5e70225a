/* SPDX-License-Identifier: MIT */
/* The pool in bad weather: its breaker, dials, health checks and idle connections. The clock is a number. */
#include "base/clock.h"
#include "pool/pool.h"
#include "support/check.h"

#define MAX 3U

static struct pool pool;
static struct pool_waiter waiters[2 * RATE_MAX];
static struct pool_account account;
static uint64_t now;

static void setup_sized(unsigned max) {
        const struct pool_limits limits = {
                .max_connections = max,
                .max_waiters = 1000,
                .retry_base_ns = 2 * NS_PER_S,
                .retry_max_ns = 30 * NS_PER_S,
                .retry_attempts = 5,
                .breaker = {.failures = 5, .open_ns = 60 * NS_PER_S, .early_probe = true},
                .upkeep = {.health_ns = 30 * NS_PER_S, .idle_ns = 300 * NS_PER_S, .sweep_ns = 60 * NS_PER_S}};
        now = 1000 * NS_PER_S;
        check_eq(pool_init(&pool, &limits, 0, now), 0);
        account = (struct pool_account){0};
        for (unsigned i = 0; i < sizeof(waiters) / sizeof(waiters[0]); i++)
                waiters[i].account = &account;
}

static void setup(void) { setup_sized(MAX); }
static void teardown(void) { pool_deinit(&pool); }

#define WEATHER_TEST(name) TEST_WITH(weather, name, .init = setup, .fini = teardown, .timeout = 60)

/* Who holds what is asked for it back: not this test's matter. */
static struct pool_action next(void) {
        struct pool_action action;
        do
                action = pool_next(&pool, now);
        while (action.type == POOL_RECALL || action.type == POOL_UNWANT);
        return action;
}

static struct pool_action expect(enum pool_action_type type) {
        struct pool_action action = next();
        check_eq(action.type, type);
        return action;
}

static void ask(unsigned i) { check_eq(pool_lease(&pool, &waiters[i], now), 0); }

/* A connection that nobody has held yet. */
static struct pool_conn *dial_free(void) {
        ask(0);
        struct pool_conn *conn = expect(POOL_DIAL).conn;
        pool_cancel(&pool, &waiters[0]);
        pool_dialled(&pool, conn, now);
        return conn;
}

static struct pool_conn *lease(unsigned i) {
        ask(i);
        struct pool_action action;
        while ((action = next()).type != POOL_GRANT) {
                if (action.type == POOL_CHECK)
                        pool_checked(&pool, action.conn, POOL_CHECK_ANSWERED, now, 0);
                else if (action.type == POOL_CLOSE)
                        pool_closed(&pool, action.conn, now);
                else
                        pool_dialled(&pool, action.conn, now);
        }
        return action.conn;
}

static void fail_next_dial(int outcome) {
        struct pool_action action;
        while ((action = next()).type == POOL_NOTHING)
                now = pool_wakeup(&pool); /* or for a sweep */
        check_eq(action.type, POOL_DIAL);
        pool_dial_failed(&pool, action.conn, outcome, now, 0);
}

static void trip(void) {
        for (unsigned i = 0; i < 5; i++)
                fail_next_dial(LESSOR_E_UPSTREAM);
        check_eq(pool.breaker.state, BREAKER_OPEN);
}

/* ---- the breaker --------------------------------------------------------------------------------------------------- */

WEATHER_TEST(when_it_opens_all_who_wait_fail_at_once_and_nobody_joins_them) {
        for (unsigned i = 0; i < 3; i++)
                ask(i);
        for (unsigned i = 0; i < 3; i++)
                pool.limits.retry_attempts = 1000; /* it is the breaker that tells them */
        struct pool_conn *conns[3];
        for (unsigned i = 0; i < 3; i++)
                conns[i] = expect(POOL_DIAL).conn;
        for (unsigned i = 0; i < 3; i++)
                pool_dial_failed(&pool, conns[i], LESSOR_E_UPSTREAM, now, 0); /* together: once */
        for (unsigned i = 0; i < 4; i++)
                fail_next_dial(LESSOR_E_UPSTREAM);
        for (unsigned i = 0; i < 3; i++) {
                struct pool_action action = expect(POOL_FAIL);
                check(action.waiter == &waiters[i]);
                check_eq(action.outcome, LESSOR_E_BREAKER_OPEN);
        }
        expect(POOL_NOTHING);
        check_eq(pool_lease(&pool, &waiters[0], now), LESSOR_E_BREAKER_OPEN);
        char reason[LESSOR_STATUS_TEXT_SIZE];
        check_eq(pool_health(&pool, "refused", "", reason), LESSOR_HEALTH_FAILED);
        check(strstr(reason, "breaker") && strstr(reason, "refused"));
}

WEATHER_TEST(an_open_breaker_is_probed_though_nobody_asks_and_one_success_lets_all_in_again) {
        char reason[LESSOR_STATUS_TEXT_SIZE];
        ask(0);
        trip();
        expect(POOL_FAIL);
        check(pool_wakeup(&pool) > now && pool_wakeup(&pool) <= now + 30 * NS_PER_S);
        now = pool_wakeup(&pool);
        struct pool_conn *probe = expect(POOL_DIAL).conn;
        expect(POOL_NOTHING); /* one */
        check_eq(pool.breaker.state, BREAKER_HALF_OPEN);
        check_eq(pool_health(&pool, "refused", "", reason), LESSOR_HEALTH_DEGRADED);
        check_eq(pool_lease(&pool, &waiters[0], now), LESSOR_E_BREAKER_OPEN);
        pool_dialled(&pool, probe, now);
        check_eq(pool_health(&pool, "refused", "", reason), LESSOR_HEALTH_HEALTHY);
        lease(0);
}

WEATHER_TEST(a_failed_probe_opens_it_again_and_the_open_time_bounds_the_pause) {
        ask(0);
        trip();
        expect(POOL_FAIL);
        for (unsigned i = 0; i < 20; i++) {
                uint64_t pause = pool_wakeup(&pool) - now;
                check(pause <= 60 * NS_PER_S);
                fail_next_dial(LESSOR_E_UPSTREAM);
                check_eq(pool.breaker.state, BREAKER_OPEN);
        }
        check_eq(pool.breaker.trips, 1);
}

WEATHER_TEST(a_dial_from_before_the_trip_that_fails_late_does_not_hide_the_probes_own_end) {
        ask(0);
        ask(1);
        struct pool_conn *slow = expect(POOL_DIAL).conn, *fast = expect(POOL_DIAL).conn;
        now++;
        pool_dial_failed(&pool, fast, LESSOR_E_UPSTREAM, now, 0);
        pool_cancel(&pool, &waiters[1]);
        pool.breaker.failures = 5;
        pool.limits.retry_attempts = 1000;
        breaker_fail(&pool.breaker, pool.breaker.epoch, NS_PER_S, now);
        expect(POOL_FAIL);
        now = pool_wakeup(&pool);
        struct pool_conn *probe = expect(POOL_DIAL).conn;
        now++;
        pool_dial_failed(&pool, slow, LESSOR_E_UPSTREAM, now, 0);
        check_eq(pool.breaker.state, BREAKER_HALF_OPEN);
        pool_dial_failed(&pool, probe, LESSOR_E_UPSTREAM, now, 0);
        check_eq(pool.breaker.state, BREAKER_OPEN);
}

static void check_never_trips(int outcome) {
        for (unsigned i = 0; i < 50; i++) {
                if (!pool.waiting && now >= pool.next_dial)
                        ask(0);
                fail_next_dial(outcome);
                while (next().type == POOL_FAIL)
                        ;
        }
        check_eq(pool.breaker.trips, 0);
        check_eq(pool.breaker.failures, 0);
}

WEATHER_TEST(wrong_credentials_never_trip_it) { check_never_trips(LESSOR_E_CREDENTIALS); }
WEATHER_TEST(loading_never_trips_it) { check_never_trips(LESSOR_E_LOADING); }
WEATHER_TEST(a_full_server_never_trips_it) { check_never_trips(LESSOR_E_EXHAUSTED); }

WEATHER_TEST(exhaustion_and_deadlines_never_trip_it) {
        for (unsigned i = 0; i < MAX; i++)
                lease(i);
        for (unsigned n = 0; n < 100; n++) {
                ask(10);
                expect(POOL_NOTHING);
                pool_cancel(&pool, &waiters[10]);
        }
        check_eq(pool.breaker.failures, 0);
}

WEATHER_TEST(a_full_server_does_not_turn_away_those_whom_a_returned_connection_can_serve) {
        struct pool_conn *conn = lease(0);
        ask(1);
        for (unsigned i = 0; i < 12; i++)
                fail_next_dial(LESSOR_E_EXHAUSTED);
        expect(POOL_NOTHING);
        pool_return(&pool, conn, POOL_RETURN_CLEAN, now);
        check(expect(POOL_GRANT).waiter == &waiters[1]);
}

WEATHER_TEST(a_server_that_loads_for_more_than_a_minute_keeps_nobody_waiting) {
        ask(0);
        for (unsigned i = 0; i <= 60; i++)
                fail_next_dial(LESSOR_E_LOADING);
        check_eq(expect(POOL_FAIL).outcome, LESSOR_E_LOADING);
        check_eq(pool_lease(&pool, &waiters[0], now), LESSOR_E_LOADING);
}

WEATHER_TEST(a_probe_that_meets_a_loading_server_closes_the_breaker) {
        ask(0);
        trip();
        expect(POOL_FAIL);
        fail_next_dial(LESSOR_E_LOADING);
        check_eq(pool.breaker.state, BREAKER_CLOSED);
        ask(0); /* and waits for it */
}

WEATHER_TEST(idle_connections_lost_together_are_one_failure_and_what_a_worker_held_is_none) {
        struct pool_conn *held = lease(0), *conns[2];
        for (unsigned i = 0; i < 2; i++) {
                ask(1 + i);
                conns[i] = expect(POOL_DIAL).conn;
        }
        for (unsigned i = 0; i < 2; i++) {
                pool_cancel(&pool, &waiters[1 + i]);
                pool_dialled(&pool, conns[i], now);
        }
        pool_return(&pool, held, POOL_RETURN_CLEAN, now);
        now++;
        pool_lost(&pool, held, now);
        check_eq(pool.breaker.failures, 0);
        pool_lost(&pool, conns[0], now);
        pool_lost(&pool, conns[1], now);
        check_eq(pool.breaker.failures, 1);
}

WEATHER_TEST(dialling_goes_on_after_a_failure_though_nobody_waits_any_more) {
        ask(0);
        fail_next_dial(LESSOR_E_UPSTREAM);
        pool_cancel(&pool, &waiters[0]);
        now = pool_wakeup(&pool);
        pool_dialled(&pool, expect(POOL_DIAL).conn, now);
        check_eq(pool.trouble, 0);
        expect(POOL_NOTHING);
}

/* ---- the rate of dials ---------------------------------------------------------------------------------------------- */

TEST(weather, no_more_dials_are_begun_in_a_tenth_of_a_second_than_the_limit) {
        unsigned begun = 0;
        setup_sized(2 * RATE_MAX);
        for (unsigned i = 0; i < 2 * RATE_MAX; i++)
                ask(i);
        while (next().type == POOL_DIAL)
                begun++;
        check_eq(begun, RATE_MAX);
        check_eq(pool_wakeup(&pool), now + RATE_WINDOW_NS);
        now += RATE_WINDOW_NS;
        while (next().type == POOL_DIAL)
                begun++;
        check_eq(begun, 2 * RATE_MAX);
        teardown();
}

/* ---- health checks -------------------------------------------------------------------------------------------------- */

WEATHER_TEST(an_idle_connection_is_checked_one_at_a_time_and_not_to_be_had_meanwhile) {
        struct pool_conn *first = dial_free();
        ask(0);
        expect(POOL_GRANT); /* of the first; a second is dialled */
        struct pool_conn *second = dial_free();
        pool_return(&pool, first, POOL_RETURN_CLEAN, now);
        expect(POOL_NOTHING);
        check_eq(pool_wakeup(&pool), now + 30 * NS_PER_S);
        now = pool_wakeup(&pool);
        struct pool_conn *checked = expect(POOL_CHECK).conn;
        check(checked == second); /* idle the longest */
        expect(POOL_NOTHING);
        pool_checked(&pool, checked, POOL_CHECK_ANSWERED, now, 0);
        check(expect(POOL_CHECK).conn == first);
        ask(0);
        check(expect(POOL_GRANT).conn == second);
        pool_checked(&pool, first, POOL_CHECK_QUIET, now, 0);
        expect(POOL_NOTHING);
        check_eq(pool_wakeup(&pool), now + 30 * NS_PER_S);
}

WEATHER_TEST(failed_checks_open_the_breaker_without_anybody_asking) {
        dial_free();
        now += 30 * NS_PER_S;
        pool_checked(&pool, expect(POOL_CHECK).conn, POOL_CHECK_FAILED, now, 0);
        expect(POOL_CLOSE); /* and looks at once whether a new one fares better */
        for (unsigned i = 0; i < 4; i++)
                fail_next_dial(LESSOR_E_UPSTREAM);
        check_eq(pool.breaker.state, BREAKER_OPEN);
}

WEATHER_TEST(ten_thousand_reports_a_second_are_one_look) {
        unsigned looks = 0;
        for (unsigned second = 0; second < 3; second++) {
                struct pool_conn *conn = second ? NULL : dial_free();
                for (unsigned i = 0; i < 10000; i++) {
                        pool_suspect(&pool, now);
                        struct pool_action action = next();
                        looks += action.type == POOL_CHECK;
                        if (action.type == POOL_CHECK)
                                pool_checked(&pool, action.conn, POOL_CHECK_ANSWERED, now, 0);
                }
                check(!conn || conn->state == CONN_FREE);
                now += NS_PER_S;
        }
        check_eq(looks, 3);
        check_eq(pool.breaker.failures, 0);
        check_eq(pool.count[CONN_FREE], 1);
}

/* ---- idleness and age ----------------------------------------------------------------------------------------------- */

/* Checks answered, what is closed forgotten; how many were closed. */
static unsigned live_on(uint64_t ns) {
        unsigned closed = 0;
        for (uint64_t end = now + ns; now < end; now = pool_wakeup(&pool) < end ? pool_wakeup(&pool) : end) {
                struct pool_action action;
                while ((action = next()).type != POOL_NOTHING) {
                        if (action.type == POOL_CHECK)
                                pool_checked(&pool, action.conn, POOL_CHECK_ANSWERED, now, 0);
                        if (action.type == POOL_CLOSE)
                                pool_closed(&pool, action.conn, now);
                        if (action.type == POOL_DIAL)
                                pool_dialled(&pool, action.conn, now);
                        closed += action.type == POOL_CLOSE;
                }
        }
        return closed;
}

static void free_many(unsigned n) {
        struct pool_conn *conns[MAX];
        for (unsigned i = 0; i < n; i++)
                conns[i] = lease(i);
        for (unsigned i = 0; i < n; i++)
                pool_return(&pool, conns[i], POOL_RETURN_CLEAN, now);
}

WEATHER_TEST(idle_connections_are_closed_and_the_pool_grows_again_at_need) {
        free_many(MAX);
        check_eq(live_on(299 * NS_PER_S), 0);
        check(pool.stats.checks > 0);
        check_eq(live_on(70 * NS_PER_S), MAX);
        check(pool.upkeep.last_sweep > 0);
        free_many(MAX);
        check_eq(pool.count[CONN_FREE], MAX);
        check_eq(pool.stats.reconnections, 0);
}

WEATHER_TEST(min_idle_is_dialled_for_and_kept) {
        pool.upkeep.limits.min_idle = 2;
        live_on(NS_PER_S);
        check_eq(pool.count[CONN_FREE], 2);
        free_many(MAX);
        check_eq(live_on(400 * NS_PER_S), 1);
        check_eq(pool.count[CONN_FREE], 2);
}

WEATHER_TEST(one_in_use_is_kept_while_its_neighbours_sink) {
        free_many(MAX);
        for (unsigned second = 0; second < 400; second += 10) {
                struct pool_conn *conn = lease(0);
                pool_return(&pool, conn, POOL_RETURN_CLEAN, now);
                live_on(10 * NS_PER_S);
        }
        check_eq(pool.count[CONN_FREE], 1);
}

WEATHER_TEST(old_connections_are_retired_one_after_the_other) {
        uint64_t last = 0;
        pool.upkeep.limits.lifetime_ns = 100 * NS_PER_S;
        free_many(MAX);
        for (unsigned i = 0; i < MAX; i++)
                pool_retire_at(&pool, &pool.conns[i], now + 10 * NS_PER_S);
        for (unsigned i = 0; i < MAX; i++) {
                now = pool_wakeup(&pool);
                pool_closed(&pool, expect(POOL_CLOSE).conn, now);
                check(now - last >= 50 * NS_PER_MS);
                last = now;
        }
        check_eq(pool.stats.discards[POOL_DISCARD_AGE], MAX);
}

TEST(weather, a_lifetime_is_shortened_by_chance_within_its_last_tenth) {
        struct upkeep u = {.limits = {.lifetime_ns = 100 * NS_PER_S}};
        check_eq(upkeep_retirement(&u, 0, 0), 90 * NS_PER_S);
        check_eq(upkeep_retirement(&u, 0, 10 * NS_PER_S), 100 * NS_PER_S);
        u.limits.lifetime_ns = 0;
        check_eq(upkeep_retirement(&u, 0, 0), TIME_NEVER);
}

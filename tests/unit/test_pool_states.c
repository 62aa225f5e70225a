/* SPDX-License-Identifier: MIT */
/* Every state meets every event; and a long random life. */
#include "unit/pool_fixture.h"

/* ---- state x event: a connection brought into each state meets each event that may come in it ---------------------- */

enum event {
        EVENT_DIALLED,
        EVENT_DIAL_FAILED,
        EVENT_RETURN_CLEAN,
        EVENT_RETURN_RESETTABLE,
        EVENT_RETURN_DIRTY,
        EVENT_RETURN_HOLDER,
        EVENT_LOST,
        EVENT_CLOSED,
        EVENT_RESET_DONE,
        EVENT_RESET_FAILED,
        EVENT_CHECK_ANSWERED,
        EVENT_CHECK_FAILED,
        EVENT_LANE_FREE,
        EVENT_LANE_LOST,
        EVENT_LANE_STALLED,
        EVENTS
};

#define NEVER CONN_STATES /* the owner never reports this in that state: pool_*() asserts it */

static const enum conn_state after[CONN_STATES][EVENTS] = {
#define N NEVER
        [CONN_VACANT] = {N, N, N, N, N, N, CONN_VACANT, N, N, N, N, N, N, N, N},
        [CONN_DIALLING] = {CONN_FREE, CONN_VACANT, N, N, N, N, CONN_DIALLING, N, N, N, N, N, N, N, N},
        [CONN_FREE] = {N, N, N, N, N, N, CONN_CLOSING, N, N, N, N, N, N, N, N},
        [CONN_LEASED] = {N, N, CONN_FREE, CONN_RESETTING, CONN_CLOSING, CONN_CLOSING, CONN_LEASED, N, N, N, N, N, N, N,
                         N},
        [CONN_RESETTING] = {N, N, N, N, N, N, CONN_CLOSING, N, CONN_FREE, CONN_CLOSING, N, N, N, N, N},
        [CONN_CLOSING] = {N, N, N, N, N, N, CONN_CLOSING, CONN_VACANT, N, N, N, N, N, N, N},
        [CONN_CHECKING] = {N, N, N, N, N, N, CONN_CLOSING, N, N, N, CONN_FREE, CONN_CLOSING, N, N, N},
        [CONN_LANE] = {N, N, N, N, N, N, CONN_LANE, N, N, N, N, N, CONN_FREE, CONN_CLOSING, CONN_CLOSING},
};

static struct pool_conn *bring_into(enum conn_state state) {
        struct pool_conn *conn = &pool.conns[0];
        if (state == CONN_VACANT)
                return conn;
        ask(0);
        conn = expect(POOL_DIAL).conn;
        if (state == CONN_DIALLING)
                return conn;
        pool_dialled(&pool, conn, now);
        if (state == CONN_FREE || state == CONN_CHECKING)
                pool_cancel(&pool, &waiters[0]);
        if (state == CONN_CHECKING) {
                check(pool_suspect(&pool, now));
                expect(POOL_CHECK);
        }
        if (state == CONN_FREE || state == CONN_CHECKING)
                return conn;
        if (state == CONN_LANE) {
                pool_cancel(&pool, &waiters[0]);
                pool_want_lanes(&pool, 1);
                expect(POOL_LANE);
                return conn;
        }
        expect(POOL_GRANT);
        if (state == CONN_LEASED)
                return conn;
        pool_return(&pool, conn, state == CONN_RESETTING ? POOL_RETURN_RESETTABLE : POOL_RETURN_DIRTY, now);
        expect(state == CONN_RESETTING ? POOL_RESET : POOL_CLOSE);
        return conn;
}

static void apply(enum event event, struct pool_conn *conn) {
        switch (event) {
        case EVENT_DIALLED:
                pool_dialled(&pool, conn, now);
                break;
        case EVENT_DIAL_FAILED:
                pool_dial_failed(&pool, conn, LESSOR_E_UPSTREAM, now, 0);
                break;
        case EVENT_RETURN_CLEAN:
                pool_return(&pool, conn, POOL_RETURN_CLEAN, now);
                break;
        case EVENT_RETURN_RESETTABLE:
                pool_return(&pool, conn, POOL_RETURN_RESETTABLE, now);
                break;
        case EVENT_RETURN_DIRTY:
                pool_return(&pool, conn, POOL_RETURN_DIRTY, now);
                break;
        case EVENT_RETURN_HOLDER:
                pool_return(&pool, conn, POOL_RETURN_HOLDER, now);
                break;
        case EVENT_LOST:
                pool_lost(&pool, conn, now);
                break;
        case EVENT_CLOSED:
                pool_closed(&pool, conn, now);
                break;
        case EVENT_RESET_DONE:
                pool_reset_done(&pool, conn, now);
                break;
        case EVENT_RESET_FAILED:
                pool_reset_failed(&pool, conn, now);
                break;
        case EVENT_CHECK_ANSWERED:
                pool_checked(&pool, conn, POOL_CHECK_ANSWERED, now, 0);
                break;
        case EVENT_CHECK_FAILED:
                pool_checked(&pool, conn, POOL_CHECK_FAILED, now, 0);
                break;
        case EVENT_LANE_FREE:
                pool_lane_done(&pool, conn, POOL_LANE_FREE, now, 0);
                break;
        case EVENT_LANE_LOST:
                pool_lane_done(&pool, conn, POOL_LANE_LOST, now, 0);
                break;
        case EVENT_LANE_STALLED:
                pool_lane_done(&pool, conn, POOL_LANE_STALLED, now, 0);
                break;
        case EVENTS:
                break;
        }
}

POOL_TEST(every_state_meets_every_event) {
        unsigned met = 0;
        for (unsigned state = 0; state < CONN_STATES; state++) {
                for (unsigned event = 0; event < EVENTS; event++) {
                        if (after[state][event] == NEVER)
                                continue;
                        struct pool_conn *conn = bring_into((enum conn_state)state);
                        check_eq(conn->state, state);
                        uint64_t generation = conn->generation;
                        apply((enum event)event, conn);
                        check_eq(conn->state, after[state][event]);
                        check_eq(conn->generation, generation);
                        check_sound();
                        met++;
                        teardown();
                        setup();
                }
        }
        check_eq(met, 22);
}

/* ---- a long random life: whatever the order of events, the books balance ------------------------------------------- */

static uint64_t random_state = 42;
static unsigned roll(unsigned n) {
        random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (unsigned)(random_state >> 33) % n;
}

static bool queued[WAITERS];

static void carry_out_all(void) {
        struct pool_action action;
        while ((action = next()).type != POOL_NOTHING) {
                if (action.type == POOL_GRANT || action.type == POOL_FAIL)
                        queued[action.waiter - waiters] = false;
                if (action.type == POOL_GRANT && roll(10) == 0) {
                        pool_ungrant(&pool, action.conn, action.waiter, POOL_DISCARD_LOST, now);
                        queued[action.waiter - waiters] = true;
                }
        }
}

static void random_event(void) {
        struct pool_conn *conn = &pool.conns[roll(MAX)];
        unsigned i = roll(WAITERS);
        switch (conn->state) {
        case CONN_DIALLING:
                apply(roll(3) ? EVENT_DIALLED : EVENT_DIAL_FAILED, conn);
                break;
        case CONN_LEASED:
                apply(EVENT_RETURN_CLEAN + roll(5), conn);
                break;
        case CONN_CLOSING:
                apply(EVENT_CLOSED, conn);
                break;
        case CONN_FREE:
                if (roll(4) == 0)
                        apply(EVENT_LOST, conn);
                break;
        case CONN_CHECKING:
                pool_checked(&pool, conn, (enum pool_check)roll(5), now, random_state);
                break;
        case CONN_RESETTING:
                apply(roll(4) ? EVENT_RESET_DONE : EVENT_RESET_FAILED + roll(2) * (EVENT_LOST - EVENT_RESET_FAILED),
                      conn);
                break;
        case CONN_LANE:
                if (conn->told || roll(20) == 0)
                        apply(EVENT_LANE_FREE + (roll(4) ? 0 : 1 + roll(2)), conn);
                break;
        case CONN_VACANT:
        case CONN_STATES:
                break;
        }
        if (roll(50) == 0)
                pool_suspect(&pool, now);
        if (roll(100) == 0)
                pool_want_lanes(&pool, roll(4) ? 0 : roll(4));
        if (!queued[i] && roll(2)) {
                queued[i] = lease(&waiters[i], i) == 0;
        } else if (queued[i] && roll(4) == 0) {
                pool_cancel(&pool, &waiters[i]);
                queued[i] = false;
        }
}

POOL_TEST(whatever_happens_the_books_balance) {
        const struct upkeep_limits upkeep = {.health_ns = NS_PER_S,
                                             .idle_ns = 2 * NS_PER_S,
                                             .sweep_ns = NS_PER_S,
                                             .lifetime_ns = 20 * NS_PER_S,
                                             .min_idle = 1};
        upkeep_init(&pool.upkeep, &upkeep, now);
        pool.breaker.limits = (struct breaker_limits){.failures = 3, .open_ns = 10 * NS_PER_S, .early_probe = true};
        for (unsigned step = 0; step < 200000; step++) {
                now += roll(1000) * NS_PER_MS;
                random_event();
                carry_out_all();
        }
        check(pool.stats.leases > 10000);
        check(pool.stats.failed > 1000);
        check(pool.breaker.trips > 100);
        check(pool.stats.checks > 1000);
        check(pool.stats.discards[POOL_DISCARD_IDLE] > 0);
        check(pool.stats.resets > 1000);
        check(pool.stats.discards[POOL_DISCARD_RESET] > 100);
        check(pool.stats.discards[POOL_DISCARD_LANE] > 0);
}

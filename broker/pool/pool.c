/* SPDX-License-Identifier: MIT */
/*
 * One function, pool_move(), changes a connection's state and keeps lists and counts; it asserts that the step is in the
 * diagram of pool.h. The free list is a stack, so that connections not needed grow idle and can be closed; the queue is
 * first in, first out, and nobody is granted a connection who does not stand at its head.
 */
#include "pool.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/histogram.h"
#include "pool_internal.h"

/* Requirement 13: poll each second while Redis loads its data; after a minute nobody is kept waiting for it. */
#define LOADING_POLL_NS NS_PER_S
#define LOADING_MAX_NS (60 * NS_PER_S)
#define SUSPICION_NS NS_PER_S

/* The diagram: steps[from] has a bit for each state that may follow. */
static const unsigned steps[CONN_STATES] = {
        [CONN_VACANT] = 1U << CONN_DIALLING,
        [CONN_DIALLING] = 1U << CONN_FREE | 1U << CONN_VACANT,
        [CONN_FREE] = 1U << CONN_LEASED | 1U << CONN_CLOSING | 1U << CONN_CHECKING | 1U << CONN_LANE,
        [CONN_LEASED] = 1U << CONN_FREE | 1U << CONN_RESETTING | 1U << CONN_CLOSING,
        [CONN_RESETTING] = 1U << CONN_FREE | 1U << CONN_CLOSING,
        [CONN_CLOSING] = 1U << CONN_VACANT,
        [CONN_CHECKING] = 1U << CONN_FREE | 1U << CONN_CLOSING,
        [CONN_LANE] = 1U << CONN_FREE | 1U << CONN_CLOSING,
};

/* One just checked goes to the end: the stack's order, in which those not needed sink, is not the checks' to change. */
static void become_free(struct pool *pool, struct pool_conn *conn, enum conn_state from, uint64_t now) {
        if (pool_open(pool) > pool->limits.max_connections) { /* dialled for before the cap was made smaller */
                pool->draining = true;
                pool->upkeep.due = now;
        }
        if (from == CONN_CHECKING) {
                list_remove(&conn->link);
                list_push_back(&pool->by_state[CONN_FREE], &conn->link);
                pool->upkeep.due = now; /* others may have waited for this check */
                return;
        }
        conn->idle_since = conn->checked_at = now;
        if (conn->epoch != pool->epoch)
                pool->upkeep.due = now;
        upkeep_watch(&pool->upkeep, conn);
}

void pool_move(struct pool *pool, struct pool_conn *conn, enum conn_state to, uint64_t now) {
        enum conn_state from = conn->state;
        assert(steps[from] & 1U << to);
        list_remove(&conn->link);
        pool->count[conn->state]--;
        if (conn->state == CONN_LEASED) {
                pool->wanted -= conn->wanted;
                pool->pinned -= conn->pinned;
                conn->account->leased--;
        }
        conn->wanted = conn->pinned = false;
        conn->state = to;
        conn->since = now;
        list_push_front(&pool->by_state[to], &conn->link);
        pool->count[to]++;
        if (to == CONN_FREE)
                become_free(pool, conn, from, now);
        if (to == CONN_DIALLING) {
                conn->generation++;
                if (pool_open(pool) > pool->stats.peak_open)
                        pool->stats.peak_open = pool_open(pool);
        }
}

void pool_discard(struct pool *pool, struct pool_conn *conn, enum pool_discard why, uint64_t now) {
        pool->stats.discards[why]++;
        conn->told = false;
        conn->replacing = why != POOL_DISCARD_IDLE;
        conn->lost = why == POOL_DISCARD_LOST;
        pool_move(pool, conn, CONN_CLOSING, now);
}

static void begin_reset(struct pool *pool, struct pool_conn *conn, uint64_t now) {
        conn->told = false;
        pool_move(pool, conn, CONN_RESETTING, now);
}

int pool_init(struct pool *pool, const struct pool_limits *limits, uint64_t first_lease, uint64_t now) {
        unsigned places = limits->places > limits->max_connections ? limits->places : limits->max_connections;
        struct pool_conn *conns = calloc(places, sizeof(*conns));
        if (!conns)
                return -ENOMEM;
        *pool = (struct pool){.limits = *limits, .places = places, .conns = conns, .last_lease = first_lease};
        backoff_init(&pool->backoff, limits->retry_base_ns, limits->retry_max_ns);
        breaker_init(&pool->breaker, &limits->breaker);
        upkeep_init(&pool->upkeep, &limits->upkeep, now);
        list_init(&pool->queue);
        for (unsigned i = 0; i < CONN_STATES; i++)
                list_init(&pool->by_state[i]);
        for (unsigned i = 0; i < places; i++) {
                conns[i].slot = i;
                conns[i].since = now;
                list_push_back(&pool->by_state[CONN_VACANT], &conns[i].link);
        }
        pool->count[CONN_VACANT] = places;
        return 0;
}

void pool_deinit(struct pool *pool) {
        free(pool->conns);
        pool->conns = NULL;
}

unsigned pool_vacancies(const struct pool *pool) {
        unsigned open = pool_open(pool);
        return open < pool->limits.max_connections ? pool->limits.max_connections - open : 0;
}

unsigned pool_coming(const struct pool *pool) {
        return pool->count[CONN_DIALLING] + pool->count[CONN_RESETTING] + pool->count[CONN_CHECKING];
}

int pool_lease(struct pool *pool, struct pool_waiter *waiter, uint64_t now) {
        struct pool_account *account = waiter->account;
        list_init(&waiter->link);
        if (pool->retired)
                return pool->retired;
        if (pool->breaker.state != BREAKER_CLOSED)
                return LESSOR_E_BREAKER_OPEN;
        if (pool->refusal && now < pool->next_dial && !pool->count[CONN_FREE])
                return pool->refusal;
        /* Whom a place serves now, or as soon as it is dialled, does not wait for anybody: with max_waiters 0, too. */
        unsigned places = pool->hold ? 0 : pool->count[CONN_FREE] + pool_coming(pool) + pool_vacancies(pool);
        if (pool->waiting >= pool->limits.max_waiters + places)
                return LESSOR_E_EXHAUSTED;
        if (account->max_waiting && account->waiting >= account->max_waiting)
                return LESSOR_E_LIMIT;
        account->waiting++;
        waiter->since = now;
        list_push_back(&pool->queue, &waiter->link);
        if (++pool->waiting > pool->stats.peak_waiting)
                pool->stats.peak_waiting = pool->waiting;
        return 0;
}

struct pool_waiter *pool_leave_queue(struct pool *pool, struct pool_waiter *waiter) {
        list_remove(&waiter->link);
        waiter->account->waiting--;
        pool->waiting--;
        return waiter;
}

void pool_cancel(struct pool *pool, struct pool_waiter *waiter) {
        unsigned place = 0;
        if (list_empty(&waiter->link))
                return;
        /* Those told to give up are counted from the head: one of them that leaves by itself is one fewer. */
        if (pool->giving_up) {
                list_for_each (&pool->queue, it) {
                        if (it == &waiter->link)
                                break;
                        place++;
                }
                if (place < pool->giving_up)
                        pool->giving_up--;
        }
        pool_leave_queue(pool, waiter);
}

void pool_grant(struct pool *pool, struct pool_conn *conn, const struct pool_waiter *waiter, uint64_t now) {
        pool_move(pool, conn, CONN_LEASED, now);
        conn->lease = ++pool->last_lease;
        conn->session = waiter->session;
        conn->account = waiter->account;
        conn->account->leased++;
        conn->pinned = waiter->pinned;
        pool->pinned += waiter->pinned;
        conn->lost = false;
        conn->left = true;
        pool->stats.leases++;
        histogram_add(&pool->stats.wait_time, now - waiter->since);
}

void pool_ungrant(struct pool *pool, struct pool_conn *conn, struct pool_waiter *waiter, enum pool_discard why,
                  uint64_t now) {
        assert(conn->state == CONN_LEASED && list_empty(&waiter->link));
        pool->stats.leases--;
        pool_discard(pool, conn, why, now);
        list_push_front(&pool->queue, &waiter->link);
        waiter->account->waiting++;
        pool->waiting++;
}

void pool_return(struct pool *pool, struct pool_conn *conn, enum pool_return how, uint64_t now) {
        assert(conn->state == CONN_LEASED);
        switch (how) {
        case POOL_RETURN_RECALLED:
        case POOL_RETURN_CLEAN:
                pool->stats.recalls += how == POOL_RETURN_RECALLED;
                if (conn->lost)
                        pool_discard(pool, conn, conn->doom, now);
                else
                        pool_move(pool, conn, CONN_FREE, now);
                break;
        case POOL_RETURN_RESETTABLE:
                if (conn->lost)
                        pool_discard(pool, conn, conn->doom, now);
                else
                        begin_reset(pool, conn, now);
                break;
        case POOL_RETURN_DIRTY:
                pool_discard(pool, conn, conn->lost ? conn->doom : POOL_DISCARD_DIRTY, now);
                break;
        case POOL_RETURN_HOLDER:
                pool->stats.reclaims++;
                pool_discard(pool, conn, conn->lost ? conn->doom : POOL_DISCARD_HOLDER, now);
                break;
        case POOL_RETURN_REVOKED:
                pool->stats.revocations++;
                pool_discard(pool, conn, POOL_DISCARD_REVOKED, now);
                break;
        }
}

void pool_reset_done(struct pool *pool, struct pool_conn *conn, uint64_t now) {
        assert(conn->state == CONN_RESETTING && conn->told);
        pool->stats.resets++;
        pool_move(pool, conn, CONN_FREE, now);
}

void pool_reset_failed(struct pool *pool, struct pool_conn *conn, uint64_t now) {
        assert(conn->state == CONN_RESETTING && conn->told);
        pool_discard(pool, conn, POOL_DISCARD_RESET, now);
}

void pool_dialled(struct pool *pool, struct pool_conn *conn, uint64_t now) {
        conn->established_at = now;
        pool_move(pool, conn, CONN_FREE, now);
        pool->stats.created++;
        pool->stats.reconnections += conn->replacing;
        conn->replacing = false;
        backoff_succeed(&pool->backoff);
        breaker_succeed(&pool->breaker, conn->begun);
        pool->next_dial = 0;
        pool->refusal = 0;
        pool->trouble = 0;
        pool->giving_up = 0;
        pool->loading_since = 0;
        pool->suspicious = false;
}

void pool_retire_at(struct pool *pool, struct pool_conn *conn, uint64_t at) {
        conn->retire_at = at;
        upkeep_watch(&pool->upkeep, conn);
}

/* Everybody is told at once, and it is tried again seldom. */
static void turn_away(struct pool *pool, int outcome, uint64_t now) {
        pool->refusal = outcome;
        pool->next_dial = time_after(now, pool->limits.retry_max_ns);
        pool->giving_up = pool->waiting;
}

static void dial_met_loading(struct pool *pool, uint64_t now) {
        if (!pool->loading_since)
                pool->loading_since = now;
        if (now - pool->loading_since >= LOADING_MAX_NS)
                turn_away(pool, LESSOR_E_LOADING, now);
        else
                pool->next_dial = now + LOADING_POLL_NS;
}

/* Nothing serves those who wait, or only a connection that comes back. */
static bool nothing_serves(const struct pool *pool) {
        return pool->count[CONN_FREE] + pool->count[CONN_LEASED] + pool->count[CONN_RESETTING] == 0;
}

static void dial_failed(struct pool *pool, struct pool_conn *conn, int outcome, bool another, uint64_t now,
                        uint64_t random) {
        uint64_t pause = another ? backoff_fail(&pool->backoff, random) : 0;
        if (another)
                pool->last_failure = now;
        if (pool->next_dial <= now)
                pool->next_dial = time_after(now, pause);
        /* A full server is no broken one: the connections that there are go on serving. */
        if (outcome == LESSOR_E_EXHAUSTED)
                breaker_answer(&pool->breaker, conn->begun);
        else if (another)
                breaker_fail(&pool->breaker, conn->begun, pause, now);
        if (another && pool->backoff.failures % pool->limits.retry_attempts == 0 &&
            (outcome != LESSOR_E_EXHAUSTED || nothing_serves(pool)))
                pool->giving_up = pool->waiting;
}

void pool_dial_failed(struct pool *pool, struct pool_conn *conn, int outcome, uint64_t now, uint64_t random) {
        /* Several dials may be out when the server goes: they fail for one reason, and are one failure in a row. */
        bool late = conn->begun != pool->breaker.epoch, another = !late && conn->since > pool->last_failure;
        pool_move(pool, conn, CONN_VACANT, now);
        pool->trouble = outcome == LESSOR_E_EXHAUSTED ? LESSOR_E_UPSTREAM : outcome;
        pool->stats.failed += outcome != LESSOR_E_LOADING;
        if (outcome == LESSOR_E_LOADING) {
                breaker_answer(&pool->breaker, conn->begun);
                dial_met_loading(pool, now);
                return;
        }
        pool->loading_since = 0;
        if (outcome == LESSOR_E_CREDENTIALS) { /* only an operator can mend it */
                breaker_answer(&pool->breaker, conn->begun);
                turn_away(pool, outcome, now);
                return;
        }
        dial_failed(pool, conn, outcome, another, now, random);
}

void pool_lost(struct pool *pool, struct pool_conn *conn, uint64_t now) {
        /* A worker can end what it held: only the end of what never left says something about the server. */
        bool counts = !conn->left && !pool->hold;
        switch (conn->state) {
        case CONN_FREE:
        case CONN_RESETTING:
        case CONN_CHECKING:
                pool_discard(pool, conn, POOL_DISCARD_LOST, now);
                if (counts)
                        breaker_lose(&pool->breaker, conn->established_at, BACKOFF_FIRST_NS, now);
                break;
        case CONN_LEASED:
                conn->lost = true;
                conn->doom = POOL_DISCARD_LOST;
                break;
        case CONN_LANE: /* its owner reads it, and says pool_lane_done() */
        case CONN_VACANT:
        case CONN_DIALLING: /* the dial itself reports how it ends */
        case CONN_CLOSING:
        case CONN_STATES:
                break;
        }
}

static void check_failed(struct pool *pool, struct pool_conn *conn, uint64_t now, uint64_t random) {
        pool->stats.checks_failed++;
        pool_discard(pool, conn, POOL_DISCARD_CHECK, now);
        /* Its neighbours may be no better. */
        pool->suspicious = true;
        if (conn->begun == pool->breaker.epoch)
                breaker_fail(&pool->breaker, conn->begun, backoff_fail(&pool->backoff, random), now);
}

void pool_checked(struct pool *pool, struct pool_conn *conn, enum pool_check result, uint64_t now, uint64_t random) {
        assert(conn->state == CONN_CHECKING);
        conn->checked_at = now;
        switch (result) {
        case POOL_CHECK_ANSWERED:
                backoff_succeed(&pool->backoff);
                breaker_succeed(&pool->breaker, conn->begun);
                pool_move(pool, conn, CONN_FREE, now);
                break;
        case POOL_CHECK_QUIET:
                pool_move(pool, conn, CONN_FREE, now);
                break;
        case POOL_CHECK_STRAY:
                pool_discard(pool, conn, POOL_DISCARD_STRAY, now);
                break;
        case POOL_CHECK_LOST:
                pool_move(pool, conn, CONN_FREE, now);
                pool_lost(pool, conn, now);
                break;
        case POOL_CHECK_FAILED:
                check_failed(pool, conn, now, random);
                break;
        }
}

void pool_dial_dropped(struct pool *pool, struct pool_conn *conn, uint64_t now) {
        pool_move(pool, conn, CONN_VACANT, now);
}

bool pool_suspect(struct pool *pool, uint64_t now) {
        if (pool->breaker.state != BREAKER_CLOSED || pool->trouble || pool->count[CONN_CHECKING] ||
            (pool->last_suspicion && now - pool->last_suspicion < SUSPICION_NS))
                return false;
        pool->last_suspicion = now;
        pool->suspicious = true;
        return true;
}

void pool_closed(struct pool *pool, struct pool_conn *conn, uint64_t now) {
        assert(conn->state == CONN_CLOSING && conn->told);
        pool_move(pool, conn, CONN_VACANT, now);
}

void pool_want_lanes(struct pool *pool, unsigned n) { pool->lanes = n; }

void pool_lane_done(struct pool *pool, struct pool_conn *conn, enum pool_lane how, uint64_t now, uint64_t random) {
        assert(conn->state == CONN_LANE);
        switch (how) {
        case POOL_LANE_FREE:
                if (conn->retire_at <= now)
                        pool_discard(pool, conn, POOL_DISCARD_AGE, now);
                else
                        pool_move(pool, conn, CONN_FREE, now);
                break;
        case POOL_LANE_LOST:
                pool_discard(pool, conn, POOL_DISCARD_LOST, now);
                if (!pool->hold)
                        breaker_lose(&pool->breaker, conn->established_at, BACKOFF_FIRST_NS, now);
                break;
        case POOL_LANE_STALLED:
                conn->begun = pool->breaker.epoch; /* it is now that it does not answer */
                check_failed(pool, conn, now, random);
                break;
        }
}

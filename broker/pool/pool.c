/* SPDX-License-Identifier: MIT */
/*
 * One function, move(), changes a connection's state and keeps lists and counts; it asserts that the step is in the
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

/* A dial takes a fraction of this; whoever waits for longer is served from what is parked elsewhere. */
#define DIAL_PATIENCE_NS (5 * NS_PER_MS)
#define LOADING_POLL_NS NS_PER_S /* requirement 13: poll each second while Redis loads its data */

/* The diagram: steps[from] has a bit for each state that may follow. */
static const unsigned steps[CONN_STATES] = {
        [CONN_VACANT] = 1U << CONN_DIALLING,
        [CONN_DIALLING] = 1U << CONN_FREE | 1U << CONN_VACANT,
        [CONN_FREE] = 1U << CONN_LEASED | 1U << CONN_CLOSING,
        [CONN_LEASED] = 1U << CONN_FREE | 1U << CONN_RESETTING | 1U << CONN_CLOSING,
        [CONN_RESETTING] = 1U << CONN_FREE | 1U << CONN_CLOSING,
        [CONN_CLOSING] = 1U << CONN_VACANT,
};

static void move(struct pool *pool, struct pool_conn *conn, enum conn_state to, uint64_t now) {
        assert(steps[conn->state] & 1U << to);
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
        if (to == CONN_DIALLING) {
                conn->generation++;
                if (pool_open(pool) > pool->stats.peak_open)
                        pool->stats.peak_open = pool_open(pool);
        }
}

static void discard(struct pool *pool, struct pool_conn *conn, enum pool_discard why, uint64_t now) {
        pool->stats.discards[why]++;
        conn->told = false;
        conn->replacing = true;
        conn->lost = why == POOL_DISCARD_LOST;
        move(pool, conn, CONN_CLOSING, now);
}

static void begin_reset(struct pool *pool, struct pool_conn *conn, uint64_t now) {
        conn->told = false;
        move(pool, conn, CONN_RESETTING, now);
}

int pool_init(struct pool *pool, const struct pool_limits *limits, uint64_t first_lease, uint64_t now) {
        struct pool_conn *conns = calloc(limits->max_connections, sizeof(*conns));
        if (!conns)
                return -ENOMEM;
        *pool = (struct pool){.limits = *limits, .conns = conns, .last_lease = first_lease};
        backoff_init(&pool->backoff, limits->retry_base_ns, limits->retry_max_ns);
        list_init(&pool->queue);
        for (unsigned i = 0; i < CONN_STATES; i++)
                list_init(&pool->by_state[i]);
        for (unsigned i = 0; i < limits->max_connections; i++) {
                conns[i].slot = i;
                conns[i].since = now;
                list_push_back(&pool->by_state[CONN_VACANT], &conns[i].link);
        }
        pool->count[CONN_VACANT] = limits->max_connections;
        return 0;
}

void pool_deinit(struct pool *pool) {
        free(pool->conns);
        pool->conns = NULL;
}

/* Connections that will be FREE by themselves, if all goes well. */
static unsigned coming(const struct pool *pool) { return pool->count[CONN_DIALLING] + pool->count[CONN_RESETTING]; }

int pool_lease(struct pool *pool, struct pool_waiter *waiter, uint64_t now) {
        struct pool_account *account = waiter->account;
        list_init(&waiter->link);
        if (pool->refusal && now < pool->next_dial && !pool->count[CONN_FREE])
                return pool->refusal;
        /* Whom a place serves now, or as soon as it is dialled, does not wait for anybody: with max_waiters 0, too. */
        unsigned places = pool->count[CONN_FREE] + coming(pool) + pool->count[CONN_VACANT];
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

static struct pool_waiter *leave_queue(struct pool *pool, struct pool_waiter *waiter) {
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
        leave_queue(pool, waiter);
}

static void grant(struct pool *pool, struct pool_conn *conn, const struct pool_waiter *waiter, uint64_t now) {
        move(pool, conn, CONN_LEASED, now);
        conn->lease = ++pool->last_lease;
        conn->session = waiter->session;
        conn->account = waiter->account;
        conn->account->leased++;
        conn->pinned = waiter->pinned;
        pool->pinned += waiter->pinned;
        conn->lost = false;
        pool->stats.leases++;
        histogram_add(&pool->stats.wait_time, now - waiter->since);
}

void pool_ungrant(struct pool *pool, struct pool_conn *conn, struct pool_waiter *waiter, enum pool_discard why,
                  uint64_t now) {
        assert(conn->state == CONN_LEASED && list_empty(&waiter->link));
        pool->stats.leases--;
        discard(pool, conn, why, now);
        list_push_front(&pool->queue, &waiter->link);
        waiter->account->waiting++;
        pool->waiting++;
}

void pool_return(struct pool *pool, struct pool_conn *conn, enum pool_return how, uint64_t now) {
        assert(conn->state == CONN_LEASED);
        switch (how) {
        case POOL_RETURN_RECALLED:
                pool->stats.recalls++;
                __attribute__((fallthrough));
        case POOL_RETURN_CLEAN:
                if (conn->lost)
                        discard(pool, conn, POOL_DISCARD_LOST, now);
                else
                        move(pool, conn, CONN_FREE, now);
                break;
        case POOL_RETURN_RESETTABLE:
                if (conn->lost)
                        discard(pool, conn, POOL_DISCARD_LOST, now);
                else
                        begin_reset(pool, conn, now);
                break;
        case POOL_RETURN_DIRTY:
                discard(pool, conn, conn->lost ? POOL_DISCARD_LOST : POOL_DISCARD_DIRTY, now);
                break;
        case POOL_RETURN_HOLDER:
                pool->stats.reclaims++;
                discard(pool, conn, conn->lost ? POOL_DISCARD_LOST : POOL_DISCARD_HOLDER, now);
                break;
        case POOL_RETURN_REVOKED:
                pool->stats.revocations++;
                discard(pool, conn, POOL_DISCARD_REVOKED, now);
                break;
        }
}

void pool_reset_done(struct pool *pool, struct pool_conn *conn, uint64_t now) {
        assert(conn->state == CONN_RESETTING && conn->told);
        pool->stats.resets++;
        move(pool, conn, CONN_FREE, now);
}

void pool_reset_failed(struct pool *pool, struct pool_conn *conn, uint64_t now) {
        assert(conn->state == CONN_RESETTING && conn->told);
        discard(pool, conn, POOL_DISCARD_RESET, now);
}

void pool_dialled(struct pool *pool, struct pool_conn *conn, uint64_t now) {
        move(pool, conn, CONN_FREE, now);
        pool->stats.created++;
        pool->stats.reconnections += conn->replacing;
        conn->replacing = false;
        backoff_succeed(&pool->backoff);
        pool->next_dial = 0;
        pool->refusal = 0;
        pool->trouble = 0;
        pool->giving_up = 0;
}

void pool_dial_failed(struct pool *pool, struct pool_conn *conn, int outcome, uint64_t now, uint64_t random) {
        /* Several dials may be out when the server goes: they fail for one reason, and are one failure in a row. */
        bool another = conn->since > pool->last_failure;
        uint64_t pause = 0;
        move(pool, conn, CONN_VACANT, now);
        pool->trouble = outcome;
        if (outcome == LESSOR_E_LOADING) {
                pool->next_dial = now + LOADING_POLL_NS;
                return;
        }
        pool->stats.failed++;
        if (another) {
                pool->last_failure = now;
                pause = backoff_fail(&pool->backoff, random);
        }
        if (outcome == LESSOR_E_CREDENTIALS) {
                /* Only an operator can mend it: everybody is told at once, and it is tried again seldom. */
                pool->refusal = outcome;
                pool->next_dial = time_after(now, pool->limits.retry_max_ns);
                pool->giving_up = pool->waiting;
                return;
        }
        if (pool->next_dial <= now)
                pool->next_dial = time_after(now, pause);
        if (another && pool->backoff.failures % pool->limits.retry_attempts == 0)
                pool->giving_up = pool->waiting;
}

void pool_lost(struct pool *pool, struct pool_conn *conn, uint64_t now) {
        switch (conn->state) {
        case CONN_FREE:
        case CONN_RESETTING:
                discard(pool, conn, POOL_DISCARD_LOST, now);
                break;
        case CONN_LEASED:
                conn->lost = true;
                break;
        case CONN_VACANT:
        case CONN_DIALLING: /* the dial itself reports how it ends */
        case CONN_CLOSING:
        case CONN_STATES:
                break;
        }
}

void pool_closed(struct pool *pool, struct pool_conn *conn, uint64_t now) {
        assert(conn->state == CONN_CLOSING && conn->told);
        move(pool, conn, CONN_VACANT, now);
}

/* A dial is worth starting while more are waiting than a connection is on its way for; one at a time while dials fail. */
static bool may_dial(const struct pool *pool, uint64_t now) {
        unsigned wanted = pool->trouble && pool->waiting > 1 ? 1 : pool->waiting;
        return coming(pool) < wanted && pool->count[CONN_VACANT] > 0 && now >= pool->next_dial;
}

static struct pool_conn *first_conn(struct pool *pool, enum conn_state state) {
        return container_of(list_first(&pool->by_state[state]), struct pool_conn, link);
}

static bool at_limit(const struct pool *pool, const struct pool_waiter *waiter) {
        const struct pool_account *account = waiter->account;
        if (waiter->pinned && pool->limits.max_pinned && pool->pinned >= pool->limits.max_pinned)
                return true;
        return account->max_leased && account->leased >= account->max_leased;
}

static struct pool_waiter *first_waiter(struct pool *pool) {
        return container_of(list_first(&pool->queue), struct pool_waiter, link);
}

/* Whose turn it is; NULL: all who wait are at limits of their own. */
static struct pool_waiter *next_waiter(struct pool *pool) {
        list_for_each (&pool->queue, it) {
                struct pool_waiter *waiter = container_of(it, struct pool_waiter, link);
                if (!at_limit(pool, waiter))
                        return waiter;
        }
        return NULL;
}

/* Does somebody wait whom neither a dial or reset under way nor a dial about to begin will serve soon? */
static bool wants_back(struct pool *pool, uint64_t now) {
        if (!pool->waiting || !next_waiter(pool))
                return false;
        if (pool->trouble || pool->waiting > coming(pool))
                return true;
        const struct pool_waiter *first = container_of(list_first(&pool->queue), struct pool_waiter, link);
        return now - first->since >= DIAL_PATIENCE_NS;
}

/* A leased connection that is wanted, or not. */
static struct pool_conn *find_leased(struct pool *pool, bool wanted) {
        list_for_each (&pool->by_state[CONN_LEASED], it) {
                struct pool_conn *conn = container_of(it, struct pool_conn, link);
                if (conn->wanted == wanted)
                        return conn;
        }
        return NULL;
}

static struct pool_action set_wanted(struct pool *pool, bool wanted) {
        struct pool_conn *conn = find_leased(pool, !wanted);
        conn->wanted = wanted;
        if (wanted)
                pool->wanted++;
        else
                pool->wanted--;
        return (struct pool_action){.type = wanted ? POOL_RECALL : POOL_UNWANT, .conn = conn};
}

static struct pool_conn *first_untold(struct pool *pool, enum conn_state state) {
        list_for_each (&pool->by_state[state], it) {
                struct pool_conn *conn = container_of(it, struct pool_conn, link);
                if (!conn->told)
                        return conn;
        }
        return NULL;
}

struct pool_action pool_next(struct pool *pool, uint64_t now) {
        struct pool_action action = {.type = POOL_NOTHING};

        if ((action.conn = first_untold(pool, CONN_CLOSING))) {
                action.type = POOL_CLOSE;
                action.conn->told = true;
        } else if ((action.conn = first_untold(pool, CONN_RESETTING))) {
                action.type = POOL_RESET;
                action.conn->told = true;
        } else if (pool->waiting && pool->count[CONN_FREE] && (action.waiter = next_waiter(pool))) {
                action.type = POOL_GRANT;
                action.conn = first_conn(pool, CONN_FREE);
                pool_cancel(pool, action.waiter);
                grant(pool, action.conn, action.waiter, now);
        } else if (pool->waiting && pool->giving_up) {
                action.type = POOL_FAIL;
                action.outcome = pool->trouble;
                action.waiter = leave_queue(pool, first_waiter(pool));
                pool->giving_up--;
        } else if (may_dial(pool, now)) {
                action.type = POOL_DIAL;
                action.conn = first_conn(pool, CONN_VACANT);
                pool->stats.retries += pool->trouble != 0;
                move(pool, action.conn, CONN_DIALLING, now);
        } else if (wants_back(pool, now)) {
                if (pool->wanted < pool->count[CONN_LEASED])
                        action = set_wanted(pool, true);
        } else if (pool->wanted > 0) {
                action = set_wanted(pool, false);
        }
        return action;
}

uint64_t pool_wakeup(const struct pool *pool) {
        uint64_t at = TIME_NEVER;
        if (!pool->waiting)
                return at;
        if (pool->count[CONN_VACANT] > 0 && coming(pool) == 0)
                at = pool->next_dial;
        if (pool->wanted < pool->count[CONN_LEASED]) {
                const struct pool_waiter *first = container_of(list_first(&pool->queue), struct pool_waiter, link);
                uint64_t patience = time_after(first->since, DIAL_PATIENCE_NS);
                at = patience < at ? patience : at;
        }
        return at;
}

enum lessor_health pool_health(const struct pool *pool, const char *last_error, char *reason) {
        unsigned serving = pool->count[CONN_FREE] + pool->count[CONN_LEASED] + pool->count[CONN_RESETTING];
        const char *what = NULL;
        enum lessor_health health = LESSOR_HEALTH_HEALTHY;

        if (pool->trouble) {
                health = serving ? LESSOR_HEALTH_DEGRADED : LESSOR_HEALTH_FAILED;
                what = last_error;
        } else if (pool->waiting && pool->count[CONN_LEASED] == pool->limits.max_connections) {
                health = LESSOR_HEALTH_DEGRADED;
                what = "every connection is in use and requests wait";
        } else if (!pool->stats.created && !pool->stats.failed && !pool->count[CONN_DIALLING]) {
                health = LESSOR_HEALTH_UNUSED;
        }
        snprintf(reason, LESSOR_STATUS_TEXT_SIZE, "%s", what ? what : "");
        return health;
}

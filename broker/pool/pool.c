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

static void move(struct pool *pool, struct pool_conn *conn, enum conn_state to, uint64_t now) {
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

static void discard(struct pool *pool, struct pool_conn *conn, enum pool_discard why, uint64_t now) {
        pool->stats.discards[why]++;
        conn->told = false;
        conn->replacing = why != POOL_DISCARD_IDLE;
        conn->lost = why == POOL_DISCARD_LOST;
        move(pool, conn, CONN_CLOSING, now);
}

static void begin_reset(struct pool *pool, struct pool_conn *conn, uint64_t now) {
        conn->told = false;
        move(pool, conn, CONN_RESETTING, now);
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

/* So many more may be dialled. */
static unsigned vacancies(const struct pool *pool) {
        unsigned open = pool_open(pool);
        return open < pool->limits.max_connections ? pool->limits.max_connections - open : 0;
}

/* Connections that will be FREE by themselves, if all goes well. */
static unsigned coming(const struct pool *pool) {
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
        unsigned places = pool->hold ? 0 : pool->count[CONN_FREE] + coming(pool) + vacancies(pool);
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
        conn->left = true;
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
        case POOL_RETURN_CLEAN:
                pool->stats.recalls += how == POOL_RETURN_RECALLED;
                if (conn->lost)
                        discard(pool, conn, conn->doom, now);
                else
                        move(pool, conn, CONN_FREE, now);
                break;
        case POOL_RETURN_RESETTABLE:
                if (conn->lost)
                        discard(pool, conn, conn->doom, now);
                else
                        begin_reset(pool, conn, now);
                break;
        case POOL_RETURN_DIRTY:
                discard(pool, conn, conn->lost ? conn->doom : POOL_DISCARD_DIRTY, now);
                break;
        case POOL_RETURN_HOLDER:
                pool->stats.reclaims++;
                discard(pool, conn, conn->lost ? conn->doom : POOL_DISCARD_HOLDER, now);
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
        conn->established_at = now;
        move(pool, conn, CONN_FREE, now);
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
        move(pool, conn, CONN_VACANT, now);
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
                discard(pool, conn, POOL_DISCARD_LOST, now);
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
        discard(pool, conn, POOL_DISCARD_CHECK, now);
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
                move(pool, conn, CONN_FREE, now);
                break;
        case POOL_CHECK_QUIET:
                move(pool, conn, CONN_FREE, now);
                break;
        case POOL_CHECK_STRAY:
                discard(pool, conn, POOL_DISCARD_STRAY, now);
                break;
        case POOL_CHECK_LOST:
                move(pool, conn, CONN_FREE, now);
                pool_lost(pool, conn, now);
                break;
        case POOL_CHECK_FAILED:
                check_failed(pool, conn, now, random);
                break;
        }
}

void pool_dial_dropped(struct pool *pool, struct pool_conn *conn, uint64_t now) { move(pool, conn, CONN_VACANT, now); }

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
        move(pool, conn, CONN_VACANT, now);
}

static struct pool_conn *first_conn(struct pool *pool, enum conn_state state) {
        return container_of(list_first(&pool->by_state[state]), struct pool_conn, link);
}

enum pool_limit pool_limit(const struct pool *pool, const struct pool_waiter *waiter) {
        const struct pool_account *account = waiter->account;
        if (waiter->pinned && pool->limits.max_pinned && pool->pinned >= pool->limits.max_pinned)
                return POOL_LIMIT_PINNED;
        return account->max_leased && account->leased >= account->max_leased ? POOL_LIMIT_USER : POOL_LIMIT_NONE;
}

static bool at_limit(const struct pool *pool, const struct pool_waiter *waiter) {
        return pool_limit(pool, waiter) != POOL_LIMIT_NONE;
}

static struct pool_waiter *first_waiter(struct pool *pool) {
        return container_of(list_first(&pool->queue), struct pool_waiter, link);
}

/* Whose turn it is; NULL: all who wait are at limits of their own. */
static struct pool_waiter *next_waiter(const struct pool *pool) {
        list_for_each (&pool->queue, it) {
                struct pool_waiter *waiter = container_of(it, struct pool_waiter, link);
                if (!at_limit(pool, waiter))
                        return waiter;
        }
        return NULL;
}

/* Do more than n wait who may be served? Whoever is at his limit makes no work: it would serve nobody. */
static bool more_wait_than(const struct pool *pool, unsigned n) {
        if (pool->waiting <= n)
                return false;
        list_for_each (&pool->queue, it)
                if (!at_limit(pool, container_of(it, struct pool_waiter, link)) && n-- == 0)
                        return true;
        return false;
}

/* ---- lanes ---- */

/* The first comes before everybody; the others when nobody waits. */
static bool lacks_lane(const struct pool *pool) {
        unsigned have = pool->count[CONN_LANE];
        return have < pool->lanes && (have == 0 || !pool->waiting);
}

/* One that has never left: no worker has a dup of it. */
static struct pool_conn *lane_candidate(const struct pool *pool) {
        list_for_each (&pool->by_state[CONN_FREE], it) {
                struct pool_conn *conn = container_of(it, struct pool_conn, link);
                if (!conn->left && conn->epoch == pool->epoch)
                        return conn;
        }
        return NULL;
}

/* All places are taken by connections that have left: one of them makes room for one that has not. */
static struct pool_conn *lane_sacrifice(struct pool *pool) {
        if (!lacks_lane(pool) || pool->count[CONN_LANE] > 0 || vacancies(pool) || coming(pool) ||
            pool->count[CONN_CLOSING] || lane_candidate(pool) || !pool->count[CONN_FREE])
                return NULL;
        return container_of(list_last(&pool->by_state[CONN_FREE]), struct pool_conn, link);
}

/* One that is to be given back: outdated, too old, not wanted any more, or wanted by those who wait; all in a hold. */
static struct pool_conn *lane_to_drain(struct pool *pool, uint64_t now) {
        bool needed = pool->waiting && !vacancies(pool) && !coming(pool) && !pool->count[CONN_FREE];
        unsigned keep = pool->hold ? 0 : needed && pool->lanes ? 1 : pool->lanes, staying = 0;
        struct pool_conn *found = NULL;
        list_for_each (&pool->by_state[CONN_LANE], it) {
                struct pool_conn *conn = container_of(it, struct pool_conn, link);
                if (conn->told)
                        continue;
                if (conn->epoch != pool->epoch || conn->retire_at <= now || pool->hold || ++staying > keep)
                        found = conn;
        }
        return found;
}

void pool_want_lanes(struct pool *pool, unsigned n) { pool->lanes = n; }

void pool_lane_done(struct pool *pool, struct pool_conn *conn, enum pool_lane how, uint64_t now, uint64_t random) {
        assert(conn->state == CONN_LANE);
        switch (how) {
        case POOL_LANE_FREE:
                if (conn->retire_at <= now)
                        discard(pool, conn, POOL_DISCARD_AGE, now);
                else
                        move(pool, conn, CONN_FREE, now);
                break;
        case POOL_LANE_LOST:
                discard(pool, conn, POOL_DISCARD_LOST, now);
                if (!pool->hold)
                        breaker_lose(&pool->breaker, conn->established_at, BACKOFF_FIRST_NS, now);
                break;
        case POOL_LANE_STALLED:
                conn->begun = pool->breaker.epoch; /* it is now that it does not answer */
                check_failed(pool, conn, now, random);
                break;
        }
}

/*
 * Is another dial worth having out? As many as wait, and what min_idle lacks; one at a time while dials fail, and that one
 * though nobody waits, so that recovery is seen by itself.
 */
static bool worth_dialling(const struct pool *pool) {
        unsigned spare = pool->count[CONN_FREE] + pool->count[CONN_CHECKING], min = pool->upkeep.limits.min_idle;
        unsigned lack = min > spare ? min - spare : 0;
        if (pool->trouble || (pool->suspicious && !coming(pool)))
                return !coming(pool);
        lack += lacks_lane(pool) && !lane_candidate(pool);
        return coming(pool) < lack || more_wait_than(pool, coming(pool) - lack);
}

/* When the next dial, or an open breaker's probe, may begin; TIME_NEVER: none is to. */
static uint64_t dial_at(const struct pool *pool) {
        uint64_t at = pool->next_dial;
        if (!vacancies(pool) || pool->retired || pool->hold)
                return TIME_NEVER;
        if (pool->breaker.state == BREAKER_HALF_OPEN)
                return TIME_NEVER;
        if (pool->breaker.state == BREAKER_OPEN)
                at = pool->breaker.retry_at;
        else if (!worth_dialling(pool))
                return TIME_NEVER;
        return at > rate_next(&pool->rate) ? at : rate_next(&pool->rate);
}

/* Does somebody wait whom neither a dial or reset under way nor a dial about to begin will serve soon? */
static bool wants_back(const struct pool *pool, uint64_t now) {
        const struct pool_waiter *first = next_waiter(pool);
        /* While it is open, or held, nobody is to take a connection, not one of his own either: what is parked comes back. */
        if (pool->breaker.state != BREAKER_CLOSED || pool->hold)
                return true;
        if (lacks_lane(pool) && !pool->count[CONN_LANE] && !lane_candidate(pool) && !vacancies(pool) && !coming(pool) &&
            !pool->count[CONN_CLOSING])
                return true;
        return first && (pool->trouble || more_wait_than(pool, coming(pool)) || now - first->since >= DIAL_PATIENCE_NS);
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

/* Suspicion is answered by asking a connection that never left; if there is none, by a dial. */
static struct pool_conn *suspect(struct pool *pool) {
        if (!pool->suspicious || pool->hold || pool->breaker.state != BREAKER_CLOSED || pool->count[CONN_CHECKING])
                return NULL;
        list_for_each (&pool->by_state[CONN_FREE], it) {
                struct pool_conn *conn = container_of(it, struct pool_conn, link);
                if (!conn->left)
                        return conn;
        }
        return NULL;
}

/* After a demotion or a reload: what is leased comes back, to be replaced. */
static struct pool_conn *outdated_lease(struct pool *pool) {
        if (!pool->draining)
                return NULL;
        list_for_each (&pool->by_state[CONN_LEASED], it) {
                struct pool_conn *conn = container_of(it, struct pool_conn, link);
                if (conn->lost || (conn->epoch == pool->epoch && !pool_surplus(pool)))
                        continue;
                conn->lost = true;
                conn->doom = POOL_DISCARD_OUTDATED;
                return conn;
        }
        pool->draining = false;
        return NULL;
}

static struct pool_action begin_check(struct pool *pool, struct pool_conn *conn, uint64_t now) {
        conn->begun = pool->breaker.epoch;
        pool->suspicious = pool->suspicious && conn->left;
        pool->stats.checks++;
        move(pool, conn, CONN_CHECKING, now);
        return (struct pool_action){.type = POOL_CHECK, .conn = conn};
}

static struct pool_action keep_up(struct pool *pool, uint64_t now) {
        struct pool_action action = {.type = POOL_NOTHING};
        struct pool_conn *conn;
        while (now >= pool->upkeep.due) {
                switch (upkeep_next(pool, now, &conn)) {
                case UPKEEP_NOTHING:
                        return action;
                case UPKEEP_CHECK:
                        return begin_check(pool, conn, now);
                case UPKEEP_RETIRE:
                        discard(pool, conn, POOL_DISCARD_AGE, now);
                        break;
                case UPKEEP_IDLE:
                        discard(pool, conn, POOL_DISCARD_IDLE, now);
                        break;
                case UPKEEP_OUTDATED:
                        discard(pool, conn, POOL_DISCARD_OUTDATED, now);
                        break;
                }
        }
        return action;
}

static struct pool_action begin_dial(struct pool *pool, uint64_t now) {
        struct pool_conn *conn = first_conn(pool, CONN_VACANT);
        if (pool->breaker.state == BREAKER_OPEN)
                breaker_probe(&pool->breaker);
        pool->stats.retries += pool->trouble != 0;
        pool->suspicious = false;
        rate_note(&pool->rate, now);
        conn->left = false;
        conn->begun = pool->breaker.epoch;
        conn->epoch = pool->epoch;
        conn->retire_at = TIME_NEVER;
        move(pool, conn, CONN_DIALLING, now);
        return (struct pool_action){.type = POOL_DIAL, .conn = conn};
}

struct pool_action pool_next(struct pool *pool, uint64_t now) {
        struct pool_action action = keep_up(pool, now);
        bool open = pool->breaker.state != BREAKER_CLOSED || pool->retired;
        struct pool_conn *conn;

        if (action.type != POOL_NOTHING)
                return action;
        if ((action.conn = first_untold(pool, CONN_CLOSING))) {
                action.type = POOL_CLOSE;
                action.conn->told = true;
        } else if ((action.conn = first_untold(pool, CONN_RESETTING))) {
                action.type = POOL_RESET;
                action.conn->told = true;
        } else if ((conn = suspect(pool))) {
                action = begin_check(pool, conn, now);
        } else if ((conn = outdated_lease(pool))) {
                action = (struct pool_action){.type = POOL_RECALL, .conn = conn};
        } else if (!open && !pool->hold && lacks_lane(pool) && (conn = lane_candidate(pool))) {
                conn->told = false;
                move(pool, conn, CONN_LANE, now);
                action = (struct pool_action){.type = POOL_LANE, .conn = conn};
        } else if (pool->count[CONN_LANE] && (conn = lane_to_drain(pool, now))) {
                conn->told = true;
                action = (struct pool_action){.type = POOL_DRAIN, .conn = conn};
        } else if (!open && !pool->hold && (conn = lane_sacrifice(pool))) {
                discard(pool, conn, POOL_DISCARD_LANE, now);
                conn->told = true;
                action = (struct pool_action){.type = POOL_CLOSE, .conn = conn};
        } else if (pool->waiting && pool->count[CONN_FREE] && !open && !pool->hold &&
                   (action.waiter = next_waiter(pool))) {
                action.type = POOL_GRANT;
                action.conn = first_conn(pool, CONN_FREE);
                pool_cancel(pool, action.waiter);
                grant(pool, action.conn, action.waiter, now);
        } else if (pool->waiting && ((pool->giving_up && !pool->hold) || open)) {
                action.type = POOL_FAIL;
                action.outcome = pool->retired ? pool->retired : open ? LESSOR_E_BREAKER_OPEN : pool->trouble;
                action.waiter = leave_queue(pool, first_waiter(pool));
                pool->giving_up -= pool->giving_up > 0;
        } else if (now >= dial_at(pool)) {
                action = begin_dial(pool, now);
        } else if (wants_back(pool, now)) {
                if (pool->wanted < pool->count[CONN_LEASED])
                        action = set_wanted(pool, true);
        } else if (pool->wanted > 0) {
                action = set_wanted(pool, false);
        }
        return action;
}

uint64_t pool_wakeup(const struct pool *pool) {
        uint64_t dial = dial_at(pool), at = dial < pool->upkeep.due ? dial : pool->upkeep.due;
        const struct pool_waiter *first = next_waiter(pool);
        if (first && pool->wanted < pool->count[CONN_LEASED]) {
                uint64_t patience = time_after(first->since, DIAL_PATIENCE_NS);
                at = patience < at ? patience : at;
        }
        return at;
}

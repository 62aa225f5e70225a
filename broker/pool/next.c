/* SPDX-License-Identifier: MIT */
/*
 * What is to be done next: pool_next() looks at what is there, and answers with one action; nothing is remembered from one
 * call to the next but what stands in the pool. The order of the questions is the order of importance.
 */
#include <assert.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "pool_internal.h"

/* A dial takes a fraction of this; whoever waits for longer is served from what is parked elsewhere. */
#define DIAL_PATIENCE_NS (5 * NS_PER_MS)

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
        if (!lacks_lane(pool) || pool->count[CONN_LANE] > 0 || pool_vacancies(pool) || pool_coming(pool) ||
            pool->count[CONN_CLOSING] || lane_candidate(pool) || !pool->count[CONN_FREE])
                return NULL;
        return container_of(list_last(&pool->by_state[CONN_FREE]), struct pool_conn, link);
}

/* One that is to be given back: outdated, too old, not wanted any more, or wanted by those who wait; all in a hold. */
static struct pool_conn *lane_to_drain(struct pool *pool, uint64_t now) {
        bool needed = pool->waiting && !pool_vacancies(pool) && !pool_coming(pool) && !pool->count[CONN_FREE];
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

/*
 * Is another dial worth having out? As many as wait, and what min_idle lacks; one at a time while dials fail, and that one
 * though nobody waits, so that recovery is seen by itself.
 */
static bool worth_dialling(const struct pool *pool) {
        unsigned spare = pool->count[CONN_FREE] + pool->count[CONN_CHECKING], min = pool->upkeep.limits.min_idle;
        unsigned lack = min > spare ? min - spare : 0;
        if (pool->trouble || (pool->suspicious && !pool_coming(pool)))
                return !pool_coming(pool);
        lack += lacks_lane(pool) && !lane_candidate(pool);
        return pool_coming(pool) < lack || more_wait_than(pool, pool_coming(pool) - lack);
}

/* When the next dial, or an open breaker's probe, may begin; TIME_NEVER: none is to. */
static uint64_t dial_at(const struct pool *pool) {
        uint64_t at = pool->next_dial;
        if (!pool_vacancies(pool) || pool->retired || pool->hold)
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
        if (lacks_lane(pool) && !pool->count[CONN_LANE] && !lane_candidate(pool) && !pool_vacancies(pool) &&
            !pool_coming(pool) && !pool->count[CONN_CLOSING])
                return true;
        return first &&
               (pool->trouble || more_wait_than(pool, pool_coming(pool)) || now - first->since >= DIAL_PATIENCE_NS);
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
        pool_move(pool, conn, CONN_CHECKING, now);
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
                        pool_discard(pool, conn, POOL_DISCARD_AGE, now);
                        break;
                case UPKEEP_IDLE:
                        pool_discard(pool, conn, POOL_DISCARD_IDLE, now);
                        break;
                case UPKEEP_OUTDATED:
                        pool_discard(pool, conn, POOL_DISCARD_OUTDATED, now);
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
        pool_move(pool, conn, CONN_DIALLING, now);
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
                pool_move(pool, conn, CONN_LANE, now);
                action = (struct pool_action){.type = POOL_LANE, .conn = conn};
        } else if (pool->count[CONN_LANE] && (conn = lane_to_drain(pool, now))) {
                conn->told = true;
                action = (struct pool_action){.type = POOL_DRAIN, .conn = conn};
        } else if (!open && !pool->hold && (conn = lane_sacrifice(pool))) {
                pool_discard(pool, conn, POOL_DISCARD_LANE, now);
                conn->told = true;
                action = (struct pool_action){.type = POOL_CLOSE, .conn = conn};
        } else if (pool->waiting && pool->count[CONN_FREE] && !open && !pool->hold &&
                   (action.waiter = next_waiter(pool))) {
                action.type = POOL_GRANT;
                action.conn = first_conn(pool, CONN_FREE);
                pool_cancel(pool, action.waiter);
                pool_grant(pool, action.conn, action.waiter, now);
        } else if (pool->waiting && ((pool->giving_up && !pool->hold) || open)) {
                action.type = POOL_FAIL;
                action.outcome = pool->retired ? pool->retired : open ? LESSOR_E_BREAKER_OPEN : pool->trouble;
                action.waiter = pool_leave_queue(pool, first_waiter(pool));
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

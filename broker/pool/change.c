/* SPDX-License-Identifier: MIT */
/*
 * What a reload, a demotion or an operator does to a pool. Nothing is closed here: FREE connections go by upkeep, leased ones are asked
 * for (draining) and go as they come back.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "pool.h"

void pool_outdate(struct pool *pool, uint64_t now) {
        pool->epoch++;
        pool->draining = true;
        pool->upkeep.due = now;
}

/* So many are to go, those not counted that are going. */
unsigned pool_surplus(const struct pool *pool) {
        unsigned stay = pool_open(pool) - pool->count[CONN_CLOSING];
        list_for_each (&pool->by_state[CONN_LEASED], it)
                stay -= container_of(it, struct pool_conn, link)->lost;
        return stay > pool->limits.max_connections ? stay - pool->limits.max_connections : 0;
}

void pool_adjust(struct pool *pool, const struct pool_limits *limits, uint64_t now) {
        pool->limits = *limits;
        if (pool->limits.max_connections > pool->places)
                pool->limits.max_connections = pool->places;
        pool->backoff.base_ns = limits->retry_base_ns;
        pool->backoff.max_ns = limits->retry_max_ns;
        pool->breaker.limits = limits->breaker;
        if (pool->upkeep.limits.sweep_ns != limits->upkeep.sweep_ns)
                pool->upkeep.next_sweep = time_after(now, limits->upkeep.sweep_ns);
        pool->upkeep.limits = limits->upkeep;
        pool->upkeep.due = now;
        pool->draining = true;
}

void pool_forgive(struct pool *pool) {
        backoff_succeed(&pool->backoff);
        pool->trouble = pool->refusal = 0;
        pool->giving_up = 0;
        pool->next_dial = pool->loading_since = 0;
}

void pool_turn(struct pool *pool, uint64_t now) {
        if (!pool->breaker.held) /* what an administrator has opened stays so, whatever the server */
                breaker_reset(&pool->breaker);
        pool_forgive(pool);
        pool->replica = pool->suspicious = false;
        pool_outdate(pool, now);
}

void pool_retire(struct pool *pool, int outcome, uint64_t now) {
        pool_turn(pool, now);
        pool->retired = outcome;
}

bool pool_role(struct pool *pool, const struct pool_conn *conn, bool replica, uint64_t now) {
        bool fresh = pool->last_demotion && conn->epoch == pool->epoch &&
                     now - pool->last_demotion < pool->limits.retry_max_ns;
        pool->replica = replica;
        if (!replica || fresh)
                return false;
        pool->last_demotion = now;
        pool_outdate(pool, now);
        pool->suspicious = true; /* is the next one the master? */
        return true;
}

/* ---- by hand ------------------------------------------------------------------------------------------------------ */

void pool_hold(struct pool *pool, enum pool_hold hold, uint64_t now) {
        pool->hold = hold;
        pool->giving_up = 0; /* neither those who waited before it nor those who wait at its end */
        if (hold == POOL_DRAINED)
                pool_outdate(pool, now);
        pool->upkeep.due = now; /* what fell due meanwhile */
}

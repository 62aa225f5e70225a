/* SPDX-License-Identifier: MIT */
/*
 * One pass looks at every FREE connection, from the one idle longest. A pass is made when something is due, not at each
 * lease: the loop that grants pays one comparison.
 */
#include "upkeep.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "pool.h"

#define RETIRE_SPACING_NS (100 * NS_PER_MS)

void upkeep_init(struct upkeep *u, const struct upkeep_limits *limits, uint64_t now) {
        *u = (struct upkeep){.limits = *limits};
        u->next_sweep = limits->sweep_ns ? time_after(now, limits->sweep_ns) : TIME_NEVER;
        u->due = u->next_sweep;
}

uint64_t upkeep_retirement(const struct upkeep *u, uint64_t now, uint64_t random) {
        uint64_t jitter = u->limits.lifetime_ns / 10;
        if (!u->limits.lifetime_ns)
                return TIME_NEVER;
        return time_after(now, u->limits.lifetime_ns - jitter + random % (jitter + 1));
}

static void sooner(struct upkeep *u, uint64_t at) {
        if (at < u->due)
                u->due = at;
}

static uint64_t check_at(const struct upkeep *u, const struct pool_conn *conn) {
        return u->limits.health_ns ? time_after(conn->checked_at, u->limits.health_ns) : TIME_NEVER;
}

static uint64_t retire_at(const struct upkeep *u, const struct pool_conn *conn) {
        return conn->retire_at > u->next_retire ? conn->retire_at : u->next_retire;
}

void upkeep_watch(struct upkeep *u, const struct pool_conn *conn) {
        sooner(u, check_at(u, conn));
        if (conn->retire_at != TIME_NEVER)
                sooner(u, retire_at(u, conn));
}

static bool idle_too_long(const struct pool *pool, const struct pool_conn *conn, uint64_t now) {
        const struct upkeep *u = &pool->upkeep;
        return now >= u->next_sweep && u->limits.idle_ns && now - conn->idle_since > u->limits.idle_ns &&
               pool->count[CONN_FREE] > u->limits.min_idle;
}

static enum upkeep_verdict judge(struct pool *pool, const struct pool_conn *conn, uint64_t now) {
        struct upkeep *u = &pool->upkeep;
        if (conn->epoch != pool->epoch || (pool->draining && pool_surplus(pool)))
                return UPKEEP_OUTDATED;
        if (conn->retire_at != TIME_NEVER && now >= retire_at(u, conn)) {
                u->next_retire = now + RETIRE_SPACING_NS;
                return UPKEEP_RETIRE;
        }
        if (idle_too_long(pool, conn, now))
                return UPKEEP_IDLE;
        /* One at a time; none beside a probe, whose answer is the one that counts. */
        if (now >= check_at(u, conn) && !pool->hold && !pool->count[CONN_CHECKING] &&
            pool->breaker.state != BREAKER_HALF_OPEN)
                return UPKEEP_CHECK;
        return UPKEEP_NOTHING;
}

enum upkeep_verdict upkeep_next(struct pool *pool, uint64_t now, struct pool_conn **ret) {
        struct upkeep *u = &pool->upkeep;
        u->due = TIME_NEVER;
        for (struct list *it = pool->by_state[CONN_FREE].prev; it != &pool->by_state[CONN_FREE]; it = it->prev) {
                *ret = container_of(it, struct pool_conn, link);
                enum upkeep_verdict verdict = judge(pool, *ret, now);
                if (verdict != UPKEEP_NOTHING) {
                        u->due = now; /* there may be more to do */
                        return verdict;
                }
                /* What is due and waits for another's check is woken by that check's end. */
                if (check_at(u, *ret) > now)
                        sooner(u, check_at(u, *ret));
                if ((*ret)->retire_at != TIME_NEVER)
                        sooner(u, retire_at(u, *ret));
        }
        if (now >= u->next_sweep) {
                u->last_sweep = now;
                pool->suspicious = pool->suspicious || pool->replica; /* perhaps it is a master again */
                u->next_sweep = time_after(now, u->limits.sweep_ns);
        }
        sooner(u, u->next_sweep);
        return UPKEEP_NOTHING;
}

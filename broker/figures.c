/* SPDX-License-Identifier: MIT */
/* A database's records for the status segment, made from its pool and its ledger. */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "database_internal.h"

#define IDLE_NS (60 * NS_PER_S) /* requirement 17: idle_connections */

static unsigned idle_count(const struct database *db, uint64_t now) {
        unsigned n = 0;
        list_for_each (&db->pool.by_state[CONN_FREE], it)
                n += now - container_of(it, struct pool_conn, link)->idle_since > IDLE_NS;
        list_for_each (&db->pool.by_state[CONN_LEASED], it) {
                const struct place *p = db->connections[container_of(it, struct pool_conn, link)->slot].place;
                n += p->parked && now - p->since > IDLE_NS;
        }
        return n;
}

static uint64_t oldest_wait(const struct database *db, uint64_t now) {
        struct list *first = list_first(&db->pool.queue);
        return first ? now - container_of(first, struct pool_waiter, link)->since : 0;
}

static unsigned parked_count(const struct database *db) {
        unsigned n = 0;
        list_for_each (&db->pool.by_state[CONN_LEASED], it)
                n += db->connections[container_of(it, struct pool_conn, link)->slot].place->parked;
        return n;
}

static void snapshot_gauges(const struct database *db, struct lessor_status_database *r, uint64_t now) {
        const struct pool *pool = &db->pool;
        r->max_connections = pool->limits.max_connections;
        r->max_waiters = pool->limits.max_waiters;
        r->wait_timeout = db->o.config->wait_timeout_ns;
        r->socket_timeout = db->o.config->socket_timeout_ns;
        r->open_connections = pool_open(pool);
        r->parked_connections = parked_count(db);
        r->available_connections = pool->count[CONN_FREE] + pool->count[CONN_CHECKING] + r->parked_connections;
        r->in_use_connections = pool->count[CONN_LEASED] - r->parked_connections;
        r->idle_connections = idle_count(db, now);
        r->dialling_connections = pool->count[CONN_DIALLING];
        r->closing_connections = pool->count[CONN_CLOSING];
        r->resetting_connections = pool->count[CONN_RESETTING];
        r->peak_connections = pool->stats.peak_open;
        r->waiting = pool->waiting;
        r->peak_waiting = pool->stats.peak_waiting;
        r->oldest_wait = oldest_wait(db, now);
}

/* When a held lease began to be the youngest: nothing has come back since. 0: nothing is leased. */
static uint64_t youngest_hold(const struct database *db, uint64_t now) {
        uint64_t youngest = 0;
        list_for_each (&db->pool.by_state[CONN_LEASED], it) {
                const struct place *p = db->connections[container_of(it, struct pool_conn, link)->slot].place;
                if (!p->parked && p->since > youngest)
                        youngest = p->since;
        }
        return youngest ? now - youngest : 0;
}

static void snapshot_health(struct database *db, struct lessor_status_database *r, uint64_t now) {
        const struct pressure_signs signs = {.refused = db->counters.wanting,
                                             /* Who waits for a server waits for no place. */
                                             .waiting = db->pool.trouble ? 0 : (unsigned)r->waiting,
                                             .max_waiters = db->pool.limits.max_waiters,
                                             .in_use = (unsigned)r->in_use_connections,
                                             .max_connections = db->pool.limits.max_connections,
                                             .oldest_wait_ns = r->oldest_wait,
                                             .wait_timeout_ns = r->wait_timeout,
                                             .youngest_hold_ns = youngest_hold(db, now)};
        const char *strain = pressure_of(&db->pressure, &signs, now);
        r->health = (uint64_t)pool_health(&db->pool, db->last_error, strain, r->reason);
        r->trouble = (uint64_t)db->trouble;
        r->peak_dial_rate = db->dial_meter.peak;
}

static uint64_t wall_of(uint64_t at, uint64_t now, uint64_t wall) { return at ? wall - now + at : 0; }

static void snapshot_weather(const struct database *db, struct lessor_status_database *r, uint64_t now) {
        const struct breaker *b = &db->pool.breaker;
        const struct pool_stats *s = &db->pool.stats;
        uint64_t wall = clock_wall();
        r->breaker_state = (uint64_t)b->state;
        r->breaker_by_hand = b->held;
        r->breaker_failures = b->failures;
        r->breaker_trips = b->trips;
        r->breaker_opened_at = b->state == BREAKER_CLOSED ? 0 : wall_of(b->opened_at, now, wall);
        r->breaker_retry_at = b->state == BREAKER_OPEN && !b->held ? wall_of(b->retry_at, now, wall) : 0;
        r->last_cleanup = wall_of(db->pool.upkeep.last_sweep, now, wall);
        r->health_checks = s->checks;
        r->health_checks_failed = s->checks_failed;
        r->discards_check = s->discards[POOL_DISCARD_CHECK];
        r->discards_idle = s->discards[POOL_DISCARD_IDLE];
        r->discards_age = s->discards[POOL_DISCARD_AGE];
        r->discards_outdated = s->discards[POOL_DISCARD_OUTDATED];
        r->discards_lane = s->discards[POOL_DISCARD_LANE];
}

static void snapshot_lanes(const struct database *db, struct lessor_status_database *r, uint64_t now) {
        const struct pipelines *p = &db->pipelines;
        r->lane_connections = db->pool.count[CONN_LANE];
        r->lane_sessions = p->in_flight.sessions;
        r->lane_under_way = p->in_flight.calls;
        r->oldest_lane_call = p->in_flight.calls ? time_left(p->in_flight.since, now) : 0;
        r->lane_calls = p->counters.calls;
        r->lane_writes = p->counters.writes;
        r->lane_rings = p->counters.rings;
        r->lane_refused = p->counters.refused;
        r->lane_unsent = p->counters.unsent;
        r->lane_timeouts = p->counters.timeouts;
        r->lane_discarded = p->counters.discarded;
        r->lane_apart = p->counters.apart;
        r->path = db->advice.path;
        r->path_changes = db->advice.changes;
        r->lane_queue_time = p->queue_time;
        r->lane_round_trip = p->round_trip;
}

static void snapshot_counters(const struct database *db, struct lessor_status_database *r) {
        const struct pool_stats *s = &db->pool.stats;
        const struct counters *n = &db->counters;
        r->created_connections = s->created;
        r->failed_connections = s->failed;
        r->reconnections = s->reconnections;
        r->retry_attempts = s->retries;
        r->leases = s->leases;
        r->lease_timeouts = n->lease_timeouts;
        r->exhausted = n->exhausted;
        r->denied = atomic_load_explicit(&db->denied, memory_order_relaxed);
        r->cancelled = n->cancelled;
        r->reclaims = s->reclaims;
        r->warm_leases = n->warm_leases;
        r->recalls = s->recalls;
        r->revocations = s->revocations;
        r->overdue_leases = n->overdue;
        r->discards_revoked = s->discards[POOL_DISCARD_REVOKED];
        r->reports = n->reports;
        r->discards_dirty = s->discards[POOL_DISCARD_DIRTY];
        r->discards_stray = s->discards[POOL_DISCARD_STRAY];
        r->discards_holder = s->discards[POOL_DISCARD_HOLDER];
        r->discards_lost = s->discards[POOL_DISCARD_LOST];
        r->discards_reset = s->discards[POOL_DISCARD_RESET];
        r->resets = s->resets;
        r->last_error_time = n->last_error_time;
        r->last_success_time = n->last_success_time;
        r->last_lease_time = n->last_lease_time;
        r->wait_time = s->wait_time;
        r->hold_time = s->hold_time;
}

static void snapshot_connection(const struct database *db, const struct connection *c,
                                struct lessor_status_connection *r) {
        const struct pool_conn *conn = c->conn;
        *r = (struct lessor_status_connection){.database = db->o.index,
                                               .slot = conn->slot,
                                               .state = (uint32_t)conn->state,
                                               .generation = conn->generation,
                                               .since_ns = conn->since};
        if (conn->state == CONN_VACANT || conn->state == CONN_DIALLING)
                return;
        r->client_id = c->client_id;
        memcpy(r->local, c->local, sizeof(r->local));
        if (conn->state != CONN_LEASED)
                return;
        struct tenant *holder = c->place->tenant;
        if (c->place->parked)
                r->state = LESSOR_CONNECTION_PARKED;
        r->since_ns = c->place->since;
        r->session = conn->session;
        r->lease = conn->lease;
        r->holder_pid = (int32_t)holder->program.pid;
        r->holder_uid = holder->uid;
        wire_string(r->holder, sizeof(r->holder), program_name(&holder->program));
        holders_note_site(c, r->site, &r->holder_tid);
}

void database_snapshot(struct database *db, struct lessor_status_database *ret,
                       struct lessor_status_connection *connections) {
        memset(ret, 0, sizeof(*ret));
        /* Once nothing of it is left, a removed database is a record without a name. */
        if (!database_removed(db) || pool_open(&db->pool) > 0)
                wire_string(ret->name, sizeof(ret->name), name_of(db));
        wire_string(ret->endpoint, sizeof(ret->endpoint), db->endpoint);
        wire_string(ret->last_error, sizeof(ret->last_error), db->last_error);
        uint64_t now = clock_now();
        holders_watch(db, now);
        database_advise(db);
        pipelines_sweep(db, now);
        snapshot_gauges(db, ret, now);
        snapshot_weather(db, ret, now);
        snapshot_counters(db, ret);
        snapshot_lanes(db, ret, now);
        snapshot_health(db, ret, now);
        manual_show(db, ret);
        for (unsigned i = 0; i < db->pool.places; i++)
                snapshot_connection(db, &db->connections[i], &connections[i]);
}

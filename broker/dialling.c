/* SPDX-License-Identifier: MIT */
/*
 * A database's connections from the dial to their end, and its circuit breaker for all to see: whenever the breaker has
 * changed it is written into the control page, where every worker of the host reads it without asking anybody.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "database_internal.h"
#include "log.h"

/* A reload may make a pool twice as large and a little more, without a restart: what is not used costs little. */
#define SPARE_PLACES 8U

#define HELD_NS NS_PER_S

unsigned dialling_places(const struct config_database *c) { return 2 * c->max_connections + SPARE_PLACES; }

struct pool_limits dialling_limits(const struct config_database *c) {
        return (struct pool_limits){.max_connections = c->max_connections,
                                    .places = dialling_places(c),
                                    .max_waiters = c->max_waiters,
                                    .max_pinned = c->max_pinned,
                                    .retry_base_ns = c->retry_base_ns,
                                    .retry_max_ns = c->retry_max_ns,
                                    .retry_attempts = c->retry_attempts,
                                    .breaker = {.failures = c->breaker_failures,
                                                .open_ns = c->breaker_open_time_ns,
                                                .early_probe = c->breaker_early_probe},
                                    .upkeep = {.health_ns = c->health_check_interval_ns,
                                               .idle_ns = c->idle_timeout_ns,
                                               .sweep_ns = c->idle_check_interval_ns,
                                               .lifetime_ns = c->max_lifetime_ns,
                                               .min_idle = c->min_idle}};
}

void dialling_trouble(const struct database *db, int outcome, char *text, size_t size) {
        bool open = outcome == LESSOR_E_BREAKER_OPEN, held = open && db->pool.breaker.held;
        snprintf(text, size, "database `%s` (%s): %s%s", name_of(db), db->endpoint,
                 held   ? "circuit breaker "
                 : open ? "circuit breaker open: "
                        : "",
                 held ? db->manual.breaker : db->last_error);
}

uint64_t dialling_retry_after(const struct database *db, uint64_t now) {
        const struct pool *pool = &db->pool;
        if (pool->breaker.held)
                return 0; /* nobody knows */
        uint64_t left = time_left(now, pool->breaker.state == BREAKER_OPEN ? pool->breaker.retry_at : pool->next_dial);
        return left > NS_PER_MS ? left : NS_PER_MS; /* it is due, or under way: soon. 0 would say that nobody knows */
}

static void connected(struct database *db, struct connection *c, const struct dial_result *result, uint64_t now) {
        if (db->pool.trouble)
                log_info("upstream: reachable again db=%s after=%s", name_of(db), LOG_QUOTE(db->last_error));
        c->client_id = result->client_id;
        memcpy(c->local, result->local, sizeof(c->local));
        db->trouble = LESSOR_TROUBLE_NONE;
        db->counters.last_success_time = clock_wall();
        pool_dialled(&db->pool, c->conn, now);
        db->pool.suspicious = db->ask_role; /* by a dial it has shown that it works, not whose it is */
        pool_retire_at(&db->pool, c->conn, upkeep_retirement(&db->pool.upkeep, now, arc4random()));
        log_debug("upstream: connected db=%s slot=%u local=%s client_id=%" PRIu64, name_of(db), c->conn->slot, c->local,
                  c->client_id);
}

static void failed(struct database *db, struct pool_conn *conn, int outcome, enum lessor_trouble trouble,
                   const char *text, uint64_t now) {
        database_note_error(db, text);
        db->trouble = trouble;
        pool_dial_failed(&db->pool, conn, outcome > 0 ? outcome : LESSOR_E_UPSTREAM, now, arc4random());
        log_warning("upstream: cannot connect db=%s endpoint=%s trouble=%s failures=%u retry_ms=%" PRIu64 " error=%s",
                    name_of(db), db->endpoint, lessor_trouble_word(trouble), db->pool.backoff.failures,
                    dialling_retry_after(db, now) / NS_PER_MS, LOG_QUOTE(db->last_error));
}

void dialling_done(struct connection *c, const struct dial_result *result) {
        struct database *db = c->database;
        uint64_t now = clock_now();
        enum lessor_trouble trouble = result->trouble;
        int outcome = result->outcome;

        if (outcome == LESSOR_OK && link_open(&c->link, db->o.loop->links, result->fd) < 0) {
                fd_close(result->fd);
                outcome = -ENOMEM;
                trouble = LESSOR_TROUBLE_BROKER;
        }
        if (outcome == LESSOR_OK)
                connected(db, c, result, now);
        else
                failed(db, c->conn, outcome, trouble, result->text[0] ? result->text : strerror(-outcome), now);
        database_pump(db, now);
}

static void on_dialled(void *userdata, const struct dial_result *result) {
        struct connection *c = userdata;
        c->dial = NULL;
        if (!learn_begin(c, result))
                dialling_done(c, result);
}

void dialling_start(struct database *db, struct pool_conn *conn, uint64_t now) {
        struct connection *c = connection_of(db, conn);
        int r = dial_start(db->o.loop->base, db->o.loop->resolver, &db->target, on_dialled, c, &c->dial);
        uint64_t began = clock_now();
        rate_began(&db->pool.rate, began);
        dial_meter_note(&db->dial_meter, began);
        if (r < 0)
                failed(db, conn, r, LESSOR_TROUBLE_BROKER, strerror(-r), now);
}

void dialling_lost(struct link *link) {
        struct connection *c = container_of(link, struct connection, link);
        struct database *db = c->database;
        uint64_t now = clock_now();
        log_debug("upstream: lost db=%s slot=%u local=%s", name_of(db), c->conn->slot, c->local);
        if (c->conn->state == CONN_LANE) {
                pipeline_lost(db, c, now);
                return;
        }
        handover_cancel(c);
        check_cancel(c->check);
        c->check = NULL;
        if (!c->conn->left)
                database_note_error(db, "the server closed an idle connection");
        pool_lost(&db->pool, c->conn, now);
        if (c->conn->state == CONN_LEASED) /* nobody is to take it again; one that is held will be returned */
                holders_recall(db, c->conn, now);
        database_pump(db, now);
}

void dialling_closed(struct link *link) {
        struct connection *c = container_of(link, struct connection, link);
        uint64_t now = clock_now();
        pool_closed(&c->database->pool, c->conn, now);
        database_pump(c->database, now);
}

static void log_breaker(const struct database *db, uint64_t now) {
        const struct breaker *b = &db->pool.breaker;
        switch (b->state) {
        case BREAKER_CLOSED:
                log_info("breaker: closed db=%s", name_of(db));
                break;
        case BREAKER_OPEN:
                if (b->held) {
                        log_warning("breaker: open by hand db=%s why=%s", name_of(db), LOG_QUOTE(db->manual.breaker));
                        break;
                }
                log_warning("breaker: open db=%s failures=%u retry_ms=%" PRIu64 " error=%s", name_of(db), b->failures,
                            time_left(now, b->retry_at) / NS_PER_MS, LOG_QUOTE(db->last_error));
                break;
        case BREAKER_HALF_OPEN:
                log_debug("breaker: half-open, probing db=%s", name_of(db));
                break;
        case BREAKER_STATES:
                break;
        }
}

void dialling_publish(struct database *db) {
        const struct breaker *b = &db->pool.breaker;
        struct control_breaker entry = {.retry_at = b->retry_at};
        uint64_t now;
        if (b->epoch == db->published_epoch && !b->held)
                return;
        now = clock_now();
        if (b->epoch != db->published_epoch)
                log_breaker(db, now);
        else if (now < db->held_until)
                return;
        db->published_epoch = b->epoch;
        /* One that is held is said again and again: workers believe a dead broker's word for a while, not for good. */
        if (b->held)
                entry.retry_at = db->held_until = now + HELD_NS;
        if (b->state != BREAKER_CLOSED)
                entry.state = b->state == BREAKER_OPEN ? LESSOR_BREAKER_OPEN : LESSOR_BREAKER_HALF_OPEN;
        dialling_trouble(db, LESSOR_E_BREAKER_OPEN, entry.text, sizeof(entry.text));
        control_page_set_breaker(db->o.page, db->o.index, &entry);
}

bool database_breaker_open(struct database *db) {
        uint64_t now = clock_now();
        if (!db->manual.breaker[0]) /* by whom, and why, is not known here */
                snprintf(db->manual.breaker, sizeof(db->manual.breaker), "open: by an administrator");
        bool changed = breaker_hold(&db->pool.breaker, now);
        database_pump(db, now);
        return changed;
}

bool database_breaker_close(struct database *db) {
        bool changed = breaker_reset(&db->pool.breaker);
        database_pump(db, clock_now());
        return changed;
}

bool database_breaker_reset(struct database *db) {
        bool changed = breaker_reset(&db->pool.breaker) || db->pool.trouble;
        pool_forgive(&db->pool);
        database_pump(db, clock_now());
        return changed;
}

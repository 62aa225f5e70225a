/* SPDX-License-Identifier: MIT */
/*
 * Every entry reads the clock, tells the pool what happened, and pumps: the pool says what is to be done until nothing
 * is left. What an action brings about later (a dial's end, a closed socket) comes back as an event of the loop, so that
 * nothing here is ever called from within itself.
 */
#include "database_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "log.h"
#include "peer/peer.h"

#define WAIT_MAX_NS (365 * 86400 * NS_PER_S) /* a year is for ever, and fits every timer */

static struct timeval timeval_of(uint64_t ns) {
        /* Rounded up: a timer that fires a microsecond early would be set again for nothing. */
        uint64_t us = (ns + NS_PER_US - 1) / NS_PER_US;
        return (struct timeval){.tv_sec = (time_t)(us / 1000000), .tv_usec = (suseconds_t)(us % 1000000)};
}

/* ---- answering requests --------------------------------------------------------------------------------------- */

static void request_free(struct database_request *request) {
        event_del(&request->timer);
        free(request);
}

static void refuse(struct database_request *request, int outcome, uint64_t retry_ns, const char *text) {
        request->database->o.ops->refused(request->database->o.loop, &request->caller, outcome, retry_ns, text);
        request_free(request);
}

/* The trouble that keeps requests waiting, as an answer. */
static void refuse_for_trouble(struct database_request *request, int outcome, uint64_t now) {
        struct database *db = request->database;
        char text[LESSOR_TEXT_SIZE];
        dialling_trouble(db, outcome, text, sizeof(text));
        refuse(request, outcome, dialling_retry_after(db, now), text);
}

static void refuse_exhausted(struct database_request *request, int outcome, uint64_t waited_ns) {
        struct database *db = request->database;
        char text[LESSOR_TEXT_SIZE];
        snprintf(text, sizeof(text),
                 "database `%s`: no connection within %" PRIu64 " ms: %u of max_connections %u in use, %u waiting; "
                 "`lessor leases` names the holders",
                 name_of(db), waited_ns / NS_PER_MS, db->pool.count[CONN_LEASED], db->pool.limits.max_connections,
                 db->pool.waiting);
        refuse(request, outcome, 0, text);
}

static void on_deadline(evutil_socket_t fd, short what, void *userdata) {
        struct database_request *request = userdata;
        struct database *db = request->database;
        uint64_t now = clock_now();
        bool would_not_wait = request->deadline == request->waiter.since;
        pool_cancel(&db->pool, &request->waiter);
        if (would_not_wait)
                db->counters.exhausted++;
        else
                db->counters.lease_timeouts++;
        /* Who waited in vain for a server that cannot be reached is told that, not that he waited. */
        if (db->pool.trouble)
                refuse_for_trouble(request, db->pool.trouble, now);
        else if (would_not_wait)
                refuse_exhausted(request, LESSOR_E_EXHAUSTED, 0);
        else
                refuse_exhausted(request, LESSOR_E_TIMEOUT, now - request->waiter.since);
        database_pump(db, now);
}

/* ---- carrying out the pool's actions --------------------------------------------------------------------------- */

/* Who does not wait at all has a timer of 0: it fires in the next turn, after what is free has been handed out. */
static void set_timer(struct database_request *request, uint64_t now) {
        uint64_t left = time_left(now, request->deadline);
        struct timeval wait = timeval_of(left < WAIT_MAX_NS ? left : WAIT_MAX_NS);
        event_add(&request->timer, &wait);
}

static void grant(struct database *db, struct pool_conn *conn, struct pool_waiter *waiter, uint64_t now) {
        struct connection *c = connection_of(db, conn);
        struct database_request *request = container_of(waiter, struct database_request, waiter);
        enum link_state state = link_peek(&c->link);
        union wire_message message;

        if (state != LINK_QUIET) {
                pool_ungrant(&db->pool, conn, waiter, state == LINK_STRAY ? POOL_DISCARD_STRAY : POOL_DISCARD_LOST,
                             now);
                set_timer(request, now); /* it may have none: see database_lease() */
                return;
        }
        wire_init(&message, LESSOR_MSG_GRANT, request->caller.request);
        message.grant.database = db->o.index;
        message.grant.slot = conn->slot;
        message.grant.generation = conn->generation;
        message.grant.lease = conn->lease;
        message.grant.client_id = c->client_id;
        c->holder = request->caller;
        db->counters.last_lease_time = clock_wall();
        db->o.ops->granted(db->o.loop, &request->caller, &message, c->link.fd);
        request_free(request);
}

static void carry_out(struct database *db, const struct pool_action *action, uint64_t now) {
        switch (action->type) {
        case POOL_NOTHING:
                break;
        case POOL_GRANT:
                grant(db, action->conn, action->waiter, now);
                break;
        case POOL_FAIL:
                refuse_for_trouble(container_of(action->waiter, struct database_request, waiter), action->outcome, now);
                break;
        case POOL_DIAL:
                dialling_start(db, action->conn, now);
                break;
        case POOL_CHECK:
                upkeep_check(db, action->conn, now);
                break;
        case POOL_CLOSE:
                link_close(&connection_of(db, action->conn)->link);
                break;
        }
}

/* A timer that fires too early is set again then: cheaper than moving it with every lease. */
static void set_wake(struct database *db, uint64_t now) {
        uint64_t at = pool_wakeup(&db->pool);
        if (at >= db->wake_at)
                return;
        uint64_t left = time_left(now, at);
        struct timeval pause = timeval_of(left < WAIT_MAX_NS ? left : WAIT_MAX_NS);
        db->wake_at = at;
        event_add(&db->wake, &pause);
}

void database_pump(struct database *db, uint64_t now) {
        struct pool_action action;
        while ((action = pool_next(&db->pool, now)).type != POOL_NOTHING)
                carry_out(db, &action, now);
        set_wake(db, now);
        dialling_publish(db);
}

static void on_wake(evutil_socket_t fd, short what, void *userdata) {
        struct database *db = userdata;
        db->wake_at = TIME_NEVER;
        database_pump(db, clock_now());
}

/* ---- what sessions ask ----------------------------------------------------------------------------------------- */

void database_lease(struct database_request *request) {
        struct database *db = request->database;
        uint64_t now = clock_now();
        uint64_t wait_ns = request->wait_ns == LESSOR_WAIT_DEFAULT ? db->o.config->wait_timeout_ns : request->wait_ns;

        evtimer_assign(&request->timer, db->o.loop->base, on_deadline, request);
        request->deadline = time_after(now, wait_ns);
        int r = pool_lease(&db->pool, &request->waiter, request->caller.session, now);
        if (r == LESSOR_E_EXHAUSTED) {
                db->counters.exhausted++;
                refuse_exhausted(request, r, 0);
                return;
        }
        if (r > 0) {
                refuse_for_trouble(request, r, now);
                return;
        }
        /* Alone in the queue before a free connection: served at once, and without a timer. */
        if (db->pool.waiting > 1 || !db->pool.count[CONN_FREE])
                set_timer(request, now);
        database_pump(db, now);
}

void database_cancel(struct database *db, uint64_t session, uint64_t number) {
        list_for_each (&db->pool.queue, it) {
                struct database_request *request =
                        container_of(container_of(it, struct pool_waiter, link), struct database_request, waiter);
                if (request->caller.session != session || request->caller.request != number)
                        continue;
                pool_cancel(&db->pool, &request->waiter);
                db->counters.cancelled++;
                refuse(request, LESSOR_E_CANCELLED, 0, "taken back by the worker");
                database_pump(db, clock_now());
                return;
        }
}

/* The connection that (slot, generation, lease) of a message names, if it is this session's lease; else NULL. */
static struct connection *find_lease(struct database *db, uint64_t session, uint32_t slot, uint64_t generation,
                                     uint64_t lease) {
        if (slot >= db->pool.limits.max_connections)
                return NULL;
        struct pool_conn *conn = &db->pool.conns[slot];
        bool his = conn->state == CONN_LEASED && conn->session == session && conn->generation == generation &&
                   conn->lease == lease;
        return his ? connection_of(db, conn) : NULL;
}

void database_return(struct database *db, struct loop *home, uint64_t session, const struct lessor_msg_return *msg) {
        struct connection *c = find_lease(db, session, msg->slot, msg->generation, msg->lease);
        uint64_t now = clock_now();
        if (!c) {
                db->o.ops->violated(db->o.loop, home, session, "RETURN of a lease that is not this session's");
                return;
        }
        bool clean = msg->flags & LESSOR_RETURN_CLEAN && msg->requests == msg->replies;
        pool_return(&db->pool, c->conn, clean ? POOL_RETURN_CLEAN : POOL_RETURN_DIRTY, now);
        database_pump(db, now);
}

void database_report(struct database *db, struct loop *home, uint64_t session, const struct lessor_msg_report *msg) {
        struct connection *c = find_lease(db, session, msg->slot, msg->generation, msg->lease);
        if (!c) {
                db->o.ops->violated(db->o.loop, home, session, "REPORT on a lease that is not this session's");
                return;
        }
        /* Evidence, never authority: it is counted and shown; the broker judges by what it sees itself. */
        db->counters.reports++;
        log_debug("report: db=%s slot=%u pid=%d kind=%u error=%d", name_of(db), msg->slot, (int)c->holder.pid,
                  msg->kind, msg->error);
        upkeep_report(db, (enum lessor_report)msg->kind);
}

void database_session_ended(struct database *db, uint64_t session) {
        uint64_t now = clock_now();
        list_for_each_safe (&db->pool.queue, it, next) {
                struct database_request *request =
                        container_of(container_of(it, struct pool_waiter, link), struct database_request, waiter);
                if (request->caller.session != session)
                        continue;
                pool_cancel(&db->pool, &request->waiter);
                db->counters.cancelled++;
                request_free(request);
        }
        for (unsigned slot = 0; slot < db->pool.limits.max_connections; slot++) {
                struct pool_conn *conn = &db->pool.conns[slot];
                if (conn->state != CONN_LEASED || conn->session != session)
                        continue;
                const struct database_caller *holder = &db->connections[slot].holder;
                log_info("lease: taken back, its session has ended db=%s slot=%u pid=%d program=%s site=%s "
                         "held_ms=%" PRIu64,
                         name_of(db), slot, (int)holder->pid, LOG_QUOTE(holder->program), LOG_QUOTE(holder->site),
                         (now - conn->since) / NS_PER_MS);
                pool_return(&db->pool, conn, POOL_RETURN_HOLDER, now);
        }
        database_pump(db, now);
}

bool database_allows(struct database *db, const struct peer *peer) {
        const struct config_allow *allow = &db->o.config->allow;
        if (allow->everyone)
                return true;
        for (unsigned i = 0; i < allow->uids.n; i++)
                if (allow->uids.ids[i] == peer->cred.uid)
                        return true;
        for (unsigned i = 0; i < allow->gids.n; i++)
                if (peer_in_group(peer, allow->gids.ids[i]))
                        return true;
        atomic_fetch_add_explicit(&db->denied, 1, memory_order_relaxed);
        return false;
}

/* ---- birth and end ---------------------------------------------------------------------------------------------- */

unsigned database_index(const struct database *db) { return db->o.index; }
struct loop *database_loop(const struct database *db) {
        return db->o.loop;
}
const struct config_database *database_config(const struct database *db) { return db->o.config; }

static void describe_endpoint(struct database *db) {
        const struct config_database *c = db->o.config;
        if (c->unix_socket)
                snprintf(db->endpoint, sizeof(db->endpoint), "unix:%s/%u", c->unix_socket, c->db);
        else
                snprintf(db->endpoint, sizeof(db->endpoint), strchr(c->host, ':') ? "[%s]:%u/%u" : "%s:%u/%u", c->host,
                         c->port, c->db);
}

static void set_target(struct database *db) {
        const struct config_database *c = db->o.config;
        snprintf(db->client_name, sizeof(db->client_name), "lessor:%s:%s", db->o.instance, c->name);
        db->target = (struct upstream_target){.host = c->host,
                                              .port = c->port,
                                              .unix_socket = c->unix_socket,
                                              .username = c->username,
                                              .password = c->password,
                                              .db = c->db,
                                              .client_name = db->client_name,
                                              .keepalive = c->socket_keepalive,
                                              .connect_timeout_ns = c->socket_connect_timeout_ns};
}

int database_new(const struct database_options *options, struct database **ret) {
        const struct config_database *c = options->config;
        struct pool_limits limits = dialling_limits(c);
        struct database *db = calloc(1, sizeof(*db));
        struct connection *connections = calloc(c->max_connections, sizeof(*connections));

        /* Lease numbers are never reused by an instance, nor by the next one of its name: the generation is a wall-clock time. */
        if (!db || !connections || pool_init(&db->pool, &limits, options->generation, clock_now()) < 0) {
                free(connections);
                free(db);
                return -ENOMEM;
        }
        db->o = *options;
        db->connections = connections;
        evtimer_assign(&db->wake, options->loop->base, on_wake, db);
        for (unsigned i = 0; i < c->max_connections; i++) {
                connections[i].database = db;
                connections[i].conn = &db->pool.conns[i];
                link_init(&connections[i].link, dialling_lost, dialling_closed);
        }
        set_target(db);
        describe_endpoint(db);
        db->wake_at = TIME_NEVER;
        event_active(&db->wake, EV_TIMEOUT, 0); /* min_idle is dialled for before anybody asks */
        *ret = db;
        return 0;
}

void database_free(struct database *db) {
        if (!db)
                return;
        list_for_each_safe (&db->pool.queue, it, next)
                request_free(container_of(container_of(it, struct pool_waiter, link), struct database_request, waiter));
        for (unsigned i = 0; i < db->pool.limits.max_connections; i++) {
                dial_cancel(db->connections[i].dial);
                check_cancel(db->connections[i].check);
                link_drop(&db->connections[i].link);
        }
        event_del(&db->wake);
        pool_deinit(&db->pool);
        free(db->connections);
        free(db);
}

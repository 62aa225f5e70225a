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

void database_note_error(struct database *db, const char *text) {
        snprintf(db->last_error, sizeof(db->last_error), "%s", text);
        db->counters.last_error_time = clock_wall();
}

/* ---- answering requests --------------------------------------------------------------------------------------- */

void request_mail(struct database_request *request) {
        if (request->ticket != LESSOR_TICKET_NONE)
                session_memory_mail(request->tenant->memory, request->ticket);
        request->ticket = LESSOR_TICKET_NONE;
}

void request_free(struct database_request *request) {
        request_mail(request);
        event_del(&request->timer);
        free(request);
}

void request_refuse(struct database_request *request, int outcome, uint64_t retry_ns, const char *text) {
        struct database *db = request->database;
        union wire_message message;
        wire_init(&message, LESSOR_MSG_ERROR, request->number);
        message.error.outcome = outcome;
        message.error.retry_ns = retry_ns;
        wire_string(message.error.text, sizeof(message.error.text), text);
        request_mail(request);
        db->o.ops->refused(db->o.loop, request->tenant, &message);
        request_free(request);
}

/* The trouble that keeps requests waiting, as an answer. */
static void refuse_for_trouble(struct database_request *request, int outcome, uint64_t now) {
        struct database *db = request->database;
        char text[LESSOR_TEXT_SIZE];
        dialling_trouble(db, outcome, text, sizeof(text));
        request_refuse(request, outcome, dialling_retry_after(db, now), text);
}

static void refuse_held(struct database_request *request, int outcome, uint64_t waited_ns) {
        struct database *db = request->database;
        char text[LESSOR_TEXT_SIZE];
        snprintf(text, sizeof(text), "database `%s` is %s; no connection within %" PRIu64 " ms, %u waiting",
                 name_of(db), db->manual.held, waited_ns / NS_PER_MS, db->pool.waiting);
        request_refuse(request, outcome, 0, text);
}

static void refuse_exhausted(struct database_request *request, int outcome, uint64_t waited_ns) {
        struct database *db = request->database;
        char text[LESSOR_TEXT_SIZE], what[96] = "";
        if (db->pool.hold) {
                refuse_held(request, outcome, waited_ns);
                return;
        }
        switch (pool_limit(&db->pool, &request->waiter)) {
        case POOL_LIMIT_NONE:
                snprintf(what, sizeof(what), "%u of max_connections %u in use", db->pool.count[CONN_LEASED],
                         db->pool.limits.max_connections);
                break;
        case POOL_LIMIT_PINNED:
                snprintf(what, sizeof(what), "%u of max_pinned %u held by those who block", db->pool.pinned,
                         db->pool.limits.max_pinned);
                break;
        case POOL_LIMIT_USER:
                snprintf(what, sizeof(what), "uid %u holds %u of max_leases_per_user %u", request->tenant->uid,
                         request->waiter.account->leased, request->waiter.account->max_leased);
                break;
        }
        db->counters.wanting += pool_open(&db->pool) >= db->pool.limits.max_connections;
        snprintf(text, sizeof(text),
                 "database `%s`: no connection within %" PRIu64
                 " ms: %s, %u waiting; `lessor leases` names the holders",
                 name_of(db), waited_ns / NS_PER_MS, what, db->pool.waiting);
        request_refuse(request, outcome, 0, text);
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
        if (db->pool.trouble && !db->pool.hold)
                refuse_for_trouble(request, db->pool.trouble, now);
        else if (would_not_wait)
                refuse_exhausted(request, LESSOR_E_EXHAUSTED, 0);
        else
                refuse_exhausted(request, LESSOR_E_TIMEOUT, now - request->waiter.since);
        database_pump(db, now);
}

/* ---- carrying out the pool's actions --------------------------------------------------------------------------- */

void request_set_timer(struct database_request *request, uint64_t now) {
        uint64_t left = time_left(now, request->deadline);
        struct timeval wait = timeval_of(left < WAIT_MAX_NS ? left : WAIT_MAX_NS);
        event_add(&request->timer, &wait);
}

static void carry_out(struct database *db, const struct pool_action *action, uint64_t now) {
        switch (action->type) {
        case POOL_NOTHING:
                break;
        case POOL_GRANT:
                holders_grant(db, action->conn, action->waiter, now);
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
        case POOL_RESET:
                handover_reset(db, action->conn, now);
                break;
        case POOL_RECALL:
                holders_recall(db, action->conn, now);
                break;
        case POOL_UNWANT:
                holders_unwant(db, action->conn);
                break;
        case POOL_LANE:
                pipeline_up(db, connection_of(db, action->conn), now);
                break;
        case POOL_DRAIN:
                pipeline_drain(db, connection_of(db, action->conn), now);
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

static struct pool_account *account_of(struct database *db, uid_t uid) {
        const struct config_database *config = db->o.config;
        list_for_each (&db->accounts, it) {
                struct account *a = container_of(it, struct account, link);
                if (a->uid == uid)
                        return &a->account;
        }
        struct account *a = calloc(1, sizeof(*a));
        if (!a)
                return NULL;
        *a = (struct account){
                .uid = uid,
                .account = {.max_leased = config->max_leases_per_user, .max_waiting = config->max_waiters_per_user}};
        list_push_back(&db->accounts, &a->link);
        return &a->account;
}

/* His first request: from now on he is the database's. */
static int move_in(struct database *db, struct tenant *tenant) {
        tenant->account = account_of(db, tenant->uid);
        if (!tenant->account)
                return -ENOMEM;
        list_push_back(&db->tenants, &tenant->link);
        return 0;
}

static void refuse_limited(struct database_request *request, unsigned limit) {
        char text[LESSOR_TEXT_SIZE];
        snprintf(text, sizeof(text), "database `%s`: uid %u has max_waiters_per_user (%u) requests waiting",
                 name_of(request->database), request->tenant->uid, limit);
        request_refuse(request, LESSOR_E_LIMIT, 0, text);
}

static bool advises(const struct database *db) {
        return db->o.lanes && db->o.config->path == CONFIG_ROUTE_AUTO &&
               db->pool.limits.max_connections >= ADVICE_POOL_MIN;
}

/* Does he wait for others to give something back? */
static void advise_of_wait(struct database *db) {
        if (pool_open(&db->pool) >= db->pool.limits.max_connections && advice_wait(&db->advice, advises(db)))
                database_publish_path(db);
}

void database_publish_path(struct database *db) {
        control_page_set_path(db->o.page, db->o.index, db->advice.path);
        log_debug("path: %s db=%s",
                  db->advice.path == LESSOR_PATH_LANE     ? "by lane, many are active"
                  : db->advice.path == LESSOR_PATH_DIRECT ? "direct, few are active"
                                                          : "by lease",
                  name_of(db));
}

void database_advise(struct database *db) {
        static const enum lessor_path fixed[] = {[CONFIG_ROUTE_AUTO] = LESSOR_PATH_DIRECT,
                                                 [CONFIG_ROUTE_LEASE] = LESSOR_PATH_LEASE,
                                                 [CONFIG_ROUTE_LANE] = LESSOR_PATH_LANE};
        /* Of a single connection there is none to keep for lanes. */
        bool lanes = db->o.lanes && db->pool.limits.max_connections > 1;
        enum config_route route = lanes ? db->o.config->path : CONFIG_ROUTE_LEASE;
        bool set = !advises(db) || db->advice.path == LESSOR_PATH_LEASE;
        if (advice_look(&db->advice, db->direct_busy, db->pool.limits.max_connections, advises(db)) ||
            (set && advice_set(&db->advice, fixed[route])))
                database_publish_path(db);
        db->direct_busy = 0;
}

void database_lease(struct database_request *request) {
        struct database *db = request->database;
        uint64_t now = clock_now();
        uint64_t wait_ns = request->wait_ns == LESSOR_WAIT_DEFAULT ? db->o.config->wait_timeout_ns : request->wait_ns;

        evtimer_assign(&request->timer, db->o.loop->base, on_deadline, request);
        request->deadline = time_after(now, wait_ns);
        if (!request->tenant->account && move_in(db, request->tenant) < 0) {
                request_refuse(request, LESSOR_E_LIMIT, 0, "the broker is out of memory");
                return;
        }
        request->waiter.session = request->tenant->session;
        request->waiter.account = request->tenant->account;
        request->waiter.pinned = request->pinned;
        int r = pool_lease(&db->pool, &request->waiter, now);
        if (r == LESSOR_E_EXHAUSTED) {
                db->counters.exhausted++;
                refuse_exhausted(request, r, 0);
                return;
        }
        if (r == LESSOR_E_LIMIT) {
                db->counters.exhausted++;
                refuse_limited(request, request->waiter.account->max_waiting);
                return;
        }
        if (r > 0) {
                refuse_for_trouble(request, r, now);
                return;
        }
        if (db->pool.waiting > 1 || !db->pool.count[CONN_FREE])
                advise_of_wait(db);
        /* Who is served at once needs no timer; whoever is not, whatever the reason, is still the last in the queue. */
        const struct list *last = &request->waiter.link;
        database_pump(db, now);
        if (list_last(&db->pool.queue) == last)
                request_set_timer(request, now);
}

void database_cancel(struct database *db, struct tenant *tenant, uint64_t number) {
        list_for_each (&db->pool.queue, it) {
                struct database_request *request =
                        container_of(container_of(it, struct pool_waiter, link), struct database_request, waiter);
                if (request->tenant != tenant || request->number != number)
                        continue;
                pool_cancel(&db->pool, &request->waiter);
                db->counters.cancelled++;
                request_refuse(request, LESSOR_E_CANCELLED, 0, "taken back by the worker");
                database_pump(db, clock_now());
                return;
        }
}

bool database_allows(struct database *db, const struct peer *peer) {
        const struct config_allow *allow = &database_config(db)->allow;
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

bool database_admits(struct database *db, const struct peer_identity *who) {
        const struct config_allow *allow = &database_config(db)->allow;
        if (allow->everyone)
                return true;
        for (unsigned i = 0; i < allow->uids.n; i++)
                if (allow->uids.ids[i] == who->uid)
                        return true;
        for (unsigned i = 0; i < allow->gids.n; i++)
                for (unsigned j = 0; j < who->n_groups; j++)
                        if (who->groups[j] == allow->gids.ids[i])
                                return true;
        atomic_fetch_add_explicit(&db->denied, 1, memory_order_relaxed);
        return false;
}

/* ---- birth and end ---------------------------------------------------------------------------------------------- */

unsigned database_index(const struct database *db) { return db->o.index; }
struct loop *database_loop(const struct database *db) {
        return db->o.loop;
}
unsigned database_places(const struct database *db) { return db->pool.places; }
bool database_removed(const struct database *db) { return atomic_load_explicit(&db->removed, memory_order_acquire); }

const struct config_database *database_config(const struct database *db) {
        /* Pairs with the release in database_reconfigure(): what it points to is complete. */
        return __atomic_load_n(&db->o.config, __ATOMIC_ACQUIRE);
}

int database_new(const struct database_options *options, struct database **ret) {
        const struct config_database *c = options->config;
        struct pool_limits limits = dialling_limits(c);
        unsigned places = limits.places;
        struct database *db = calloc(1, sizeof(*db));
        struct connection *connections = calloc(places, sizeof(*connections));

        /* Lease numbers are never reused by an instance, nor by the next one of its name: the generation is a wall-clock time. */
        if (!db || !connections || pool_init(&db->pool, &limits, options->generation, clock_now()) < 0) {
                free(connections);
                free(db);
                return -ENOMEM;
        }
        db->o = *options;
        db->connections = connections;
        list_init(&db->tenants);
        list_init(&db->accounts);
        evtimer_assign(&db->wake, options->loop->base, on_wake, db);
        pipelines_init(db, options->lanes);
        for (unsigned i = 0; i < places; i++) {
                connections[i].database = db;
                connections[i].conn = &db->pool.conns[i];
                link_init(&connections[i].link, dialling_lost, dialling_closed);
        }
        db->wake_at = TIME_NEVER;
        if (reconfigure_target(db, c) < 0) {
                database_free(db);
                return -ENOMEM;
        }
        *ret = db;
        return 0;
}

void database_start(struct database *db) { database_pump(db, clock_now()); }

void database_cut(struct database *db) {
        for (unsigned i = 0; i < db->pool.places; i++)
                link_cut(&db->connections[i].link);
}

void database_free(struct database *db) {
        if (!db)
                return;
        list_for_each_safe (&db->pool.queue, it, next)
                request_free(container_of(container_of(it, struct pool_waiter, link), struct database_request, waiter));
        pipelines_deinit(db);
        for (unsigned i = 0; i < db->pool.places; i++) {
                dial_cancel(db->connections[i].dial);
                handover_cancel(&db->connections[i]);
                check_cancel(db->connections[i].check);
                learn_cancel(&db->connections[i]);
                link_drop(&db->connections[i].link);
        }
        list_for_each_safe (&db->tenants, it, next)
                tenant_free(container_of(it, struct tenant, link));
        list_for_each_safe (&db->accounts, it, next)
                free(container_of(it, struct account, link));
        event_del(&db->wake);
        reconfigure_free_target(db);
        pool_deinit(&db->pool);
        free(db->connections);
        free(db);
}

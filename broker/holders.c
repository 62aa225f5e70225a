/* SPDX-License-Identifier: MIT */
/*
 * Leases from the grant to their end: the broker's side of the lease words (base/word.h). Whose a connection is stands
 * in the ledger (tenant.h); what a word says decides only what the worker that can write it may suffer from.
 *
 * A lease ends by RETURN, by recall (the word was parked: the broker takes it by compare-and-swap), by revocation, or with
 * its session. The word is VACANT before the connection goes anywhere else.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/histogram.h"
#include "database_internal.h"
#include "log.h"

/* No process retakes more often: what grows faster is garbage. */
#define RETAKES_PER_US_MAX 200U

/* ---- what the words say ------------------------------------------------------------------------------------------ */

static uint64_t load(lessor_atomic64 *word) { return atomic_load_explicit(word, memory_order_relaxed); }

/* Warm leases since the last look. */
static void count_retakes(struct database *db, struct place *p, struct lessor_slot *slot, uint64_t now) {
        uint64_t retakes = load(&slot->retakes), grown = retakes - p->retakes;
        p->retakes = retakes;
        if (grown <= ((now - p->since) / NS_PER_US + 1000) * RETAKES_PER_US_MAX)
                db->counters.warm_leases += grown;
        db->direct_busy += grown >= ADVICE_BUSY_CALLS;
}

/* Has the lease changed hands since we last looked? Not once it is wanted: no worker may change the word then. */
static void look(struct database *db, struct connection *c, uint64_t now) {
        struct place *p = c->place;
        struct lessor_slot *slot = place_slot(p);
        if (!slot)
                return;
        uint64_t value = load(&slot->word);
        bool parked = word_state(value) == WORD_STATE_PARKED;
        count_retakes(db, p, slot, now);
        if (p->frozen || (word_sequence(value) == p->sequence && parked == p->parked))
                return;
        p->sequence = word_sequence(value);
        p->parked = parked;
        p->since = now;
        p->warned = false;
}

void holders_note_site(const struct connection *c, char site[LESSOR_SITE_SIZE], int32_t *ret_tid) {
        struct lessor_slot *slot = place_slot(c->place);
        uint32_t number = slot ? atomic_load_explicit(&slot->site, memory_order_relaxed) : 0;
        *ret_tid = c->tid;
        memcpy(site, c->site, LESSOR_SITE_SIZE);
        if (!number)
                return;
        *ret_tid = (int32_t)atomic_load_explicit(&slot->tid, memory_order_relaxed);
        session_memory_site(c->place->tenant->memory, number, site);
}

/* ---- the beginning ------------------------------------------------------------------------------------------------ */

static void write_word(struct database *db, struct connection *c, union wire_message *message) {
        struct place *p = c->place;
        struct lessor_slot *slot = place_slot(p);
        if (!slot)
                return;
        uint64_t sequence = word_next_sequence(&slot->word);
        atomic_store_explicit(&slot->site, 0, memory_order_relaxed);
        p->retakes = load(&slot->retakes);
        p->sequence = message->grant.sequence = sequence;
        if (!word_grant(&slot->word, c->conn->generation, sequence))
                db->o.ops->violated(db->o.loop, p->tenant, "a lease word that was vacant had been written to");
}

static void fill_grant(struct database *db, struct connection *c, const struct database_request *request,
                       union wire_message *message) {
        const struct pool_conn *conn = c->conn;
        wire_init(message, LESSOR_MSG_GRANT, request->number);
        message->grant.database = db->o.index;
        message->grant.slot = conn->slot;
        message->grant.generation = conn->generation;
        message->grant.lease = conn->lease;
        message->grant.client_id = c->client_id;
        message->grant.word = c->place->word;
        message->grant.flags = c->place->kept ? LESSOR_GRANT_KEPT : 0;
        message->grant.forget = tenant_forget(request->tenant, db->o.fd_cache);
        write_word(db, c, message);
}

void holders_grant(struct database *db, struct pool_conn *conn, struct pool_waiter *waiter, uint64_t now) {
        struct connection *c = connection_of(db, conn);
        struct database_request *request = container_of(waiter, struct database_request, waiter);
        enum link_state state = link_peek(&c->link);
        union wire_message message;

        if (state != LINK_QUIET) {
                pool_ungrant(&db->pool, conn, waiter, state == LINK_STRAY ? POOL_DISCARD_STRAY : POOL_DISCARD_LOST,
                             now);
                request_set_timer(request, now); /* it may have none: see database_lease() */
                return;
        }
        c->place = tenant_grant(request->tenant, conn, db->o.fd_cache);
        if (!c->place) {
                pool_return(&db->pool, conn, POOL_RETURN_CLEAN, now);
                request_refuse(request, LESSOR_E_LIMIT, 0, "the broker is out of memory");
                return;
        }
        c->place->since = now;
        c->tid = request->tid;
        memcpy(c->site, request->site, sizeof(c->site));
        fill_grant(db, c, request, &message);
        db->counters.last_lease_time = clock_wall();
        if (c->place->kept && request->ticket != LESSOR_TICKET_NONE) {
                session_memory_grant(request->tenant->memory, request->ticket, &message.grant);
                request->ticket = LESSOR_TICKET_NONE;
        } else {
                request_mail(request);
                db->o.ops->granted(db->o.loop, request->tenant, &message, c->place->kept ? -1 : c->link.fd);
        }
        request_free(request);
}

/* ---- the end ------------------------------------------------------------------------------------------------------ */

/* kept: the worker keeps his fd. */
static void end_lease(struct database *db, struct connection *c, enum pool_return how, bool kept, uint64_t now) {
        struct place *p = c->place;
        struct lessor_slot *slot = place_slot(p);
        if (slot)
                word_vacate(&slot->word);
        /* With a word the worker measures it: he alone knows when he parked it. */
        if (slot)
                count_retakes(db, p, slot, now);
        else
                histogram_add(&db->pool.stats.hold_time, now - c->conn->since);
        c->place = NULL;
        pool_return(&db->pool, c->conn, how, now);
        if (how == POOL_RETURN_REVOKED)
                tenant_ended(p);
        else
                tenant_returned(p, kept);
}

void database_return(struct database *db, struct tenant *tenant, const struct lessor_msg_return *msg) {
        struct place *p = tenant_find(tenant, msg->slot, msg->generation, msg->lease);
        bool kept = msg->flags & LESSOR_RETURN_KEPT;
        uint64_t now = clock_now();
        if (!p) {
                db->o.ops->violated(db->o.loop, tenant, "RETURN of a lease that is not this session's");
                return;
        }
        if (p->state == PLACE_ENDED) {
                tenant_returned(p, kept);
                return;
        }
        end_lease(db, &db->connections[p->slot], handover_grade(db, msg), kept, now);
        database_pump(db, now);
}

void database_report(struct database *db, struct tenant *tenant, const struct lessor_msg_report *msg) {
        if (!tenant_find(tenant, msg->slot, msg->generation, msg->lease)) {
                db->o.ops->violated(db->o.loop, tenant, "REPORT on a lease that is not this session's");
                return;
        }
        /* Evidence, never authority: it is counted and shown; the broker judges by what it sees itself. */
        db->counters.reports++;
        log_debug("report: db=%s slot=%u pid=%d kind=%u error=%d", name_of(db), msg->slot, (int)tenant->program.pid,
                  msg->kind, msg->error);
        upkeep_report(db, (enum lessor_report)msg->kind);
}

void holders_recall(struct database *db, struct pool_conn *conn, uint64_t now) {
        struct connection *c = connection_of(db, conn);
        struct lessor_slot *slot = place_slot(c->place);
        if (!slot)
                return; /* leased by messages alone: he returns it when he does */
        switch (word_recall(&slot->word, conn->generation)) {
        case WORD_RECALLED:
                end_lease(db, c, POOL_RETURN_RECALLED, true, now);
                break;
        case WORD_WANTED:
                look(db, c, now);
                c->place->frozen = true;
                break;
        case WORD_BAD: /* all he has is taken back when his session ends, in a moment */
                c->place->tenant->bad = true;
                db->o.ops->violated(db->o.loop, c->place->tenant, "a lease word holds what no worker may write");
                break;
        }
}

void holders_unwant(struct database *db, struct pool_conn *conn) {
        struct connection *c = connection_of(db, conn);
        struct lessor_slot *slot = place_slot(c->place);
        if (slot && !conn->lost && word_unwant(&slot->word, conn->generation))
                c->place->frozen = false;
}

/* ---- too long ------------------------------------------------------------------------------------------------------ */

static void describe(const struct connection *c, uint64_t now, char *to, size_t size) {
        struct tenant *t = c->place->tenant;
        char site[LESSOR_SITE_SIZE];
        int32_t tid;
        holders_note_site(c, site, &tid);
        snprintf(to, size, "slot=%u pid=%d tid=%d program=%s site=%s held_ms=%" PRIu64, c->conn->slot,
                 (int)t->program.pid, (int)tid, LOG_QUOTE(program_name(&t->program)), LOG_QUOTE(site),
                 (now - c->place->since) / NS_PER_MS);
}

/*
 * Nothing can be cut off that is parked, or has changed hands in this very moment: nobody would return it, and its word
 * would be lost. So it is recalled first, which holds the word still.
 */
static void cut_off(struct database *db, struct connection *c, uint64_t now) {
        struct place *p = c->place;
        uint64_t since = p->since;
        char who[512];
        describe(c, now, who, sizeof(who));
        holders_recall(db, c->conn, now);
        if (c->place != p || p->tenant->bad) /* it was parked; or his session ends, in a moment */
                return;
        if (p->since != since) {
                if (!c->conn->wanted)
                        holders_unwant(db, c->conn);
                return;
        }
        log_warning("lease: cut off, held for longer than lease_timeout db=%s %s", name_of(db), who);
        end_lease(db, c, POOL_RETURN_REVOKED, false, now);
}

bool holders_kill(struct database *db, struct connection *c, uint64_t now, char *who, size_t size) {
        struct place *p = c->place;
        look(db, c, now);
        describe(c, now, who, size);
        holders_recall(db, c->conn, now);
        if (c->place != p)
                return false;
        if (!p->tenant->bad) /* else his session ends, in a moment, and all he has with it */
                end_lease(db, c, POOL_RETURN_REVOKED, false, now);
        return true;
}

static void judge(struct database *db, struct connection *c, uint64_t now) {
        const struct config_database *config = db->o.config;
        uint64_t held = now - c->place->since;
        char who[512];
        if (c->place->parked) {
                upkeep_parked(db, c, now);
                return;
        }
        if (config->lease_timeout_ns && held > config->lease_timeout_ns) {
                cut_off(db, c, now);
        } else if (config->lease_warn_ns && held > config->lease_warn_ns && !c->place->warned) {
                describe(c, now, who, sizeof(who));
                log_warning("lease: held for longer than lease_warn db=%s %s", name_of(db), who);
                c->place->warned = true;
                db->counters.overdue++;
        }
}

void holders_watch(struct database *db, uint64_t now) {
        list_for_each_safe (&db->pool.by_state[CONN_LEASED], it, next) {
                struct connection *c = connection_of(db, container_of(it, struct pool_conn, link));
                look(db, c, now);
                judge(db, c, now);
        }
        database_pump(db, now);
}

/* ---- the end of a session ------------------------------------------------------------------------------------------ */

static void drop_requests(struct database *db, const struct tenant *tenant) {
        list_for_each_safe (&db->pool.queue, it, next) {
                struct database_request *request =
                        container_of(container_of(it, struct pool_waiter, link), struct database_request, waiter);
                if (request->tenant != tenant)
                        continue;
                pool_cancel(&db->pool, &request->waiter);
                db->counters.cancelled++;
                request_free(request);
        }
}

/* What he had parked was clean and in nobody's hands; what he held may be in the middle of anything. */
static void reclaim(struct database *db, struct connection *c, uint64_t now) {
        struct lessor_slot *slot = place_slot(c->place);
        char who[512];
        look(db, c, now);
        if (slot && !c->place->tenant->bad && word_recall(&slot->word, c->conn->generation) == WORD_RECALLED) {
                end_lease(db, c, POOL_RETURN_RECALLED, false, now);
                return;
        }
        describe(c, now, who, sizeof(who));
        log_info("lease: taken back, its session has ended db=%s %s", name_of(db), who);
        end_lease(db, c, POOL_RETURN_HOLDER, false, now);
}

void database_session_ended(struct database *db, struct tenant *tenant) {
        uint64_t now = clock_now();
        drop_requests(db, tenant);
        list_for_each_safe (&tenant->places[PLACE_BUSY], it, next)
                reclaim(db, &db->connections[container_of(it, struct place, link)->slot], now);
        list_remove(&tenant->link);
        tenant_free(tenant);
        database_pump(db, now);
}

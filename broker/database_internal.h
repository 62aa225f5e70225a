/* SPDX-License-Identifier: MIT */
#pragma once
/* What the files of one database share: database.c and its neighbours, nobody else. */
#include "database.h"
#include "upstream/dial.h"
#include "upstream/link.h"
#include "upstream/reset.h"

struct connection {
        struct database *database;
        struct pool_conn *conn; /* of the same slot */
        struct dial *dial;
        struct reset *reset; /* while RESETTING */
        struct link link;
        uint64_t client_id;
        char local[LESSOR_NAME_SIZE];
        struct place *place; /* while leased: whose it is, and under which word */
        int32_t tid;         /* of who asked for it; likewise below */
        char site[LESSOR_SITE_SIZE];
};

/* A user's share of this database. */
struct account {
        struct list link;
        uid_t uid;
        struct pool_account account;
};

struct counters {
        uint64_t lease_timeouts, exhausted, cancelled, reports, warm_leases, overdue, last_error_time,
                last_success_time, last_lease_time;
};

struct database {
        struct database_options o;
        struct pool pool;
        struct connection *connections;
        struct upstream_target target;
        char client_name[2 * LESSOR_NAME_SIZE + 16]; /* lessor:<instance>:<database> */
        char endpoint[LESSOR_STATUS_TEXT_SIZE];
        char last_error[LESSOR_STATUS_TEXT_SIZE];
        struct event wake; /* at pool_wakeup() */
        struct list tenants, accounts;
        struct counters counters;
        _Atomic uint64_t denied; /* counted by the sessions' threads */
};

static inline const char *name_of(const struct database *db) { return db->o.config->name; }

/* database.c: does what the pool wants done, until nothing is left. */
void database_pump(struct database *db, uint64_t now);
void database_note_error(struct database *db, const char *text);

static inline struct connection *connection_of(struct database *db, const struct pool_conn *conn) {
        return &db->connections[conn->slot];
}

/* handover.c: what becomes of a connection that comes back. */
enum pool_return handover_grade(const struct database *db, const struct lessor_msg_return *msg);
void handover_reset(struct database *db, struct pool_conn *conn, uint64_t now); /* carries out POOL_RESET */
void handover_cancel(struct connection *c);                                     /* a reset under way, if any */

/* holders.c: leases from the grant to their end. */
void holders_grant(struct database *db, struct pool_conn *conn, struct pool_waiter *waiter, uint64_t now);
void holders_recall(struct database *db, struct pool_conn *conn, uint64_t now);
void holders_unwant(struct database *db, struct pool_conn *conn);
/* Looks at every word: who holds, since when, for too long? */
void holders_watch(struct database *db, uint64_t now);
void holders_note_site(const struct connection *c, char site[LESSOR_SITE_SIZE], int32_t *ret_tid);

void request_free(struct database_request *request);
void request_refuse(struct database_request *request, int outcome, uint64_t retry_ns, const char *text);
/* Who does not wait at all has a timer of 0: it fires in the next turn, after what is free has been handed out. */
void request_set_timer(struct database_request *request, uint64_t now);

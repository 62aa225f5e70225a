/* SPDX-License-Identifier: MIT */
#pragma once
/* What the files of one database share: database.c and its neighbours, nobody else. */
#include "database.h"
#include "status/control_page.h"
#include "upstream/check.h"
#include "upstream/dial.h"
#include "upstream/link.h"

struct connection {
        struct database *database;
        struct pool_conn *conn; /* of the same slot */
        struct dial *dial;      /* while DIALLING */
        struct check *check;    /* while CHECKING */
        struct link link;
        uint64_t client_id;
        char local[LESSOR_NAME_SIZE];
        struct database_caller holder; /* while leased */
};

struct counters {
        uint64_t lease_timeouts, exhausted, cancelled, reports, last_error_time, last_success_time, last_lease_time;
};

struct database {
        struct database_options o;
        struct pool pool;
        struct connection *connections;
        struct upstream_target target;
        char client_name[2 * LESSOR_NAME_SIZE + 16]; /* lessor:<instance>:<database> */
        char endpoint[LESSOR_STATUS_TEXT_SIZE];
        char last_error[LESSOR_STATUS_TEXT_SIZE];
        struct event wake;                         /* at pool_wakeup(), or earlier */
        uint64_t wake_at;                          /* TIME_NEVER: it is not set */
        uint64_t published_epoch, published_retry; /* of the breaker, in the control page */
        bool ask_role;                             /* the next check asks whose server it is */
        struct counters counters;
        _Atomic uint64_t denied; /* counted by the sessions' threads */
};

static inline const char *name_of(const struct database *db) { return db->o.config->name; }
static inline struct connection *connection_of(struct database *db, const struct pool_conn *conn) {
        return &db->connections[conn->slot];
}

/* Carries out what the pool wants done now, and sets the timer for what comes later. */
void database_pump(struct database *db, uint64_t now);

/* dialling.c: from VACANT to FREE, what keeps it from getting there, and the breaker for all to see. */
struct pool_limits dialling_limits(const struct config_database *config);
void dialling_start(struct database *db, struct pool_conn *conn, uint64_t now);
void dialling_lost(struct link *link);
void dialling_closed(struct link *link);
void dialling_note_error(struct database *db, const char *text);
void dialling_trouble(const struct database *db, int outcome, char *text, size_t size); /* as it is told to workers */
uint64_t dialling_retry_after(const struct database *db, uint64_t now);
void dialling_publish(struct database *db); /* the breaker, into the control page, if it has changed */

/* upkeep.c: checks of idle connections, and what workers report. */
void upkeep_check(struct database *db, struct pool_conn *conn, uint64_t now);
void upkeep_report(struct database *db, enum lessor_report kind);

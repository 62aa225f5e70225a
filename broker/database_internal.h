/* SPDX-License-Identifier: MIT */
#pragma once
/* What the files of one database share: database.c and its neighbours, nobody else. */
#include "advice.h"
#include "database.h"
#include "dial_meter.h"
#include "pipeline.h"
#include "pool/pressure.h"
#include "status/control_page.h"
#include "upstream/check.h"
#include "upstream/dial.h"
#include "upstream/link.h"
#include "upstream/reset.h"

struct connection {
        struct database *database;
        struct pool_conn *conn; /* of the same slot */
        struct dial *dial;      /* while DIALLING */
        struct check *check;    /* while CHECKING */
        struct reset *reset;    /* while RESETTING */
        struct lesson *lesson;  /* DIALLING: the server's list of commands is being read */
        struct link link;
        struct pipe *pipe; /* while it is the lanes' */
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

/* What an operator has ordered, as it is told; empty: nothing. */
struct manual {
        char held[LESSOR_STATUS_TEXT_SIZE];
        char breaker[LESSOR_STATUS_TEXT_SIZE - 32];
        uint64_t held_since; /* CLOCK_REALTIME */
};

struct counters {
        uint64_t lease_timeouts, exhausted, cancelled, reports, warm_leases, overdue, last_error_time,
                last_success_time, last_lease_time;
        uint64_t wanting; /* refused because every place is taken: not because dials fail, or take long */
};

struct database {
        struct database_options o;
        struct pool pool;
        struct connection *connections;
        struct upstream_target target;
        struct {
                char *host, *unix_socket, *username, *password;
        } owned;                            /* what the target points to */
        struct config_database last_config; /* removed: its name and numbers, no pointers */
        _Atomic bool removed;
        char client_name[2 * LESSOR_NAME_SIZE + 16]; /* lessor:<instance>:<database> */
        char endpoint[LESSOR_STATUS_TEXT_SIZE];
        char last_error[LESSOR_STATUS_TEXT_SIZE];
        struct event wake;           /* at pool_wakeup(), or earlier */
        uint64_t wake_at;            /* TIME_NEVER: it is not set */
        uint64_t published_epoch;    /* of the breaker, in the control page */
        uint64_t held_until;         /* HELD: when to say so again */
        enum lessor_trouble trouble; /* what kind of failure the last dial or check was; _NONE after a success */
        struct pressure pressure;
        struct dial_meter dial_meter;
        bool ask_role; /* the next check asks whose server it is */
        struct list tenants, accounts;
        struct counters counters;
        struct manual manual;
        struct advice advice;
        unsigned direct_busy; /* for it: leased connections that were retaken often since the last look */
        struct pipelines pipelines;
        enum { LEARN_NOTHING, LEARN_WANTED, LEARN_UNDERWAY, LEARN_DONE } learning;
        _Atomic uint64_t denied; /* counted by the sessions' threads */
};

static inline const char *name_of(const struct database *db) { return db->o.config->name; }

/* database.c: does what the pool wants done, until nothing is left. */
void database_pump(struct database *db, uint64_t now);
void database_note_error(struct database *db, const char *text);
void database_publish_path(struct database *db);
void database_advise(struct database *db); /* ten times a second: how single commands are to go */

static inline struct connection *connection_of(struct database *db, const struct pool_conn *conn) {
        return &db->connections[conn->slot];
}

/* dialling.c: from VACANT to FREE, what keeps it from getting there, and the breaker for all to see. */
struct pool_limits dialling_limits(const struct config_database *config);
void dialling_start(struct database *db, struct pool_conn *conn, uint64_t now);
void dialling_lost(struct link *link);
void dialling_closed(struct link *link);
void dialling_trouble(const struct database *db, int outcome, char *text, size_t size); /* as it is told to workers */
uint64_t dialling_retry_after(const struct database *db, uint64_t now);
void dialling_publish(struct database *db); /* the breaker, into the control page, if it has changed */

/* reconfigure.c: where it dials, and as whom; copies, so that a reload may free what they came from. 0; -ENOMEM. */
int reconfigure_target(struct database *db, const struct config_database *config);
void reconfigure_free_target(struct database *db);

/* upkeep.c: checks of idle connections, and what workers report. */
void upkeep_check(struct database *db, struct pool_conn *conn, uint64_t now);
void upkeep_report(struct database *db, enum lessor_report kind);
/* A parked connection that is too old, or that nobody has retaken for long, comes back: idle for as long as it was parked. */
void upkeep_parked(struct database *db, struct connection *c, uint64_t now);
/* A dial has ended; takes the fd. */
void dialling_done(struct connection *c, const struct dial_result *result);

/* manual.c: what an operator has ordered, in the figures. */
void manual_show(const struct database *db, struct lessor_status_database *ret);

/* learn.c: the server's own list of commands. */
void learn_wanted(struct database *db);
bool learn_begin(struct connection *c, const struct dial_result *result); /* true: dialling_done() follows */
void learn_cancel(struct connection *c);
void learn_from(struct database *db, const struct redisReply *list); /* it was asked for the lanes */

/* handover.c: what becomes of a connection that comes back. */
enum pool_return handover_grade(struct database *db, const struct lessor_msg_return *msg);
void handover_reset(struct database *db, struct pool_conn *conn, uint64_t now); /* carries out POOL_RESET */
void handover_cancel(struct connection *c);                                     /* a reset under way, if any */

/* holders.c: leases from the grant to their end. */
void holders_grant(struct database *db, struct pool_conn *conn, struct pool_waiter *waiter, uint64_t now);
void holders_recall(struct database *db, struct pool_conn *conn, uint64_t now);
void holders_unwant(struct database *db, struct pool_conn *conn);
/* Looks at every word: who holds, since when, for too long? */
void holders_watch(struct database *db, uint64_t now);
/* Cuts a lease off, whoever has it; false: it was parked, and came back. `who`: who it was. */
bool holders_kill(struct database *db, struct connection *c, uint64_t now, char *who, size_t size);
void holders_note_site(const struct connection *c, char site[LESSOR_SITE_SIZE], int32_t *ret_tid);

/*
 * His answer goes by the socket: that is where he is to look. Before it is sent: whoever has read it uses the ticket again, and
 * a word that comes late would be taken for the answer to his next question.
 */
void request_mail(struct database_request *request);
void request_free(struct database_request *request);
void request_refuse(struct database_request *request, int outcome, uint64_t retry_ns, const char *text);
/* Who does not wait at all has a timer of 0: it fires in the next turn, after what is free has been handed out. */
void request_set_timer(struct database_request *request, uint64_t now);

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * One database at work: its pool's decisions carried out on real sockets. Belongs to one data thread, which alone calls
 * what is below but for database_allows(); others send letters. News about requests goes up through database_ops.
 */
#include <stdatomic.h>

#include <event2/event_struct.h>

#include "base/wire.h"
#include "config/config.h"
#include "loop.h"
#include "pool/pool.h"
#include "tenant.h"

struct control_page;
struct database;
struct lanes;
struct peer;
struct peer_identity;

struct database_request {
        struct letter letter; /* while it travels to the owner's thread */
        struct pool_waiter waiter;
        struct event timer;
        struct database *database;
        struct tenant *tenant;
        uint64_t wait_ns;  /* as asked */
        uint64_t deadline; /* set by database_lease() */
        uint64_t number;   /* the worker's for it */
        uint32_t ticket;   /* where he sleeps; LESSOR_TICKET_NONE: at his socket, or he has been woken */
        int32_t tid;
        bool pinned;
        char site[LESSOR_SITE_SIZE];
};

/* `here` is the database's own loop, on which these are called. */
struct database_ops {
        /* The fd (-1: none) stays the database's: it is good until the call returns. */
        void (*granted)(struct loop *here, const struct tenant *tenant, const union wire_message *grant, int fd);
        void (*refused)(struct loop *here, const struct tenant *tenant, const union wire_message *error);
        /* He did what no honest worker does. */
        void (*violated)(struct loop *here, const struct tenant *tenant, const char *why);
};

struct database_options {
        const struct config_database *config; /* borrowed, outlives the database */
        const char *instance;
        unsigned index;            /* its number in the protocol */
        unsigned first_connection; /* of its records in the status segment */
        unsigned fd_cache;         /* idle fds that a worker keeps */
        uint64_t generation;       /* the instance's: leases are numbered from it */
        struct loop *loop;
        const struct database_ops *ops;
        struct control_page *page; /* where its breaker and its commands are published; borrowed */
        struct lanes *lanes;       /* the thread's; NULL: there are none */
};

int database_new(const struct database_options *options, struct database **ret); /* 0; -ENOMEM */
void database_start(struct database *database); /* on its thread: min_idle is dialled for before anybody asks */
void database_cut(struct database *database);   /* before database_free(): held leases end, too */
void database_free(struct database *database);  /* closes its sockets without a word: held leases go on */

unsigned database_index(const struct database *database);
struct loop *database_loop(const struct database *database);
unsigned dialling_places(const struct config_database *config); /* what database_places() will be */
unsigned database_places(const struct database *database);      /* slots: the cap may grow so far */
/* From any thread, under RCU: a reload replaces it. */
const struct config_database *database_config(const struct database *database);

/*
 * A reload, on the database's thread. `config` replaces the one before, which nobody looks at any more after a grace
 * period. Connections stay unless the server, or what is said to it first, is another.
 */
int database_reconfigure(struct database *database, const struct config_database *config, unsigned fd_cache);
/* It is in no configuration any more: who waits is told, what is leased goes as it comes back. Keeps nothing of the old. */
void database_remove(struct database *database);
bool database_removed(const struct database *database); /* from any thread */

/*
 * An administrator's word on the circuit breaker, on the database's thread; all workers see it at once, and those who wait are
 * answered. True: something has changed.
 *
 *      open    nobody is served, nothing is dialled or probed, until one of the others is said; a reload does not end it
 *      close   whoever opened it: requests are served again, and failures counted from the beginning
 *      reset   likewise, and what was learnt from dials that failed is forgotten: wrong credentials too are tried now,
 *              not after retry_max
 */
bool database_breaker_open(struct database *database);
bool database_breaker_close(struct database *database);
bool database_breaker_reset(struct database *database);

/* From any thread: may this worker use it? Counts a refusal. */
bool database_allows(struct database *database, const struct peer *peer);
bool database_admits(struct database *database, const struct peer_identity *who); /* likewise, without his socket */

/* A session's tenant is made by the session, and the database's from the first request on. */
void database_lease(struct database_request *request); /* takes the request */
void database_cancel(struct database *database, struct tenant *tenant, uint64_t number);
void database_return(struct database *database, struct tenant *tenant, const struct lessor_msg_return *msg);
void database_report(struct database *database, struct tenant *tenant, const struct lessor_msg_report *msg);
void database_session_ended(struct database *database,
                            struct tenant *tenant); /* takes back all that was its; takes it */

/* An operator's order (lessor/admin.h); fills in all of *answer but its head. */
struct lessor_admin_request;
struct lessor_admin_answer;
struct ucred;
void database_administer(struct database *database, const struct lessor_admin_request *request, const struct ucred *who,
                         struct lessor_admin_answer *answer);

/* Its records for the status segment, but for what workers count; connections: max_connections of them. */
void database_snapshot(struct database *database, struct lessor_status_database *ret,
                       struct lessor_status_connection *connections);

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A pool: which connection is in which state, who waits, what is to be done next. Pure: no socket, clock or chance.
 *
 *      VACANT -> DIALLING -> FREE -> LEASED -> FREE ...
 *                   |          |        |-> RESETTING -> FREE
 *                   |          |        |        |
 *                   v          v        v        v
 *                VACANT     CLOSING  CLOSING  CLOSING -> VACANT         generation + 1 at each VACANT -> DIALLING
 *
 *      FREE -> CHECKING -> FREE or CLOSING: asked whether it still works, and not to be had meanwhile.
 *      FREE -> LANE -> FREE or CLOSING: the owner's own, for the commands of all lanes. Only one that has never left.
 *
 * The owner reports what happened (pool_lease, pool_dialled, pool_return ...) and then carries out what pool_next() says,
 * one action after the other, until it says POOL_NOTHING. Every place but a VACANT one counts against the cap: the pool
 * never begins one when it has max_connections of them. A reload may move the cap, within the places that there are.
 *
 * LEASED is held or parked: which of the two stands in the lease's word, and the pool does not know. While somebody
 * waits whom no dial will serve at once, every leased connection is WANTED: POOL_RECALL is said once for each.
 */
#include <stdbool.h>
#include <stdint.h>

#include <lessor/status.h>

#include "base/backoff.h"
#include "base/list.h"
#include "breaker.h"
#include "rate.h"
#include "upkeep.h"

enum conn_state {
        CONN_VACANT = LESSOR_CONNECTION_VACANT,
        CONN_DIALLING = LESSOR_CONNECTION_DIALLING,
        CONN_FREE = LESSOR_CONNECTION_FREE,
        CONN_LEASED = LESSOR_CONNECTION_LEASED,
        CONN_RESETTING = LESSOR_CONNECTION_RESETTING,
        CONN_CLOSING = LESSOR_CONNECTION_CLOSING,
        CONN_CHECKING = LESSOR_CONNECTION_CHECKING,
        CONN_LANE = LESSOR_CONNECTION_LANE,
        CONN_STATES
};

/* Why a connection is not handed on but replaced. */
enum pool_discard {
        POOL_DISCARD_DIRTY,
        POOL_DISCARD_STRAY,
        POOL_DISCARD_HOLDER,
        POOL_DISCARD_LOST,
        POOL_DISCARD_REVOKED,
        POOL_DISCARD_RESET,
        POOL_DISCARD_CHECK,    /* it did not pass its health check */
        POOL_DISCARD_IDLE,     /* not needed */
        POOL_DISCARD_AGE,      /* max_lifetime */
        POOL_DISCARD_OUTDATED, /* the pool has turned to another server, or away from a demoted one */
        POOL_DISCARD_LANE,     /* it has been in workers' hands, and a lane needs its place for one that has not */
        POOL_DISCARDS
};

/* What one user (uid) has of the pool. Whoever is at his limit is passed by in the queue until he gives something back. */
struct pool_account {
        unsigned leased, waiting;
        unsigned max_leased, max_waiting; /* 0: no limit of his own */
};

struct pool_conn {
        struct list link; /* in by_state[state] */
        enum conn_state state;
        unsigned slot;
        uint64_t generation;
        uint64_t since;               /* when it came into this state */
        uint64_t lease;               /* LEASED: the lease's number */
        uint64_t session;             /* LEASED: the holder's */
        struct pool_account *account; /* LEASED: the holder's */
        bool pinned;                  /* LEASED: to one who will block on it */
        bool lost;                    /* LEASED: it is closed when it comes back, because of `doom` */
        enum pool_discard doom;
        bool wanted;    /* LEASED: POOL_RECALL has been said */
        bool told;      /* CLOSING, RESETTING: POOL_CLOSE, POOL_RESET has been said; LANE: POOL_DRAIN */
        bool replacing; /* the next dial of this place makes up for a discarded connection */
        bool left;      /* its socket has been in a worker's hands: what it says is evidence, no more */
        uint64_t begun; /* the breaker's epoch in which its dial or check began */
        uint64_t epoch; /* the pool's, when it was dialled */
        uint64_t established_at, checked_at, idle_since;
        uint64_t retire_at; /* TIME_NEVER */
};

struct pool_waiter {
        struct list link;             /* in the queue, or unlinked */
        struct pool_account *account; /* the owner's, outlives the waiting and the lease */
        uint64_t session;
        uint64_t since;
        bool pinned; /* he will block on it */
};

struct pool_limits {
        unsigned max_connections, max_waiters;
        unsigned max_pinned; /* 0: none */
        unsigned places;     /* room for pool_adjust() to grow into; 0: max_connections */
        uint64_t retry_base_ns, retry_max_ns;
        unsigned retry_attempts; /* after so many failed dials in a row those who wait are told */
        struct breaker_limits breaker;
        struct upkeep_limits upkeep;
};

/*
 * By hand. Held, a pool grants nothing: what is parked comes back, what is held goes on, who waits goes on waiting. Nothing
 * is dialled or checked, and the end of a connection says nothing about the server, which may well be stopped meanwhile.
 */
enum pool_hold {
        POOL_SERVING = 0,
        POOL_PAUSED = 1,
        POOL_DRAINED = 2, /* moreover each connection is closed as it comes back */
};

struct pool_stats {
        uint64_t created, failed, reconnections, retries, leases, reclaims, recalls, revocations, resets;
        uint64_t checks, checks_failed;
        uint64_t discards[POOL_DISCARDS];
        unsigned peak_open, peak_waiting;
        struct lessor_status_histogram wait_time, hold_time;
};

struct pool {
        struct pool_limits limits;
        struct list by_state[CONN_STATES];
        unsigned count[CONN_STATES];
        struct list queue;
        unsigned waiting;
        unsigned wanted; /* of the leased; likewise */
        unsigned pinned;
        unsigned lanes; /* so many connections the lanes want: pool_want_lanes() */
        struct backoff backoff;
        uint64_t next_dial;    /* no dial before this */
        uint64_t last_failure; /* when a dial begun after the failure before failed */
        int refusal;           /* LESSOR_E_CREDENTIALS ...: whoever asks before next_dial is refused with it; 0: none */
        int trouble;           /* the last dial's outcome, 0 after a success */
        unsigned giving_up;    /* so many at the head of the queue are to be told of `trouble` */
        uint64_t loading_since; /* 0: it does not */
        struct breaker breaker;
        struct rate rate;
        struct upkeep upkeep;
        uint64_t epoch;  /* + 1: those dialled before are closed as they come back */
        bool suspicious; /* somebody says it does not work, or a check failed: look at once */
        uint64_t last_suspicion;
        bool replica;  /* its server has said that it is one */
        int retired;   /* pool_retire()'s outcome; 0: it serves */
        bool draining; /* leased connections of an earlier epoch are still to be asked for */
        uint64_t last_demotion;
        enum pool_hold hold;
        uint64_t last_lease; /* the number */
        struct pool_stats stats;
        unsigned places;         /* all connections, VACANT ones included */
        struct pool_conn *conns; /* so many, owned */
};

enum pool_action_type {
        POOL_NOTHING,
        POOL_GRANT,  /* hand `conn` to `waiter`, which has left the queue; or pool_ungrant() */
        POOL_FAIL,   /* tell `waiter`, which has left the queue, of `outcome` */
        POOL_DIAL,   /* establish `conn`; then pool_dialled() or pool_dial_failed() */
        POOL_CLOSE,  /* close the socket of `conn`; then pool_closed() */
        POOL_CHECK,  /* ask `conn`, which has never left, or peek at it, if it has; then pool_checked() */
        POOL_RESET,  /* reset `conn` and prove it; then pool_reset_done() or pool_reset_failed() */
        POOL_RECALL, /* ask for `conn` back: pool_return() if it was parked; else its holder will return it */
        POOL_UNWANT, /* nobody waits for `conn` any more: its holder may keep it */
        POOL_LANE,   /* `conn` is for lanes from now on, until pool_lane_done() */
        POOL_DRAIN,  /* give no more commands to `conn`; pool_lane_done() when it has answered all */
};

struct pool_action {
        enum pool_action_type type;
        struct pool_conn *conn;
        struct pool_waiter *waiter;
        int outcome;
};

int pool_init(struct pool *pool, const struct pool_limits *limits, uint64_t first_lease, uint64_t now); /* 0; -ENOMEM */
void pool_deinit(struct pool *pool); /* owns no sockets: close them first */

/*
 * Joins the queue: 0; LESSOR_E_EXHAUSTED it is full, those not counted for whom a place is there; the refusal in force.
 * The waiter stays the caller's, who has filled in its session and account.
 */
int pool_lease(struct pool *pool, struct pool_waiter *waiter, uint64_t now);
/* Leaves the queue again; nothing when it is not in it. */
void pool_cancel(struct pool *pool, struct pool_waiter *waiter);

/* What keeps him waiting though a connection is free. */
enum pool_limit { POOL_LIMIT_NONE, POOL_LIMIT_PINNED, POOL_LIMIT_USER };
enum pool_limit pool_limit(const struct pool *pool, const struct pool_waiter *waiter);

enum pool_return {
        POOL_RETURN_CLEAN,
        POOL_RETURN_RESETTABLE, /* not clean, but nothing was left half-way, and the owner is willing to reset it */
        POOL_RETURN_DIRTY,
        POOL_RETURN_RECALLED, /* it was parked, clean, and nobody's */
        POOL_RETURN_HOLDER,   /* its holder died or broke the protocol */
        POOL_RETURN_REVOKED,  /* held for too long */
};
void pool_return(struct pool *pool, struct pool_conn *conn, enum pool_return how, uint64_t now);
/* The connection just granted turned out bad before it was handed over: it is closed, the waiter is first in the queue again. */
void pool_ungrant(struct pool *pool, struct pool_conn *conn, struct pool_waiter *waiter, enum pool_discard why,
                  uint64_t now);

/* How a reset ended: the connection is FREE, or is closed. */
void pool_reset_done(struct pool *pool, struct pool_conn *conn, uint64_t now);
void pool_reset_failed(struct pool *pool, struct pool_conn *conn, uint64_t now);

void pool_dialled(struct pool *pool, struct pool_conn *conn, uint64_t now);
/* outcome: LESSOR_E_UPSTREAM, _CREDENTIALS, _LOADING; _EXHAUSTED: the server takes no more connections. */
void pool_dial_failed(struct pool *pool, struct pool_conn *conn, int outcome, uint64_t now, uint64_t random);
/* After pool_dialled(): it is not to grow older than that. */
void pool_retire_at(struct pool *pool, struct pool_conn *conn, uint64_t at);

enum pool_check { POOL_CHECK_ANSWERED, POOL_CHECK_QUIET, POOL_CHECK_STRAY, POOL_CHECK_LOST, POOL_CHECK_FAILED };
/* QUIET: nothing is on it, which proves little. FAILED: no answer, or a wrong one; it counts against the server. */
void pool_checked(struct pool *pool, struct pool_conn *conn, enum pool_check result, uint64_t now, uint64_t random);
/*
 * Other limits, from now on; more than `places` connections there cannot be. What is above a smaller cap is closed, if it
 * is free or parked, or as it comes back.
 */
void pool_adjust(struct pool *pool, const struct pool_limits *limits, uint64_t now);
/* What was learnt from dials that failed is forgotten: the next one comes as soon as it is worth having. */
void pool_forgive(struct pool *pool);
/* Another server: what was learnt of the old one is forgotten, and its connections are outdated. */
void pool_turn(struct pool *pool, uint64_t now);
void pool_dial_dropped(struct pool *pool, struct pool_conn *conn, uint64_t now); /* the owner has given it up */
/* Nobody is served any more: who waits is told `outcome` by POOL_FAIL, what is there is closed as it comes back. */
void pool_retire(struct pool *pool, int outcome, uint64_t now);
unsigned pool_surplus(const struct pool *pool); /* so many above the cap are to go, those not counted that are going */
/* Every connection there is now is closed as it comes back, and what is parked comes back now. */
void pool_outdate(struct pool *pool, uint64_t now);
/*
 * The server of `conn` says that it is a replica (it was demoted), or a master again. Connections to a demoted one are
 * closed as they come back, so that the dials to come may find the master; true: from now on. A replica by intention is not
 * dialled again and again: what was dialled after a demotion and is one, too, stays.
 */
bool pool_role(struct pool *pool, const struct pool_conn *conn, bool replica, uint64_t now);
/* A worker says that the server does not work. At most once a second the pool looks for itself; true: now. */
bool pool_suspect(struct pool *pool, uint64_t now);
/* Redis closed it: a FREE one is replaced at need, a LEASED one when it comes back. */
void pool_lost(struct pool *pool, struct pool_conn *conn, uint64_t now);
void pool_closed(struct pool *pool, struct pool_conn *conn, uint64_t now);

void pool_hold(struct pool *pool, enum pool_hold hold, uint64_t now);
/*
 * The lanes want so many connections. The first of them comes before all who wait: one place of the cap is the lanes' own
 * while they are used, else blocking leases would stop them. Others are what the queue leaves, and go when somebody waits.
 */
void pool_want_lanes(struct pool *pool, unsigned n);
enum pool_lane { POOL_LANE_FREE, POOL_LANE_LOST, POOL_LANE_STALLED };
/* FREE: it has answered all, and serves whoever comes. STALLED: it answers nothing, which counts against the server. */
void pool_lane_done(struct pool *pool, struct pool_conn *conn, enum pool_lane how, uint64_t now, uint64_t random);

/* The next thing to do; POOL_NOTHING when there is none before pool_wakeup(). */
struct pool_action pool_next(struct pool *pool, uint64_t now);
/* When to call pool_next() again though nothing happens; TIME_NEVER. */
uint64_t pool_wakeup(const struct pool *pool);

static inline unsigned pool_open(const struct pool *pool) { return pool->places - pool->count[CONN_VACANT]; }

/*
 * Health, and why it is not better, from what the pool knows; strain: what pressure_of() says. reason:
 * LESSOR_STATUS_TEXT_SIZE bytes.
 */
enum lessor_health pool_health(const struct pool *pool, const char *last_error, const char *strain, char *reason);

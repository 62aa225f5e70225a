/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * lessor/async.h from the inside. All of it belongs to the loop's thread, but what is said to be told by others:
 *
 *      async.c         the lessor_async: its fd, its turn, its end
 *      async_attach.c  its session: attached, watched, let go of
 *      async_call.c    commands and pipelines: which way each goes, by lane, what came of it
 *      async_conn.c    those that go by lease: one connection of each database, borrowed when need be
 *      async_ask.c     a lease asked for, and the answer; async_acquire.c: as a context (async_context.c)
 *
 * Nothing is called back but from the turn: whatever ends goes into a list first.
 */
#include <stdbool.h>
#include <stdint.h>

#include <lessor/async.h>

#include "async_context.h"
#include "base/list.h"
#include "client.h"
#include "inbox.h"
#include "io.h"
#include "session.h"

/* What stands in the epoll beside the inbox' own. */
struct async_source {
        void (*ready)(struct async_source *, uint32_t events);
};

struct lessor_async {
        lessor *client;
        uint32_t epoch;
        struct inbox inbox;
        struct guard *timer;
        struct async_source timed;
        uint64_t timer_at; /* what it is set to; TIME_NEVER */
        uint64_t next_at;  /* a lower bound of when one of the calls or asks is to be looked at */
        struct lessor_async_adapter adapter;
        struct async_contexts contexts; /* that are out */
        bool busy;                      /* as the adapter was told */

        struct list dbs;      /* lessor_async_db */
        struct list finished; /* struct async_call: to be called back */
        struct list asks;     /* struct async_ask: to be sent to the broker, or sent */
        struct list answered; /* struct async_ask: to be called back */
        struct list told;     /* struct async_ask, by others. The inbox' lock */
        unsigned in_flight;   /* calls and asks of the caller's, not called back */
        size_t bytes;         /* of requests */
        unsigned in_lanes;    /* calls */
        uint64_t last_number;
        bool turning; /* in lessor_async_dispatch(), or at its end */
        bool ended;   /* lessor_async_free() was called: freed when the turn is over */

        struct session *session;    /* NULL: none; over: to be let go of when nothing of it is under way */
        struct session_watch watch; /* of the session */
        struct async_source socket;
        bool watching; /* its socket is in the epoll */
        bool flushing; /* which waits for it to be writable */
        struct client_watch home;
        struct client_attach attach; /* an attach under way; fd -1 */
        struct async_source attached;
        bool tried;           /* in this turn */
        bool again;           /* and it has ended since: in the next one */
        bool hopeless;        /* the last try failed, and not because no broker was there */
        lessor_error trouble; /* why there is no session */
};

/* ---- asking for a lease (async_ask.c) -------------------------------------------------------------------------------- */

enum async_ask_state {
        ASYNC_ASK_NONE,
        ASYNC_ASK_WAITS,     /* for a session */
        ASYNC_ASK_SENT,      /* the broker will answer */
        ASYNC_ASK_WITHDRAWN, /* too late, or taken back: the broker will say so, or the lease be given back */
        ASYNC_ASK_ANSWERED,
};

/*
 * answered(): from the turn, once: a lease that is held, and its fd to be used with MSG_DONTWAIT alone; or NULL and *error. The ask is
 * the caller's again before. The lease is to be given back by async_give().
 */
struct async_ask {
        lessor_async_db *db;
        void (*answered)(struct async_ask *, struct lessor_lease *, const lessor_error *error);
        const void *data; /* lessor_async_cancel()'s, if `own` */
        bool own;         /* the caller's: it counts as in flight */

        enum async_ask_state state;
        struct request request;
        uint64_t began, deadline, look_at;
        struct list link, told;
        struct session *session; /* a reference, while it is sent */
        struct waiter waiter;
        struct lessor_lease *lease;
        bool cancelled;
        lessor_error error;
};

/* db, answered, data and own are filled in. request->site.file lives for ever. */
void async_ask(struct async_ask *ask, const struct request *request);
/* answered() will not be called; what is granted still is given back. Any state. */
void async_ask_drop(struct async_ask *ask);
/* As lessor_async_cancel(). False: it is answered already. */
bool async_ask_cancel(struct async_ask *ask);
/* A parked connection, looked at; NULL. Without asking anybody. */
struct lessor_lease *async_take_parked(lessor_async_db *db, const struct request *request);
/* Parks it, or gives it back: lease_give(), without waiting. lease->raw: nothing can be proved of it; lease->broken: nor mended. */
void async_give(lessor_async *a, struct lessor_lease *lease);

void asks_turn(lessor_async *a, uint64_t now); /* sends, and takes answers */
void asks_expire(lessor_async *a, uint64_t now);
void asks_deliver(lessor_async *a, unsigned *budget); /* calls back */
unsigned asks_cancel(lessor_async *a, const void *data);
void acquire_forget(struct async_ask *ask); /* the caller's own, in a child (async_acquire.c) */
void asks_end(lessor_async *a);             /* the caller's own are called back, all others gone already */

/* ---- one database -------------------------------------------------------------------------------------------------- */

/* The connection by which commands go that cannot go by lane. */
struct async_conn {
        struct async_source source;
        struct async_ask ask;
        struct lessor_lease *lease; /* held; NULL */
        bool watched;
        uint32_t events;
        unsigned fed, in_flight;  /* fed: since it was taken */
        uint64_t asked_for;       /* number of the call */
        struct list flight;       /* struct async_call, in order, ended or not: replies come */
        struct async_call *write; /* the first that is not sent whole; NULL */
        uint64_t reply_by;        /* of the first */
};

struct lessor_async_db {
        struct list link;
        lessor_async *async;
        lessor_db *db;
        struct list pending; /* struct async_call, by number: not under way yet */
        unsigned in_lane;    /* calls */
        bool wait_known;     /* wait_timeout, as last seen */
        uint64_t wait_ns;
        struct async_conn conn;
};

static inline bool async_is_here(const lessor_async *a) { return a->epoch == fork_epoch(); }
static inline void async_look_at(lessor_async *a, uint64_t at) { a->next_at = at < a->next_at ? at : a->next_at; }
/* Outside the turn: the timer, and whether the loop is needed. */
void async_changed(lessor_async *a);
/* 0; LESSOR_E_INVALID, LESSOR_E_FORKED, LESSOR_E_EXHAUSTED: `size` bytes more may not be asked for. */
int async_check(const lessor_async_db *db, int wait_ms, size_t size);
/* Until when it may wait; the database's own wait_timeout as far as it is known yet. */
uint64_t async_deadline(lessor_async_db *db, uint64_t began, int wait_ms);

/* ---- calls (async_call.c) -------------------------------------------------------------------------------------------- */

enum async_way {
        ASYNC_PENDING,
        ASYNC_LANE,
        ASYNC_CONN,     /* in flight */
        ASYNC_FINISHED, /* to be called back */
};

struct async_part {
        struct inbox_call call; /* first */
        struct async_call *whole;
};

struct async_call {
        struct list link;  /* of pending, flight, or nothing */
        struct list ended; /* of finished, or nothing */
        lessor_async_db *db;
        uint64_t number;
        enum async_way way;
        bool by_lease; /* it cannot go by lane */
        bool blocks;   /* a lease for it is pinned */
        bool let_go;   /* in flight, and ended already for the caller: only its replies are still to come */
        bool told;     /* likewise, and called back */
        unsigned dead; /* connections that were found dead before it was sent */
        bool is_pipe;
        unsigned flags; /* the pipe's */
        union {
                lessor_async_fn *command;
                lessor_async_pipe_fn *pipe;
        } fn;
        void *data;
        uint64_t began, deadline;
        int wait_ms;
        struct exchange x; /* out, ends, replies are the call's */
        size_t end;        /* of a single request */
        redisReply *reply;
        unsigned left; /* parts that are not done */
        struct async_part *parts, one;
        /* What came of it. */
        int code, retry_ms;
        bool may_have_run;
        char *text;
};

uint64_t call_deadline(struct async_call *c);     /* of what is pending: wait_timeout may be known by now */
void calls_expire(lessor_async *a, uint64_t now); /* what is pending, and too late */
void calls_deliver(lessor_async *a, unsigned *budget);
void db_pump(lessor_async_db *db);                                 /* what is pending goes on as far as it can */
void call_finish(struct async_call *c, const lessor_error *error); /* NULL: its replies are there */
void call_again(struct async_call *c); /* it surely was not sent: back to the pending ones */
void call_dispose(struct async_call *c);
unsigned calls_cancel(lessor_async *a, const void *data, bool all);
void calls_take(lessor_async *a); /* what lanes have done */
void calls_ring(lessor_async *a); /* the lanes that were submitted to */
void calls_free(lessor_async *a); /* of a child's parent */

/* ---- by lease (async_conn.c) ----------------------------------------------------------------------------------------- */

void conn_init(lessor_async_db *db);
/* False: not now. Else it is in flight. parked: nobody is asked, there is no broker. */
bool conn_feed(lessor_async_db *db, struct async_call *c, bool parked);
/* Ended for the caller. */
void conn_let_go(struct async_call *c);
void conn_write(lessor_async_db *db);
void conn_turn(lessor_async_db *db, uint64_t now); /* what is too late */
void conn_settle(lessor_async_db *db);             /* gives back what is not needed */
void conn_end(lessor_async_db *db);                /* whatever is under way */
uint64_t conn_look_at(const lessor_async_db *db);

/* ---- the session (async_attach.c) ------------------------------------------------------------------------------------- */

void async_session_init(lessor_async *a);
/* The session, attached to or being so; NULL: not yet, a->trouble may say why. */
struct session *async_session(lessor_async *a);
/* An attach under way goes on, even if nobody waits for it any more. */
void async_attach_turn(lessor_async *a, uint64_t now);
/* The calls and asks under way of a session that is over have been told: let go of it. */
void async_session_turn(lessor_async *a);
void async_session_end(lessor_async *a);

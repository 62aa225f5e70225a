/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * This process' side of a lane (base/lane.h), shared by all its threads: a table of the calls under way, and who waits for
 * them. One thread leads: it sleeps where the broker wakes, and reaps for all. The others follow, each asleep on a word of
 * its own, until their calls are done or they are called to lead. An inbox (inbox.h) has no thread of its own: nobody
 * waits for its calls but the next thread that reaps, be it the leader.
 *
 * While somebody leads, nobody else reaps: the leader may be about to sleep, and would not be woken by what is done already.
 *
 * Locks are taken in this order: the session's, a lane's, an inbox'. So whoever holds a lane's lock cannot end the session;
 * what is found bad is kept until the lock is given back, see lane_leave().
 */
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lessor.h>
#include <lessor/protocol.h>

#include "base/lane.h"
#include "base/list.h"
#include "fork.h"

struct session;
struct lane_call;

/* Who wants to know what became of a call. */
struct lane_party {
        void (*done)(struct lane_call *); /* lane lock held; the call is the party's again */
        /* Likewise, when the reply comes apart and has not come yet: lane_call.fetching may be set, and lane_fetch() used. */
        void (*comes_apart)(struct lane_call *);
};

struct lane_call {
        struct lane_party *party;
        struct lane_waiter *after; /* a thread that waits for this call of its own queue's, to keep the order */
        uint64_t tag, position;
        uint32_t database;
        int32_t tid; /* the submitting thread, of a queue's call; else 0 */
        /* What came of it, when done. */
        int outcome; /* 0: `reply`; or the reply lies in `apart`, or is still to be fetched */
        bool may_have_run;
        bool under_way;      /* it has its place in the table */
        bool over;           /* it ended with the session */
        bool fetching;       /* completed, and the party waits for the message by itself: it is not told any more */
        int apart_fd;        /* the call's; -1: lost on the way */
        uint64_t apart_size; /* not 0: the reply came apart, see lane_call_unfold() */
        redisReply *reply;
        char *text; /* of the error; NULL: there is none, or no memory for it. Owned */
};
/* Frees what came of it. */
void lane_call_deinit(struct lane_call *call);

struct lane_waiter {
        struct list link;
        lessor_atomic32 word;
        unsigned left; /* calls it waits for */
};
static inline void lane_waiter_init(struct lane_waiter *w, unsigned left) {
        *w = (struct lane_waiter){.left = left};
        list_init(&w->link);
}

enum lane_slot_state {
        LANE_SLOT_FREE,
        LANE_SLOT_SENT,  /* submitted */
        LANE_SLOT_APART, /* completed, and the reply comes by message */
};

/* A tag's place. It outlives its call: a caller who leaves takes only `call` with him. */
struct lane_slot {
        struct lane_call *call; /* NULL: nobody's any more */
        uint64_t tag, position; /* tag: its generation << 8 | its place; never 0 */
        enum lane_slot_state state;
        int apart_fd;        /* of a message that came before the completion; -1: lost on the way */
        uint64_t apart_size; /* 0: none came */
};

struct lane_client {
        struct session *session; /* which owns it */
        uint32_t thread;         /* of the broker's */
        void *memory;
        size_t size;
        struct guard *doorbell;
        const lessor_atomic32 *bell; /* the thread's */

        pthread_mutex_t lock; /* protects what follows */
        struct lane_worker worker;
        struct lane_waiter *leader;
        bool leader_sleeps;
        struct list followers;
        struct list armed; /* inboxes that are to be told by LANE_WAKE */
        bool over;         /* nothing is submitted any more, and nothing under way */
        int bad;           /* 0, or why the session is to be ended: LESSOR_E_PROTOCOL */
        redisReader *reader;
        unsigned n_free, queued;        /* queued: calls of queues under way */
        uint8_t free[LANE_ENTRIES_MAX]; /* places in slots[] */
        struct lane_slot slots[LANE_ENTRIES_MAX];
};

/* ---- lane_open.c ------------------------------------------------------------------------------------------------- */

/* A session's lanes, by thread. Session lock, but for `client`. */
struct session_lane {
        _Atomic(struct lane_client *) client; /* NULL: not open */
        uint64_t request;                     /* LANE, not answered yet; 0 */
        uint64_t retry;                       /* CLOCK_MONOTONIC: not asked again before */
};

/* The open lane to that thread; NULL. */
struct lane_client *lane_find(struct session *s, uint32_t thread);
/*
 * Likewise, asked for if need be. 0 and *ret; or the code of *error: there is none for now. `wait`: for the answer to another thread's
 * question, too; else that is LESSOR_E_NEEDS_LEASE at once.
 */
int lane_get(struct session *s, uint32_t thread, uint64_t deadline, bool wait, struct lane_client **ret,
             lessor_error *error);
/* Likewise, without waiting. -EINPROGRESS: it is being opened, the session's watches will be told. */
int lane_get_now(struct session *s, uint32_t thread, struct lane_client **ret, lessor_error *error);

/* The session's lock is held for what follows. Messages; NULL, or what is wrong. The fds are taken; -1: lost on the way. */
const char *lanes_opened(struct session *s, const struct lessor_msg_lane_opened *m, int memory, int doorbell);
const char *lanes_replied(struct session *s, const struct lessor_msg_lane_reply *m, int fd);
const char *lanes_woken(struct session *s, const struct lessor_msg_lane_wake *m);
/* ERROR. False: it answers no LANE. */
bool lanes_refused(struct session *s, const struct lessor_msg_error *m);
bool lanes_asked(struct session *s, uint64_t request);
/* The session is over, and says why. */
void lanes_end(struct session *s);
void lanes_hang_up(struct session *s); /* the last reference is gone: nobody rings any more */
void lanes_fade(struct session *s);    /* and a newer session has taken over: see shared_fade() */
void lanes_free(struct session *s);    /* the last keeper is gone */
void lanes_forget(struct session *s);  /* likewise, in a child: they are its parent's */

/* ---- lane.c: lane lock held, unless said otherwise ------------------------------------------------------------------ */

static inline void lane_enter(struct lane_client *l) { pthread_mutex_lock(&l->lock); }
/* Gives back the lock; then ends the session, if what was found in the lane is bad. */
void lane_leave(struct lane_client *l);
/* Lock not held. */
void lane_ring(struct lane_client *l);
static inline bool lane_is_heard(const struct lane_client *l) {
        return lane_must_ring(l->bell) || lane_must_ring(&l->worker.map->quiet);
}

/* As lane_submit(): call->party, database and tid are filled in, the rest here. FULL, too, when the lane is over. */
enum lane_submit lane_client_submit(struct lane_client *l, struct lane_call *call, uint64_t deadline, const char *data,
                                    size_t size);
/* Reaps all there is; and ends all that is under way if that is bad. Not while somebody else leads. */
void lane_reap_all(struct lane_client *l);
/*
 * True: it was never sent, and it is the caller's again: not done. False: it may run; so call lane_abandon() to leave it.
 */
bool lane_take_back(struct lane_client *l, struct lane_call *call);
void lane_abandon(struct lane_client *l, struct lane_call *call);
/* The message has come for a call that is completed, or abandoned. */
void lane_slot_apart(struct lane_client *l, struct lane_slot *slot);
struct lane_slot *lane_slot_of(struct lane_client *l, uint64_t tag); /* NULL: nothing of that tag is under way */
/* All under way: those that could be taken back were never sent. */
void lane_fail_all(struct lane_client *l, int code, const char *why);

/* One call less that it waits for; the last one wakes it. */
void lane_waiter_done(struct lane_client *l, struct lane_waiter *w);
/*
 * Until nothing is left, which every session's end sees to, too: true, and the lock is given back. False: the deadline
 * has passed, and the lock is held.
 */
bool lane_await(struct lane_client *l, struct lane_waiter *w, uint64_t deadline);
/* Before giving back the lock, for who has reaped or armed without leading: those who want to be told by message will be. */
void lane_settle(struct lane_client *l);

/*
 * Lock not held. Before a command goes another way than by lane: this thread's calls of queues to this database are done.
 * False: not before the deadline.
 */
bool lane_await_order(struct lane_client *l, uint32_t database, int32_t tid, uint64_t deadline);

/* ---- lane_reply.c: lock not held ------------------------------------------------------------------------------------ */

/* Exactly one whole reply. *reader is made at its first use, and replaced when it is at fault. 0; LESSOR_E_PROTOCOL; -ENOMEM. */
int lane_parse(redisReader **reader, const char *data, size_t size, redisReply **ret);
/* What came apart: maps and reads it; closes the fd. 0; LESSOR_E_PROTOCOL; -ENOMEM, other -errno. */
int lane_parse_apart(int fd, uint64_t size, redisReply **ret);
/* Of a call that is fetching: waits for the message. The call's outcome says what came of it. */
void lane_fetch(struct lane_client *l, struct lane_call *call, uint64_t deadline);
/* What came apart of a call becomes its reply, or its outcome. */
void lane_call_unfold(struct lane_call *call);

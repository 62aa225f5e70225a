/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Calls by lane of one thread that does not sleep for each of them: what queues (queue.c) and event loops (async.c) stand on.
 * An inbox is a party to its calls (lane.h): whoever reaps its lanes, its own thread or another one that leads there, puts
 * what is done into it. Its fd is an epoll, in which are
 *
 *      the session's sockets   where LANE_WAKE comes, when the lane says that it waits for a message
 *      an eventfd              written to by other threads that have done, or read, something for an armed inbox
 *
 * and what its owner adds. Who arms, looks once more. LANE_WAKE may be read by any thread: it is passed on to all that are armed.
 *
 * Locks: a lane's before an inbox's. The lists of lanes, and of calls, are the owning thread's alone.
 */
#include <pthread.h>

#include "base/list.h"
#include "call.h"
#include "fork.h"
#include "lane.h"

struct inbox {
        struct guard *epoll, *event;
        struct list lanes;    /* struct inbox_lane */
        struct list calls;    /* struct inbox_call, in the order submitted: not taken yet */
        uint64_t next_expiry; /* of what is under way: none before */
        pthread_mutex_t lock; /* protects what follows */
        struct list done;     /* struct inbox_call */
        unsigned apart;       /* completed, and their replies still to come by message */
        bool armed, rung;     /* rung: the eventfd was written to */
        bool poked;           /* there is something to look at that is no call */
};

struct inbox_lane {
        struct lane_party party;
        struct list link;
        struct list arm; /* in the lane's `armed` */
        struct inbox *inbox;
        struct lane_way way;         /* with a reference to the session */
        bool watched;                /* the session's socket is in the epoll */
        bool ring;                   /* the owner's: submitted to, and to be rung */
        unsigned calls;              /* not taken yet */
        struct lane_waiter *sleeper; /* the owner's thread, asleep in this lane. Lane lock */
};

struct inbox_call {
        struct lane_call call;
        struct list link, done; /* done: in the inbox' list, or not linked */
        struct inbox_lane *via;
        struct lane_way way; /* for what is said of it */
        uint64_t began, ended, take_by, leave_at;
        bool apart; /* counted there */
};
static inline void inbox_call_init(struct inbox_call *c) {
        *c = (struct inbox_call){.call.apart_fd = -1};
        list_init(&c->link);
        list_init(&c->done);
}

/* 0; -ENOMEM, -EMFILE, other -errno: it is to be deinitialised all the same. Of a parent's, only the memory it stands in may be freed. */
int inbox_init(struct inbox *b);
void inbox_deinit(struct inbox *b); /* no calls are left */

/* The owner's way to a lane; NULL: out of memory. */
struct inbox_lane *inbox_lane(struct inbox *b, const struct lane_way *way);

struct inbox_submission {
        const char *out;
        const size_t *ends; /* of the requests in it */
        size_t n;
        uint64_t began, send_by; /* CLOCK_MONOTONIC */
        bool ordered;            /* what this thread does by lease waits for them: call_keep_order() */
};
/* All of them, call(data, i) for each, or none. *ret_ring: then lane_ring(). */
enum lane_submit inbox_submit(struct inbox *b, struct inbox_lane *via, const struct inbox_submission *x,
                              struct inbox_call *(*call)(void *data, size_t i), void *data, bool *ret_ring);

struct inbox_call *inbox_take(struct inbox *b); /* one that is done; NULL: there is none now */
bool inbox_has_done(struct inbox *b);
/* Of one that was taken, or given up. */
void inbox_forget(struct inbox *b, struct inbox_call *c);
void inbox_count(const struct inbox_call *c, bool ok); /* for the statistics */

/* Reaps, disarmed. */
void inbox_look(struct inbox *b);
/* Ends what the broker should have answered by now, if it lived: see call.c. */
void inbox_expire(struct inbox *b, uint64_t now);
/* False: the fd is readable as soon as something is done. True: something is there. */
bool inbox_arm(struct inbox *b);
/* As inbox_arm(), where only this has been submitted to since. */
void inbox_arm_lane(struct inbox_lane *via);
/* From any thread: the owner is to look. */
void inbox_poke(struct inbox *b);
/* The owner himself leaves something for the next time. */
void inbox_remind(struct inbox *b);

/* Ends it by LESSOR_E_CANCELLED. False: it is done already. */
bool inbox_cancel(struct inbox_call *c);
/* Under way no more, whatever the broker makes of it, and not done. */
void inbox_give_up(struct inbox_call *c);

/* LANE_WAKE: who is armed there looks. Lane lock held. */
void inboxes_told(struct lane_client *l);

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A session: this process' one conversation with the broker, shared by all threads and all leases of a handle.
 *
 * It ends in three steps, so that a worker who sees a thousand brokers die pays for none of them. It is over: the broker
 * is gone, or we gave it up; nothing is sent any more. Nobody uses it: its fds are closed with the last reference. It is
 * retired: a newer one has taken over; what it shared with the broker is given up, and zeros are in its place. The object
 * stays for the sets of warm leases, which anybody may walk without a lock.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <lessor.h>
#include <lessor/protocol.h>

#include "base/list.h"
#include "base/wire.h"
#include "control.h"
#include "fork.h"
#include "lane.h"

#define SESSION_GLANCE_NS UINT64_C(100000000)
enum { SESSION_RECEIVE_MS = 250 }; /* SO_RCVTIMEO of an attached session's socket */

struct warm_set;

/* Where in the caller's program. */
struct site {
        const char *file; /* lives for ever, as __FILE__ does; NULL: unknown */
        int line;
};

/* As it stands in the segment: added under the session's lock, read without. */
struct session_site {
        _Atomic(const char *) file;
        int line;
};

/* What a caller wants of a lease. */
struct request {
        int wait_ms; /* LESSOR_WAIT_CONFIGURED, 0, ... */
        bool pinned; /* he will block on it */
        struct site site;
};

/* A LEASE that is not answered yet. */
struct waiter {
        struct list link;
        uint64_t request;
        uint32_t database;
        void (*told)(struct waiter *); /* NULL: a thread's, which sleeps. Else see session_ask_begin() */
        pthread_cond_t wake;
        uint32_t ticket; /* where it sleeps; LESSOR_TICKET_NONE: on `wake`, or at the socket */
        bool done;       /* answered, or it asks nothing: see session_read_until() */
        enum ask {
                ASK_GRANTED,
                ASK_REFUSED, /* *error has the broker's outcome */
                ASK_FAILED,  /* *error has ours */
                ASK_UNSENT, /* the session was over before the question was sent: ask another one; *error is filled in */
        } result;
        struct warm_set *set;       /* where the lease will belong */
        struct lessor_lease *lease; /* ASK_GRANTED */
        lessor_error *error;        /* the asker's, not NULL */
};

/* Is told, session lock held, when there is news of lanes, something to flush, or when the session is over. */
struct session_watch {
        struct list link;
        void (*told)(struct session_watch *);
};

struct session {
        atomic_uint references; /* of who uses it; none: it has no fd any more */
        atomic_uint keepers;    /* one for all of those, and one of each set of warm leases */
        atomic_bool retired;
        uint32_t epoch;  /* the process it belongs to */
        uint32_t serial; /* differs between all sessions of a process and its ancestors; not 0 */
        char socket[108];
        struct guard *guard;
        int fd; /* the guard's */

        struct control control; /* mapped read-only */
        struct segment segment; /* mapped read-write */
        uint32_t requests_max;
        struct lessor_lease ***by_word; /* see warm.c: whose connection is kept under which word */

        /*
         * Not 0: there is something to be seen to, and nobody takes or parks a lease without a look at the session: it is
         * over, or somebody has asked and left, and the answer is still to come.
         */
        atomic_uint attention;
        _Atomic uint64_t looked; /* CLOCK_MONOTONIC: when session_look() last did */

        pthread_mutex_t lock; /* protects what follows; nothing blocks while it is held */
        bool reading;         /* a thread is in poll or recvmsg: it hands answers to whoever asked */
        struct list waiters;
        unsigned n_waiters;
        struct list watches;       /* struct session_watch: somebody looks at the socket who does not sleep there */
        struct list backlog;       /* messages that the broker did not take when they were to be sent */
        uint32_t tickets_taken;    /* by waiters and orphans, a bit each */
        uint32_t tickets_orphaned; /* their askers have left; likewise whose database it was */
        uint32_t ticket_database[LESSOR_TICKETS + 1];
        unsigned orphans; /* requests whose asker has left and whose answer is still to come */
        unsigned cold;    /* leases without a word that are held */
        uint64_t last_request;
        _Atomic(struct session_site *) sites; /* LESSOR_SITES of them; NULL: none is written down yet */
        bool lanes_offered;
        struct session_lane lanes[LESSOR_THREADS_MAX]; /* see lane.h */
        _Atomic int over;           /* 0, or why the session ended; set once, readable without the lock */
        char why[LESSOR_TEXT_SIZE]; /* written before `over` */
};

/* An empty session on an fd that it takes, not attached yet; NULL: out of memory, and fd is closed. */
struct session *session_new(const char *socket, int fd);
struct session *session_ref(struct session *s);
struct session *session_unref(struct session *s); /* NULL ok; returns NULL */
/* A reference, for who is only a keeper. False: nobody uses it any more, and it is over. */
bool session_hold(struct session *s);
struct session *session_keep(struct session *s);
void session_drop(struct session *s);
/* A newer session has taken over, and nothing is parked on this one. */
void session_retire(struct session *s);

static inline bool session_over(struct session *s) { return atomic_load_explicit(&s->over, memory_order_acquire) != 0; }

/*
 * One LEASE and its answer. message->header is filled in here; error is not NULL. Taken back after `deadline`.
 * ASK_GRANTED: *ret belongs to `set` and is to be accepted.
 */
enum ask session_lease(struct session *s, struct lessor_msg_lease *message, uint64_t deadline, struct warm_set *set,
                       struct lessor_lease **ret, lessor_error *error);

/*
 * Likewise, without waiting. ASK_GRANTED: it is under way, and ends by session_ask_end(). w->told(), session lock held, when it is
 * answered, or the session over: once at least, perhaps before this returns. Else as session_lease(). *error lives as long as *w.
 */
enum ask session_ask_begin(struct session *s, struct waiter *w, struct lessor_msg_lease *message, struct warm_set *set,
                           void (*told)(struct waiter *), lessor_error *error);
/* CANCEL: it is answered soon. */
void session_ask_cancel(struct session *s, struct waiter *w);
/* What came of it: w->lease is the caller's, to be accepted. Without an answer as for session_lease() at its deadline. */
enum ask session_ask_end(struct session *s, struct waiter *w);

/* Threads that must not wait, whatever they come to do: what the broker does not take now is sent later. */
extern _Thread_local bool session_never_waits __attribute__((tls_model("initial-exec")));

/* RETURN, its header filled in here. Always done with the lease: what cannot be told to the broker ends the session. */
void session_return(struct session *s, struct lessor_msg_return *message, bool cold);
/* REPORT, header likewise. Dropped when the broker does not read. */
void session_report(struct session *s, struct lessor_msg_report *message);

/* A message of another kind. 0; -errno: the session is over. */
int session_post(struct session *s, const union wire_message *message, uint64_t deadline);
/* Reads what comes until it is `there` (session lock held), the session is over, or the deadline has passed. */
void session_read_until(struct session *s, bool (*there)(struct session *, void *), void *data, uint64_t deadline);
/* Without waiting: what the broker does not take now is sent by session_flush(), of which the watches are told. 0; -errno: as above. */
int session_post_later(struct session *s, const union wire_message *message);
/* True: it does not take all of it; again when the socket is writable. */
bool session_flush(struct session *s);
void session_watch(struct session *s, struct session_watch *w);
void session_unwatch(struct session *s, struct session_watch *w); /* who is not watched is no matter */
/* Ends it; no lock held. */
void session_give_up(struct session *s, int code, const char *why);

/* Looks, without waiting, whether the broker has gone away or an answer has come that nobody waits for. */
void session_look(struct session *s);
/* Likewise, but at most ten times a second in this process: for those who do system calls anyway. */
static inline void session_glance(struct session *s, uint64_t now) {
        uint64_t looked = atomic_load_explicit(&s->looked, memory_order_relaxed);
        if (now - looked < SESSION_GLANCE_NS ||
            !atomic_compare_exchange_strong_explicit(&s->looked, &looked, now, memory_order_relaxed,
                                                     memory_order_relaxed))
                return;
        session_look(s);
}

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A session: this process' one conversation with the broker, shared by all threads and all leases of a handle. It
 * lives until its last reference is gone, long after it is over (the broker died) if leases still need their
 * counters.
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

enum { SESSION_RECEIVE_MS = 250 }; /* SO_RCVTIMEO of an attached session's socket */

struct session {
        atomic_uint references;
        uint32_t epoch;  /* the process it belongs to */
        uint32_t serial; /* differs between all sessions of a process and its ancestors; not 0 */
        char socket[108];
        struct guard *guard;
        int fd; /* the guard's */

        struct control control; /* mapped read-only */
        struct segment segment; /* mapped read-write */
        uint32_t requests_max;

        pthread_mutex_t lock; /* protects what follows; nothing blocks while it is held */
        bool reading;         /* a thread is in poll or recvmsg: it hands answers to whoever asked */
        struct list waiters;
        unsigned n_waiters;
        unsigned orphans; /* requests whose asker has left and whose answer is still to come */
        unsigned held;    /* leases granted and not given back */
        uint64_t last_request;
        _Atomic int over;           /* 0, or why the session ended; set once, readable without the lock */
        char why[LESSOR_TEXT_SIZE]; /* written before `over` */
};

/* attach.c: a new session, or the code of *error. *ret is the caller's reference. */
int session_attach(const char *socket, uint64_t deadline, struct session **ret, lessor_error *error);

/* An empty session on an fd that it takes, not attached yet; NULL: out of memory, and fd is closed. */
struct session *session_new(const char *socket, int fd);
struct session *session_ref(struct session *s);
struct session *session_unref(struct session *s); /* NULL ok; returns NULL */

static inline bool session_over(struct session *s) { return atomic_load_explicit(&s->over, memory_order_acquire) != 0; }
struct grant {
        struct guard *guard; /* the fd */
        struct lessor_msg_grant message;
};

enum ask {
        ASK_GRANTED,
        ASK_REFUSED, /* *error has the broker's outcome */
        ASK_FAILED,  /* *error has ours */
        ASK_UNSENT,  /* the session was over before the question was sent: ask another one; *error is filled in */
};
/* One LEASE and its answer. message->header is filled in here; error is not NULL. Taken back after `deadline`. */
enum ask session_lease(struct session *s, struct lessor_msg_lease *message, uint64_t deadline, struct grant *ret,
                       lessor_error *error);

/* RETURN, its header filled in here. Always done with the lease: what cannot be told to the broker ends the session. */
void session_return(struct session *s, struct lessor_msg_return *message);
/* REPORT, header likewise. Dropped when the broker does not read. */
void session_report(struct session *s, struct lessor_msg_report *message);

/* SPDX-License-Identifier: MIT */
#pragma once
/* The handle: where the broker is, the databases looked up so far, and this process' session. */
#include <stdatomic.h>
#include <stdint.h>

#include <lessor.h>
#include <lessor/protocol.h>

#include "session.h"

#define ATTACH_NS UINT64_C(3000000000) /* for connecting and attaching, unless the caller waits less */
#define SLACK_NS UINT64_C(1000000000)  /* what the broker's answer may be late beyond its own deadline: a busy host */

struct home;

struct lessor {
        _Atomic(struct home *) home;           /* of this process; a child puts its own in front */
        _Atomic(struct lessor_db *) databases; /* only added to, until lessor_close() */
        _Atomic uint64_t next_attach;          /* CLOCK_MONOTONIC: who can do with what is parked does not try before */
        char socket[108];
};

struct warm_set;

struct lessor_db {
        _Atomic(struct warm_set *) warm; /* warm.h; NULL before the first lease */
        struct lessor *client;
        struct lessor_db *next;
        _Atomic uint64_t place; /* where a session's control page has it: session serial << 32 | index */
        char name[LESSOR_NAME_SIZE];
};

/* This process' session, attached if need be; the caller's reference. Else the code of *error. */
int client_session(struct lessor *l, uint64_t deadline, struct session **ret, lessor_error *error);

/* Who wants to know when an attach that another thread is at has come to an end. Told under the home's lock. */
struct client_watch {
        struct list link;
        void (*told)(struct client_watch *);
};
/* What an attach under way waits for, besides being told. */
struct client_attach {
        int fd;      /* readable; -1: nothing */
        uint64_t at; /* CLOCK_MONOTONIC */
};
/* As client_session(), without waiting. -EINPROGRESS: again, when *ret_attach says so or `w` is told. Failures are not repeated at once. */
int client_session_now(struct lessor *l, struct client_watch *w, struct session **ret, struct client_attach *ret_attach,
                       lessor_error *error);
void client_unwatch(struct lessor *l, struct client_watch *w); /* this process'; who is not watched is no matter */

/* The one lessor_db of that name, known to a broker or not; shorter than LESSOR_NAME_SIZE. NULL: out of memory. */
struct lessor_db *client_intern(struct lessor *l, const char *name);

/* Where the session has the database: 0, or LESSOR_E_UNKNOWN_DATABASE. */
int client_place(struct session *s, struct lessor_db *db, uint32_t *ret_index,
                 const struct lessor_control_database **ret, lessor_error *error);

/* SPDX-License-Identifier: MIT */
#pragma once
/* A lease from the inside: the connection, and what we know about how clean it is. */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <lessor.h>
#include <lessor/protocol.h>

#include "base/command.h"
#include "client.h"
#include "fork.h"
#include "io.h"
#include "session.h"

/*
 * Names of commands that were looked up and found harmless, so that a lease in steady use does not walk through the
 * table, whose cache lines Redis and the kernel have pushed out meanwhile. As written: upper and lower case are two.
 */
struct harmless {
        struct {
                uint8_t len; /* 0: free */
                char name[15];
        } recent[4];
};

struct warm_set;

struct lessor_lease {
        /* What every acquire and release touches stands together: one cache line, no more than one load away. */
        struct lessor_slot *slot;     /* in the session segment; NULL: cold, given back by message and freed */
        const atomic_uint *attention; /* the session's */
        const uint64_t *breaker;      /* the database's, in the control page */
        uint64_t held;                /* its word's value, while held */
        uint64_t sampled;             /* CLOCK_MONOTONIC when this hold began, if it is measured; else 0 */
        struct site site;             /* noted in the slot; likewise tid */
        int32_t tid;
        uint32_t epoch;    /* the process it belongs to */
        atomic_bool busy;  /* held by a thread */
        atomic_bool given; /* given back by message since it was granted */
        bool pinned;       /* it counts against max_pinned: given back, never parked */
        bool raw;          /* others write and read on it: beyond all proof */
        bool touched;      /* used since it was taken: only then is there anything to prove, or to restore */

        struct warm_set *set;
        struct lessor_lease *next; /* in its set */
        uint64_t last_used;        /* CLOCK_MONOTONIC of the last exchange; 0: none since it was granted */
        int broken;                /* 0, or the code of the error after which replies can no longer be told apart */
        struct guard *guard;       /* the fd; NULL: none is kept */
        struct stream stream;
        struct command_trail trail;
        bool unknown; /* a command was used of which neither our table nor the broker knows anything */
        struct harmless harmless;
        redisContext *context; /* the lease was used raw: its reader is the stream's */
        uint64_t timeout_ns;   /* for each reply */
        uint64_t socket_timeout_ns;
        struct lessor_msg_grant grant;
};

/* 0: *ret is held; or the code of *error, which is not NULL. */
int lease_take(struct lessor_db *db, const struct request *request, struct lessor_lease **ret, lessor_error *error);
/* Parks it, or gives it back, said clean only with proof. Keeps errno. */
void lease_give(struct lessor_lease *l);

/* Without a broker a new one is looked for now and then, not at each call. */
bool lease_may_attach(struct lessor *client, uint64_t now);
void lease_attach_later(struct lessor *client, uint64_t now);

bool lease_clean(const struct lessor_lease *l); /* the clean proof */
/* State is left at most, and RESET undoes it. */
bool lease_resettable(const struct lessor_lease *l);
/* A command goes out on it: what it may leave behind. True: nothing. */
bool lease_trail(struct lessor_lease *l, const char *name, size_t len);
void lease_report(struct lessor_lease *l, enum lessor_report kind, int error);
/* The kind of report that an error of Redis deserves: it concerns the server, not the command. 0: none. */
unsigned lease_report_kind(const char *reply_error);
/* Puts in front of the text where it happened. */
void lease_say_where(const char *database, const char *socket, lessor_error *error);

/* 0 when the lease may be used here and now, else the code of *error. `function` is for the text. */
int lease_check(const struct lessor_lease *l, const char *function, lessor_error *error);

/*
 * The exchange on the lease's connection, with everything that depends on how it went: the trail, the statistics, the
 * reports, the error's text. x->replies are the caller's even after an error.
 */
int lease_exchange(struct lessor_lease *l, struct exchange *x, lessor_error *error);
/*
 * Its two halves, for who does not wait between them: one or several exchanges under way, one behind the other. begin: 0, or
 * what to end it with: it is not to be sent. Of several that end for one reason the first is the one that is reported.
 */
int lease_exchange_begin(struct lessor_lease *l, struct exchange *x);
int lease_exchange_end(struct lessor_lease *l, struct exchange *x, int result, lessor_error *error);
/* One formatted command, one reply; NULL: see *error. */
redisReply *lease_command(struct lessor_lease *l, const char *data, size_t size, lessor_error *error);
/*
 * The exchange on a connection borrowed for it: 0, or the code of *error, which is not NULL. One that turns out dead before
 * anything was sent is replaced by another, within the caller's deadline.
 */
int lease_exchange_once(struct lessor_db *db, const struct request *request, struct exchange *x, lessor_error *error);
/* Likewise, again and again until it is answered or wait_ms, not negative, have passed: for a request that may run twice. */
int lease_exchange_until(struct lessor_db *db, const struct request *request, struct exchange *x, lessor_error *error);

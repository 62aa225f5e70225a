/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A plain call, one command or a pipe, on its way: by lane, where the broker advises that (lessor_control_database.path) and
 * all its commands may go there; else by lease. lease.h has the other half.
 */
#include "lease.h"

/* As lease_exchange_once() and lease_exchange_until(). */
int call_exchange_once(struct lessor_db *db, const struct request *request, struct exchange *x, lessor_error *error);
int call_exchange_until(struct lessor_db *db, const struct request *request, struct exchange *x, lessor_error *error);

/* Threads that have used a queue: what they do by lease waits for what they have submitted to that database. */
extern _Thread_local bool call_order_matters __attribute__((tls_model("initial-exec")));
/* 0; LESSOR_E_TIMEOUT, told in *error (NULL ok): they were not done in time. */
int call_keep_order(struct lessor_db *db, int wait_ms, lessor_error *error);

/* The session's lane to this database's thread, opened if need be. 0; or the code of *error. */
struct lane_way {
        struct session *session;                       /* the set's, which keeps it */
        const struct lessor_control_database *control; /* zeros, as soon as a newer session has taken over */
        const char *name;                              /* the database's */
        uint32_t database;
        struct lane_client *lane;
};
/*
 * Where the database's commands go by lane, at this time or when asked to (`direct`: also if the broker advises leases). 0; the code of
 * *error: LESSOR_E_NEEDS_LEASE if they go by lease, LESSOR_E_BREAKER_OPEN, ... `wait` as in lane_get().
 */
int call_find_way(struct lessor_db *db, uint64_t deadline, bool direct, bool wait, struct lane_way *ret,
                  lessor_error *error);
/* Likewise where the broker advises it, on this session, without waiting: -EINPROGRESS, the lane is being opened. */
int call_find_way_now(struct lessor_db *db, struct session *s, struct lane_way *ret, lessor_error *error);
/* Its requests' classes, and their number. */
bool call_goes_by_lane(const struct exchange *x);
/* Does it say nothing but that it wants to go another way? */
static inline bool call_is_unsent(const struct lane_call *call) {
        return call->outcome != 0 && !call->may_have_run && (call->over || call->outcome == LESSOR_E_NEEDS_LEASE);
}
/* What to say of a call that came to nothing. */
void call_say(const struct lane_way *way, const struct lane_call *call, lessor_error *error);

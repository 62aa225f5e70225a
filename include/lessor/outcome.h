/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Outcomes: what can come of asking Lessor for something.
 *
 * Two signs, everywhere in Lessor: a negative value is an errno of the calling process (-ENOMEM, -EMFILE ...);
 * a positive value is one of these outcomes, which the caller is expected to handle; 0 is success. The numbers are
 * part of the wire protocol (lessor/protocol.h) and of the status segment: they are never reused.
 */

#ifdef __cplusplus
extern "C" {
#endif

enum lessor_outcome {
        LESSOR_OK = 0,
        LESSOR_E_TIMEOUT = 1,          /* the deadline passed while waiting in the queue; nothing was sent to Redis */
        LESSOR_E_EXHAUSTED = 2,        /* the queue is at max_waiters, or wait 0 was asked and no connection is free */
        LESSOR_E_UNAVAILABLE = 3,      /* no broker answers on the socket, or it went away while we waited */
        LESSOR_E_UPSTREAM = 4,         /* the broker cannot reach Redis: the text is the dial's own error */
        LESSOR_E_CREDENTIALS = 5,      /* Redis refuses the configured user, password or db: needs an operator */
        LESSOR_E_BREAKER_OPEN = 6,     /* the database's circuit breaker is open; retry_ms says when it probes next */
        LESSOR_E_LOADING = 7,          /* Redis is loading its data set */
        LESSOR_E_UNKNOWN_DATABASE = 8, /* no such name; the text lists the names known */
        LESSOR_E_DENIED = 9,           /* this uid or gid is not in the database's allow list */
        LESSOR_E_CONNECTION = 10,      /* the leased connection broke; see may_have_run */
        LESSOR_E_REPLY_TIMEOUT = 11,   /* Redis did not answer within socket_timeout; see may_have_run */
        LESSOR_E_PROTOCOL = 12,        /* the peer (broker or Redis) sent what the protocol does not allow */
        LESSOR_E_INVALID = 13,         /* an argument of the call is invalid; the text names it */
        LESSOR_E_FORKED = 14,          /* a lease was used in a forked child: it stays its parent's */
        LESSOR_E_CANCELLED = 15,       /* the caller took the request back before it was granted */
        LESSOR_E_LIMIT = 16,           /* a limit on sessions or on requests of one session is reached */
        LESSOR_E_VERSION = 17,         /* broker and client have no protocol version in common */
        LESSOR_E_NEEDS_LEASE =
                18, /* the command cannot go by lane: it blocks, or changes the connection; take a lease */
};

#ifdef __cplusplus
}
#endif

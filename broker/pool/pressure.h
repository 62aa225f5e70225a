/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Is a pool near exhaustion? A pool whose every connection is in use is not, as long as they change hands: that is what it
 * is there for. It is, and says so for at least PRESSURE_LINGER_NS, while
 *
 *      requests were refused, or timed out in the queue, because every place was taken, within the last PRESSURE_MEMORY_NS;
 *      the first in the queue has waited for half of wait_timeout;
 *      the queue is three quarters full;
 *      every connection is held, and none has changed hands for PRESSURE_STUCK_NS: the next request would wait in vain.
 *
 * Pure.
 */
#include <stdint.h>

#define PRESSURE_MEMORY_NS UINT64_C(10000000000)
#define PRESSURE_STUCK_NS UINT64_C(5000000000)
#define PRESSURE_LINGER_NS UINT64_C(1000000000)

struct pressure {
        uint64_t refused;      /* as last seen */
        uint64_t refused_at;   /* 0: never */
        uint64_t refused_then; /* when those of refused_at began to be counted together */
        uint64_t until;
        char text[128];
};

struct pressure_signs {
        uint64_t refused; /* for want of a connection, since the start */
        unsigned waiting, max_waiters, in_use, max_connections;
        uint64_t oldest_wait_ns, wait_timeout_ns, youngest_hold_ns;
};

/* Why it is near exhaustion; empty: it is not. Valid until the next call. */
const char *pressure_of(struct pressure *p, const struct pressure_signs *s, uint64_t now);

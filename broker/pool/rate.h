/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * At most RATE_MAX attempts in any RATE_WINDOW_NS: the times of the last RATE_MAX are kept, so that the bound holds
 * for every window and not on average. A server that comes back sees no storm, and a pool as large as the default
 * is never held up.
 */
#include <stdint.h>

#define RATE_MAX 100U
#define RATE_WINDOW_NS UINT64_C(100000000)

struct rate {
        uint64_t at[RATE_MAX]; /* a ring; 0: none yet */
        unsigned next;
};

/* The earliest time for one more. */
static inline uint64_t rate_next(const struct rate *r) { return r->at[r->next] ? r->at[r->next] + RATE_WINDOW_NS : 0; }
static inline void rate_note(struct rate *r, uint64_t now) {
        r->at[r->next] = now;
        r->next = (r->next + 1) % RATE_MAX;
}
/* The last one began this much later than was noted: the bound is one of the real time, not of the loop's. */
static inline void rate_began(struct rate *r, uint64_t now) { r->at[(r->next + RATE_MAX - 1) % RATE_MAX] = now; }

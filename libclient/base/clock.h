/* SPDX-License-Identifier: MIT */
#pragma once
/* Time in nanoseconds. Logic takes `now` as an argument; only loops and I/O read the clock. */
#include <stdint.h>
#include <time.h>

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)
#define TIME_NEVER UINT64_MAX

static inline uint64_t clock_ns(clockid_t id) {
        struct timespec t;
        clock_gettime(id, &t);
        return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static inline uint64_t clock_now(void) { return clock_ns(CLOCK_MONOTONIC); }
static inline uint64_t clock_wall(void) { return clock_ns(CLOCK_REALTIME); }

/* now + span, staying at TIME_NEVER instead of wrapping. */
static inline uint64_t time_after(uint64_t now, uint64_t span) {
        return span > TIME_NEVER - now ? TIME_NEVER : now + span;
}
static inline uint64_t time_left(uint64_t now, uint64_t deadline) { return deadline > now ? deadline - now : 0; }

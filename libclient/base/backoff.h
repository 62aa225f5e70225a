/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Exponential backoff with jitter. Pure: chance comes in as an argument.
 *
 * The first retry comes within BACKOFF_FIRST_NS, or base if that is less (a restarted server is back soon); retry
 * n >= 2 waits base * 2^(n-2), at most max. Of each wait the upper half is random ("equal jitter", Marc Brooker,
 * "Exponential Backoff And Jitter", 2015).
 */
#include <stdint.h>

#define BACKOFF_FIRST_NS UINT64_C(50000000)

struct backoff {
        uint64_t base_ns, max_ns;
        unsigned failures; /* in a row */
};

void backoff_init(struct backoff *b, uint64_t base_ns, uint64_t max_ns);
/* Counts a failure; returns how long to wait before the next attempt. random: any 64 uniform bits. */
uint64_t backoff_fail(struct backoff *b, uint64_t random);
void backoff_succeed(struct backoff *b);

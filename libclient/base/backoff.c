/* SPDX-License-Identifier: MIT */
#include "backoff.h"

#include <limits.h>

void backoff_init(struct backoff *b, uint64_t base_ns, uint64_t max_ns) {
        *b = (struct backoff){.base_ns = base_ns, .max_ns = max_ns};
}

static uint64_t backoff_smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* Before jitter. A base below BACKOFF_FIRST_NS bounds the first wait too: the waits never shrink. */
static uint64_t backoff_ceiling(const struct backoff *b) {
        unsigned doublings = b->failures - 2;
        if (b->failures == 1)
                return backoff_smaller(BACKOFF_FIRST_NS, backoff_smaller(b->base_ns, b->max_ns));
        if (b->base_ns == 0)
                return 0;
        if (doublings > (unsigned)__builtin_clzll(b->base_ns)) /* beyond 64 bits */
                return b->max_ns;
        return backoff_smaller(b->base_ns << doublings, b->max_ns);
}

uint64_t backoff_fail(struct backoff *b, uint64_t random) {
        uint64_t ceiling, certain;
        if (b->failures < UINT_MAX)
                b->failures++;
        ceiling = backoff_ceiling(b);
        certain = ceiling / 2;
        return certain + random % (ceiling - certain + 1);
}

void backoff_succeed(struct backoff *b) { b->failures = 0; }

/* SPDX-License-Identifier: MIT */
#include "latency.h"

/* Below 64 each nanosecond has its own bucket; above, the highest bit and the six after it say which. */
enum { BITS = 6, PARTS = 1 << BITS };

unsigned latency_bucket(uint64_t ns) {
        unsigned exponent, bucket;

        if (ns < PARTS)
                return (unsigned)ns;
        exponent = 63U - (unsigned)__builtin_clzll(ns);
        bucket = (exponent - BITS + 1) * PARTS + (unsigned)(ns >> (exponent - BITS)) % PARTS;
        return bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1;
}

double latency_bucket_ns(unsigned bucket) {
        unsigned shift = bucket / PARTS;

        if (shift == 0)
                return bucket;
        shift--;
        return ((double)(PARTS + bucket % PARTS) + 0.5) * (double)(UINT64_C(1) << shift);
}

double latency_quantile_ns(const uint64_t *buckets, double share) {
        uint64_t total = 0, seen = 0;

        for (unsigned i = 0; i < LATENCY_BUCKETS; i++)
                total += buckets[i];
        for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
                seen += buckets[i];
                if (seen > 0 && (double)seen >= share * (double)total)
                        return latency_bucket_ns(i);
        }
        return 0;
}

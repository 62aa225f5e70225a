/* SPDX-License-Identifier: MIT */
#include "histogram.h"

#define FIRST_BITS 10U /* bucket 0 ends at 2^10 ns */
#define LAST (LESSOR_CALL_BUCKETS - 1)

/* The highest bit says which octave, the two below it which quarter of it. */
unsigned histogram_bucket(uint64_t ns) {
        unsigned top, bucket;
        if (ns < UINT64_C(1) << FIRST_BITS)
                return 0;
        top = 63U - (unsigned)__builtin_clzll(ns);
        bucket = 1 + 4 * (top - FIRST_BITS) + (unsigned)(ns >> (top - 2) & 3);
        return bucket < LAST ? bucket : LAST;
}

void histogram_add(struct lessor_status_histogram *h, uint64_t ns) {
        h->count++;
        h->sum_ns += ns;
        if (ns > h->max_ns)
                h->max_ns = ns;
        h->bucket[histogram_bucket(ns)]++;
}

uint64_t histogram_bucket_middle(unsigned bucket) {
        uint64_t from = bucket == 0 ? 0 : lessor_status_bucket_below_ns(bucket < LAST ? bucket - 1 : LAST - 1);
        uint64_t below = bucket < LAST ? lessor_status_bucket_below_ns(bucket) : from;
        return from + (below - from) / 2;
}

void histogram_merge(struct lessor_status_histogram *into, const struct lessor_status_histogram *from) {
        into->count += from->count;
        into->sum_ns += from->sum_ns;
        if (from->max_ns > into->max_ns)
                into->max_ns = from->max_ns;
        for (unsigned i = 0; i < LESSOR_CALL_BUCKETS; i++)
                into->bucket[i] += from->bucket[i];
}

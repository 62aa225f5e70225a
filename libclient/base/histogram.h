/* SPDX-License-Identifier: MIT */
#pragma once
/* The log-linear histogram of lessor/status.h: which bucket a duration falls into, and counting. Pure, single writer. */
#include <lessor/status.h>

unsigned histogram_bucket(uint64_t ns); /* 0 .. LESSOR_CALL_BUCKETS - 1 */
void histogram_add(struct lessor_status_histogram *h, uint64_t ns);
/* What a duration known only by its bucket counts for in a sum: the bucket's middle, or the start of the last. */
uint64_t histogram_bucket_middle(unsigned bucket);
void histogram_merge(struct lessor_status_histogram *into, const struct lessor_status_histogram *from);

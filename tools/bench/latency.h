/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A histogram of latencies in an array of counts, fine enough to compare percentiles: 64 buckets to each power of two, 1.6 %
 * wide. Pure; one writer, and readers when he has finished.
 */
#include <stdint.h>

enum { LATENCY_BUCKETS = 2048 }; /* up to 68 s; the last takes all that is longer */

unsigned latency_bucket(uint64_t ns);
double latency_bucket_ns(unsigned bucket); /* its middle */
/* The latency that `share` (0..1) of all counted does not exceed; 0 when nothing was counted. */
double latency_quantile_ns(const uint64_t *buckets, double share);

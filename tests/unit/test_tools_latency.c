/* SPDX-License-Identifier: MIT */
#include "support/check.h"

#include "bench/latency.h"

TEST(tools_latency, every_latency_falls_into_a_bucket_whose_middle_is_near_it) {
        for (uint64_t ns = 1; ns < UINT64_C(60000000000); ns += 1 + ns / 97) {
                double middle = latency_bucket_ns(latency_bucket(ns)), off = middle - (double)ns;
                check_msg((off < 0 ? -off : off) <= 0.01 * (double)ns + 0.5, "%llu ns counts as %g",
                          (unsigned long long)ns, middle);
        }
}

TEST(tools_latency, buckets_follow_each_other_without_a_gap) {
        for (unsigned i = 1; i < LATENCY_BUCKETS; i++) {
                check_eq(latency_bucket((uint64_t)latency_bucket_ns(i)), i);
                check(latency_bucket_ns(i) > latency_bucket_ns(i - 1));
        }
}

TEST(tools_latency, what_is_longer_than_all_buckets_counts_in_the_last) {
        check_eq(latency_bucket(UINT64_MAX), LATENCY_BUCKETS - 1);
        check_eq(latency_bucket(UINT64_C(1) << 40), LATENCY_BUCKETS - 1);
}

TEST(tools_latency, a_quantile_is_what_that_share_does_not_exceed) {
        static uint64_t buckets[LATENCY_BUCKETS];
        check(latency_quantile_ns(buckets, 0.99) == 0);
        for (uint64_t us = 1; us <= 1000; us++)
                buckets[latency_bucket(us * 1000)]++;
        double half = latency_quantile_ns(buckets, 0.5), most = latency_quantile_ns(buckets, 1);
        check_msg(half > 490e3 && half < 510e3, "%g", half);
        check_msg(latency_quantile_ns(buckets, 0.99) > 975e3 && latency_quantile_ns(buckets, 0.99) < 1005e3, "%g",
                  latency_quantile_ns(buckets, 0.99));
        check_msg(most > 985e3 && most < 1015e3, "%g", most);
}

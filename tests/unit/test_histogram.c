/* SPDX-License-Identifier: MIT */
#include "base/histogram.h"
#include "support/check.h"

#define LAST (LESSOR_CALL_BUCKETS - 1)

/* The bucket by the definition: the first whose boundary lies above. */
static unsigned bucket_by_search(uint64_t ns) {
        unsigned bucket = 0;
        while (bucket < LAST && ns >= lessor_status_bucket_below_ns(bucket))
                bucket++;
        return bucket;
}

static void check_bucket(uint64_t ns) {
        unsigned bucket = histogram_bucket(ns), expected = bucket_by_search(ns);
        if (bucket != expected)
                check_msg(false, "%" PRIu64 " ns fell into bucket %u, not %u", ns, bucket, expected);
}

TEST(histogram, boundaries_ascend_by_a_quarter_of_an_octave_at_most) {
        uint64_t before = lessor_status_bucket_below_ns(0);
        check_eq(before, 1024);
        for (unsigned bucket = 1; bucket < LAST; bucket++) {
                uint64_t below = lessor_status_bucket_below_ns(bucket);
                check(below > before);
                check(below - before <= before / 4);
                before = below;
        }
        check_eq(before, INT64_C(206158430208)); /* 6 << 35: the last finite one */
        check(lessor_status_bucket_below_ns(LAST) == UINT64_MAX);
        check(lessor_status_bucket_below_ns(LAST + 1) == UINT64_MAX);
}

TEST(histogram, durations_around_every_boundary_fall_on_their_own_side) {
        for (unsigned bucket = 0; bucket < LAST; bucket++) {
                uint64_t below = lessor_status_bucket_below_ns(bucket);
                check_eq(histogram_bucket(below - 1), bucket);
                check_eq(histogram_bucket(below), bucket + 1);
                for (uint64_t off = 0; off <= 300; off++) {
                        check_bucket(below - off);
                        check_bucket(below + off);
                }
        }
}

TEST(histogram, every_short_duration_and_every_power_of_two_agrees_with_the_boundaries) {
        for (uint64_t ns = 0; ns <= UINT64_C(1) << 20; ns++)
                check_bucket(ns);
        for (unsigned bit = 0; bit < 64; bit++)
                for (uint64_t off = 0; off < 3; off++) {
                        check_bucket((UINT64_C(1) << bit) - off);
                        check_bucket((UINT64_C(1) << bit) + off);
                }
        check_eq(histogram_bucket(0), 0);
        check_eq(histogram_bucket(UINT64_MAX), LAST);
}

TEST(histogram, adding_counts_sums_and_keeps_the_longest) {
        struct lessor_status_histogram h = {0};
        const uint64_t durations[] = {0, 1023, 1024, 5000000, 5000001, 300000000000, 7};
        uint64_t counted = 0;
        for (size_t i = 0; i < sizeof(durations) / sizeof(durations[0]); i++)
                histogram_add(&h, durations[i]);
        check_eq(h.count, 7);
        check_eq(h.sum_ns, INT64_C(300010002055));
        check_eq(h.max_ns, INT64_C(300000000000));
        check_eq(h.bucket[0], 3);
        check_eq(h.bucket[1], 1);
        check_eq(h.bucket[bucket_by_search(5000000)], 2);
        check_eq(h.bucket[LAST], 1);
        for (unsigned i = 0; i < LESSOR_CALL_BUCKETS; i++)
                counted += h.bucket[i];
        check_eq(counted, 7);
}

TEST(histogram, the_middle_of_a_bucket_lies_half_way_in_it) {
        uint64_t from = 0;
        for (unsigned bucket = 0; bucket < LAST; bucket++) {
                uint64_t below = lessor_status_bucket_below_ns(bucket), middle = histogram_bucket_middle(bucket);
                check_eq(histogram_bucket(middle), bucket);
                check_eq(middle - from, (below - from) / 2);
                from = below;
        }
        check_eq(histogram_bucket_middle(LAST), from);
        check_eq(histogram_bucket_middle(LAST + 1), from);
        check_eq(histogram_bucket_middle(UINT32_MAX), from);
}

/* SPDX-License-Identifier: MIT */
#include "base/backoff.h"
#include "base/clock.h"
#include "support/check.h"

static const uint64_t chances[] = {0, 1, 2, 12345, UINT64_C(0x8000000000000000), UINT64_MAX - 1, UINT64_MAX};

#define each_chance(c) for (const uint64_t *c = chances; c < chances + sizeof(chances) / sizeof(chances[0]); c++)

TEST(backoff, the_first_retry_comes_within_50_ms_and_the_rest_double_up_to_the_maximum) {
        const uint64_t ceilings_ms[] = {50, 2000, 4000, 8000, 16000, 30000, 30000, 30000};
        each_chance(chance) {
                struct backoff b;
                backoff_init(&b, 2 * NS_PER_S, 30 * NS_PER_S);
                for (unsigned i = 0; i < 8; i++) {
                        uint64_t wait = backoff_fail(&b, *chance), ceiling = ceilings_ms[i] * NS_PER_MS;
                        check(wait <= ceiling);
                        check(wait >= ceiling / 2);
                        check_eq(b.failures, i + 1);
                }
        }
}

TEST(backoff, chance_reaches_both_ends_of_the_upper_half) {
        struct backoff b;
        backoff_init(&b, 2000, 8000);
        check_eq(backoff_fail(&b, 0), 1000); /* base is less than BACKOFF_FIRST_NS */
        check_eq(backoff_fail(&b, 1000), 2000);
        check_eq(backoff_fail(&b, 0), 2000);
        check_eq(backoff_fail(&b, 4000), 8000);
        check_eq(backoff_fail(&b, 4001), 4000);
        check_eq(backoff_fail(&b, 1), 4001);
}

TEST(backoff, an_odd_wait_and_the_longest_of_all_stay_within_bounds) {
        each_chance(chance) {
                struct backoff odd, longest;
                backoff_init(&odd, 3, 3);
                backoff_init(&longest, UINT64_MAX, UINT64_MAX);
                for (unsigned i = 0; i < 3; i++) {
                        uint64_t wait = backoff_fail(&odd, *chance);
                        check(wait >= 1 && wait <= 3);
                        wait = backoff_fail(&longest, *chance);
                        check(i > 0 ? wait >= UINT64_MAX / 2 : wait <= BACKOFF_FIRST_NS);
                }
        }
}

TEST(backoff, no_number_of_failures_overflows) {
        for (unsigned bit = 0; bit < 64; bit++) {
                uint64_t base = UINT64_C(1) << bit, ceiling_before = 0;
                struct backoff b;
                backoff_init(&b, base, UINT64_MAX);
                for (unsigned n = 1; n < 140; n++) {
                        uint64_t certain = backoff_fail(&b, 0);
                        uint64_t ceiling = n - 2 > 63 - bit ? UINT64_MAX : base << (n - 2);
                        if (n == 1)
                                ceiling = base < BACKOFF_FIRST_NS ? base : BACKOFF_FIRST_NS;
                        check(certain == ceiling / 2);
                        check(ceiling >= ceiling_before);
                        ceiling_before = ceiling;
                }
        }
}

TEST(backoff, the_count_of_failures_stays_at_its_end) {
        struct backoff b;
        backoff_init(&b, 2 * NS_PER_S, 30 * NS_PER_S);
        b.failures = UINT32_MAX - 1;
        for (unsigned i = 0; i < 3; i++) {
                check_eq(backoff_fail(&b, 0), 15 * NS_PER_S);
                check_eq(b.failures, UINT32_MAX);
        }
}

TEST(backoff, a_maximum_below_base_bounds_every_wait) {
        struct backoff b;
        backoff_init(&b, 2 * NS_PER_S, 10 * NS_PER_MS);
        for (unsigned i = 0; i < 10; i++)
                check(backoff_fail(&b, UINT64_MAX) <= 10 * NS_PER_MS);
}

TEST(backoff, a_base_or_maximum_of_nothing_does_not_wait) {
        each_chance(chance) {
                struct backoff no_base, no_maximum;
                backoff_init(&no_base, 0, 30 * NS_PER_S);
                backoff_init(&no_maximum, 2 * NS_PER_S, 0);
                for (unsigned i = 0; i < 70; i++) {
                        check_eq(backoff_fail(&no_base, *chance), 0);
                        check_eq(backoff_fail(&no_maximum, *chance), 0);
                }
        }
}

TEST(backoff, success_starts_over) {
        struct backoff b;
        backoff_init(&b, 2 * NS_PER_S, 30 * NS_PER_S);
        for (unsigned i = 0; i < 6; i++)
                backoff_fail(&b, i);
        backoff_succeed(&b);
        check_eq(b.failures, 0);
        check(backoff_fail(&b, UINT64_MAX) <= BACKOFF_FIRST_NS);
}

/* SPDX-License-Identifier: MIT */
#include "pool/share.h"

#include "base/clock.h"
#include "support/check.h"

TEST(share, only_the_last_seconds_count) {
        struct share s = {0};
        uint64_t now = NS_PER_S, ok = 0, failed = 0;
        for (unsigned i = 0; i < 30; i++, now += NS_PER_S)
                share_update(&s, ok += 100, failed, now);
        check(!share_high(&s));
        for (unsigned i = 0; i < 10; i++, now += NS_PER_S)
                share_update(&s, ok += 80, failed += 20, now);
        check_eq(s.percent, 20);
        check(share_high(&s));
        for (unsigned i = 0; i < 10; i++, now += NS_PER_S)
                share_update(&s, ok += 100, failed, now);
        check(!share_high(&s));
}

TEST(share, a_handful_of_operations_says_nothing) {
        struct share s = {0};
        share_update(&s, 0, SHARE_OPERATIONS - 1, NS_PER_S);
        check_eq(s.percent, 0);
        for (unsigned i = 2; i < 12; i++)
                share_update(&s, 0, SHARE_OPERATIONS - 1, i * NS_PER_S);
        share_update(&s, 0, 2 * SHARE_OPERATIONS, 12 * NS_PER_S);
        check_eq(s.percent, 100);
}

TEST(share, it_is_sampled_once_a_second) {
        struct share s = {0};
        share_update(&s, 0, 100, NS_PER_S);
        check_eq(s.percent, 100);
        share_update(&s, 1000000, 100, NS_PER_S + 1);
        check_eq(s.percent, 100);
}

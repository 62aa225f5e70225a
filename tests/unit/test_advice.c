/* SPDX-License-Identifier: MIT */
#include "advice.h"
#include "support/check.h"

static struct advice advice = {.path = LESSOR_PATH_DIRECT};

static void second(unsigned direct_busy, unsigned max_connections) {
        for (unsigned i = 0; i < ADVICE_LOOKS; i++)
                advice_look(&advice, direct_busy, max_connections, true);
}

static void call(struct advice_lane *lane, unsigned times) {
        while (times--)
                advice_call(&advice, lane);
}

TEST(advice, few_go_direct_and_many_by_lane_after_two_looks) {
        second(ADVICE_DIRECT_MANY - 1, 20);
        check_eq(advice.path, LESSOR_PATH_DIRECT);
        check(!advice_look(&advice, ADVICE_DIRECT_MANY, 20, true));
        check(!advice_look(&advice, 0, 20, true));
        check(!advice_look(&advice, ADVICE_DIRECT_MANY, 20, true));
        check(advice_look(&advice, ADVICE_DIRECT_MANY, 20, true));
        check_eq(advice.path, LESSOR_PATH_LANE);
        check_eq(advice.changes, 1);
}

TEST(advice, requests_that_must_wait_for_each_other_turn_to_lanes_at_once) {
        for (unsigned i = 1; i < ADVICE_WAITS_MANY; i++)
                check(!advice_wait(&advice, true));
        advice_look(&advice, 0, 20, true); /* spread over several looks they are few */
        for (unsigned i = 1; i < ADVICE_WAITS_MANY; i++)
                check(!advice_wait(&advice, true));
        check(advice_wait(&advice, true));
        check_eq(advice.path, LESSOR_PATH_LANE);
}

TEST(advice, a_calm_second_turns_back_and_a_busy_look_in_it_does_not) {
        struct advice_lane lanes[ADVICE_LANES_FEW] = {{0}};
        advice_set(&advice, LESSOR_PATH_LANE);
        for (unsigned i = 0; i < ADVICE_LANES_FEW; i++)
                call(&lanes[i], ADVICE_BUSY_CALLS);
        second(0, 20);
        check_eq(advice.path, LESSOR_PATH_LANE);
        for (unsigned i = 0; i < ADVICE_LANES_FEW - 1; i++)
                call(&lanes[i], ADVICE_BUSY_CALLS);
        second(0, 20);
        check_eq(advice.path, LESSOR_PATH_DIRECT);
}

TEST(advice, many_who_call_seldom_stay_by_lane_since_they_would_take_each_other_s_connections) {
        struct advice_lane lanes[11] = {{0}};
        advice_set(&advice, LESSOR_PATH_LANE);
        for (unsigned i = 0; i < 11; i++)
                call(&lanes[i], 1);
        second(0, 20);
        check_eq(advice.path, LESSOR_PATH_LANE);
        for (unsigned i = 0; i < 10; i++)
                call(&lanes[i], 1);
        second(0, 20);
        check_eq(advice.path, LESSOR_PATH_DIRECT);
}

TEST(advice, in_a_small_pool_few_are_fewer) {
        struct advice_lane lanes[2] = {{0}};
        advice_set(&advice, LESSOR_PATH_LANE);
        call(&lanes[0], ADVICE_BUSY_CALLS);
        call(&lanes[1], ADVICE_BUSY_CALLS);
        second(0, 2);
        check_eq(advice.path, LESSOR_PATH_LANE);
}

TEST(advice, what_is_configured_stays) {
        advice_set(&advice, LESSOR_PATH_LEASE);
        for (unsigned i = 0; i < 100; i++)
                check(!advice_wait(&advice, false) && !advice_look(&advice, 100, 20, false));
        check_eq(advice.path, LESSOR_PATH_LEASE);
}

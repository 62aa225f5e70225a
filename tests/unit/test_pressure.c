/* SPDX-License-Identifier: MIT */
/* When a pool is near exhaustion, and when it is only busy. */
#include "pool/pressure.h"

#include "base/clock.h"
#include "support/check.h"

static const struct pressure_signs busy = {.waiting = 180,
                                           .max_waiters = 4096,
                                           .in_use = 20,
                                           .max_connections = 20,
                                           .oldest_wait_ns = 5 * NS_PER_MS,
                                           .wait_timeout_ns = 5 * NS_PER_S,
                                           .youngest_hold_ns = NS_PER_MS};
static struct pressure p;
static struct pressure_signs s;
static uint64_t now;

static void setup(void) {
        p = (struct pressure){0};
        s = busy;
        now = 1000 * NS_PER_S;
}

#define PRESSURE_TEST(name) TEST_WITH(pressure, name, .init = setup, .timeout = 60)

static void check_near(const char *says) {
        const char *text = pressure_of(&p, &s, now);
        check_msg(strstr(text, says), "`%s` does not say `%s`", text, says);
}

static void check_over(void) {
        now += PRESSURE_LINGER_NS - 1;
        check(pressure_of(&p, &s, now)[0]); /* not gone in the blink of an eye */
        now++;
        check_str(pressure_of(&p, &s, now), "");
}

PRESSURE_TEST(connections_that_change_hands_are_enough_though_all_are_in_use) {
        for (unsigned i = 0; i < 100; i++, now += NS_PER_S)
                check_str(pressure_of(&p, &s, now), "");
}

PRESSURE_TEST(requests_that_were_refused_are_remembered_for_a_while) {
        s.refused = 3;
        check_near("3 requests");
        now += NS_PER_S;
        s.refused = 5;
        check_near("5 requests");
        now += PRESSURE_MEMORY_NS - 1;
        check_near("5 requests");
        check_over();
        s.refused = 6; /* those of last time are another story */
        check_near("1 requests");
}

PRESSURE_TEST(a_request_that_has_waited_for_half_its_time_is_a_sign) {
        s.oldest_wait_ns = s.wait_timeout_ns / 2 - 1;
        check_str(pressure_of(&p, &s, now), "");
        s.oldest_wait_ns++;
        check_near("waited for 2500 ms");
        s.oldest_wait_ns = 0;
        check_over();
}

PRESSURE_TEST(a_queue_three_quarters_full_is_a_sign) {
        s.waiting = 3071;
        check_str(pressure_of(&p, &s, now), "");
        s.waiting = 3072;
        check_near("max_waiters is 4096");
        s.waiting = 0;
        check_over();
}

PRESSURE_TEST(connections_that_nobody_gives_back_are_a_sign_though_nobody_waits) {
        s.waiting = 0;
        s.youngest_hold_ns = PRESSURE_STUCK_NS - 1;
        check_str(pressure_of(&p, &s, now), "");
        s.youngest_hold_ns++;
        check_near("all 20 connections are held");
        s.in_use = 19;
        check_over();
}

PRESSURE_TEST(a_pool_without_a_queue_and_without_waiting_is_judged_by_what_it_refuses) {
        s = (struct pressure_signs){.max_connections = 20};
        check_str(pressure_of(&p, &s, now), "");
        s.refused = 1;
        check_near("1 requests");
}

/* SPDX-License-Identifier: MIT */
/* The breaker: each state meets each event, in time and late; then its timers, losses and flapping. */
#include "pool/breaker.h"

#include "base/clock.h"
#include "dial_meter.h"
#include "pool/rate.h"
#include "support/check.h"

#define PAUSE (2 * NS_PER_S)

static const struct breaker_limits limits = {.failures = 5, .open_ns = 60 * NS_PER_S, .early_probe = true};
static struct breaker b;
static uint64_t now;

static void setup(void) {
        now = 1000 * NS_PER_S;
        breaker_init(&b, &limits);
}

#define BREAKER_TEST(name) TEST_WITH(breaker, name, .init = setup, .timeout = 60)

static void trip(void) {
        for (unsigned i = 1; i < limits.failures; i++)
                check(!breaker_fail(&b, b.epoch, PAUSE, now));
        check(breaker_fail(&b, b.epoch, PAUSE, now));
}

/* OPEN by hand is a state of its own here. */
enum { HELD = BREAKER_STATES, ALL_STATES };

static void bring_into(unsigned state) {
        setup();
        if (state == HELD) {
                check(breaker_hold(&b, now));
                return;
        }
        for (unsigned i = 1; i < limits.failures; i++)
                breaker_fail(&b, b.epoch, PAUSE, now); /* one more would open it */
        if (state == BREAKER_CLOSED)
                return;
        breaker_fail(&b, b.epoch, PAUSE, now);
        if (state == BREAKER_HALF_OPEN)
                breaker_probe(&b);
}

enum event { SUCCEED, FAIL, ANSWER, LOSE, RESET, HOLD, LATE_SUCCEED, LATE_FAIL, LATE_ANSWER, LATE_LOSE, EVENTS };

static bool apply(enum event event) {
        switch (event) {
        case SUCCEED:
                return breaker_succeed(&b, b.epoch);
        case FAIL:
                return breaker_fail(&b, b.epoch, PAUSE, now);
        case ANSWER:
                return breaker_answer(&b, b.epoch);
        case LOSE:
                return breaker_lose(&b, now, PAUSE, now);
        case RESET:
                return breaker_reset(&b);
        case HOLD:
                return breaker_hold(&b, now);
        case LATE_SUCCEED:
                return breaker_succeed(&b, b.epoch - 1);
        case LATE_FAIL:
                return breaker_fail(&b, b.epoch - 1, PAUSE, now);
        case LATE_ANSWER:
                return breaker_answer(&b, b.epoch - 1);
        case LATE_LOSE:
                b.last_loss = now;
                return breaker_lose(&b, now - 1, PAUSE, now);
        case EVENTS:
                break;
        }
        return false;
}

#define C BREAKER_CLOSED
#define O BREAKER_OPEN
#define H BREAKER_HALF_OPEN
#define B HELD
static const unsigned after[ALL_STATES][EVENTS] = {
        /*      SUCCEED FAIL ANSWER LOSE RESET HOLD and late: they change nothing */
        [C] = {C, O, C, O, C, B, C, C, C, C},
        [O] = {C, O, C, O, C, B, O, O, O, O},
        [H] = {C, O, C, H, C, B, H, H, H, H},
        [B] = {B, B, B, B, C, B, B, B, B, B},
};

static unsigned state_now(void) { return b.held && b.state == BREAKER_OPEN ? HELD : b.state; }

BREAKER_TEST(every_state_meets_every_event) {
        for (unsigned state = 0; state < ALL_STATES; state++) {
                for (unsigned event = 0; event < EVENTS; event++) {
                        bring_into(state);
                        uint64_t epoch = b.epoch;
                        bool changed = apply((enum event)event);
                        check_msg(state_now() == after[state][event], "state %u event %u: %u", state, event,
                                  state_now());
                        check_msg((b.epoch != epoch) == (after[state][event] != state), "state %u event %u", state,
                                  event);
                        check(changed == (after[state][event] != state));
                        check(!b.held || (b.state == BREAKER_OPEN && !breaker_due(&b, TIME_NEVER)));
                        check(b.state != BREAKER_CLOSED || b.failures == 0 || b.failures == limits.failures - 1);
                }
        }
}

BREAKER_TEST(so_many_failures_in_a_row_open_it_and_a_success_between_them_does_not_count) {
        for (unsigned i = 0; i < 4; i++)
                check(!breaker_fail(&b, b.epoch, PAUSE, now));
        check(!breaker_succeed(&b, b.epoch));
        trip();
        check_eq(b.trips, 1);
        check_eq(b.opened_at, now);
}

BREAKER_TEST(a_success_while_closed_forgets_the_failures) {
        for (unsigned i = 0; i < 100; i++) {
                check(!breaker_fail(&b, b.epoch, PAUSE, now));
                check(!breaker_succeed(&b, b.epoch));
        }
        check_eq(b.failures, 0);
        check_eq(b.trips, 0);
}

BREAKER_TEST(it_probes_at_the_backoff_and_at_the_latest_when_the_open_time_is_over) {
        trip();
        check_eq(b.retry_at, now + PAUSE);
        check(!breaker_due(&b, b.retry_at - 1));
        check(breaker_due(&b, b.retry_at));
        breaker_probe(&b);
        check(!breaker_due(&b, TIME_NEVER)); /* one probe */
        check(breaker_fail(&b, b.epoch, 90 * NS_PER_S, now));
        check_eq(b.retry_at, now + 60 * NS_PER_S);
        check_eq(b.trips, 1);
}

BREAKER_TEST(without_early_probes_the_open_time_alone_counts) {
        b.limits.early_probe = false;
        trip();
        check_eq(b.retry_at, now + 60 * NS_PER_S);
        now = b.retry_at;
        breaker_probe(&b);
        check(breaker_fail(&b, b.epoch, PAUSE, now));
        check_eq(b.retry_at, now + 60 * NS_PER_S);
}

BREAKER_TEST(a_probe_that_succeeds_closes_it_and_the_next_trip_takes_all_failures_again) {
        trip();
        breaker_probe(&b);
        check(breaker_succeed(&b, b.epoch));
        check_eq(b.failures, 0);
        trip();
        check_eq(b.trips, 2);
}

BREAKER_TEST(late_results_of_an_old_epoch_change_nothing) {
        uint64_t before = b.epoch;
        trip();
        breaker_probe(&b);
        check(!breaker_succeed(&b, before)); /* a dial begun before it opened does not stand for the probe */
        check_eq(b.state, BREAKER_HALF_OPEN);
        check(breaker_succeed(&b, b.epoch));
        for (unsigned i = 0; i < 100; i++)
                check(!breaker_fail(&b, before, PAUSE, now));
        check_eq(b.failures, 0);
}

BREAKER_TEST(losses_of_connections_that_stood_together_count_once) {
        for (unsigned i = 0; i < 20; i++)
                check(!breaker_lose(&b, now - 1, PAUSE, now + i));
        check_eq(b.failures, 1);
        check(!breaker_lose(&b, now + 100, PAUSE, now + 200)); /* established since */
        check_eq(b.failures, 2);
}

BREAKER_TEST(a_server_that_flaps_opens_it_each_time_and_is_let_in_each_time) {
        for (unsigned i = 1; i <= 50; i++) {
                trip();
                now = b.retry_at;
                breaker_probe(&b);
                check(breaker_fail(&b, b.epoch, PAUSE, now));
                now = b.retry_at;
                breaker_probe(&b);
                check(breaker_succeed(&b, b.epoch));
                check_eq(b.trips, i);
        }
}

BREAKER_TEST(no_failures_configured_means_never) {
        b.limits.failures = 0;
        for (unsigned i = 0; i < 1000; i++)
                check(!breaker_fail(&b, b.epoch, PAUSE, now));
}

BREAKER_TEST(opened_by_hand_it_is_no_trip_and_knows_since_when) {
        check(breaker_hold(&b, now));
        check_eq(b.opened_at, now);
        check_eq(b.trips, 0);
        check(breaker_reset(&b));
        check(!b.held);
        trip();
        now += NS_PER_S;
        check(breaker_hold(&b, now));
        check_eq(b.opened_at, now - NS_PER_S); /* it has been open since then */
}

TEST(dial_meter, the_most_within_any_tenth_of_a_second_is_found) {
        struct dial_meter m = {0};
        uint64_t t = NS_PER_S;
        for (unsigned i = 0; i < 1000; i++, t += 10 * NS_PER_MS)
                dial_meter_note(&m, t);
        check_eq(m.peak, 10);
        for (unsigned i = 0; i < 30; i++)
                dial_meter_note(&m, t += NS_PER_MS);
        check(m.peak >= 36 && m.peak <= 38);
        for (unsigned i = 0; i < 2 * DIAL_METER_SIZE; i++)
                dial_meter_note(&m, t);
        check_eq(m.peak, DIAL_METER_SIZE);
}

TEST(rate, no_window_sees_more_than_the_limit) {
        static uint64_t begun[10 * RATE_MAX];
        struct rate r = {0};
        uint64_t t = 77;
        for (unsigned i = 0; i < 10 * RATE_MAX; i++) {
                uint64_t at = rate_next(&r);
                t = at > t ? at : t + i % 3 * NS_PER_MS / 10;
                rate_note(&r, t);
                begun[i] = t;
                if (i >= RATE_MAX)
                        check(begun[i] - begun[i - RATE_MAX] >= RATE_WINDOW_NS);
        }
        check(begun[RATE_MAX - 1] - begun[0] < RATE_WINDOW_NS); /* and the first RATE_MAX are not held up */
}

/* SPDX-License-Identifier: MIT */
/* Dials, the queue, returns. Leases: test_pool_leases.c. Every state and event: test_pool_states.c. */
#include "unit/pool_fixture.h"

POOL_TEST(a_new_pool_does_nothing_and_is_unused) {
        char reason[LESSOR_STATUS_TEXT_SIZE];
        expect(POOL_NOTHING);
        check_eq(pool_wakeup(&pool), TIME_NEVER);
        check_eq(pool_open(&pool), 0);
        check_eq(pool_health(&pool, "", "", reason), LESSOR_HEALTH_UNUSED);
}

POOL_TEST(it_dials_only_when_somebody_waits_and_only_as_much) {
        ask(0);
        ask(1);
        check_eq(expect(POOL_DIAL).conn->state, CONN_DIALLING);
        expect(POOL_DIAL);
        expect(POOL_NOTHING);
        check_eq(pool.count[CONN_DIALLING], 2);
}

POOL_TEST(it_never_dials_beyond_the_cap) {
        for (unsigned i = 0; i < 10; i++)
                ask(i);
        for (unsigned i = 0; i < MAX; i++)
                expect(POOL_DIAL);
        expect(POOL_NOTHING);
        check_eq(pool_open(&pool), MAX);
        check_eq(pool.stats.peak_open, MAX);
}

POOL_TEST(those_who_wait_are_served_in_the_order_they_came) {
        struct pool_conn *conn = lease_one(0);
        for (unsigned i = 1; i < 6; i++)
                ask(i);
        expect(POOL_DIAL); /* under way, and of no use to this test */
        expect(POOL_DIAL);
        for (unsigned i = 1; i < 6; i++) {
                pool_return(&pool, conn, POOL_RETURN_CLEAN, now);
                struct pool_action action = expect(POOL_GRANT);
                check(action.waiter == &waiters[i]);
                check(action.conn == conn);
        }
        check_eq(pool.stats.leases, 6);
}

POOL_TEST(a_newcomer_does_not_barge_past_the_queue) {
        struct pool_conn *conn = lease_one(0);
        ask(1);
        pool_return(&pool, conn, POOL_RETURN_CLEAN, now);
        ask(2); /* comes after the connection is free, but before it is handed on */
        check(expect(POOL_GRANT).waiter == &waiters[1]);
}

POOL_TEST(the_queue_is_bounded) {
        for (unsigned i = 0; i < MAX; i++)
                lease_one(i);
        for (unsigned i = 0; i < WAITERS; i++)
                ask(i);
        struct pool_waiter one_more;
        check_eq(lease(&one_more, 1), LESSOR_E_EXHAUSTED);
        check_eq(pool.waiting, WAITERS);
        check_eq(pool.stats.peak_waiting, WAITERS);
}

POOL_TEST(a_queue_of_no_length_still_serves_whom_a_place_can_serve) {
        struct pool_conn *conns[MAX];
        pool.limits.max_waiters = 0;
        for (unsigned i = 0; i < MAX; i++)
                ask(i); /* for a place not dialled yet */
        for (unsigned i = 0; i < MAX; i++)
                conns[i] = expect(POOL_DIAL).conn;
        check_eq(lease(&waiters[MAX], 1), LESSOR_E_EXHAUSTED);
        for (unsigned i = 0; i < MAX; i++) {
                pool_dialled(&pool, conns[i], now);
                expect(POOL_GRANT);
        }
        check_eq(lease(&waiters[MAX], 1), LESSOR_E_EXHAUSTED);
        pool_return(&pool, conns[0], POOL_RETURN_CLEAN, now);
        ask(MAX);
        check(expect(POOL_GRANT).waiter == &waiters[MAX]);
}

POOL_TEST(one_who_leaves_the_queue_is_skipped) {
        ask(0);
        ask(1);
        pool_cancel(&pool, &waiters[0]);
        pool_cancel(&pool, &waiters[0]); /* twice is once */
        struct pool_conn *conn = expect(POOL_DIAL).conn;
        expect(POOL_NOTHING);
        pool_dialled(&pool, conn, now);
        check(expect(POOL_GRANT).waiter == &waiters[1]);
}

POOL_TEST(a_dial_nobody_waits_for_any_more_ends_up_free) {
        ask(0);
        struct pool_conn *conn = expect(POOL_DIAL).conn;
        pool_cancel(&pool, &waiters[0]);
        pool_dialled(&pool, conn, now);
        expect(POOL_NOTHING);
        check_eq(pool.count[CONN_FREE], 1);
}

POOL_TEST(a_dirty_return_is_closed_and_its_place_counts_until_it_is) {
        struct pool_conn *conn = lease_one(0);
        uint64_t generation = conn->generation;
        pool_return(&pool, conn, POOL_RETURN_DIRTY, now);
        check(expect(POOL_CLOSE).conn == conn);
        expect(POOL_NOTHING); /* said once */
        check_eq(pool_open(&pool), 1);
        pool_closed(&pool, conn, now);
        check_eq(pool_open(&pool), 0);
        check_eq(pool.stats.discards[POOL_DISCARD_DIRTY], 1);
        ask(1);
        check(expect(POOL_DIAL).conn == conn);
        check_eq(conn->generation, generation + 1);
        pool_dialled(&pool, conn, now);
        check_eq(pool.stats.reconnections, 1);
}

POOL_TEST(a_resettable_return_is_reset_and_serves_the_first_in_the_queue) {
        struct pool_conn *conn = lease_one(0);
        uint64_t generation = conn->generation;
        ask(1);
        pool_return(&pool, conn, POOL_RETURN_RESETTABLE, now);
        check(expect(POOL_RESET).conn == conn);
        expect(POOL_NOTHING); /* said once; and whoever waits is about to be served, without a dial */
        check_eq(pool_wakeup(&pool), TIME_NEVER);
        check_eq(pool_open(&pool), 1);
        ask(2);
        struct pool_conn *other = expect(POOL_DIAL).conn; /* the next one is not */
        pool_reset_done(&pool, conn, now);
        struct pool_action action = expect(POOL_GRANT);
        check(action.conn == conn && action.waiter == &waiters[1]);
        check_eq(conn->generation, generation);
        check_eq(pool.stats.resets, 1);
        pool_dialled(&pool, other, now);
        check(expect(POOL_GRANT).waiter == &waiters[2]);
}

POOL_TEST(a_reset_that_fails_is_a_close_and_those_who_wait_get_a_dial) {
        struct pool_conn *conn = lease_one(0);
        ask(1);
        pool_return(&pool, conn, POOL_RETURN_RESETTABLE, now);
        expect(POOL_RESET);
        pool_reset_failed(&pool, conn, now);
        check(expect(POOL_CLOSE).conn == conn);
        check(expect(POOL_DIAL).conn != conn);
        pool_closed(&pool, conn, now);
        check_eq(pool.stats.discards[POOL_DISCARD_RESET], 1);
        check_eq(pool.stats.resets, 0);
}

POOL_TEST(a_full_pool_does_not_dial_while_it_resets) {
        struct pool_conn *conns[MAX];
        for (unsigned i = 0; i < MAX; i++)
                conns[i] = lease_one(i);
        for (unsigned i = 0; i < MAX; i++)
                pool_return(&pool, conns[i], POOL_RETURN_RESETTABLE, now);
        for (unsigned i = 0; i < 2 * MAX; i++)
                ask(MAX + i);
        for (unsigned i = 0; i < MAX; i++)
                expect(POOL_RESET);
        expect(POOL_NOTHING);
        check_eq(pool_open(&pool), MAX);
}

POOL_TEST(one_that_redis_closed_under_its_holder_is_not_reset) {
        struct pool_conn *conn = lease_one(0);
        pool_lost(&pool, conn, now);
        pool_return(&pool, conn, POOL_RETURN_RESETTABLE, now);
        check(expect(POOL_CLOSE).conn == conn);
        check_eq(pool.stats.discards[POOL_DISCARD_LOST], 1);
}

POOL_TEST(a_full_pool_waits_for_the_close_before_it_dials_again) {
        struct pool_conn *conns[MAX];
        for (unsigned i = 0; i < MAX; i++)
                conns[i] = lease_one(i);
        ask(MAX);
        pool_return(&pool, conns[0], POOL_RETURN_HOLDER, now);
        expect(POOL_CLOSE);
        expect(POOL_NOTHING);
        pool_closed(&pool, conns[0], now);
        check(expect(POOL_DIAL).conn == conns[0]);
        check_eq(pool.stats.reclaims, 1);
        check_eq(pool.stats.discards[POOL_DISCARD_HOLDER], 1);
}

POOL_TEST(a_lost_free_connection_is_closed_and_a_leased_one_when_it_comes_back) {
        struct pool_conn *conn = lease_one(0);
        pool_lost(&pool, conn, now);
        check_eq(conn->state, CONN_LEASED);
        expect(POOL_NOTHING);
        pool_return(&pool, conn, POOL_RETURN_CLEAN, now);
        check(expect(POOL_CLOSE).conn == conn);
        pool_closed(&pool, conn, now);
        check_eq(pool.stats.discards[POOL_DISCARD_LOST], 1);

        conn = dial_one(1);
        pool_cancel(&pool, &waiters[1]);
        pool_lost(&pool, conn, now);
        check(expect(POOL_CLOSE).conn == conn);
        check_eq(pool.stats.discards[POOL_DISCARD_LOST], 2);
}

POOL_TEST(a_grant_that_turns_out_bad_puts_its_waiter_first_again) {
        struct pool_conn *conn = dial_one(0);
        ask(1);
        struct pool_action action = expect(POOL_GRANT);
        check(action.waiter == &waiters[0]);
        pool_ungrant(&pool, conn, action.waiter, POOL_DISCARD_STRAY, now);
        check_eq(pool.stats.leases, 0);
        check(expect(POOL_CLOSE).conn == conn);
        struct pool_conn *other = expect(POOL_DIAL).conn;
        check(other != conn);
        pool_dialled(&pool, other, now);
        check(expect(POOL_GRANT).waiter == &waiters[0]);
}

POOL_TEST(a_failed_dial_is_tried_again_soon_then_ever_later) {
        uint64_t last = 0;
        ask(0);
        for (unsigned attempt = 0; attempt < 4; attempt++) {
                struct pool_conn *conn = expect(POOL_DIAL).conn;
                pool_dial_failed(&pool, conn, LESSOR_E_UPSTREAM, now, UINT64_MAX);
                expect(POOL_NOTHING);
                uint64_t pause = pool_wakeup(&pool) - now;
                check(pause > last);
                check(attempt > 0 || pause <= 50 * NS_PER_MS);
                check(pause <= 30 * NS_PER_S);
                last = pause;
                now += pause - 1;
                expect(POOL_NOTHING);
                now += 1;
        }
        check_eq(pool.stats.failed, 4);
        check_eq(pool.stats.retries, 3);
}

POOL_TEST(after_so_many_failed_dials_those_who_wait_are_told) {
        ask(0);
        ask(1);
        struct pool_conn *first = expect(POOL_DIAL).conn, *second = expect(POOL_DIAL).conn;
        pool_dial_failed(&pool, first, LESSOR_E_UPSTREAM, now, 0);
        pool_dial_failed(&pool, second, LESSOR_E_UPSTREAM, now, 0);
        for (unsigned failures = 1; failures < 5; failures++) {
                expect(POOL_NOTHING);
                now = pool_wakeup(&pool);
                pool_dial_failed(&pool, expect(POOL_DIAL).conn, LESSOR_E_UPSTREAM, now, 0);
        }
        for (unsigned i = 0; i < 2; i++) {
                struct pool_action action = expect(POOL_FAIL);
                check(action.waiter == &waiters[i]);
                check_eq(action.outcome, LESSOR_E_UPSTREAM);
        }
        expect(POOL_NOTHING);
        ask(2); /* whoever comes later waits for the next dial */
        now = pool.next_dial;
        pool_dialled(&pool, expect(POOL_DIAL).conn, now);
        check(expect(POOL_GRANT).waiter == &waiters[2]);
        check_eq(pool.trouble, 0);
}

POOL_TEST(while_dials_fail_only_one_is_out) {
        for (unsigned i = 0; i < 3; i++)
                ask(i);
        struct pool_conn *conns[3];
        for (unsigned i = 0; i < 3; i++)
                conns[i] = expect(POOL_DIAL).conn;
        for (unsigned i = 0; i < 3; i++)
                pool_dial_failed(&pool, conns[i], LESSOR_E_UPSTREAM, now, 0);
        now = pool_wakeup(&pool);
        expect(POOL_DIAL);
        expect(POOL_NOTHING);
        now += 60 * NS_PER_S;
        expect(POOL_NOTHING);
}

POOL_TEST(dials_that_were_out_together_fail_once) {
        struct pool_conn *conns[MAX];
        for (unsigned i = 0; i < MAX; i++)
                ask(i);
        for (unsigned i = 0; i < MAX; i++)
                conns[i] = expect(POOL_DIAL).conn;
        for (unsigned i = 0; i < MAX; i++) {
                pool_dial_failed(&pool, conns[i], LESSOR_E_UPSTREAM, now, UINT64_MAX);
                now += i == 0 ? 0 : NS_PER_MS;
        }
        check_eq(pool.stats.failed, MAX);
        check_eq(pool.backoff.failures, 1);
        check(pool.next_dial - now <= 50 * NS_PER_MS);
        now = pool.next_dial;
        pool_dial_failed(&pool, expect(POOL_DIAL).conn, LESSOR_E_UPSTREAM, now, UINT64_MAX);
        check_eq(pool.backoff.failures, 2);
        check(pool.next_dial - now <= 2 * NS_PER_S);
}

POOL_TEST(wrong_credentials_are_told_at_once_and_never_retried_hot) {
        ask(0);
        ask(1);
        struct pool_conn *first = expect(POOL_DIAL).conn, *second = expect(POOL_DIAL).conn;
        pool_dial_failed(&pool, first, LESSOR_E_CREDENTIALS, now, 0);
        check_eq(expect(POOL_FAIL).outcome, LESSOR_E_CREDENTIALS);
        check_eq(expect(POOL_FAIL).outcome, LESSOR_E_CREDENTIALS);
        pool_dial_failed(&pool, second, LESSOR_E_CREDENTIALS, now, 0);
        check_eq(lease(&waiters[2], 1), LESSOR_E_CREDENTIALS);
        now += 29 * NS_PER_S;
        check_eq(lease(&waiters[2], 1), LESSOR_E_CREDENTIALS);
        now += 2 * NS_PER_S;
        ask(2);
        struct pool_conn *conn = expect(POOL_DIAL).conn;
        pool_dialled(&pool, conn, now);
        expect(POOL_GRANT);
        check_eq(pool.refusal, 0);
}

POOL_TEST(loading_is_polled_each_second_and_is_no_failure) {
        ask(0);
        for (unsigned i = 0; i < 3; i++) {
                pool_dial_failed(&pool, expect(POOL_DIAL).conn, LESSOR_E_LOADING, now, 0);
                expect(POOL_NOTHING);
                check_eq(pool_wakeup(&pool) - now, NS_PER_S);
                now += NS_PER_S;
        }
        check_eq(pool.stats.failed, 0);
        pool_dialled(&pool, expect(POOL_DIAL).conn, now);
        expect(POOL_GRANT);
}

POOL_TEST(one_who_leaves_while_the_queue_is_told_does_not_cost_another_his_place) {
        for (unsigned i = 0; i < 3; i++)
                ask(i);
        struct pool_conn *conn = expect(POOL_DIAL).conn;
        pool_dial_failed(&pool, conn, LESSOR_E_CREDENTIALS, now, 0);
        check_eq(pool.giving_up, 3);
        pool_cancel(&pool, &waiters[1]);
        check_eq(pool.giving_up, 2);
        check(expect(POOL_FAIL).waiter == &waiters[0]);
        check(expect(POOL_FAIL).waiter == &waiters[2]);
        expect(POOL_NOTHING);
}

POOL_TEST(figures_follow_what_happens) {
        struct pool_conn *conn = lease_one(0);
        now += 5 * NS_PER_MS;
        ask(1);
        expect(POOL_DIAL);
        now += 10 * NS_PER_MS;
        pool_return(&pool, conn, POOL_RETURN_CLEAN, now);
        expect(POOL_GRANT);
        check_eq(pool.stats.wait_time.count, 2);
        check_eq(pool.stats.wait_time.max_ns, 10 * NS_PER_MS);
        check_eq(pool.last_lease, 2);
}

POOL_TEST(health_says_what_is_the_matter) {
        char reason[LESSOR_STATUS_TEXT_SIZE];
        for (unsigned i = 0; i < MAX; i++)
                lease_one(i);
        check_eq(pool_health(&pool, "", "", reason), LESSOR_HEALTH_HEALTHY);
        check_str(reason, "");
        ask(MAX); /* that somebody waits is what a pool is there for: pressure.h says when it is too much */
        check_eq(pool_health(&pool, "", "", reason), LESSOR_HEALTH_HEALTHY);
        check_eq(pool_health(&pool, "", "the queue is full", reason), LESSOR_HEALTH_DEGRADED);
        check_str(reason, "near exhaustion: the queue is full");

        teardown();
        setup();
        ask(0);
        struct pool_conn *conn = expect(POOL_DIAL).conn;
        pool_dial_failed(&pool, conn, LESSOR_E_UPSTREAM, now, 0);
        check_eq(pool_health(&pool, "connecting: Connection refused", "", reason), LESSOR_HEALTH_FAILED);
        check_str(reason, "connecting: Connection refused");
}

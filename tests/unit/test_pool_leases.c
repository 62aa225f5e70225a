/* SPDX-License-Identifier: MIT */
/* Recall, what one user may have, how a lease ends, lanes. */
#include "unit/pool_fixture.h"

/* ---- recall: while somebody waits, what is leased is wanted -------------------------------------------------------- */

static unsigned words_said(enum pool_action_type type) {
        struct pool_action action;
        unsigned n = 0;
        while ((action = next_of_all()).type != POOL_NOTHING)
                n += action.type == type;
        return n;
}

static void lease_all(struct pool_conn *conns[MAX]) {
        for (unsigned i = 0; i < MAX; i++)
                conns[i] = lease_one(i);
}

POOL_TEST(each_leased_connection_is_wanted_once_while_somebody_waits) {
        struct pool_conn *conns[MAX];
        bool said[MAX] = {false};
        lease_all(conns);
        check_eq(next_of_all().type, POOL_NOTHING);
        ask(MAX);
        for (unsigned i = 0; i < MAX; i++) {
                struct pool_action action = next_of_all();
                check_eq(action.type, POOL_RECALL);
                check(!said[action.conn->slot] && action.conn->wanted);
                said[action.conn->slot] = true;
        }
        check_eq(next_of_all().type, POOL_NOTHING);
        ask(MAX + 1);
        check_eq(next_of_all().type, POOL_NOTHING);
        check_eq(pool.wanted, MAX);
        check_eq(pool_wakeup(&pool), TIME_NEVER);
}

POOL_TEST(a_recalled_one_serves_the_queue_and_the_others_are_let_be) {
        struct pool_conn *conns[MAX];
        lease_all(conns);
        ask(MAX);
        struct pool_action action = next_of_all();
        check_eq(action.type, POOL_RECALL);
        pool_return(&pool, action.conn, POOL_RETURN_RECALLED, now); /* it was parked */
        struct pool_action granted = next_of_all();
        check_eq(granted.type, POOL_GRANT);
        check(granted.conn == action.conn && granted.waiter == &waiters[MAX]);
        check_eq(words_said(POOL_UNWANT), 0); /* nobody else had been asked */
        check_eq(pool.stats.recalls, 1);
}

POOL_TEST(when_nobody_waits_any_more_each_wanted_one_is_unwanted_once) {
        struct pool_conn *conns[MAX];
        lease_all(conns);
        ask(MAX);
        check_eq(words_said(POOL_RECALL), MAX);
        pool_cancel(&pool, &waiters[MAX]);
        check_eq(words_said(POOL_UNWANT), MAX);
        check_eq(next_of_all().type, POOL_NOTHING);
        for (unsigned i = 0; i < MAX; i++)
                check(!conns[i]->wanted);
        ask(MAX);
        check_eq(words_said(POOL_RECALL), MAX);
}

POOL_TEST(a_connection_granted_while_others_wait_is_wanted_from_the_start) {
        struct pool_conn *conns[MAX];
        lease_all(conns);
        ask(MAX);
        ask(MAX + 1);
        check_eq(words_said(POOL_RECALL), MAX);
        pool_return(&pool, conns[0], POOL_RETURN_CLEAN, now);
        check_eq(next_of_all().type, POOL_GRANT);
        struct pool_action action = next_of_all();
        check_eq(action.type, POOL_RECALL);
        check(action.conn == conns[0]);
        check_eq(next_of_all().type, POOL_NOTHING);
}

POOL_TEST(nothing_is_recalled_for_one_whom_a_dial_serves_at_once) {
        lease_one(0);
        ask(1);
        struct pool_action action = next_of_all();
        check_eq(action.type, POOL_DIAL);
        check_eq(next_of_all().type, POOL_NOTHING);
        check_eq(pool_wakeup(&pool) - now, 5 * NS_PER_MS);
        now += 5 * NS_PER_MS - 1;
        check_eq(next_of_all().type, POOL_NOTHING);
        pool_dialled(&pool, action.conn, now);
        check_eq(next_of_all().type, POOL_GRANT);
        check_eq(next_of_all().type, POOL_NOTHING);
        check_eq(pool.wanted, 0);
}

POOL_TEST(a_dial_that_takes_longer_than_5_ms_is_not_waited_for) {
        struct pool_conn *conn = lease_one(0);
        ask(1);
        check_eq(next_of_all().type, POOL_DIAL);
        check_eq(next_of_all().type, POOL_NOTHING);
        now = pool_wakeup(&pool);
        struct pool_action action = next_of_all();
        check_eq(action.type, POOL_RECALL);
        check(action.conn == conn);
        check_eq(next_of_all().type, POOL_NOTHING);
        check_eq(pool_wakeup(&pool), TIME_NEVER);
}

POOL_TEST(while_dials_fail_what_is_leased_is_recalled_at_once) {
        lease_one(0);
        ask(1);
        struct pool_action action = next_of_all();
        check_eq(action.type, POOL_DIAL);
        pool_dial_failed(&pool, action.conn, LESSOR_E_UPSTREAM, now, UINT64_MAX);
        check_eq(next_of_all().type, POOL_RECALL);
}

/* ---- accounts: what one user may have of the pool ----------------------------------------------------------------- */

static struct pool_account users[2];

static int lease_as(unsigned user, unsigned i) {
        waiters[i].session = i;
        waiters[i].account = &users[user];
        return pool_lease(&pool, &waiters[i], now);
}

/* check_sound() counts one account: here there are two. */
static struct pool_action next_of_users(void) {
        struct pool_action action;
        do
                action = pool_next(&pool, now);
        while (is_about_words(&action));
        check_eq(users[0].leased + users[1].leased, pool.count[CONN_LEASED]);
        check_eq(users[0].waiting + users[1].waiting, pool.waiting);
        return action;
}

static struct pool_conn *lease_one_as(unsigned user, unsigned i) {
        check_eq(lease_as(user, i), 0);
        struct pool_action action = next_of_users();
        check_eq(action.type, POOL_DIAL);
        pool_dialled(&pool, action.conn, now);
        action = next_of_users();
        check_eq(action.type, POOL_GRANT);
        check(action.waiter == &waiters[i]);
        return action.conn;
}

static void limit_users(unsigned leased, unsigned waiting) {
        for (unsigned i = 0; i < 2; i++)
                users[i] = (struct pool_account){.max_leased = leased, .max_waiting = waiting};
}

POOL_TEST(a_user_at_his_limit_is_passed_by_until_he_gives_something_back) {
        limit_users(1, 0);
        struct pool_conn *his = lease_one_as(0, 0);
        check_eq(lease_as(0, 1), 0);
        check_eq(lease_as(1, 2), 0);
        struct pool_action action = next_of_users();
        check_eq(action.type, POOL_DIAL);
        pool_dialled(&pool, action.conn, now);
        action = next_of_users();
        check_eq(action.type, POOL_GRANT);
        check(action.waiter == &waiters[2]); /* who came later */
        pool_return(&pool, his, POOL_RETURN_CLEAN, now);
        action = next_of_users();
        check_eq(action.type, POOL_GRANT);
        check(action.waiter == &waiters[1]);
}

POOL_TEST(below_their_limits_users_are_served_in_the_order_they_came) {
        limit_users(2, 0);
        struct pool_conn *conns[MAX] = {lease_one_as(0, 0), lease_one_as(1, 1), lease_one_as(1, 2)};
        check_eq(lease_as(0, 3), 0);
        check_eq(lease_as(1, 4), 0);
        check_eq(lease_as(0, 5), 0);
        pool_return(&pool, conns[1], POOL_RETURN_CLEAN, now);
        struct pool_action action = next_of_users();
        check(action.type == POOL_GRANT && action.waiter == &waiters[3]);
        pool_return(&pool, conns[2], POOL_RETURN_CLEAN, now);
        action = next_of_users();
        check(action.type == POOL_GRANT && action.waiter == &waiters[4]);
}

POOL_TEST(for_users_at_their_limit_nothing_is_dialled_recalled_or_woken) {
        limit_users(1, 0);
        lease_one_as(0, 0);
        check_eq(lease_as(0, 1), 0);
        check_eq(lease_as(0, 2), 0);
        check_eq(pool_next(&pool, now).type, POOL_NOTHING);
        check_eq(pool_wakeup(&pool), TIME_NEVER);
        now += NS_PER_S;
        check_eq(pool_next(&pool, now).type, POOL_NOTHING);
        check_eq(pool_wakeup(&pool), TIME_NEVER); /* a time gone by would be a loop that never sleeps */
        check_eq(pool_open(&pool), 1);
}

POOL_TEST(one_user_has_only_so_many_requests_waiting) {
        limit_users(0, 2);
        for (unsigned i = 0; i < MAX; i++)
                lease_one_as(0, i);
        check_eq(lease_as(0, 10), 0);
        check_eq(lease_as(0, 11), 0);
        check_eq(lease_as(0, 12), LESSOR_E_LIMIT);
        check_eq(users[0].waiting, 2);
        check_eq(lease_as(1, 13), 0);
        pool_cancel(&pool, &waiters[10]);
        check_eq(lease_as(0, 12), 0);
}

POOL_TEST(a_grant_taken_back_is_taken_from_the_account) {
        limit_users(0, 0);
        check_eq(lease_as(0, 0), 0);
        struct pool_action action = next_of_users();
        pool_dialled(&pool, action.conn, now);
        action = next_of_users();
        check_eq(users[0].leased, 1);
        pool_ungrant(&pool, action.conn, action.waiter, POOL_DISCARD_STRAY, now);
        check(users[0].leased == 0 && users[0].waiting == 1);
}

/* ---- how a lease ends, lost or not, wanted or not ------------------------------------------------------------------- */

POOL_TEST(whatever_ends_a_lease_leaves_nothing_wanted_and_counts_once) {
        static const struct {
                enum pool_return how;
                enum conn_state after, after_lost;
                enum pool_discard why;
        } cases[] = {
                {POOL_RETURN_CLEAN, CONN_FREE, CONN_CLOSING, POOL_DISCARDS},
                {POOL_RETURN_RECALLED, CONN_FREE, CONN_CLOSING, POOL_DISCARDS},
                {POOL_RETURN_RESETTABLE, CONN_RESETTING, CONN_CLOSING, POOL_DISCARDS},
                {POOL_RETURN_DIRTY, CONN_CLOSING, CONN_CLOSING, POOL_DISCARD_DIRTY},
                {POOL_RETURN_HOLDER, CONN_CLOSING, CONN_CLOSING, POOL_DISCARD_HOLDER},
                {POOL_RETURN_REVOKED, CONN_CLOSING, CONN_CLOSING, POOL_DISCARD_REVOKED},
        };
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]) * 4; i++) {
                bool lost = i & 1, wanted = i & 2;
                struct pool_conn *conns[MAX];
                lease_all(conns);
                if (wanted) {
                        ask(MAX);
                        check_eq(words_said(POOL_RECALL), MAX);
                }
                if (lost)
                        pool_lost(&pool, conns[1], now);
                pool_return(&pool, conns[1], cases[i / 4].how, now);
                check_sound();
                check_eq(conns[1]->state, lost ? cases[i / 4].after_lost : cases[i / 4].after);
                check(!conns[1]->wanted);
                check_eq(pool.wanted, wanted ? MAX - 1 : 0);
                if (cases[i / 4].why != POOL_DISCARDS && (!lost || cases[i / 4].why == POOL_DISCARD_REVOKED))
                        check_eq(pool.stats.discards[cases[i / 4].why], 1);
                check_eq(pool.stats.recalls, cases[i / 4].how == POOL_RETURN_RECALLED);
                check_eq(pool.stats.revocations, cases[i / 4].how == POOL_RETURN_REVOKED);
                check_eq(pool.stats.reclaims, cases[i / 4].how == POOL_RETURN_HOLDER);
                teardown();
                setup();
        }
}

/* ---- lanes -------------------------------------------------------------------------------------------------------- */

POOL_TEST(the_first_lane_comes_before_all_who_wait_and_gets_a_connection_that_never_left) {
        struct pool_conn *held[MAX];
        for (unsigned i = 0; i < MAX; i++) {
                ask(i);
                pool_dialled(&pool, expect(POOL_DIAL).conn, now);
                held[i] = expect(POOL_GRANT).conn;
        }
        ask(MAX);
        pool_want_lanes(&pool, 2);
        expect(POOL_NOTHING);
        pool_return(&pool, held[0], POOL_RETURN_CLEAN, now);
        struct pool_conn *sacrificed = expect(POOL_CLOSE).conn;
        check_eq(sacrificed->slot, held[0]->slot);
        expect(POOL_NOTHING);
        pool_closed(&pool, sacrificed, now);
        pool_dialled(&pool, expect(POOL_DIAL).conn, now);
        check_eq(expect(POOL_LANE).conn->state, CONN_LANE);
        expect(POOL_NOTHING); /* the second one waits behind the queue */
        pool_return(&pool, held[1], POOL_RETURN_CLEAN, now);
        check_eq(expect(POOL_GRANT).waiter - waiters, MAX);
        check_sound();
}

POOL_TEST(more_lanes_than_one_go_back_when_somebody_waits_the_last_one_stays) {
        struct pool_conn *lane[2];
        pool_want_lanes(&pool, 2);
        for (unsigned i = 0; i < 2; i++) {
                pool_dialled(&pool, expect(POOL_DIAL).conn, now);
                lane[i] = expect(POOL_LANE).conn;
        }
        for (unsigned i = 0; i < MAX - 2; i++) {
                ask(i);
                pool_dialled(&pool, expect(POOL_DIAL).conn, now);
                expect(POOL_GRANT);
        }
        ask(MAX);
        struct pool_conn *drained = expect(POOL_DRAIN).conn;
        check(drained == lane[0] || drained == lane[1]);
        pool_lane_done(&pool, drained, POOL_LANE_FREE, now, 0);
        expect(POOL_GRANT);
        check_eq(pool.count[CONN_LANE], 1);
}

POOL_TEST(a_lane_connection_that_answers_nothing_counts_against_the_server) {
        pool_want_lanes(&pool, 1);
        pool_dialled(&pool, expect(POOL_DIAL).conn, now);
        struct pool_conn *lane = expect(POOL_LANE).conn;
        pool_lane_done(&pool, lane, POOL_LANE_STALLED, now, 0);
        check_eq(pool.breaker.failures, 1);
        check_eq(lane->state, CONN_CLOSING);
}

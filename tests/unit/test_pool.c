/* SPDX-License-Identifier: MIT */
/* The pool: every event in every state, the queue's order, the cap, the dialling. The clock is a number. */
#include "pool/pool.h"

#include <errno.h>

#include "base/clock.h"
#include "support/check.h"

#define MAX 3U
#define WAITERS 64U

static struct pool pool;
static struct pool_waiter waiters[WAITERS];
static struct pool_account account;
static uint64_t now;

static void setup(void) {
        const struct pool_limits limits = {.max_connections = MAX,
                                           .max_waiters = WAITERS,
                                           .retry_base_ns = 2 * NS_PER_S,
                                           .retry_max_ns = 30 * NS_PER_S,
                                           .retry_attempts = 5};
        now = 1000 * NS_PER_S;
        account = (struct pool_account){0};
        check_eq(pool_init(&pool, &limits, 0, now), 0);
}

static void teardown(void) { pool_deinit(&pool); }

#define POOL_TEST(name) TEST_WITH(pool, name, .init = setup, .fini = teardown, .timeout = 60)

/* What must hold after whatever happens. */
static void check_sound(void) {
        unsigned total = 0, queued = 0;
        for (unsigned state = 0; state < CONN_STATES; state++) {
                unsigned n = 0;
                list_for_each (&pool.by_state[state], it) {
                        check_eq(((struct pool_conn *)(void *)it)->state, state);
                        n++;
                }
                check_eq(n, pool.count[state]);
                total += n;
        }
        check_eq(total, MAX);
        check(pool_open(&pool) <= MAX);
        list_for_each (&pool.queue, it)
                queued += it != NULL;
        check_eq(queued, pool.waiting);
        check(pool.giving_up <= pool.waiting);
        check_eq(account.waiting, pool.waiting);
        check_eq(account.leased, pool.count[CONN_LEASED]);
        check(pool.wanted <= pool.count[CONN_LEASED]);
}

static bool is_about_words(const struct pool_action *action) {
        return action->type == POOL_RECALL || action->type == POOL_UNWANT;
}

/* The next action, whatever it is. */
static struct pool_action next_of_all(void) {
        struct pool_action action = pool_next(&pool, now);
        check_sound();
        return action;
}

/* Of those that move connections: here a recalled one is always held, and comes back when its holder says so. */
static struct pool_action next(void) {
        struct pool_action action;
        do
                action = next_of_all();
        while (is_about_words(&action));
        return action;
}

static struct pool_action expect(enum pool_action_type type) {
        struct pool_action action = next();
        check_eq(action.type, type);
        return action;
}

static int lease(struct pool_waiter *waiter, uint64_t session) {
        waiter->session = session;
        waiter->account = &account;
        return pool_lease(&pool, waiter, now);
}

static void ask(unsigned i) { check_eq(lease(&waiters[i], 100 + i), 0); }

static struct pool_conn *dial_one(unsigned waiter) {
        ask(waiter);
        struct pool_conn *conn = expect(POOL_DIAL).conn;
        pool_dialled(&pool, conn, now);
        return conn;
}

/* A connection leased to waiter i. */
static struct pool_conn *lease_one(unsigned i) {
        dial_one(i);
        struct pool_action action = expect(POOL_GRANT);
        check(action.waiter == &waiters[i]);
        return action.conn;
}

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

/* ---- state x event: a connection brought into each state meets each event that may come in it ---------------------- */

enum event {
        EVENT_DIALLED,
        EVENT_DIAL_FAILED,
        EVENT_RETURN_CLEAN,
        EVENT_RETURN_RESETTABLE,
        EVENT_RETURN_DIRTY,
        EVENT_RETURN_HOLDER,
        EVENT_LOST,
        EVENT_CLOSED,
        EVENT_RESET_DONE,
        EVENT_RESET_FAILED,
        EVENT_CHECK_ANSWERED,
        EVENT_CHECK_FAILED,
        EVENT_LANE_FREE,
        EVENT_LANE_LOST,
        EVENT_LANE_STALLED,
        EVENTS
};

#define NEVER CONN_STATES /* the owner never reports this in that state: pool_*() asserts it */

static const enum conn_state after[CONN_STATES][EVENTS] = {
#define N NEVER
        [CONN_VACANT] = {N, N, N, N, N, N, CONN_VACANT, N, N, N, N, N, N, N, N},
        [CONN_DIALLING] = {CONN_FREE, CONN_VACANT, N, N, N, N, CONN_DIALLING, N, N, N, N, N, N, N, N},
        [CONN_FREE] = {N, N, N, N, N, N, CONN_CLOSING, N, N, N, N, N, N, N, N},
        [CONN_LEASED] = {N, N, CONN_FREE, CONN_RESETTING, CONN_CLOSING, CONN_CLOSING, CONN_LEASED, N, N, N, N, N, N, N,
                         N},
        [CONN_RESETTING] = {N, N, N, N, N, N, CONN_CLOSING, N, CONN_FREE, CONN_CLOSING, N, N, N, N, N},
        [CONN_CLOSING] = {N, N, N, N, N, N, CONN_CLOSING, CONN_VACANT, N, N, N, N, N, N, N},
        [CONN_CHECKING] = {N, N, N, N, N, N, CONN_CLOSING, N, N, N, CONN_FREE, CONN_CLOSING, N, N, N},
        [CONN_LANE] = {N, N, N, N, N, N, CONN_LANE, N, N, N, N, N, CONN_FREE, CONN_CLOSING, CONN_CLOSING},
};

static struct pool_conn *bring_into(enum conn_state state) {
        struct pool_conn *conn = &pool.conns[0];
        if (state == CONN_VACANT)
                return conn;
        ask(0);
        conn = expect(POOL_DIAL).conn;
        if (state == CONN_DIALLING)
                return conn;
        pool_dialled(&pool, conn, now);
        if (state == CONN_FREE || state == CONN_CHECKING)
                pool_cancel(&pool, &waiters[0]);
        if (state == CONN_CHECKING) {
                check(pool_suspect(&pool, now));
                expect(POOL_CHECK);
        }
        if (state == CONN_FREE || state == CONN_CHECKING)
                return conn;
        if (state == CONN_LANE) {
                pool_cancel(&pool, &waiters[0]);
                pool_want_lanes(&pool, 1);
                expect(POOL_LANE);
                return conn;
        }
        expect(POOL_GRANT);
        if (state == CONN_LEASED)
                return conn;
        pool_return(&pool, conn, state == CONN_RESETTING ? POOL_RETURN_RESETTABLE : POOL_RETURN_DIRTY, now);
        expect(state == CONN_RESETTING ? POOL_RESET : POOL_CLOSE);
        return conn;
}

static void apply(enum event event, struct pool_conn *conn) {
        switch (event) {
        case EVENT_DIALLED:
                pool_dialled(&pool, conn, now);
                break;
        case EVENT_DIAL_FAILED:
                pool_dial_failed(&pool, conn, LESSOR_E_UPSTREAM, now, 0);
                break;
        case EVENT_RETURN_CLEAN:
                pool_return(&pool, conn, POOL_RETURN_CLEAN, now);
                break;
        case EVENT_RETURN_RESETTABLE:
                pool_return(&pool, conn, POOL_RETURN_RESETTABLE, now);
                break;
        case EVENT_RETURN_DIRTY:
                pool_return(&pool, conn, POOL_RETURN_DIRTY, now);
                break;
        case EVENT_RETURN_HOLDER:
                pool_return(&pool, conn, POOL_RETURN_HOLDER, now);
                break;
        case EVENT_LOST:
                pool_lost(&pool, conn, now);
                break;
        case EVENT_CLOSED:
                pool_closed(&pool, conn, now);
                break;
        case EVENT_RESET_DONE:
                pool_reset_done(&pool, conn, now);
                break;
        case EVENT_RESET_FAILED:
                pool_reset_failed(&pool, conn, now);
                break;
        case EVENT_CHECK_ANSWERED:
                pool_checked(&pool, conn, POOL_CHECK_ANSWERED, now, 0);
                break;
        case EVENT_CHECK_FAILED:
                pool_checked(&pool, conn, POOL_CHECK_FAILED, now, 0);
                break;
        case EVENT_LANE_FREE:
                pool_lane_done(&pool, conn, POOL_LANE_FREE, now, 0);
                break;
        case EVENT_LANE_LOST:
                pool_lane_done(&pool, conn, POOL_LANE_LOST, now, 0);
                break;
        case EVENT_LANE_STALLED:
                pool_lane_done(&pool, conn, POOL_LANE_STALLED, now, 0);
                break;
        case EVENTS:
                break;
        }
}

POOL_TEST(every_state_meets_every_event) {
        unsigned met = 0;
        for (unsigned state = 0; state < CONN_STATES; state++) {
                for (unsigned event = 0; event < EVENTS; event++) {
                        if (after[state][event] == NEVER)
                                continue;
                        struct pool_conn *conn = bring_into((enum conn_state)state);
                        check_eq(conn->state, state);
                        uint64_t generation = conn->generation;
                        apply((enum event)event, conn);
                        check_eq(conn->state, after[state][event]);
                        check_eq(conn->generation, generation);
                        check_sound();
                        met++;
                        teardown();
                        setup();
                }
        }
        check_eq(met, 22);
}

/* ---- a long random life: whatever the order of events, the books balance ------------------------------------------- */

static uint64_t random_state = 42;
static unsigned roll(unsigned n) {
        random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (unsigned)(random_state >> 33) % n;
}

static bool queued[WAITERS];

static void carry_out_all(void) {
        struct pool_action action;
        while ((action = next()).type != POOL_NOTHING) {
                if (action.type == POOL_GRANT || action.type == POOL_FAIL)
                        queued[action.waiter - waiters] = false;
                if (action.type == POOL_GRANT && roll(10) == 0) {
                        pool_ungrant(&pool, action.conn, action.waiter, POOL_DISCARD_LOST, now);
                        queued[action.waiter - waiters] = true;
                }
        }
}

static void random_event(void) {
        struct pool_conn *conn = &pool.conns[roll(MAX)];
        unsigned i = roll(WAITERS);
        switch (conn->state) {
        case CONN_DIALLING:
                apply(roll(3) ? EVENT_DIALLED : EVENT_DIAL_FAILED, conn);
                break;
        case CONN_LEASED:
                apply(EVENT_RETURN_CLEAN + roll(5), conn);
                break;
        case CONN_CLOSING:
                apply(EVENT_CLOSED, conn);
                break;
        case CONN_FREE:
                if (roll(4) == 0)
                        apply(EVENT_LOST, conn);
                break;
        case CONN_CHECKING:
                pool_checked(&pool, conn, (enum pool_check)roll(5), now, random_state);
                break;
        case CONN_RESETTING:
                apply(roll(4) ? EVENT_RESET_DONE : EVENT_RESET_FAILED + roll(2) * (EVENT_LOST - EVENT_RESET_FAILED),
                      conn);
                break;
        case CONN_LANE:
                if (conn->told || roll(20) == 0)
                        apply(EVENT_LANE_FREE + (roll(4) ? 0 : 1 + roll(2)), conn);
                break;
        case CONN_VACANT:
        case CONN_STATES:
                break;
        }
        if (roll(50) == 0)
                pool_suspect(&pool, now);
        if (roll(100) == 0)
                pool_want_lanes(&pool, roll(4) ? 0 : roll(4));
        if (!queued[i] && roll(2)) {
                queued[i] = lease(&waiters[i], i) == 0;
        } else if (queued[i] && roll(4) == 0) {
                pool_cancel(&pool, &waiters[i]);
                queued[i] = false;
        }
}

POOL_TEST(whatever_happens_the_books_balance) {
        const struct upkeep_limits upkeep = {.health_ns = NS_PER_S,
                                             .idle_ns = 2 * NS_PER_S,
                                             .sweep_ns = NS_PER_S,
                                             .lifetime_ns = 20 * NS_PER_S,
                                             .min_idle = 1};
        upkeep_init(&pool.upkeep, &upkeep, now);
        pool.breaker.limits = (struct breaker_limits){.failures = 3, .open_ns = 10 * NS_PER_S, .early_probe = true};
        for (unsigned step = 0; step < 200000; step++) {
                now += roll(1000) * NS_PER_MS;
                random_event();
                carry_out_all();
        }
        check(pool.stats.leases > 10000);
        check(pool.stats.failed > 1000);
        check(pool.breaker.trips > 100);
        check(pool.stats.checks > 1000);
        check(pool.stats.discards[POOL_DISCARD_IDLE] > 0);
        check(pool.stats.resets > 1000);
        check(pool.stats.discards[POOL_DISCARD_RESET] > 100);
        check(pool.stats.discards[POOL_DISCARD_LANE] > 0);
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

/* SPDX-License-Identifier: MIT */
#include "base/clock.h"
#include "lane/batch.h"
#include "support/check.h"

static const struct batch_limits usual = {.connections = 2, .depth = 4, .lane_depth = 3, .reply_ns = 1000};

static struct batch opened(const struct batch_limits *limits) {
        struct batch b;
        check_eq(batch_init(&b, limits), 0);
        for (unsigned i = 0; i < limits->connections; i++)
                batch_up(&b, i);
        return b;
}

static unsigned send(struct batch *b, struct batch_lane *lane, uint64_t tag) {
        unsigned connection = batch_choose(b, lane);
        if (connection != BATCH_NONE)
                batch_sent(b, connection, lane, tag, TIME_NEVER, 0);
        return connection;
}

static void check_reply(struct batch *b, unsigned connection, struct batch_lane *lane, uint64_t tag) {
        struct batch_owner o;
        check(batch_reply(b, connection, 0, &o));
        check(o.lane == lane);
        check(!lane || o.tag == tag);
}

TEST(lane_batch, replies_belong_to_whose_command_was_sent_first) {
        struct batch b = opened(&(struct batch_limits){.connections = 1, .depth = 4, .lane_depth = 3, .reply_ns = 1});
        struct batch_lane one = {0}, two = {0};
        struct batch_owner o;
        check_eq(send(&b, &one, 1), 0);
        check_eq(send(&b, &two, 1), 0);
        check_eq(send(&b, &one, 2), 0);
        check_reply(&b, 0, &one, 1);
        check_reply(&b, 0, &two, 1);
        check_reply(&b, 0, &one, 2);
        check(!batch_reply(&b, 0, 0, &o)); /* nothing was asked */
        check(one.under_way == 0 && two.under_way == 0);
        batch_deinit(&b);
}

TEST(lane_batch, a_lane_stays_on_its_connection_while_anything_is_under_way_and_others_go_where_less_is) {
        struct batch b = opened(&usual);
        struct batch_lane one = {0}, two = {0};
        check_eq(send(&b, &one, 1), 0);
        check_eq(send(&b, &two, 1), 1);
        check_eq(send(&b, &one, 2), 0);
        check_reply(&b, 0, &one, 1);
        check_reply(&b, 1, &two, 1);
        check_eq(send(&b, &one, 3), 0); /* though the other is idle */
        check_eq(send(&b, &two, 2), 1);
        check_reply(&b, 1, &two, 2);
        check_reply(&b, 0, &one, 2);
        check_reply(&b, 0, &one, 3);
        check_eq(send(&b, &two, 3), 0);
        check_eq(send(&b, &one, 4), 1);
        batch_deinit(&b);
}

TEST(lane_batch, what_is_under_way_is_bounded_for_a_lane_and_for_a_connection) {
        struct batch b = opened(&(struct batch_limits){.connections = 1, .depth = 4, .lane_depth = 3, .reply_ns = 1});
        struct batch_lane one = {0}, two = {0};
        for (uint64_t i = 0; i < 3; i++)
                check_eq(send(&b, &one, i), 0);
        check_eq(send(&b, &one, 3), BATCH_NONE);
        check_eq(send(&b, &two, 0), 0);
        check_eq(send(&b, &two, 1), BATCH_NONE);
        check_reply(&b, 0, &one, 0);
        check_eq(send(&b, &two, 1), 0);
        batch_deinit(&b);
}

TEST(lane_batch, a_late_reply_is_thrown_away_and_its_place_kept_until_it_comes) {
        struct batch b =
                opened(&(struct batch_limits){.connections = 2, .depth = 4, .lane_depth = 2, .reply_ns = 1000});
        struct batch_lane one = {0};
        struct batch_owner o;
        batch_sent(&b, 0, &one, 7, 50, 0);
        batch_sent(&b, 0, &one, 8, 90, 0);
        check_eq(batch_wakeup(&b), 50);
        check(!batch_expire(&b, 49, &o));
        check(batch_expire(&b, 50, &o));
        check(o.lane == &one && o.tag == 7);
        check(!batch_expire(&b, 50, &o));
        check_eq(batch_wakeup(&b), 90);
        check_eq(batch_choose(&b, &one), BATCH_NONE); /* it may still run: it counts */
        check_reply(&b, 0, NULL, 0);
        check_eq(b.discarded, 1);
        check_eq(batch_choose(&b, &one), 0); /* behind the one that is under way */
        check_reply(&b, 0, &one, 8);
        check(!batch_expire(&b, 90, &o));
        check_eq(batch_wakeup(&b), TIME_NEVER);
        batch_deinit(&b);
}

TEST(lane_batch, the_dead_have_no_replies_and_disturb_nobody) {
        struct batch b =
                opened(&(struct batch_limits){.connections = 1, .depth = 8, .lane_depth = 3, .reply_ns = 1000});
        struct batch_lane dead = {0}, other = {0};
        struct batch_owner o;
        send(&b, &dead, 1);
        send(&b, &other, 1);
        send(&b, &dead, 2);
        send(&b, &other, 2);
        batch_forget(&b, &dead);
        check_eq(dead.under_way, 0);
        memset(&dead, 0xff, sizeof(dead)); /* it is gone */
        check_reply(&b, 0, NULL, 0);
        check_reply(&b, 0, &other, 1);
        check(batch_down(&b, 0, &o));
        check(o.lane == &other && o.tag == 2);
        check(!batch_down(&b, 0, &o));
        check_eq(b.discarded, 1);
        batch_deinit(&b);
}

TEST(lane_batch, when_a_connection_ends_each_caller_is_told_once) {
        struct batch b = opened(&usual);
        struct batch_lane one = {0}, two = {0};
        struct batch_owner o;
        batch_sent(&b, 0, &one, 1, 10, 0);
        batch_sent(&b, 0, &one, 2, 99, 0);
        batch_sent(&b, 1, &two, 1, 99, 0);
        check(batch_expire(&b, 10, &o));
        check(batch_down(&b, 0, &o));
        check(o.lane == &one && o.tag == 2); /* the other one was told at its deadline */
        check(!batch_down(&b, 0, &o));
        check_eq(one.under_way, 0);
        check_eq(batch_choose(&b, &one), 1);
        batch_up(&b, 0);
        check_eq(batch_choose(&b, &one), 0);
        check_reply(&b, 1, &two, 1);
        batch_deinit(&b);
}

TEST(lane_batch, a_draining_connection_gets_nothing_new_and_loses_no_order) {
        struct batch b = opened(&usual);
        struct batch_lane one = {0}, two = {0};
        send(&b, &one, 1);
        batch_drain(&b, 0);
        check_eq(batch_choose(&b, &two), 1);
        check_eq(batch_choose(&b, &one), BATCH_NONE); /* not before its first is answered */
        check_reply(&b, 0, &one, 1);
        check_eq(batch_choose(&b, &one), 1);
        batch_deinit(&b);
}

TEST(lane_batch, a_connection_that_answers_nothing_is_stalled_however_much_is_asked) {
        struct batch b = opened(&usual);
        struct batch_lane one = {0};
        struct batch_owner o;
        check_eq(batch_stalled(&b, 5000), BATCH_NONE); /* nothing was asked */
        batch_sent(&b, 0, &one, 1, TIME_NEVER, 100);
        check_eq(batch_wakeup(&b), 1100);
        batch_sent(&b, 0, &one, 2, TIME_NEVER, 900);
        check_eq(batch_stalled(&b, 1099), BATCH_NONE);
        check_eq(batch_stalled(&b, 1100), 0);
        check(batch_reply(&b, 0, 1099, &o));
        check_eq(batch_stalled(&b, 1100), BATCH_NONE);
        check(!batch_expire(&b, 1100, &o));
        check_eq(batch_wakeup(&b), 2099);
        check_eq(batch_stalled(&b, 2099), 0);
        batch_deinit(&b);
}

/* ---- at random, against books of another kind -------------------------------------------------------------------- */

#define LANES 5U
struct books {
        struct batch b;
        struct batch_lane lanes[LANES];
        uint64_t sent[LANES], ran[LANES], told[LANES]; /* tags, counted from 1 */
        struct {
                unsigned lane;
                uint64_t tag, life;
        } wires[2][64]; /* what Redis sees */
        unsigned lengths[2];
        uint64_t lives[LANES]; /* how often a lane began anew */
        uint64_t now;
};

/* Each told once, in whatever order. */
static void note_told(struct books *k, const struct batch_owner *o) {
        if (!o->lane)
                return;
        check(o->lane >= k->lanes && o->lane < k->lanes + LANES);
        check(o->tag <= k->sent[o->lane - k->lanes]);
        k->told[o->lane - k->lanes]++;
}

static void random_send(struct books *k, unsigned lane, uint32_t random) {
        unsigned c = batch_choose(&k->b, &k->lanes[lane]);
        if (c == BATCH_NONE)
                return;
        batch_sent(&k->b, c, &k->lanes[lane], ++k->sent[lane], k->now + random % 40, k->now);
        k->wires[c][k->lengths[c]].lane = lane;
        k->wires[c][k->lengths[c]].life = k->lives[lane];
        k->wires[c][k->lengths[c]++].tag = k->sent[lane];
}

static void random_reply(struct books *k, unsigned c) {
        struct batch_owner o;
        unsigned lane = k->wires[c][0].lane;
        uint64_t tag = k->wires[c][0].tag;
        bool alive = k->wires[c][0].life == k->lives[lane];
        check_eq(batch_reply(&k->b, c, k->now, &o), k->lengths[c] > 0);
        if (k->lengths[c] == 0)
                return;
        memmove(&k->wires[c][0], &k->wires[c][1], --k->lengths[c] * sizeof(k->wires[c][0]));
        check(!o.lane || (alive && o.lane == &k->lanes[lane] && o.tag == tag)); /* his own, or nobody's */
        check(!alive || tag > k->ran[lane]);                                    /* in the order it was sent */
        if (alive)
                k->ran[lane] = tag;
        note_told(k, &o);
}

static void random_end(struct books *k, unsigned lane) {
        batch_forget(&k->b, &k->lanes[lane]);
        k->lives[lane]++;
        k->sent[lane] = k->ran[lane] = k->told[lane] = 0;
}

static void random_down(struct books *k, unsigned c) {
        struct batch_owner o;
        while (batch_down(&k->b, c, &o))
                note_told(k, &o);
        k->lengths[c] = 0;
        batch_up(&k->b, c);
}

TEST(lane_batch, at_random_nobody_gets_another_ones_reply_and_everybody_is_told_once) {
        static struct books k;
        const struct batch_limits limits = {.connections = 2, .depth = 9, .lane_depth = 4, .reply_ns = 100};
        struct batch_owner o;
        uint32_t random = 1;
        k.b = opened(&limits);
        for (unsigned i = 0; i < 300000; i++) {
                random ^= random << 13, random ^= random >> 17, random ^= random << 5;
                k.now += random % 3;
                switch (random >> 8 & 63) {
                case 0:
                        random_down(&k, random >> 16 & 1);
                        break;
                case 1:
                        random_end(&k, (random >> 16) % LANES);
                        break;
                default:
                        if (random >> 15 & 1)
                                random_send(&k, (random >> 16) % LANES, random >> 20);
                        else
                                random_reply(&k, random >> 16 & 1);
                }
                while (batch_expire(&k.b, k.now, &o))
                        note_told(&k, &o);
                check(batch_wakeup(&k.b) > k.now || batch_stalled(&k.b, k.now) != BATCH_NONE);
        }
        random_down(&k, 0);
        random_down(&k, 1);
        for (unsigned lane = 0; lane < LANES; lane++) {
                check_eq(k.told[lane], k.sent[lane]);
                check_eq(k.lanes[lane].under_way, 0);
        }
        batch_deinit(&k.b);
}

TEST(lane_batch, a_survey_says_since_when_each_lane_has_something_under_way) {
        struct batch b = opened(&(struct batch_limits){.connections = 2, .depth = 4, .lane_depth = 3, .reply_ns = 1});
        struct batch_lane one = {0}, two = {0};
        struct batch_owner o;
        batch_sent(&b, 0, &one, 1, TIME_NEVER, 10);
        batch_sent(&b, 1, &two, 1, TIME_NEVER, 20);
        batch_sent(&b, 0, &one, 2, TIME_NEVER, 30);
        batch_survey(&b);
        check_eq(one.oldest, 10);
        check_eq(two.oldest, 20);
        check(batch_reply(&b, 0, 40, &o));
        batch_forget(&b, &two);
        batch_survey(&b);
        check_eq(one.oldest, 30);
        check_eq(two.oldest, 20); /* forgotten: left alone */
        batch_deinit(&b);
}

/* SPDX-License-Identifier: MIT */
#include "lane/roll.h"
#include "support/check.h"

static struct lessor_status_lane since(uint64_t ns) {
        return (struct lessor_status_lane){.session = ns + 1, .since_ns = ns};
}

static void note(struct roll *r, uint64_t ns) {
        struct lessor_status_lane entry = since(ns);
        roll_note(r, &entry);
}

TEST(lane_roll, the_longest_under_way_are_kept_and_stand_in_order) {
        struct lessor_status_lane entries[4] = {{0}};
        struct roll r = {.entries = entries, .room = 3};
        static const uint64_t came[] = {50, 20, 70, 60, 10, 80, 40};
        for (unsigned i = 0; i < sizeof(came) / sizeof(came[0]); i++)
                note(&r, came[i]);
        check_eq(r.n, 3);
        check_eq(entries[0].since_ns, 10);
        check_eq(entries[1].since_ns, 20);
        check_eq(entries[2].since_ns, 40);
        check_eq(entries[2].session, 41);
        check_eq(entries[3].session, 0); /* beyond the room nothing is written */
}

TEST(lane_roll, of_two_since_the_same_moment_the_first_stays_first) {
        struct lessor_status_lane entries[2] = {{0}}, second = since(5);
        struct roll r = {.entries = entries, .room = 2};
        note(&r, 5);
        second.session = 99;
        roll_note(&r, &second);
        check_eq(entries[0].session, 6);
        check_eq(entries[1].session, 99);
        note(&r, 5);
        check_eq(entries[1].session, 99);
}

TEST(lane_roll, without_room_nobody_is_kept) {
        struct roll r = {0};
        note(&r, 1);
        check_eq(r.n, 0);
}

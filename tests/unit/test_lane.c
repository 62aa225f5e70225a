/* SPDX-License-Identifier: MIT */
#include "base/lane.h"

#include <pthread.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "support/check.h"

static const struct lane_geometry small = {.entries = 4, .requests_size = 100, .replies_size = 100};

/* Both sides of one lane, in one thread. */
struct pair {
        void *memory;
        size_t size;
        struct lane_broker broker;
        struct lane_worker worker;
        char buffer[8192];
};

static void pair_open(struct pair *p, const struct lane_geometry *geometry) {
        p->size = lane_size(geometry);
        check(p->size > 0 && p->size % LANE_PAGE == 0);
        p->memory = aligned_alloc(LANE_PAGE, p->size);
        memset(p->memory, 0, p->size);
        lane_broker_init(&p->broker, p->memory, geometry);
        check(lane_worker_init(&p->worker, p->memory, p->size));
}

static void pair_close(struct pair *p) { free(p->memory); }

static enum lane_submit submit(struct pair *p, uint64_t tag, const char *text, uint64_t *ret_position) {
        struct lane_request r = {
                .tag = tag, .deadline_ns = tag * 1000, .database = (uint32_t)tag % 7, .length = (uint32_t)strlen(text)};
        uint64_t position;
        return lane_submit(&p->worker, &r, text, ret_position ? ret_position : &position);
}

static enum lane_take take(struct pair *p, struct lane_request *ret) {
        memset(p->buffer, 0, sizeof(p->buffer));
        return lane_take(&p->broker, p->buffer, sizeof(p->buffer) - 1, ret);
}

static enum lane_complete complete(struct pair *p, uint64_t tag, const char *text) {
        struct lane_answer a = {.tag = tag, .data = text, .length = strlen(text)};
        return lane_complete(&p->broker, &a);
}

/* Submits, takes, completes and reaps: nothing is left. */
static void call(struct pair *p, uint64_t tag, const char *request, const char *reply) {
        struct lane_request r;
        struct lane_answer a;
        check_eq(submit(p, tag, request, NULL), LANE_SUBMIT_DONE);
        check_eq(take(p, &r), LANE_TAKE_DONE);
        check_str(p->buffer, request);
        check_eq(r.tag, tag);
        check_eq(complete(p, tag, reply), LANE_COMPLETE_DONE);
        check_eq(lane_reap(&p->worker, &a), LANE_REAP_DONE);
        check(a.tag == tag && a.length == strlen(reply) && memcmp(a.data, reply, a.length) == 0);
        lane_release(&p->worker);
}

TEST(lane, a_command_goes_and_its_reply_comes) {
        struct pair p;
        struct lane_request r;
        struct lane_answer a;
        pair_open(&p, &small);
        check(!lane_has_submission(&p.broker));
        check_eq(take(&p, &r), LANE_TAKE_NOTHING);
        check_eq(submit(&p, 5, "GET k", NULL), LANE_SUBMIT_DONE);
        check(lane_has_submission(&p.broker));
        check_eq(take(&p, &r), LANE_TAKE_DONE);
        check(r.tag == 5 && r.deadline_ns == 5000 && r.database == 5 && r.length == 5);
        check_str(p.buffer, "GET k");
        check(!lane_has_submission(&p.broker));
        check_eq(lane_unanswered(&p.broker), 1);
        check_eq(lane_reap(&p.worker, &a), LANE_REAP_NOTHING);
        check_eq(complete(&p, 5, "+OK\r\n"), LANE_COMPLETE_DONE);
        check_eq(lane_reap(&p.worker, &a), LANE_REAP_DONE);
        check(a.tag == 5 && a.outcome == 0 && a.flags == 0 && a.length == 5 && memcmp(a.data, "+OK\r\n", 5) == 0);
        check(!lane_release(&p.worker));
        check_eq(lane_reap(&p.worker, &a), LANE_REAP_NOTHING);
        check_eq(lane_unanswered(&p.broker), 0);
        pair_close(&p);
}

TEST(lane, answers_come_in_any_order_with_outcome_and_flags) {
        struct pair p;
        struct lane_request r;
        struct lane_answer a, late = {.tag = 1, .outcome = -7, .flags = LANE_MAY_HAVE_RUN};
        pair_open(&p, &small);
        submit(&p, 1, "a", NULL);
        submit(&p, 2, "b", NULL);
        check_eq(take(&p, &r), LANE_TAKE_DONE);
        check_eq(take(&p, &r), LANE_TAKE_DONE);
        check_eq(complete(&p, 2, ":2\r\n"), LANE_COMPLETE_DONE);
        check_eq(lane_complete(&p.broker, &late), LANE_COMPLETE_DONE);
        check_eq(lane_reap(&p.worker, &a), LANE_REAP_DONE);
        check_eq(a.tag, 2);
        lane_release(&p.worker);
        check_eq(lane_reap(&p.worker, &a), LANE_REAP_DONE);
        check(a.tag == 1 && a.outcome == -7 && a.flags == LANE_MAY_HAVE_RUN && a.length == 0);
        lane_release(&p.worker);
        pair_close(&p);
}

TEST(lane, what_is_cancelled_in_time_was_never_sent_and_what_is_taken_cannot_be_cancelled) {
        struct pair p;
        struct lane_request r;
        uint64_t first, second;
        pair_open(&p, &small);
        submit(&p, 1, "a", &first);
        submit(&p, 2, "b", &second);
        check(lane_cancel(&p.worker, first));
        check(!lane_cancel(&p.worker, first));
        check(lane_has_submission(&p.broker));
        check_eq(take(&p, &r), LANE_TAKE_SKIPPED);
        check_eq(take(&p, &r), LANE_TAKE_DONE);
        check_str(p.buffer, "b");
        check(!lane_cancel(&p.worker, second));
        check_eq(lane_unanswered(&p.broker), 1);
        check_eq(complete(&p, 2, "+\r\n"), LANE_COMPLETE_DONE);
        pair_close(&p);
}

/* The same entry, a round of the ring later: the cancellation that comes late is for another command. */
TEST(lane, a_late_cancellation_does_not_touch_the_next_command_in_that_entry) {
        struct pair p;
        struct lane_request r;
        uint64_t first, later;
        pair_open(&p, &small);
        submit(&p, 1, "a", &first);
        take(&p, &r);
        complete(&p, 1, "+\r\n");
        lane_reap(&p.worker, &(struct lane_answer){0});
        lane_release(&p.worker);
        for (uint64_t i = 0; i < small.entries - 1; i++)
                call(&p, 10 + i, "x", "y");
        submit(&p, 9, "b", &later);
        check_eq(later % small.entries, first % small.entries);
        check(!lane_cancel(&p.worker, first));
        check_eq(take(&p, &r), LANE_TAKE_DONE);
        check_eq(r.tag, 9);
        pair_close(&p);
}

TEST(lane, so_many_are_under_way_and_no_more_until_one_is_read) {
        struct pair p;
        struct lane_request r;
        struct lane_answer a;
        pair_open(&p, &small);
        for (uint64_t i = 0; i < small.entries; i++)
                check_eq(submit(&p, i, "x", NULL), LANE_SUBMIT_DONE);
        check_eq(submit(&p, 9, "x", NULL), LANE_SUBMIT_FULL);
        for (uint64_t i = 0; i < small.entries; i++)
                check_eq(take(&p, &r), LANE_TAKE_DONE);
        check_eq(submit(&p, 9, "x", NULL), LANE_SUBMIT_FULL);
        check_eq(complete(&p, 3, "+\r\n"), LANE_COMPLETE_DONE);
        check_eq(submit(&p, 9, "x", NULL), LANE_SUBMIT_FULL);
        check_eq(lane_reap(&p.worker, &a), LANE_REAP_DONE);
        check_eq(submit(&p, 9, "x", NULL), LANE_SUBMIT_FULL);
        lane_release(&p.worker);
        check_eq(submit(&p, 9, "x", NULL), LANE_SUBMIT_DONE);
        check(lane_has_submission(&p.broker));
        check_eq(take(&p, &r), LANE_TAKE_DONE);
        pair_close(&p);
}

TEST(lane, cancelled_entries_come_back_when_the_broker_has_passed_them) {
        struct pair p;
        struct lane_request r;
        uint64_t at[4];
        pair_open(&p, &small);
        for (unsigned i = 0; i < 4; i++) {
                check_eq(submit(&p, i, "x", &at[i]), LANE_SUBMIT_DONE);
                check(lane_cancel(&p.worker, at[i]));
        }
        check_eq(submit(&p, 9, "x", NULL), LANE_SUBMIT_FULL);
        for (unsigned i = 0; i < 4; i++)
                check_eq(take(&p, &r), LANE_TAKE_SKIPPED);
        check_eq(take(&p, &r), LANE_TAKE_NOTHING);
        check_eq(submit(&p, 9, "x", NULL), LANE_SUBMIT_DONE);
        pair_close(&p);
}

TEST(lane, a_command_is_too_large_for_ever_or_too_large_for_now) {
        struct pair p;
        struct lane_request r;
        char *large;
        pair_open(&p, &small);
        large = calloc(1, p.worker.area.size + 2);
        memset(large, 'x', p.worker.area.size + 1);
        check_eq(submit(&p, 1, large, NULL), LANE_SUBMIT_TOO_LARGE);
        check_eq(submit(&p, 1, "", NULL), LANE_SUBMIT_TOO_LARGE);
        large[p.worker.area.size] = 0;
        check_eq(submit(&p, 2, large, NULL), LANE_SUBMIT_DONE);
        check_eq(submit(&p, 3, "x", NULL), LANE_SUBMIT_FULL);
        check_eq(lane_take(&p.broker, p.buffer, p.worker.area.size - 1, &r), LANE_TAKE_NO_ROOM);
        check_eq(r.length, p.worker.area.size);
        check_eq(take(&p, &r), LANE_TAKE_DONE);
        check_str(p.buffer, large);
        check_eq(submit(&p, 3, "x", NULL), LANE_SUBMIT_DONE); /* its bytes are copied, though it is not answered */
        free(large);
        pair_close(&p);
}

TEST(lane, a_reply_without_room_waits_until_the_worker_rings) {
        struct pair p;
        struct lane_request r;
        struct lane_answer a;
        static char large[LANE_PAGE + 2];
        pair_open(&p, &small);
        memset(large, 'x', LANE_PAGE);
        for (uint64_t i = 0; i < 3; i++) {
                submit(&p, i, "x", NULL);
                take(&p, &r);
        }
        check_eq(complete(&p, 0, large), LANE_COMPLETE_DONE);
        check_eq(complete(&p, 1, "y"), LANE_COMPLETE_STARVED);
        check_eq(lane_reap(&p.worker, &a), LANE_REAP_DONE);
        check_eq(complete(&p, 1, "y"), LANE_COMPLETE_STARVED); /* it is being read */
        check(lane_release(&p.worker));
        check_eq(complete(&p, 1, "y"), LANE_COMPLETE_DONE);
        check_eq(lane_reap(&p.worker, &a), LANE_REAP_DONE);
        check(!lane_release(&p.worker));
        large[LANE_PAGE] = 'x';
        check_eq(complete(&p, 2, large), LANE_COMPLETE_TOO_LARGE);
        check_eq(lane_unanswered(&p.broker), 1);
        pair_close(&p);
}

/* However many calls, one after the other: the areas' first bytes are all that is touched of them. */
TEST(lane, small_use_touches_few_pages) {
        const struct lane_geometry usual = {.entries = 32, .requests_size = 65536, .replies_size = 262144};
        struct pair p;
        const char *bytes;
        size_t touched = 0;
        pair_open(&p, &usual);
        for (uint64_t i = 0; i < 1000; i++)
                call(&p, i, "*2\r\n$3\r\nGET\r\n$5\r\nhello\r\n", "$5\r\nworld\r\n");
        bytes = p.memory;
        for (size_t page = 0; page < p.size; page += LANE_PAGE) {
                size_t i = 0;
                while (i < LANE_PAGE && bytes[page + i] == 0)
                        i++;
                touched += i < LANE_PAGE;
        }
        check_eq(touched, 2);
        pair_close(&p);
}

TEST(lane, the_bell_is_rung_for_a_broker_that_does_not_look) {
        lessor_atomic32 bell = 0, quiet = 0;
        check_eq(lane_bells(&bell, &quiet), 0);
        lane_arm(&bell, 7);
        uint64_t rung = lane_bells(&bell, &quiet);
        check(rung != 0);
        check_eq(lane_bells(&bell, &quiet), rung); /* still the same sleep */
        lane_disarm(&bell);
        check_eq(lane_bells(&bell, &quiet), 0);
        lane_arm(&bell, 8);
        check(lane_bells(&bell, &quiet) != rung);
        lane_disarm(&bell);
        lane_arm(&quiet, 9);
        check(lane_bells(&bell, &quiet) != 0 && lane_bells(&bell, &quiet) != rung);
}

TEST(lane, who_waits_is_woken_as_he_wishes_and_once_for_many_completions) {
        struct pair p;
        struct lane_request r;
        struct lane_answer a;
        uint32_t value;
        pair_open(&p, &small);
        check_eq(lane_wake(&p.broker), LANE_WAITING_NOT);
        for (uint64_t i = 0; i < 4; i++) {
                submit(&p, i, "x", NULL);
                take(&p, &r);
        }
        complete(&p, 0, "y");
        check_eq(lane_wake(&p.broker), LANE_WAITING_NOT); /* nobody waits */
        check(!lane_wait(&p.worker, LANE_WAITING_FUTEX, &value));
        lane_reap(&p.worker, &a);
        lane_release(&p.worker);
        check(lane_wait(&p.worker, LANE_WAITING_FUTEX, &value));
        check_eq(value, atomic_load(lane_futex(&p.worker)));
        check_eq(lane_wake(&p.broker), LANE_WAITING_NOT); /* nothing new */
        complete(&p, 1, "y");
        complete(&p, 2, "y");
        check_eq(lane_wake(&p.broker), LANE_WAITING_FUTEX);
        check(value != atomic_load(lane_futex(&p.worker)));
        check_eq(lane_wake(&p.broker), LANE_WAITING_NOT);
        lane_awake(&p.worker);
        for (unsigned i = 0; i < 2; i++) {
                check_eq(lane_reap(&p.worker, &a), LANE_REAP_DONE);
                lane_release(&p.worker);
        }
        check(lane_wait(&p.worker, LANE_WAITING_MESSAGE, &value));
        complete(&p, 3, "y");
        check_eq(lane_wake(&p.broker), LANE_WAITING_MESSAGE);
        pair_close(&p);
}

TEST(lane, a_geometry_out_of_bounds_is_none) {
        static const struct lane_geometry wrong[] = {
                {0, 100, 100},        {3, 100, 100}, {512, 100, 100},
                {4, 0, 100},          {4, 100, 0},   {4, LANE_AREA_MAX + 1, 100},
                {4, 100, UINT32_MAX},
        };
        for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
                check_eq(lane_size(&wrong[i]), 0);
        check(lane_size(&(struct lane_geometry){LANE_ENTRIES_MAX, LANE_AREA_MAX, LANE_AREA_MAX}) > 0);
}

TEST(lane, the_worker_refuses_what_is_no_lane) {
        struct pair p;
        struct lessor_lane *map, right;
        struct lane_worker w;
        pair_open(&p, &small);
        map = p.memory;
        memcpy(&right, map, offsetof(struct lessor_lane, reaped));
        check(!lane_worker_init(&w, map, sizeof(*map) - 1));
        check(!lane_worker_init(&w, map, p.size - 1));
#define REFUSED(field, value)                                                                                          \
        map->field = (value);                                                                                          \
        check(!lane_worker_init(&w, map, p.size));                                                                     \
        map->field = right.field
        REFUSED(magic, 0);
        REFUSED(version, 2);
        REFUSED(entries, 0);
        REFUSED(entries, 3);
        REFUSED(entries, LANE_ENTRIES_MAX * 2);
        REFUSED(submissions_offset, 0);
        REFUSED(submissions_offset, right.submissions_offset + 1);
        REFUSED(completions_offset, (uint32_t)p.size - 8);
        REFUSED(requests_offset, UINT32_MAX - 7);
        REFUSED(requests_size, UINT32_MAX - 7);
        REFUSED(requests_size, 9);
        REFUSED(replies_offset, (uint32_t)p.size);
        REFUSED(replies_size, right.replies_size + 1);
        check(lane_worker_init(&w, map, p.size));
        pair_close(&p);
}

/* ---- hostile workers --------------------------------------------------------------------------------------------- */

TEST(lane, a_submission_out_of_bounds_is_bad) {
        static const uint32_t wrong[][2] = {{0, 0},          {0, UINT32_MAX},
                                            {UINT32_MAX, 1}, {UINT32_MAX, UINT32_MAX},
                                            {1, UINT32_MAX}, {LANE_PAGE * 2, 1}};
        for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
                struct pair p;
                struct lane_request r;
                pair_open(&p, &small);
                submit(&p, 1, "x", NULL);
                p.worker.submissions[0].offset = wrong[i][0];
                p.worker.submissions[0].length = wrong[i][1];
                check_eq(take(&p, &r), LANE_TAKE_BAD);
                check_eq(lane_unanswered(&p.broker), 0);
                pair_close(&p);
        }
}

TEST(lane, a_position_that_cannot_be_is_bad_or_nothing) {
        static const uint64_t wrong[] = {1, UINT64_MAX, UINT64_C(1) << 63, 3};
        for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
                struct pair p;
                struct lane_request r;
                pair_open(&p, &small);
                submit(&p, 1, "x", NULL);
                p.worker.map->reaped = wrong[i];
                check_eq(take(&p, &r), LANE_TAKE_BAD);
                p.worker.map->reaped = 0;
                check_eq(take(&p, &r), LANE_TAKE_DONE);
                p.worker.map->reaped = wrong[i];
                check_eq(complete(&p, 1, "y"), LANE_COMPLETE_BAD);
                p.worker.map->reaped = 0;
                check_eq(complete(&p, 1, "y"), LANE_COMPLETE_DONE);
                p.worker.submissions[1].state = wrong[i];
                check_eq(take(&p, &r), LANE_TAKE_NOTHING);
                check(!lane_has_submission(&p.broker));
                p.worker.map->waiting = (uint32_t)wrong[i] | 8;
                check_eq(lane_wake(&p.broker), LANE_WAITING_NOT);
                pair_close(&p);
        }
}

/* He says that he has read nothing, and submits: the broker holds no more for him than there are entries, and sleeps. */
TEST(lane, who_reads_no_completions_is_taken_nothing_from_any_more) {
        struct pair p;
        struct lane_request r;
        unsigned taken = 0;
        pair_open(&p, &small);
        for (unsigned i = 0; i < 3 * small.entries; i++) {
                p.worker.unanswered = 0;
                submit(&p, i, "x", NULL);
                if (take(&p, &r) == LANE_TAKE_DONE) {
                        check_eq(complete(&p, i, "y"), LANE_COMPLETE_DONE);
                        taken++;
                }
        }
        check_eq(taken, small.entries);
        check_eq(take(&p, &r), LANE_TAKE_NOTHING);
        check(!lane_has_submission(&p.broker));
        pair_close(&p);
}

TEST(lane, the_worker_reads_nothing_out_of_bounds) {
        struct pair p;
        struct lane_request r;
        struct lane_answer a;
        pair_open(&p, &small);
        submit(&p, 1, "x", NULL);
        take(&p, &r);
        complete(&p, 1, "y");
        p.worker.completions[0].length = LANE_PAGE + 1;
        check_eq(lane_reap(&p.worker, &a), LANE_REAP_BAD);
        p.worker.completions[0].offset = UINT32_MAX;
        check_eq(lane_reap(&p.worker, &a), LANE_REAP_BAD);
        p.worker.map->taken = 7; /* the broker has passed what was never submitted */
        check_eq(submit(&p, 2, "x", NULL), LANE_SUBMIT_DONE);
        check_eq(p.worker.taken, 0);
        pair_close(&p);
}

struct vandal {
        struct lane_worker *worker;
        atomic_bool stop;
};

static uint32_t chance(uint32_t *state) {
        *state ^= *state << 13, *state ^= *state >> 17, *state ^= *state << 5;
        return *state;
}

static uint64_t completed_so_far(struct lane_worker *w) {
        uint64_t most = 0;
        for (uint32_t i = 0; i < w->entries; i++) {
                uint64_t state = atomic_load_explicit(&w->completions[i].state, memory_order_relaxed);
                most = state > most ? state : most;
        }
        return most;
}

static void *run_vandal(void *argument) {
        struct vandal *v = argument;
        struct lane_worker *w = v->worker;
        uint32_t random = 1;
        while (!atomic_load_explicit(&v->stop, memory_order_relaxed)) {
                struct lessor_submission *s = &w->submissions[chance(&random) % w->entries];
                uint64_t taken = atomic_load_explicit(&w->map->taken, memory_order_relaxed);
                atomic_store_explicit(&s->offset, chance(&random) % 8192, memory_order_relaxed);
                atomic_store_explicit(&s->length, chance(&random) % 200, memory_order_relaxed);
                /* Mostly what could be right. */
                atomic_store_explicit(&w->submissions[taken % w->entries].state, taken << 2 | chance(&random) % 4,
                                      memory_order_relaxed);
                atomic_store_explicit(&w->map->reaped, completed_so_far(w) - chance(&random) % 3, memory_order_relaxed);
                atomic_store_explicit(&w->map->waiting, chance(&random), memory_order_relaxed);
        }
        return NULL;
}

TEST(lane, garbage_written_all_the_time_neither_stops_nor_misleads_the_broker) {
        struct pair p;
        struct vandal vandal = {.worker = &p.worker};
        struct lane_request r;
        pthread_t thread;
        unsigned done = 0, bad = 0;
        pair_open(&p, &small);
        check_eq(pthread_create(&thread, NULL, run_vandal, &vandal), 0);
        for (unsigned i = 0; done < 300 || bad < 300; i++) {
                enum lane_take what = lane_take(&p.broker, p.buffer, 64, &r);
                check(what != LANE_TAKE_DONE || (r.length > 0 && r.length <= 64));
                done += what == LANE_TAKE_DONE;
                bad += what == LANE_TAKE_BAD;
                if (lane_unanswered(&p.broker) > 0)
                        complete(&p, i, "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy");
                lane_wake(&p.broker);
                check(lane_unanswered(&p.broker) + (p.broker.completed - p.broker.reaped) <= small.entries);
        }
        atomic_store(&vandal.stop, true);
        pthread_join(thread, NULL);
        pair_close(&p);
}

TEST(lane, whether_several_fit_is_known_beforehand_and_looking_changes_nothing) {
        static const size_t ends[] = {5, 10, 15, 20, 25}, large[] = {5, 8192}, empty[] = {5, 5};
        struct pair p;
        struct lane_request r;
        pair_open(&p, &small);
        check(lane_has_room(&p.worker, ends, 4));
        check(!lane_has_room(&p.worker, ends, 5)); /* of four places */
        check(!lane_has_room(&p.worker, large, 2));
        check(!lane_has_room(&p.worker, empty, 2));
        check(lane_has_room(&p.worker, NULL, 0));
        check_eq(submit(&p, 1, "GET k", NULL), LANE_SUBMIT_DONE);
        check(lane_has_room(&p.worker, ends, 3));
        check(!lane_has_room(&p.worker, ends, 4));
        check_eq(take(&p, &r), LANE_TAKE_DONE);
        check(!lane_has_room(&p.worker, ends, 4)); /* taken, but not answered */
        check_eq(complete(&p, 1, "+OK"), LANE_COMPLETE_DONE);
        check_eq(lane_reap(&p.worker, &(struct lane_answer){0}), LANE_REAP_DONE);
        lane_release(&p.worker);
        check(lane_has_room(&p.worker, ends, 4));
        pair_close(&p);
}

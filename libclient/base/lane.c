/* SPDX-License-Identifier: MIT */
/*
 * Both ends of a lane, one after the other. Whoever writes an entry fills it with relaxed stores and publishes it by a
 * release of its `state`; the other side acquires it. What is handed back (entries, bytes) is handed back by a release
 * of `taken` or `reaped`, the one position each side publishes, and acquired before it is used again.
 */
#include "lane.h"

#include <assert.h>
#include <string.h>

#include "step.h"

static uint64_t load(const lessor_atomic64 *at) { return atomic_load_explicit(at, memory_order_relaxed); }
static uint32_t load32(const lessor_atomic32 *at) { return atomic_load_explicit(at, memory_order_relaxed); }
static void store(lessor_atomic64 *at, uint64_t value) { atomic_store_explicit(at, value, memory_order_relaxed); }
static void store32(lessor_atomic32 *at, uint32_t value) { atomic_store_explicit(at, value, memory_order_relaxed); }

static uint64_t submission_word(uint64_t position, enum lane_state state) {
        return position << LANE_STATE_BITS | (uint64_t)state;
}

static bool is_inside(uint32_t offset, uint32_t length, uint32_t size) {
        return offset <= size && length <= size - offset;
}

/* ---- layout ------------------------------------------------------------------------------------------------------ */

/* lessor/protocol.h tells it to those who write clients. */
#define SAME(type, field)                                                                                              \
        (offsetof(struct type, field) == offsetof(struct type##_layout, field) &&                                      \
         sizeof(((struct type *)NULL)->field) == sizeof(((struct type##_layout *)NULL)->field))
#define LANE_SAME(field) SAME(lessor_lane, field)
#define SUBMISSION_SAME(field) SAME(lessor_submission, field)
#define COMPLETION_SAME(field) SAME(lessor_completion, field)
_Static_assert(sizeof(struct lessor_lane) == sizeof(struct lessor_lane_layout) && LANE_SAME(magic) &&
                       LANE_SAME(version) && LANE_SAME(entries) && LANE_SAME(submissions_offset) &&
                       LANE_SAME(completions_offset) && LANE_SAME(requests_offset) && LANE_SAME(requests_size) &&
                       LANE_SAME(replies_offset) && LANE_SAME(replies_size) && LANE_SAME(reaped) &&
                       LANE_SAME(waiting) && LANE_SAME(taken) && LANE_SAME(done) && LANE_SAME(starved) &&
                       LANE_SAME(quiet),
               "the header is as the protocol says");
_Static_assert(sizeof(struct lessor_submission) == sizeof(struct lessor_submission_layout) && SUBMISSION_SAME(state) &&
                       SUBMISSION_SAME(tag) && SUBMISSION_SAME(deadline_ns) && SUBMISSION_SAME(database) &&
                       SUBMISSION_SAME(offset) && SUBMISSION_SAME(length) && SUBMISSION_SAME(flags),
               "a submission is as the protocol says");
_Static_assert(sizeof(struct lessor_completion) == sizeof(struct lessor_completion_layout) && COMPLETION_SAME(state) &&
                       COMPLETION_SAME(tag) && COMPLETION_SAME(outcome) && COMPLETION_SAME(flags) &&
                       COMPLETION_SAME(offset) && COMPLETION_SAME(length),
               "a completion is as the protocol says");

static bool is_power_of_two(uint32_t n) { return n > 0 && (n & (n - 1)) == 0; }
static uint32_t to_page(uint32_t n) { return (n + LANE_PAGE - 1) / LANE_PAGE * LANE_PAGE; }

static uint32_t completions_offset(uint32_t entries) {
        return (uint32_t)(sizeof(struct lessor_lane) + entries * sizeof(struct lessor_submission));
}
static uint32_t requests_offset(uint32_t entries) {
        return (uint32_t)(completions_offset(entries) + entries * sizeof(struct lessor_completion));
}
static uint32_t replies_offset(const struct lane_geometry *g) {
        return to_page(requests_offset(g->entries) + g->requests_size);
}

size_t lane_size(const struct lane_geometry *g) {
        if (!is_power_of_two(g->entries) || g->entries > LANE_ENTRIES_MAX || g->requests_size - 1 >= LANE_AREA_MAX ||
            g->replies_size - 1 >= LANE_AREA_MAX)
                return 0;
        return (size_t)replies_offset(g) + to_page(g->replies_size);
}

/* ---- the broker -------------------------------------------------------------------------------------------------- */

void lane_broker_init(struct lane_broker *b, void *memory, const struct lane_geometry *g) {
        struct lessor_lane *map = memory;
        assert(lane_size(g) > 0);
        map->magic = LANE_MAGIC;
        map->version = LANE_VERSION;
        map->entries = g->entries;
        map->submissions_offset = sizeof(struct lessor_lane);
        map->completions_offset = completions_offset(g->entries);
        map->requests_offset = requests_offset(g->entries);
        map->requests_size = replies_offset(g) - map->requests_offset;
        map->replies_offset = replies_offset(g);
        map->replies_size = to_page(g->replies_size);
        *b = (struct lane_broker){
                .map = map,
                .submissions = (void *)((char *)memory + map->submissions_offset),
                .completions = (void *)((char *)memory + map->completions_offset),
                .requests = (char *)memory + map->requests_offset,
                .replies = (char *)memory + map->replies_offset,
                .entries = g->entries,
                .requests_size = map->requests_size,
                .area = {.size = map->replies_size},
        };
}

/* Room that the worker has handed back. False: so much has never been handed out. */
static bool take_back_replies(struct lane_broker *b) {
        /* Sequentially consistent, pairs with lane_release(): the worker has read what it hands back, and the load comes
         * after the store of `starved`. */
        uint64_t reaped = atomic_load_explicit(&b->map->reaped, memory_order_seq_cst);
        if (reaped - b->reaped > b->completed - b->reaped)
                return false;
        for (; b->reaped != reaped; b->reaped++)
                area_give(&b->area, b->ends[b->reaped & (b->entries - 1)]);
        return true;
}

bool lane_recover(struct lane_broker *b) { return take_back_replies(b); }

/* The next submission's word. */
static uint64_t look(const struct lane_broker *b) {
        /* Sequentially consistent, pairs with lane_submit(): entry and bytes are there, and it comes after lane_arm(). */
        return atomic_load_explicit(&b->submissions[b->next & (b->entries - 1)].state, memory_order_seq_cst);
}

/* Each that is taken has its place among the completions until the worker has read it. Honest ones always leave one. */
static bool has_place(const struct lane_broker *b) { return b->unanswered + (b->completed - b->reaped) < b->entries; }

bool lane_has_submission(struct lane_broker *b) {
        uint64_t value = look(b);
        if (value == submission_word(b->next, LANE_SUBMITTED))
                return !take_back_replies(b) || has_place(b);
        return value == submission_word(b->next, LANE_CANCELLED);
}

static void pass(struct lane_broker *b) {
        b->next++;
        /* Release, pairs with take_back_requests(): nothing of the entry or its bytes is read any more. */
        atomic_store_explicit(&b->map->taken, b->next, memory_order_release);
}

/* Each field once, the two that are used here checked. */
static bool read_submission(const struct lane_broker *b, const struct lessor_submission *s, struct lane_request *ret,
                            uint32_t *ret_offset) {
        *ret = (struct lane_request){
                .tag = load(&s->tag),
                .deadline_ns = load(&s->deadline_ns),
                .database = load32(&s->database),
                .length = load32(&s->length),
        };
        *ret_offset = load32(&s->offset);
        return ret->length > 0 && is_inside(*ret_offset, ret->length, b->requests_size);
}

enum lane_take lane_take(struct lane_broker *b, char *buffer, size_t size, struct lane_request *request) {
        struct lessor_submission *s = &b->submissions[b->next & (b->entries - 1)];
        uint64_t value = look(b);
        uint32_t offset;

        if (value == submission_word(b->next, LANE_CANCELLED))
                return pass(b), LANE_TAKE_SKIPPED;
        if (value != submission_word(b->next, LANE_SUBMITTED))
                return LANE_TAKE_NOTHING;
        if (!take_back_replies(b))
                return LANE_TAKE_BAD;
        if (!has_place(b))
                return LANE_TAKE_NOTHING;
        if (!read_submission(b, s, request, &offset))
                return LANE_TAKE_BAD;
        if (request->length > size)
                return LANE_TAKE_NO_ROOM;
        /* Relaxed: it decides, and hands nothing over. One attempt: a word that changes again is a worker's own loss. */
        if (!atomic_compare_exchange_strong_explicit(&s->state, &value, submission_word(b->next, LANE_TAKEN),
                                                     memory_order_relaxed, memory_order_relaxed)) {
                if (value != submission_word(b->next, LANE_CANCELLED))
                        return LANE_TAKE_BAD;
                return pass(b), LANE_TAKE_SKIPPED;
        }
        memcpy(buffer, b->requests + offset, request->length);
        b->unanswered++;
        pass(b);
        return LANE_TAKE_DONE;
}

/* False: there is no room. Says so, and looks again. */
static bool find_room(struct lane_broker *b, uint32_t length, uint32_t *ret_offset, uint32_t *ret_end, bool *ret_bad) {
        *ret_bad = !take_back_replies(b);
        if (!*ret_bad && area_take(&b->area, length, ret_offset, ret_end))
                return true;
        b->starved = true;
        /* Sequentially consistent, pairs with lane_release(): it comes before the load of `reaped` that follows. */
        atomic_store_explicit(&b->map->starved, 1, memory_order_seq_cst);
        *ret_bad = *ret_bad || !take_back_replies(b);
        return !*ret_bad && area_take(&b->area, length, ret_offset, ret_end);
}

static void publish_completion(struct lane_broker *b, const struct lane_answer *answer, uint32_t offset) {
        struct lessor_completion *c = &b->completions[b->completed & (b->entries - 1)];
        store(&c->tag, answer->tag);
        store32(&c->outcome, (uint32_t)answer->outcome);
        store32(&c->flags, answer->flags);
        store32(&c->offset, offset);
        store32(&c->length, (uint32_t)answer->length);
        b->completed++;
        /* Release, pairs with lane_reap(): the fields and the reply are there. */
        atomic_store_explicit(&c->state, b->completed, memory_order_release);
}

enum lane_complete lane_complete(struct lane_broker *b, const struct lane_answer *answer) {
        uint32_t offset, end;
        bool bad;
        assert(b->unanswered > 0);
        if (answer->length > b->area.size)
                return LANE_COMPLETE_TOO_LARGE;
        if (!find_room(b, (uint32_t)answer->length, &offset, &end, &bad))
                return bad ? LANE_COMPLETE_BAD : LANE_COMPLETE_STARVED;
        if (b->starved) {
                b->starved = false;
                store32(&b->map->starved, 0);
        }
        if (answer->length > 0)
                memcpy(b->replies + offset, answer->data, answer->length);
        b->ends[b->completed & (b->entries - 1)] = end;
        publish_completion(b, answer, offset);
        b->unanswered--;
        b->untold = true;
        return LANE_COMPLETE_DONE;
}

enum lane_waiting lane_wake(struct lane_broker *b) {
        uint32_t waiting;
        if (!b->untold)
                return LANE_WAITING_NOT;
        b->untold = false;
        /* Both sequentially consistent, pair with lane_wait(): who does not see `done` move is seen to wait. */
        atomic_store_explicit(&b->map->done, ++b->done, memory_order_seq_cst);
        waiting = atomic_load_explicit(&b->map->waiting, memory_order_seq_cst);
        return waiting == LANE_WAITING_FUTEX || waiting == LANE_WAITING_MESSAGE ? (enum lane_waiting)waiting
                                                                                : LANE_WAITING_NOT;
}

/* ---- the worker -------------------------------------------------------------------------------------------------- */

static bool part_fits(uint32_t offset, uint64_t length, size_t size) {
        return offset % 8 == 0 && offset >= sizeof(struct lessor_lane) && offset <= size && length <= size - offset;
}

bool lane_worker_init(struct lane_worker *w, void *memory, size_t size) {
        struct lessor_lane *map = memory, h;
        if (size < sizeof(h))
                return false;
        memcpy(&h, map, offsetof(struct lessor_lane, reaped));
        if (h.magic != LANE_MAGIC || h.version != LANE_VERSION || !is_power_of_two(h.entries) ||
            h.entries > LANE_ENTRIES_MAX ||
            !part_fits(h.submissions_offset, h.entries * sizeof(struct lessor_submission), size) ||
            !part_fits(h.completions_offset, h.entries * sizeof(struct lessor_completion), size) ||
            !part_fits(h.requests_offset, h.requests_size, size) || h.requests_size % AREA_ALIGN ||
            !part_fits(h.replies_offset, h.replies_size, size))
                return false;
        *w = (struct lane_worker){
                .map = map,
                .submissions = (void *)((char *)memory + h.submissions_offset),
                .completions = (void *)((char *)memory + h.completions_offset),
                .requests = (char *)memory + h.requests_offset,
                .replies = (char *)memory + h.replies_offset,
                .entries = h.entries,
                .replies_size = h.replies_size,
                .area = {.size = h.requests_size},
        };
        return true;
}

/* Entries and bytes that the broker has handed back. A position that cannot be is none: nothing comes back any more. */
static void take_back_requests(struct lane_worker *w) {
        /* Acquire, pairs with pass(): the broker has read what is written over from now on. */
        uint64_t taken = atomic_load_explicit(&w->map->taken, memory_order_acquire);
        if (taken - w->taken > w->next - w->taken)
                return;
        for (; w->taken != taken; w->taken++)
                area_give(&w->area, w->ends[w->taken & (w->entries - 1)]);
}

bool lane_has_room(struct lane_worker *w, const size_t *ends, size_t n) {
        struct area area;
        uint32_t offset, end;

        take_back_requests(w);
        if (n > w->entries - (w->next - w->taken) || n > w->entries - w->unanswered)
                return false;
        area = w->area;
        for (size_t i = 0, start = 0; i < n; start = ends[i++])
                if (ends[i] <= start || ends[i] - start > area.size ||
                    !area_take(&area, (uint32_t)(ends[i] - start), &offset, &end))
                        return false;
        return true;
}

enum lane_submit lane_submit(struct lane_worker *w, const struct lane_request *request, const char *data,
                             uint64_t *ret_position) {
        uint32_t at = (uint32_t)(w->next & (w->entries - 1)), offset;
        struct lessor_submission *s = &w->submissions[at];

        if (request->length == 0 || request->length > w->area.size)
                return LANE_SUBMIT_TOO_LARGE;
        take_back_requests(w);
        /* Of those unanswered there are never more than places for completions: the broker may count on that. */
        if (w->next - w->taken >= w->entries || w->unanswered >= w->entries ||
            !area_take(&w->area, request->length, &offset, &w->ends[at]))
                return LANE_SUBMIT_FULL;
        memcpy(w->requests + offset, data, request->length);
        store(&s->tag, request->tag);
        store(&s->deadline_ns, request->deadline_ns);
        store32(&s->database, request->database);
        store32(&s->offset, offset);
        store32(&s->length, request->length);
        store32(&s->flags, 0);
        STEP("lane entry written");
        /* Sequentially consistent, pairs with look(): entry and bytes are there, and it comes before lane_must_ring(). */
        atomic_store_explicit(&s->state, submission_word(w->next, LANE_SUBMITTED), memory_order_seq_cst);
        STEP("lane entry published");
        *ret_position = w->next++;
        w->unanswered++;
        return LANE_SUBMIT_DONE;
}

bool lane_cancel(struct lane_worker *w, uint64_t position) {
        lessor_atomic64 *state = &w->submissions[position & (w->entries - 1)].state;
        uint64_t value = submission_word(position, LANE_SUBMITTED);
        /* Relaxed: it decides, and hands nothing over; entry and bytes come back when the broker has passed them. */
        if (!atomic_compare_exchange_strong_explicit(state, &value, submission_word(position, LANE_CANCELLED),
                                                     memory_order_relaxed, memory_order_relaxed))
                return false;
        w->unanswered--;
        return true;
}

static bool is_completed(const struct lane_worker *w) {
        /* Acquire, pairs with publish_completion(): the fields and the reply are there. */
        return atomic_load_explicit(&w->completions[w->reaped & (w->entries - 1)].state, memory_order_acquire) ==
               w->reaped + 1;
}

enum lane_reap lane_reap(struct lane_worker *w, struct lane_answer *ret) {
        const struct lessor_completion *c = &w->completions[w->reaped & (w->entries - 1)];
        uint32_t offset, length;
        assert(!w->held);
        if (!is_completed(w))
                return LANE_REAP_NOTHING;
        offset = load32(&c->offset);
        length = load32(&c->length);
        if (w->unanswered == 0 || !is_inside(offset, length, w->replies_size))
                return LANE_REAP_BAD;
        *ret = (struct lane_answer){
                .tag = load(&c->tag),
                .outcome = (int32_t)load32(&c->outcome),
                .flags = load32(&c->flags),
                .data = w->replies + offset,
                .length = length,
        };
        w->held = true;
        STEP("lane completion seen");
        return LANE_REAP_DONE;
}

bool lane_release(struct lane_worker *w) {
        assert(w->held);
        w->held = false;
        w->unanswered--; /* not earlier: until then the broker counts it, too */
        w->reaped++;
        /* Both sequentially consistent, pair with find_room(): what is handed back has been read; and who does not see the
         * room is seen to starve. */
        atomic_store_explicit(&w->map->reaped, w->reaped, memory_order_seq_cst);
        STEP("lane completion released");
        return atomic_load_explicit(&w->map->starved, memory_order_seq_cst) != 0;
}

bool lane_wait(struct lane_worker *w, enum lane_waiting how, uint32_t *ret_value) {
        /* Both sequentially consistent, pair with lane_wake(): who does not see `done` move is seen to wait. */
        atomic_store_explicit(&w->map->waiting, (uint32_t)how, memory_order_seq_cst);
        *ret_value = atomic_load_explicit(&w->map->done, memory_order_seq_cst);
        STEP("lane about to sleep");
        if (!is_completed(w))
                return true;
        lane_awake(w);
        return false;
}

void lane_awake(struct lane_worker *w) { store32(&w->map->waiting, LANE_WAITING_NOT); }

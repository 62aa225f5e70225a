/* SPDX-License-Identifier: MIT */
/*
 * The broker's end of a lane on which anything may be written at any time, and the worker's end of the same one. Each input
 * is a series of steps; what a step writes is arbitrary, or close to what would be right. The lane is a heap block of
 * its exact size: whatever reaches beyond it is seen.
 */
#include "base/lane.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void promise(int kept) {
        if (!kept)
                abort();
}

struct run {
        const uint8_t *data;
        size_t size;
        char *memory;
        size_t lane_size;
        struct lane_broker broker;
        struct lane_worker worker;
        uint64_t position;
};

static uint8_t take_byte(struct run *r) {
        if (r->size == 0)
                return 0;
        r->size--;
        return *r->data++;
}

static uint64_t take_number(struct run *r, unsigned bytes) {
        uint64_t n = 0;
        for (unsigned i = 0; i < bytes; i++)
                n = n << 8 | take_byte(r);
        return n;
}

/* Anything anywhere, but for the first line: what the broker wrote there is for the worker's beginning only. */
static void scribble(struct run *r) {
        size_t at = 64 + take_number(r, 2) % (r->lane_size - 64 - 8);
        uint64_t value = take_number(r, 8);
        memcpy(r->memory + at, &value, 1 + take_byte(r) % 8);
}

/* Nearly right: a word of the next entry, a position around those in force, bounds around the areas'. */
static void disturb(struct run *r) {
        struct lessor_submission *s = &r->worker.submissions[r->broker.next & (r->broker.entries - 1)];
        uint64_t near = (uint64_t)(int8_t)take_byte(r);
        switch (take_byte(r) % 6) {
        case 0:
                atomic_store(&s->state, r->broker.next << LANE_STATE_BITS | (near & 3));
                break;
        case 1:
                atomic_store(&r->worker.map->reaped, r->broker.completed + near);
                break;
        case 2:
                atomic_store(&r->worker.map->taken, r->worker.taken + near);
                break;
        case 3:
                atomic_store(&s->offset, (uint32_t)(r->broker.requests_size + near));
                break;
        case 4:
                atomic_store(&s->length, (uint32_t)near);
                break;
        default:
                atomic_store(&r->worker.completions[r->worker.reaped & (r->worker.entries - 1)].state,
                             r->worker.reaped + near);
        }
}

static void submit(struct run *r) {
        char text[256] = {0};
        struct lane_request request = {.tag = 7, .length = take_byte(r)};
        lane_submit(&r->worker, &request, text, &r->position);
}

static void take(struct run *r) {
        size_t room = take_byte(r);
        char *buffer = malloc(room ? room : 1);
        struct lane_request request;
        uint64_t before = r->broker.next, unanswered = lane_unanswered(&r->broker);
        bool has;
        enum lane_take what;
        promise(buffer != NULL);
        has = lane_has_submission(&r->broker);
        what = lane_take(&r->broker, buffer, room, &request);
        promise(has == (what != LANE_TAKE_NOTHING));
        promise(what != LANE_TAKE_DONE || (request.length > 0 && request.length <= room));
        promise(what != LANE_TAKE_NO_ROOM || request.length > room);
        promise(r->broker.next == before + (what == LANE_TAKE_DONE || what == LANE_TAKE_SKIPPED));
        promise(lane_unanswered(&r->broker) == unanswered + (what == LANE_TAKE_DONE));
        free(buffer);
}

static void complete(struct run *r) {
        static const char reply[1 << 13];
        struct lane_answer answer = {.tag = 7, .data = reply, .length = take_number(r, 2) % sizeof(reply)};
        uint32_t unanswered = lane_unanswered(&r->broker);
        if (unanswered == 0)
                return;
        promise((lane_complete(&r->broker, &answer) == LANE_COMPLETE_DONE) ==
                (lane_unanswered(&r->broker) < unanswered));
}

static void reap(struct run *r) {
        struct lane_answer a;
        unsigned sum = 0;
        if (lane_reap(&r->worker, &a) != LANE_REAP_DONE)
                return;
        for (size_t i = 0; i < a.length; i++)
                sum += (unsigned char)a.data[i];
        promise(sum < UINT32_MAX);
        lane_release(&r->worker);
}

static void step(struct run *r) {
        uint32_t value;
        switch (take_byte(r) % 8) {
        case 0:
                scribble(r);
                break;
        case 1:
                disturb(r);
                break;
        case 2:
                submit(r);
                break;
        case 3:
                take(r);
                break;
        case 4:
                complete(r);
                break;
        case 5:
                reap(r);
                break;
        case 6:
                lane_cancel(&r->worker, r->position);
                break;
        default:
                lane_wait(&r->worker, take_byte(r) % 3, &value);
                promise((unsigned)lane_wake(&r->broker) <= LANE_WAITING_MESSAGE);
        }
}

static void check_broker(const struct lane_broker *b) {
        promise(b->reaped <= b->completed && b->unanswered + (b->completed - b->reaped) <= b->entries);
        promise(b->area.pieces == b->completed - b->reaped && b->area.head <= b->area.size &&
                b->area.tail <= b->area.size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static const struct lane_geometry geometry = {.entries = 4, .requests_size = 64, .replies_size = 64};
        struct run r = {.data = data, .size = size, .lane_size = lane_size(&geometry)};
        char first[64];
        r.memory = aligned_alloc(64, r.lane_size);
        promise(r.memory != NULL);
        memset(r.memory, 0, r.lane_size);
        lane_broker_init(&r.broker, r.memory, &geometry);
        memcpy(first, r.memory, sizeof(first));
        promise(lane_worker_init(&r.worker, r.memory, r.lane_size));
        while (r.size > 0) {
                step(&r);
                check_broker(&r.broker);
        }
        promise(memcmp(first, r.memory, sizeof(first)) == 0);
        /* And what any bytes at all would be to a worker who comes anew. */
        for (size_t i = 0; i < size && i < sizeof(first); i++)
                r.memory[8 + i % 56] ^= (char)data[i];
        lane_worker_init(&r.worker, r.memory, r.lane_size);
        free(r.memory);
        return 0;
}

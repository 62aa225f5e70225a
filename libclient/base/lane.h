/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A lane: two rings in the session segment, by which a worker's threads hand single commands to the broker and get the
 * replies back, without a system call on either side while both are busy.
 *
 *      header | submissions | completions | request area ...... | reply area ......
 *
 * A submission goes through one word, in which both sides settle what becomes of it:
 *
 *                 lane_submit                    lane_take: may have run from here on; one completion follows
 *      (older) -----------------> SUBMITTED ---------------------------------------------> TAKEN
 *              (the worker)           |              (the broker)
 *                                     +--------------------------------------------------> CANCELLED
 *                                       lane_cancel: was never sent (the worker)
 *
 * The word carries the submission's position in the stream of all submissions, so that a late CAS fails and an entry
 * says by itself whether it is the next one: there is no tail to be published. Entry and request bytes are the worker's
 * again when the broker's `taken` has passed the position. Completions are published in the same manner; they and their
 * bytes are the broker's again when the worker's `reaped` has passed them. Both areas start from their beginning when
 * they are empty, so that small use stays within a page or two.
 *
 * Who sleeps says so first, and looks once more afterwards; who has something to tell looks after telling. Both pairs are
 * sequentially consistent, thus one of the two sees the other:
 *
 *      the broker    lane_arm(bell), looks at all its lanes    <->  the worker    submits, lane_must_ring(bell)
 *      the worker    lane_wait(), which looks at `done`        <->  the broker    lane_wake(), which looks at `waiting`
 *      the broker    is `starved` of reply space, looks again  <->  the worker    lane_release(), which looks at `starved`
 *
 * The bell is one for all lanes of a data thread; it lies in the control page, where only the broker writes. Lanes that
 * are seldom used have one of their own besides, `quiet`, so that the many need not be looked at: it is armed, and rung, in the
 * same manner. None of these functions
 * waits, loops for longer than the ring is, or makes a system call: the caller rings and wakes when told to.
 *
 * To the broker all bytes here are a hostile worker's: each is read once, into memory of its own, and checked there;
 * what the broker must rely on it keeps in `struct lane_broker`. The worker trusts the broker, but checks
 * what it reads all the same: its own process may have written anything anywhere.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lessor/protocol.h>

#include "base/area.h"
#include "base/word.h"

typedef _Atomic(uint32_t) lessor_atomic32;

#define LANE_MAGIC LESSOR_LANE_MAGIC
#define LANE_VERSION LESSOR_LANE_VERSION
#define LANE_ENTRIES_MAX LESSOR_LANE_ENTRIES_MAX
#define LANE_AREA_MAX (UINT32_C(16) * 1024 * 1024)
#define LANE_PAGE 4096U

/* ---- as it lies in the segment, and as lessor/protocol.h tells it ------------------------------------------------ */

enum lane_state {
        LANE_SUBMITTED = LESSOR_LANE_SUBMITTED,
        LANE_TAKEN = LESSOR_LANE_TAKEN,
        LANE_CANCELLED = LESSOR_LANE_CANCELLED
};
#define LANE_STATE_BITS 2U

/* All but `state` is the worker's. */
struct lessor_submission {
        lessor_atomic64 state;       /* enum lane_state | position << 2; 0: never used */
        lessor_atomic64 tag;         /* the worker's own; comes back in the completion */
        lessor_atomic64 deadline_ns; /* CLOCK_MONOTONIC */
        lessor_atomic32 database;
        lessor_atomic32 offset, length; /* the request, in the request area */
        lessor_atomic32 flags;          /* 0 */
        uint64_t reserved[3];
};
_Static_assert(sizeof(struct lessor_submission) == 64, "one cache line");

#define LANE_MAY_HAVE_RUN LESSOR_LANE_MAY_HAVE_RUN /* flags of a completion: with an outcome but 0 */
#define LANE_REPLY_APART                                                                                               \
        LESSOR_LANE_REPLY_APART /* the reply is too large for the lane: it comes as a sealed memfd, by message */

/* The broker's. */
struct lessor_completion {
        lessor_atomic64 state; /* position + 1; 0: never used */
        lessor_atomic64 tag;
        lessor_atomic32 outcome; /* enum lessor_outcome; 0: the reply is here */
        lessor_atomic32 flags;
        lessor_atomic32 offset, length; /* the raw reply, in the reply area */
};
_Static_assert(sizeof(struct lessor_completion) == 32, "two in a cache line");

enum lane_waiting {
        LANE_WAITING_NOT = LESSOR_LANE_WAIT_NOT,
        LANE_WAITING_FUTEX = LESSOR_LANE_WAIT_FUTEX,
        LANE_WAITING_MESSAGE = LESSOR_LANE_WAIT_MESSAGE
};

struct lessor_lane {
        /* Written by the broker, before the worker knows of it. Offsets are the lane's own. */
        uint64_t magic;
        uint32_t version, entries; /* of either ring; a power of two */
        uint32_t submissions_offset, completions_offset;
        uint32_t requests_offset, requests_size;
        uint32_t replies_offset, replies_size;
        uint64_t reserved[2];
        /* Written by the worker. */
        _Alignas(64) lessor_atomic64 reaped; /* completions below this position are read, and their bytes, too */
        lessor_atomic32 waiting;             /* enum lane_waiting: how the one thread that waits wants to be woken */
        /* Written by the broker. */
        _Alignas(64) lessor_atomic64 taken; /* submissions below this position are copied, or cancelled */
        lessor_atomic32 done;               /* the futex word: moves on with completions */
        lessor_atomic32 starved;            /* replies wait for room: ring when there is some */
        lessor_atomic32 quiet;              /* the broker looks at this lane only when it is rung */
};
_Static_assert(sizeof(struct lessor_lane) == 192, "three cache lines: nobody's, the worker's, the broker's");
_Static_assert(offsetof(struct lessor_lane, reaped) == 64 && offsetof(struct lessor_lane, taken) == 128 &&
                       offsetof(struct lessor_lane, done) == 136,
               "the layout is part of the protocol");

struct lane_geometry {
        uint32_t entries;                     /* a power of two, 1 .. LANE_ENTRIES_MAX */
        uint32_t requests_size, replies_size; /* at least; rounded up to what fills the pages. 1 .. LANE_AREA_MAX */
};

/* The bytes of a lane: whole pages. The request area begins in the page where the rings end. 0: not a geometry. */
size_t lane_size(const struct lane_geometry *geometry);

/* ---- the broker: one thread -------------------------------------------------------------------------------------- */

struct lane_broker {
        struct lessor_lane *map;
        struct lessor_submission *submissions;
        struct lessor_completion *completions;
        char *requests, *replies;
        uint32_t entries, requests_size;
        uint64_t next;       /* position of the next submission */
        uint64_t completed;  /* position of the next completion */
        uint64_t reaped;     /* as last seen */
        uint32_t unanswered; /* taken, and not completed */
        uint32_t done;
        bool untold; /* completions since the last lane_wake() */
        bool starved;
        struct area area; /* of replies */
        uint32_t ends[LANE_ENTRIES_MAX];
};

/* memory: lane_size() bytes, zeroed, aligned to a cache line; written by nobody else as yet. */
void lane_broker_init(struct lane_broker *b, void *memory, const struct lane_geometry *geometry);

struct lane_request {
        uint64_t tag, deadline_ns;
        uint32_t database, length;
};

enum lane_take {
        LANE_TAKE_DONE,    /* `request` and the bytes are copied: complete it once, whatever becomes of it */
        LANE_TAKE_SKIPPED, /* one that was cancelled is passed: look again */
        LANE_TAKE_NOTHING, /* there is none, or the worker leaves too many completions unread */
        LANE_TAKE_NO_ROOM, /* request->length says how much is needed: it waits, and can still be cancelled */
        LANE_TAKE_BAD,     /* no honest worker submits that: end the session */
};
/* The next submission. What is in `buffer` is the broker's own, and as yet unchecked. */
enum lane_take lane_take(struct lane_broker *b, char *buffer, size_t size, struct lane_request *request);
/* Is there anything lane_take() would act upon, given room? For the last look, after lane_arm(). */
bool lane_has_submission(struct lane_broker *b);

/* What the worker has read is the broker's again, and b->reaped has moved on. False: `reaped` was never honestly written. */
bool lane_recover(struct lane_broker *b);

struct lane_answer {
        uint64_t tag;
        int32_t outcome;
        uint32_t flags;
        const char *data; /* the raw reply */
        size_t length;
};

enum lane_complete {
        LANE_COMPLETE_DONE,
        LANE_COMPLETE_STARVED,   /* no room now: keep the reply. The bell rings when the worker has made some */
        LANE_COMPLETE_TOO_LARGE, /* there never is so much room: LANE_REPLY_APART */
        LANE_COMPLETE_BAD,       /* `reaped` was never honestly written: end the session */
};
/* For each taken submission once, in any order. */
enum lane_complete lane_complete(struct lane_broker *b, const struct lane_answer *answer);
/* After completions, once for all of them: is somebody to be woken, and how? One waiter on lane_futex(), or the session. */
enum lane_waiting lane_wake(struct lane_broker *b);
static inline uint32_t lane_unanswered(const struct lane_broker *b) { return b->unanswered; }

/* ---- the bell ---------------------------------------------------------------------------------------------------- */

/* The broker, before each wait that may block; then look at all lanes once more. */
static inline void lane_arm(lessor_atomic32 *bell) {
        /* Sequentially consistent, pairs with lane_submit(), lane_release(): it comes before the loads of the last look. */
        atomic_store_explicit(bell, 1, memory_order_seq_cst);
}
/* The broker, when it is awake. */
static inline void lane_disarm(lessor_atomic32 *bell) { atomic_store_explicit(bell, 0, memory_order_relaxed); }
/* The worker, after it has submitted one or several, of either bell. True: write to the lane's doorbell. */
static inline bool lane_must_ring(const lessor_atomic32 *bell) {
        /* Sequentially consistent, pairs with lane_arm(): it comes after the store of the submission. */
        return atomic_load_explicit(bell, memory_order_seq_cst) != 0;
}

/* ---- the worker: one thread at a time, under a lock of its own ---------------------------------------------------- */

struct lane_worker {
        struct lessor_lane *map;
        struct lessor_submission *submissions;
        struct lessor_completion *completions;
        char *requests;
        const char *replies;
        uint32_t entries, replies_size;
        uint64_t next;       /* position of the next submission */
        uint64_t taken;      /* as last seen */
        uint64_t reaped;     /* position of the next completion */
        uint32_t unanswered; /* submitted, neither cancelled nor completed */
        bool held;           /* a reaped completion is not released yet */
        struct area area;    /* of requests */
        uint32_t ends[LANE_ENTRIES_MAX];
};

/* memory: as mapped, `size` bytes from the lane's beginning on. False: this is no lane that I understand. */
bool lane_worker_init(struct lane_worker *w, void *memory, size_t size);

enum lane_submit {
        LANE_SUBMIT_DONE,      /* now lane_must_ring() */
        LANE_SUBMIT_FULL,      /* too much is under way: take a lease, or reap and try again */
        LANE_SUBMIT_TOO_LARGE, /* it never fits: take a lease */
};
/* *ret_position: for lane_cancel(). */
enum lane_submit lane_submit(struct lane_worker *w, const struct lane_request *request, const char *data,
                             uint64_t *ret_position);
/* Would requests that end at these offsets, one behind the other, go by lane_submit(), all of them, now? */
bool lane_has_room(struct lane_worker *w, const size_t *ends, size_t n);
/* True: it was never sent, and no completion comes. False: the broker has it; it may run, and its completion comes. */
bool lane_cancel(struct lane_worker *w, uint64_t position);

enum lane_reap {
        LANE_REAP_DONE, /* the next completion; its bytes stay until lane_release(), which must follow */
        LANE_REAP_NOTHING,
        LANE_REAP_BAD, /* somebody has written over it: give up the session */
};
enum lane_reap lane_reap(struct lane_worker *w, struct lane_answer *ret);
/* True: ring, the broker waits for room. */
bool lane_release(struct lane_worker *w);

/*
 * One thread at a time says how it wants to be woken, when lane_reap() has nothing. True: wait, for LANE_WAKE or by
 * FUTEX_WAIT (not private) on lane_futex() for *ret_value. False: there is something by now, or bad. Afterwards lane_awake().
 */
bool lane_wait(struct lane_worker *w, enum lane_waiting how, uint32_t *ret_value);
void lane_awake(struct lane_worker *w);
static inline lessor_atomic32 *lane_futex(struct lane_worker *w) { return &w->map->done; }

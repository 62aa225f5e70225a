/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The lease word: one atomic for each slot of a session segment, on which a worker's threads and the broker settle who
 * has the slot's connection, without a system call.
 *
 *      bits 0-1 state | bit 2 WANTED | bits 3-26 generation of the socket | bits 27-63 sequence of the lease
 *
 *                    grant                    park, unless WANTED
 *      VACANT --------------------> HELD -------------------------> PARKED
 *        ^ ^       (the broker)      | ^       (the holder)          | |
 *        | |                         | |                             | |
 *        | +------- vacate ----------+ +---- retake, unless WANTED --+ |
 *        |        (the broker)               (any thread: sequence+1)  |
 *        +----------------------------- recall, vacate ----------------+
 *                                        (the broker)
 *
 * WANTED freezes a word: no operation of a worker changes a word that carries it. So the broker sets it first and looks
 * afterwards: what it finds then is final, and no word can outrun it by changing again and again. State and WANTED must
 * be one word: with a flag beside it, a thread that has just looked at the flag parks a word that has just been called.
 *
 * Every operation is a fixed number of instructions, whatever stands in the word and whoever else writes to it; none
 * loops. To the broker the word is evidence: whose the connection is stands in its own ledger.
 *
 * The sequence tells leases of one word apart: a thread that comes late, with the value of a lease that the broker has
 * ended, changes nothing. It goes on across grants, for which see word_next_sequence(), and wraps.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lessor/protocol.h>

typedef _Atomic(uint64_t) lessor_atomic64;
_Static_assert(sizeof(lessor_atomic64) == 8 && ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_LONG_LOCK_FREE == 2,
               "shared between processes: no lock may hide in it");

enum word_state { WORD_STATE_VACANT = 0, WORD_STATE_HELD = 1, WORD_STATE_PARKED = 2 }; /* 3 is nobody's */

#define WORD_STATE_MASK UINT64_C(3)
#define WORD_WANTED_BIT (UINT64_C(1) << 2)
#define WORD_GENERATION_SHIFT 3U
#define WORD_GENERATION_MASK ((UINT64_C(1) << 24) - 1)
#define WORD_SEQUENCE_SHIFT 27U
#define WORD_SEQUENCE_MASK ((UINT64_C(1) << 37) - 1)
#define WORD_SEQUENCE_ONE (UINT64_C(1) << WORD_SEQUENCE_SHIFT)

/* One slot as it lies in the session segment. The counters are written by whoever holds the slot, and only grow. */
struct lessor_slot {
        lessor_atomic64 word;
        lessor_atomic64 retakes;      /* warm leases begun here */
        lessor_atomic64 held_samples; /* holds measured: one in SLOT_SAMPLE_EVERY */
        lessor_atomic64 held_ns;      /* their sum */
        _Atomic(uint32_t) tid;        /* of the thread that holds or held it last; 0: unknown */
        _Atomic(uint32_t) site;       /* where it was taken, by its place among the segment's call sites; 0: unknown */
        uint64_t reserved[3];         /* 0 */
};
#define SLOT_SAME(field)                                                                                               \
        (offsetof(struct lessor_slot, field) == offsetof(struct lessor_slot_layout, field) &&                          \
         sizeof(((struct lessor_slot *)NULL)->field) == sizeof(((struct lessor_slot_layout *)NULL)->field))
_Static_assert(sizeof(struct lessor_slot) == 64 && sizeof(struct lessor_slot_layout) == 64, "one cache line");
_Static_assert(SLOT_SAME(word) && SLOT_SAME(retakes) && SLOT_SAME(held_samples) && SLOT_SAME(held_ns) &&
                       SLOT_SAME(tid) && SLOT_SAME(site) && SLOT_SAME(reserved),
               "the layout is part of the protocol");

/* ---- values ------------------------------------------------------------------------------------------------------ */

static inline uint64_t word_value(enum word_state state, uint64_t generation, uint64_t sequence) {
        return (uint64_t)state | (generation & WORD_GENERATION_MASK) << WORD_GENERATION_SHIFT |
               sequence << WORD_SEQUENCE_SHIFT;
}
static inline unsigned word_state(uint64_t value) { return (unsigned)(value & WORD_STATE_MASK); } /* 3 is possible */
static inline bool word_is_wanted(uint64_t value) { return value & WORD_WANTED_BIT; }
static inline uint64_t word_sequence(uint64_t value) { return value >> WORD_SEQUENCE_SHIFT; }
static inline uint64_t word_generation(uint64_t value) { return value >> WORD_GENERATION_SHIFT & WORD_GENERATION_MASK; }

/* ---- the broker: one thread at a time for each word -------------------------------------------------------------- */

/*
 * VACANT -> HELD. Only for a word the ledger says is vacant; what stands there is overwritten. False: it was not as the
 * broker had left it, which is evidence against the worker. The worker must be told generation and sequence, for
 * word_accept(). If others wait, word_recall() next.
 */
bool word_grant(lessor_atomic64 *word, uint64_t generation, uint64_t sequence);
/* What to grant a vacant word with: one beyond the last there. A worker that lies there fools itself alone. */
uint64_t word_next_sequence(lessor_atomic64 *word);

enum word_recall {
        WORD_RECALLED, /* it was parked: VACANT now, and the connection the broker's */
        WORD_WANTED,   /* it is held: the holder cannot park it any more, and returns it by a message */
        WORD_BAD,      /* no honest worker can have written that on a lease of this generation. Vacate it, if at all */
};
/* Asks for the return of a word that the ledger says is leased. May be said again. */
enum word_recall word_recall(lessor_atomic64 *word, uint64_t generation);
/* Nobody waits any more: the holder may park again. True: WANTED was there, and is gone. Else nothing has changed. */
bool word_unwant(lessor_atomic64 *word, uint64_t generation);
/* The lease is over: returned by message, revoked, its connection or its session dead. Whatever stood there: VACANT. */
void word_vacate(lessor_atomic64 *word);

/* ---- the worker: any thread -------------------------------------------------------------------------------------- */

/*
 * Does the grant of `held`, made from what the broker told, still stand? Do not take the lease from the word instead:
 * if the broker has ended yours meanwhile, it may show another thread's.
 */
static inline bool word_accept(lessor_atomic64 *word, uint64_t held) {
        /* Acquire, pairs with word_grant(): what the last holder and the broker wrote before is there. */
        uint64_t value = atomic_load_explicit(word, memory_order_acquire);
        return (value & ~WORD_WANTED_BIT) == held;
}

enum word_park {
        WORD_PARKED, /* anybody's who retakes it; the caller's no more */
        WORD_RETURN, /* WANTED: the caller still holds it, and returns it by a message */
        WORD_LOST,   /* the broker has ended the lease: there is nothing to return */
};
/* held: from word_accept() or word_retake(). */
static inline enum word_park word_park(lessor_atomic64 *word, uint64_t held) {
        uint64_t value = held;
        /* Release, pairs with word_retake(), word_recall() and word_vacate(): what the holder did goes along. */
        if (atomic_compare_exchange_strong_explicit(word, &value, held ^ (WORD_STATE_HELD ^ WORD_STATE_PARKED),
                                                    memory_order_release, memory_order_relaxed))
                return WORD_PARKED;
        return value == (held | WORD_WANTED_BIT) ? WORD_RETURN : WORD_LOST;
}

/*
 * PARKED -> HELD with the next sequence. False at once if the word is not parked, is wanted, or another thread was
 * faster: look elsewhere, or ask the broker. The socket is that of word_generation(*ret_held): look it up afterwards.
 */
static inline bool word_retake(lessor_atomic64 *word, uint64_t *ret_held) {
        uint64_t value = atomic_load_explicit(word, memory_order_relaxed), held;
        if ((value & (WORD_STATE_MASK | WORD_WANTED_BIT)) != WORD_STATE_PARKED)
                return false;
        held = (value ^ (WORD_STATE_HELD ^ WORD_STATE_PARKED)) + WORD_SEQUENCE_ONE;
        /* Acquire, pairs with word_park(): what the last holder did is there. */
        if (!atomic_compare_exchange_strong_explicit(word, &value, held, memory_order_acquire, memory_order_relaxed))
                return false;
        *ret_held = held;
        return true;
}

/* ---- counters: whoever holds the slot ---------------------------------------------------------------------------- */

#define SLOT_SAMPLE_EVERY 64U

/* One writer at a time, handed on with the word: no locked instruction. Relaxed: the broker may read at any time. */
static inline uint64_t slot_add(lessor_atomic64 *counter, uint64_t n) {
        uint64_t old = atomic_load_explicit(counter, memory_order_relaxed);
        atomic_store_explicit(counter, old + n, memory_order_relaxed);
        return old;
}
/* After word_retake(). True: measure this hold, and say slot_held_for() before parking it. */
static inline bool slot_retaken(struct lessor_slot *slot) {
        return slot_add(&slot->retakes, 1) % SLOT_SAMPLE_EVERY == 0;
}
static inline void slot_held_for(struct lessor_slot *slot, uint64_t ns) {
        slot_add(&slot->held_ns, ns);
        slot_add(&slot->held_samples, 1);
}

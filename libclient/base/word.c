/* SPDX-License-Identifier: MIT */
/*
 * The broker's side of the lease word. A result of an atomic `or` or `and` is not looked at on purpose: without it they
 * are one instruction, with it a loop of compare-and-swap that a hostile worker could keep busy.
 */
#include "word.h"

#define WORD_KEPT_BY_VACANT (~(WORD_STATE_MASK | WORD_WANTED_BIT)) /* for word_next_sequence() */

bool word_grant(lessor_atomic64 *word, uint64_t generation, uint64_t sequence) {
        /* Release, pairs with word_accept(). Read-modify-writes that follow keep the pairing. */
        uint64_t was =
                atomic_exchange_explicit(word, word_value(WORD_STATE_HELD, generation, sequence), memory_order_release);
        return word_state(was) == WORD_STATE_VACANT && !word_is_wanted(was);
}

uint64_t word_next_sequence(lessor_atomic64 *word) {
        return (word_sequence(atomic_load_explicit(word, memory_order_relaxed)) + 1) & WORD_SEQUENCE_MASK;
}

enum word_recall word_recall(lessor_atomic64 *word, uint64_t generation) {
        uint64_t value;
        /* Relaxed: it asks, and hands nothing over. From here on an honest worker leaves the word as it is. */
        atomic_fetch_or_explicit(word, WORD_WANTED_BIT, memory_order_relaxed);
        /* Acquire, pairs with word_park(): what the holder wrote to the slot is there. */
        value = atomic_load_explicit(word, memory_order_acquire);
        if (!word_is_wanted(value) || word_generation(value) != (generation & WORD_GENERATION_MASK))
                return WORD_BAD;
        if (word_state(value) == WORD_STATE_HELD)
                return WORD_WANTED;
        if (word_state(value) != WORD_STATE_PARKED)
                return WORD_BAD;
        /* Relaxed: the word goes on to nobody but by word_grant(). */
        if (!atomic_compare_exchange_strong_explicit(word, &value, value & WORD_KEPT_BY_VACANT, memory_order_relaxed,
                                                     memory_order_relaxed))
                return WORD_BAD;
        return WORD_RECALLED;
}

bool word_unwant(lessor_atomic64 *word, uint64_t generation) {
        uint64_t value = atomic_load_explicit(word, memory_order_relaxed);
        if (word_state(value) != WORD_STATE_HELD || !word_is_wanted(value) ||
            word_generation(value) != (generation & WORD_GENERATION_MASK))
                return false;
        /* Relaxed: nothing is handed over. */
        return atomic_compare_exchange_strong_explicit(word, &value, value & ~WORD_WANTED_BIT, memory_order_relaxed,
                                                       memory_order_relaxed);
}

void word_vacate(lessor_atomic64 *word) {
        /* Acquire, pairs with word_park(), if it is parked: what the holder wrote to the slot is there. */
        atomic_fetch_and_explicit(word, WORD_KEPT_BY_VACANT, memory_order_acquire);
}

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A circuit breaker: what the broker itself saw of one server, and what follows for those who ask. Pure.
 *
 *      CLOSED -- `failures` in a row --> OPEN -- retry_at, the owner begins a probe --> HALF_OPEN -- it fails --> OPEN
 *         ^                               |                                                 |
 *         +---- success ------------------+---------------- success, or any answer ---------+
 *
 * By hand: breaker_hold() opens it for good, whatever the server says; breaker_reset() closes it, whoever opened it.
 *
 * Results carry the epoch in which their work began; the epoch advances with every change of state, and what comes late
 * from an earlier one changes nothing.
 */
#include <stdbool.h>
#include <stdint.h>

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN, BREAKER_STATES };

struct breaker_limits {
        unsigned failures; /* so many in a row open it; 0: none ever do */
        uint64_t open_ns;  /* the longest time from its opening to the next probe */
        bool early_probe;  /* probe at the dialling backoff, which comes as `pause` */
};

struct breaker {
        struct breaker_limits limits;
        enum breaker_state state;
        bool held;         /* OPEN by hand: no probe, and no success closes it */
        unsigned failures; /* in a row */
        uint64_t epoch;
        uint64_t opened_at; /* OPEN, HALF_OPEN: when it left CLOSED */
        uint64_t retry_at;  /* OPEN: when to probe; TIME_NEVER: held */
        uint64_t last_loss; /* when a loss was last counted */
        uint64_t trips;     /* from CLOSED to OPEN, by failures */
};

void breaker_init(struct breaker *b, const struct breaker_limits *limits);

/* All true when the state has changed. */
bool breaker_succeed(struct breaker *b, uint64_t epoch);
bool breaker_fail(struct breaker *b, uint64_t epoch, uint64_t pause, uint64_t now);
/* An answer that is neither (it loads its data, is full, refuses the password): it can be reached, which ends a probe. */
bool breaker_answer(struct breaker *b, uint64_t epoch);
/* An established connection ended. All that stood when a loss was last counted ended with it: they count once. */
bool breaker_lose(struct breaker *b, uint64_t established_at, uint64_t pause, uint64_t now);

/* OPEN and due: the owner is to probe, and says so when it begins. The probe's epoch is b->epoch from then on. */
static inline bool breaker_due(const struct breaker *b, uint64_t now) {
        return b->state == BREAKER_OPEN && !b->held && now >= b->retry_at;
}
void breaker_probe(struct breaker *b);
bool breaker_hold(struct breaker *b, uint64_t now); /* OPEN until breaker_reset() */
bool breaker_reset(struct breaker *b);              /* CLOSED, as if nothing had been */

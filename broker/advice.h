/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * How single commands to one database go best: by lease, straight to Redis, while few callers are active; by lane when
 * many are. From what the broker sees: how many parked connections are in busy use, how many requests had to wait for a
 * connection to come back, how many lanes are busy. Published in the control page as an advice to all workers. Pure, but
 * for the database it belongs to.
 *
 *      DIRECT -> LANE   DIRECT_MANY connections in busy use, seen twice in a row; or WAITS_MANY requests that had to
 *                       wait since the last look
 *      LANE -> DIRECT   in a second fewer than LANES_FEW lanes were busy at once, and all that called in it would find
 *                       connections to park in half the pool
 */
#include <stdbool.h>
#include <stdint.h>

#include <lessor/protocol.h>

struct advice {
        enum lessor_path path;
        uint64_t changes;
        uint64_t look;       /* the number of this one */
        unsigned waits;      /* since the last look, likewise: */
        unsigned lanes_busy; /* counted at their BUSY_CALLS-th call */
        unsigned crowded_looks;
        unsigned lanes_busiest, lanes_seen; /* in this second */
};

/* What is counted of one lane. */
struct advice_lane {
        uint64_t look, second;
        unsigned calls;
};

#define ADVICE_DIRECT_MANY 8U
#define ADVICE_WAITS_MANY 8U
#define ADVICE_LANES_FEW 5U
#define ADVICE_LOOKS 10U     /* a second */
#define ADVICE_BUSY_CALLS 5U /* in a tenth of a second */

/* A place is kept for lanes while they are used: too much of a smaller pool to be done unasked. */
#define ADVICE_POOL_MIN 4U

/* A request had to wait until another gives its connection back. True: the path has changed. */
bool advice_wait(struct advice *advice, bool automatic);
/* A call by a lane, whose counters these are. */
void advice_call(struct advice *advice, struct advice_lane *lane);
/* Ten times a second. direct_busy: connections leased and retaken ADVICE_BUSY_CALLS times since. True: the path has changed. */
bool advice_look(struct advice *advice, unsigned direct_busy, unsigned max_connections, bool automatic);
/* As configured. True: the path has changed. */
bool advice_set(struct advice *advice, enum lessor_path path);

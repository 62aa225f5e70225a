/* SPDX-License-Identifier: MIT */
#include "breaker.h"

#include <assert.h>
#include <limits.h>

#include "base/clock.h"

void breaker_init(struct breaker *b, const struct breaker_limits *limits) { *b = (struct breaker){.limits = *limits}; }

static bool enter(struct breaker *b, enum breaker_state state) {
        b->state = state;
        b->epoch++;
        return true;
}

static bool open_for(struct breaker *b, uint64_t pause, uint64_t now) {
        uint64_t latest = time_after(now, b->limits.open_ns), early = time_after(now, pause);
        b->retry_at = b->limits.early_probe && early < latest ? early : latest;
        return enter(b, BREAKER_OPEN);
}

static bool close_it(struct breaker *b) {
        b->failures = 0;
        b->held = false;
        return b->state == BREAKER_CLOSED ? false : enter(b, BREAKER_CLOSED);
}

/* What was begun since its last change, and may change it. */
static bool counts(const struct breaker *b, uint64_t epoch) { return epoch == b->epoch && !b->held; }

bool breaker_succeed(struct breaker *b, uint64_t epoch) { return counts(b, epoch) && close_it(b); }

bool breaker_answer(struct breaker *b, uint64_t epoch) {
        return counts(b, epoch) && b->state != BREAKER_CLOSED && close_it(b);
}

bool breaker_fail(struct breaker *b, uint64_t epoch, uint64_t pause, uint64_t now) {
        if (!counts(b, epoch))
                return false;
        if (b->failures < UINT_MAX)
                b->failures++;
        switch (b->state) {
        case BREAKER_CLOSED:
                if (!b->limits.failures || b->failures < b->limits.failures)
                        return false;
                b->opened_at = now;
                b->trips++;
                return open_for(b, pause, now);
        case BREAKER_HALF_OPEN:
                return open_for(b, pause, now);
        case BREAKER_OPEN: /* the probe to come decides */
        case BREAKER_STATES:
                break;
        }
        return false;
}

bool breaker_lose(struct breaker *b, uint64_t established_at, uint64_t pause, uint64_t now) {
        if (b->state != BREAKER_CLOSED || established_at < b->last_loss)
                return false;
        b->last_loss = now;
        return breaker_fail(b, b->epoch, pause, now);
}

void breaker_probe(struct breaker *b) {
        assert(b->state == BREAKER_OPEN && !b->held);
        enter(b, BREAKER_HALF_OPEN);
}

bool breaker_hold(struct breaker *b, uint64_t now) {
        if (b->held)
                return false;
        if (b->state == BREAKER_CLOSED)
                b->opened_at = now;
        b->held = true;
        b->retry_at = TIME_NEVER;
        return enter(b, BREAKER_OPEN);
}

bool breaker_reset(struct breaker *b) { return close_it(b); }

/* SPDX-License-Identifier: MIT */
#include "pressure.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/clock.h"

/* Those refused shortly after each other are told as one number. */
static void note_refused(struct pressure *p, uint64_t refused, uint64_t now) {
        if (refused == p->refused)
                return;
        if (!p->refused_at || now - p->refused_at >= PRESSURE_MEMORY_NS)
                p->refused_then = p->refused;
        p->refused = refused;
        p->refused_at = now;
}

static bool say(struct pressure *p, const struct pressure_signs *s, uint64_t now) {
        if (p->refused_at && now - p->refused_at < PRESSURE_MEMORY_NS)
                snprintf(p->text, sizeof(p->text), "%" PRIu64 " requests were refused or timed out of late",
                         p->refused - p->refused_then);
        else if (s->waiting && s->wait_timeout_ns && s->oldest_wait_ns >= s->wait_timeout_ns / 2)
                snprintf(p->text, sizeof(p->text), "the first of %u requests has waited for %" PRIu64 " ms", s->waiting,
                         s->oldest_wait_ns / NS_PER_MS);
        else if (s->max_waiters && (uint64_t)s->waiting * 4 >= (uint64_t)s->max_waiters * 3)
                snprintf(p->text, sizeof(p->text), "%u requests wait, max_waiters is %u", s->waiting, s->max_waiters);
        else if (s->in_use >= s->max_connections && s->youngest_hold_ns >= PRESSURE_STUCK_NS)
                snprintf(p->text, sizeof(p->text), "all %u connections are held, none has come back for %" PRIu64 " s",
                         s->in_use, s->youngest_hold_ns / NS_PER_S);
        else
                return false;
        return true;
}

const char *pressure_of(struct pressure *p, const struct pressure_signs *s, uint64_t now) {
        note_refused(p, s->refused, now);
        if (say(p, s, now))
                p->until = time_after(now, PRESSURE_LINGER_NS);
        else if (now >= p->until)
                p->text[0] = '\0';
        return p->text;
}

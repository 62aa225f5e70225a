/* SPDX-License-Identifier: MIT */
/*
 * An entry is told when its caller has been: by its reply, by its deadline, or because his lane has ended. Its lane
 * pointer stays until the reply, for the count, unless the lane is forgotten.
 */
#include "batch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"

struct batch_entry {
        struct batch_lane *lane; /* NULL: forgotten */
        uint64_t tag, deadline, sent;
        bool told;
};

int batch_init(struct batch *b, const struct batch_limits *limits) {
        assert(limits->connections > 0 && limits->depth > 0 && limits->lane_depth > 0);
        *b = (struct batch){.limits = *limits, .wakeup = TIME_NEVER};
        b->connections = calloc(limits->connections, sizeof(b->connections[0]));
        for (unsigned i = 0; b->connections && i < limits->connections; i++)
                if (!(b->connections[i].entries = calloc(limits->depth, sizeof(struct batch_entry)))) {
                        batch_deinit(b);
                        return -ENOMEM;
                }
        return b->connections ? 0 : -ENOMEM;
}

void batch_deinit(struct batch *b) {
        for (unsigned i = 0; b->connections && i < b->limits.connections; i++)
                free(b->connections[i].entries);
        free(b->connections);
        b->connections = NULL;
}

static struct batch_entry *entry_at(const struct batch *b, const struct batch_connection *c, uint64_t position) {
        return &c->entries[position % b->limits.depth];
}

void batch_up(struct batch *b, unsigned connection) {
        struct batch_connection *c = &b->connections[connection];
        assert(!c->up && c->first == c->next);
        c->up = true;
        c->draining = false;
}

void batch_drain(struct batch *b, unsigned connection) { b->connections[connection].draining = true; }

/* ---- sending ----------------------------------------------------------------------------------------------------- */

static bool is_open(const struct batch *b, unsigned connection) {
        const struct batch_connection *c = &b->connections[connection];
        return c->up && !c->draining && batch_under_way(b, connection) < b->limits.depth;
}

unsigned batch_choose(const struct batch *b, const struct batch_lane *lane) {
        unsigned best = BATCH_NONE;
        if (lane->under_way >= b->limits.lane_depth)
                return BATCH_NONE;
        if (lane->under_way > 0)
                return is_open(b, lane->connection) ? lane->connection : BATCH_NONE;
        for (unsigned i = 0; i < b->limits.connections; i++)
                if (is_open(b, i) && (best == BATCH_NONE || batch_under_way(b, i) < batch_under_way(b, best)))
                        best = i;
        return best;
}

static void wake_at(struct batch *b, uint64_t time) {
        if (time < b->wakeup)
                b->wakeup = time;
}

void batch_sent(struct batch *b, unsigned connection, struct batch_lane *lane, uint64_t tag, uint64_t deadline,
                uint64_t now) {
        struct batch_connection *c = &b->connections[connection];
        assert(is_open(b, connection) && lane->under_way < b->limits.lane_depth);
        assert(lane->under_way == 0 || lane->connection == connection);
        if (c->first == c->next)
                c->heard = now;
        *entry_at(b, c, c->next++) = (struct batch_entry){.lane = lane, .tag = tag, .deadline = deadline, .sent = now};
        lane->under_way++;
        lane->connection = connection;
        wake_at(b, deadline);
        wake_at(b, time_after(c->heard, b->limits.reply_ns));
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

/* The oldest, off the queue. */
static struct batch_owner pop(struct batch *b, struct batch_connection *c) {
        struct batch_entry *e = entry_at(b, c, c->first++);
        if (e->lane)
                e->lane->under_way--;
        return (struct batch_owner){.lane = e->told ? NULL : e->lane, .tag = e->tag, .sent = e->sent};
}

const struct batch_lane *batch_next(const struct batch *b, unsigned connection) {
        const struct batch_connection *c = &b->connections[connection];
        return c->first == c->next ? NULL : entry_at(b, c, c->first)->lane;
}

bool batch_reply(struct batch *b, unsigned connection, uint64_t now, struct batch_owner *ret) {
        struct batch_connection *c = &b->connections[connection];
        if (c->first == c->next)
                return false;
        *ret = pop(b, c);
        c->heard = now;
        b->discarded += !ret->lane;
        return true;
}

bool batch_down(struct batch *b, unsigned connection, struct batch_owner *ret) {
        struct batch_connection *c = &b->connections[connection];
        c->up = false;
        while (c->first != c->next) {
                *ret = pop(b, c);
                if (ret->lane)
                        return true;
        }
        return false;
}

void batch_forget(struct batch *b, struct batch_lane *lane) {
        struct batch_connection *c = &b->connections[lane->connection];
        for (uint64_t at = c->first; lane->under_way > 0 && at != c->next; at++) {
                struct batch_entry *e = entry_at(b, c, at);
                if (e->lane != lane)
                        continue;
                e->lane = NULL;
                e->told = true;
                lane->under_way--;
        }
        assert(lane->under_way == 0);
}

void batch_survey(struct batch *b) {
        for (unsigned i = 0; i < b->limits.connections; i++) {
                const struct batch_connection *c = &b->connections[i];
                for (uint64_t at = c->next; at != c->first;) {
                        const struct batch_entry *e = entry_at(b, c, --at); /* the oldest of each lane comes last */
                        if (e->lane)
                                e->lane->oldest = e->sent;
                }
        }
}

/* ---- time -------------------------------------------------------------------------------------------------------- */

static bool expire_on(struct batch *b, struct batch_connection *c, uint64_t now, struct batch_owner *ret) {
        for (uint64_t at = c->first; at != c->next; at++) {
                struct batch_entry *e = entry_at(b, c, at);
                if (e->told)
                        continue;
                if (e->deadline <= now) {
                        e->told = true;
                        *ret = (struct batch_owner){.lane = e->lane, .tag = e->tag, .sent = e->sent};
                        return true;
                }
                wake_at(b, e->deadline);
        }
        if (c->first != c->next)
                wake_at(b, time_after(c->heard, b->limits.reply_ns));
        return false;
}

bool batch_expire(struct batch *b, uint64_t now, struct batch_owner *ret) {
        if (now < b->wakeup)
                return false;
        b->wakeup = TIME_NEVER;
        for (unsigned i = 0; i < b->limits.connections; i++)
                if (expire_on(b, &b->connections[i], now, ret)) {
                        b->wakeup = now; /* not yet through */
                        return true;
                }
        return false;
}

unsigned batch_stalled(const struct batch *b, uint64_t now) {
        for (unsigned i = 0; i < b->limits.connections; i++) {
                const struct batch_connection *c = &b->connections[i];
                if (c->first != c->next && time_after(c->heard, b->limits.reply_ns) <= now)
                        return i;
        }
        return BATCH_NONE;
}

uint64_t batch_wakeup(const struct batch *b) { return b->wakeup; }

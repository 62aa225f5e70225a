/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What is under way on one database's lane connections: on which of them the next command goes, and whose the next reply
 * is. Pure: no socket, no lane, no clock.
 *
 * Each connection is a queue: Redis answers in the order it was asked. A place in it is given up by nothing but the reply,
 * or by the connection's end: not by the caller's deadline, nor by his death; such a reply is nobody's, and thrown away.
 * The commands of one lane stay on one connection while any of them is under way, those given up by their caller included,
 * because they may still run: so a lane's commands run in their order. A connection to which nothing is given any more
 * (batch_drain) is left by a lane as soon as it has nothing under way there.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One lane's part in one database; the owner's, who forgets it before it goes. */
struct batch_lane {
        unsigned under_way;  /* commands sent and not answered by Redis, given up or not */
        unsigned connection; /* where, if any */
        uint64_t oldest;     /* when the oldest of them was sent, as of the last batch_survey() */
        void *owner;
};
static inline void batch_lane_init(struct batch_lane *lane, void *owner) {
        *lane = (struct batch_lane){.owner = owner};
}

struct batch_limits {
        unsigned connections; /* at most */
        unsigned depth;       /* commands under way on one connection, at most */
        unsigned lane_depth;  /* of one lane */
        uint64_t reply_ns;    /* a connection that answers nothing for so long is stalled */
};

struct batch_entry;
struct batch_connection {
        struct batch_entry *entries; /* a ring of `depth` */
        uint64_t first, next;        /* positions in it: the oldest, and behind the latest */
        uint64_t heard;              /* when it was last answered, or began to have something to answer */
        bool up, draining;
};

struct batch {
        struct batch_limits limits;
        struct batch_connection *connections; /* owned */
        uint64_t wakeup;                      /* no deadline, and no stall, before this */
        uint64_t discarded;                   /* replies that were nobody's */
};

int batch_init(struct batch *b, const struct batch_limits *limits); /* 0; -ENOMEM */
void batch_deinit(struct batch *b);

void batch_up(struct batch *b, unsigned connection);
/* Nothing more is given to it; what is under way goes on. */
void batch_drain(struct batch *b, unsigned connection);
static inline unsigned batch_under_way(const struct batch *b, unsigned connection) {
        return (unsigned)(b->connections[connection].next - b->connections[connection].first);
}

#define BATCH_NONE UINT32_MAX
/* Where the lane's next command belongs; BATCH_NONE: nowhere now, leave it in the lane until there was a reply. */
unsigned batch_choose(const struct batch *b, const struct batch_lane *lane);
/* It is (being) sent there, after all that was sent before. connection: from batch_choose(), of just now. */
void batch_sent(struct batch *b, unsigned connection, struct batch_lane *lane, uint64_t tag, uint64_t deadline,
                uint64_t now);

struct batch_owner {
        struct batch_lane *lane; /* NULL: nobody's */
        uint64_t tag;
        uint64_t sent; /* when */
};
/* A whole reply came: whose it is. False: nothing was asked: the connection is out of step, close it. */
bool batch_reply(struct batch *b, unsigned connection, uint64_t now, struct batch_owner *ret);

/* Whose the next reply is, its caller gone or not; NULL: nothing was asked, or the lane is forgotten. */
const struct batch_lane *batch_next(const struct batch *b, unsigned connection);

/* One whose deadline has passed: complete it, "may have run". False: no more; ask again at batch_wakeup(). */
bool batch_expire(struct batch *b, uint64_t now, struct batch_owner *ret);
/* A connection that has had something to answer for reply_ns and has answered nothing. BATCH_NONE: none. */
unsigned batch_stalled(const struct batch *b, uint64_t now);
uint64_t batch_wakeup(const struct batch *b); /* TIME_NEVER */

/* The connection is gone. One after the other those for whom it held something: complete it, "may have run". False: no more,
 * it may come up again. */
bool batch_down(struct batch *b, unsigned connection, struct batch_owner *ret);

/* For all lanes with commands under way: since when. */
void batch_survey(struct batch *b);

/* The lane's end: the replies to come are nobody's. */
void batch_forget(struct batch *b, struct batch_lane *lane);

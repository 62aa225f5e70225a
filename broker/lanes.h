/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The lanes of one data thread (base/lane.h): every session's commands to its databases, collected, handed to the
 * databases' pipelines (pipeline.h), and their replies handed back. All of it on that thread, between two waits of its loop:
 *
 *      lanes_turn()       collects what all active lanes hold, writes to Redis once for each connection, wakes who is served
 *      lanes_may_sleep()  before a wait that may block: rings are asked for, and the lanes looked at once more
 *      lanes_awake()      after it
 *
 * A lane in which nothing has happened for a while is quiet: it is not looked at until its doorbell rings.
 */
#include <stdbool.h>
#include <stdint.h>

#include <event2/event.h>

#include <lessor/status.h>

#include "apart.h"
#include "base/lane.h"
#include "base/list.h"
#include "base/wire.h"
#include "directory.h"
#include "loop.h"

/* To the session's thread, which need not be this one. */
struct lanes_ops {
        void (*send)(struct loop *here, struct loop *home, uint64_t session, const union wire_message *message, int fd);
        void (*violated)(struct loop *here, struct loop *home, uint64_t session, const char *why);
};

struct lanes {
        struct loop *loop;
        unsigned thread;
        const struct directory *directory;
        const struct lanes_ops *ops;
        struct reply_budget *budget;
        lessor_atomic32 *bell; /* in the control page */
        struct lane_geometry geometry;
        struct list active, quiet; /* ports */
        struct list told;          /* ports with completions whose worker has not been woken */
        struct list dirty;         /* pipes with something to write */
        struct event *timer;       /* for what waits to be sent */
        uint64_t timer_at;         /* TIME_NEVER: it is not set */
        char *request;             /* room for the largest request */
        char *replies;             /* what was read last */
        uint64_t now;              /* of this turn */
        bool sleeping;
};

#define LANES_READ_SIZE (256U * 1024U) /* of `replies` */

struct lanes_options {
        struct loop *loop;
        unsigned thread;
        uint32_t size; /* of requests, and of replies, in a lane */
        const struct directory *directory;
        const struct lanes_ops *ops;
        struct reply_budget *budget;
        struct lessor_control_bell *bell;
};
int lanes_init(struct lanes *lanes, const struct lanes_options *options); /* 0; -ENOMEM */
void lanes_deinit(struct lanes *lanes); /* frees the ports, too; not initialised: nothing */

/*
 * Who has what under way, for the figures: ten times a second, after pipelines_survey() of each database. The entries are those under
 * way longest; the others are zeroed.
 */
#define LANES_SHOWN 64U
void lanes_show(struct lanes *lanes, struct lessor_status_lane entries[LANES_SHOWN]);

bool lanes_turn(struct lanes *lanes); /* true: there was something to do, do not sleep */
bool lanes_may_sleep(struct lanes *lanes);
void lanes_awake(struct lanes *lanes);
/* lanes_turn() is to be called again then, at the latest. */
void lanes_wake_at(struct lanes *lanes, uint64_t at);

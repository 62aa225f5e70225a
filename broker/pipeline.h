/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * One database's pipelines: the connections of its own that carry the commands of all lanes. Requests are appended to a
 * buffer and written once a turn; what is read is cut into replies (base/scan.h), each of which belongs to the oldest call
 * on its connection (lane/batch.h). Belongs to the database's thread.
 *
 *      the pool: POOL_LANE -> pipeline_up()     POOL_DRAIN -> pipeline_drain()     pool_lane_done() when it is over
 *
 * One connection suffices for most: Redis executes one command after the other anyway. Another is asked for when the calls
 * of one are as many as fit.
 */
#include <stdbool.h>
#include <stdint.h>

#include <event2/event_struct.h>

#include <lessor/status.h>

#include "apart.h"
#include "base/list.h"
#include "base/scan.h"
#include "lane/batch.h"
#include "lane/class.h"

#define PIPELINES_MAX 4U

struct call;
struct connection;
struct database;
struct lanes;
struct share;

struct pipe {
        struct database *database;
        struct connection *connection; /* NULL: this pipe is not in use */
        unsigned index;
        struct event readable, writable;
        bool blocked; /* the socket takes no more: `writable` is awaited */
        struct list dirty;
        struct scan scan;
        struct apart reply; /* the beginning of one */
        char *out;
        size_t begin, end, room; /* of it: not yet written */
};

struct pipelines {
        struct lanes *lanes; /* the thread's; NULL: there are none */
        bool ready;          /* what follows is there: made at the first call */
        struct batch batch;
        struct pipe pipes[PIPELINES_MAX];
        struct batch_lane self; /* the owner of our own question */
        struct lane_classes *classes;
        uint64_t classes_epoch; /* the pool's + 1 of the server that was asked; 0: none was */
        struct event timer;
        uint64_t timer_at;
        uint64_t last_call;
        struct {
                uint64_t calls, writes, rings, refused, unsent, timeouts, discarded, apart;
        } counters;
        struct lessor_status_histogram queue_time, round_trip;
        struct {
                unsigned sessions, calls;
                uint64_t since;
        } in_flight; /* as of the last survey */
};

void pipelines_init(struct database *db, struct lanes *lanes);
void pipelines_deinit(struct database *db);

enum offer {
        OFFER_SENT,    /* it is on its way: completed later, once */
        OFFER_LATER,   /* no connection has room: keep it, and offer it again in a later turn */
        OFFER_REFUSED, /* nobody is served now: complete it with *ret_outcome */
};
enum offer pipelines_offer(struct database *db, struct share *share, const struct call *call, uint64_t now,
                           int *ret_outcome);
/* NULL: it may go by lane; else why not. Counted. */
const char *pipelines_unfit(struct database *db, const char *data, size_t length, bool *ret_malformed);
void pipelines_forget(struct database *db, struct share *share); /* its port goes */
void pipelines_note_ring(struct database *db);
/* Who has what under way: first this, for each database of the thread, then each share with anything under way. */
void pipelines_survey(struct database *db);
/* Adds what is sent to what `entry` has queued. False: there is nothing of it. Counted. */
bool pipelines_show(struct database *db, const struct share *share, struct lessor_status_lane *entry);
/* Why a call that was not sent was not, as it is told to its worker. */
void pipelines_trouble(struct database *db, int outcome, char *text, size_t size);
void pipelines_note_queued(struct database *db, uint64_t waited_ns); /* before it could be sent */

void pipeline_up(struct database *db, struct connection *c, uint64_t now);
void pipeline_drain(struct database *db, struct connection *c, uint64_t now);
void pipeline_lost(struct database *db, struct connection *c, uint64_t now); /* Redis has closed it */
void pipeline_flush(struct pipe *pipe);                                      /* writes what can be written */
struct pipe *pipe_of_dirty(struct list *link);
/* Once a second: connections that nobody has used for long are given back. */
void pipelines_sweep(struct database *db, uint64_t now);

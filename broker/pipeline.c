/* SPDX-License-Identifier: MIT */
#include "pipeline.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <hiredis/hiredis.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/histogram.h"
#include "base/resp.h"
#include "database_internal.h"
#include "lanes.h"
#include "log.h"
#include "port.h"
#include "upstream/vocabulary.h"

#define DEPTH 1024U             /* calls under way on one connection */
#define OUT_MAX (1024U * 1024U) /* bytes not yet written, of one connection; beyond that nothing is added */
#define READS_BEFORE_EXPIRY 16U
#define OUT_KEEP (64U * 1024U)
#define LIST_MAX (4U * 1024U * 1024U) /* of the server's list of commands; Redis 7.0's has 0.2 MiB */

static const char question[] = "*1\r\n$7\r\nCOMMAND\r\n";

static struct pipelines *of(struct database *db) { return &db->pipelines; }
struct pipe *pipe_of_dirty(struct list *link) {
        return container_of(link, struct pipe, dirty);
}

/* ---- birth and end ------------------------------------------------------------------------------------------------ */

static void on_timer(evutil_socket_t fd, short what, void *userdata);
static void on_readable(evutil_socket_t fd, short what, void *userdata);
static void on_writable(evutil_socket_t fd, short what, void *userdata);

void pipelines_init(struct database *db, struct lanes *lanes) {
        struct pipelines *p = of(db);
        p->lanes = lanes;
        p->timer_at = TIME_NEVER;
        batch_lane_init(&p->self, NULL);
        if (lanes)
                evtimer_assign(&p->timer, db->o.loop->base, on_timer, db);
        for (unsigned i = 0; i < PIPELINES_MAX; i++) {
                p->pipes[i] = (struct pipe){.database = db, .index = i};
                list_init(&p->pipes[i].dirty);
        }
}

static int make_ready(struct database *db) {
        struct pipelines *p = of(db);
        struct batch_limits limits = {.connections = PIPELINES_MAX,
                                      .depth = DEPTH,
                                      .lane_depth = p->lanes->geometry.entries,
                                      .reply_ns = db->o.config->socket_timeout_ns};
        if (batch_init(&p->batch, &limits) < 0)
                return -ENOMEM;
        for (unsigned i = 0; i < PIPELINES_MAX; i++)
                apart_init(&p->pipes[i].reply, p->lanes->budget);
        p->ready = true;
        return 0;
}

void pipelines_deinit(struct database *db) {
        struct pipelines *p = of(db);
        if (!p->lanes)
                return;
        event_del(&p->timer);
        if (!p->ready)
                return;
        for (unsigned i = 0; i < PIPELINES_MAX; i++) {
                struct pipe *pipe = &p->pipes[i];
                if (pipe->connection) {
                        event_del(&pipe->readable);
                        event_del(&pipe->writable);
                }
                list_remove(&pipe->dirty);
                apart_deinit(&pipe->reply);
                free(pipe->out);
        }
        lane_classes_free(p->classes);
        batch_deinit(&p->batch);
        p->ready = false;
}

/* ---- completing --------------------------------------------------------------------------------------------------- */

static struct port *port_of(const struct batch_owner *owner) {
        const struct share *share = owner->lane->owner;
        return share->port;
}

static bool is_callers(const struct database *db, const struct batch_owner *owner) {
        return owner->lane && owner->lane != &db->pipelines.self;
}

static void fail(struct database *db, const struct batch_owner *owner, int outcome, const char *text) {
        if (is_callers(db, owner))
                port_complete(port_of(owner), &(struct lane_answer){.tag = owner->tag,
                                                                    .outcome = outcome,
                                                                    .flags = LANE_MAY_HAVE_RUN,
                                                                    .data = text,
                                                                    .length = strlen(text)});
}

void pipelines_forget(struct database *db, struct share *share) {
        if (of(db)->ready)
                batch_forget(&of(db)->batch, &share->lane);
}

/* ---- which commands ----------------------------------------------------------------------------------------------- */

const char *pipelines_unfit(struct database *db, const char *data, size_t length, bool *ret_malformed) {
        struct resp_request r;
        *ret_malformed = !resp_request_read(data, length, &r);
        if (*ret_malformed)
                return NULL;
        enum lane_class c = lane_class_of(of(db)->classes, r.name, r.name_len, r.sub, r.sub_len);
        if (c == LANE_CLASS_SAFE)
                return NULL;
        of(db)->counters.refused++;
        return lane_class_reason(c);
}

static void take_list(struct database *db, const char *data, size_t size) {
        struct pipelines *p = of(db);
        struct lane_classes *classes = NULL;
        redisReader *reader = redisReaderCreate();
        void *reply = NULL;
        if (reader && redisReaderFeed(reader, data, size) == REDIS_OK &&
            redisReaderGetReply(reader, &reply) == REDIS_OK && reply && lane_classes_new(reply, &classes) == 0) {
                lane_classes_free(p->classes);
                p->classes = classes;
                learn_from(db, reply);
        } else {
                log_info("lane: the server's list of commands cannot be had, those not in ours take leases db=%s",
                         name_of(db));
        }
        if (reply)
                freeReplyObject(reply);
        if (reader)
                redisReaderFree(reader);
}

/* ---- writing ------------------------------------------------------------------------------------------------------ */

static bool make_room(struct pipe *pipe, size_t size) {
        size_t room = pipe->room ? pipe->room : 4096;
        if (pipe->begin > 0) {
                memmove(pipe->out, pipe->out + pipe->begin, pipe->end - pipe->begin);
                pipe->end -= pipe->begin;
                pipe->begin = 0;
        }
        while (room < pipe->end + size)
                room *= 2;
        char *grown = realloc(pipe->out, room);
        if (!grown)
                return false;
        pipe->out = grown;
        pipe->room = room;
        return true;
}

static bool append(struct pipe *pipe, const char *data, size_t size) {
        if (size > pipe->room - pipe->end && !make_room(pipe, size))
                return false;
        memcpy(pipe->out + pipe->end, data, size);
        pipe->end += size;
        if (list_empty(&pipe->dirty) && !pipe->blocked)
                list_push_back(&pipe->database->pipelines.lanes->dirty, &pipe->dirty);
        return true;
}

static void end_pipe(struct pipe *pipe, enum pool_lane how, int outcome, const char *text, uint64_t now);

static void flushed(struct pipe *pipe) {
        pipe->begin = pipe->end = 0;
        if (pipe->room > OUT_KEEP) {
                free(ptr_steal(&pipe->out));
                pipe->room = 0;
        }
        if (pipe->blocked)
                event_del(&pipe->writable);
        pipe->blocked = false;
}

void pipeline_flush(struct pipe *pipe) {
        if (!pipe->connection || pipe->begin == pipe->end)
                return;
        ssize_t n = send(pipe->connection->link.fd, pipe->out + pipe->begin, pipe->end - pipe->begin,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0) {
                pipe->database->pipelines.counters.writes++;
                pipe->begin += (size_t)n;
        }
        if (pipe->begin == pipe->end) {
                flushed(pipe);
        } else if ((n >= 0 || errno == EAGAIN || errno == EINTR) && !pipe->blocked) {
                pipe->blocked = true;
                event_add(&pipe->writable, NULL);
        }
        /* Any other error shows when it is read, after what was still answered. */
}

static void on_writable(evutil_socket_t fd, short what, void *userdata) { pipeline_flush(userdata); }

static void set_timer(struct database *db, uint64_t now) {
        struct pipelines *p = of(db);
        uint64_t at = batch_wakeup(&p->batch);
        if (at >= p->timer_at)
                return;
        uint64_t us = (time_left(now, at) + NS_PER_US - 1) / NS_PER_US;
        struct timeval pause = {.tv_sec = (time_t)(us / 1000000), .tv_usec = (suseconds_t)(us % 1000000)};
        p->timer_at = at;
        event_add(&p->timer, &pause);
}

static bool send_on(struct database *db, unsigned index, struct batch_lane *lane, const struct call *call,
                    uint64_t now) {
        struct pipelines *p = of(db);
        if (!append(&p->pipes[index], call->data, call->length))
                return false;
        batch_sent(&p->batch, index, lane, call->tag, time_after(now, p->batch.limits.reply_ns), now);
        set_timer(db, now);
        return true;
}

static unsigned has_open(const struct pipelines *p) {
        unsigned n = 0;
        for (unsigned i = 0; i < PIPELINES_MAX; i++)
                n += p->pipes[i].connection != NULL;
        return n;
}

/* Who asks is not served now, and why. */
static int refusal(const struct database *db, uint64_t now) {
        const struct pool *pool = &db->pool;
        if (pool->retired)
                return pool->retired;
        if (pool->breaker.state != BREAKER_CLOSED)
                return LESSOR_E_BREAKER_OPEN;
        return pool->refusal && now < pool->next_dial && !has_open(&db->pipelines) ? pool->refusal : 0;
}

void pipelines_trouble(struct database *db, int outcome, char *text, size_t size) {
        of(db)->counters.unsent++;
        if (outcome == LESSOR_E_NEEDS_LEASE)
                snprintf(text, size, "database `%s` has a single connection, and none for lanes", name_of(db));
        else if (db->pool.hold)
                snprintf(text, size, "database `%s` is %s; the command was not sent", name_of(db), db->manual.held);
        else if (outcome == LESSOR_E_TIMEOUT || outcome == LESSOR_E_EXHAUSTED)
                snprintf(text, size, "database `%s`: the command could not be sent in time: %s", name_of(db),
                         db->pool.hold              ? db->manual.held
                         : db->pool.trouble         ? db->last_error
                         : has_open(&db->pipelines) ? "the lane connections have all they can carry under way"
                                                    : "no connection for lanes yet, all are in use");
        else
                dialling_trouble(db, outcome, text, size);
}

/* As many as are wanted, within the cap and what a reload has made of it. */
static void want(struct database *db, unsigned n, uint64_t now) {
        unsigned most = db->pool.limits.max_connections / 2;
        most = most > PIPELINES_MAX ? PIPELINES_MAX : most;
        n = n < most ? n : most;
        if (n == db->pool.lanes)
                return;
        pool_want_lanes(&db->pool, n);
        database_pump(db, now);
}

enum offer pipelines_offer(struct database *db, struct share *share, const struct call *call, uint64_t now,
                           int *ret_outcome) {
        struct pipelines *p = of(db);
        unsigned index;
        if ((*ret_outcome = refusal(db, now)))
                return OFFER_REFUSED;
        if (db->pool.limits.max_connections < 2) {
                *ret_outcome = LESSOR_E_NEEDS_LEASE;
                return OFFER_REFUSED;
        }
        if (db->pool.hold)
                return OFFER_LATER; /* by an operator's order: who can wait does */
        if (!p->ready && make_ready(db) < 0) {
                *ret_outcome = LESSOR_E_LIMIT;
                return OFFER_REFUSED;
        }
        p->last_call = now;
        if (db->pool.lanes == 0)
                want(db, 1, now);
        index = batch_choose(&p->batch, &share->lane);
        if (index == BATCH_NONE || p->pipes[index].end - p->pipes[index].begin > OUT_MAX) {
                if (has_open(p) == db->pool.lanes) /* all that are wanted are there, and full */
                        want(db, db->pool.lanes + 1, now);
                return OFFER_LATER;
        }
        if (!send_on(db, index, &share->lane, call, now)) {
                *ret_outcome = LESSOR_E_LIMIT;
                return OFFER_REFUSED;
        }
        p->counters.calls++;
        advice_call(&db->advice, &share->advice);
        return OFFER_SENT;
}

void pipelines_note_queued(struct database *db, uint64_t waited_ns) { histogram_add(&of(db)->queue_time, waited_ns); }
void pipelines_note_ring(struct database *db) { of(db)->counters.rings++; }

/* ---- up and down -------------------------------------------------------------------------------------------------- */

/* Asks the server what its commands do, once for each server, before anything else goes there. */
static void ask(struct database *db, struct pipe *pipe, uint64_t now) {
        struct pipelines *p = of(db);
        struct call call = {.data = question, .length = sizeof(question) - 1};
        if (p->classes_epoch == db->pool.epoch + 1)
                return;
        if (send_on(db, pipe->index, &p->self, &call, now))
                p->classes_epoch = db->pool.epoch + 1;
}

void pipeline_up(struct database *db, struct connection *c, uint64_t now) {
        struct pipelines *p = of(db);
        struct pipe *pipe = p->pipes;
        while (pipe->connection)
                pipe++; /* the pool never gives more than are wanted */
        if (link_peek(&c->link) != LINK_QUIET) {
                pool_lane_done(&db->pool, c->conn, POOL_LANE_LOST, now, arc4random());
                return;
        }
        pipe->connection = c;
        c->pipe = pipe;
        scan_init(&pipe->scan, false);
        pipe->begin = pipe->end = 0;
        pipe->blocked = false;
        event_assign(&pipe->readable, db->o.loop->base, c->link.fd, EV_READ | EV_PERSIST, on_readable, pipe);
        event_assign(&pipe->writable, db->o.loop->base, c->link.fd, EV_WRITE | EV_PERSIST, on_writable, pipe);
        event_add(&pipe->readable, NULL);
        batch_up(&p->batch, pipe->index);
        ask(db, pipe, now);
        log_debug("lane: a connection is up db=%s slot=%u", name_of(db), c->conn->slot);
}

static void end_pipe(struct pipe *pipe, enum pool_lane how, int outcome, const char *text, uint64_t now) {
        struct database *db = pipe->database;
        struct connection *c = pipe->connection;
        struct batch_owner owner;
        bool asked = db->pipelines.self.under_way > 0 && db->pipelines.self.connection == pipe->index;
        event_del(&pipe->readable);
        event_del(&pipe->writable);
        list_remove(&pipe->dirty);
        apart_clear(&pipe->reply);
        flushed(pipe);
        pipe->connection = NULL;
        c->pipe = NULL;
        while (batch_down(&of(db)->batch, pipe->index, &owner))
                fail(db, &owner, outcome, text);
        if (asked)
                of(db)->classes_epoch = 0; /* it was not answered */
        if (how != POOL_LANE_FREE)
                database_note_error(db, text);
        pool_lane_done(&db->pool, c->conn, how, now, arc4random());
}

void pipeline_drain(struct database *db, struct connection *c, uint64_t now) {
        struct pipe *pipe = c->pipe;
        batch_drain(&of(db)->batch, pipe->index);
        if (batch_under_way(&of(db)->batch, pipe->index) == 0)
                end_pipe(pipe, POOL_LANE_FREE, LESSOR_OK, NULL, now);
}

static void lose(struct pipe *pipe, enum pool_lane how, int outcome, const char *what, uint64_t now) {
        struct database *db = pipe->database;
        char text[LESSOR_STATUS_TEXT_SIZE + 128];
        snprintf(text, sizeof(text), "%s: %s", db->endpoint, what);
        log_info("lane: a connection is lost db=%s slot=%u under_way=%u why=%s", name_of(db),
                 pipe->connection->conn->slot, batch_under_way(&of(db)->batch, pipe->index), LOG_QUOTE(text));
        end_pipe(pipe, how, outcome, text, now);
        database_pump(db, now);
}

void pipelines_sweep(struct database *db, uint64_t now) {
        struct pipelines *p = of(db);
        uint64_t idle = db->pool.upkeep.limits.idle_ns;
        if (!p->ready || !db->pool.lanes)
                return;
        p->batch.limits.reply_ns = db->o.config->socket_timeout_ns; /* a reload may have changed it */
        /* What an event loop submits while few are active keeps its connection for a moment, no longer than others. */
        if (db->advice.path == LESSOR_PATH_DIRECT && (!idle || idle > NS_PER_S))
                idle = NS_PER_S;
        if (idle && p->last_call < now && now - p->last_call > idle)
                want(db, 0, now);
}

/* ---- reading ------------------------------------------------------------------------------------------------------ */

/* What an error reply tells of the server, seen with our own eyes. */
static void note_error(struct database *db, const char *data, size_t size) {
        static const struct {
                const char *prefix;
                enum lessor_report kind;
        } errors[] = {{"-READONLY", LESSOR_REPORT_READONLY},
                      {"-MOVED", LESSOR_REPORT_MOVED},
                      {"-LOADING", LESSOR_REPORT_LOADING}};
        for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
                if (size > strlen(errors[i].prefix) && memcmp(data, errors[i].prefix, strlen(errors[i].prefix)) == 0)
                        upkeep_report(db, errors[i].kind);
}

static void hand_over_apart(struct pipe *pipe, const struct batch_owner *owner) {
        uint64_t size = 0, reserved = 0;
        bool dropped = pipe->reply.dropped;
        int fd = dropped ? -1 : apart_seal(&pipe->reply, &size, &reserved);
        if (fd >= 0) {
                pipe->database->pipelines.counters.apart++;
                port_complete_apart(port_of(owner), owner->tag, fd, size, reserved);
        } else {
                fail(pipe->database, owner, LESSOR_E_LIMIT,
                     "the reply is too large for the lane, and reply_budget is used up by others: take a lease for it");
        }
}

/* One whole reply: in `data`, or apart. */
static void answered(struct pipe *pipe, const char *data, size_t size, uint64_t now) {
        struct database *db = pipe->database;
        struct batch_owner owner;
        if (!batch_reply(&of(db)->batch, pipe->index, now, &owner))
                return; /* checked before */
        if (!owner.lane) {
                of(db)->counters.discarded++;
        } else if (!is_callers(db, &owner)) {
                if (data)
                        take_list(db, data, size);
        } else {
                histogram_add(&of(db)->round_trip, now - owner.sent);
                if (!data)
                        hand_over_apart(pipe, &owner);
                else
                        port_complete(port_of(&owner),
                                      &(struct lane_answer){.tag = owner.tag, .data = data, .length = size});
                if (data && data[0] == '-')
                        note_error(db, data, size);
        }
        apart_clear(&pipe->reply);
}

/* How large a reply may be before it is kept apart. Our own list is not for a lane. */
static size_t small(const struct pipe *pipe) {
        const struct pipelines *p = &pipe->database->pipelines;
        const struct batch_lane *next = batch_next(&p->batch, pipe->index);
        return next == &p->self ? LIST_MAX : p->lanes->geometry.replies_size;
}

/* False: the pipe has ended. */
static bool feed(struct pipe *pipe, const char *data, size_t size, uint64_t now) {
        while (size > 0) {
                bool whole = !scan_is_inside(&pipe->scan), ended;
                size_t used;
                enum scan_result r = scan_feed(&pipe->scan, data, size, &used);
                if (r == SCAN_BAD || !batch_under_way(&of(pipe->database)->batch, pipe->index)) {
                        lose(pipe, POOL_LANE_LOST, LESSOR_E_PROTOCOL,
                             r == SCAN_BAD ? "what the server sent is not RESP" : "a reply that nobody asked for", now);
                        return false;
                }
                ended = r == SCAN_REPLY;
                if (ended && whole && used <= small(pipe)) {
                        answered(pipe, data, used, now);
                } else {
                        apart_add(&pipe->reply, data, used, small(pipe), scan_expects(&pipe->scan));
                        if (ended && (pipe->reply.fd >= 0 || pipe->reply.dropped))
                                answered(pipe, NULL, 0, now);
                        else if (ended)
                                answered(pipe, pipe->reply.data, (size_t)pipe->reply.size, now);
                }
                if (!pipe->connection) /* what an error reply told has ended it */
                        return false;
                data += used;
                size -= used;
        }
        return true;
}

static void rest_if_done(struct pipe *pipe, uint64_t now) {
        struct database *db = pipe->database;
        if (!of(db)->batch.connections[pipe->index].draining || batch_under_way(&of(db)->batch, pipe->index))
                return;
        end_pipe(pipe, POOL_LANE_FREE, LESSOR_OK, NULL, now);
        database_pump(db, now);
}

/* False: the pipe has ended, or there is nothing. */
static bool read_once(struct pipe *pipe, uint64_t now) {
        struct database *db = pipe->database;
        char *buffer = of(db)->lanes->replies;
        ssize_t n = recv(pipe->connection->link.fd, buffer, LANES_READ_SIZE, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return false;
        if (n <= 0) {
                lose(pipe, POOL_LANE_LOST, LESSOR_E_CONNECTION,
                     n == 0 ? "the server closed the connection" : strerror(errno), now);
                return false;
        }
        if (db->pool.breaker.failures > 0)
                breaker_succeed(&db->pool.breaker, db->pool.breaker.epoch);
        return feed(pipe, buffer, (size_t)n, now);
}

static void on_readable(evutil_socket_t fd, short what, void *userdata) {
        struct pipe *pipe = userdata;
        uint64_t now = clock_now();
        of(pipe->database)->lanes->now = now;
        if (read_once(pipe, now))
                rest_if_done(pipe, now);
}

void pipeline_lost(struct database *db, struct connection *c, uint64_t now) {
        struct pipe *pipe = c->pipe;
        /* What was answered before the end is read first: at most what a socket holds. */
        while (c->pipe == pipe && read_once(pipe, now))
                ;
        if (c->pipe == pipe && pipe)
                lose(pipe, POOL_LANE_LOST, LESSOR_E_CONNECTION, "the server closed the connection", now);
}

/* ---- time --------------------------------------------------------------------------------------------------------- */

static void on_timer(evutil_socket_t fd, short what, void *userdata) {
        struct database *db = userdata;
        struct pipelines *p = of(db);
        struct batch_owner owner;
        uint64_t now = clock_now();
        unsigned index;
        p->timer_at = TIME_NEVER;
        p->lanes->now = now;
        /* Replies that are here already, after a time in which nobody ran, came in time. */
        for (unsigned i = 0; i < PIPELINES_MAX; i++)
                for (unsigned n = 0; n < READS_BEFORE_EXPIRY && p->pipes[i].connection; n++)
                        if (!read_once(&p->pipes[i], now))
                                break;
        while (batch_expire(&p->batch, now, &owner)) {
                p->counters.timeouts++;
                fail(db, &owner, LESSOR_E_REPLY_TIMEOUT, "no reply within socket_timeout");
        }
        if ((index = batch_stalled(&p->batch, now)) != BATCH_NONE)
                lose(&p->pipes[index], POOL_LANE_STALLED, LESSOR_E_REPLY_TIMEOUT, "no reply within socket_timeout",
                     now);
        set_timer(db, now);
}

/* ---- for the figures ---------------------------------------------------------------------------------------------- */

void pipelines_survey(struct database *db) {
        struct pipelines *p = of(db);
        memset(&p->in_flight, 0, sizeof(p->in_flight));
        if (p->ready)
                batch_survey(&p->batch);
}

bool pipelines_show(struct database *db, const struct share *share, struct lessor_status_lane *entry) {
        struct pipelines *p = of(db);
        const struct connection *c;
        entry->database = db->o.index;
        entry->slot = LESSOR_STATUS_NO_SLOT;
        entry->sent = share->lane.under_way;
        if (entry->sent + entry->queued == 0)
                return false;
        if (entry->sent > 0 && share->lane.oldest < entry->since_ns)
                entry->since_ns = share->lane.oldest;
        if (entry->sent > 0 && (c = p->pipes[share->lane.connection].connection))
                entry->slot = c->conn->slot;
        if (!p->in_flight.sessions++ || entry->since_ns < p->in_flight.since)
                p->in_flight.since = entry->since_ns;
        p->in_flight.calls += entry->sent + entry->queued;
        return true;
}

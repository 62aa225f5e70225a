/* SPDX-License-Identifier: MIT */
/*
 * A call waits in its database's list until all before it are under way. Then it goes by lane, where the broker advises that and it
 * may; else by lease (async_conn.c). Never both at once, so that what was submitted first is sent first. What comes back, and
 * surely was not sent, takes its old place in the list again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "async_core.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/command.h"
#include "base/resp.h"
#include "command.h"
#include "error.h"
#include "pipe.h"

/* ---- a call's end --------------------------------------------------------------------------------------------------- */

static void parts_free(struct async_call *c) {
        for (size_t i = 0; c->parts && i < c->x.requests; i++)
                lane_call_deinit(&c->parts[i].call.call);
        if (c->parts != &c->one)
                free(c->parts);
        c->parts = NULL;
}

void call_dispose(struct async_call *c) {
        list_remove(&c->link);
        list_remove(&c->ended);
        parts_free(c);
        for (size_t i = 0; i < c->x.expected; i++)
                if (c->x.replies[i])
                        freeReplyObject(c->x.replies[i]);
        if (c->is_pipe) {
                free((void *)(uintptr_t)c->x.ends); /* with what is sent */
                free(c->x.replies);
        } else {
                redisFreeCommand((void *)(uintptr_t)c->x.out);
        }
        free(c->text);
        free(c);
}

/* It stays where it is linked otherwise. */
static void call_end(struct async_call *c, const lessor_error *error) {
        lessor_async *a = c->db->async;

        c->way = ASYNC_FINISHED;
        if (error) {
                c->code = error->code;
                c->retry_ms = error->retry_ms;
                c->may_have_run = error->may_have_run || c->x.got > 0; /* the first of a pipe did */
                c->text = strdup(error->text);
        }
        list_push_back(&a->finished, &c->ended);
        if (!a->turning) /* else it looks there before its end */
                inbox_poke(&a->inbox);
}

void call_finish(struct async_call *c, const lessor_error *error) {
        list_remove(&c->link);
        call_end(c, error);
}

void call_again(struct async_call *c) {
        struct list *behind = &c->db->pending;

        list_remove(&c->link);
        c->way = ASYNC_PENDING;
        c->x.written = c->x.whole = c->x.got = 0;
        list_for_each (&c->db->pending, it) {
                if (container_of(it, struct async_call, link)->number < c->number)
                        continue;
                behind = it;
                break;
        }
        list_insert_between(behind->prev, behind, &c->link);
        async_look_at(c->db->async, c->deadline);
        inbox_poke(&c->db->async->inbox);
}

static void call_error(const struct async_call *c, lessor_error *ret) {
        error_clear(ret);
        if (c->code == 0)
                return;
        error_set(ret, c->code, "%s", c->text ? c->text : lessor_outcome_text(c->code));
        ret->may_have_run = c->may_have_run;
        ret->retry_ms = c->retry_ms;
}

static void call_back_pipe(struct async_call *c, lessor_error *error) {
        size_t n = c->x.requests;

        if (c->code == 0 && n > 0 && pipe_unfold(c->flags, c->x.replies, &n, error) == 0)
                c->x.expected = n; /* what is left of the others is gone */
        if (!c->fn.pipe)
                return;
        if (error->code == 0)
                c->fn.pipe(c->db, c->x.replies, n, error, c->data);
        else
                c->fn.pipe(c->db, NULL, 0, error, c->data);
}

static void call_back(struct async_call *c) {
        lessor_error error;

        call_error(c, &error);
        if (c->is_pipe)
                call_back_pipe(c, &error);
        else if (c->fn.command)
                c->fn.command(c->db, c->code == 0 ? c->reply : NULL, &error, c->data);
}

void calls_deliver(lessor_async *a, unsigned *budget) {
        while (*budget > 0 && !list_empty(&a->finished)) {
                struct async_call *c = container_of(list_first(&a->finished), struct async_call, ended);
                list_remove(&c->ended);
                a->in_flight--;
                a->bytes -= c->x.size;
                (*budget)--;
                call_back(c);
                if (c->let_go && !list_empty(&c->link))
                        c->told = true;
                else
                        call_dispose(c);
        }
}

/* ---- by lane -------------------------------------------------------------------------------------------------------- */

static struct inbox_call *call_part(void *call, size_t i) { return &((struct async_call *)call)->parts[i].call; }

static bool parts_make(struct async_call *c, const struct lane_way *way) {
        c->parts = c->x.requests == 1 ? &c->one : malloc(c->x.requests * sizeof(*c->parts));
        if (!c->parts)
                return false;
        for (size_t i = 0; i < c->x.requests; i++) {
                inbox_call_init(&c->parts[i].call);
                c->parts[i].call.way = *way;
                c->parts[i].whole = c;
        }
        return true;
}

static void submitted(struct async_call *c, struct inbox_lane *via, bool ring) {
        lessor_async *a = c->db->async;

        list_remove(&c->link);
        c->way = ASYNC_LANE;
        c->left = (unsigned)c->x.requests;
        c->db->in_lane++;
        a->in_lanes++;
        via->ring = via->ring || ring;
        if (a->turning)
                return;
        calls_ring(a);
        inbox_arm_lane(via);
}

void calls_ring(lessor_async *a) {
        list_for_each (&a->inbox.lanes, it) {
                struct inbox_lane *via = container_of(it, struct inbox_lane, link);
                if (!via->ring)
                        continue;
                via->ring = false;
                lane_ring(via->way.lane);
        }
}

/* True: go on with the next one, or once more with this. */
static bool call_submit(struct async_call *c, const struct lane_way *way) {
        lessor_async *a = c->db->async;
        struct inbox_lane *via = inbox_lane(&a->inbox, way);
        struct inbox_submission x = {.out = c->x.out, .ends = c->x.ends, .n = c->x.requests, .began = c->began};
        enum lane_submit r;
        bool ring;

        if (!via || !parts_make(c, way)) {
                lessor_error e;
                error_set(&e, -ENOMEM, "out of memory");
                call_finish(c, &e);
                return true;
        }
        if (c->wait_ms < 0)
                c->deadline = time_after(c->began, way->control->wait_timeout_ns);
        x.send_by = c->deadline;
        r = inbox_submit(&a->inbox, via, &x, call_part, c, &ring);
        if (r == LANE_SUBMIT_DONE) {
                submitted(c, via, ring);
                return true;
        }
        parts_free(c);
        if (session_over(way->session)) {
                inbox_poke(&a->inbox);
                return false;
        }
        /* What is under way makes room when it is done; of others we would not hear. */
        c->by_lease = r == LANE_SUBMIT_TOO_LARGE || via->calls == 0;
        return c->by_lease;
}

/* Errors of Redis are replies; one failure of ours is the whole call's. */
static void call_judge(struct async_call *c, const struct lane_call *failed, bool may_have_run) {
        const struct lane_way *way = &c->parts[0].call.way;
        lessor_error error;

        for (size_t i = 0; i < c->x.requests; i++) {
                struct inbox_call *part = &c->parts[i].call;
                inbox_count(part, part->call.outcome == 0 && part->call.reply->type != REDIS_REPLY_ERROR);
                c->x.replies[i] = ptr_steal(&part->call.reply);
        }
        if (failed) {
                call_say(way, failed, &error);
                error.may_have_run = may_have_run;
        }
        call_finish(c, failed ? &error : NULL);
        parts_free(c);
}

/* The first n are answered; what the broker does not take of a pipe goes by lease behind them (LANE_LINKED). */
static void call_go_on_by_lease(struct async_call *c, size_t n) {
        for (size_t i = 0; i < n; i++) {
                struct inbox_call *part = &c->parts[i].call;
                inbox_count(part, part->call.reply->type != REDIS_REPLY_ERROR);
                c->x.replies[i] = ptr_steal(&part->call.reply);
        }
        parts_free(c);
        c->by_lease = true;
        call_again(c);
        c->x.written = c->x.ends[n - 1];
        c->x.whole = c->x.got = n;
}

static void call_done(struct async_call *c) {
        const struct lane_call *failed = NULL;
        bool may_have_run = false, unsent = true;
        size_t answered = 0;

        c->db->in_lane--;
        c->db->async->in_lanes--;
        for (size_t i = 0; i < c->x.requests; i++) {
                struct lane_call *part = &c->parts[i].call.call;
                lane_call_unfold(part);
                may_have_run = may_have_run || part->outcome == 0 || part->may_have_run;
                answered += !failed && part->outcome == 0;
                if (part->outcome != 0 && !failed)
                        failed = part;
                unsent = unsent && (!failed || call_is_unsent(part));
        }
        if (!failed || !unsent || (answered > 0 && failed->over)) {
                call_judge(c, failed, may_have_run);
        } else if (answered > 0) {
                call_go_on_by_lease(c, answered);
        } else {
                c->by_lease = c->by_lease || !failed->over;
                parts_free(c);
                call_again(c);
        }
}

void calls_take(lessor_async *a) {
        struct inbox_call *done;

        while ((done = inbox_take(&a->inbox))) {
                struct async_call *c = container_of(done, struct async_part, call)->whole;
                inbox_forget(&a->inbox, done);
                if (--c->left == 0)
                        call_done(c);
        }
}

/* ---- which way ------------------------------------------------------------------------------------------------------ */

/* True: it has gone, or ended; the next one. */
static bool call_start(struct async_call *c) {
        lessor_async_db *db = c->db;
        struct session *s = async_session(db->async);
        struct lane_way way;
        lessor_error error;
        int r = LESSOR_E_NEEDS_LEASE;

        if (!s && db->async->hopeless) {
                call_finish(c, &db->async->trouble);
                return true;
        }
        if (!s) {
                if (!db->async->turning)
                        inbox_poke(&db->async->inbox);
                return db->in_lane == 0 && conn_feed(db, c, true);
        }
        if (!c->by_lease)
                r = call_find_way_now(db->db, s, &way, &error);
        if (r == -EINPROGRESS)
                return false;
        if (r == LESSOR_E_NEEDS_LEASE)
                return db->in_lane == 0 && conn_feed(db, c, false);
        if (r == 0)
                return list_empty(&db->conn.flight) && call_submit(c, &way);
        if (session_over(s)) {
                inbox_poke(&db->async->inbox);
                return false;
        }
        call_finish(c, &error);
        return true;
}

void db_pump(lessor_async_db *db) {
        while (!list_empty(&db->pending) && call_start(container_of(list_first(&db->pending), struct async_call, link)))
                ;
        if (!db->async->turning) /* else once, at its end */
                conn_write(db);
}

/* ---- too late, taken back ------------------------------------------------------------------------------------------- */

static void call_too_late(struct async_call *c) {
        lessor_async *a = c->db->async;
        lessor_error e;

        if (!a->session && a->trouble.code != 0)
                e = a->trouble;
        else if (!a->session)
                error_set(&e, LESSOR_E_UNAVAILABLE, "the broker on %s does not answer; the command was not sent",
                          a->client->socket);
        else
                error_set(&e, LESSOR_E_TIMEOUT,
                          "database `%s`: the command could not be sent in time: those before it were not done",
                          c->db->db->name);
        call_finish(c, &e);
}

uint64_t call_deadline(struct async_call *c) {
        if (c->wait_ms < 0)
                c->deadline = async_deadline(c->db, c->began, c->wait_ms);
        return c->deadline;
}

void calls_expire(lessor_async *a, uint64_t now) {
        list_for_each (&a->dbs, at) {
                lessor_async_db *db = container_of(at, lessor_async_db, link);
                list_for_each_safe (&db->pending, it, next) {
                        struct async_call *c = container_of(it, struct async_call, link);
                        uint64_t deadline = call_deadline(c);
                        if (!a->session && a->trouble.code == 0) /* the first attach may take its time */
                                deadline = time_after(deadline, SLACK_NS);
                        if (deadline <= now)
                                call_too_late(c);
                        else
                                async_look_at(a, deadline);
                }
        }
}

static bool pending_cancel(struct async_call *c) {
        lessor_error e;

        error_set(&e, LESSOR_E_CANCELLED, "the command was taken back; it was not sent");
        call_finish(c, &e);
        return true;
}

unsigned calls_cancel(lessor_async *a, const void *data, bool all) {
        struct async_call *last = NULL;
        unsigned n = 0;

        list_for_each (&a->inbox.calls, it) {
                struct inbox_call *part = container_of(it, struct inbox_call, link);
                struct async_call *c = container_of(part, struct async_part, call)->whole;
                if (!(all || c->data == data) || !inbox_cancel(part))
                        continue;
                n += c != last;
                last = c;
        }
        list_for_each (&a->dbs, at) {
                lessor_async_db *db = container_of(at, lessor_async_db, link);
                list_for_each_safe (&db->conn.flight, it, next) {
                        struct async_call *c = container_of(it, struct async_call, link);
                        if (!(all || c->data == data) || c->let_go)
                                continue;
                        conn_let_go(c);
                        n++;
                }
                list_for_each_safe (&db->pending, it, next) {
                        struct async_call *c = container_of(it, struct async_call, link);
                        n += (all || c->data == data) && pending_cancel(c);
                }
        }
        return n;
}

void calls_free(lessor_async *a) {
        list_for_each_safe (&a->inbox.calls, it, next) {
                struct inbox_call *part = container_of(it, struct inbox_call, link);
                struct async_call *c = container_of(part, struct async_part, call)->whole;
                list_remove(it);
                if (--c->left == 0)
                        list_push_back(&a->finished, &c->ended);
        }
        list_for_each_safe (&a->finished, it, next)
                call_dispose(container_of(it, struct async_call, ended));
        list_for_each (&a->dbs, at) {
                lessor_async_db *db = container_of(at, lessor_async_db, link);
                list_for_each_safe (&db->conn.flight, it, next)
                        call_dispose(container_of(it, struct async_call, link));
                list_for_each_safe (&db->pending, it, next)
                        call_dispose(container_of(it, struct async_call, link));
        }
}

/* ---- submitting ----------------------------------------------------------------------------------------------------- */

static struct async_call *call_new(lessor_async_db *db, int wait_ms, void *data) {
        struct async_call *c = calloc(1, sizeof(*c));

        if (!c)
                return NULL;
        list_init(&c->link);
        list_init(&c->ended);
        c->db = db;
        c->wait_ms = wait_ms;
        c->data = data;
        return c;
}

/* Which way it would like to go. */
static void call_classify(struct async_call *c) {
        const char *name;
        size_t len;

        c->by_lease = !call_goes_by_lane(&c->x);
        c->blocks = c->by_lease && !c->is_pipe && resp_command_name(c->x.out, c->x.size, &name, &len) &&
                    command_blocks(name, len);
}

static int call_begin(struct async_call *c) {
        lessor_async_db *db = c->db;
        lessor_async *a = db->async;

        c->began = clock_now();
        c->deadline = async_deadline(db, c->began, c->wait_ms);
        c->number = ++a->last_number;
        a->in_flight++;
        a->bytes += c->x.size;
        list_push_back(&db->pending, &c->link);
        async_look_at(a, c->deadline);
        if (list_first(&db->pending) == &c->link)
                db_pump(db);
        async_changed(a);
        return 0;
}

/* Takes the command. */
static int command_begin(lessor_async_db *db, int wait_ms, lessor_async_fn *fn, void *data, struct command *command) {
        struct async_call *c = call_new(db, wait_ms, data);

        if (!c) {
                command_deinit(command);
                return -ENOMEM;
        }
        c->fn.command = fn;
        c->end = command->size;
        c->x = (struct exchange){.out = ptr_steal(&command->data),
                                 .size = command->size,
                                 .ends = &c->end,
                                 .requests = 1,
                                 .replies = &c->reply,
                                 .expected = 1};
        call_classify(c);
        return call_begin(c);
}

int lessor_async_command(lessor_async_db *db, lessor_async_fn *fn, void *data, const char *fmt, ...) {
        NO_CANCEL;
        struct command command;
        va_list args;
        int r = async_check(db, LESSOR_WAIT_CONFIGURED, 0);

        if (r != 0)
                return r;
        va_start(args, fmt);
        r = command_vformat(&command, "lessor_async_command", NULL, fmt, args);
        va_end(args);
        if (r != 0)
                return r;
        r = async_check(db, LESSOR_WAIT_CONFIGURED, command.size);
        if (r == 0)
                return command_begin(db, LESSOR_WAIT_CONFIGURED, fn, data, &command);
        command_deinit(&command);
        return r;
}

int lessor_async_command_argv(lessor_async_db *db, int wait_ms, lessor_async_fn *fn, void *data, int argc,
                              const char **argv, const size_t *argv_len) {
        NO_CANCEL;
        struct command command;
        int r = async_check(db, wait_ms, 0);

        if (r == 0)
                r = command_format_argv(&command, "lessor_async_command_argv", NULL, argc, argv, argv_len);
        if (r != 0)
                return r;
        r = async_check(db, wait_ms, command.size);
        if (r == 0)
                return command_begin(db, wait_ms, fn, data, &command);
        command_deinit(&command);
        return r;
}

/* ---- pipelines ------------------------------------------------------------------------------------------------------ */

lessor_pipe *lessor_async_pipe_new(lessor_async_db *db, unsigned flags) {
        return db ? lessor_pipe_new(db->db, flags) : NULL;
}

/* A copy: the pipe keeps its room. Ends first, then the bytes. */
static bool pipe_copy(struct async_call *c, const lessor_pipe *p) {
        size_t *ends = malloc(p->n * sizeof(*ends) + p->size + 1);
        redisReply **replies = calloc(p->n + 1, sizeof(redisReply *));

        if (!ends || !replies) {
                free(ends);
                free(replies);
                return false;
        }
        memcpy(ends, p->ends, p->n * sizeof(*ends));
        memcpy(ends + p->n, p->data, p->size);
        c->x = (struct exchange){.out = (char *)(ends + p->n),
                                 .size = p->size,
                                 .ends = ends,
                                 .requests = p->n,
                                 .replies = replies,
                                 .expected = p->n};
        return true;
}

static int pipe_begin(lessor_async_db *db, lessor_pipe *p, int wait_ms, lessor_async_pipe_fn *fn, void *data) {
        struct async_call *c = call_new(db, wait_ms, data);

        if (!c || (!pipe_is_empty(p) && !pipe_copy(c, p))) {
                free(c);
                return -ENOMEM;
        }
        c->is_pipe = true;
        c->flags = p->flags;
        c->fn.pipe = fn;
        pipe_clear(p);
        if (c->x.requests > 0) {
                call_classify(c);
                return call_begin(c);
        }
        db->async->in_flight++;
        call_end(c, NULL);
        async_changed(db->async);
        return 0;
}

int lessor_async_pipeline(lessor_async_db *db, lessor_pipe *p, int wait_ms, lessor_async_pipe_fn *fn, void *data) {
        NO_CANCEL;
        int r = async_check(db, wait_ms, p ? p->size : 0);
        size_t n;

        if (r != 0)
                return r;
        if (!p || p->db != db->db)
                return LESSOR_E_INVALID;
        n = p->n;
        if (pipe_is_empty(p))
                return pipe_begin(db, p, wait_ms, fn, data);
        r = pipe_close(p);
        if (r == 0)
                r = pipe_begin(db, p, wait_ms, fn, data);
        if (r != 0 && p->n > n) { /* as it was, without EXEC */
                p->n = n;
                p->size = p->ends[n - 1];
        }
        return r;
}

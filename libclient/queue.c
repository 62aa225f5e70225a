/* SPDX-License-Identifier: MIT */
/*
 * A queue is an inbox (inbox.h) whose owner may also sleep: in lessor_reap(), as any other thread in a lane; or at its fd.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include <lessor/queue.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/command.h"
#include "base/resp.h"
#include "command.h"
#include "error.h"
#include "inbox.h"
#include "io.h"
#include "warm.h"

struct lessor_queue {
        lessor *client;
        uint32_t epoch;
        struct inbox inbox;
        struct list spare;  /* struct queue_call, for the next ones */
        unsigned in_flight; /* submitted and not reaped */
};

struct queue_call {
        struct inbox_call call;
        void *userdata;
};

static struct queue_call *queue_call_of(struct inbox_call *c) { return container_of(c, struct queue_call, call); }

/* ---- the queue ------------------------------------------------------------------------------------------------------ */

int lessor_queue_new(lessor *client, lessor_queue **ret) {
        NO_CANCEL;
        lessor_queue *q;
        int r;

        if (!client || !ret)
                return -EINVAL;
        q = calloc(1, sizeof(*q));
        if (!q)
                return -ENOMEM;
        q->client = client;
        q->epoch = fork_epoch();
        list_init(&q->spare);
        r = inbox_init(&q->inbox);
        if (r < 0) {
                inbox_deinit(&q->inbox);
                free(q);
        } else {
                *ret = q;
        }
        return r;
}

void lessor_queue_free(lessor_queue *q) {
        NO_CANCEL;

        if (!q)
                return;
        if (q->epoch != fork_epoch()) {
                free(q);
                return;
        }
        list_for_each_safe (&q->inbox.calls, it, next) {
                struct inbox_call *c = container_of(it, struct inbox_call, link);
                inbox_give_up(c);
                lane_call_deinit(&c->call);
                inbox_forget(&q->inbox, c);
                free(queue_call_of(c));
        }
        list_for_each_safe (&q->spare, it, next)
                free(queue_call_of(container_of(it, struct inbox_call, link)));
        inbox_deinit(&q->inbox);
        free(q);
}

static int queue_check(const lessor_queue *q, const char *function, lessor_error *error) {
        if (!q)
                return error_argument(error, function, "queue", "is NULL");
        if (q->epoch != fork_epoch())
                return error_set(error, LESSOR_E_FORKED, "%s: this queue is the parent process': make one here",
                                 function);
        return 0;
}

unsigned lessor_queue_in_flight(const lessor_queue *q) { return q && q->epoch == fork_epoch() ? q->in_flight : 0; }

int lessor_queue_fd(const lessor_queue *q) { return q && q->epoch == fork_epoch() ? guard_fd(q->inbox.epoll) : -1; }

/* ---- submitting ----------------------------------------------------------------------------------------------------- */

static struct queue_call *call_new(lessor_queue *q) {
        struct list *spare = list_first(&q->spare);
        struct queue_call *c;

        if (spare) {
                list_remove(spare);
                return queue_call_of(container_of(spare, struct inbox_call, link));
        }
        c = calloc(1, sizeof(*c));
        if (c)
                inbox_call_init(&c->call);
        return c;
}

static struct inbox_call *call_itself(void *call, size_t i) {
        (void)i;
        return &((struct queue_call *)call)->call;
}

static enum lane_submit call_submit(lessor_queue *q, struct queue_call *c, struct inbox_lane *via, int wait_ms,
                                    const struct command *command) {
        const struct lane_way *way = &c->call.way;
        uint64_t now = clock_now();
        struct inbox_submission x = {
                .out = command->data, .ends = &command->size, .n = 1, .began = now, .ordered = true};
        enum lane_submit r;
        bool ring;

        x.send_by = time_after(now, wait_ms < 0 ? way->control->wait_timeout_ns : (uint64_t)wait_ms * NS_PER_MS);
        r = inbox_submit(&q->inbox, via, &x, call_itself, c, &ring);
        if (ring)
                lane_ring(way->lane);
        return r;
}

static int submit(lessor_queue *q, const struct lane_way *way, int wait_ms, const struct command *command,
                  void *userdata, lessor_error *error) {
        struct inbox_lane *via = inbox_lane(&q->inbox, way);
        struct queue_call *c = via ? call_new(q) : NULL;
        enum lane_submit r;

        if (!c)
                return error_set(error, -ENOMEM, "lessor_submit: out of memory");
        c->call.way = *way;
        c->userdata = userdata;
        r = call_submit(q, c, via, wait_ms, command);
        if (r != LANE_SUBMIT_DONE) {
                list_push_back(&q->spare, &c->call.link);
                if (r == LANE_SUBMIT_TOO_LARGE)
                        return error_set(error, LESSOR_E_NEEDS_LEASE, "the command is too large for a lane");
                if (session_over(way->session))
                        return error_set(error, LESSOR_E_UNAVAILABLE, "the broker has gone away");
                return error_set(error, LESSOR_E_EXHAUSTED, "too many commands are under way: reap first");
        }
        q->in_flight++;
        return 0;
}

static int submit_check(const lessor_queue *q, const lessor_db *db, int wait_ms, lessor_error *error) {
        int r = queue_check(q, "lessor_submit", error);

        if (r != 0)
                return r;
        if (!db || db->client != q->client)
                return error_argument(error, "lessor_submit", "db", db ? "belongs to another handle" : "is NULL");
        if (wait_ms < LESSOR_WAIT_CONFIGURED)
                return error_argument(error, "lessor_submit", "wait_ms", "is negative");
        if (q->in_flight >= LESSOR_QUEUE_MAX)
                return error_set(error, LESSOR_E_EXHAUSTED, "lessor_submit: %u commands are not reaped yet: reap first",
                                 q->in_flight);
        return 0;
}

static int submit_class(const struct command *command, lessor_error *error) {
        const char *name;
        size_t len;

        if (resp_command_name(command->data, command->size, &name, &len) && command_goes_by_lane(name, len))
                return 0;
        return error_set(error, LESSOR_E_NEEDS_LEASE, "lessor_submit: %.*s cannot go by lane",
                         (int)(len < 32 ? len : 32), name);
}

int lessor_submit(lessor_queue *q, lessor_db *db, int wait_ms, int argc, const char **argv, const size_t *argv_len,
                  void *userdata, lessor_error *error) {
        NO_CANCEL;
        __attribute__((cleanup(command_deinit))) struct command command = {0};
        struct lane_way way;
        int r;

        error_clear(error);
        r = submit_check(q, db, wait_ms, error);
        if (r == 0)
                r = command_format_argv(&command, "lessor_submit", error, argc, argv, argv_len);
        if (r == 0)
                r = submit_class(&command, error);
        if (r == 0)
                r = call_find_way(db, time_after(clock_now(), ATTACH_NS), true, true, &way, error);
        return r == 0 ? submit(q, &way, wait_ms, &command, userdata, error) : r;
}

/* ---- reaping -------------------------------------------------------------------------------------------------------- */

static void result_fill(lessor_queue *q, struct queue_call *c, lessor_result *ret) {
        struct lane_call *call = &c->call.call;

        lane_call_unfold(call);
        inbox_count(&c->call, call->outcome == 0 && call->reply->type != REDIS_REPLY_ERROR);
        error_clear(&ret->error);
        ret->userdata = c->userdata;
        ret->reply = ptr_steal(&call->reply);
        if (call->outcome != 0)
                call_say(&c->call.way, call, &ret->error);
        lane_call_deinit(call);
        inbox_forget(&q->inbox, &c->call);
        q->in_flight--;
        list_push_back(&q->spare, &c->call.link);
}

/* The lane where all of them are; NULL: there are several. */
static struct inbox_lane *only_lane(lessor_queue *q) {
        struct inbox_lane *only = NULL;

        list_for_each (&q->inbox.lanes, it) {
                struct inbox_lane *via = container_of(it, struct inbox_lane, link);
                if (via->calls > 0 && only)
                        return NULL;
                if (via->calls > 0)
                        only = via;
        }
        return only;
}

static void sleep_in_lane(lessor_queue *q, struct inbox_lane *via, uint64_t until) {
        struct lane_client *l = via->way.lane;
        struct lane_waiter w;
        bool any;

        lane_waiter_init(&w, 1);
        lane_enter(l);
        pthread_mutex_lock(&q->inbox.lock);
        any = !list_empty(&q->inbox.done) || q->inbox.apart > 0;
        pthread_mutex_unlock(&q->inbox.lock);
        if (!any && !l->over) {
                via->sleeper = &w;
                if (lane_await(l, &w, until))
                        return;
                via->sleeper = NULL;
        }
        lane_leave(l);
}

static int queue_sleep(lessor_queue *q, uint64_t deadline) {
        uint64_t until = deadline < q->inbox.next_expiry ? deadline : q->inbox.next_expiry;
        struct inbox_lane *via = only_lane(q);
        bool apart;
        int r;

        pthread_mutex_lock(&q->inbox.lock);
        apart = q->inbox.apart > 0;
        pthread_mutex_unlock(&q->inbox.lock);
        if (via && !apart) {
                sleep_in_lane(q, via, until);
                return 0;
        }
        if (inbox_arm(&q->inbox))
                return 0;
        r = io_poll(guard_fd(q->inbox.epoll), POLLIN, until);
        return r < 0 ? r : 0;
}

int lessor_reap(lessor_queue *q, int wait_ms, lessor_result *ret) {
        NO_CANCEL;
        uint64_t deadline = TIME_NEVER;
        struct inbox_call *c;
        int r = queue_check(q, "lessor_reap", NULL);

        if (r != 0 || !ret)
                return r != 0 ? r : LESSOR_E_INVALID;
        c = inbox_take(&q->inbox);
        if (!c && wait_ms >= 0)
                deadline = time_after(clock_now(), (uint64_t)wait_ms * NS_PER_MS);
        while (!c) {
                inbox_look(&q->inbox);
                inbox_expire(&q->inbox, clock_now());
                c = inbox_take(&q->inbox);
                if (c)
                        break;
                if (q->in_flight == 0 || time_left(clock_now(), deadline) == 0) {
                        if (!inbox_arm(&q->inbox))
                                return 0;
                } else {
                        r = queue_sleep(q, deadline);
                        if (r < 0)
                                return r;
                }
                c = inbox_take(&q->inbox);
        }
        result_fill(q, queue_call_of(c), ret);
        return 1;
}

int lessor_queue_arm(lessor_queue *q) {
        NO_CANCEL;
        int r = queue_check(q, "lessor_queue_arm", NULL);

        if (r != 0)
                return r;
        inbox_look(&q->inbox);
        inbox_expire(&q->inbox, clock_now());
        return inbox_arm(&q->inbox);
}

unsigned lessor_queue_cancel(lessor_queue *q, const void *userdata) {
        NO_CANCEL;
        unsigned n = 0;

        if (queue_check(q, "lessor_queue_cancel", NULL) != 0)
                return 0;
        list_for_each (&q->inbox.calls, it) {
                struct inbox_call *c = container_of(it, struct inbox_call, link);
                n += queue_call_of(c)->userdata == userdata && inbox_cancel(c);
        }
        return n;
}

/* SPDX-License-Identifier: MIT */
/*
 * A queue is a party to its calls (lane.h): whoever reaps its lanes, its own thread or another one that leads there, puts
 * what is done into its list. Its thread waits in one of two ways: in lessor_reap(), as any other thread in a lane; or at
 * its fd, an epoll of its own in which are
 *
 *      the session's sockets   where LANE_WAKE comes, when the lane says that it waits for a message
 *      an eventfd              written to by other threads that have done, or read, something for an armed queue
 *
 * Who arms, looks once more. LANE_WAKE may be read by any thread: it is passed on to all that are armed.
 *
 * Locks: a lane's before a queue's. The list of lanes, and of calls, are the owning thread's alone.
 */
#include "queue.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <lessor/queue.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/command.h"
#include "call.h"
#include "command.h"
#include "error.h"
#include "io.h"
#include "warm.h"

struct lessor_queue {
        lessor *client;
        uint32_t epoch;
        struct guard *epoll, *event;
        struct list lanes;    /* struct queue_lane */
        struct list calls;    /* struct queue_call, in the order submitted: not reaped yet */
        struct list spare;    /* likewise, for the next ones */
        unsigned in_flight;   /* of `calls` */
        uint64_t next_expiry; /* of what is under way: none before */
        pthread_mutex_t lock; /* protects what follows */
        struct list done;     /* struct queue_call */
        unsigned apart;       /* completed, and their replies still to come by message */
        bool armed, rung;     /* rung: the eventfd was written to */
};

struct queue_lane {
        struct lane_party party;
        struct list link;
        struct list arm; /* in the lane's `armed` */
        lessor_queue *queue;
        struct lane_way way;         /* with a reference to the session */
        bool watched;                /* the session's socket is in the epoll */
        unsigned calls;              /* not reaped yet */
        struct lane_waiter *sleeper; /* the queue's thread, asleep in this lane. Lane lock */
};

struct queue_call {
        struct lane_call call;
        struct list link, done; /* done: in the queue's list, or not linked */
        struct queue_lane *via;
        struct lane_way way; /* for what is said of it */
        void *userdata;
        uint64_t began, ended, take_by, leave_at;
        bool apart; /* counted there */
};

/* ---- told by whoever reaps, lane lock held ------------------------------------------------------------------------- */

/* Queue lock held. */
static void queue_ring(lessor_queue *q) {
        uint64_t one = 1;

        if (!q->armed)
                return;
        q->armed = false;
        q->rung = true;
        while (write(guard_fd(q->event), &one, sizeof(one)) < 0 && errno == EINTR)
                ;
}

static void sleeper_wake(struct queue_lane *via) {
        if (via->sleeper)
                lane_waiter_done(via->way.lane, ptr_steal(&via->sleeper));
}

/* Under a lane's lock, so that whoever goes to sleep there sees it. */
static void queue_put(struct queue_call *c) {
        lessor_queue *q = c->via->queue;

        c->ended = c->via->way.lane->now > c->began ? c->via->way.lane->now : c->began;
        pthread_mutex_lock(&q->lock);
        q->apart -= c->apart;
        c->apart = false;
        list_push_back(&q->done, &c->done);
        queue_ring(q);
        pthread_mutex_unlock(&q->lock);
        sleeper_wake(c->via);
}

static void queue_done(struct lane_call *call) { queue_put(container_of(call, struct queue_call, call)); }

/* Whoever sleeps in the lane goes to the session's socket. */
static void queue_comes_apart(struct lane_call *call) {
        struct queue_call *c = container_of(call, struct queue_call, call);
        lessor_queue *q = c->via->queue;

        pthread_mutex_lock(&q->lock);
        c->apart = true;
        q->apart++;
        pthread_mutex_unlock(&q->lock);
        sleeper_wake(c->via);
}

void queues_told(struct lane_client *l) {
        list_for_each_safe (&l->armed, it, next) {
                lessor_queue *q = container_of(it, struct queue_lane, arm)->queue;
                list_remove(it);
                pthread_mutex_lock(&q->lock);
                queue_ring(q);
                pthread_mutex_unlock(&q->lock);
        }
}

/* ---- a queue's lanes ----------------------------------------------------------------------------------------------- */

static void lane_watch(lessor_queue *q, struct queue_lane *via) {
        struct epoll_event e = {.events = EPOLLIN};
        int fd = via->way.session->fd;
        via->watched = epoll_ctl(guard_fd(q->epoll), EPOLL_CTL_ADD, fd, &e) == 0 || errno == EEXIST;
}

/* A socket that has ended stays readable for ever. */
static void lane_unwatch(lessor_queue *q, struct queue_lane *via) {
        if (via->watched)
                epoll_ctl(guard_fd(q->epoll), EPOLL_CTL_DEL, via->way.session->fd, NULL);
        via->watched = false;
}

/* Lane lock held. */
static void lane_unarm(struct queue_lane *via) {
        struct lane_client *l = via->way.lane;
        bool was_armed = !list_empty(&via->arm);

        list_remove(&via->arm);
        if (was_armed && list_empty(&l->armed) && !l->leader && !l->over)
                lane_awake(&l->worker);
}

static void lane_close(lessor_queue *q, struct queue_lane *via) {
        lane_enter(via->way.lane);
        lane_unarm(via);
        lane_leave(via->way.lane);
        list_remove(&via->link);
        if (session_over(via->way.session))
                lane_unwatch(q, via);
        session_unref(via->way.session);
        free(via);
}

/* Those of sessions that are over. */
static void lanes_tidy(lessor_queue *q) {
        list_for_each_safe (&q->lanes, it, next) {
                struct queue_lane *via = container_of(it, struct queue_lane, link);
                if (!session_over(via->way.session))
                        continue;
                lane_unwatch(q, via);
                if (via->calls == 0)
                        lane_close(q, via);
        }
}

static struct queue_lane *lane_of(lessor_queue *q, const struct lane_way *way) {
        struct queue_lane *via;

        list_for_each (&q->lanes, it) {
                via = container_of(it, struct queue_lane, link);
                if (via->way.lane == way->lane)
                        return via;
        }
        via = calloc(1, sizeof(*via));
        if (!via)
                return NULL;
        via->party = (struct lane_party){.done = queue_done, .comes_apart = queue_comes_apart};
        via->queue = q;
        via->way = *way;
        session_ref(way->session);
        list_init(&via->arm);
        list_push_back(&q->lanes, &via->link);
        lane_watch(q, via);
        return via;
}

/* ---- the queue ------------------------------------------------------------------------------------------------------ */

/* Takes fd. */
static struct guard *queue_guard(int fd) {
        struct guard *g = fd >= 0 ? guard_new(fd) : NULL;
        if (!g)
                fd_close(fd);
        return g;
}

static int queue_open(lessor_queue *q) {
        struct epoll_event e = {.events = EPOLLIN};
        int fd = epoll_create1(EPOLL_CLOEXEC);

        if (fd < 0)
                return -errno;
        q->epoll = queue_guard(fd);
        fd = q->epoll ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
        if (q->epoll && fd < 0)
                return -errno;
        q->event = queue_guard(fd);
        if (!q->event)
                return -ENOMEM;
        return epoll_ctl(guard_fd(q->epoll), EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

static void queue_dispose(lessor_queue *q) {
        guard_free(q->epoll);
        guard_free(q->event);
        pthread_mutex_destroy(&q->lock);
        free(q);
}

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
        q->next_expiry = TIME_NEVER;
        list_init(&q->lanes);
        list_init(&q->calls);
        list_init(&q->spare);
        list_init(&q->done);
        pthread_mutex_init(&q->lock, NULL);
        r = queue_open(q);
        if (r < 0)
                queue_dispose(q);
        else
                *ret = q;
        return r;
}

static void call_free(struct queue_call *c) {
        list_remove(&c->link);
        free(c);
}

/* Under way no more, whatever the broker makes of it. */
static void call_abandon(struct queue_call *c) {
        struct lane_client *l = c->via->way.lane;

        lane_enter(l);
        if (c->call.under_way && !lane_take_back(l, &c->call))
                lane_abandon(l, &c->call);
        lane_leave(l);
}

void lessor_queue_free(lessor_queue *q) {
        NO_CANCEL;

        if (!q)
                return;
        if (q->epoch != fork_epoch()) {
                free(q);
                return;
        }
        list_for_each_safe (&q->calls, it, next) {
                struct queue_call *c = container_of(it, struct queue_call, link);
                call_abandon(c);
                lane_call_deinit(&c->call);
                call_free(c);
        }
        list_for_each_safe (&q->spare, it, next)
                call_free(container_of(it, struct queue_call, link));
        list_for_each_safe (&q->lanes, it, next)
                lane_close(q, container_of(it, struct queue_lane, link));
        queue_dispose(q);
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

int lessor_queue_fd(const lessor_queue *q) { return q && q->epoch == fork_epoch() ? guard_fd(q->epoll) : -1; }

/* ---- submitting ----------------------------------------------------------------------------------------------------- */

static struct queue_call *call_new(lessor_queue *q) {
        struct list *spare = list_first(&q->spare);
        struct queue_call *c;

        if (spare) {
                list_remove(spare);
                return container_of(spare, struct queue_call, link);
        }
        c = calloc(1, sizeof(*c));
        if (c) {
                list_init(&c->link);
                list_init(&c->done);
        }
        return c;
}

static void call_begin(struct queue_call *c, struct queue_lane *via, const struct lane_way *way, int wait_ms,
                       void *userdata) {
        uint64_t now = clock_now();
        uint64_t wait = wait_ms < 0 ? way->control->wait_timeout_ns : (uint64_t)wait_ms * NS_PER_MS;
        uint64_t reply = way->control->socket_timeout_ns > 0 ? way->control->socket_timeout_ns : TIME_NEVER;

        c->via = via;
        c->way = *way;
        c->userdata = userdata;
        c->call.party = &via->party;
        c->call.database = way->database;
        c->call.tid = warm_thread_id();
        c->call.linked = false;
        c->began = now;
        c->take_by = time_after(time_after(now, wait), SLACK_NS);
        c->leave_at = time_after(c->take_by, reply);
        c->apart = false;
}

static enum lane_submit call_submit(struct queue_call *c, const struct command *command) {
        struct lane_client *l = c->via->way.lane;
        enum lane_submit r;
        uint64_t bells;

        lane_enter(l);
        r = lane_client_submit(l, &c->call, c->take_by - SLACK_NS, command->data, command->size);
        bells = r == LANE_SUBMIT_DONE ? lane_bell(l) : 0;
        lane_leave(l);
        if (bells != 0)
                lane_ring(l, bells);
        return r;
}

static int submit(lessor_queue *q, const struct lane_way *way, int wait_ms, const struct command *command,
                  void *userdata, lessor_error *error) {
        struct queue_lane *via = lane_of(q, way);
        struct queue_call *c = via ? call_new(q) : NULL;
        enum lane_submit r;

        if (!c)
                return error_set(error, -ENOMEM, "lessor_submit: out of memory");
        call_begin(c, via, way, wait_ms, userdata);
        r = call_submit(c, command);
        if (r != LANE_SUBMIT_DONE) {
                list_push_back(&q->spare, &c->link);
                if (r == LANE_SUBMIT_TOO_LARGE)
                        return error_set(error, LESSOR_E_NEEDS_LEASE, "the command is too large for a lane");
                if (session_over(way->session))
                        return error_set(error, LESSOR_E_UNAVAILABLE, "the broker has gone away");
                return error_set(error, LESSOR_E_EXHAUSTED, "too many commands are under way: reap first");
        }
        via->calls++;
        q->in_flight++;
        list_push_back(&q->calls, &c->link);
        q->next_expiry = c->take_by < q->next_expiry ? c->take_by : q->next_expiry;
        call_order_matters = true;
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
        if (command_goes_by_lane(command->name, command->name_len))
                return 0;
        return error_set(error, LESSOR_E_NEEDS_LEASE, "lessor_submit: %.*s cannot go by lane",
                         (int)(command->name_len < 32 ? command->name_len : 32), command->name);
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

static struct queue_call *queue_take(lessor_queue *q) {
        struct list *first;

        pthread_mutex_lock(&q->lock);
        first = list_first(&q->done);
        if (first)
                list_remove(first);
        pthread_mutex_unlock(&q->lock);
        return first ? container_of(first, struct queue_call, done) : NULL;
}

static bool queue_has_done(lessor_queue *q) {
        bool any;

        pthread_mutex_lock(&q->lock);
        any = !list_empty(&q->done);
        pthread_mutex_unlock(&q->lock);
        return any;
}

static void call_count(const struct queue_call *c) {
        bool ok = c->call.outcome == 0 && c->call.reply->type != REDIS_REPLY_ERROR;
        struct outcome_counts counts = {.ok = ok,
                                        .failed = !ok,
                                        .timeouts = c->call.outcome == LESSOR_E_REPLY_TIMEOUT,
                                        .call_ns = c->call.outcome == 0 ? c->ended - c->began + 1 : 0};

        segment_count(&c->way.session->segment, c->way.database, &counts);
}

static void result_fill(lessor_queue *q, struct queue_call *c, lessor_result *ret) {
        lane_call_unfold(&c->call);
        call_count(c);
        error_clear(&ret->error);
        ret->userdata = c->userdata;
        ret->reply = ptr_steal(&c->call.reply);
        if (c->call.outcome != 0)
                call_say(&c->way, &c->call, &ret->error);
        lane_call_deinit(&c->call);
        c->via->calls--;
        q->in_flight--;
        list_remove(&c->link);
        list_push_back(&q->spare, &c->link);
}

/* Nobody needs to be told any more: we look ourselves. */
static void queue_unarm(lessor_queue *q) {
        uint64_t count;

        pthread_mutex_lock(&q->lock);
        q->armed = false;
        if (q->rung)
                while (read(guard_fd(q->event), &count, sizeof(count)) < 0 && errno == EINTR)
                        ;
        q->rung = false;
        pthread_mutex_unlock(&q->lock);
}

static void queue_look(lessor_queue *q) {
        queue_unarm(q);
        list_for_each (&q->lanes, it) {
                struct queue_lane *via = container_of(it, struct queue_lane, link);
                struct lane_client *l = via->way.lane;
                lane_enter(l);
                lane_unarm(via);
                if (!l->leader)
                        lane_reap_all(l);
                lane_settle(l);
                lane_leave(l);
        }
}

static void call_end(struct queue_call *c, int outcome, bool may_have_run) {
        c->call.outcome = outcome;
        c->call.may_have_run = may_have_run;
        queue_put(c);
}

/* What the broker should have answered by now, if it lived: see call.c. */
static void call_expire(struct queue_call *c, uint64_t now) {
        struct lane_client *l = c->via->way.lane;

        lane_enter(l);
        if (c->call.under_way && now >= c->take_by && lane_take_back(l, &c->call)) {
                call_end(c, LESSOR_E_UNAVAILABLE, false);
        } else if (c->call.under_way && now >= c->leave_at) {
                lane_abandon(l, &c->call);
                call_end(c, LESSOR_E_REPLY_TIMEOUT, true);
        }
        lane_leave(l);
}

static void queue_expire(lessor_queue *q) {
        uint64_t now = clock_now(), next = TIME_NEVER;

        if (now < q->next_expiry)
                return;
        list_for_each (&q->calls, it) {
                struct queue_call *c = container_of(it, struct queue_call, link);
                uint64_t at = now < c->take_by ? c->take_by : c->leave_at;
                if (now >= c->take_by)
                        call_expire(c, now);
                if (at > now && at < next)
                        next = at;
        }
        q->next_expiry = next;
}

/* True: there is something. */
static bool queue_arm(lessor_queue *q) {
        list_for_each (&q->lanes, it) /* what is in the sockets would keep the fd readable */
                session_look(container_of(it, struct queue_lane, link)->way.session);
        lanes_tidy(q);
        pthread_mutex_lock(&q->lock);
        q->armed = list_empty(&q->done);
        pthread_mutex_unlock(&q->lock);
        list_for_each (&q->lanes, it) {
                struct queue_lane *via = container_of(it, struct queue_lane, link);
                struct lane_client *l = via->way.lane;
                if (via->calls == 0)
                        continue;
                lane_enter(l);
                if (list_empty(&via->arm))
                        list_push_back(&l->armed, &via->arm);
                lane_settle(l);
                lane_leave(l);
        }
        return queue_has_done(q);
}

/* The lane where all of them are; NULL: there are several. */
static struct queue_lane *only_lane(lessor_queue *q) {
        struct queue_lane *only = NULL;

        list_for_each (&q->lanes, it) {
                struct queue_lane *via = container_of(it, struct queue_lane, link);
                if (via->calls > 0 && only)
                        return NULL;
                if (via->calls > 0)
                        only = via;
        }
        return only;
}

static void sleep_in_lane(lessor_queue *q, struct queue_lane *via, uint64_t until) {
        struct lane_client *l = via->way.lane;
        struct lane_waiter w;
        bool any;

        lane_waiter_init(&w, 1);
        lane_enter(l);
        pthread_mutex_lock(&q->lock);
        any = !list_empty(&q->done) || q->apart > 0;
        pthread_mutex_unlock(&q->lock);
        if (!any && !l->over) {
                via->sleeper = &w;
                if (lane_await(l, &w, until))
                        return;
                via->sleeper = NULL;
        }
        lane_leave(l);
}

static int queue_sleep(lessor_queue *q, uint64_t deadline) {
        uint64_t until = deadline < q->next_expiry ? deadline : q->next_expiry;
        struct queue_lane *via = only_lane(q);
        bool apart;
        int r;

        pthread_mutex_lock(&q->lock);
        apart = q->apart > 0;
        pthread_mutex_unlock(&q->lock);
        if (via && !apart) {
                sleep_in_lane(q, via, until);
                return 0;
        }
        if (queue_arm(q))
                return 0;
        r = io_poll(guard_fd(q->epoll), POLLIN, until);
        return r < 0 ? r : 0;
}

int lessor_reap(lessor_queue *q, int wait_ms, lessor_result *ret) {
        NO_CANCEL;
        uint64_t deadline = TIME_NEVER;
        struct queue_call *c;
        int r = queue_check(q, "lessor_reap", NULL);

        if (r != 0 || !ret)
                return r != 0 ? r : LESSOR_E_INVALID;
        c = queue_take(q);
        if (!c && wait_ms >= 0)
                deadline = time_after(clock_now(), (uint64_t)wait_ms * NS_PER_MS);
        while (!c) {
                queue_look(q);
                queue_expire(q);
                c = queue_take(q);
                if (c)
                        break;
                if (q->in_flight == 0 || time_left(clock_now(), deadline) == 0) {
                        if (!queue_arm(q))
                                return 0;
                } else {
                        r = queue_sleep(q, deadline);
                        if (r < 0)
                                return r;
                }
                c = queue_take(q);
        }
        result_fill(q, c, ret);
        return 1;
}

int lessor_queue_arm(lessor_queue *q) {
        NO_CANCEL;
        int r = queue_check(q, "lessor_queue_arm", NULL);

        if (r != 0)
                return r;
        queue_look(q);
        queue_expire(q);
        return queue_arm(q);
}

unsigned lessor_queue_cancel(lessor_queue *q, const void *userdata) {
        NO_CANCEL;
        unsigned n = 0;

        if (queue_check(q, "lessor_queue_cancel", NULL) != 0)
                return 0;
        list_for_each (&q->calls, it) {
                struct queue_call *c = container_of(it, struct queue_call, link);
                struct lane_client *l = c->via->way.lane;
                bool sent;
                if (c->userdata != userdata)
                        continue;
                lane_enter(l);
                if (c->call.under_way) {
                        sent = !lane_take_back(l, &c->call);
                        if (sent)
                                lane_abandon(l, &c->call);
                        call_end(c, LESSOR_E_CANCELLED, sent);
                        n++;
                }
                lane_leave(l);
        }
        return n;
}

/* SPDX-License-Identifier: MIT */
/*
 * The turn: what is readable is read, what is done is taken, what is too late ends; then the callers are called back, and what they and
 * others have asked for is sent. All of it again until there is nothing more, but not for ever: what is left is for the next turn, which
 * the loop is told of by the same fd.
 *
 * While the loop sleeps the inbox is armed: whoever does something for us rings.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "async_core.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "error.h"
#include "warm.h"

enum { EVENTS = 32, ROUNDS = 8, CALLBACKS_A_TURN = 1024 };

#define WAIT_UNKNOWN_NS (5 * NS_PER_S) /* wait_timeout, before there was a broker to say it */

/* ---- time ----------------------------------------------------------------------------------------------------------- */

static void timer_ready(struct async_source *source, uint32_t events) {
        lessor_async *a = container_of(source, lessor_async, timed);
        uint64_t count;

        (void)events;
        while (read(guard_fd(a->timer), &count, sizeof(count)) < 0 && errno == EINTR)
                ;
        a->timer_at = TIME_NEVER;
}

static uint64_t earlier(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* One that is set too early does no harm. */
static void timer_set(lessor_async *a) {
        uint64_t at = earlier(earlier(a->next_at, a->inbox.next_expiry), a->attach.at);
        struct itimerspec t = {0};

        list_for_each (&a->dbs, it)
                at = earlier(at, conn_look_at(container_of(it, lessor_async_db, link)));
        if (at >= a->timer_at)
                return;
        at = at > 0 ? at : 1;
        t.it_value = (struct timespec){.tv_sec = (time_t)(at / NS_PER_S), .tv_nsec = (long)(at % NS_PER_S)};
        if (timerfd_settime(guard_fd(a->timer), TFD_TIMER_ABSTIME, &t, NULL) == 0)
                a->timer_at = at;
}

uint64_t async_deadline(lessor_async_db *db, uint64_t began, int wait_ms) {
        const struct warm_set *set = wait_ms < 0 ? warm_current(db->db) : NULL;
        uint64_t wait = set ? set->control->wait_timeout_ns : 0;

        if (wait_ms >= 0)
                return time_after(began, (uint64_t)wait_ms * NS_PER_MS);
        /* There may be nothing any more of a session that is over: see session_retire(). */
        if (set && !session_over(set->session)) {
                db->wait_known = true;
                db->wait_ns = wait;
        }
        return time_after(began, db->wait_known ? db->wait_ns : WAIT_UNKNOWN_NS);
}

/* ---- made, and freed ------------------------------------------------------------------------------------------------ */

static int timer_open(lessor_async *a) {
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = &a->timed};
        int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

        if (fd < 0)
                return -errno;
        a->timed.ready = timer_ready;
        a->timer_at = TIME_NEVER;
        a->timer = guard_new(fd);
        if (!a->timer) {
                fd_close(fd);
                return -ENOMEM;
        }
        return epoll_ctl(guard_fd(a->inbox.epoll), EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

/* From within the loop, but not from our turn: what the broker does not take at once needs one, even if nothing else does. */
static void context_give(void *owner, struct lessor_lease *lease) {
        lessor_async *a = owner;

        async_give(a, lease);
        if (a->turning)
                return;
        async_session_turn(a);
        async_changed(a);
}

int lessor_async_new(lessor *client, lessor_async **ret) {
        NO_CANCEL;
        lessor_async *a;
        int r;

        if (!client || !ret)
                return -EINVAL;
        a = calloc(1, sizeof(*a));
        if (!a)
                return -ENOMEM;
        a->client = client;
        a->epoch = fork_epoch();
        a->next_at = TIME_NEVER;
        list_init(&a->dbs);
        list_init(&a->finished);
        list_init(&a->asks);
        list_init(&a->answered);
        list_init(&a->told);
        a->contexts = (struct async_contexts){.owner = a, .give = context_give};
        list_init(&a->contexts.list);
        async_session_init(a);
        r = inbox_init(&a->inbox);
        if (r == 0)
                r = timer_open(a);
        if (r < 0) {
                guard_free(a->timer);
                inbox_deinit(&a->inbox);
                free(a);
                return r;
        }
        inbox_arm(&a->inbox);
        *ret = a;
        return 0;
}

static void async_dispose(lessor_async *a) {
        list_for_each_safe (&a->dbs, it, next)
                free(container_of(it, lessor_async_db, link));
        free(a);
}

static void asks_forget(struct list *asks) {
        list_for_each_safe (asks, it, next) {
                struct async_ask *ask = container_of(it, struct async_ask, link);
                if (ask->own)
                        acquire_forget(ask);
        }
}

/* A child's: of its parent's nothing but the memory is ours. */
static void async_forget(lessor_async *a) {
        calls_free(a);
        asks_forget(&a->asks);
        asks_forget(&a->answered);
        async_dispose(a);
}

static void adapter_busy(lessor_async *a, bool busy) {
        if (a->busy == busy)
                return;
        a->busy = busy;
        if (a->adapter.busy)
                a->adapter.busy(a->adapter.data, busy);
}

static void adapter_leave(lessor_async *a) {
        struct lessor_async_adapter adapter = a->adapter;

        a->adapter = (struct lessor_async_adapter){0};
        if (adapter.cleanup)
                adapter.cleanup(adapter.data);
}

/* Whatever is under way ends, and all are called back. */
static void async_end(lessor_async *a) {
        unsigned budget = UINT32_MAX;

        calls_cancel(a, NULL, true);
        calls_take(a);
        calls_cancel(a, NULL, true); /* what came back as not sent */
        list_for_each (&a->dbs, it)
                conn_end(container_of(it, lessor_async_db, link));
        async_contexts_forget(&a->contexts);
        calls_deliver(a, &budget);
        asks_end(a);
        async_session_end(a);
        adapter_busy(a, false);
        adapter_leave(a);
        guard_free(a->timer);
        inbox_deinit(&a->inbox);
}

void lessor_async_free(lessor_async *a) {
        NO_CANCEL;
        bool turning, before = session_never_waits;

        if (!a || a->ended)
                return;
        if (!async_is_here(a)) {
                async_forget(a);
                return;
        }
        turning = a->turning;
        a->turning = a->ended = true;
        session_never_waits = true;
        async_end(a);
        session_never_waits = before;
        if (!turning)
                async_dispose(a);
}

/* ---- databases ------------------------------------------------------------------------------------------------------ */

int lessor_async_database(lessor_async *a, const char *name, lessor_async_db **ret) {
        NO_CANCEL;
        lessor_async_db *db;

        if (!a || !ret || a->ended)
                return LESSOR_E_INVALID;
        if (!async_is_here(a))
                return LESSOR_E_FORKED;
        name = name ? name : "main";
        if (!*name || strlen(name) >= LESSOR_NAME_SIZE)
                return LESSOR_E_INVALID;
        list_for_each (&a->dbs, it) {
                db = container_of(it, lessor_async_db, link);
                if (strcmp(db->db->name, name) == 0) {
                        *ret = db;
                        return 0;
                }
        }
        db = calloc(1, sizeof(*db));
        if (db)
                db->db = client_intern(a->client, name);
        if (!db || !db->db) {
                free(db);
                return -ENOMEM;
        }
        db->async = a;
        list_init(&db->pending);
        conn_init(db);
        list_push_back(&a->dbs, &db->link);
        *ret = db;
        return 0;
}

lessor_async *lessor_async_of(const lessor_async_db *db) { return db ? db->async : NULL; }

int async_check(const lessor_async_db *db, int wait_ms, size_t size) {
        const lessor_async *a = db ? db->async : NULL;

        if (!a || wait_ms < LESSOR_WAIT_CONFIGURED)
                return LESSOR_E_INVALID;
        if (!async_is_here(a))
                return LESSOR_E_FORKED;
        if (a->ended)
                return LESSOR_E_CANCELLED;
        if (a->in_flight >= LESSOR_ASYNC_MAX ||
            (a->in_flight > 0 && (size > LESSOR_ASYNC_BYTES_MAX || a->bytes + size > LESSOR_ASYNC_BYTES_MAX)))
                return LESSOR_E_EXHAUSTED;
        return 0;
}

unsigned lessor_async_in_flight(const lessor_async *a) { return a && async_is_here(a) ? a->in_flight : 0; }

unsigned lessor_async_cancel(lessor_async *a, const void *data) {
        NO_CANCEL;
        unsigned n;

        if (!a || !async_is_here(a) || a->ended)
                return 0;
        n = calls_cancel(a, data, false) + asks_cancel(a, data);
        async_changed(a);
        return n;
}

int lessor_async_set_adapter(lessor_async *a, const struct lessor_async_adapter *adapter) {
        if (!a || a->ended)
                return LESSOR_E_INVALID;
        if (!async_is_here(a))
                return LESSOR_E_FORKED;
        adapter_leave(a);
        if (adapter)
                a->adapter = *adapter;
        a->contexts.attach = a->adapter.attach;
        a->contexts.attach_data = a->adapter.data;
        if (a->adapter.busy)
                a->adapter.busy(a->adapter.data, a->busy);
        return 0;
}

/* ---- the turn ------------------------------------------------------------------------------------------------------- */

static bool is_busy(const lessor_async *a) {
        if (a->in_flight > 0 || a->flushing || !list_empty(&a->asks) || !list_empty(&a->answered))
                return true;
        list_for_each (&a->dbs, it) /* what was let go of */
                if (container_of(it, lessor_async_db, link)->conn.lease)
                        return true;
        return false;
}

void async_changed(lessor_async *a) {
        if (a->turning)
                return;
        timer_set(a);
        adapter_busy(a, is_busy(a));
}

static void turn_events(lessor_async *a) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(guard_fd(a->inbox.epoll), events, EVENTS, 0);

        for (int i = 0; i < n; i++) {
                struct async_source *source = events[i].data.ptr;
                if (source)
                        source->ready(source, events[i].events);
        }
}

static void turn_take(lessor_async *a, uint64_t now) {
        async_attach_turn(a, now);
        calls_take(a);
        inbox_expire(&a->inbox, now);
        asks_turn(a, now);
        list_for_each (&a->dbs, it)
                conn_turn(container_of(it, lessor_async_db, link), now);
        if (now < a->next_at)
                return;
        a->next_at = TIME_NEVER;
        calls_expire(a, now);
        asks_expire(a, now);
}

static void turn_send(lessor_async *a) {
        list_for_each (&a->dbs, it) {
                lessor_async_db *db = container_of(it, lessor_async_db, link);
                db_pump(db);
                conn_write(db);
                conn_settle(db);
        }
        calls_ring(a);
        async_session_turn(a);
}

/* False: lessor_async_free() was called, or there is more to do than fits into a turn. */
static bool turn(lessor_async *a) {
        unsigned budget = CALLBACKS_A_TURN;

        for (int i = 0; i < ROUNDS; i++) {
                inbox_look(&a->inbox);
                if (i == 0)
                        turn_events(a);
                turn_take(a, clock_now());
                calls_deliver(a, &budget);
                asks_deliver(a, &budget);
                if (a->ended)
                        return false;
                turn_send(a);
                if (budget == 0)
                        return false;
                if (list_empty(&a->finished) && list_empty(&a->answered) && !inbox_arm(&a->inbox))
                        return !a->again;
        }
        return false;
}

void lessor_async_dispatch(lessor_async *a) {
        NO_CANCEL;
        bool before = session_never_waits;

        if (!a || !async_is_here(a) || a->turning)
                return;
        a->turning = true;
        a->tried = a->again = false;
        session_never_waits = true;
        if (!turn(a) && !a->ended)
                inbox_remind(&a->inbox);
        session_never_waits = before;
        if (a->ended) {
                async_dispose(a);
                return;
        }
        a->turning = false;
        async_changed(a);
}

int lessor_async_fd(const lessor_async *a) {
        return a && async_is_here(a) && !a->ended ? guard_fd(a->inbox.epoll) : -1;
}

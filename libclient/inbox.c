/* SPDX-License-Identifier: MIT */
#include "inbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "client.h"
#include "warm.h"

/* ---- told by whoever reaps, lane lock held ------------------------------------------------------------------------- */

/* Inbox lock held. */
static void inbox_ring(struct inbox *b) {
        uint64_t one = 1;

        if (!b->armed)
                return;
        b->armed = false;
        b->rung = true;
        while (write(guard_fd(b->event), &one, sizeof(one)) < 0 && errno == EINTR)
                ;
}

static void sleeper_wake(struct inbox_lane *via) {
        if (via->sleeper)
                lane_waiter_done(via->way.lane, ptr_steal(&via->sleeper));
}

/* Under a lane's lock, so that whoever goes to sleep there sees it. Once it is among the done its owner may free the call. */
static void inbox_put(struct inbox_call *c) {
        struct inbox_lane *via = c->via;
        struct inbox *b = via->inbox;

        c->ended = clock_now();
        pthread_mutex_lock(&b->lock);
        b->apart -= c->apart;
        c->apart = false;
        list_push_back(&b->done, &c->done);
        inbox_ring(b);
        pthread_mutex_unlock(&b->lock);
        sleeper_wake(via);
}

static void inbox_done(struct lane_call *call) { inbox_put(container_of(call, struct inbox_call, call)); }

/* Whoever sleeps in the lane goes to the session's socket. */
static void inbox_comes_apart(struct lane_call *call) {
        struct inbox_call *c = container_of(call, struct inbox_call, call);
        struct inbox *b = c->via->inbox;

        pthread_mutex_lock(&b->lock);
        c->apart = true;
        b->apart++;
        pthread_mutex_unlock(&b->lock);
        sleeper_wake(c->via);
}

void inboxes_told(struct lane_client *l) {
        list_for_each_safe (&l->armed, it, next) {
                struct inbox *b = container_of(it, struct inbox_lane, arm)->inbox;
                list_remove(it);
                pthread_mutex_lock(&b->lock);
                inbox_ring(b);
                pthread_mutex_unlock(&b->lock);
        }
}

void inbox_poke(struct inbox *b) {
        pthread_mutex_lock(&b->lock);
        b->poked = true;
        inbox_ring(b);
        pthread_mutex_unlock(&b->lock);
}

void inbox_remind(struct inbox *b) {
        pthread_mutex_lock(&b->lock);
        b->armed = true;
        inbox_ring(b);
        pthread_mutex_unlock(&b->lock);
}

/* ---- its lanes ----------------------------------------------------------------------------------------------------- */

static void lane_watch(struct inbox *b, struct inbox_lane *via) {
        struct epoll_event e = {.events = EPOLLIN};
        int fd = via->way.session->fd;
        via->watched = epoll_ctl(guard_fd(b->epoll), EPOLL_CTL_ADD, fd, &e) == 0 || errno == EEXIST;
}

/* A socket that has ended stays readable for ever. */
static void lane_unwatch(struct inbox *b, struct inbox_lane *via) {
        if (via->watched)
                epoll_ctl(guard_fd(b->epoll), EPOLL_CTL_DEL, via->way.session->fd, NULL);
        via->watched = false;
}

/* Lane lock held. */
static void lane_unarm(struct inbox_lane *via) {
        struct lane_client *l = via->way.lane;
        bool was_armed = !list_empty(&via->arm);

        list_remove(&via->arm);
        if (was_armed && list_empty(&l->armed) && !l->leader && !l->over)
                lane_awake(&l->worker);
}

static void lane_close(struct inbox *b, struct inbox_lane *via) {
        lane_enter(via->way.lane);
        lane_unarm(via);
        lane_leave(via->way.lane);
        list_remove(&via->link);
        if (session_over(via->way.session))
                lane_unwatch(b, via);
        session_unref(via->way.session);
        free(via);
}

/* Those of sessions that are over. */
static void lanes_tidy(struct inbox *b) {
        list_for_each_safe (&b->lanes, it, next) {
                struct inbox_lane *via = container_of(it, struct inbox_lane, link);
                if (!session_over(via->way.session))
                        continue;
                lane_unwatch(b, via);
                if (via->calls == 0)
                        lane_close(b, via);
        }
}

struct inbox_lane *inbox_lane(struct inbox *b, const struct lane_way *way) {
        struct inbox_lane *via;

        list_for_each (&b->lanes, it) {
                via = container_of(it, struct inbox_lane, link);
                if (via->way.lane == way->lane)
                        return via;
        }
        via = calloc(1, sizeof(*via));
        if (!via)
                return NULL;
        via->party = (struct lane_party){.done = inbox_done, .comes_apart = inbox_comes_apart};
        via->inbox = b;
        via->way = *way;
        session_ref(way->session);
        list_init(&via->arm);
        list_push_back(&b->lanes, &via->link);
        lane_watch(b, via);
        return via;
}

/* ---- the inbox ------------------------------------------------------------------------------------------------------ */

/* Takes fd. */
static struct guard *inbox_guard(int fd) {
        struct guard *g = fd >= 0 ? guard_new(fd) : NULL;
        if (!g)
                fd_close(fd);
        return g;
}

int inbox_init(struct inbox *b) {
        struct epoll_event e = {.events = EPOLLIN};
        int fd;

        *b = (struct inbox){.next_expiry = TIME_NEVER};
        list_init(&b->lanes);
        list_init(&b->calls);
        list_init(&b->done);
        pthread_mutex_init(&b->lock, NULL);
        fd = epoll_create1(EPOLL_CLOEXEC);

        if (fd < 0)
                return -errno;
        b->epoll = inbox_guard(fd);
        fd = b->epoll ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
        if (b->epoll && fd < 0)
                return -errno;
        b->event = inbox_guard(fd);
        if (!b->event)
                return -ENOMEM;
        return epoll_ctl(guard_fd(b->epoll), EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

void inbox_deinit(struct inbox *b) {
        list_for_each_safe (&b->lanes, it, next)
                lane_close(b, container_of(it, struct inbox_lane, link));
        guard_free(b->epoll);
        guard_free(b->event);
        pthread_mutex_destroy(&b->lock);
}

/* ---- submitting ----------------------------------------------------------------------------------------------------- */

static void call_begin(struct inbox_call *c, struct inbox_lane *via, const struct inbox_submission *x) {
        uint64_t reply = via->way.control->socket_timeout_ns;

        c->via = via;
        c->call.party = &via->party;
        c->call.database = c->way.database;
        c->call.tid = x->ordered ? warm_thread_id() : 0;
        c->began = x->began;
        c->take_by = time_after(x->send_by, SLACK_NS);
        c->leave_at = time_after(c->take_by, reply > 0 ? reply : TIME_NEVER);
        c->apart = false;
}

/* Lane lock held. */
static enum lane_submit submit_all(struct inbox_lane *via, const struct inbox_submission *x,
                                   struct inbox_call *(*call)(void *, size_t), void *data) {
        struct lane_client *l = via->way.lane;

        if (x->n > 1 && (l->over || l->n_free < x->n || !lane_has_room(&l->worker, x->ends, x->n)))
                return LANE_SUBMIT_FULL;
        for (size_t i = 0; i < x->n; i++) {
                size_t start = i > 0 ? x->ends[i - 1] : 0;
                struct inbox_call *c = call(data, i);
                enum lane_submit r;
                call_begin(c, via, x);
                r = lane_client_submit(l, &c->call, x->send_by, x->out + start, x->ends[i] - start);
                if (r != LANE_SUBMIT_DONE) /* of several it was said that there is room */
                        return r;
        }
        return LANE_SUBMIT_DONE;
}

enum lane_submit inbox_submit(struct inbox *b, struct inbox_lane *via, const struct inbox_submission *x,
                              struct inbox_call *(*call)(void *data, size_t i), void *data, bool *ret_ring) {
        struct lane_client *l = via->way.lane;
        enum lane_submit r;

        lane_enter(l);
        r = submit_all(via, x, call, data);
        *ret_ring = r == LANE_SUBMIT_DONE && lane_is_heard(l);
        lane_leave(l);
        if (r != LANE_SUBMIT_DONE)
                return r;
        via->calls += (unsigned)x->n;
        for (size_t i = 0; i < x->n; i++) {
                struct inbox_call *c = call(data, i);
                list_push_back(&b->calls, &c->link);
                b->next_expiry = c->take_by < b->next_expiry ? c->take_by : b->next_expiry;
        }
        if (x->ordered)
                call_order_matters = true;
        return r;
}

/* ---- taking --------------------------------------------------------------------------------------------------------- */

struct inbox_call *inbox_take(struct inbox *b) {
        struct list *first;

        pthread_mutex_lock(&b->lock);
        first = list_first(&b->done);
        if (first)
                list_remove(first);
        pthread_mutex_unlock(&b->lock);
        return first ? container_of(first, struct inbox_call, done) : NULL;
}

bool inbox_has_done(struct inbox *b) {
        bool any;

        pthread_mutex_lock(&b->lock);
        any = !list_empty(&b->done);
        pthread_mutex_unlock(&b->lock);
        return any;
}

void inbox_forget(struct inbox *b, struct inbox_call *c) {
        pthread_mutex_lock(&b->lock);
        list_remove(&c->done);
        pthread_mutex_unlock(&b->lock);
        list_remove(&c->link);
        c->via->calls--;
}

void inbox_count(const struct inbox_call *c, bool ok) {
        struct outcome_counts counts = {.ok = ok,
                                        .failed = !ok,
                                        .timeouts = c->call.outcome == LESSOR_E_REPLY_TIMEOUT,
                                        .call_ns = c->call.outcome == 0 ? c->ended - c->began + 1 : 0};

        segment_count(&c->way.session->segment, c->way.database, &counts);
}

/* ---- looking -------------------------------------------------------------------------------------------------------- */

/* Nobody needs to be told any more: we look ourselves. */
static void inbox_unarm(struct inbox *b) {
        uint64_t count;

        pthread_mutex_lock(&b->lock);
        b->armed = false;
        if (b->rung)
                while (read(guard_fd(b->event), &count, sizeof(count)) < 0 && errno == EINTR)
                        ;
        b->rung = b->poked = false;
        pthread_mutex_unlock(&b->lock);
}

void inbox_look(struct inbox *b) {
        inbox_unarm(b);
        list_for_each (&b->lanes, it) {
                struct inbox_lane *via = container_of(it, struct inbox_lane, link);
                struct lane_client *l = via->way.lane;
                lane_enter(l);
                lane_unarm(via);
                if (!l->leader)
                        lane_reap_all(l);
                lane_settle(l);
                lane_leave(l);
        }
}

static void call_end(struct inbox_call *c, int outcome, bool may_have_run) {
        c->call.outcome = outcome;
        c->call.may_have_run = may_have_run;
        inbox_put(c);
}

static void call_expire(struct inbox_call *c, uint64_t now) {
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

void inbox_expire(struct inbox *b, uint64_t now) {
        uint64_t next = TIME_NEVER;

        if (now < b->next_expiry)
                return;
        list_for_each (&b->calls, it) {
                struct inbox_call *c = container_of(it, struct inbox_call, link);
                uint64_t at = now < c->take_by ? c->take_by : c->leave_at;
                if (now >= c->take_by)
                        call_expire(c, now);
                if (at > now && at < next)
                        next = at;
        }
        b->next_expiry = next;
}

void inbox_arm_lane(struct inbox_lane *via) {
        struct lane_client *l = via->way.lane;

        if (via->calls == 0)
                return;
        lane_enter(l);
        if (list_empty(&via->arm)) {
                list_push_back(&l->armed, &via->arm);
                lane_settle(l);
        }
        lane_leave(l);
}

bool inbox_arm(struct inbox *b) {
        bool any;

        list_for_each (&b->lanes, it) /* what is in the sockets would keep the fd readable */
                session_look(container_of(it, struct inbox_lane, link)->way.session);
        lanes_tidy(b);
        pthread_mutex_lock(&b->lock);
        b->armed = list_empty(&b->done) && !b->poked;
        pthread_mutex_unlock(&b->lock);
        list_for_each (&b->lanes, it)
                inbox_arm_lane(container_of(it, struct inbox_lane, link));
        pthread_mutex_lock(&b->lock);
        any = !list_empty(&b->done) || b->poked;
        pthread_mutex_unlock(&b->lock);
        return any;
}

bool inbox_cancel(struct inbox_call *c) {
        struct lane_client *l = c->via->way.lane;
        bool under_way, sent;

        lane_enter(l);
        under_way = c->call.under_way;
        if (under_way) {
                sent = !lane_take_back(l, &c->call);
                if (sent)
                        lane_abandon(l, &c->call);
                call_end(c, LESSOR_E_CANCELLED, sent);
        }
        lane_leave(l);
        return under_way;
}

void inbox_give_up(struct inbox_call *c) {
        struct lane_client *l = c->via->way.lane;
        struct inbox *b = c->via->inbox;

        lane_enter(l);
        if (c->call.under_way && !lane_take_back(l, &c->call))
                lane_abandon(l, &c->call);
        lane_leave(l);
        pthread_mutex_lock(&b->lock);
        b->apart -= c->apart;
        c->apart = false;
        pthread_mutex_unlock(&b->lock);
}

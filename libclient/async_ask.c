/* SPDX-License-Identifier: MIT */
/*
 * A lease asked for without waiting: a parked connection, if there is one; else LEASE, whose answer whoever reads the session's
 * socket hands over (async_ask.told). A request is no command: when the broker dies over it, the next one is asked.
 *
 * The broker keeps the deadline. If it does not, the request is taken back, and it gets GRACE to answer that; then it
 * is left behind, see session_ask.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "async_core.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "error.h"
#include "lease.h"
#include "warm.h"

#define GRACE_NS (100 * NS_PER_MS)
#define UNANSWERED "the broker did not answer in time: it hangs, is stopped, or the host is overloaded"

static void ask_look_at(struct async_ask *ask, uint64_t at) {
        ask->look_at = at;
        async_look_at(ask->db->async, at);
}

/* ---- what came of it ------------------------------------------------------------------------------------------------ */

static void ask_finish(struct async_ask *ask, struct lessor_lease *lease) {
        lessor_async *a = ask->db->async;

        ask->lease = lease;
        ask->state = ASYNC_ASK_ANSWERED;
        ask->session = session_unref(ask->session);
        list_remove(&ask->link);
        list_push_back(&a->answered, &ask->link);
        inbox_poke(&a->inbox);
}

static void ask_fail(struct async_ask *ask, int code, const char *text) {
        error_set(&ask->error, code, "%s", text);
        if (ask->session)
                lease_say_where(ask->db->db->name, ask->session->socket, &ask->error);
        ask_finish(ask, NULL);
}

/* Session lock held. */
static void ask_told(struct waiter *w) {
        struct async_ask *ask = container_of(w, struct async_ask, waiter);
        lessor_async *a = ask->db->async;

        pthread_mutex_lock(&a->inbox.lock);
        if (list_empty(&ask->told))
                list_push_back(&a->told, &ask->told);
        pthread_mutex_unlock(&a->inbox.lock);
        inbox_poke(&a->inbox);
}

static void ask_untell(struct async_ask *ask) {
        lessor_async *a = ask->db->async;

        pthread_mutex_lock(&a->inbox.lock);
        list_remove(&ask->told);
        pthread_mutex_unlock(&a->inbox.lock);
}

/* Nothing is told of it any more. */
static enum ask ask_leave(struct async_ask *ask) {
        enum ask result = session_ask_end(ask->session, &ask->waiter);

        ask_untell(ask);
        return result;
}

/* The grant is ours; NULL: the broker has cut it off already. */
static struct lessor_lease *ask_accept(struct async_ask *ask) {
        struct lessor_lease *l = ask->waiter.lease;

        if (!warm_accept(l, ask->request.site)) {
                warm_give_back(l, true);
                return NULL;
        }
        l->pinned = ask->request.pinned && l->set->control->max_pinned > 0;
        return l;
}

static void ask_again(struct async_ask *ask) {
        ask->state = ASYNC_ASK_WAITS;
        ask->session = session_unref(ask->session);
        ask_look_at(ask, ask->deadline);
}

static void ask_refused(struct async_ask *ask) {
        if (ask->state == ASYNC_ASK_WITHDRAWN)
                error_set(&ask->error, LESSOR_E_UNAVAILABLE, UNANSWERED);
        if (ask->session)
                lease_say_where(ask->db->db->name, ask->session->socket, &ask->error);
        ask_finish(ask, NULL);
}

static void ask_answered(struct async_ask *ask) {
        bool over = session_over(ask->session);
        enum ask result = ask_leave(ask);
        struct lessor_lease *l = result == ASK_GRANTED ? ask_accept(ask) : NULL;

        if (l && ask->cancelled) {
                async_give(ask->db->async, l);
                l = NULL;
        }
        if (ask->cancelled)
                ask_fail(ask, LESSOR_E_CANCELLED, "the request was taken back");
        else if (l)
                ask_finish(ask, l);
        else if (result == ASK_GRANTED || (result != ASK_REFUSED && over))
                ask_again(ask);
        else
                ask_refused(ask);
}

/* ---- asking --------------------------------------------------------------------------------------------------------- */

/* Has it ended meanwhile, or is there on it what nobody asked for? Nothing was sent yet, so another one may take its place. */
static bool is_alive(const struct lessor_lease *l) {
        char byte;

        return recv(l->stream.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EINTR);
}

struct lessor_lease *async_take_parked(lessor_async_db *db, const struct request *request) {
        struct warm_set *set = warm_current(db->db);
        struct lessor_lease *l;

        if (!set || (request->pinned && set->control->max_pinned > 0))
                return NULL;
        while ((l = warm_take(set, request->site)) && !is_alive(l)) {
                l->touched = true;
                l->broken = LESSOR_E_CONNECTION;
                lease_give(l);
        }
        return l;
}

static void ask_send(struct async_ask *ask, struct session *s, struct warm_set *set, uint64_t now) {
        struct lessor_msg_lease m = {.database = set->database, .tid = warm_thread_id()};
        const struct request *r = &ask->request;
        enum ask result;

        m.flags = r->pinned && set->control->max_pinned > 0 ? LESSOR_LEASE_PINNED : 0;
        m.wait_ns = time_left(now, ask->deadline);
        site_text(r->site, m.site);
        ask->session = session_ref(s);
        ask->state = ASYNC_ASK_SENT;
        result = session_ask_begin(s, &ask->waiter, &m, set, ask_told, &ask->error);
        if (result == ASK_GRANTED) {
                ask_look_at(ask, time_after(ask->deadline, SLACK_NS));
                return;
        }
        ask_untell(ask);
        if (result == ASK_UNSENT)
                ask_again(ask);
        else
                ask_refused(ask);
}

/* By the breaker, or for want of such a database: nobody is asked. NULL: it is answered. */
static struct warm_set *ask_where(struct async_ask *ask, struct session *s) {
        const struct lessor_control_database *control;
        struct warm_set *set;
        uint32_t database;

        if (client_place(s, ask->db->db, &database, &control, &ask->error) != 0 ||
            control_refusal(control, &ask->error) != 0) {
                ask_finish(ask, NULL);
                return NULL;
        }
        set = warm_set_for(ask->db->db, s, database, control);
        if (!set)
                ask_fail(ask, -ENOMEM, "out of memory");
        else if (ask->request.wait_ms < 0)
                ask->deadline = time_after(ask->began, control->wait_timeout_ns);
        return set;
}

static void ask_try(struct async_ask *ask, uint64_t now) {
        struct session *s = async_session(ask->db->async);
        struct warm_set *set = s ? ask_where(ask, s) : warm_current(ask->db->db);
        struct lessor_lease *l;

        if (!s && ask->db->async->hopeless) {
                ask->error = ask->db->async->trouble;
                ask_finish(ask, NULL);
                return;
        }
        if (!set)
                return;
        l = async_take_parked(ask->db, &ask->request);
        if (l)
                ask_finish(ask, l);
        else if (s)
                ask_send(ask, s, set, now);
}

void async_ask(struct async_ask *ask, const struct request *request) {
        lessor_async *a = ask->db->async;
        uint64_t now = clock_now();

        ask->request = *request;
        ask->state = ASYNC_ASK_WAITS;
        ask->began = now;
        ask->deadline = async_deadline(ask->db, now, request->wait_ms);
        ask->session = NULL;
        ask->lease = NULL;
        ask->cancelled = false;
        error_clear(&ask->error);
        list_init(&ask->told);
        list_init(&ask->link);
        list_push_back(&a->asks, &ask->link);
        a->in_flight += ask->own;
        ask_look_at(ask, ask->deadline);
        inbox_poke(&a->inbox);
}

void async_ask_drop(struct async_ask *ask) {
        lessor_async *a = ask->db->async;

        if (ask->state == ASYNC_ASK_SENT || ask->state == ASYNC_ASK_WITHDRAWN) {
                if (ask->state == ASYNC_ASK_SENT)
                        session_ask_cancel(ask->session, &ask->waiter);
                session_look(ask->session);
                if (ask_leave(ask) == ASK_GRANTED && (ask->lease = ask_accept(ask)))
                        ask->state = ASYNC_ASK_ANSWERED;
        }
        if (ask->state == ASYNC_ASK_ANSWERED && ask->lease)
                async_give(a, ptr_steal(&ask->lease));
        if (ask->state != ASYNC_ASK_NONE) {
                list_remove(&ask->link);
                a->in_flight -= ask->own;
        }
        ask->session = session_unref(ask->session);
        ask->state = ASYNC_ASK_NONE;
}

bool async_ask_cancel(struct async_ask *ask) {
        if (ask->state == ASYNC_ASK_NONE || ask->cancelled || (ask->state == ASYNC_ASK_ANSWERED && !ask->lease))
                return false;
        ask->cancelled = true;
        if (ask->state == ASYNC_ASK_SENT) {
                session_ask_cancel(ask->session, &ask->waiter);
                ask->state = ASYNC_ASK_WITHDRAWN;
                ask_look_at(ask, time_after(clock_now(), GRACE_NS));
        } else if (ask->state == ASYNC_ASK_WAITS) {
                ask_fail(ask, LESSOR_E_CANCELLED, "the request was taken back");
        } else if (ask->state == ASYNC_ASK_ANSWERED) {
                async_give(ask->db->async, ptr_steal(&ask->lease)); /* and it is answered by that */
                error_set(&ask->error, LESSOR_E_CANCELLED, "the request was taken back");
        }
        return true;
}

/* ---- the turn ------------------------------------------------------------------------------------------------------- */

static struct async_ask *told_take(lessor_async *a) {
        struct list *first;

        pthread_mutex_lock(&a->inbox.lock);
        first = list_first(&a->told);
        if (first)
                list_remove(first);
        pthread_mutex_unlock(&a->inbox.lock);
        return first ? container_of(first, struct async_ask, told) : NULL;
}

static void ask_expire(struct async_ask *ask, uint64_t now) {
        lessor_async *a = ask->db->async;

        switch (ask->state) {
        case ASYNC_ASK_WAITS:
                if (a->trouble.code == 0 && now < time_after(ask->deadline, SLACK_NS)) {
                        ask_look_at(ask, time_after(ask->deadline, SLACK_NS)); /* the first attach may take its time */
                } else if (a->trouble.code != 0) {
                        ask->error = a->trouble;
                        ask_finish(ask, NULL);
                } else {
                        ask_fail(ask, LESSOR_E_UNAVAILABLE, UNANSWERED);
                }
                break;
        case ASYNC_ASK_SENT:
                session_ask_cancel(ask->session, &ask->waiter);
                ask->state = ASYNC_ASK_WITHDRAWN;
                ask_look_at(ask, time_after(now, GRACE_NS));
                break;
        case ASYNC_ASK_WITHDRAWN:
                ask_answered(ask);
                break;
        case ASYNC_ASK_NONE:
        case ASYNC_ASK_ANSWERED:
                break;
        }
}

void asks_turn(lessor_async *a, uint64_t now) {
        struct async_ask *ask;

        while ((ask = told_take(a)))
                if (ask->state == ASYNC_ASK_SENT || ask->state == ASYNC_ASK_WITHDRAWN)
                        ask_answered(ask);
        list_for_each_safe (&a->asks, it, next) {
                ask = container_of(it, struct async_ask, link);
                if (ask->state == ASYNC_ASK_WAITS)
                        ask_try(ask, now);
        }
}

void asks_expire(lessor_async *a, uint64_t now) {
        list_for_each_safe (&a->asks, it, next) {
                struct async_ask *ask = container_of(it, struct async_ask, link);
                if (ask->look_at <= now)
                        ask_expire(ask, now);
                else
                        async_look_at(a, ask->look_at);
        }
}

unsigned asks_cancel(lessor_async *a, const void *data) {
        unsigned n = 0;

        list_for_each_safe (&a->asks, it, next) {
                struct async_ask *ask = container_of(it, struct async_ask, link);
                n += ask->own && ask->data == data && async_ask_cancel(ask);
        }
        list_for_each_safe (&a->answered, it, next) {
                struct async_ask *ask = container_of(it, struct async_ask, link);
                n += ask->own && ask->data == data && async_ask_cancel(ask);
        }
        return n;
}

static void ask_end(struct async_ask *ask) {
        lessor_error error;

        async_ask_drop(ask);
        error_set(&error, LESSOR_E_CANCELLED, "the loop has ended");
        ask->answered(ask, NULL, &error);
}

void asks_end(lessor_async *a) {
        while (!list_empty(&a->asks))
                ask_end(container_of(list_first(&a->asks), struct async_ask, link));
        while (!list_empty(&a->answered))
                ask_end(container_of(list_first(&a->answered), struct async_ask, link));
}

void asks_deliver(lessor_async *a, unsigned *budget) {
        while (*budget > 0 && !list_empty(&a->answered)) {
                struct async_ask *ask = container_of(list_first(&a->answered), struct async_ask, link);
                struct lessor_lease *lease = ptr_steal(&ask->lease);
                lessor_error error = ask->error;
                list_remove(&ask->link);
                ask->state = ASYNC_ASK_NONE;
                a->in_flight -= ask->own;
                (*budget)--;
                if (lease)
                        error_clear(&error);
                ask->answered(ask, lease, &error);
        }
}

void async_give(lessor_async *a, struct lessor_lease *lease) {
        bool before = session_never_waits;

        lease->touched = lease->touched || lease->raw || lease->broken;
        session_never_waits = true;
        lease_give(lease);
        session_never_waits = before;
        (void)a;
}

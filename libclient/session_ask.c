/* SPDX-License-Identifier: MIT */
/*
 * Many threads, one socket: leader and followers. Who asks registers a waiter under the lock, sends, and then
 * either waits on its condition or, if nobody reads, becomes the reader: it polls and receives without the lock,
 * hands each answer to the waiter of that number, and gives the role to the next when its own answer is there or
 * its deadline has passed. A thread that asks alone pays for nothing but sendmsg, poll, recvmsg.
 *
 * The broker answers every LEASE exactly once, so a deadline of ours passes only when it hangs. Then the request is
 * taken back (CANCEL), the broker gets GRACE to answer that, and the asker leaves an orphan behind: a grant that
 * comes later is given back by whoever reads it. If nobody is left who could read it (no lease held, no waiter), the
 * session is ended: the broker then takes everything back, and no place is lost to an idle process.
 */
#include <poll.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "error.h"
#include "io.h"
#include "session_core.h"
#include "step.h"
#include "ticket.h"
#include "warm.h"

#define GRACE_NS (100 * NS_PER_MS) /* for the answer to CANCEL */
#define UNANSWERED "the broker did not answer in time: it hangs, is stopped, or the host is overloaded"
#define RECEIVE_NS (uint64_t) SESSION_RECEIVE_MS *NS_PER_MS

_Thread_local bool session_never_waits __attribute__((tls_model("initial-exec")));

/* ---- who reads ------------------------------------------------------------------------------------------------------ */

/*
 * Waits for a packet and receives it. recvmsg() alone is a system call less than poll() and recvmsg(), which is a
 * tenth of a lease's time; but its timeout is the socket's and fixed, so it serves for the beginning of a wait
 * only.
 */
static bool session_wait(struct session *s, bool first, uint64_t deadline, struct arrival *ret) {
        int events;

        if (first && time_left(clock_now(), deadline) >= RECEIVE_NS) {
                session_receive(s, true, ret);
                return true;
        }
        events = io_poll(s->fd, POLLIN, deadline);
        if (events > 0)
                session_receive(s, false, ret);
        else
                ret->result = events < 0 ? events : -EAGAIN;
        return events != 0;
}

/* Lock held, but not while it waits. False: the deadline passed. */
static bool session_read(struct session *s, bool first, uint64_t deadline) {
        struct arrival a;
        bool in_time;

        s->reading = true;
        pthread_mutex_unlock(&s->lock);
        in_time = session_wait(s, first, deadline, &a);
        pthread_mutex_lock(&s->lock);
        s->reading = false;
        session_arrived(s, &a);
        return in_time;
}

static bool session_follow(struct session *s, struct waiter *w, uint64_t deadline) {
        struct timespec t = {.tv_sec = (time_t)(deadline / NS_PER_S), .tv_nsec = (long)(deadline % NS_PER_S)};

        if (deadline == TIME_NEVER)
                return pthread_cond_wait(&w->wake, &s->lock) == 0;
        return pthread_cond_timedwait(&w->wake, &s->lock, &t) == 0;
}

/* Lock held. What stands at this ticket has been granted to nobody who waits, or to its asker. */
static void session_take_ticket(struct session *s, uint32_t ticket, uint32_t database) {
        struct lessor_msg_grant g = ticket_grant(s, ticket, database);
        STEP("granted at the ticket");
        const char *wrong = session_granted(s, &g, -1);

        if (wrong)
                session_malformed(s, wrong);
}

/* Lock held. Answers at tickets whose askers have left. */
static void session_take_orphans(struct session *s) {
        for (uint32_t left = s->tickets_orphaned; left; left &= left - 1) {
                uint32_t ticket = (uint32_t)__builtin_ctz(left);
                uint32_t state = ticket_state(s, ticket);
                if (state == LESSOR_TICKET_EMPTY)
                        continue;
                s->tickets_orphaned &= ~(UINT32_C(1) << ticket);
                ticket_free(s, ticket);
                if (state != LESSOR_TICKET_GRANTED) /* the message will be dealt with as it comes */
                        continue;
                s->orphans--;
                session_attend(s);
                session_take_ticket(s, ticket, s->ticket_database[ticket]);
        }
}

/* Lock held, but not while it sleeps. False: the deadline has passed. */
static bool session_at_ticket(struct session *s, struct waiter *w, uint64_t deadline) {
        uint32_t state = ticket_state(s, w->ticket);
        uint64_t left;

        if (state == LESSOR_TICKET_GRANTED) {
                session_take_ticket(s, w->ticket, w->database);
                return true;
        }
        if (state != LESSOR_TICKET_EMPTY) {
                ticket_free(s, w->ticket);
                w->ticket = LESSOR_TICKET_NONE;
                return true;
        }
        left = deadline == TIME_NEVER ? TIME_NEVER : time_left(clock_now(), deadline);
        if (left == 0)
                return false;
        pthread_mutex_unlock(&s->lock);
        ticket_sleep(s, w->ticket, left);
        pthread_mutex_lock(&s->lock);
        if (ticket_state(s, w->ticket) == LESSOR_TICKET_EMPTY && !s->reading && !session_over(s))
                session_drain(s); /* has the broker gone away? */
        return true;
}

/* Lock held. Until the answer is there, the session is over, or the deadline has passed. */
static void session_await(struct session *s, struct waiter *w, uint64_t deadline) {
        bool in_time = true, first = true;

        while (in_time && !w->done && !session_over(s)) {
                if (w->ticket != LESSOR_TICKET_NONE) {
                        in_time = session_at_ticket(s, w, deadline);
                        continue;
                }
                in_time = s->reading ? session_follow(s, w, deadline) : session_read(s, first, deadline);
                first = false;
        }
}

/* Lock held. Those who sleep at tickets are not those who read: they come to the socket when they are told to. */
static void session_call_reader(struct session *s) {
        list_for_each (&s->waiters, it) {
                struct waiter *w = container_of(it, struct waiter, link);
                if (w->ticket == LESSOR_TICKET_NONE && !w->told) {
                        pthread_cond_signal(&w->wake);
                        return;
                }
        }
}

/* Lock held. Whoever leaves hands the reader's role on; a session with orphans that only parks is ended, see above. */
static void session_settle(struct session *s) {
        if (!s->reading)
                session_call_reader(s);
        if (s->orphans > 0 && list_empty(&s->waiters) && list_empty(&s->watches) && s->cold == 0 && !warm_any_busy(s))
                session_end_locked(s, LESSOR_E_UNAVAILABLE,
                                   "the broker did not answer in time; the session was given up");
}

static int waiter_init(struct waiter *w, uint32_t database, struct warm_set *set, lessor_error *error) {
        pthread_condattr_t attributes;
        int r;

        *w = (struct waiter){.database = database, .ticket = LESSOR_TICKET_NONE, .set = set, .error = error};
        list_init(&w->link);
        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        r = pthread_cond_init(&w->wake, &attributes);
        pthread_condattr_destroy(&attributes);
        return -r;
}

/* Lock held. */
static enum ask session_join(struct session *s, struct waiter *w) {
        if (session_over(s)) {
                error_set(w->error, atomic_load(&s->over), "%s", s->why);
                return ASK_UNSENT;
        }
        if (s->n_waiters + s->orphans >= s->requests_max) {
                error_set(w->error, LESSOR_E_LIMIT,
                          "this process has %u requests waiting already, the most the broker allows", s->requests_max);
                return ASK_FAILED;
        }
        w->request = ++s->last_request;
        /* Who has no fd yet will get one, by message. */
        if (!w->told && warm_keeps_any(w->set))
                w->ticket = ticket_take(s);
        list_push_back(&s->waiters, &w->link);
        s->n_waiters++;
        return ASK_GRANTED;
}

/* Lock held. Answered, or never asked: free. Else the broker still may write to it. */
static void session_leave_ticket(struct session *s, struct waiter *w, bool sent) {
        if (w->ticket == LESSOR_TICKET_NONE)
                return;
        if (w->done || !sent || session_over(s)) {
                ticket_free(s, w->ticket);
        } else {
                s->tickets_orphaned |= UINT32_C(1) << w->ticket;
                s->ticket_database[w->ticket] = w->database;
        }
}

/* Lock held. */
static enum ask session_leave(struct session *s, struct waiter *w, bool sent) {
        list_remove(&w->link);
        s->n_waiters--;
        session_leave_ticket(s, w, sent);
        if (!w->done && session_over(s)) {
                w->result = sent ? ASK_FAILED : ASK_UNSENT;
                error_set(w->error, atomic_load(&s->over), "%s", s->why);
        } else if (!w->done) {
                w->result = ASK_FAILED;
                s->orphans += sent;
                session_attend(s);
                error_set(w->error, LESSOR_E_UNAVAILABLE, UNANSWERED);
        }
        session_settle(s);
        return w->result;
}

/* Lock held. Another answer may have been on its way already; then it counts. */
static void session_take_back(struct session *s, struct waiter *w) {
        union wire_message m;

        wire_init(&m, LESSOR_MSG_CANCEL, w->request);
        m.cancel.database = w->database;
        session_send(s, &m, 0); /* if this fails too, the late answer is dealt with as an orphan's */
        session_await(s, w, time_after(clock_now(), GRACE_NS));
        if (w->done && w->result == ASK_REFUSED && w->error->code == LESSOR_E_CANCELLED)
                error_set(w->error, LESSOR_E_UNAVAILABLE, UNANSWERED);
}

static enum ask session_ask(struct session *s, struct waiter *w, const union wire_message *m, uint64_t deadline) {
        int r = session_send(s, m, deadline);
        enum ask result;

        if (r < 0 && r != -EAGAIN)
                session_lost(s, r);
        STEP("lease asked");
        pthread_mutex_lock(&s->lock);
        if (r == 0)
                session_await(s, w, deadline);
        if (r == 0 && !w->done && !session_over(s))
                session_take_back(s, w);
        result = session_leave(s, w, r == 0);
        pthread_mutex_unlock(&s->lock);
        return result;
}

enum ask session_lease(struct session *s, struct lessor_msg_lease *message, uint64_t deadline, struct warm_set *set,
                       struct lessor_lease **ret, lessor_error *error) {
        union wire_message m;
        struct waiter w;
        enum ask result;
        int r = waiter_init(&w, message->database, set, error);

        if (r < 0) {
                error_set(error, r, "a condition variable cannot be made: %s", lessor_outcome_text(r));
                return ASK_FAILED;
        }
        pthread_mutex_lock(&s->lock);
        result = session_join(s, &w);
        pthread_mutex_unlock(&s->lock);
        if (result == ASK_GRANTED) {
                wire_init(&m, LESSOR_MSG_LEASE, w.request);
                message->header = m.header;
                message->ticket = w.ticket;
                m.lease = *message;
                result = session_ask(s, &w, &m, deadline);
        }
        pthread_cond_destroy(&w.wake);
        if (result == ASK_GRANTED)
                *ret = w.lease;
        if (result == ASK_GRANTED)
                STEP("granted, not accepted");
        return result;
}

/* ---- a LEASE that nobody waits for ----------------------------------------------------------------------------------- */

enum ask session_ask_begin(struct session *s, struct waiter *w, struct lessor_msg_lease *message, struct warm_set *set,
                           void (*told)(struct waiter *), lessor_error *error) {
        union wire_message m;
        enum ask result;

        *w = (struct waiter){.database = message->database, .told = told, .set = set, .error = error};
        list_init(&w->link);
        pthread_mutex_lock(&s->lock);
        result = session_join(s, w);
        if (result == ASK_GRANTED) {
                wire_init(&m, LESSOR_MSG_LEASE, w->request);
                message->header = m.header;
                message->ticket = LESSOR_TICKET_NONE;
                m.lease = *message;
                if (session_push(s, &m) < 0)
                        result = session_leave(s, w, false);
        }
        pthread_mutex_unlock(&s->lock);
        return result;
}

void session_ask_cancel(struct session *s, struct waiter *w) {
        union wire_message m;

        wire_init(&m, LESSOR_MSG_CANCEL, w->request);
        m.cancel.database = w->database;
        session_post_later(s, &m);
}

enum ask session_ask_end(struct session *s, struct waiter *w) {
        enum ask result;

        pthread_mutex_lock(&s->lock);
        result = session_leave(s, w, !session_take_out(s, w->request));
        pthread_mutex_unlock(&s->lock);
        return result;
}

void session_watch(struct session *s, struct session_watch *w) {
        pthread_mutex_lock(&s->lock);
        list_push_back(&s->watches, &w->link);
        pthread_mutex_unlock(&s->lock);
}

void session_unwatch(struct session *s, struct session_watch *w) {
        pthread_mutex_lock(&s->lock);
        list_remove(&w->link);
        if (s->orphans > 0 && !s->reading && !session_over(s))
                session_drain(s);
        session_settle(s);
        pthread_mutex_unlock(&s->lock);
}

/* Lock not held. */
static void session_send_return(struct session *s, const union wire_message *m) {
        int r = 0;

        if (session_never_waits) {
                session_post_later(s, m);
                return;
        }
        if (!session_over(s))
                r = session_send(s, m, time_after(clock_now(), SESSION_SEND_NS));
        if (r < 0)
                session_lost(s, r);
}

void session_return(struct session *s, struct lessor_msg_return *message, bool cold) {
        bool used = session_hold(s);
        union wire_message m;

        wire_init(&m, LESSOR_MSG_RETURN, 0);
        message->header = m.header;
        m.giveback = *message;
        STEP("before RETURN");
        if (used)
                session_send_return(s, &m);
        STEP("RETURN sent");
        pthread_mutex_lock(&s->lock);
        s->cold -= cold;
        session_take_orphans(s);
        if (s->orphans > 0 && !s->reading && !session_over(s))
                session_drain(s);
        session_settle(s);
        pthread_mutex_unlock(&s->lock);
        if (used)
                session_unref(s);
}

int session_post(struct session *s, const union wire_message *message, uint64_t deadline) {
        int r;

        if (!session_hold(s))
                return -EPIPE;
        r = session_send(s, message, deadline);
        if (r < 0)
                session_lost(s, r);
        session_unref(s);
        return r;
}

void session_read_until(struct session *s, bool (*there)(struct session *, void *), void *data, uint64_t deadline) {
        bool in_time = true, first = true;
        struct waiter w;

        if (!session_hold(s))
                return;
        if (waiter_init(&w, 0, NULL, NULL) < 0) {
                session_unref(s);
                return;
        }
        w.done = true;
        pthread_mutex_lock(&s->lock);
        list_push_back(&s->waiters, &w.link);
        while (in_time && !session_over(s) && !there(s, data)) {
                in_time = s->reading ? session_follow(s, &w, deadline) : session_read(s, first, deadline);
                first = false;
        }
        list_remove(&w.link);
        session_settle(s);
        pthread_mutex_unlock(&s->lock);
        pthread_cond_destroy(&w.wake);
        session_unref(s);
}

void session_give_up(struct session *s, int code, const char *why) {
        pthread_mutex_lock(&s->lock);
        session_end_locked(s, code, why);
        pthread_mutex_unlock(&s->lock);
}

void session_report(struct session *s, struct lessor_msg_report *message) {
        union wire_message m;

        if (!session_hold(s))
                return;
        wire_init(&m, LESSOR_MSG_REPORT, 0);
        message->header = m.header;
        m.report = *message;
        if (!session_over(s))
                session_send(s, &m, 0);
        session_unref(s);
}

void session_look(struct session *s) {
        pthread_mutex_lock(&s->lock);
        session_flush_locked(s);
        session_take_orphans(s);
        if (!s->reading && !session_over(s))
                session_drain(s);
        session_settle(s);
        pthread_mutex_unlock(&s->lock);
}

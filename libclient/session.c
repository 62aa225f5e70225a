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
#include "session.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fdpass.h"
#include "error.h"
#include "io.h"
#include "step.h"
#include "ticket.h"
#include "warm.h"

#define GRACE_NS (100 * NS_PER_MS) /* for the answer to CANCEL */
#define UNANSWERED "the broker did not answer in time: it hangs, is stopped, or the host is overloaded"
#define RECEIVE_NS (uint64_t) SESSION_RECEIVE_MS *NS_PER_MS
#define SEND_NS (1 * NS_PER_S) /* a broker that does not read for so long is hung */

/* A message that waits until the broker reads. */
struct later {
        struct list link;
        union wire_message message;
};

_Thread_local bool session_never_waits __attribute__((tls_model("initial-exec")));
static atomic_uint serials;

struct session *session_new(const char *socket, int fd) {
        struct session *s = calloc(1, sizeof(*s));

        if (s)
                s->guard = guard_new(fd);
        if (!s || !s->guard) {
                free(s);
                fd_close(fd);
                return NULL;
        }
        atomic_init(&s->references, 1);
        atomic_init(&s->keepers, 1);
        s->epoch = fork_epoch();
        do
                s->serial = atomic_fetch_add(&serials, 1) + 1;
        while (s->serial == 0);
        s->fd = fd;
        snprintf(s->socket, sizeof(s->socket), "%s", socket);
        pthread_mutex_init(&s->lock, NULL);
        list_init(&s->waiters);
        list_init(&s->watches);
        list_init(&s->backlog);
        return s;
}

struct session *session_ref(struct session *s) {
        atomic_fetch_add_explicit(&s->references, 1, memory_order_relaxed);
        return s;
}

bool session_hold(struct session *s) {
        unsigned n = atomic_load_explicit(&s->references, memory_order_relaxed);

        while (n > 0 && !atomic_compare_exchange_weak_explicit(&s->references, &n, n + 1, memory_order_acquire,
                                                               memory_order_relaxed))
                ;
        return n > 0;
}

struct session *session_keep(struct session *s) {
        atomic_fetch_add_explicit(&s->keepers, 1, memory_order_relaxed);
        return s;
}

void session_drop(struct session *s) {
        /* acq_rel: what the others did happens before the memory goes. */
        if (atomic_fetch_sub_explicit(&s->keepers, 1, memory_order_acq_rel) > 1)
                return;
        /* A parent's: its memory is not mapped here. */
        if (s->epoch == fork_epoch()) {
                lanes_free(s);
                control_unmap(&s->control);
                segment_unmap(&s->segment);
                pthread_mutex_destroy(&s->lock);
        } else {
                lanes_forget(s);
        }
        list_for_each_safe (&s->backlog, it, next)
                free(container_of(it, struct later, link));
        warm_words_free(s);
        free(atomic_load_explicit(&s->sites, memory_order_relaxed));
        free(s);
}

/* No references, and nobody gets one any more. May be said twice. */
static void session_fade(struct session *s) {
        pthread_mutex_lock(&s->lock);
        shared_fade(s->control.page, s->control.size, PROT_READ);
        shared_fade(s->segment.base, s->segment.size, PROT_READ | PROT_WRITE);
        lanes_fade(s);
        pthread_mutex_unlock(&s->lock);
}

struct session *session_unref(struct session *s) {
        /* Sequentially consistent, pairs with session_retire(): one of the two sees the other. */
        if (!s || atomic_fetch_sub(&s->references, 1) > 1)
                return NULL;
        /* A parent's fds are closed here, and the numbers may be somebody else's by now. */
        if (s->epoch == fork_epoch()) {
                s->guard = guard_free(s->guard);
                lanes_hang_up(s);
                if (atomic_load(&s->retired))
                        session_fade(s);
        }
        session_drop(s);
        return NULL;
}

void session_retire(struct session *s) {
        if (s->epoch != fork_epoch())
                return;
        atomic_store(&s->retired, true);
        if (atomic_load(&s->references) == 0)
                session_fade(s);
}

static void waiter_wake(struct session *s, struct waiter *w) {
        if (w->told) {
                w->told(w);
                return;
        }
        if (w->ticket != LESSOR_TICKET_NONE)
                ticket_wake(s, w->ticket);
        pthread_cond_signal(&w->wake);
}

static void session_tell_watches(struct session *s) {
        list_for_each (&s->watches, it) {
                struct session_watch *w = container_of(it, struct session_watch, link);
                w->told(w);
        }
}

/* Lock held. The fd is shut down, not closed: others may be polling it; that wakes them, and tells the broker. */
static void session_end_locked(struct session *s, int code, const char *why) {
        if (session_over(s))
                return;
        snprintf(s->why, sizeof(s->why), "%s", why);
        atomic_store_explicit(&s->over, code, memory_order_release); /* pairs with session_over() */
        atomic_store_explicit(&s->attention, 1, memory_order_relaxed);
        shutdown(s->fd, SHUT_RDWR);
        lanes_end(s);
        list_for_each (&s->waiters, it)
                waiter_wake(s, container_of(it, struct waiter, link));
        session_tell_watches(s);
}

/* 0, or -errno; waits at most until the deadline for a broker that is slow to read. */
static int session_send(struct session *s, const union wire_message *message, uint64_t deadline) {
        for (;;) {
                int r = fdpass_send(s->fd, message, message->header.size, NULL, 0);
                if (r != -EAGAIN || deadline == 0)
                        return r;
                r = io_poll(s->fd, POLLOUT, deadline);
                if (r <= 0)
                        return r == 0 ? -EAGAIN : r;
        }
}

static struct waiter *session_find(struct session *s, uint64_t request) {
        list_for_each (&s->waiters, it) {
                struct waiter *w = container_of(it, struct waiter, link);
                if (w->request == request && !w->done)
                        return w;
        }
        return NULL;
}

static void waiter_answer(struct session *s, struct waiter *w, enum ask result) {
        w->result = result;
        w->done = true;
        waiter_wake(s, w);
}

/* A grant that nobody waits for, or whose fd did not arrive: unused, so clean. Cannot wait: the lock is held. */
static void session_give_back(struct session *s, const struct lessor_msg_grant *g, bool kept) {
        union wire_message m;

        wire_init(&m, LESSOR_MSG_RETURN, 0);
        m.giveback.database = g->database;
        m.giveback.slot = g->slot;
        m.giveback.generation = g->generation;
        m.giveback.lease = g->lease;
        m.giveback.flags = LESSOR_RETURN_CLEAN | (kept ? LESSOR_RETURN_KEPT : 0);
        if (session_send(s, &m, 0) < 0)
                session_end_locked(s, LESSOR_E_UNAVAILABLE, "the broker reads no more messages: it hangs or is gone");
}

/* Lock held, likewise below. `fd` is taken; -1: there was none, or it was lost on the way. NULL, or what is wrong. */
static const char *session_granted(struct session *s, const struct lessor_msg_grant *g, int fd) {
        struct waiter *w = session_find(s, g->header.request);
        int r;

        if (!w) {
                session_give_back(s, g, warm_orphaned(s, g, fd));
                return NULL;
        }
        r = warm_granted(s, w->set, g, fd, &w->lease);
        if (r == 0) {
                s->cold += g->word == LESSOR_WORD_NONE;
                waiter_answer(s, w, ASK_GRANTED);
                return NULL;
        }
        if (r == -EPROTO)
                return "a grant that does not fit what was granted before";
        session_give_back(s, g, false);
        error_set(w->error, r, "%s",
                  r == -EMFILE ? "no fd free for the granted connection: raise RLIMIT_NOFILE" : "out of memory");
        waiter_answer(s, w, ASK_FAILED);
        return NULL;
}

/* Whoever does not wait for an answer, but for something to happen, looks whether it has. */
static void session_stir(struct session *s) {
        list_for_each (&s->waiters, it) {
                struct waiter *w = container_of(it, struct waiter, link);
                if (w->done && w->request == 0)
                        pthread_cond_signal(&w->wake);
        }
        session_tell_watches(s);
}

static void session_refused(struct session *s, const struct lessor_msg_error *e) {
        struct waiter *w = session_find(s, e->header.request);

        if (!w && lanes_refused(s, e))
                session_stir(s);
        if (w) {
                error_set(w->error, e->outcome, "%s", e->text);
                error_retry(w->error, e->retry_ns);
                waiter_answer(s, w, ASK_REFUSED);
        }
        if (e->flags & LESSOR_FATAL)
                session_end_locked(s, e->outcome, e->text);
}

/* Lock held. */
static void session_attend(struct session *s) {
        atomic_store_explicit(&s->attention, s->orphans > 0 || session_over(s), memory_order_relaxed);
}

/* NULL: it may be dealt with. An answer to no waiter's question is for one who has asked and left, if any has. */
static const char *session_check(struct session *s, const union wire_message *m) {
        struct waiter *w = session_find(s, m->header.request);

        if (m->header.type != LESSOR_MSG_GRANT && m->header.type != LESSOR_MSG_ERROR)
                return "a message out of order";
        if (m->header.type == LESSOR_MSG_ERROR && lanes_asked(s, m->header.request))
                return NULL;
        if (m->header.type == LESSOR_MSG_GRANT && w && w->database != m->grant.database)
                return "a grant for another database than was asked for";
        if (!w && m->header.request != 0) {
                if (s->orphans == 0)
                        return "an answer to a question that was not asked";
                s->orphans--;
                session_attend(s);
        }
        return NULL;
}

static int arrival_fd(struct fdpass_packet *p, unsigned i) { return i < p->n_fds ? fd_steal(&p->fds[i]) : -1; }

/* Lock held. NULL, or what is wrong. False in *ret_mine: it is none of the lanes'. */
static const char *session_lanes(struct session *s, const union wire_message *m, struct fdpass_packet *p,
                                 bool *ret_mine) {
        const char *wrong = NULL;

        *ret_mine = true;
        if (m->header.type == LESSOR_MSG_LANE_OPENED)
                wrong = lanes_opened(s, &m->lane_opened, arrival_fd(p, 0), arrival_fd(p, 1));
        else if (m->header.type == LESSOR_MSG_LANE_REPLY)
                wrong = lanes_replied(s, &m->lane_reply, arrival_fd(p, 0));
        else if (m->header.type == LESSOR_MSG_LANE_WAKE)
                wrong = lanes_woken(s, &m->lane_wake);
        else
                *ret_mine = false;
        if (*ret_mine)
                session_stir(s);
        return wrong;
}

static void session_malformed(struct session *s, const char *what) {
        char why[LESSOR_TEXT_SIZE];
        snprintf(why, sizeof(why), "the broker sent what the protocol does not allow: %s", what);
        session_end_locked(s, LESSOR_E_PROTOCOL, why);
}

/* What fdpass made of one packet, checked. */
struct arrival {
        int result; /* 0, -errno of receiving it */
        struct fdpass_packet packet;
        union wire_message message;
        const char *wrong; /* NULL: a message of the protocol */
};

/* A message whose fds we had no room for is a good message: it must be told apart, and dealt with. */
static unsigned session_fds_lost(const union wire_message *m, unsigned n_fds) {
        unsigned expected = 0;

        if (m->header.type == LESSOR_MSG_GRANT || m->header.type == LESSOR_MSG_LANE_REPLY)
                expected = 1;
        else if (m->header.type == LESSOR_MSG_LANE_OPENED)
                expected = 2;
        return expected > n_fds ? expected - n_fds : 0;
}

/* Without the lock: only the reader, or whoever holds the lock while there is none, receives. */
static void session_receive(struct session *s, bool wait, struct arrival *ret) {
        union wire_message buffer;
        struct fdpass_packet *p = &ret->packet;
        unsigned lost;

        ret->result = wait ? fdpass_wait(s->fd, &buffer, sizeof(buffer), p)
                           : fdpass_receive(s->fd, &buffer, sizeof(buffer), p);
        if (ret->result < 0 || p->size == 0)
                return;
        lost = p->fds_lost && p->size >= sizeof(buffer.header) ? session_fds_lost(&buffer, p->n_fds) : 0;
        ret->wrong = p->cut ? "a message too long"
                            : wire_decode(WIRE_FROM_BROKER, &buffer, p->size, p->n_fds + lost, &ret->message);
}

/* Lock held. True: it was a message. False: there was none, or the session is over. */
static bool session_arrived(struct session *s, struct arrival *a) {
        bool lanes = false;

        /* A reset is told once, before what was still sent to us: read on. */
        if (a->result == -EAGAIN || a->result == -EINTR || a->result == -ECONNRESET)
                return false;
        if (a->result < 0 || a->packet.size == 0) {
                session_end_locked(s, LESSOR_E_UNAVAILABLE, "the broker has gone away");
                return false;
        }
        if (!a->wrong)
                a->wrong = session_lanes(s, &a->message, &a->packet, &lanes);
        if (!a->wrong && !lanes)
                a->wrong = session_check(s, &a->message);
        if (a->wrong || lanes)
                ;
        else if (a->message.header.type == LESSOR_MSG_GRANT)
                a->wrong =
                        session_granted(s, &a->message.grant, a->packet.n_fds > 0 ? fd_steal(&a->packet.fds[0]) : -1);
        else
                session_refused(s, &a->message.error);
        if (a->wrong)
                session_malformed(s, a->wrong);
        fdpass_close(&a->packet);
        return !a->wrong;
}

/* Lock held, and nobody reads. Everything that is there. */
static void session_drain(struct session *s) {
        struct arrival a;
        do
                session_receive(s, false, &a);
        while (session_arrived(s, &a));
}

/* Lock held. A message could not be sent. If the broker has said why it hung up, that is the reason to give. */
static void session_lost_locked(struct session *s, int error) {
        char why[LESSOR_TEXT_SIZE] = "the broker has gone away";

        if (error == -EAGAIN)
                snprintf(why, sizeof(why), "the broker reads no more messages: it hangs or is stopped");
        else if (error != -EPIPE && error != -ECONNRESET)
                snprintf(why, sizeof(why), "the session failed: %s", lessor_outcome_text(error));
        if ((error == -EPIPE || error == -ECONNRESET) && !s->reading && !session_over(s))
                session_drain(s);
        session_end_locked(s, LESSOR_E_UNAVAILABLE, why);
}

static void session_lost(struct session *s, int error) {
        pthread_mutex_lock(&s->lock);
        session_lost_locked(s, error);
        pthread_mutex_unlock(&s->lock);
}

/* ---- what is sent without waiting ---------------------------------------------------------------------------------- */

/* Lock held. 0: it is sent, or will be. */
static int session_push(struct session *s, const union wire_message *message) {
        struct later *later;
        int r = -EAGAIN;

        if (session_over(s))
                return -EPIPE;
        if (list_empty(&s->backlog))
                r = session_send(s, message, 0);
        if (r == -EAGAIN) {
                later = malloc(sizeof(*later));
                r = later ? 0 : -ENOMEM;
                if (later) {
                        later->message = *message;
                        list_push_back(&s->backlog, &later->link);
                        session_tell_watches(s);
                }
        }
        if (r < 0)
                session_lost_locked(s, r);
        return r;
}

/* Lock held. */
static void session_flush_locked(struct session *s) {
        while (!list_empty(&s->backlog) && !session_over(s)) {
                struct later *later = container_of(list_first(&s->backlog), struct later, link);
                int r = session_send(s, &later->message, 0);
                if (r == -EAGAIN)
                        return;
                list_remove(&later->link);
                free(later);
                if (r < 0)
                        session_lost_locked(s, r);
        }
}

/* Lock held. It was never sent. */
static bool session_take_out(struct session *s, uint64_t request) {
        list_for_each (&s->backlog, it) {
                struct later *later = container_of(it, struct later, link);
                if (later->message.header.type != LESSOR_MSG_LEASE || later->message.header.request != request)
                        continue;
                list_remove(it);
                free(later);
                return true;
        }
        return false;
}

int session_post_later(struct session *s, const union wire_message *message) {
        int r;

        pthread_mutex_lock(&s->lock);
        r = session_push(s, message);
        pthread_mutex_unlock(&s->lock);
        return r;
}

bool session_flush(struct session *s) {
        bool left;

        pthread_mutex_lock(&s->lock);
        session_flush_locked(s);
        left = !list_empty(&s->backlog) && !session_over(s);
        pthread_mutex_unlock(&s->lock);
        return left;
}

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
                r = session_send(s, m, time_after(clock_now(), SEND_NS));
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

/* SPDX-License-Identifier: MIT */
/*
 * A session's messages, both ways. What the broker says is for one who asked, for a lane, or for one who has asked and left;
 * anything else ends the session.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "error.h"
#include "io.h"
#include "session_core.h"
#include "ticket.h"
#include "warm.h"

void session_waiter_wake(struct session *s, struct waiter *w) {
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
void session_end_locked(struct session *s, int code, const char *why) {
        if (session_over(s))
                return;
        snprintf(s->why, sizeof(s->why), "%s", why);
        atomic_store_explicit(&s->over, code, memory_order_release); /* pairs with session_over() */
        atomic_store_explicit(&s->attention, 1, memory_order_relaxed);
        shutdown(s->fd, SHUT_RDWR);
        lanes_end(s);
        list_for_each (&s->waiters, it)
                session_waiter_wake(s, container_of(it, struct waiter, link));
        session_tell_watches(s);
}

/* 0, or -errno; waits at most until the deadline for a broker that is slow to read. */
int session_send(struct session *s, const union wire_message *message, uint64_t deadline) {
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
        session_waiter_wake(s, w);
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
const char *session_granted(struct session *s, const struct lessor_msg_grant *g, int fd) {
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
void session_attend(struct session *s) {
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

void session_malformed(struct session *s, const char *what) {
        char why[LESSOR_TEXT_SIZE];
        snprintf(why, sizeof(why), "the broker sent what the protocol does not allow: %s", what);
        session_end_locked(s, LESSOR_E_PROTOCOL, why);
}

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
void session_receive(struct session *s, bool wait, struct arrival *ret) {
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
bool session_arrived(struct session *s, struct arrival *a) {
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
void session_drain(struct session *s) {
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

void session_lost(struct session *s, int error) {
        pthread_mutex_lock(&s->lock);
        session_lost_locked(s, error);
        pthread_mutex_unlock(&s->lock);
}

/* ---- what is sent without waiting ---------------------------------------------------------------------------------- */

/* Lock held. 0: it is sent, or will be. */
int session_push(struct session *s, const union wire_message *message) {
        struct session_later *later;
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
void session_flush_locked(struct session *s) {
        while (!list_empty(&s->backlog) && !session_over(s)) {
                struct session_later *later = container_of(list_first(&s->backlog), struct session_later, link);
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
bool session_take_out(struct session *s, uint64_t request) {
        list_for_each (&s->backlog, it) {
                struct session_later *later = container_of(it, struct session_later, link);
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

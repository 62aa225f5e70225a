/* SPDX-License-Identifier: MIT */
/*
 * A call's way: a place in the table, with a tag that was never used before; submitted under that tag; completed under it;
 * done. What comes back with a tag that is under way is believed, everything else that stands in the lane is not: an
 * unknown tag, bytes outside the area, one answer too many end the session, for nothing that follows can be told apart.
 *
 * A caller who leaves at his deadline leaves the place behind: it is free again when the broker has answered, and so a late
 * answer is never taken for another call's.
 */
#include "lane.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/futex.h"
#include "error.h"
#include "session.h"

/* Nobody wakes those who sleep here when the broker dies: so often they look whether it is there. */
#define LANE_GLANCE_NS SESSION_GLANCE_NS

enum { ASLEEP = 0, CALLED_TO_LEAD = 1, CALLED_OFF = 2 }; /* a follower's word */

void lane_call_deinit(struct lane_call *call) {
        if (call->reply)
                freeReplyObject(call->reply);
        call->reply = NULL;
        free(ptr_steal(&call->text));
        call->apart_fd = fd_close(call->apart_fd);
}

void lane_leave(struct lane_client *l) {
        int bad = l->bad;

        l->bad = 0;
        pthread_mutex_unlock(&l->lock);
        if (bad)
                session_give_up(l->session, bad,
                                "what stands in a lane cannot be: it was written over, or the broker errs");
}

/* An eventfd that nobody reads: one write, one wake-up. */
void lane_ring(struct lane_client *l) {
        uint64_t one = 1;
        int keep = errno;

        if (!session_hold(l->session))
                return;
        while (write(guard_fd(l->doorbell), &one, sizeof(one)) < 0 && errno == EINTR)
                ;
        session_unref(l->session);
        errno = keep;
}

/* ---- places ------------------------------------------------------------------------------------------------------ */

struct lane_slot *lane_slot_of(struct lane_client *l, uint64_t tag) {
        struct lane_slot *slot = &l->slots[tag % LANE_ENTRIES_MAX];
        return slot->state != LANE_SLOT_FREE && slot->tag == tag ? slot : NULL;
}

static void slot_free(struct lane_client *l, struct lane_slot *slot) {
        slot->apart_fd = fd_close(slot->apart_fd);
        slot->apart_size = 0;
        slot->call = NULL;
        slot->state = LANE_SLOT_FREE;
        l->free[l->n_free++] = (uint8_t)(slot - l->slots);
}

/* A new tag; the place is taken by slot_take(). */
static struct lane_slot *slot_next(struct lane_client *l) {
        struct lane_slot *slot = &l->slots[l->free[l->n_free - 1]];
        slot->tag += LANE_ENTRIES_MAX;
        return slot;
}

static void slot_take(struct lane_client *l, struct lane_slot *slot, struct lane_call *call, uint64_t position) {
        l->n_free--;
        slot->call = call;
        slot->state = LANE_SLOT_SENT;
        slot->position = call->position = position;
        call->tag = slot->tag;
        call->under_way = true;
        l->queued += call->tid != 0;
}

/* The call leaves its place, whatever happens to that. */
static void slot_let_go(struct lane_client *l, struct lane_slot *slot) {
        struct lane_call *call = slot->call;

        l->queued -= call->tid != 0;
        slot->call = NULL;
        call->under_way = false;
        if (call->after)
                lane_waiter_done(l, ptr_steal(&call->after));
}

enum lane_submit lane_client_submit(struct lane_client *l, struct lane_call *call, uint64_t deadline, const char *data,
                                    size_t size) {
        struct lane_request request = {.deadline_ns = deadline, .database = call->database, .length = (uint32_t)size};
        struct lane_slot *slot;
        enum lane_submit r;
        uint64_t position;

        if (size > LANE_AREA_MAX)
                return LANE_SUBMIT_TOO_LARGE;
        if (l->over || l->n_free == 0)
                return LANE_SUBMIT_FULL;
        slot = slot_next(l);
        request.tag = slot->tag;
        r = lane_submit(&l->worker, &request, data, &position);
        call->after = NULL;
        call->apart_fd = -1;
        call->apart_size = 0;
        call->outcome = 0;
        call->may_have_run = call->under_way = call->fetching = call->over = false;
        call->reply = NULL;
        call->text = NULL;
        if (r == LANE_SUBMIT_DONE)
                slot_take(l, slot, call, position);
        return r;
}

bool lane_take_back(struct lane_client *l, struct lane_call *call) {
        struct lane_slot *slot = lane_slot_of(l, call->tag);

        if (!slot || slot->state != LANE_SLOT_SENT || !lane_cancel(&l->worker, slot->position))
                return false;
        slot_let_go(l, slot);
        slot_free(l, slot);
        return true;
}

void lane_abandon(struct lane_client *l, struct lane_call *call) {
        struct lane_slot *slot = lane_slot_of(l, call->tag);

        if (slot && slot->call == call)
                slot_let_go(l, slot);
        if (slot && slot->state == LANE_SLOT_APART && slot->apart_size > 0)
                slot_free(l, slot);
}

/* ---- what comes back --------------------------------------------------------------------------------------------- */

static void call_done(struct lane_client *l, struct lane_slot *slot) {
        struct lane_call *call = slot->call;

        slot_let_go(l, slot);
        slot_free(l, slot);
        if (call->fetching)
                call->fetching = false;
        else
                call->party->done(call);
}

static void call_fail(struct lane_call *call, int outcome, bool may_have_run, const char *text, size_t length) {
        call->outcome = outcome;
        call->may_have_run = may_have_run;
        if (length > 0)
                call->text = strndup(text, length < LESSOR_TEXT_SIZE ? length : LESSOR_TEXT_SIZE - 1);
}

/* An errno of the broker's is none of ours. */
static void call_refused(struct lane_call *call, const struct lane_answer *a) {
        call_fail(call, a->outcome > 0 ? a->outcome : LESSOR_E_PROTOCOL, a->flags & LANE_MAY_HAVE_RUN, a->data,
                  a->length);
}

static void call_answered(struct lane_client *l, struct lane_call *call, const struct lane_answer *a) {
        int r = lane_parse(&l->reader, a->data, a->length, &call->reply);
        if (r != 0)
                call_fail(call, r, true, NULL, 0);
}

void lane_slot_apart(struct lane_client *l, struct lane_slot *slot) {
        struct lane_call *call = slot->call;

        if (!call) {
                slot_free(l, slot);
                return;
        }
        call->apart_fd = fd_steal(&slot->apart_fd);
        call->apart_size = slot->apart_size;
        call_done(l, slot);
}

/* The completion says so: the message is here already, or will be. */
static void deliver_apart(struct lane_client *l, struct lane_slot *slot) {
        struct lane_call *call = slot->call;

        slot->state = LANE_SLOT_APART;
        if (slot->apart_size > 0) {
                lane_slot_apart(l, slot);
        } else if (call) {
                call->party->comes_apart(call);
        }
}

/* False: no honest broker says that. */
static bool deliver(struct lane_client *l, const struct lane_answer *a) {
        struct lane_slot *slot = lane_slot_of(l, a->tag);
        bool apart = a->outcome == 0 && a->flags & LANE_REPLY_APART;

        if (!slot || slot->state != LANE_SLOT_SENT || (!apart && slot->apart_size > 0))
                return false;
        if (apart) {
                deliver_apart(l, slot);
        } else if (!slot->call) {
                slot_free(l, slot);
        } else {
                if (a->outcome != 0)
                        call_refused(slot->call, a);
                else
                        call_answered(l, slot->call, a);
                call_done(l, slot);
        }
        return true;
}

/* False: bad. At most so many as can be under way: who scribbles over the lane keeps nobody busy for ever. */
static bool reap(struct lane_client *l) {
        for (unsigned i = 0; i <= LANE_ENTRIES_MAX; i++) {
                struct lane_answer a;
                bool good;
                switch (lane_reap(&l->worker, &a)) {
                case LANE_REAP_NOTHING:
                        return true;
                case LANE_REAP_BAD:
                        return false;
                case LANE_REAP_DONE:
                        good = deliver(l, &a);
                        if (lane_release(&l->worker))
                                lane_ring(l);
                        if (!good)
                                return false;
                        break;
                }
        }
        return true;
}

void lane_reap_all(struct lane_client *l) {
        if (l->over || reap(l))
                return;
        l->bad = LESSOR_E_PROTOCOL;
        lane_fail_all(l, l->bad, "what stands in the lane cannot be: it was written over, or the broker errs");
}

void lane_fail_all(struct lane_client *l, int code, const char *why) {
        l->over = true;
        for (unsigned i = 0; i < LANE_ENTRIES_MAX; i++) {
                struct lane_slot *slot = &l->slots[i];
                bool sent;
                if (slot->state == LANE_SLOT_FREE)
                        continue;
                sent = slot->state == LANE_SLOT_APART || !lane_cancel(&l->worker, slot->position);
                if (!slot->call) {
                        slot_free(l, slot);
                        continue;
                }
                slot->call->over = true;
                call_fail(slot->call, code, sent, why, strlen(why));
                call_done(l, slot);
        }
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

/* The last thing that is done to a waiter: it may be gone as soon as its word says so. */
static void waiter_call(struct lane_waiter *w, uint32_t what) {
        list_remove(&w->link);
        /* Release, pairs with follow(): what became of its calls is there. */
        atomic_store_explicit(&w->word, what, memory_order_release);
        futex_wake(&w->word);
}

void lane_waiter_done(struct lane_client *l, struct lane_waiter *w) {
        if (--w->left > 0)
                return;
        if (w != l->leader)
                waiter_call(w, CALLED_OFF);
        else if (l->leader_sleeps)
                futex_wake(lane_futex(&l->worker));
}

/* The leader, with nothing to reap. False: the deadline has passed. */
static bool lead_asleep(struct lane_client *l, uint64_t deadline) {
        uint64_t left = time_left(clock_now(), deadline);
        uint32_t value;

        if (left == 0)
                return false;
        if (!lane_wait(&l->worker, LANE_WAITING_FUTEX, &value))
                return true;
        l->leader_sleeps = true;
        lane_leave(l);
        futex_wait(lane_futex(&l->worker), value, left < LANE_GLANCE_NS ? left : LANE_GLANCE_NS);
        if (atomic_load_explicit(lane_futex(&l->worker), memory_order_relaxed) == value)
                session_glance(l->session, clock_now());
        lane_enter(l);
        l->leader_sleeps = false;
        if (!l->over)
                lane_awake(&l->worker);
        return true;
}

/* Hands the role on. */
static void resign(struct lane_client *l) {
        struct list *first = list_first(&l->followers);

        l->leader = NULL;
        if (first) {
                l->leader = container_of(first, struct lane_waiter, link);
                waiter_call(l->leader, CALLED_TO_LEAD);
        } else {
                lane_settle(l);
        }
}

static bool lead(struct lane_client *l, struct lane_waiter *w, uint64_t deadline) {
        bool in_time = true;

        l->leader = w;
        for (;;) {
                lane_reap_all(l);
                if (w->left == 0 || !in_time)
                        break;
                in_time = lead_asleep(l, deadline);
        }
        resign(l);
        return w->left == 0;
}

enum followed { FOLLOWED_OFF, FOLLOWED_LATE, FOLLOWED_ON };

/* FOLLOWED_OFF: without the lock. */
static enum followed follow(struct lane_client *l, struct lane_waiter *w, uint64_t deadline) {
        uint64_t left = time_left(clock_now(), deadline);

        if (left == 0)
                return FOLLOWED_LATE;
        atomic_store_explicit(&w->word, ASLEEP, memory_order_relaxed);
        list_push_back(&l->followers, &w->link);
        lane_leave(l);
        futex_wait(&w->word, ASLEEP, left);
        /* Acquire, pairs with waiter_call(). */
        if (atomic_load_explicit(&w->word, memory_order_acquire) == CALLED_OFF)
                return FOLLOWED_OFF;
        lane_enter(l);
        list_remove(&w->link);
        return FOLLOWED_ON;
}

bool lane_await(struct lane_client *l, struct lane_waiter *w, uint64_t deadline) {
        while (w->left > 0) {
                enum followed f;
                if (!l->leader || l->leader == w) {
                        if (!lead(l, w, deadline))
                                return false;
                        continue;
                }
                f = follow(l, w, deadline);
                if (f == FOLLOWED_OFF)
                        return true;
                if (f == FOLLOWED_LATE)
                        return false;
        }
        lane_leave(l);
        return true;
}

void lane_settle(struct lane_client *l) {
        uint32_t value;

        if (l->leader)
                return;
        while (!l->over && !list_empty(&l->armed) && !lane_wait(&l->worker, LANE_WAITING_MESSAGE, &value))
                lane_reap_all(l);
}

/* ---- order ------------------------------------------------------------------------------------------------------- */

static void order_begin(struct lane_client *l, struct lane_waiter *w, uint32_t database, int32_t tid) {
        for (unsigned i = 0; i < LANE_ENTRIES_MAX; i++) {
                struct lane_call *call = l->slots[i].call;
                if (call && call->tid == tid && call->database == database) {
                        call->after = w;
                        w->left++;
                }
        }
}

static void order_give_up(struct lane_client *l, const struct lane_waiter *w) {
        for (unsigned i = 0; i < LANE_ENTRIES_MAX; i++)
                if (l->slots[i].call && l->slots[i].call->after == w)
                        l->slots[i].call->after = NULL;
}

bool lane_await_order(struct lane_client *l, uint32_t database, int32_t tid, uint64_t deadline) {
        struct lane_waiter w;
        bool in_time;

        lane_waiter_init(&w, 0);
        lane_enter(l);
        if (l->queued > 0)
                order_begin(l, &w, database, tid);
        in_time = lane_await(l, &w, deadline);
        if (!in_time) {
                order_give_up(l, &w);
                lane_leave(l);
        }
        return in_time;
}

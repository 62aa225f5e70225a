/* SPDX-License-Identifier: MIT */
/*
 * How a session comes to its lanes, one for each of the broker's data threads, and what messages say about them. A lane is
 * asked for once, by the first thread that has use for it; it is published when it is open, and stays until the session's
 * last reference is gone. A thread that is refused one, or whose lane we cannot use, has none for a while: leases serve.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "client.h"
#include "error.h"
#include "inbox.h"
#include "lane.h"
#include "session.h"

#define RETRY_NS (10 * NS_PER_S) /* before a lane that was refused is asked for again, at least */

struct lane_client *lane_find(struct session *s, uint32_t thread) {
        if (thread >= LESSOR_THREADS_MAX)
                return NULL;
        /* Acquire, pairs with the release in lanes_opened(). */
        return atomic_load_explicit(&s->lanes[thread].client, memory_order_acquire);
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

static bool is_answered(struct session *s, void *lane) {
        (void)s;
        return ((struct session_lane *)lane)->request == 0;
}

/* 0: *ret is what to ask; -EALREADY: another thread has asked, or has it by now; or the code of *error. */
static int lane_ask(struct session *s, struct session_lane *lane, uint64_t now, uint64_t *ret, lessor_error *error) {
        int r = 0;

        pthread_mutex_lock(&s->lock);
        if (session_over(s))
                r = error_set(error, LESSOR_E_UNAVAILABLE, "%s", s->why);
        else if (lane->request != 0 || atomic_load_explicit(&lane->client, memory_order_relaxed))
                r = -EALREADY;
        else if (!s->lanes_offered || now < lane->retry)
                r = error_set(error, LESSOR_E_NEEDS_LEASE, "the broker on %s offers no lane now", s->socket);
        else
                *ret = lane->request = ++s->last_request;
        pthread_mutex_unlock(&s->lock);
        return r;
}

static int lane_await_opening(struct session *s, uint32_t thread, uint64_t deadline, struct lane_client **ret,
                              lessor_error *error) {
        struct lane_client *l;

        session_read_until(s, is_answered, &s->lanes[thread], deadline);
        l = lane_find(s, thread);
        if (!l)
                return error_set(error, LESSOR_E_NEEDS_LEASE, "the broker on %s gave no lane, or not in time",
                                 s->socket);
        *ret = l;
        return 0;
}

int lane_get(struct session *s, uint32_t thread, uint64_t deadline, bool wait, struct lane_client **ret,
             lessor_error *error) {
        struct lane_client *l = lane_find(s, thread);
        uint64_t now, request = 0;
        union wire_message m;
        int r;

        if (l) {
                *ret = l;
                return 0;
        }
        if (thread >= LESSOR_THREADS_MAX)
                return error_set(error, LESSOR_E_NEEDS_LEASE, "there are no lanes to thread %u", thread);
        now = clock_now();
        if (deadline > time_after(now, SLACK_NS))
                deadline = time_after(now, SLACK_NS);
        r = lane_ask(s, &s->lanes[thread], now, &request, error);
        if (r == 0) {
                wire_init(&m, LESSOR_MSG_LANE, request);
                m.lane.thread = thread;
                session_post(s, &m, deadline);
        } else if (r != -EALREADY) {
                return r;
        } else if (!wait) {
                return error_set(error, LESSOR_E_NEEDS_LEASE, "the lane is being opened");
        }
        return lane_await_opening(s, thread, deadline, ret, error);
}

int lane_get_now(struct session *s, uint32_t thread, struct lane_client **ret, lessor_error *error) {
        struct lane_client *l = lane_find(s, thread);
        uint64_t request = 0;
        union wire_message m;
        int r;

        if (l) {
                *ret = l;
                return 0;
        }
        if (thread >= LESSOR_THREADS_MAX)
                return error_set(error, LESSOR_E_NEEDS_LEASE, "there are no lanes to thread %u", thread);
        r = lane_ask(s, &s->lanes[thread], clock_now(), &request, error);
        if (r == 0) {
                wire_init(&m, LESSOR_MSG_LANE, request);
                m.lane.thread = thread;
                session_post_later(s, &m);
        }
        return r == 0 || r == -EALREADY ? -EINPROGRESS : r;
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

static struct lane_client *lane_free(struct lane_client *l) {
        if (!l)
                return NULL;
        if (l->memory)
                munmap(l->memory, l->size);
        guard_free(l->doorbell);
        if (l->reader)
                redisReaderFree(l->reader);
        pthread_mutex_destroy(&l->lock);
        free(l);
        return NULL;
}

static struct lane_client *lane_alloc(struct session *s, uint32_t thread) {
        struct lane_client *l = calloc(1, sizeof(*l));

        if (!l)
                return NULL;
        l->session = s;
        l->thread = thread;
        l->bell = (const lessor_atomic32 *)&s->control.bells[thread].armed;
        pthread_mutex_init(&l->lock, NULL);
        list_init(&l->followers);
        list_init(&l->armed);
        for (unsigned i = 0; i < LANE_ENTRIES_MAX; i++) {
                l->slots[i].tag = i;
                l->slots[i].apart_fd = -1;
                l->free[l->n_free++] = (uint8_t)(LANE_ENTRIES_MAX - 1 - i);
        }
        return l;
}

/* NULL: we cannot use it. Takes the doorbell. */
static struct lane_client *lane_new(struct session *s, const struct lessor_msg_lane_opened *m, int memory,
                                    int doorbell) {
        struct lane_client *l = memory >= 0 && doorbell >= 0 ? lane_alloc(s, m->thread) : NULL;

        if (l)
                l->doorbell = guard_new(doorbell);
        if (!l || !l->doorbell) {
                fd_close(doorbell);
                return lane_free(l);
        }
        if (shared_map(memory, m->size, PROT_READ | PROT_WRITE, &l->memory) != NULL)
                return lane_free(l);
        l->size = (size_t)m->size;
        return lane_worker_init(&l->worker, l->memory, l->size) ? l : lane_free(l);
}

const char *lanes_opened(struct session *s, const struct lessor_msg_lane_opened *m, int memory, int doorbell) {
        struct session_lane *lane = m->thread < LESSOR_THREADS_MAX ? &s->lanes[m->thread] : NULL;
        struct lane_client *l;

        if (!lane || lane->request != m->header.request) {
                fd_close(memory);
                fd_close(doorbell);
                return "a lane that was not asked for";
        }
        lane->request = 0;
        l = session_over(s) ? NULL : lane_new(s, m, memory, doorbell);
        if (session_over(s))
                fd_close(doorbell);
        fd_close(memory);
        if (!l)
                lane->retry = TIME_NEVER; /* there is one to a thread and session, and it is lost */
        /* Release: the lane is complete; pairs with lane_find(). */
        atomic_store_explicit(&lane->client, l, memory_order_release);
        return NULL;
}

static struct session_lane *lane_of_request(struct session *s, uint64_t request) {
        for (unsigned i = 0; request != 0 && i < LESSOR_THREADS_MAX; i++)
                if (s->lanes[i].request == request)
                        return &s->lanes[i];
        return NULL;
}

bool lanes_asked(struct session *s, uint64_t request) { return lane_of_request(s, request) != NULL; }

bool lanes_refused(struct session *s, const struct lessor_msg_error *m) {
        struct session_lane *lane = lane_of_request(s, m->header.request);

        if (!lane)
                return false;
        lane->request = 0;
        lane->retry = time_after(clock_now(), m->retry_ns > RETRY_NS ? m->retry_ns : RETRY_NS);
        return true;
}

/* ---- the lane's other messages ----------------------------------------------------------------------------------- */

const char *lanes_replied(struct session *s, const struct lessor_msg_lane_reply *m, int fd) {
        struct lane_client *l = lane_find(s, m->thread);
        struct lane_slot *slot;
        bool good;

        if (!l) {
                fd_close(fd);
                return "a reply for a lane that is not open";
        }
        lane_enter(l);
        slot = lane_slot_of(l, m->tag);
        good = slot && slot->apart_size == 0 && m->size > 0;
        if (good) {
                slot->apart_fd = fd;
                slot->apart_size = m->size;
                if (slot->state == LANE_SLOT_APART)
                        lane_slot_apart(l, slot);
        } else {
                fd_close(fd);
        }
        good = good || l->over;
        pthread_mutex_unlock(&l->lock);
        return good ? NULL : "a reply that nobody waits for";
}

const char *lanes_woken(struct session *s, const struct lessor_msg_lane_wake *m) {
        struct lane_client *l = lane_find(s, m->thread);

        if (!l)
                return "a word for a lane that is not open";
        lane_enter(l);
        if (!l->leader && !l->over) {
                lane_awake(&l->worker); /* once is enough: the broker would say so of each completion */
                inboxes_told(l);
        }
        pthread_mutex_unlock(&l->lock);
        return NULL;
}

/* What the broker had answered before counts. */
void lanes_end(struct session *s) {
        for (unsigned i = 0; i < LESSOR_THREADS_MAX; i++) {
                struct lane_client *l = lane_find(s, i);
                if (!l)
                        continue;
                lane_enter(l);
                lane_reap_all(l);
                lane_fail_all(l, atomic_load(&s->over), s->why);
                l->bad = 0; /* it is over already */
                pthread_mutex_unlock(&l->lock);
        }
}

void lanes_hang_up(struct session *s) {
        for (unsigned i = 0; i < LESSOR_THREADS_MAX; i++) {
                struct lane_client *l = lane_find(s, i);
                if (l)
                        l->doorbell = guard_free(l->doorbell);
        }
}

void lanes_fade(struct session *s) {
        for (unsigned i = 0; i < LESSOR_THREADS_MAX; i++) {
                struct lane_client *l = lane_find(s, i);
                if (!l)
                        continue;
                lane_enter(l);
                shared_fade(l->memory, l->size, PROT_READ | PROT_WRITE);
                pthread_mutex_unlock(&l->lock);
        }
}

void lanes_free(struct session *s) {
        for (unsigned i = 0; i < LESSOR_THREADS_MAX; i++)
                lane_free(atomic_load(&s->lanes[i].client));
}

/* Neither the memory is mapped here, nor the fd open; and the parser may have been at work. */
void lanes_forget(struct session *s) {
        for (unsigned i = 0; i < LESSOR_THREADS_MAX; i++)
                free(atomic_load(&s->lanes[i].client));
}

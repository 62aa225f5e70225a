/* SPDX-License-Identifier: MIT */
#include "session.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "session_core.h"
#include "warm.h"

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
                free(container_of(it, struct session_later, link));
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

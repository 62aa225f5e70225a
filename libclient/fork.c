/* SPDX-License-Identifier: MIT */
/*
 * A child must lose the parent's fds at once: its session socket (two processes would read each other's answers)
 * and the leased connections (two processes would read each other's replies). pthread_atfork() sees fork(); a page
 * that the kernel wipes in every child (MADV_WIPEONFORK) sees the rest, at the child's first call: a raw clone(2),
 * or a fork handler of the application that calls us before ours has run. vfork and CLONE_VM share the memory:
 * nothing to see, and nothing but exec is sane there.
 *
 * Nobody is waited for: the child's only thread cleans up a table of atomics. One gap is known and harmless: an fd
 * that another thread has just received and not entered yet, or has taken out and not closed yet, stays open in the
 * child. It is CLOEXEC, and the broker ends connections by shutdown(2), which no copy survives.
 *
 * pthread_atfork() handlers cannot be taken back, so the library stays loaded after dlclose(): linked with -z
 * nodelete.
 */
#include "fork.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"

enum { GUARDS_PER_BLOCK = 62 };
struct guard_block {
        struct guard guard[GUARDS_PER_BLOCK];
        _Atomic(struct guard_block *) next; /* blocks are added, never removed */
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
union fork_page fork_page;
static bool ready;
static bool page_is_wiped; /* false: a kernel without MADV_WIPEONFORK (before 4.14) */
atomic_uint fork_number;
static struct guard_block guards;

static void guards_abandon(void) {
        for (struct guard_block *b = &guards; b; b = atomic_load(&b->next)) {
                for (unsigned i = 0; i < GUARDS_PER_BLOCK; i++) {
                        struct guard *g = &b->guard[i];
                        redisContext *context = atomic_exchange(&g->context, NULL);
                        if (context)
                                context->fd = -1;
                        atomic_store(&g->lease, NULL);
                        fd_close(atomic_load(&g->fd_plus_1) - 1);
                        atomic_store(&g->fd_plus_1, 0);
                }
        }
}

/* A child's first step. Its other threads, if it has some already, wait for the one that cleans up. */
void fork_clean(void) {
        unsigned expected = FORK_WIPED;

        if (atomic_compare_exchange_strong(&fork_page.state, &expected, FORK_BUSY)) {
                guards_abandon();
                atomic_fetch_add(&fork_number, 1);
                /* Pairs with the acquire load in fork_epoch(): who sees READY sees an empty table and the new epoch. */
                atomic_store_explicit(&fork_page.state, FORK_READY, memory_order_release);
        }
        while (atomic_load_explicit(&fork_page.state, memory_order_acquire) != FORK_READY)
                sched_yield();
}

static void fork_in_child(void) {
        int keep = errno;
        if (!page_is_wiped)
                atomic_store(&fork_page.state, FORK_WIPED);
        fork_epoch();
        errno = keep;
}

/* The page must be whole pages of the kernel's, and nobody else's: with larger ones pthread_atfork() sees forks alone. */
static void fork_init_once(void) {
        page_is_wiped =
                sysconf(_SC_PAGESIZE) == FORK_PAGE_SIZE && madvise(&fork_page, sizeof(fork_page), MADV_WIPEONFORK) == 0;
        atomic_store(&fork_page.state, FORK_READY);
        ready = pthread_atfork(NULL, NULL, fork_in_child) == 0;
}

int fork_init(void) {
        pthread_once(&once, fork_init_once);
        return ready ? 0 : -ENOMEM;
}

static struct guard *guard_take(struct guard_block *b, int fd) {
        for (unsigned i = 0; i < GUARDS_PER_BLOCK; i++) {
                struct guard *g = &b->guard[i];
                int expected = 0;
                if (atomic_load_explicit(&g->fd_plus_1, memory_order_relaxed) == 0 &&
                    atomic_compare_exchange_strong(&g->fd_plus_1, &expected, fd + 1))
                        return g;
        }
        return NULL;
}

static struct guard_block *guard_block_after(struct guard_block *b) {
        struct guard_block *next = atomic_load(&b->next), *fresh;

        if (next)
                return next;
        fresh = calloc(1, sizeof(*fresh));
        if (!fresh)
                return NULL;
        if (atomic_compare_exchange_strong(&b->next, &next, fresh))
                return fresh;
        free(fresh);
        return next;
}

struct guard *guard_new(int fd) {
        for (struct guard_block *b = &guards; b; b = guard_block_after(b)) {
                struct guard *g = guard_take(b, fd);
                if (g)
                        return g;
        }
        return NULL;
}

struct guard *guard_free(struct guard *g) {
        if (!g)
                return NULL;
        guard_set_context(g, NULL, NULL);
        /* First out of the table, then closed: the other way round a child could close a number in use by others. */
        fd_close(atomic_exchange(&g->fd_plus_1, 0) - 1);
        return NULL;
}

void guard_set_context(struct guard *g, lessor_lease *lease, redisContext *context) {
        atomic_store(&g->lease, lease);
        atomic_store(&g->context, context);
}

lessor_lease *guard_lease_of(const redisContext *context) {
        for (struct guard_block *b = &guards; b; b = atomic_load(&b->next)) {
                for (unsigned i = 0; i < GUARDS_PER_BLOCK; i++) {
                        if (atomic_load(&b->guard[i].context) == context)
                                return atomic_load(&b->guard[i].lease);
                }
        }
        return NULL;
}

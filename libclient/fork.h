/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Fork: which process are we, and which fds must not outlive a fork in the child.
 *
 * The epoch is a number that differs between a process and every process it was forked from. What belongs to one
 * process (a session, a lease) remembers the epoch it was made in; where it is met in another, it is the parent's.
 *
 * A guard is a place in a table of all fds the library keeps. A child closes them all at once, before it does
 * anything else with the library; the table is changed by single atomic stores only, so that it is sound at
 * whatever instruction another thread of the parent stood when the fork happened: no lock can be waited for in the
 * child.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <lessor.h>

int fork_init(void); /* 0, -ENOMEM; may be said again */

/* A page that the kernel wipes in every child; its one word is looked at before anything else is done. */
enum { FORK_WIPED = 0, FORK_BUSY = 1, FORK_READY = 2 };
enum { FORK_PAGE_SIZE = 4096 };
union fork_page {
        _Alignas(FORK_PAGE_SIZE) atomic_uint state;
        char room[FORK_PAGE_SIZE];
};
extern union fork_page fork_page;
extern atomic_uint fork_number;
void fork_clean(void);

/* The epoch of this process. The first call in a child that was made behind pthread_atfork()'s back cleans up. */
static inline uint32_t fork_epoch(void) {
        if (__builtin_expect(atomic_load_explicit(&fork_page.state, memory_order_acquire) != FORK_READY, 0))
                fork_clean();
        return atomic_load_explicit(&fork_number, memory_order_relaxed);
}

struct guard {
        atomic_int fd_plus_1;            /* 0: the place is free */
        _Atomic(redisContext *) context; /* that reads and writes the fd too, and must lose it in a child */
        _Atomic(lessor_lease *) lease;   /* whose context it is */
};

/* A place for `fd`, which it takes; NULL out of memory, and fd stays the caller's. */
struct guard *guard_new(int fd);
/* Frees the place and closes the fd. NULL ok. Returns NULL; keeps errno. Never for a guard of another epoch. */
struct guard *guard_free(struct guard *g);
static inline int guard_fd(struct guard *g) { return atomic_load_explicit(&g->fd_plus_1, memory_order_relaxed) - 1; }

void guard_set_context(struct guard *g, lessor_lease *lease, redisContext *context); /* NULL, NULL: none any more */
lessor_lease *guard_lease_of(const redisContext *context);                           /* NULL: none of ours */

/* SPDX-License-Identifier: MIT */
#pragma once
/* Sleeping on a word of shared memory, and waking who sleeps there: futex(2), between processes. */
#include <errno.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"

/* While *word is `value`, at most span_ns. Returns at any time for no reason: look again. Keeps errno. */
static inline void futex_wait(_Atomic(uint32_t) *word, uint32_t value, uint64_t span_ns) {
        struct timespec t = {.tv_sec = (time_t)(span_ns / NS_PER_S), .tv_nsec = (long)(span_ns % NS_PER_S)};
        int keep = errno;
        (void)syscall(SYS_futex, word, FUTEX_WAIT, value, &t, NULL, 0);
        errno = keep;
}

static inline void futex_wake(_Atomic(uint32_t) *word) {
        int keep = errno;
        (void)syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
        errno = keep;
}

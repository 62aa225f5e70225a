/* SPDX-License-Identifier: MIT */
#pragma once
/* Filling in a lessor_error, which may be NULL everywhere: what happened, where, and what to do about it. */
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <lessor.h>

#include "base/clock.h"

static inline void error_clear(lessor_error *e) {
        if (!e)
                return;
        memset(e, 0, offsetof(lessor_error, text) + 1); /* the text is empty, not wiped */
}
/* Returns `code`, so that a failing function ends with `return error_set(...)`. */
int error_set(lessor_error *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* An argument that cannot be: LESSOR_E_INVALID, naming the function and the argument. */
int error_argument(lessor_error *e, const char *function, const char *argument, const char *why);
void error_may_have_run(lessor_error *e, bool may_have_run);
/* Rounded up: who comes back a fraction of a millisecond too early is refused once more. */
static inline void error_retry(lessor_error *e, uint64_t retry_ns) {
        uint64_t ms = retry_ns / NS_PER_MS + 1;
        if (e)
                e->retry_ms = ms < INT_MAX ? (int)ms : INT_MAX;
}

/*
 * Public calls are no cancellation points: a thread cancelled in the middle of one would keep the reader's role of
 * its session, or a connection. First line of a function that does I/O: `NO_CANCEL;`
 */
static inline int cancel_disable(void) {
        int before = PTHREAD_CANCEL_ENABLE;
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
        return before;
}
static inline void cancel_restore(const int *before) { pthread_setcancelstate(*before, NULL); }
#define NO_CANCEL __attribute__((cleanup(cancel_restore), unused)) const int cancel_before_ = cancel_disable()

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Attaching, step by step: connect, ATTACH, ATTACHED with the shared memory; within one deadline. A thread that waits
 * takes steps that wait, an event loop those that do not; between steps anybody may go on with it.
 */
#include <stdbool.h>
#include <stdint.h>

#include "session.h"

struct attach {
        const char *socket;
        struct session *session; /* NULL: not connected yet */
        bool pidfd_known;
        bool asked;        /* ATTACH is sent */
        unsigned refusals; /* so often the backlog was full */
        uint64_t retry;    /* CLOCK_MONOTONIC: not before, therefore */
        uint64_t deadline;
};

static inline void attach_begin(struct attach *a, const char *socket, uint64_t deadline) {
        *a = (struct attach){.socket = socket, .deadline = deadline};
}
/*
 * 0: *ret is a new session, the caller's reference. -EINPROGRESS: it did not come to an end before `until` (0: without
 * waiting), go on when attach_fd() is readable, or at attach_at(). Else the code of *error: it has failed.
 */
int attach_step(struct attach *a, uint64_t until, struct session **ret, lessor_error *error);
static inline int attach_fd(const struct attach *a) { return a->session ? a->session->fd : -1; }
static inline uint64_t attach_at(const struct attach *a) { return a->session ? a->deadline : a->retry; }

/* SPDX-License-Identifier: MIT */
#pragma once
/* The smallest event loop: poll() on lessor_async_fd(), and a turn. */
#include <poll.h>
#include <stdbool.h>

#include <lessor/async.h>

#include "process.h"

/* One wait and one turn. False: nothing came within the time. */
static inline bool turns_one(lessor_async *a, int ms) {
        struct pollfd p = {.fd = lessor_async_fd(a), .events = POLLIN};
        if (poll(&p, 1, ms) != 1)
                return false;
        lessor_async_dispatch(a);
        return true;
}

/* Turns until the condition holds; false if it does not within the time. */
#define turns_until(a, cond, ms)                                                                                       \
        __extension__({                                                                                                \
                uint64_t end_ = now_ms() + (uint64_t)(ms)*PROCESS_SLOW;                                                \
                bool met_;                                                                                             \
                while (!(met_ = (cond)) && now_ms() < end_)                                                            \
                        turns_one((a), 100);                                                                           \
                met_;                                                                                                  \
        })
#define turns_run(a, ms) turns_until((a), lessor_async_in_flight(a) == 0, ms)

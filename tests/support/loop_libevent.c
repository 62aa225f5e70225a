/* SPDX-License-Identifier: MIT */
#include <event2/event.h>
#include <lessor/adapters/libevent.h>

#include "loops.h"

static void *make(void) { return event_base_new(); }
static int attach(void *base, lessor_async *async) { return lessor_libevent_attach(async, base); }
static void run(void *base) { event_base_dispatch(base); }
static void turn(void *base) { event_base_loop(base, EVLOOP_ONCE); }
static void destroy(void *base) { event_base_free(base); }

const struct loop_kind loop_libevent = {"libevent", make, attach, run, turn, destroy};

/* SPDX-License-Identifier: MIT */
#include <ev.h>
#include <lessor/adapters/libev.h>

#include "loops.h"

static void *make(void) { return ev_loop_new(EVFLAG_AUTO); }
static int attach(void *base, lessor_async *async) { return lessor_libev_attach(base, async); }
static void run(void *base) { ev_run(base, 0); }
static void turn(void *base) { ev_run(base, EVRUN_ONCE); }
static void destroy(void *base) { ev_loop_destroy(base); }

const struct loop_kind loop_libev = {"libev", make, attach, run, turn, destroy};

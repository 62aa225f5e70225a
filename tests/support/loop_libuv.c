/* SPDX-License-Identifier: MIT */
#include <lessor/adapters/libuv.h>
#include <stdlib.h>
#include <uv.h>

#include "loops.h"

static void *make(void) {
        uv_loop_t *loop = malloc(sizeof(*loop));
        if (loop && uv_loop_init(loop) != 0) {
                free(loop);
                return NULL;
        }
        return loop;
}

static int attach(void *base, lessor_async *async) { return lessor_libuv_attach(async, base); }
static void run(void *base) { uv_run(base, UV_RUN_DEFAULT); }
static void turn(void *base) { uv_run(base, UV_RUN_ONCE); }

/* What is closed in libuv is closed in a turn of the loop. One that is still in use says so. */
static void destroy(void *base) {
        uv_run(base, UV_RUN_DEFAULT);
        int r = uv_loop_close(base);
        if (r != 0)
                uv_print_all_handles(base, stderr);
        check_msg(r == 0, "libuv has handles left");
        free(base);
}

const struct loop_kind loop_libuv = {"libuv", make, attach, run, turn, destroy};

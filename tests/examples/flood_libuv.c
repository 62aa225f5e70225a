/* SPDX-License-Identifier: MIT */
/* 10,000 commands in flight, on libuv. */
#include <lessor/adapters/libuv.h>
#include <uv.h>

#include "flood.h"

int main(void) {
        struct flood f = {0};
        uv_loop_t loop;
        int r;

        flood_open(&f);
        if (uv_loop_init(&loop) != 0 || lessor_libuv_attach(f.async, &loop) != 0)
                return 1;
        flood_on(&f);
        uv_run(&loop, UV_RUN_DEFAULT); /* ends with the last reply */
        r = flood_close(&f);
        uv_run(&loop, UV_RUN_DEFAULT); /* closes the handle */
        return uv_loop_close(&loop) == 0 ? r : 1;
}

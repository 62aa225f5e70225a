/* SPDX-License-Identifier: MIT */
/* 10,000 commands in flight, on libev. */
#include <ev.h>
#include <lessor/adapters/libev.h>

#include "flood.h"

int main(void) {
        struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
        struct flood f = {0};
        int r;

        flood_open(&f);
        if (!loop || lessor_libev_attach(loop, f.async) != 0)
                return 1;
        flood_on(&f);
        ev_run(loop, 0); /* ends with the last reply */
        r = flood_close(&f);
        ev_loop_destroy(loop);
        return r;
}

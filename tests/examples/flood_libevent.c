/* SPDX-License-Identifier: MIT */
/* 10,000 commands in flight, on libevent. */
#include <event2/event.h>
#include <lessor/adapters/libevent.h>

#include "flood.h"

int main(void) {
        struct event_base *base = event_base_new();
        struct flood f = {0};
        int r;

        flood_open(&f);
        if (!base || lessor_libevent_attach(f.async, base) != 0)
                return 1;
        flood_on(&f);
        event_base_dispatch(base); /* ends with the last reply */
        r = flood_close(&f);
        event_base_free(base);
        return r;
}

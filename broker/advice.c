/* SPDX-License-Identifier: MIT */
#include "advice.h"

bool advice_set(struct advice *a, enum lessor_path path) {
        a->crowded_looks = a->lanes_busiest = a->lanes_seen = 0;
        if (a->path == path)
                return false;
        a->path = path;
        a->changes++;
        return true;
}

bool advice_wait(struct advice *a, bool automatic) {
        return ++a->waits >= ADVICE_WAITS_MANY && automatic && a->path == LESSOR_PATH_DIRECT &&
               advice_set(a, LESSOR_PATH_LANE);
}

/* Seconds are counted from 1: a lane that never called has seen none. */
static uint64_t second_of(const struct advice *a) { return a->look / ADVICE_LOOKS + 1; }

void advice_call(struct advice *a, struct advice_lane *lane) {
        if (lane->look != a->look) {
                lane->look = a->look;
                lane->calls = 0;
        }
        if (lane->second != second_of(a)) {
                lane->second = second_of(a);
                a->lanes_seen++;
        }
        a->lanes_busy += ++lane->calls == ADVICE_BUSY_CALLS;
}

static bool is_calm(const struct advice *a, unsigned max_connections) {
        /* With fewer connections than that, callers who share them are many already. */
        unsigned few = max_connections < ADVICE_LANES_FEW ? max_connections : ADVICE_LANES_FEW;
        return a->lanes_busiest < few && a->lanes_seen <= max_connections / 2;
}

bool advice_look(struct advice *a, unsigned direct_busy, unsigned max_connections, bool automatic) {
        bool calm = false;
        if (a->lanes_busy > a->lanes_busiest)
                a->lanes_busiest = a->lanes_busy;
        a->waits = a->lanes_busy = 0;
        if (++a->look % ADVICE_LOOKS == 0) {
                calm = is_calm(a, max_connections);
                a->lanes_busiest = a->lanes_seen = 0;
        }
        if (!automatic)
                return false;
        if (a->path == LESSOR_PATH_LANE)
                return calm && advice_set(a, LESSOR_PATH_DIRECT);
        a->crowded_looks = direct_busy >= ADVICE_DIRECT_MANY ? a->crowded_looks + 1 : 0;
        return a->crowded_looks >= 2 && advice_set(a, LESSOR_PATH_LANE);
}

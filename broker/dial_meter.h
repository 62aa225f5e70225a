/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The most attempts to connect that were begun within 100 ms, as they were begun: it is what pool/rate.h is to bring about,
 * measured apart from it. Pure.
 */
#include <stdint.h>

#define DIAL_METER_NS UINT64_C(100000000)
#define DIAL_METER_SIZE 256U /* more than that is not told apart */

struct dial_meter {
        uint64_t at[DIAL_METER_SIZE]; /* a ring: those of the window end before `next` */
        unsigned next, inside, peak;
};

static inline void dial_meter_note(struct dial_meter *m, uint64_t now) {
        while (m->inside > 0 && now - m->at[(m->next - m->inside) % DIAL_METER_SIZE] >= DIAL_METER_NS)
                m->inside--;
        m->at[m->next] = now;
        m->next = (m->next + 1) % DIAL_METER_SIZE;
        if (m->inside < DIAL_METER_SIZE)
                m->inside++;
        if (m->inside > m->peak)
                m->peak = m->inside;
}

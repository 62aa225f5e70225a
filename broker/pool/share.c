/* SPDX-License-Identifier: MIT */
#include "share.h"

#include "base/clock.h"

static unsigned percent_of(uint64_t ok, uint64_t failed) {
        return ok + failed < SHARE_OPERATIONS ? 0 : (unsigned)((double)failed * 100 / ((double)ok + (double)failed));
}

void share_update(struct share *s, uint64_t ok, uint64_t failed, uint64_t now) {
        if (now < s->next_sample)
                return;
        s->percent = percent_of(ok - s->sample[s->next].ok, failed - s->sample[s->next].failed);
        s->sample[s->next].ok = ok;
        s->sample[s->next].failed = failed;
        s->next = (s->next + 1) % SHARE_SECONDS;
        s->next_sample = now + NS_PER_S;
}

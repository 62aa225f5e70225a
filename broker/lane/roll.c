/* SPDX-License-Identifier: MIT */
#include "roll.h"

void roll_note(struct roll *r, const struct lessor_status_lane *entry) {
        unsigned at = r->n;
        while (at > 0 && r->entries[at - 1].since_ns > entry->since_ns)
                at--;
        if (at == r->room)
                return;
        if (r->n < r->room)
                r->n++;
        memmove(&r->entries[at + 1], &r->entries[at], (r->n - 1 - at) * sizeof(*entry));
        r->entries[at] = *entry;
}

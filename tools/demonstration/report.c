/* SPDX-License-Identifier: MIT */
/* What it came to, in words for people and, if asked, one line for programs. */
#include <inttypes.h>
#include <stdio.h>

#include <base/clock.h>

#include "demo.h"
#include "format.h"

/* 1234567 -> "1,234,567" */
static const char *grouped(uint64_t n, char ret[32]) {
        char digits[24];
        int length = snprintf(digits, sizeof(digits), "%" PRIu64, n), at = 0;
        for (int i = 0; i < length; i++) {
                if (i > 0 && (length - i) % 3 == 0)
                        ret[at++] = ',';
                ret[at++] = digits[i];
        }
        ret[at] = '\0';
        return ret;
}

static void row(const char *name, uint64_t value, const char *note) {
        char text[32];
        printf("  %-13s %11s%s%s\n", name, grouped(value, text), *note ? "   " : "", note);
}

static void write_words(const struct demo *d, const struct demo_totals *t, bool good) {
        double seconds = (double)(d->ended_ns - d->began_ns) / 1e9;
        char note[DEMO_TEXT + 32];

        printf("\n%.1f seconds, %u workers, %u databases, one Redis %s at %s\n\n", seconds, d->o.workers,
               (unsigned)DEMO_DATABASES, d->redis_version, d->redis_place);
        snprintf(note, sizeof(note), "%s a second", format_count((uint64_t)((double)t->operations / seconds)).s);
        row("operations", t->operations, note);
        row("errors", t->errors, t->errors ? d->board->first_error : "");
        row("wrong replies", t->wrong, t->wrong ? d->board->first_wrong : "each reply checked; values embed their key");
        snprintf(note, sizeof(note), "%u while they held a connection; all replaced", d->killed_holding);
        row("killed -9", d->killed, note);
        if (atomic_load(&d->board->broker_killed)) {
                snprintf(note, sizeof(note),
                         "the broker; %" PRIu64 " calls under way in it were told that they may have run", t->cut_off);
                row("", 1, note);
        }
        snprintf(note, sizeof(note), "the most Redis saw at once; the cap is %u", demo_cap(d));
        row("connections", d->most_connections, note);
        if (d->most_between > demo_cap(d))
                row("", d->most_between, "while a dead broker's went and the next one's came");
        row("", demo_per_process(d), "what pools in each process would have opened");
        row("places lost", d->places_lost, d->places_lost ? "" : "those of the killed came back, too");
        printf("\n%s\n", good ? "Nothing was lost, nothing was wrong." : "SOMETHING WAS LOST OR WRONG, see above.");
}

bool demo_report(const struct demo *d) {
        struct demo_totals t = demo_totals(d);
        bool good = t.operations > 0 && t.errors == 0 && t.wrong == 0 && d->places_lost == 0 &&
                    d->most_connections <= demo_cap(d) && d->most_between <= 2 * demo_cap(d);

        write_words(d, &t, good);
        if (d->o.json)
                printf("{\"ops\": %" PRIu64 ", \"errors\": %" PRIu64 ", \"wrong_replies\": %" PRIu64
                       ", \"max_connections_seen\": %u, \"cap\": %u, \"per_process_would_be\": %u, \"places_lost\": "
                       "%" PRIu64 ", \"cut_off\": %" PRIu64 "}\n",
                       t.operations, t.errors, t.wrong, d->most_connections, demo_cap(d), demo_per_process(d),
                       d->places_lost, t.cut_off);
        return good;
}

/* SPDX-License-Identifier: MIT */
#include "figures.h"

#include <fnmatch.h>

#include "fields.h"

/* ---- choice ---------------------------------------------------------------------------------------------------- */

bool choice_add(struct choice *c, const char *glob) {
        if (c->n == CHOICE_GLOBS)
                return false;
        c->globs[c->n++] = glob;
        return true;
}

static bool leaves_out(const char *glob) { return *glob == '!' || *glob == '^'; }

/* Without a dot the glob is of the figure's name alone, whose own dots (wait_time.p99) then count as letters. */
static bool matches(const char *glob, const char *database, const char *figure) {
        char name[LESSOR_NAME_SIZE + 64];
        glob += leaves_out(glob);
        snprintf(name, sizeof(name), "%s.%s", database, figure);
        return fnmatch(glob, name, 0) == 0 || fnmatch(glob, figure, 0) == 0;
}

bool choice_has(const struct choice *c, const char *database, const char *figure) {
        bool chosen = true;
        for (unsigned i = 0; i < c->n; i++)
                chosen = chosen && leaves_out(c->globs[i]);
        for (unsigned i = 0; i < c->n; i++)
                if (matches(c->globs[i], database, figure))
                        chosen = !leaves_out(c->globs[i]);
        return chosen;
}

/* ---- figures ---------------------------------------------------------------------------------------------------- */

enum part { COUNT, SUM, P50, P90, P99, MAX, PARTS };

unsigned figures_number(void) { return (unsigned)(n_fields + 1 + n_field_histograms * PARTS); }

/* Beyond the fields and operations_total. */
static const struct field_histogram *histogram_of(unsigned index) {
        return &field_histograms[(index - n_fields - 1) / PARTS];
}

static enum part part_at(unsigned index) { return (enum part)((index - n_fields - 1) % PARTS); }

struct figure_name figure_name(unsigned index) {
        static const char *const parts[PARTS] = {"count", "sum", "p50", "p90", "p99", "max"};
        struct figure_name n;

        if (index <= n_fields)
                snprintf(n.s, sizeof(n.s), "%s", index < n_fields ? fields[index].name : "operations_total");
        else
                snprintf(n.s, sizeof(n.s), "%s.%s", histogram_of(index)->name, parts[part_at(index)]);
        return n;
}

const char *figure_help(unsigned index) {
        if (index <= n_fields)
                return index < n_fields ? fields[index].help : "operations_ok + operations_failed";
        return histogram_of(index)->help;
}

bool figure_counts(unsigned index) {
        if (index <= n_fields)
                return index == n_fields || fields[index].kind == FIELD_COUNTER;
        return part_at(index) == COUNT || part_at(index) == SUM;
}

static uint64_t part_of(const struct lessor_status_histogram *h, enum part part) {
        switch (part) {
        case COUNT:
                return h->count;
        case SUM:
                return h->sum_ns;
        case P50:
                return lessor_status_percentile(h, 0.50);
        case P90:
                return lessor_status_percentile(h, 0.90);
        case P99:
                return lessor_status_percentile(h, 0.99);
        case MAX:
        case PARTS:
                break;
        }
        return h->max_ns;
}

uint64_t figure_value(unsigned index, const struct lessor_status_database *d) {
        if (index <= n_fields)
                return index < n_fields ? field_value(&fields[index], d) : model_operations(d);
        return part_of(field_histogram_value(histogram_of(index), d), part_at(index));
}

double figure_rate(unsigned index, const struct model *m, const struct model *before,
                   const struct lessor_status_database *d) {
        const struct lessor_status_database *old;
        uint64_t value = figure_value(index, d), ns;

        if (!figure_counts(index))
                return -1;
        if (!before)
                return m->instance.uptime_ns ? (double)value * 1e9 / (double)m->instance.uptime_ns : -1;
        if (before->instance.generation != m->instance.generation || m->read_at <= before->read_at)
                return -1;
        old = model_find(before, d->name);
        ns = m->read_at - before->read_at;
        if (!old || figure_value(index, old) > value)
                return -1;
        return (double)(value - figure_value(index, old)) * 1e9 / (double)ns;
}

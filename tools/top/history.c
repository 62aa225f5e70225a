/* SPDX-License-Identifier: MIT */
/*
 * Each row keeps readings of about the last ten seconds. Rates of what happens often are taken from the youngest that is
 * at least a second old, so that they follow; times and what happens seldom from the oldest, so that they stand still
 * long enough to be read.
 */
#include "history.h"

#include "cli.h"

#define SECOND_NS UINT64_C(1000000000)

static struct history_row *row_of(struct history *h, const char *name) {
        struct history_row *rows;
        for (unsigned i = 0; i < h->n_rows; i++)
                if (strcmp(h->rows[i].name, name) == 0)
                        return &h->rows[i];
        rows = realloc(h->rows, (h->n_rows + 1) * sizeof(*rows));
        if (!rows)
                out_of_memory();
        h->rows = rows;
        memset(&rows[h->n_rows], 0, sizeof(*rows));
        snprintf(rows[h->n_rows].name, LESSOR_NAME_SIZE, "%s", name);
        return &rows[h->n_rows++];
}

const struct history_row *history_find(const struct history *h, const char *name) {
        for (unsigned i = 0; i < h->n_rows; i++)
                if (strcmp(h->rows[i].name, name) == 0)
                        return &h->rows[i];
        return NULL;
}

static void push_bin(struct history_row *r, double value) {
        if (r->n_bins == HISTORY_BINS)
                memmove(r->bins, r->bins + 1, --r->n_bins * sizeof(r->bins[0]));
        r->bins[r->n_bins++] = value;
}

/* A pause (of a stopped process, of the key p) longer than a bin is one bin of its average, repeated. */
static void fill_bins(struct history_row *r, uint64_t now, uint64_t count) {
        uint64_t span = now - r->bin_began, whole = span / HISTORY_BIN_NS;
        if (whole == 0)
                return;
        double rate = (double)(count - r->bin_base) * 1e9 / (double)span;
        for (uint64_t i = 0; i < whole && i < HISTORY_BINS; i++)
                push_bin(r, rate);
        r->bin_began = now;
        r->bin_base = count;
}

static void push_past(struct history_row *r, uint64_t now, const struct lessor_status_database *d) {
        if (r->n_past && now - r->past_at[r->n_past - 1] < SECOND_NS)
                return;
        if (r->n_past == HISTORY_PAST || (r->n_past > 1 && now - r->past_at[1] > HISTORY_WINDOW_NS)) {
                r->n_past--;
                memmove(r->past, r->past + 1, r->n_past * sizeof(r->past[0]));
                memmove(r->past_at, r->past_at + 1, r->n_past * sizeof(r->past_at[0]));
        }
        r->past[r->n_past] = *d;
        r->past_at[r->n_past++] = now;
}

/* Counters only grow while an instance lives; a database that was removed and added again starts at zero. */
static bool goes_on(const struct history_row *r, uint64_t now, const struct lessor_status_database *d) {
        const struct lessor_status_database *last;
        if (!r->n_past || now < r->past_at[r->n_past - 1])
                return false;
        last = &r->past[r->n_past - 1];
        return d->leases >= last->leases && d->operations_ok >= last->operations_ok &&
               d->operations_failed >= last->operations_failed;
}

static void add_row(struct history_row *r, uint64_t now, const struct lessor_status_database *d) {
        if (r->seen)
                return; /* two records of one name: a reload is under way */
        r->seen = true;
        if (!goes_on(r, now, d)) {
                r->n_past = r->n_bins = 0;
                r->bin_began = now;
                r->bin_base = model_operations(d);
        }
        fill_bins(r, now, model_operations(d));
        push_past(r, now, d);
}

static void forget_unseen(struct history *h) {
        unsigned n = 0;
        for (unsigned i = 0; i < h->n_rows; i++)
                if (h->rows[i].seen) {
                        if (n != i)
                                h->rows[n] = h->rows[i];
                        n++;
                }
        h->n_rows = n;
}

void history_add(struct history *h, const struct model *m) {
        if (h->generation != m->instance.generation)
                h->n_rows = 0;
        h->generation = m->instance.generation;
        for (unsigned i = 0; i < h->n_rows; i++)
                h->rows[i].seen = false;
        for (unsigned i = 0; i < m->n_databases; i++)
                add_row(row_of(h, m->databases[i].name), m->read_at, &m->databases[i]);
        forget_unseen(h);
}

void history_deinit(struct history *h) {
        free(h->rows);
        *h = (struct history){0};
}

/* ---- figures --------------------------------------------------------------------------------------------------- */

static double per_second(uint64_t now, uint64_t before, uint64_t ns) {
        return now >= before && ns ? (double)(now - before) * 1e9 / (double)ns : 0;
}

/* `leases` are those that the broker granted. */
static uint64_t all_leases(const struct lessor_status_database *d) { return d->leases + d->warm_leases; }

static void subtract(const struct lessor_status_histogram *now, const struct lessor_status_histogram *before,
                     struct lessor_status_histogram *ret) {
        *ret = (struct lessor_status_histogram){.max_ns = now->max_ns};
        for (unsigned i = 0; i < LESSOR_CALL_BUCKETS; i++) {
                ret->bucket[i] = now->bucket[i] >= before->bucket[i] ? now->bucket[i] - before->bucket[i] : 0;
                ret->count += ret->bucket[i];
        }
        ret->sum_ns = now->sum_ns >= before->sum_ns ? now->sum_ns - before->sum_ns : 0;
}

/* The youngest that is at least a second older than `now`. NULL: none yet. */
static const struct lessor_status_database *recent(const struct history_row *r, uint64_t now, uint64_t *ret_ns) {
        for (unsigned i = r->n_past; i-- > 0;)
                if (now >= r->past_at[i] + SECOND_NS * 9 / 10) {
                        *ret_ns = now - r->past_at[i];
                        return &r->past[i];
                }
        return NULL;
}

void history_figures(const struct history *h, const struct model *m, const struct lessor_status_database *d,
                     struct history_figures *ret) {
        const struct history_row *r = history_find(h, d->name);
        uint64_t ns = 0, window;
        const struct lessor_status_database *last = r ? recent(r, m->read_at, &ns) : NULL, *first;

        *ret = (struct history_figures){-1, -1, -1, -1, -1, -1, {0}, {0}};
        if (!last)
                return;
        first = &r->past[0];
        window = m->read_at - r->past_at[0];
        ret->leases = per_second(all_leases(d), all_leases(last), ns);
        ret->operations = per_second(model_operations(d), model_operations(last), ns);
        ret->lane_calls = per_second(d->lane_calls, last->lane_calls, ns);
        ret->errors = per_second(d->operations_failed, first->operations_failed, window);
        ret->timeouts = per_second(d->lease_timeouts + d->exhausted, first->lease_timeouts + first->exhausted, window);
        if (all_leases(d) > all_leases(first) && d->warm_leases >= first->warm_leases)
                ret->warm_share = 100.0 * (double)(d->warm_leases - first->warm_leases) /
                                  (double)(all_leases(d) - all_leases(first));
        subtract(&d->wait_time, &first->wait_time, &ret->wait);
        subtract(&d->call_time, &first->call_time, &ret->call);
}

void history_spark(const struct history_row *row, int *ret, unsigned n, int levels) {
        unsigned have = row->n_bins < n ? row->n_bins : n;
        const double *bins = row->bins + row->n_bins - have;
        double most = 0;

        for (unsigned i = 0; i < have; i++)
                most = bins[i] > most ? bins[i] : most;
        for (unsigned i = 0; i < n; i++) {
                ret[i] = -1;
                if (i < n - have)
                        continue;
                double value = bins[i - (n - have)];
                ret[i] = most > 0 ? (int)(value / most * (levels - 1) + 0.5) : 0;
                if (value > 0 && ret[i] == 0 && levels > 1)
                        ret[i] = 1; /* little is not nothing */
        }
}

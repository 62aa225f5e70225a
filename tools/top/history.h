/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What `lessor top` makes of readings that follow one another: rates, times of the last ten seconds, the last minutes.
 * Pure: the time of a reading is the model's own (read_at). A broker that started anew, a database that came back with
 * smaller counters, and a clock that stands still all begin a new history, never a negative rate.
 */
#include <stdbool.h>

#include "model.h"

enum { HISTORY_PAST = 12, HISTORY_BINS = 60 };
#define HISTORY_WINDOW_NS UINT64_C(10000000000) /* rates of seldom things, and times, are of so long */
#define HISTORY_BIN_NS UINT64_C(5000000000)     /* a column of the sparkline; HISTORY_BINS of them */

struct history_row {
        char name[LESSOR_NAME_SIZE];
        struct lessor_status_database past[HISTORY_PAST]; /* about a second apart, oldest first */
        uint64_t past_at[HISTORY_PAST];
        unsigned n_past;
        double bins[HISTORY_BINS]; /* operations per second, oldest first */
        unsigned n_bins;
        uint64_t bin_began, bin_base; /* of the bin that is being filled: when, and the count then */
        bool seen;                    /* in the present reading */
};

struct history {
        struct history_row *rows;
        unsigned n_rows;
        uint64_t generation; /* the instance whose history this is */
};

/* Per second; times are of the window, or empty when nothing was measured in it. Negative: not known yet. */
struct history_figures {
        double leases, lane_calls, operations, errors, timeouts; /* leases: warm ones, too */
        double warm_share;                                       /* 0..100 */
        struct lessor_status_histogram wait, call;
};

void history_add(struct history *h, const struct model *m);
void history_figures(const struct history *h, const struct model *m, const struct lessor_status_database *d,
                     struct history_figures *ret);
const struct history_row *history_find(const struct history *h, const char *name); /* NULL: no such */
void history_deinit(struct history *h);

/* 0..levels - 1 for each of the last `n` bins, in ret; those that are not there yet are -1. */
void history_spark(const struct history_row *row, int *ret, unsigned n, int levels);

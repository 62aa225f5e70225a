/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Every number of a database by name, one after the other: the fields of the schema, operations_total, and of each
 * histogram .count, .sum, .p50, .p90, .p99 and .max. Exact: durations in nanoseconds. Pure.
 */
#include "model.h"

enum { CHOICE_GLOBS = 32 };

/* Which figures: names by glob, `main.wait*`, or without a dot of every database; `!` or `^` before one leaves out. The
 * last that matches decides; with nothing but what to leave out, the others are in. */
struct choice {
        const char *globs[CHOICE_GLOBS];
        unsigned n;
};

bool choice_add(struct choice *c, const char *glob); /* false: too many */
bool choice_has(const struct choice *c, const char *database, const char *figure);

struct figure_name {
        char s[64];
};

unsigned figures_number(void);
struct figure_name figure_name(unsigned index);
const char *figure_help(unsigned index);
bool figure_counts(unsigned index); /* only grows: a rate makes sense */
uint64_t figure_value(unsigned index, const struct lessor_status_database *d);

/*
 * Per second: since `before` when it is a reading of the same instance; else, with NULL, on average since the broker's
 * start. Negative: there is none.
 */
double figure_rate(unsigned index, const struct model *m, const struct model *before,
                   const struct lessor_status_database *d);

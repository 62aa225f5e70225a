/* SPDX-License-Identifier: MIT */
#pragma once
/* `lessor bench --markdown`: what was found, as a table for a README, with what is needed to judge it. */
#include "bench.h"

/* In a child of servers_supervised(): the machine, the versions, the day; then the table's head. 0, or -errno. */
int markdown_head(struct servers *s, const struct bench_options *o);
/* The benchmark's own ratio, then those in `extra`. */
void markdown_result(const struct bench *b, const struct bench_result *r);
void markdown_none(const struct bench *b, const char *why);

struct markdown_row {
        const char *bench, *what; /* "warm", "four_threads" */
        const char *unit;
        double reference, value; /* both 0: the ratio is all there is */
        double ratio, bar;       /* bar 0: none */
        bool at_most;
};
void markdown_row(const struct markdown_row *row);

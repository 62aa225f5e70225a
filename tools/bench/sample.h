/* SPDX-License-Identifier: MIT */
#pragma once
/* Measurements of one thing, and their order statistics. Pure. Zero-initialised is empty. */
#include <stddef.h>

struct sample {
        double *values; /* in ascending order after any of the functions below but sample_add() */
        size_t n, room;
};

void sample_add(struct sample *s, double value);
double sample_quantile(struct sample *s, double share); /* 0..1, interpolated; 0 when empty */
double sample_median(struct sample *s);
double sample_least(struct sample *s);
double sample_most(struct sample *s);
void sample_clear(struct sample *s);  /* keeps the room */
void sample_deinit(struct sample *s); /* may be said twice */

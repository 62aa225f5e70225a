/* SPDX-License-Identifier: MIT */
#include "sample.h"

#include <stdlib.h>

#include "cli.h"

void sample_add(struct sample *s, double value) {
        if (s->n == s->room) {
                size_t room = s->room ? 2 * s->room : 256;
                double *values = realloc(s->values, room * sizeof(*values));
                if (!values)
                        out_of_memory();
                s->values = values;
                s->room = room;
        }
        s->values[s->n++] = value;
}

static int ascending(const void *a, const void *b) {
        double x = *(const double *)a, y = *(const double *)b;
        return (x > y) - (x < y);
}

double sample_quantile(struct sample *s, double share) {
        double at, below;
        size_t i;

        if (s->n == 0)
                return 0;
        qsort(s->values, s->n, sizeof(*s->values), ascending);
        at = share * (double)(s->n - 1);
        i = (size_t)at;
        below = s->values[i];
        return i + 1 < s->n ? below + (at - (double)i) * (s->values[i + 1] - below) : below;
}

double sample_median(struct sample *s) { return sample_quantile(s, 0.5); }
double sample_least(struct sample *s) { return sample_quantile(s, 0); }
double sample_most(struct sample *s) { return sample_quantile(s, 1); }

void sample_clear(struct sample *s) { s->n = 0; }

void sample_deinit(struct sample *s) {
        free(s->values);
        *s = (struct sample){0};
}

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A strict reader of metrics, OpenMetrics 1.0 or Prometheus' text format 0.0.4: anything that either format forbids and
 * our writer might do fails the test. Declared once, HELP and TYPE first, samples of a family together, no series
 * twice, counters with _total, histograms cumulative with ascending bounds and a count that is the last bucket's.
 */
#include <stdbool.h>
#include <stddef.h>

struct metrics_sample {
        char *series; /* as written: name{label="value"} */
        double value;
};

struct metrics_family {
        char *name, *type; /* without _total */
};

struct metrics {
        struct metrics_family *families;
        struct metrics_sample *samples;
        size_t n_families, n_samples;
};

void metrics_read(struct metrics *ret, const char *text, bool openmetrics);
void metrics_free(struct metrics *m);
double metrics_value(const struct metrics *m, const char *series); /* fails the test when it is not there */
bool metrics_has_family(const struct metrics *m, const char *name);
/* Does any series have this name, as PromQL would write it (name_total, name_bucket ...)? */
bool metrics_has_name(const struct metrics *m, const char *name);

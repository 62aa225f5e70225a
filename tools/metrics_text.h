/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The model as metrics: OpenMetrics 1.0, or Prometheus' older text format 0.0.4, which differ in how counters are
 * declared and in the end marker. Pure.
 *
 * Every field of the schema (lessor/status_fields.h) is lessor_<name>, of unit seconds lessor_<name>_seconds, counters
 * with _total, labelled with the database. What OpenTelemetry has a name for (db.client.connection.*) is given under it,
 * too, in Prometheus' spelling; of the histograms those that have such a name are given under it alone.
 */
#include <stdio.h>

#include "model.h"

enum metrics_format { METRICS_OPENMETRICS, METRICS_PROMETHEUS };

#define METRICS_OPENMETRICS_TYPE "application/openmetrics-text; version=1.0.0; charset=utf-8"
#define METRICS_PROMETHEUS_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* NULL: there is no status segment to read, and lessor_up is all there is to say. */
void metrics_print(FILE *out, const struct model *m, enum metrics_format format);

/* SPDX-License-Identifier: MIT */
/*
 * All samples of a family stand together, as both formats demand: so the outer loop is over families, the inner one
 * over databases. Histograms are given at every fourth bucket of the segment, a bound at each power of two: 29 series
 * instead of 115, and each bound is one that was counted against, so that nothing is interpolated.
 */
#include "metrics_text.h"

#include <inttypes.h>

#include "fields.h"
#include "format.h"

struct writer {
        FILE *out;
        const struct model *m;
        bool openmetrics;
};

enum type { GAUGE_TYPE, COUNTER_TYPE, HISTOGRAM_TYPE };

/* The schema's names for which OpenTelemetry has one. */
static const char *otel_histogram(const char *name) {
        static const char *const names[][2] = {{"wait_time", "db_client_connection_wait_time_seconds"},
                                               {"hold_time", "db_client_connection_use_time_seconds"},
                                               {"call_time", "db_client_operation_duration_seconds"}};
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                if (strcmp(name, names[i][0]) == 0)
                        return names[i][1];
        return NULL;
}

/* Backslash and line feed in both formats and everywhere; quotes in labels, and in OpenMetrics' HELP. */
static void put_escaped(FILE *out, const char *text, bool quotes) {
        for (; *text; text++)
                if (*text == '\n')
                        fputs("\\n", out);
                else if (*text == '\\' || (quotes && *text == '"'))
                        fprintf(out, "\\%c", *text);
                else
                        fputc(*text, out);
}

/* A label's value: printable ASCII, whatever stood in the segment. */
static void put_label(FILE *out, const char *text) {
        char copy[LESSOR_STATUS_TEXT_SIZE];
        snprintf(copy, sizeof(copy), "%s", text);
        put_escaped(out, format_clean(copy), true);
}

static bool ends_with(const char *name, const char *end) {
        size_t n = strlen(name), m = strlen(end);
        return n >= m && strcmp(name + n - m, end) == 0;
}

static void family(const struct writer *w, const char *name, enum type type, const char *help) {
        static const char *const types[] = {"gauge", "counter", "histogram"};
        const char *suffix = type == COUNTER_TYPE && !w->openmetrics ? "_total" : "";
        fprintf(w->out, "# HELP %s%s ", name, suffix);
        put_escaped(w->out, help, w->openmetrics);
        fprintf(w->out, "\n# TYPE %s%s %s\n", name, suffix, types[type]);
        if (w->openmetrics && ends_with(name, "_seconds"))
                fprintf(w->out, "# UNIT %s seconds\n", name);
}

static void put_seconds(FILE *out, uint64_t ns) {
        fprintf(out, "%" PRIu64 ".%09" PRIu64 "\n", ns / 1000000000U, ns % 1000000000U);
}

static void put_value(FILE *out, uint64_t value, bool ns) {
        if (ns)
                put_seconds(out, value);
        else
                fprintf(out, "%" PRIu64 "\n", value);
}

static void put_sample(FILE *out, const char *name, const char *label, const char *value) {
        fprintf(out, "%s{%s=\"", name, label);
        put_label(out, value);
        fputs("\"} ", out);
}

/* ---- the instance ---------------------------------------------------------------------------------------------- */

static void single(const struct writer *w, const char *name, enum type type, const char *help, uint64_t value) {
        family(w, name, type, help);
        fprintf(w->out, "%s%s ", name, type == COUNTER_TYPE ? "_total" : "");
        put_value(w->out, value, ends_with(name, "_seconds"));
}

static void instance_metrics(const struct writer *w) {
        const struct model_instance *i = &w->m->instance;
        family(w, "lessor_build_info", GAUGE_TYPE, "the broker that wrote these figures");
        fputs("lessor_build_info{name=\"", w->out);
        put_label(w->out, i->name);
        fputs("\",version=\"", w->out);
        put_label(w->out, i->release);
        fputs("\"} 1\n", w->out);
        single(w, "lessor_heartbeat_age_seconds", GAUGE_TYPE,
               "since every data thread of the broker last proved progress; beyond 3 s the broker counts as dead",
               i->heartbeat_age_ns);
        single(w, "lessor_uptime_seconds", GAUGE_TYPE, "how long the broker has been up, or was", i->uptime_ns);
        single(w, "lessor_sessions", GAUGE_TYPE, "worker processes attached now", i->sessions);
        single(w, "lessor_sessions_attached", COUNTER_TYPE, "worker processes attached since the start",
               i->sessions_total);
        single(w, "lessor_sessions_refused", COUNTER_TYPE, "worker processes that were refused", i->sessions_refused);
        single(w, "lessor_reloads", COUNTER_TYPE, "configurations taken over", i->reloads);
        single(w, "lessor_reloads_failed", COUNTER_TYPE, "configurations refused: the log says why", i->reloads_failed);
}

static void overall_metrics(const struct writer *w) {
        const struct model_overall *o = &w->m->overall;
        single(w, "lessor_overall_healthy", GAUGE_TYPE, "1: no database is degraded or failed, and the broker is alive",
               o->healthy);
        family(w, "lessor_databases", GAUGE_TYPE, "databases by state; one that was never used counts as healthy");
        fprintf(w->out,
                "lessor_databases{state=\"healthy\"} %u\nlessor_databases{state=\"degraded\"} %u\n"
                "lessor_databases{state=\"failed\"} %u\n",
                o->healthy_databases, o->degraded_databases, o->failed_databases);
}

/* ---- databases ------------------------------------------------------------------------------------------------- */

static void field_metric(const struct writer *w, const struct field *f) {
        bool seconds = f->unit == FIELD_NS, counter = f->kind == FIELD_COUNTER;
        char name[96], sample[112];

        snprintf(name, sizeof(name), "lessor_%s%s", f->name,
                 seconds && !ends_with(f->name, "_seconds") ? "_seconds" : "");
        snprintf(sample, sizeof(sample), "%s%s", name, counter ? "_total" : "");
        family(w, name, counter ? COUNTER_TYPE : GAUGE_TYPE, f->help);
        for (unsigned i = 0; i < w->m->n_databases; i++) {
                put_sample(w->out, sample, "database", w->m->databases[i].name);
                put_value(w->out, field_value(f, &w->m->databases[i]), seconds);
        }
}

static uint64_t oldest_lease(const struct model *m, const char *database) {
        for (unsigned i = 0; i < m->n_leases; i++) /* oldest first */
                if (strcmp(m->leases[i].database, database) == 0)
                        return m->leases[i].age_ns;
        return 0;
}

static void oldest_lease_metric(const struct writer *w) {
        family(w, "lessor_oldest_lease_seconds", GAUGE_TYPE, "how long the longest lease has been held; 0: none is");
        for (unsigned i = 0; i < w->m->n_databases; i++) {
                put_sample(w->out, "lessor_oldest_lease_seconds", "database", w->m->databases[i].name);
                put_seconds(w->out, oldest_lease(w->m, w->m->databases[i].name));
        }
}

static void put_bucket(const struct writer *w, const char *name, const char *label, const char *database,
                       uint64_t below_ns, uint64_t count) {
        fprintf(w->out, "%s_bucket{%s=\"", name, label);
        put_label(w->out, database);
        if (below_ns == UINT64_MAX)
                fprintf(w->out, "\",le=\"+Inf\"} %" PRIu64 "\n", count);
        else
                fprintf(w->out, "\",le=\"%.9g\"} %" PRIu64 "\n", (double)below_ns / 1e9, count);
}

static void put_histogram(const struct writer *w, const char *name, const char *label, const char *database,
                          const struct lessor_status_histogram *h) {
        char sample[112];
        uint64_t count = 0;

        for (unsigned i = 0; i < LESSOR_CALL_BUCKETS; i++) {
                count += h->bucket[i];
                if (i % 4 == 0 || i == LESSOR_CALL_BUCKETS - 1)
                        put_bucket(w, name, label, database, lessor_status_bucket_below_ns(i), count);
        }
        snprintf(sample, sizeof(sample), "%s_sum", name);
        put_sample(w->out, sample, label, database);
        put_seconds(w->out, h->sum_ns);
        /* Not h->count: the two formats want the last bucket's, and workers count the two one after the other. */
        snprintf(sample, sizeof(sample), "%s_count", name);
        put_sample(w->out, sample, label, database);
        fprintf(w->out, "%" PRIu64 "\n", count);
}

#define OTEL_POOL "db_client_connection_pool_name"

static void histogram_metric(const struct writer *w, const struct field_histogram *h) {
        const char *otel = otel_histogram(h->name);
        char ours[96];

        snprintf(ours, sizeof(ours), "lessor_%s_seconds", h->name);
        family(w, otel ? otel : ours, HISTOGRAM_TYPE, h->help);
        for (unsigned i = 0; i < w->m->n_databases; i++)
                put_histogram(w, otel ? otel : ours, otel ? OTEL_POOL : "database", w->m->databases[i].name,
                              field_histogram_value(h, &w->m->databases[i]));
}

static void otel_count(const struct writer *w) {
        family(w, "db_client_connection_count", GAUGE_TYPE,
               "connections in use (held by a worker) and idle (ready, parked ones included)");
        for (unsigned i = 0; i < w->m->n_databases; i++) {
                const struct lessor_status_database *d = &w->m->databases[i];
                for (int idle = 0; idle < 2; idle++) {
                        fputs("db_client_connection_count{" OTEL_POOL "=\"", w->out);
                        put_label(w->out, d->name);
                        fprintf(w->out, "\",db_client_connection_state=\"%s\"} %" PRIu64 "\n", idle ? "idle" : "used",
                                idle ? d->available_connections : d->in_use_connections);
                }
        }
}

static void otel_field(const struct writer *w, const char *name, const char *field) {
        const struct field *f = field_find(field);
        bool counter = f->kind == FIELD_COUNTER;
        char sample[96];

        snprintf(sample, sizeof(sample), "%s%s", name, counter ? "_total" : "");
        family(w, name, counter ? COUNTER_TYPE : GAUGE_TYPE, f->help);
        for (unsigned i = 0; i < w->m->n_databases; i++) {
                put_sample(w->out, sample, OTEL_POOL, w->m->databases[i].name);
                put_value(w->out, field_value(f, &w->m->databases[i]), false);
        }
}

static void database_metrics(const struct writer *w) {
        otel_count(w);
        otel_field(w, "db_client_connection_max", "max_connections");
        otel_field(w, "db_client_connection_pending_requests", "waiting");
        otel_field(w, "db_client_connection_timeouts", "lease_timeouts");
        for (size_t i = 0; i < n_fields; i++)
                field_metric(w, &fields[i]);
        oldest_lease_metric(w);
        for (size_t i = 0; i < n_field_histograms; i++)
                histogram_metric(w, &field_histograms[i]);
}

void metrics_print(FILE *out, const struct model *m, enum metrics_format format) {
        const struct writer w = {.out = out, .m = m, .openmetrics = format == METRICS_OPENMETRICS};
        single(&w, "lessor_up", GAUGE_TYPE, "1: the broker gives signs of life; 0: dead, hung, or none has run here",
               m && !m->instance.stale);
        if (m) {
                instance_metrics(&w);
                overall_metrics(&w);
                database_metrics(&w);
        }
        if (w.openmetrics)
                fputs("# EOF\n", out);
}

/* SPDX-License-Identifier: MIT */
/* The model as metrics, in both formats, read back by a strict parser. */
#include "fields.h"
#include "metrics_text.h"

#include "support/check.h"
#include "support/metrics.h"

enum { SECOND = 1000000000 };

static struct lessor_status_database databases[2];
static struct model_lease leases[2];
static struct model model;

static void setup(void) {
        model = (struct model){.databases = databases, .n_databases = 2, .leases = leases, .n_leases = 2};
        for (size_t i = 0; i < n_fields; i++) { /* each its own value */
                uint64_t value = fields[i].unit == FIELD_NS ? (i + 1) * SECOND : i + 1;
                memcpy((char *)&databases[0] + fields[i].offset, &value, sizeof(value));
        }
        snprintf(databases[0].name, LESSOR_NAME_SIZE, "main");
        snprintf(databases[1].name, LESSOR_NAME_SIZE, "a\"b\\c\n\033");
        databases[0].wait_time = (struct lessor_status_histogram){.count = 7, .sum_ns = 2500000000, .max_ns = SECOND};
        databases[0].wait_time.bucket[0] = 1;
        databases[0].wait_time.bucket[2] = 2;
        databases[0].wait_time.bucket[LESSOR_CALL_BUCKETS - 1] = 3; /* the seventh is being counted */
        leases[0] = (struct model_lease){.database = "main", .age_ns = 90000000000};
        leases[1] = (struct model_lease){.database = "main", .age_ns = SECOND};
        snprintf(model.instance.name, LESSOR_NAME_SIZE, "here");
        snprintf(model.instance.release, LESSOR_NAME_SIZE, "1.2.3");
        model.instance.heartbeat_age_ns = 50000000;
        model.instance.sessions_total = 12;
        model.overall = (struct model_overall){.total = 2, .healthy_databases = 1, .failed_databases = 1};
}

static struct metrics printed(const struct model *m, enum metrics_format format) {
        struct metrics ret;
        char *text = NULL;
        size_t size;
        FILE *out = open_memstream(&text, &size);
        metrics_print(out, m, format);
        fclose(out);
        metrics_read(&ret, text, format == METRICS_OPENMETRICS);
        free(text);
        return ret;
}

#define METRICS_TEST(name) TEST_WITH(metrics_text, name, .init = setup, .timeout = 60)

METRICS_TEST(every_field_of_the_schema_is_a_metric_in_both_formats) {
        for (int format = 0; format < 2; format++) {
                struct metrics m = printed(&model, (enum metrics_format)format);
                for (size_t i = 0; i < n_fields; i++) {
                        char series[160];
                        snprintf(series, sizeof(series), "lessor_%s%s%s{database=\"main\"}", fields[i].name,
                                 fields[i].unit == FIELD_NS ? "_seconds" : "",
                                 fields[i].kind == FIELD_COUNTER ? "_total" : "");
                        check_msg(metrics_value(&m, series) == (double)(i + 1), "%s", series);
                }
                metrics_free(&m);
        }
}

METRICS_TEST(the_formats_differ_in_nothing_but_declarations) {
        struct metrics a = printed(&model, METRICS_OPENMETRICS), b = printed(&model, METRICS_PROMETHEUS);
        check_eq(a.n_samples, b.n_samples);
        check_eq(a.n_families, b.n_families);
        for (size_t i = 0; i < a.n_samples; i++)
                check_str(a.samples[i].series, b.samples[i].series);
        metrics_free(&a);
        metrics_free(&b);
}

METRICS_TEST(histograms_are_cumulative_at_powers_of_two) {
        struct metrics m = printed(&model, METRICS_OPENMETRICS);
#define WAIT "db_client_connection_wait_time_seconds"
        check(metrics_value(&m, WAIT "_bucket{db_client_connection_pool_name=\"main\",le=\"1.024e-06\"}") == 1);
        check(metrics_value(&m, WAIT "_bucket{db_client_connection_pool_name=\"main\",le=\"2.048e-06\"}") == 3);
        check(metrics_value(&m, WAIT "_bucket{db_client_connection_pool_name=\"main\",le=\"137.438953\"}") == 3);
        check(metrics_value(&m, WAIT "_bucket{db_client_connection_pool_name=\"main\",le=\"+Inf\"}") == 6);
        check(metrics_value(&m, WAIT "_count{db_client_connection_pool_name=\"main\"}") == 6);
        check(metrics_value(&m, WAIT "_sum{db_client_connection_pool_name=\"main\"}") == 2.5);
        for (size_t i = 0; i < n_field_histograms; i++) /* of the schema, each under one name */
                check(strcmp(field_histograms[i].name, "wait_time") != 0 ||
                      !metrics_has_family(&m, "lessor_wait_time_seconds"));
        metrics_free(&m);
}

METRICS_TEST(names_from_the_segment_cannot_break_a_line) {
        struct metrics m = printed(&model, METRICS_PROMETHEUS);
        check(metrics_value(&m, "lessor_leases_total{database=\"a\\\"b\\\\c??\"}") == 0);
        metrics_free(&m);
}

METRICS_TEST(the_instance_and_its_health) {
        struct metrics m = printed(&model, METRICS_OPENMETRICS);
        check(metrics_value(&m, "lessor_up") == 1);
        check(metrics_value(&m, "lessor_build_info{name=\"here\",version=\"1.2.3\"}") == 1);
        check(metrics_value(&m, "lessor_heartbeat_age_seconds") == 0.05);
        check(metrics_value(&m, "lessor_sessions_attached_total") == 12);
        check(metrics_value(&m, "lessor_databases{state=\"failed\"}") == 1);
        check(metrics_value(&m, "lessor_oldest_lease_seconds{database=\"main\"}") == 90);
        check(metrics_value(&m, "lessor_oldest_lease_seconds{database=\"a\\\"b\\\\c??\"}") == 0);
        check(metrics_value(&m, "db_client_connection_count{db_client_connection_pool_name=\"main\","
                                "db_client_connection_state=\"used\"}") == (double)databases[0].in_use_connections);
        metrics_free(&m);
}

METRICS_TEST(a_dead_broker_is_not_up_and_keeps_its_last_figures) {
        model.instance.stale = true;
        struct metrics m = printed(&model, METRICS_OPENMETRICS);
        check(metrics_value(&m, "lessor_up") == 0);
        check(metrics_has_name(&m, "lessor_leases_total"));
        metrics_free(&m);
}

METRICS_TEST(without_a_broker_there_is_one_figure) {
        struct metrics m = printed(NULL, METRICS_OPENMETRICS);
        check_eq(m.n_samples, 1);
        check(metrics_value(&m, "lessor_up") == 0);
        metrics_free(&m);
}

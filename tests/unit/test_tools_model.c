/* SPDX-License-Identifier: MIT */
/* What `lessor` makes of the figures before it prints them. */
#include <math.h>

#include "bench/sample.h"
#include "format.h"
#include "model.h"
#include "nearest.h"
#include "table.h"

#include "test_status_fake.h"

/* ---- derived figures ------------------------------------------------------------------------------------------- */

TEST(tools_model, the_success_rate_is_a_share_of_all_operations) {
        check(model_success_rate(0, 0) == 100);
        check(model_success_rate(10, 0) == 100);
        check(model_success_rate(0, 10) == 0);
        check(model_success_rate(3, 1) == 75);
        check(model_success_rate(UINT64_MAX, UINT64_MAX) == 50); /* no overflow */
}

TEST(tools_model, an_unused_database_counts_healthy) {
        struct lessor_status_database d[2] = {{.health = LESSOR_HEALTH_UNUSED}, {.health = LESSOR_HEALTH_HEALTHY}};
        struct model_overall o;
        model_derive_overall(d, 2, &o);
        check(o.healthy);
        check_eq(o.healthy_databases, 2);
        check(o.success_rate == 100);
}

TEST(tools_model, overall_adds_up_and_one_bad_database_is_enough) {
        struct lessor_status_database d[4] = {
                {.health = LESSOR_HEALTH_HEALTHY, .operations_ok = 90},
                {.health = LESSOR_HEALTH_DEGRADED, .operations_failed = 10},
                {.health = LESSOR_HEALTH_FAILED},
                {.health = 77}, /* of a newer broker: nothing that we could call healthy */
        };
        struct model_overall o;
        model_derive_overall(d, 4, &o);
        check(!o.healthy);
        check_eq(o.total, 4);
        check_eq(o.healthy_databases, 1);
        check_eq(o.degraded_databases, 1);
        check_eq(o.failed_databases, 2);
        check(o.success_rate == 90);
}

TEST(tools_model, the_verdict_is_the_worst_and_staleness_is_failure) {
        struct model m = {0};
        check_eq(model_verdict(&m), MODEL_HEALTHY);
        m.overall.degraded_databases = 1;
        check_eq(model_verdict(&m), MODEL_DEGRADED);
        m.overall.failed_databases = 1;
        check_eq(model_verdict(&m), MODEL_FAILED);
        m.overall = (struct model_overall){0};
        m.instance.stale = true;
        check_eq(model_verdict(&m), MODEL_FAILED);
}

TEST(tools_model, times_are_microseconds) {
        struct lessor_status_histogram h = {.count = 4, .sum_ns = 8000, .max_ns = 5000};
        h.bucket[0] = 3;
        h.bucket[9] = 1;
        struct model_times t = model_times(&h);
        check_eq(t.count, 4);
        check(t.mean_us == 2);
        check(t.p50_us == 1.024);
        check(t.p99_us == 5);
        check(t.max_us == 5);
        t = model_times(&(struct lessor_status_histogram){0});
        check(t.mean_us == 0 && t.p99_us == 0);
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static struct fake fake;
static struct lessor_status status;

static void setup(void) {
        struct lessor_status_database d = {.health = LESSOR_HEALTH_HEALTHY};
        struct lessor_status_connection c = {.state = LESSOR_CONNECTION_LEASED};

        fake_make(&fake);
        snprintf(d.name, sizeof(d.name), "main");
        memset(d.last_error, 'x', sizeof(d.last_error)); /* not terminated */
        fake_database(&fake, 0, &d);
        c.since_ns = lessor_status_now_ns() - 1000000000U;
        fake_connection(&fake, 0, &c);
        c = (struct lessor_status_connection){.state = LESSOR_CONNECTION_FREE, .slot = 1};
        fake_connection(&fake, 1, &c);
        c = (struct lessor_status_connection){.state = LESSOR_CONNECTION_LEASED, .slot = 2, .database = 99};
        fake_connection(&fake, 2, &c);
        fake.header.databases = 1;
        fake.header.connections = 3;
        fake_header(&fake);
        check_eq(lessor_status_open(fake.instance, &status), 0);
}

static void teardown(void) {
        lessor_status_close(&status);
        fake_remove(&fake);
}

TEST_WITH(tools_model, a_segment_becomes_a_model, .init = setup, .fini = teardown, .timeout = 60) {
        struct model m;
        check_eq(model_read(&status, &m), 0);
        check_eq(m.n_databases, 1);
        check_eq(strlen(m.databases[0].last_error), LESSOR_STATUS_TEXT_SIZE - 1);
        check(model_find(&m, "main") == m.databases);
        check(!model_find(&m, "mainz"));
        check(!m.instance.stale && m.overall.healthy);
        check(m.instance.uptime_ns >= UINT64_C(59) * 1000000000U);
        model_deinit(&m);
        model_deinit(&m);
}

TEST_WITH(tools_model, leases_are_oldest_first_and_free_connections_none, .init = setup, .fini = teardown,
          .timeout = 60) {
        struct model m;
        check_eq(model_read(&status, &m), 0);
        check_eq(m.n_leases, 2);
        check_eq(m.leases[0].connection.slot, 2); /* since the machine's start */
        check_str(m.leases[0].database, "?");
        check_eq(m.leases[1].connection.slot, 0);
        check_str(m.leases[1].database, "main");
        check(m.leases[1].age_ns >= 1000000000U);
        model_deinit(&m);
}

TEST_WITH(tools_model, a_dead_broker_is_stale_and_was_up_until_its_last_heartbeat, .init = setup, .fini = teardown,
          .timeout = 60) {
        struct model m;
        fake.header.broker_pid = INT32_MAX; /* beyond every pid_max */
        fake_beat(&fake, UINT64_C(50) * 1000000000U);
        lessor_status_close(&status);
        check_eq(lessor_status_open(fake.instance, &status), 0);
        check_eq(model_read(&status, &m), 0);
        check(m.instance.stale && m.instance.gone && !m.overall.healthy);
        check(m.instance.uptime_ns < UINT64_C(12) * 1000000000U);
        model_deinit(&m);
}

TEST_WITH(tools_model, a_record_left_half_written_counts_failed_and_says_so, .init = setup, .fini = teardown,
          .timeout = 60) {
        struct model m;
        uint64_t odd = 5;
        fake_put(&fake, &odd, 8, fake.header.database_offset);
        check_eq(model_read(&status, &m), 0);
        check_eq(m.overall.failed_databases, 1);
        check(strstr(m.databases[0].reason, "half-written"));
        model_deinit(&m);
}

/* ---- numbers for people ---------------------------------------------------------------------------------------- */

TEST(tools_format, counts) {
        check_str(format_count(0).s, "0");
        check_str(format_count(9999).s, "9999");
        check_str(format_count(10000).s, "10k");
        check_str(format_count(12345).s, "12.3k");
        check_str(format_count(999499).s, "999k");
        check_str(format_count(999500).s, "1M");
        check_str(format_count(1234567).s, "1.23M");
        check_str(format_count(UINT64_MAX).s, "18.4E");
}

TEST(tools_format, durations) {
        check_str(format_duration(0).s, "0ns");
        check_str(format_duration(27).s, "27ns");
        check_str(format_duration(1250000).s, "1.25ms");
        check_str(format_duration(UINT64_C(99900000000)).s, "99.9s");
        check_str(format_duration(UINT64_C(184000000000)).s, "3m04s");
        check_str(format_duration(UINT64_C(7500000000000)).s, "2h05m");
        check_str(format_duration(UINT64_C(273600000000000)).s, "3d04h");
        check(strlen(format_duration(UINT64_MAX).s) < 12);
}

TEST(tools_format, a_rate_below_all_is_never_shown_as_all) {
        check_str(format_percent(100).s, "100%");
        check_str(format_percent(99.9999).s, "99.99%");
        check_str(format_percent(0).s, "0.00%");
}

TEST(tools_format, bytes_reals_and_times) {
        check_str(format_bytes(512).s, "512B");
        check_str(format_bytes(7.9 * 1024 * 1024).s, "7.9MiB");
        check_str(format_real(0.984).s, "0.984");
        check_str(format_real(43210.5).s, "43.2k");
        check_str(format_ago(100, 0).s, "never");
        check_str(format_ago(5000000000, 2000000000).s, "3s ago");
        check_str(format_ago(100, 200).s, "0ns ago"); /* a clock that was set back */
}

TEST(tools_format, nothing_that_steers_a_terminal_passes) {
        char text[] = "a\033[2Jb\r\n\x9b\x7f z";
        check_str(format_clean(text), "a?[2Jb???? z");
}

/* ---- did you mean ---------------------------------------------------------------------------------------------- */

TEST(tools_nearest, slips_are_counted) {
        check_eq(nearest_distance("", ""), 0);
        check_eq(nearest_distance("stat", "stat"), 0);
        check_eq(nearest_distance("stta", "stat"), 1);
        check_eq(nearest_distance("sta", "stat"), 1);
        check_eq(nearest_distance("status", "stat"), 2);
        check_eq(nearest_distance("", "abc"), 3);
}

TEST(tools_nearest, only_a_near_name_is_offered) {
        static const char *const names[] = {"stat", "health", "leases", "bench", "help"};
        check_str(nearest("stats", names, 5), "stat");
        check_str(nearest("lease", names, 5), "leases");
        check_str(nearest("haelth", names, 5), "health");
        check_str(nearest("helpp", names, 5), "help");
        check(!nearest("frobnicate", names, 5));
        check(!nearest("", names, 5));
}

/* ---- tables, samples ------------------------------------------------------------------------------------------- */

TEST(tools_table, columns_are_as_wide_as_their_contents_and_lines_never_too_long) {
        static const struct table_column columns[] = {
                {"NAME", TABLE_ELASTIC}, {"N", TABLE_RIGHT}, {"SITE", TABLE_ELASTIC_TAIL}};
        struct table t;
        char *text = NULL;
        size_t size;
        FILE *out = open_memstream(&text, &size);

        table_init(&t, columns, 3);
        table_cell(&t, "a\033name");
        table_cell(&t, "%d", 1000);
        table_cell(&t, "a-very-long-path-of-a-file.c:123");
        table_print(&t, out, 26);
        fclose(out);
        check_str(text, "NAME       N  SITE\na?name  1000  ~-file.c:123\n");
        free(text);
        table_deinit(&t);
}

TEST(tools_sample, quantiles_are_interpolated) {
        struct sample s = {0};
        check(sample_median(&s) == 0);
        for (int i = 1000; i >= 1; i--)
                sample_add(&s, i);
        check(sample_median(&s) == 500.5);
        check(sample_least(&s) == 1 && sample_most(&s) == 1000);
        check(fabs(sample_quantile(&s, 0.99) - 990.01) < 1e-6);
        sample_clear(&s);
        sample_add(&s, 7);
        check(sample_median(&s) == 7 && sample_quantile(&s, 0.99) == 7);
        sample_deinit(&s);
        sample_deinit(&s);
}

/* SPDX-License-Identifier: MIT */
#include <string.h>

#include <base/cleanup.h>

#include "cli.h"
#include "crowd.h"
#include "format.h"
#include "markdown.h"
#include "table.h"

enum { WIDTH = 120 };

void crowd_size_deinit(struct crowd_size *c) {
        struct sample *ratios[] = {&c->ratios.private, &c->ratios.twemproxy, &c->ratios.p99_private,
                                   &c->ratios.cpu_private};

        for (unsigned i = 0; i < CROWD_ARMS; i++) {
                struct crowd_row *row = &c->rows[i];
                struct sample *all[] = {&row->ops, &row->p50_us, &row->p99_us, &row->p999_us, &row->cpu_us};
                for (size_t s = 0; s < ARRAY_SIZE(all); s++)
                        sample_deinit(all[s]);
        }
        for (size_t i = 0; i < ARRAY_SIZE(ratios); i++)
                sample_deinit(ratios[i]);
}

/* ---- JSON ------------------------------------------------------------------------------------------------------ */

static json_t *tell_row(unsigned workers, enum crowd_arm arm, struct crowd_row *row) {
        return json_pack("{s:i, s:s, s:f, s:f, s:f, s:f, s:f, s:i}", "workers", (int)workers, "arm",
                         crowd_arm_names[arm], "ops", sample_median(&row->ops), "p50_us", sample_median(&row->p50_us),
                         "p99_us", sample_median(&row->p99_us), "p999_us", sample_median(&row->p999_us),
                         "redis_cpu_us_per_op", sample_median(&row->cpu_us), "connections", (int)row->connections);
}

static json_t *tell_median(struct sample *s) { return s->n ? json_real(sample_median(s)) : json_null(); }

static json_t *tell_ratios(unsigned workers, struct crowd_ratios *r) {
        return json_pack("{s:i, s:o, s:o, s:o, s:o}", "workers", (int)workers, "private", tell_median(&r->private),
                         "twemproxy", tell_median(&r->twemproxy), "p99_private", tell_median(&r->p99_private),
                         "redis_cpu_private", tell_median(&r->cpu_private));
}

static void append(json_t *list, json_t *value) {
        if (json_array_append_new(list, value) < 0)
                out_of_memory();
}

void crowd_tell(struct crowd_size *sizes, json_t *ret) {
        json_t *rows = json_array(), *ratios = json_array();

        bench_put(ret, "name", json_string("crowd"));
        bench_put(ret, "rows", rows);
        bench_put(ret, "ratios", ratios);
        for (unsigned i = 0; i < CROWD_SIZES; i++) {
                for (unsigned arm = 0; arm < sizes[i].arms; arm++)
                        append(rows, tell_row(crowd_bars[i].workers, arm, &sizes[i].rows[arm]));
                append(ratios, tell_ratios(crowd_bars[i].workers, &sizes[i].ratios));
        }
}

/* ---- text ------------------------------------------------------------------------------------------------------ */

static double number(json_t *object, const char *name) { return json_number_value(json_object_get(object, name)); }

static void print_rows(json_t *rows) {
        static const struct table_column columns[] = {{"workers", TABLE_RIGHT},     {"arm", TABLE_LEFT},
                                                      {"ops/s", TABLE_RIGHT},       {"p50 us", TABLE_RIGHT},
                                                      {"p99 us", TABLE_RIGHT},      {"p99.9 us", TABLE_RIGHT},
                                                      {"Redis us/op", TABLE_RIGHT}, {"connections", TABLE_RIGHT}};
        struct table table;
        json_t *row;
        size_t i;

        table_init(&table, columns, ARRAY_SIZE(columns));
        json_array_foreach(rows, i, row) {
                table_cell(&table, "%.0f", number(row, "workers"));
                table_cell(&table, "%s", json_string_value(json_object_get(row, "arm")));
                table_cell(&table, "%.0f", number(row, "ops"));
                table_cell(&table, "%.1f", number(row, "p50_us"));
                table_cell(&table, "%.1f", number(row, "p99_us"));
                table_cell(&table, "%.1f", number(row, "p999_us"));
                table_cell(&table, "%.2f", number(row, "redis_cpu_us_per_op"));
                table_cell(&table, "%.0f", number(row, "connections"));
        }
        table_print(&table, stdout, WIDTH);
        table_deinit(&table);
}

/* "1.12 (>= 1.05: met)" */
static void ratio_cell(struct table *table, json_t *value, double bar, bool at_most) {
        double ratio = json_number_value(value);

        if (!json_is_number(value))
                table_cell(table, "-");
        else if (bar == 0)
                table_cell(table, "%.3f", ratio);
        else
                table_cell(table, "%.3f (%s %.4g: %s)", ratio, at_most ? "<=" : ">=", bar,
                           (at_most ? ratio <= bar : ratio >= bar) ? "met" : "MISSED");
}

static void print_ratios(json_t *ratios) {
        static const struct table_column columns[] = {{"workers", TABLE_RIGHT},
                                                      {"ops/s by private", TABLE_LEFT},
                                                      {"ops/s by twemproxy", TABLE_LEFT},
                                                      {"p99 by private", TABLE_LEFT},
                                                      {"Redis CPU/op by private", TABLE_LEFT}};
        struct table table;
        json_t *ratio;
        size_t i;

        table_init(&table, columns, ARRAY_SIZE(columns));
        json_array_foreach(ratios, i, ratio) {
                table_cell(&table, "%.0f", number(ratio, "workers"));
                ratio_cell(&table, json_object_get(ratio, "private"), crowd_bars[i].private, false);
                ratio_cell(&table, json_object_get(ratio, "twemproxy"), crowd_bars[i].twemproxy, false);
                ratio_cell(&table, json_object_get(ratio, "p99_private"), crowd_bars[i].p99_private, true);
                ratio_cell(&table, json_object_get(ratio, "redis_cpu_private"), crowd_bars[i].cpu_private, true);
        }
        table_print(&table, stdout, WIDTH);
        table_deinit(&table);
}

/* ---- a table of all ---------------------------------------------------------------------------------------------- */

static double rate_of(json_t *rows, double workers, enum crowd_arm arm, const char *figure) {
        json_t *row;
        size_t i;
        json_array_foreach(rows, i, row) {
                if (number(row, "workers") == workers &&
                    strcmp(json_string_value(json_object_get(row, "arm")), crowd_arm_names[arm]) == 0)
                        return number(row, figure);
        }
        return 0;
}

/* One ratio that the benchmark has, with the two figures it is of. */
struct crowd_line {
        const char *ratio, *figure, *unit, *what;
        enum crowd_arm against;
        bool at_most;
};

static void markdown_line(json_t *rows, json_t *ratio, const struct crowd_line *l, double bar) {
        char what[128];
        double workers = number(ratio, "workers");
        if (!json_is_number(json_object_get(ratio, l->ratio)))
                return;
        snprintf(what, sizeof(what), "%.0f worker%s, %s", workers, workers == 1 ? "" : "s", l->what);
        markdown_row(&(struct markdown_row){.bench = "crowd",
                                            .what = what,
                                            .unit = l->unit,
                                            .reference = rate_of(rows, workers, l->against, l->figure),
                                            .value = rate_of(rows, workers, CROWD_COMMAND, l->figure),
                                            .ratio = number(ratio, l->ratio),
                                            .bar = bar,
                                            .at_most = l->at_most});
}

void crowd_markdown(json_t *told) {
        static const struct crowd_line lines[] = {
                {"private", "ops", "ops/s", "against a private connection each", CROWD_PRIVATE, false},
                {"twemproxy", "ops", "ops/s", "against twemproxy", CROWD_TWEMPROXY, false},
                {"p99_private", "p99_us", "us", "p99 against private connections", CROWD_PRIVATE, true},
                {"redis_cpu_private", "redis_cpu_us_per_op", "us", "Redis' CPU a command against private connections",
                 CROWD_PRIVATE, true},
        };
        json_t *rows = json_object_get(told, "rows"), *ratios = json_object_get(told, "ratios"), *ratio;
        size_t i;
        json_array_foreach(ratios, i, ratio) {
                const double bars[] = {crowd_bars[i].private, crowd_bars[i].twemproxy, crowd_bars[i].p99_private,
                                       crowd_bars[i].cpu_private};
                for (size_t k = 0; k < ARRAY_SIZE(lines); k++)
                        markdown_line(rows, ratio, &lines[k], bars[k]);
        }
}

/* ---- the broker's own figures ---------------------------------------------------------------------------------- */

/* Whatever the schema has that begins with "lane": what is added there is shown here. */
static bool of_lanes(const char *name) { return strncmp(name, "lane", 4) == 0; }

static bool has_figures(void) {
        static const char *const names[] = {
#define LESSOR_STATUS_FIELD(name, kind, unit, help) #name,
#include <lessor/status_fields.h>
        };
        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                if (of_lanes(names[i]))
                        return true;
        return false;
}

static void print_count(const char *name, const char *unit, uint64_t value) {
        if (!of_lanes(name))
                return;
        printf("  %-28s %s\n", name, strcmp(unit, "NS") == 0 ? format_duration(value).s : format_count(value).s);
}

static void print_histogram(const char *name, const struct lessor_status_histogram *h) {
        if (!of_lanes(name) || h->count == 0)
                return;
        printf("  %-28s p50 %s, p99 %s, at most %s\n", name, format_duration(lessor_status_percentile(h, 0.5)).s,
               format_duration(lessor_status_percentile(h, 0.99)).s, format_duration(h->max_ns).s);
}

static void print_record(const struct lessor_status_database *d) {
        printf("of the lanes to `%s`, by the broker:\n", d->name);
        if (d->lane_writes > 0)
                printf("  %-28s %.1f\n", "commands in a write", (double)d->lane_calls / (double)d->lane_writes);
#define LESSOR_STATUS_FIELD(name, kind, unit, help) print_count(#name, #unit, d->name);
#define LESSOR_STATUS_HISTOGRAM(name, help) print_histogram(#name, &d->name);
#include <lessor/status_fields.h>
}

static void print_lanes(const struct servers *s) {
        struct lessor_status_database d;
        struct lessor_status status = {0};
        int r;

        if (!has_figures() || lessor_status_open(s->instance, &status) < 0)
                return;
        for (unsigned i = 0; (r = lessor_status_read_database(&status, i, LESSOR_STATUS_ALL, &d)) != -ENOENT; i++)
                if (r == 0 && strcmp(d.name, CROWD_LANES_DATABASE) == 0)
                        print_record(&d);
        lessor_status_close(&status);
}

void crowd_print(const struct bench_options *o, const struct servers *s, json_t *told) {
        printf("crowd: small SET and GET by forked workers, five ways (medians of %u rounds)\n", o->rounds);
        print_rows(json_object_get(told, "rows"));
        puts("lessor_command against others, and the bars");
        print_ratios(json_object_get(told, "ratios"));
        print_lanes(s);
}

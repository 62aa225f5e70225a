/* SPDX-License-Identifier: MIT */
/* Everything that comes from a worker or from Redis passes format_clean() on its way to the terminal. */
#include "render.h"

#include <inttypes.h>
#include <sys/ioctl.h>

#include <base/cleanup.h>

#include "fields.h"
#include "format.h"
#include "table.h"

/* Texts of the segment are at most this long. A copy by value, cleaned. */
struct clean {
        char s[LESSOR_STATUS_TEXT_SIZE];
};

static struct clean clean(const char *s) {
        struct clean c;
        snprintf(c.s, sizeof(c.s), "%s", s);
        format_clean(c.s);
        return c;
}

size_t render_width(int fd) {
        struct winsize w;
        if (ioctl(fd, TIOCGWINSZ, &w) < 0 || w.ws_col < RENDER_WIDTH)
                return RENDER_WIDTH;
        return w.ws_col;
}

void render_names(FILE *out, const struct model *m) {
        for (unsigned i = 0; i < m->n_databases; i++)
                fprintf(out, "%s%s", i ? ", " : "", clean(m->databases[i].name).s);
}

static void instance_lines(FILE *out, const struct model_instance *i) {
        fprintf(out, "lessord %s, instance %s, pid %d, %s %s; %s sessions (%s so far", clean(i->release).s,
                clean(i->name).s, i->pid, i->stale ? "was up" : "up", format_duration(i->uptime_ns).s,
                format_count(i->sessions).s, format_count(i->sessions_total).s);
        if (i->sessions_refused)
                fprintf(out, ", %s refused", format_count(i->sessions_refused).s);
        fputs(")\n", out);
        if (i->stale)
                fprintf(out, "STALE: no heartbeat for %s; %s. These are its last figures.\n",
                        format_duration(i->heartbeat_age_ns).s,
                        i->gone ? "the broker is dead, start it again" : "the broker hangs, or is dead");
}

static void overall_line(FILE *out, const struct model_overall *o) {
        fprintf(out, "%u databases: %u healthy, %u degraded, %u failed; %s of operations succeeded\n", o->total,
                o->healthy_databases, o->degraded_databases, o->failed_databases, format_percent(o->success_rate).s);
}

static void reason_lines(FILE *out, const struct model *m) {
        for (unsigned i = 0; i < m->n_databases; i++) {
                const struct lessor_status_database *d = &m->databases[i];
                if (d->health == LESSOR_HEALTH_UNUSED || d->health == LESSOR_HEALTH_HEALTHY)
                        continue;
                fprintf(out, "%s is %s", clean(d->name).s, model_health_text(d->health));
                if (d->trouble != LESSOR_TROUBLE_NONE)
                        fprintf(out, " (%s)", lessor_trouble_word(d->trouble));
                fprintf(out, ": %s", d->reason[0] ? clean(d->reason).s : "no reason given");
                if (d->last_error[0] && strcmp(d->last_error, d->reason) != 0)
                        fprintf(out, " (last error, %s: %s)", format_ago(m->wall, d->last_error_time).s,
                                clean(d->last_error).s);
                else if (d->last_error[0])
                        fprintf(out, " (last seen %s)", format_ago(m->wall, d->last_error_time).s);
                fputc('\n', out);
        }
}

static struct text rate(const struct model *m, const struct model *before, const struct lessor_status_database *d) {
        const struct lessor_status_database *old = NULL;
        if (before && before->instance.generation == m->instance.generation && m->read_at > before->read_at)
                old = model_find(before, d->name);
        if (!old || model_operations(d) < model_operations(old))
                return (struct text){"-"};
        return format_real((double)(model_operations(d) - model_operations(old)) * 1e9 /
                           (double)(m->read_at - before->read_at));
}

static void database_row(struct table *t, const struct model *m, const struct model *before,
                         const struct lessor_status_database *d) {
        uint64_t operations = model_operations(d);
        table_cell(t, "%s", d->name);
        table_cell(t, "%s", model_standing_text(d));
        table_cell(t, "%s", format_count(d->in_use_connections).s);
        table_cell(t, "%s", format_count(d->available_connections).s);
        table_cell(t, "%s", format_count(d->open_connections).s);
        table_cell(t, "%s", format_count(d->max_connections).s);
        table_cell(t, "%s", format_count(d->waiting).s);
        table_cell(t, "%s", format_count(d->leases).s);
        table_cell(t, "%s", format_count(operations).s);
        if (before)
                table_cell(t, "%s", rate(m, before, d).s);
        table_cell(t, "%s",
                   operations ? format_percent(model_success_rate(d->operations_ok, d->operations_failed)).s : "-");
        table_cell(t, "%s",
                   d->wait_time.count ? format_duration(lessor_status_percentile(&d->wait_time, 0.99)).s : "-");
        table_cell(t, "%s",
                   d->call_time.count ? format_duration(lessor_status_percentile(&d->call_time, 0.99)).s : "-");
}

void render_all(FILE *out, const struct model *m, const struct model *before, size_t width) {
        static const struct table_column with_rate[] = {
                {"DATABASE", TABLE_ELASTIC}, {"STATE", TABLE_LEFT},  {"USED", TABLE_RIGHT},  {"FREE", TABLE_RIGHT},
                {"OPEN", TABLE_RIGHT},       {"MAX", TABLE_RIGHT},   {"QUEUE", TABLE_RIGHT}, {"LEASES", TABLE_RIGHT},
                {"OPS", TABLE_RIGHT},        {"OPS/S", TABLE_RIGHT}, {"OK", TABLE_RIGHT},    {"WAIT P99", TABLE_RIGHT},
                {"CALL P99", TABLE_RIGHT},
        };
        static const struct table_column without[] = {
                {"DATABASE", TABLE_ELASTIC}, {"STATE", TABLE_LEFT},     {"USED", TABLE_RIGHT},
                {"FREE", TABLE_RIGHT},       {"OPEN", TABLE_RIGHT},     {"MAX", TABLE_RIGHT},
                {"QUEUE", TABLE_RIGHT},      {"LEASES", TABLE_RIGHT},   {"OPS", TABLE_RIGHT},
                {"OK", TABLE_RIGHT},         {"WAIT P99", TABLE_RIGHT}, {"CALL P99", TABLE_RIGHT},
        };
        struct table t;

        instance_lines(out, &m->instance);
        overall_line(out, &m->overall);
        fputc('\n', out);
        table_init(&t, before ? with_rate : without, before ? ARRAY_SIZE(with_rate) : ARRAY_SIZE(without));
        for (unsigned i = 0; i < m->n_databases; i++)
                database_row(&t, m, before, &m->databases[i]);
        table_print(&t, out, width);
        table_deinit(&t);
        if (!m->overall.healthy)
                fputc('\n', out);
        reason_lines(out, m);
}

/* ---- one database, every field of the schema ------------------------------------------------------------------- */

static struct text field_text(const struct model *m, const struct lessor_status_database *d, const struct field *f) {
        uint64_t value = field_value(f, d);
        struct text t;

        if (f->kind == FIELD_TIME)
                return format_ago(m->wall, value);
        if (f->unit == FIELD_NS)
                return format_duration(value);
        if (f->unit != FIELD_ENUM || !model_state_text(f->name, value))
                return format_count(value);
        snprintf(t.s, sizeof(t.s), "%s", model_state_text(f->name, value));
        return t;
}

/* `text` from column `at` on, broken between words. */
static void wrapped(FILE *out, const char *text, size_t at, size_t width) {
        size_t room = width > at + 20 ? width - at : 20;
        while (strlen(text) > room) {
                size_t cut = room;
                while (cut > 1 && text[cut] != ' ')
                        cut--;
                fprintf(out, "%.*s\n%*s", (int)cut, text, (int)at, "");
                text += cut + (text[cut] == ' ');
        }
        fprintf(out, "%s\n", text);
}

enum { NAME_WIDTH = 22, VALUE_WIDTH = 12 };

static void field_line(FILE *out, const char *name, const char *value, const char *help, size_t width) {
        fprintf(out, "  %-*s %*s  ", NAME_WIDTH, name, VALUE_WIDTH, value);
        wrapped(out, help, NAME_WIDTH + VALUE_WIDTH + 5, width);
}

static void fields_of_kind(FILE *out, const struct model *m, const struct lessor_status_database *d,
                           enum field_kind kind, size_t width) {
        for (size_t i = 0; i < n_fields; i++)
                if (fields[i].kind == kind)
                        field_line(out, fields[i].name, field_text(m, d, &fields[i]).s, fields[i].help, width);
}

static void times_row(struct table *t, const char *name, const struct lessor_status_histogram *h) {
        table_cell(t, "  %s", name);
        table_cell(t, "%s", format_count(h->count).s);
        table_cell(t, "%s", h->count ? format_duration(h->sum_ns / h->count).s : "-");
        table_cell(t, "%s", h->count ? format_duration(lessor_status_percentile(h, 0.50)).s : "-");
        table_cell(t, "%s", h->count ? format_duration(lessor_status_percentile(h, 0.90)).s : "-");
        table_cell(t, "%s", h->count ? format_duration(lessor_status_percentile(h, 0.99)).s : "-");
        table_cell(t, "%s", h->count ? format_duration(h->max_ns).s : "-");
}

static void times_table(FILE *out, const struct lessor_status_database *d, size_t width) {
        static const struct table_column columns[] = {
                {"  TIME", TABLE_LEFT}, {"COUNT", TABLE_RIGHT}, {"MEAN", TABLE_RIGHT}, {"P50", TABLE_RIGHT},
                {"P90", TABLE_RIGHT},   {"P99", TABLE_RIGHT},   {"MAX", TABLE_RIGHT},
        };
        struct table t;
        table_init(&t, columns, ARRAY_SIZE(columns));
#define LESSOR_STATUS_HISTOGRAM(name, help) times_row(&t, #name, &d->name);
#include <lessor/status_fields.h>
        table_print(&t, out, width);
        table_deinit(&t);
#define LESSOR_STATUS_HISTOGRAM(name, help) fprintf(out, "  %s: %s\n", #name, help);
#include <lessor/status_fields.h>
}

static void derived_lines(FILE *out, const struct lessor_status_database *d, size_t width) {
        field_line(out, "operations_total", format_count(model_operations(d)).s, "operations_ok + operations_failed",
                   width);
        field_line(out, "success_rate", format_percent(model_success_rate(d->operations_ok, d->operations_failed)).s,
                   "share of operations_ok in operations_total", width);
}

void render_database(FILE *out, const struct model *m, const struct lessor_status_database *d, size_t width) {
        instance_lines(out, &m->instance);
        fprintf(out, "\n%s at %s: %s", clean(d->name).s, clean(d->endpoint).s, model_standing_text(d));
        fprintf(out, d->reason[0] ? ", %s\n" : "%s\n", clean(d->reason).s);
        if (d->last_error[0])
                fprintf(out, "last error, %s: %s\n", format_ago(m->wall, d->last_error_time).s, clean(d->last_error).s);
        fputs("\nNow\n", out);
        fields_of_kind(out, m, d, FIELD_GAUGE, width);
        fputs("\nConfigured\n", out);
        fields_of_kind(out, m, d, FIELD_LIMIT, width);
        fputs("\nSince the start\n", out);
        fields_of_kind(out, m, d, FIELD_COUNTER, width);
        derived_lines(out, d, width);
        fputs("\nWhen\n", out);
        fields_of_kind(out, m, d, FIELD_TIME, width);
        fputc('\n', out);
        times_table(out, d, width);
}

/* ---- chosen figures --------------------------------------------------------------------------------------------- */

static void figure_row(struct table *t, const struct model *m, const struct model *before,
                       const struct lessor_status_database *d, unsigned index) {
        double rate = figure_rate(index, m, before, d);
        table_cell(t, "%s.%s", d->name, figure_name(index).s);
        table_cell(t, "%" PRIu64, figure_value(index, d));
        table_cell(t, "%s", rate < 0 ? "." : format_real(rate).s);
        table_cell(t, "%s", figure_help(index));
}

bool render_chosen(FILE *out, const struct model *m, const struct model *before, const struct choice *choice,
                   const struct lessor_status_database *only, size_t width) {
        static const struct table_column columns[] = {{"FIGURE", TABLE_LEFT},
                                                      {"VALUE", TABLE_RIGHT},
                                                      {"PER SECOND", TABLE_RIGHT},
                                                      {"MEANING", TABLE_ELASTIC}};
        struct table t;
        bool any = false;

        if (m->instance.stale)
                instance_lines(out, &m->instance);
        table_init(&t, columns, ARRAY_SIZE(columns));
        for (unsigned i = 0; i < m->n_databases; i++)
                for (unsigned f = 0; f < figures_number(); f++)
                        if ((!only || only == &m->databases[i]) &&
                            choice_has(choice, m->databases[i].name, figure_name(f).s)) {
                                figure_row(&t, m, before, &m->databases[i], f);
                                any = true;
                        }
        if (any)
                table_print(&t, out, width);
        table_deinit(&t);
        return any;
}

/* ---- health, leases -------------------------------------------------------------------------------------------- */

void render_health(FILE *out, const struct model *m) {
        static const char *const verdicts[] = {"healthy", "degraded", "FAILED"};
        fprintf(out, "%s: instance %s, ", m->instance.stale ? "STALE" : verdicts[model_verdict(m)],
                clean(m->instance.name).s);
        overall_line(out, &m->overall);
        if (m->instance.stale)
                instance_lines(out, &m->instance);
        reason_lines(out, m);
}

static void lease_row(struct table *t, const struct model *m, const struct model_lease *l, bool with_state) {
        const struct lessor_status_connection *c = &l->connection;
        table_cell(t, "%s", l->database);
        if (with_state)
                table_cell(t, "%s", model_connection_text(c->state));
        table_cell(t, "%" PRIu32, c->slot);
        table_cell(t, "%" PRId32, c->holder_pid);
        table_cell(t, "%" PRId32, c->holder_tid);
        table_cell(t, "%s", c->holder[0] ? c->holder : "-");
        table_cell(t, "%s", format_duration(l->age_ns).s);
        table_cell(t, "%s", c->site[0] ? c->site : "-");
        table_cell(t, "%s", c->local[0] ? c->local : "-");
        table_cell(t, "%" PRIu64, c->client_id);
        table_cell(t, "%" PRIu64, model_lease_number(m, c->lease));
        table_cell(t, "%" PRIu64, c->session);
}

/* The first two columns are those of all connections; held ones alone need no state. */
static const struct table_column lease_columns[] = {
        {"DATABASE", TABLE_ELASTIC}, {"STATE", TABLE_LEFT},      {"SLOT", TABLE_RIGHT},  {"PID", TABLE_RIGHT},
        {"TID", TABLE_RIGHT},        {"COMMAND", TABLE_ELASTIC}, {"AGE", TABLE_RIGHT},   {"SITE", TABLE_ELASTIC_TAIL},
        {"LOCAL", TABLE_LEFT},       {"CLIENT", TABLE_RIGHT},    {"LEASE", TABLE_RIGHT}, {"SESSION", TABLE_RIGHT},
};

static void lane_row(struct table *t, const struct model_lane *l) {
        table_cell(t, "%s", l->database);
        table_cell(t, "%" PRIu64, l->record.session);
        table_cell(t, "%" PRId32, l->record.holder_pid);
        table_cell(t, "%s", l->record.holder[0] ? l->record.holder : "-");
        table_cell(t, "%s", format_duration(l->age_ns).s);
        table_cell(t, "%" PRIu32, l->record.sent);
        table_cell(t, "%" PRIu32, l->record.queued);
        table_cell(t, "%s", l->connection ? l->connection->local : "-");
        table_cell(t, "%" PRIu64, l->connection ? l->connection->client_id : 0);
}

static void in_flight_line(FILE *out, const struct model_in_flight *f, unsigned shown) {
        fprintf(out, "by lane, %s sessions have %s commands under way", format_count(f->sessions).s,
                format_count(f->commands).s);
        if (shown < f->sessions)
                fprintf(out, ", the %u longest", shown);
        fputs(":\n", out);
}

/* The sessions with commands in lanes: those on one connection, or of one database, or all. */
static void render_lanes(FILE *out, const struct model *m, const char *database, const char *address, size_t width) {
        static const struct table_column columns[] = {
                {"DATABASE", TABLE_ELASTIC}, {"SESSION", TABLE_RIGHT}, {"PID", TABLE_RIGHT},
                {"COMMAND", TABLE_ELASTIC},  {"OLDEST", TABLE_RIGHT},  {"SENT", TABLE_RIGHT},
                {"QUEUED", TABLE_RIGHT},     {"LOCAL", TABLE_LEFT},    {"CLIENT", TABLE_RIGHT},
        };
        struct model_in_flight all = model_in_flight(m, database);
        unsigned n = 0;
        struct table t;

        table_init(&t, columns, ARRAY_SIZE(columns));
        for (unsigned i = 0; i < m->n_lanes; i++)
                if (model_lane_chosen(&m->lanes[i], database, address)) {
                        lane_row(&t, &m->lanes[i]);
                        n++;
                }
        if (n && address)
                fputs("\nsessions with commands under way on it:\n", out);
        else if (n) {
                fputc('\n', out);
                in_flight_line(out, &all, n);
        }
        if (n)
                table_print(&t, out, width);
        table_deinit(&t);
}

void render_leases(FILE *out, const struct model *m, const char *database, const char *address, size_t width) {
        const struct model_lease *list = address ? m->connections : m->leases;
        struct table_column columns[ARRAY_SIZE(lease_columns)];
        unsigned all = address ? m->n_connections : m->n_leases, n = 0;
        size_t left_out = address ? 0 : 1;
        struct table t;

        if (m->instance.stale)
                instance_lines(out, &m->instance);
        memcpy(columns, lease_columns + left_out, sizeof(columns) - left_out * sizeof(columns[0]));
        columns[0] = lease_columns[0];
        table_init(&t, columns, ARRAY_SIZE(columns) - left_out);
        for (unsigned i = 0; i < all; i++)
                if (model_chosen(&list[i], database, address)) {
                        lease_row(&t, m, &list[i], address != NULL);
                        n++;
                }
        if (n)
                table_print(&t, out, width);
        else
                fprintf(out, "nothing is leased%s%s\n", database ? " of " : "", database ? database : "");
        table_deinit(&t);
        render_lanes(out, m, database, address, width);
}

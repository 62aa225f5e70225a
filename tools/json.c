/* SPDX-License-Identifier: MIT */
#include "json.h"

#include "cli.h"
#include "format.h"

static json_t *whole(json_t *value) {
        if (!value)
                out_of_memory();
        return value;
}

static void put(json_t *object, const char *name, json_t *value) {
        if (json_object_set_new(object, name, whole(value)) < 0)
                out_of_memory();
}

static json_t *number(uint64_t n) { return json_integer(n < INT64_MAX ? (json_int_t)n : INT64_MAX); }

/* What is no UTF-8 (jansson refuses it) came from a worker's or another program's hands: shown, but not believed. */
json_t *json_text(const char *s) {
        json_t *value = json_string(s);
        char *copy;
        if (value)
                return value;
        copy = strdup(s);
        value = copy ? json_string(format_clean(copy)) : NULL;
        free(copy);
        return whole(value);
}

/* A key from the segment: like any string of it, perhaps not UTF-8. */
static void put_named(json_t *object, const char *name, json_t *value) {
        json_t *key = json_text(name);
        put(object, json_string_value(key), value);
        json_decref(key);
}

static json_t *times(const struct lessor_status_histogram *h) {
        struct model_times t = model_times(h);
        json_t *o = whole(json_object());
        put(o, "count", number(t.count));
        put(o, "mean_us", json_real(t.mean_us));
        put(o, "p50_us", json_real(t.p50_us));
        put(o, "p90_us", json_real(t.p90_us));
        put(o, "p99_us", json_real(t.p99_us));
        put(o, "max_us", json_real(t.max_us));
        return o;
}

static json_t *database(const struct lessor_status_database *d) {
        json_t *o = whole(json_object());
        put(o, "name", json_text(d->name));
        put(o, "endpoint", json_text(d->endpoint));
        put(o, "state", json_text(model_health_text(d->health)));
        put(o, "reason", json_text(d->reason));
        put(o, "last_error", json_text(d->last_error));
#define LESSOR_STATUS_FIELD(name, kind, unit, help) put(o, #name, number(d->name));
#include <lessor/status_fields.h>
        put(o, "operations_total", number(model_operations(d)));
        put(o, "success_rate", json_real(model_success_rate(d->operations_ok, d->operations_failed)));
#define LESSOR_STATUS_HISTOGRAM(name, help) put(o, #name, times(&d->name));
#include <lessor/status_fields.h>
        return o;
}

static json_t *instance(const struct model_instance *i) {
        json_t *o = whole(json_object());
        put(o, "name", json_text(i->name));
        put(o, "pid", json_integer(i->pid));
        put(o, "generation", number(i->generation));
        put(o, "release", json_text(i->release));
        put(o, "uptime_s", json_real((double)i->uptime_ns / 1e9));
        put(o, "heartbeat_age_ms", json_real((double)i->heartbeat_age_ns / 1e6));
        put(o, "stale", json_boolean(i->stale));
        put(o, "sessions", number(i->sessions));
        put(o, "sessions_total", number(i->sessions_total));
        put(o, "sessions_refused", number(i->sessions_refused));
        put(o, "reloads", number(i->reloads));
        put(o, "reloads_failed", number(i->reloads_failed));
        return o;
}

static void put_overall(json_t *o, const struct model_overall *overall) {
        put(o, "overall_healthy", json_boolean(overall->healthy));
        put(o, "total_databases", json_integer(overall->total));
        put(o, "healthy_databases", json_integer(overall->healthy_databases));
        put(o, "degraded_databases", json_integer(overall->degraded_databases));
        put(o, "failed_databases", json_integer(overall->failed_databases));
        put(o, "success_rate", json_real(overall->success_rate));
}

json_t *json_all(const struct model *m, const struct lessor_status_database *only) {
        json_t *o = whole(json_object()), *overall = whole(json_object()), *databases = whole(json_object());
        put_overall(overall, &m->overall);
        for (unsigned i = 0; i < m->n_databases; i++)
                if (!only || only == &m->databases[i])
                        put_named(databases, m->databases[i].name, database(&m->databases[i]));
        put(o, "instance", instance(&m->instance));
        put(o, "overall", overall);
        put(o, "databases", databases);
        return o;
}

static void put_chosen(json_t *figures, json_t *rates, const struct model *m, const struct model *before,
                       const struct choice *choice, const struct lessor_status_database *d) {
        for (unsigned i = 0; i < figures_number(); i++) {
                char name[LESSOR_NAME_SIZE + 65];
                struct figure_name figure = figure_name(i);
                double rate = figure_rate(i, m, before, d);
                if (!choice_has(choice, d->name, figure.s))
                        continue;
                snprintf(name, sizeof(name), "%s.%s", d->name, figure.s);
                put_named(figures, name, number(figure_value(i, d)));
                if (rate >= 0)
                        put_named(rates, name, json_real(rate));
        }
}

json_t *json_chosen(const struct model *m, const struct model *before, const struct choice *choice,
                    const struct lessor_status_database *only) {
        json_t *o = whole(json_object()), *figures = whole(json_object()), *rates = whole(json_object());
        for (unsigned i = 0; i < m->n_databases; i++)
                if (!only || only == &m->databases[i])
                        put_chosen(figures, rates, m, before, choice, &m->databases[i]);
        put(o, "instance", instance(&m->instance));
        put(o, "figures", figures);
        put(o, "rates", rates);
        return o;
}

json_t *json_health(const struct model *m) {
        static const char *const verdicts[] = {"healthy", "degraded", "failed"};
        json_t *o = whole(json_object()), *databases = whole(json_object());
        put(o, "status", json_string(m->instance.stale ? "stale" : verdicts[model_verdict(m)]));
        put_overall(o, &m->overall);
        for (unsigned i = 0; i < m->n_databases; i++) {
                const struct lessor_status_database *d = &m->databases[i];
                json_t *one = whole(json_object());
                put(one, "state", json_text(model_health_text(d->health)));
                put(one, "reason", json_text(d->reason));
                put(one, "trouble", json_text(lessor_trouble_word(d->trouble)));
                put(one, "last_error", json_text(d->last_error));
                put_named(databases, d->name, one);
        }
        put(o, "instance", instance(&m->instance));
        put(o, "databases", databases);
        return o;
}

static json_t *lease(const struct model_lease *l) {
        const struct lessor_status_connection *c = &l->connection;
        json_t *o = whole(json_object());
        put(o, "database", json_text(l->database));
        put(o, "slot", json_integer(c->slot));
        put(o, "state", json_string(model_connection_text(c->state)));
        put(o, "pid", json_integer(c->holder_pid));
        put(o, "tid", json_integer(c->holder_tid));
        put(o, "uid", json_integer(c->holder_uid));
        put(o, "command", json_text(c->holder));
        put(o, "age_ms", json_real((double)l->age_ns / 1e6));
        put(o, "site", json_text(c->site));
        put(o, "local", json_text(c->local));
        put(o, "client_id", number(c->client_id));
        put(o, "generation", number(c->generation));
        put(o, "session", number(c->session));
        put(o, "lease", number(c->lease));
        return o;
}

static json_t *lane(const struct model_lane *l) {
        json_t *o = whole(json_object());
        put(o, "database", json_text(l->database));
        put(o, "session", number(l->record.session));
        put(o, "pid", json_integer(l->record.holder_pid));
        put(o, "uid", json_integer(l->record.holder_uid));
        put(o, "command", json_text(l->record.holder));
        put(o, "age_ms", json_real((double)l->age_ns / 1e6));
        put(o, "sent", number(l->record.sent));
        put(o, "queued", number(l->record.queued));
        put(o, "local", l->connection ? json_text(l->connection->local) : json_null());
        put(o, "client_id", l->connection ? number(l->connection->client_id) : json_null());
        return o;
}

static json_t *in_flight(const struct model *m, const char *database, const char *address) {
        json_t *lanes = whole(json_array());
        for (unsigned i = 0; i < m->n_lanes; i++)
                if (model_lane_chosen(&m->lanes[i], database, address) &&
                    json_array_append_new(lanes, lane(&m->lanes[i])) < 0)
                        out_of_memory();
        return lanes;
}

json_t *json_leases(const struct model *m, const char *database, const char *address) {
        json_t *o = whole(json_object()), *leases = whole(json_array());
        const struct model_lease *list = address ? m->connections : m->leases;
        unsigned n = address ? m->n_connections : m->n_leases;

        for (unsigned i = 0; i < n; i++)
                if (model_chosen(&list[i], database, address) && json_array_append_new(leases, lease(&list[i])) < 0)
                        out_of_memory();
        put(o, "instance", instance(&m->instance));
        put(o, "leases", leases);
        put(o, "lanes", in_flight(m, database, address));
        put(o, "lane_sessions", number(model_in_flight(m, database).sessions));
        put(o, "lane_under_way", number(model_in_flight(m, database).commands));
        return o;
}

int json_print(FILE *out, const json_t *value) {
        errno = 0;
        if (json_dumpf(value, out, JSON_COMPACT | JSON_REAL_PRECISION(12)) < 0 || fputc('\n', out) < 0 ||
            fflush(out) < 0)
                return errno ? -errno : -EIO;
        return 0;
}

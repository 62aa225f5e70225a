/* SPDX-License-Identifier: MIT */
/*
 * All databases at a glance. Where the screen is wide enough for every column they are all there; in eighty columns
 * there are two sets of them, load and times, and the panel below has every figure of the selected one.
 */
#include "draw.h"

#include <inttypes.h>

#include <base/cleanup.h>
#include <base/clock.h>

struct line {
        const struct top_scene *s;
        const struct lessor_status_database *d;
        struct history_figures f;
        bool selected;
};

enum kind { TEXT, NAME, STATE, BAR, SPARK };
enum set { BOTH, LOAD, TIMES };

struct column {
        const char *title;
        int width; /* negative: left; SPARK: the least */
        enum set set;
        enum kind kind;
        struct text (*text)(const struct line *l);
};

/* ---- what stands in the columns -------------------------------------------------------------------------------- */

static struct text used_text(const struct line *l) {
        struct text t;
        snprintf(t.s, sizeof(t.s), "%.9s/%.9s", format_count(l->d->in_use_connections).s,
                 format_count(l->d->max_connections).s);
        return t;
}

static struct text waiting_text(const struct line *l) { return format_count(l->d->waiting); }

static struct text oldest_text(const struct line *l) {
        return l->d->waiting ? format_duration(l->d->oldest_wait) : (struct text){"-"};
}

static struct text leases_text(const struct line *l) { return draw_rate(l->f.leases); }
static struct text lanes_text(const struct line *l) { return draw_rate(l->f.lane_calls); }
static struct text errors_text(const struct line *l) { return draw_rate(l->f.errors); }

static struct text warm_text(const struct line *l) {
        struct text t = {"-"};
        if (l->f.warm_share >= 0)
                snprintf(t.s, sizeof(t.s), "%u%%", (unsigned)l->f.warm_share);
        return t;
}

static struct text wait50(const struct line *l) { return draw_percentile(&l->f.wait, 0.5); }
static struct text wait99(const struct line *l) { return draw_percentile(&l->f.wait, 0.99); }
static struct text call50(const struct line *l) { return draw_percentile(&l->f.call, 0.5); }
static struct text call99(const struct line *l) { return draw_percentile(&l->f.call, 0.99); }

static const struct column columns[] = {
        {"DATABASE", -10, BOTH, NAME, NULL},
        {"STATE", -9, BOTH, STATE, NULL},
        {"POOL", -12, LOAD, BAR, NULL},
        {"USED", 7, LOAD, TEXT, used_text},
        {"WAIT", 4, LOAD, TEXT, waiting_text},
        {"OLDEST", 6, LOAD, TEXT, oldest_text},
        {"LEASE/S", 7, LOAD, TEXT, leases_text},
        {"LANE/S", 6, LOAD, TEXT, lanes_text},
        {"WARM", 4, LOAD, TEXT, warm_text},
        {"ERR/S", 5, LOAD, TEXT, errors_text},
        {"WAIT P50", 8, TIMES, TEXT, wait50},
        {"P99", 6, TIMES, TEXT, wait99},
        {"CALL P50", 8, TIMES, TEXT, call50},
        {"P99", 6, TIMES, TEXT, call99},
        {"LAST MINUTES", -12, TIMES, SPARK, NULL},
};

static unsigned width_of(const struct column *c) { return (unsigned)abs(c->width); }

static bool shown(const struct column *c, bool all, bool times) {
        return all || c->set == BOTH || c->set == (times ? TIMES : LOAD);
}

static bool all_fit(const struct grid *g) {
        unsigned sum = 0;
        for (size_t i = 0; i < ARRAY_SIZE(columns); i++)
                sum += width_of(&columns[i]) + 1;
        return sum <= g->columns + 1;
}

static void cell(struct grid *g, unsigned row, unsigned at, const struct column *c, const struct line *l) {
        const struct top_scene *s = l->s;
        switch (c->kind) {
        case NAME:
                grid_field(g, row, at, c->width, l->selected ? GRID_SELECTED : GRID_BOLD, l->d->name);
                break;
        case STATE:
                grid_field(g, row, at, c->width, draw_state_attribute(l->d), draw_state_text(s->m, l->d).s);
                break;
        case BAR:
                draw_bar(g, row, at, width_of(c), l->d, s->top->ascii);
                break;
        case SPARK:
                draw_spark(g, row, at, g->columns > at ? g->columns - at : 0, history_find(s->history, l->d->name),
                           s->top->ascii);
                break;
        case TEXT:
                grid_field(g, row, at, c->width, GRID_PLAIN, c->text(l).s);
                break;
        }
}

/* l NULL: the titles. */
static void draw_line(struct grid *g, unsigned row, const struct top *t, const struct line *l) {
        bool all = all_fit(g);
        unsigned at = 0;
        for (size_t i = 0; i < ARRAY_SIZE(columns); i++) {
                const struct column *c = &columns[i];
                if (!shown(c, all, t->times))
                        continue;
                if (l)
                        cell(g, row, at, c, l);
                else
                        grid_field(g, row, at, c->width, GRID_TITLE, c->title);
                at += width_of(c) + 1;
        }
        if (!l)
                grid_attribute(g, row, GRID_TITLE);
}

/* ---- the panel of the selected one ----------------------------------------------------------------------------- */

enum { PANEL = 6 };

static void connections_line(struct grid *g, unsigned row, const struct lessor_status_database *d) {
        uint64_t free = d->available_connections - d->parked_connections;
        grid_print(g, row, 1, GRID_PLAIN,
                   "connections  %" PRIu64 " held, %" PRIu64 " parked, %" PRIu64 " free, %" PRIu64 " lane, %" PRIu64
                   " dialling, %" PRIu64 " resetting, max %" PRIu64,
                   d->in_use_connections, d->parked_connections, free, d->lane_connections, d->dialling_connections,
                   d->resetting_connections, d->max_connections);
}

static void breaker_line(struct grid *g, unsigned row, const struct model *m, const struct lessor_status_database *d) {
        unsigned at = grid_print(g, row, 1, GRID_PLAIN, "breaker      %s", model_breaker_text(d->breaker_state));
        if (d->breaker_state && d->breaker_opened_at)
                at = grid_print(g, row, at, GRID_PLAIN, " since %s",
                                format_duration(time_left(d->breaker_opened_at, m->wall)).s);
        if (d->breaker_retry_at > m->wall)
                at = grid_print(g, row, at, GRID_WARN, ", next probe in %s",
                                format_duration(d->breaker_retry_at - m->wall).s);
        grid_print(g, row, at, GRID_PLAIN, "; %s trips, %s failures in a row", format_count(d->breaker_trips).s,
                   format_count(d->breaker_failures).s);
}

static void draw_panel(const struct top_scene *s, struct grid *g, unsigned row, const struct line *l) {
        const struct lessor_status_database *d = l->d;
        unsigned at = grid_print(g, row, 0, GRID_BOLD, "%s at %s: ", d->name, d->endpoint);
        grid_print(g, row, at, draw_state_attribute(d), "%s%s%s", model_health_text(d->health),
                   d->reason[0] ? ", " : "", d->reason);
        connections_line(g, row + 1, d);
        grid_print(g, row + 2, 1, GRID_PLAIN, "p50 / p99    wait %s / %s, call %s / %s; errors %s/s, refused %s/s",
                   wait50(l).s, wait99(l).s, call50(l).s, call99(l).s, errors_text(l).s, draw_rate(l->f.timeouts).s);
        breaker_line(g, row + 3, s->m, d);
        if (d->last_error[0])
                grid_print(g, row + 4, 1, GRID_PLAIN, "last error   %s: %s",
                           format_ago(s->m->wall, d->last_error_time).s, d->last_error);
        at = grid_print(g, row + 5, 1, GRID_PLAIN, "operations   %6s/s ", draw_rate(l->f.operations).s);
        draw_spark(g, row + 5, at, g->columns > at ? g->columns - at - 1 : 0, history_find(s->history, d->name),
                   s->top->ascii);
}

/* ---- the page -------------------------------------------------------------------------------------------------- */

static void draw_row(const struct top_scene *s, struct grid *g, unsigned row, const struct lessor_status_database *d,
                     bool selected) {
        struct line l = {.s = s, .d = d, .selected = selected};
        history_figures(s->history, s->m, d, &l.f);
        draw_line(g, row, s->top, &l);
}

/* Rows 2 to the one before the last are ours. The list scrolls so that the selected one is in it. */
static void draw_list(const struct top_scene *s, struct grid *g, const unsigned *order, unsigned n) {
        const struct lessor_status_database *selected = top_selected(s->top, s->m, s->history);
        unsigned room = g->rows > 4 ? g->rows - 4 : 0, first = 0;
        bool panel = room > PANEL + 3;
        struct line l = {.s = s, .d = selected};

        if (panel)
                room -= PANEL + 1;
        for (unsigned i = 0; i < n; i++)
                if (&s->m->databases[order[i]] == selected && i >= room)
                        first = i + 1 - room;
        for (unsigned i = 0; i < room && first + i < n; i++)
                draw_row(s, g, 3 + i, &s->m->databases[order[first + i]],
                         &s->m->databases[order[first + i]] == selected);
        if (!panel || !selected)
                return;
        history_figures(s->history, s->m, selected, &l.f);
        draw_panel(s, g, 3 + (n < room ? n : room) + 1, &l);
}

void draw_overview(const struct top_scene *s, struct grid *g) {
        unsigned *order = calloc(s->m->n_databases + 1, sizeof(*order));
        unsigned n = order ? top_order(s->top, s->m, s->history, order) : 0;

        draw_line(g, 2, s->top, NULL);
        if (n)
                draw_list(s, g, order, n);
        else
                grid_print(g, 3, 0, GRID_PLAIN, "no database%s%s", s->top->filter[0] ? " whose name has " : "",
                           s->top->filter);
        free(order);
}

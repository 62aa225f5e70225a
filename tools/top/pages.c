/* SPDX-License-Identifier: MIT */
/* The frame of every page, and the pages that scroll: one database, the holders, help. */
#include "draw.h"

#include <inttypes.h>

#include <base/cleanup.h>

#include "fields.h"

enum { PAGE_ROWS = 600, FRAME_TOP = 2 };

/* ---- one database ---------------------------------------------------------------------------------------------- */

static unsigned totals(struct grid *g, unsigned row, const struct lessor_status_database *d) {
        unsigned n = 0;
        for (size_t i = 0; i < n_fields; i++) {
                uint64_t value = field_value(&fields[i], d);
                if (fields[i].kind != FIELD_COUNTER || !value)
                        continue;
                grid_print(g, row + n / 2, 1 + n % 2 * 40, GRID_PLAIN, "%-22s %10s", fields[i].name,
                           fields[i].unit == FIELD_NS ? format_duration(value).s : format_count(value).s);
                n++;
        }
        return row + (n + 1) / 2;
}

static void connection_row(struct grid *g, unsigned row, const struct model_lease *l) {
        const struct lessor_status_connection *c = &l->connection;
        bool held = c->state == LESSOR_CONNECTION_LEASED || c->state == LESSOR_CONNECTION_PARKED;
        grid_print(g, row, 1, GRID_PLAIN, "%4u %-9s %8s", c->slot, model_connection_text(c->state),
                   format_duration(l->age_ns).s);
        if (held)
                grid_print(g, row, 25, GRID_PLAIN, "%7d %-12.12s %-18.18s", c->holder_pid, c->holder, c->site);
        grid_print(g, row, 65, GRID_PLAIN, "%s #%" PRIu64, c->local, c->client_id);
}

static unsigned connections(struct grid *g, unsigned row, const struct model *m, const char *database) {
        grid_print(g, row, 1, GRID_TITLE, "%4s %-9s %8s %7s %-12s %-18s %s", "SLOT", "STATE", "SINCE", "PID", "COMMAND",
                   "SITE", "LOCAL #CLIENT");
        grid_attribute(g, row++, GRID_TITLE);
        for (unsigned i = 0; i < m->n_connections && row < g->rows; i++)
                if (strcmp(m->connections[i].database, database) == 0)
                        connection_row(g, row++, &m->connections[i]);
        return row;
}

void draw_database_page(const struct top_scene *s, struct grid *g) {
        const struct lessor_status_database *d = model_find(s->m, s->top->selected);
        unsigned row = 0;

        if (!d) {
                grid_print(g, 0, 1, GRID_WARN, "the database `%s` is no longer configured", s->top->selected);
                return;
        }
        unsigned at = grid_print(g, row, 1, GRID_BOLD, "%s at %s  ", d->name, d->endpoint);
        grid_print(g, row++, at, draw_state_attribute(d), "%s %s", draw_state_text(s->m, d).s, d->reason);
        if (d->last_error[0])
                grid_print(g, row++, 1, GRID_PLAIN, "last error, %s: %s", format_ago(s->m->wall, d->last_error_time).s,
                           d->last_error);
        at = grid_print(g, row, 1, GRID_PLAIN, "%u/%u ", (unsigned)d->in_use_connections, (unsigned)d->max_connections);
        draw_bar(g, row, at, 40, d, s->top->ascii);
        grid_print(g, row++, at + 41, GRID_PLAIN, "%s waiting, %s parked, path %s", format_count(d->waiting).s,
                   format_count(d->parked_connections).s, model_state_text("path", d->path));
        draw_spark(g, row++, 1, g->columns - 2, history_find(s->history, d->name), s->top->ascii);
        for (size_t i = 0; i < n_field_histograms; i++)
                row = draw_histogram(g, row, field_histograms[i].name, field_histogram_value(&field_histograms[i], d),
                                     s->top->ascii);
        row = connections(g, row + 1, s->m, d->name);
        grid_print(g, row + 1, 1, GRID_TITLE, "SINCE THE START");
        grid_attribute(g, row + 1, GRID_TITLE);
        totals(g, row + 2, d);
}

/* ---- holders, help --------------------------------------------------------------------------------------------- */

/* Sessions with commands under way in lanes. */
static void lanes_rows(const struct top_scene *s, struct grid *g, unsigned row) {
        bool any = false;
        for (unsigned i = 0; i < s->m->n_lanes && row + 3 < g->rows; i++) {
                const struct model_lane *l = &s->m->lanes[i];
                if (!top_passes(s->top, l->database))
                        continue;
                if (!any) {
                        grid_print(g, ++row, 0, GRID_TITLE, "%-12s %7s %7s %-15s %8s %6s %6s %s", "BY LANE", "PID",
                                   "SESSION", "COMMAND", "OLDEST", "SENT", "QUEUED", "CLIENT");
                        grid_attribute(g, row++, GRID_TITLE);
                }
                any = true;
                grid_print(g, row++, 0, GRID_PLAIN, "%-12.12s %7d %7" PRIu64 " %-15.15s %8s %6u %6u %" PRIu64,
                           l->database, l->record.holder_pid, l->record.session, l->record.holder,
                           format_duration(l->age_ns).s, l->record.sent, l->record.queued,
                           l->connection ? l->connection->client_id : 0);
        }
}

void draw_holders_page(const struct top_scene *s, struct grid *g) {
        unsigned row = 0;
        grid_print(g, row, 0, GRID_TITLE, "%-12s %7s %7s %-15s %8s %-24s %s", "DATABASE", "PID", "TID", "COMMAND",
                   "HELD FOR", "SITE", "CLIENT");
        grid_attribute(g, row++, GRID_TITLE);
        for (unsigned i = 0; i < s->m->n_leases && row < g->rows; i++) {
                const struct model_lease *l = &s->m->leases[i];
                const struct lessor_status_connection *c = &l->connection;
                if (!top_passes(s->top, l->database))
                        continue;
                grid_print(g, row++, 0, GRID_PLAIN, "%-12.12s %7d %7d %-15.15s %8s %-24.24s %" PRIu64, l->database,
                           c->holder_pid, c->holder_tid, c->holder, format_duration(l->age_ns).s, c->site,
                           c->client_id);
        }
        if (row == 1)
                grid_print(g, row++, 0, GRID_DIM, "nothing is leased at this moment");
        lanes_rows(s, g, row);
}

void draw_help_page(struct grid *g) {
        static const char *const lines[] = {
                "up, down, j, k  select a database; other pages scroll",
                "Enter           the selected database: histograms, connections, totals",
                "l               who holds which connection, and who waits for commands in lanes",
                "Esc             back; on the first page it takes the filter away",
                "s, S            sort by the next, previous of name, use, queue, leases, errors,",
                "                wait, call;  r  the other way round",
                "/, f            filter: names that have what you type; Enter keeps, Esc drops",
                "t, left, right  where not all columns fit: load, or times",
                "p, Space        pause: the figures stand still",
                "?, h            this page;  q  the end",
                "POOL   held (full, #), parked with a worker (shaded, =), free (light, -), being",
                "       dialled, reset or closed, or a lane's (x); the rest is not open",
                "USED   connections held, of the cap",
                "STATE  `open 12s`: the circuit breaker is open, probes in 12 s; `probing`: now",
                "WAIT, OLDEST      requests in the queue; how long the first has waited",
                "LEASE/S, LANE/S   leases, warm ones included; commands by lane",
                "WARM   share of the leases that needed no word to the broker",
                "ERR/S, P50, P99   errors and times of the last ten seconds",
                "LAST MINUTES      operations a second, five seconds a column",
        };
        for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
                grid_print(g, (unsigned)i, 1, GRID_PLAIN, "%s", lines[i]);
}

/* ---- the frame ------------------------------------------------------------------------------------------------- */

static void draw_head(const struct top_scene *s, struct grid *g) {
        const struct model_instance *i = &s->m->instance;
        const struct model_overall *o = &s->m->overall;
        grid_print(g, 0, 0, GRID_BOLD, "lessord %s, instance %s, pid %d, %s %s, %s sessions", i->release, i->name,
                   i->pid, i->stale ? "was up" : "up", format_duration(i->uptime_ns).s, format_count(i->sessions).s);
        if (i->stale)
                grid_print(g, 1, 0, GRID_BAD, "STALE: no heartbeat for %s: the broker %s. Its last figures.",
                           format_duration(i->heartbeat_age_ns).s, i->gone ? "is dead" : "hangs or is dead");
        else
                grid_print(g, 1, 0,
                           o->failed_databases     ? GRID_BAD
                           : o->degraded_databases ? GRID_WARN
                                                   : GRID_PLAIN,
                           "%u databases: %u healthy, %u degraded, %u failed; %s of operations succeeded", o->total,
                           o->healthy_databases, o->degraded_databases, o->failed_databases,
                           format_percent(o->success_rate).s);
}

static void draw_foot(const struct top *t, struct grid *g) {
        unsigned row = g->rows - 1, at = t->paused ? grid_print(g, row, 0, GRID_TITLE, "PAUSED  ") : 0;
        if (t->typing)
                grid_print(g, row, at, GRID_TITLE, "filter: %s_", t->filter);
        else if (t->page == TOP_OVERVIEW)
                grid_print(g, row, at, GRID_TITLE,
                           "q quit  ? help  Enter database  l holders  s sort: %s%s  / filter%s%s  t %s",
                           top_sort_text(t->sort), t->reverse ? " (up)" : "", t->filter[0] ? ": " : "", t->filter,
                           t->times ? "load" : "times");
        else
                grid_print(g, row, at, GRID_TITLE, "q quit  ? help  Esc back  up/down scroll  p pause%s%s",
                           t->filter[0] ? "  filter: " : "", t->filter);
        grid_attribute(g, row, GRID_TITLE);
}

/* What explains itself over several lines. */
static void draw_absent(const struct top_scene *s, struct grid *g) {
        unsigned row = 0;
        grid_print(g, row++, 0, GRID_BAD, "no figures:");
        for (const char *p = s->absent ? s->absent : ""; *p && row < g->rows; row++) {
                size_t n = strcspn(p, "\n"), room = g->columns > 2 ? g->columns - 1 : 1;
                n = n > room ? room : n;
                grid_print(g, row, 0, GRID_PLAIN, "%.*s", (int)n, p);
                p += n + (p[n] == '\n');
        }
        grid_print(g, row + 1, 0, GRID_DIM, "It is looked for again and again; q ends this.");
}

static void draw_scrolled(const struct top_scene *s, struct grid *g) {
        struct grid page;
        unsigned used, room = g->rows > FRAME_TOP + 1 ? g->rows - FRAME_TOP - 1 : 0, from = s->top->scroll;

        grid_init(&page, PAGE_ROWS, g->columns);
        if (s->top->page == TOP_DATABASE)
                draw_database_page(s, &page);
        else if (s->top->page == TOP_HOLDERS)
                draw_holders_page(s, &page);
        else
                draw_help_page(&page);
        used = grid_used(&page);
        if (from + room > used) /* not beyond the end */
                from = used > room ? used - room : 0;
        grid_window(g, FRAME_TOP, FRAME_TOP + room, &page, from);
        grid_deinit(&page);
}

void top_draw(const struct top_scene *s, struct grid *g) {
        if (s->m)
                draw_head(s, g);
        if (s->top->page == TOP_HELP || (s->m && s->top->page != TOP_OVERVIEW))
                draw_scrolled(s, g);
        else if (s->m)
                draw_overview(s, g);
        else
                draw_absent(s, g);
        draw_foot(s->top, g);
}

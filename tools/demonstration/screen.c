/* SPDX-License-Identifier: MIT */
/*
 * The table, repainted in place on a terminal of at least 80 by 24; anywhere else a line every few seconds. Rates are
 * those since the last painting.
 */
#include <inttypes.h>
#include <langinfo.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include <base/clock.h>

#include "demo.h"
#include "format.h"

enum { COLUMNS = 80, ROWS = 24, BAR = 8 };
static const uint64_t paint_period = 250 * NS_PER_MS, line_period = 3 * NS_PER_S;

struct demo_screen {
        bool terminal, colours, utf8, painted;
        FILE *out;
        uint64_t last;
        struct demo_totals totals;
        struct lessor_status_database now[DEMO_DATABASES], before[DEMO_DATABASES];
};

static bool fits(int fd) {
        struct winsize size;
        const char *term = getenv("TERM");
        return isatty(fd) && term && strcmp(term, "dumb") != 0 && ioctl(fd, TIOCGWINSZ, &size) == 0 &&
               size.ws_col >= COLUMNS && size.ws_row >= ROWS;
}

struct demo_screen *demo_screen_new(const struct demo *d) {
        struct demo_screen *s = calloc(1, sizeof(*s));
        if (!s)
                return NULL;
        s->out = stdout;
        setlocale(LC_CTYPE, "");
        s->terminal = fits(fileno(s->out));
        s->colours = s->terminal && !getenv("NO_COLOR");
        s->utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
        s->last = d->began_ns;
        if (s->terminal)
                fputs("\033[?25l\033[2J", s->out); /* no cursor, a clear screen */
        return s;
}

static const char *colour(const struct demo_screen *s, const char *code) { return s->colours ? code : ""; }
#define BOLD "\033[1m"
#define DIM "\033[2m"
#define GREEN "\033[32m"
#define YELLOW "\033[33m"
#define RED "\033[31m"
#define PLAIN "\033[0m"

/* A line, and the rest of it cleared. */
__attribute__((format(printf, 2, 3))) static void line(struct demo_screen *s, const char *fmt, ...) {
        va_list args;
        va_start(args, fmt);
        vfprintf(s->out, fmt, args);
        va_end(args);
        fputs(s->terminal ? "\033[K\n" : "\n", s->out);
}

static double rate(uint64_t now, uint64_t before, uint64_t ns) {
        return ns > 0 && now > before ? (double)(now - before) * 1e9 / (double)ns : 0;
}

/* How much of the cap is out on lease, how much is open and free. */
static void bar(const struct demo_screen *s, const struct lessor_status_database *d, char *ret, size_t size) {
        const char *full = s->utf8 ? "█" : "#", *open = s->utf8 ? "▒" : "-", *none = s->utf8 ? "·" : ".";
        uint64_t cap = d->max_connections ? d->max_connections : 1;
        size_t n = 0;
        for (unsigned i = 0; i < BAR; i++) {
                uint64_t place = (i * cap + cap / 2) / BAR;
                const char *mark = place < d->in_use_connections ? full : place < d->open_connections ? open : none;
                n += (size_t)snprintf(ret + n, size - n, "%s", mark);
        }
}

static void paint_row(struct demo_screen *s, const struct lessor_status_database *d,
                      const struct lessor_status_database *before, uint64_t ns) {
        char marks[4 * BAR + 1];
        bar(s, d, marks, sizeof(marks));
        line(s, " %-10s %s%s%s %6" PRIu64 " %5" PRIu64 " %4" PRIu64 " %s%8" PRIu64 "%s %10s %10s %10s", d->name,
             colour(s, GREEN), marks, colour(s, PLAIN), d->in_use_connections, d->available_connections,
             d->max_connections, colour(s, d->waiting ? YELLOW : ""), d->waiting, colour(s, PLAIN),
             format_real(rate(d->leases, before->leases, ns)).s,
             format_real(rate(d->operations_ok, before->operations_ok, ns)).s,
             format_duration(lessor_status_percentile(&d->wait_time, 0.99)).s);
}

static void add(struct lessor_status_database *sum, const struct lessor_status_database *d) {
        sum->in_use_connections += d->in_use_connections;
        sum->available_connections += d->available_connections;
        sum->open_connections += d->open_connections;
        sum->max_connections += d->max_connections;
        sum->waiting += d->waiting;
        sum->leases += d->leases;
        sum->operations_ok += d->operations_ok;
        sum->wait_time.max_ns =
                d->wait_time.max_ns > sum->wait_time.max_ns ? d->wait_time.max_ns : sum->wait_time.max_ns;
        for (unsigned i = 0; i < LESSOR_CALL_BUCKETS; i++)
                sum->wait_time.bucket[i] += d->wait_time.bucket[i];
}

static void read_figures(struct demo_screen *s, const struct demo *d) {
        memcpy(s->before, s->now, sizeof(s->now));
        for (unsigned i = 0; i < DEMO_DATABASES; i++)
                (void)lessor_status_read_database(&d->status, i, LESSOR_STATUS_ALL, &s->now[i]);
}

static void paint_foot(struct demo_screen *s, const struct demo *d, const struct demo_totals *t) {
        bool bad = t->errors || t->wrong;
        line(s, "%s", "");
        line(s, " Redis has %s%3u%s of our connections, never more than %u; the cap is %u.", colour(s, BOLD),
             d->connections, colour(s, PLAIN), d->most_connections, demo_cap(d));
        line(s, " %sPools in each of %u processes would have opened %u.%s", colour(s, DIM), d->o.workers,
             demo_per_process(d), colour(s, PLAIN));
        line(s, " %s operations, %s%" PRIu64 " errors, %" PRIu64 " wrong replies%s", format_count(t->operations).s,
             colour(s, bad ? RED : GREEN), t->errors, t->wrong, colour(s, PLAIN));
        if (d->killed)
                line(s, " killed -9: %u; the last %.60s", d->killed, d->last_killed);
        else
                line(s, "%s", "");
        fputs("\033[J", s->out);
}

static void paint(struct demo_screen *s, struct demo *d, uint64_t now) {
        struct lessor_status_database sum = {.name = "all"}, sum_before = {0};
        struct demo_totals t = demo_totals(d);
        uint64_t ns = now - s->last;

        read_figures(s, d);
        fputs("\033[H", s->out);
        line(s, " %sLessor%s  %u workers, %u databases, one Redis %s %31s", colour(s, BOLD), colour(s, PLAIN),
             d->o.workers, (unsigned)DEMO_DATABASES, d->redis_version, "");
        fprintf(s->out, "\033[1;%dH%3u s of %u\n", COLUMNS - 12, (unsigned)((now - d->began_ns) / NS_PER_S),
                d->o.seconds);
        line(s, " %s%-10s %-*s %6s %5s %4s %8s %10s %10s %10s%s", colour(s, DIM), "database", BAR, "", "in use", "free",
             "cap", "waiting", "leases/s", "ops/s", "wait p99", colour(s, PLAIN));
        for (unsigned i = 0; i < DEMO_DATABASES; i++) {
                paint_row(s, &s->now[i], &s->before[i], ns);
                add(&sum, &s->now[i]);
                add(&sum_before, &s->before[i]);
        }
        paint_row(s, &sum, &sum_before, ns);
        paint_foot(s, d, &t);
        fflush(s->out);
}

static void say_line(struct demo_screen *s, const struct demo *d, uint64_t now) {
        struct demo_totals t = demo_totals(d);
        uint64_t waiting = 0;

        read_figures(s, d);
        for (unsigned i = 0; i < DEMO_DATABASES; i++)
                waiting += s->now[i].waiting;
        line(s,
             "%3u s  %s operations, %s/s; connections %u of %u; waiting %" PRIu64 "; errors %" PRIu64
             "; wrong replies %" PRIu64 "; killed %u",
             (unsigned)((now - d->began_ns) / NS_PER_S), format_count(t.operations).s,
             format_real(rate(t.operations, s->totals.operations, now - s->last)).s, d->connections, demo_cap(d),
             waiting, t.errors, t.wrong, d->killed);
        fflush(s->out);
        s->totals = t;
}

void demo_screen_draw(struct demo_screen *s, struct demo *d, uint64_t now) {
        if (!s || now - s->last < (s->terminal ? paint_period : line_period))
                return;
        if (s->terminal)
                paint(s, d, now);
        else
                say_line(s, d, now);
        s->last = now;
}

void demo_screen_free(struct demo_screen *s) {
        if (!s)
                return;
        if (s->terminal)
                fputs("\033[?25h\n", s->out);
        fflush(s->out);
        free(s);
}

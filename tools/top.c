/* SPDX-License-Identifier: MIT */
/*
 * `lessor top`: the loop. A reading every interval, a key whenever one comes, a painting after either. Signals that end
 * it set a flag; ncurses' read is interrupted by them, so that the flag is seen at once and the terminal put back.
 */
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <base/clock.h>

#include "cli.h"
#include "source.h"
#include "top/curses.h"
#include "top/top.h"

struct view {
        struct top top;
        struct source source;
        struct history history;
        struct model model;
        bool has_model;
        char *absent; /* why there is no model */
        const char *instance;
        uint64_t interval_ns;
};

static volatile sig_atomic_t ended;

static void on_signal(int signal) { ended = 1; }

static void catch_signals(void) {
        struct sigaction a = {.sa_handler = on_signal}; /* no SA_RESTART */
        sigaction(SIGTERM, &a, NULL);
        sigaction(SIGINT, &a, NULL);
        sigaction(SIGHUP, &a, NULL);
        signal(SIGPIPE, SIG_IGN);
}

/* A broker that died leaves its last figures; one that was stopped leaves none, and the screen says so. */
static void read_figures(struct view *v) {
        struct model m;
        int r = source_follow(&v->source, v->instance);

        free(v->absent);
        v->absent = NULL;
        if (r < 0) {
                v->absent = source_explain(r, v->instance);
                if (v->has_model)
                        model_deinit(&v->model);
                v->has_model = false;
                return;
        }
        if (model_read(&v->source.status, &m) < 0)
                out_of_memory();
        if (v->has_model)
                model_deinit(&v->model);
        v->model = m;
        v->has_model = true;
        history_add(&v->history, &m);
}

static void draw(const struct view *v, struct grid *g) {
        const struct top_scene scene = {
                .top = &v->top, .m = v->has_model ? &v->model : NULL, .history = &v->history, .absent = v->absent};
        top_draw(&scene, g);
}

static void view_deinit(struct view *v) {
        source_deinit(&v->source);
        history_deinit(&v->history);
        model_deinit(&v->model);
        free(v->absent);
}

/* ---- on a terminal --------------------------------------------------------------------------------------------- */

static int milliseconds_to(uint64_t when) {
        uint64_t left = time_left(clock_now(), when);
        return (int)((left + NS_PER_MS - 1) / NS_PER_MS);
}

static void interactive(struct view *v) {
        uint64_t next = 0;
        while (!v->top.quit && !ended) {
                struct grid g;
                if (clock_now() >= next) {
                        if (!v->top.paused)
                                read_figures(v);
                        next = clock_now() + v->interval_ns;
                }
                curses_grid(&g);
                draw(v, &g);
                curses_show(&g);
                grid_deinit(&g);
                int key = curses_key(milliseconds_to(next));
                if (key >= 0)
                        top_key(&v->top, v->has_model ? &v->model : NULL, &v->history, key);
        }
}

/* ---- without one ----------------------------------------------------------------------------------------------- */

static unsigned number_of(const char *name, unsigned otherwise) {
        const char *text = getenv(name);
        long n = text ? strtol(text, NULL, 10) : 0;
        return n >= 20 && n <= 1000 ? (unsigned)n : otherwise;
}

/* Screens one after the other, as text: for TERM=dumb, pipes and logs. `count` 0: until it is ended. */
static int batch(struct view *v, unsigned count) {
        for (unsigned i = 0; !ended && (count == 0 || i < count); i++) {
                struct grid g;
                if (i > 0)
                        poll(NULL, 0, (int)(v->interval_ns / NS_PER_MS));
                read_figures(v);
                grid_init(&g, number_of("LINES", 60), number_of("COLUMNS", 132));
                draw(v, &g);
                grid_attribute(&g, g.rows - 1, GRID_PLAIN);
                for (unsigned c = 0; c < g.columns; c++) /* nobody to press a key */
                        grid_put(&g, g.rows - 1, c, GRID_PLAIN, ' ');
                if (i > 0)
                        putchar('\n');
                grid_write(&g, stdout);
                grid_deinit(&g);
                if (fflush(stdout) != 0)
                        return EXIT_TROUBLE;
        }
        return v->has_model ? EXIT_FIGURES : EXIT_ABSENT;
}

/* ---- the command ----------------------------------------------------------------------------------------------- */

static bool parse_interval(const char *text, uint64_t *ret) {
        char *end;
        double seconds = strtod(text, &end);
        if (end == text || *end || !(seconds >= 0.1 && seconds <= 3600))
                return false;
        *ret = (uint64_t)(seconds * (double)NS_PER_S);
        return true;
}

static bool parse_count(const char *text, unsigned *ret) {
        char *end;
        unsigned long n = strtoul(text, &end, 10);
        if (*text < '0' || *text > '9' || *end || n > 1000000)
                return false;
        *ret = (unsigned)n;
        return true;
}

static int run(const struct command *self, int argc, char **argv) {
        const char *interval = NULL, *count = NULL;
        struct view v = {0};
        unsigned screens = 0;
        bool as_text = false, ascii = false;
        const struct command_flag flags[] = {{"batch", .on = &as_text},          {"count", .value = &count},
                                             {"interval", .value = &interval},   {"ascii", .on = &ascii},
                                             {"instance", .value = &v.instance}, {0}};
        int r = command_flags(self, argc, argv, flags, NULL);

        if (r != COMMAND_RUN)
                return r;
        v.interval_ns = as_text ? NS_PER_S : NS_PER_S / 2;
        if (interval && !parse_interval(interval, &v.interval_ns))
                return usage_error(self, "--interval %s: write seconds, 0.1 to 3600", interval);
        if (count && !parse_count(count, &screens))
                return usage_error(self, "--count %s: write a number", count);
        setlocale(LC_CTYPE, "");
        v.top.ascii = ascii || strcmp(nl_langinfo(CODESET), "UTF-8") != 0;
        catch_signals();
        if (!as_text && isatty(STDOUT_FILENO) && isatty(STDIN_FILENO) && curses_begin()) {
                interactive(&v);
                curses_end();
                r = EXIT_FIGURES;
        } else
                r = batch(&v, screens ? screens : as_text ? 2 : 0);
        view_deinit(&v);
        return r;
}

const struct command command_top = {
        .name = "top",
        .arguments = "[--interval SECONDS] [--batch [--count N]] [--ascii] [--instance NAME]",
        .summary = "all pools at a glance, live: use, queue, rates, times, breaker, holders",
        .help = "Reads the broker's status segment, twice a second; does not disturb it, says STALE when it is dead,\n"
                "and follows the next one. Keys: ? lists them; q ends it.\n"
                "\n"
                "  --interval SECONDS  between two readings (0.5; of --batch 1)\n"
                "  --batch             screens as text, not on the terminal; so, too, where standard output is none, "
                "or\n"
                "                      one that cannot place a cursor (TERM=dumb). $COLUMNS and $LINES give the size\n"
                "  --count N           so many screens of --batch (2: the second has rates); 0: without end\n"
                "  --ascii             no other characters; so, too, where the locale is not UTF-8\n"
                "  --instance NAME     another broker than $LESSOR_INSTANCE, or `default`\n"
                "\n"
                "Colours are left out where $NO_COLOR is set or the terminal has none.\n"
                "\n"
                "Exit: 0 ended by q or a signal, 2 --batch found no broker, 64 usage.\n",
        .run = run,
};

/* SPDX-License-Identifier: MIT */
/*
 * `lessor stat`: the figures, once or again and again. A watch waits for its next turn in sigtimedwait(), with SIGINT
 * and SIGTERM blocked: they end it between two paintings, so that the terminal is left as it was. It paints by one
 * write of a whole screen over the old one (home, and each line cleared to its end), which does not flicker.
 */
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include <base/clock.h>

#include "cli.h"
#include "json.h"
#include "render.h"
#include "source.h"

struct stat_options {
        const char *instance, *database;
        bool json, watch, chosen; /* chosen: a line for each figure of the choice */
        struct choice choice;
        uint64_t interval_ns;
};

/* The segment, and the reading before this one. */
struct watched {
        struct source source;
        struct model before;
};

static void watched_deinit(struct watched *w) {
        source_deinit(&w->source);
        model_deinit(&w->before);
}

static int no_such_database(FILE *out, const struct model *m, const char *database) {
        fprintf(out, "lessor stat: no database `%s`; there are: ", database);
        render_names(out, m);
        fputc('\n', out);
        return EXIT_NO_SUCH;
}

static int show_chosen(const struct stat_options *o, FILE *out, FILE *complaints, const struct model *m,
                       const struct model *before, const struct lessor_status_database *only) {
        if (o->json) {
                json_t *value = json_chosen(m, before, &o->choice, only);
                json_print(out, value);
                json_decref(value);
                return EXIT_FIGURES;
        }
        if (render_chosen(out, m, before, &o->choice, only, isatty(STDOUT_FILENO) ? render_width(STDOUT_FILENO) : 1000))
                return EXIT_FIGURES;
        fputs("lessor stat: no figure has such a name; `lessor stat --list` lists them\n", complaints);
        return EXIT_NO_SUCH;
}

static int show(const struct stat_options *o, FILE *out, FILE *complaints, const struct model *m,
                const struct model *before) {
        const struct lessor_status_database *only = o->database ? model_find(m, o->database) : NULL;
        size_t width = render_width(STDOUT_FILENO);

        if (o->database && !only)
                return no_such_database(complaints, m, o->database);
        if (o->chosen)
                return show_chosen(o, out, complaints, m, before, only);
        if (o->json) {
                json_t *value = json_all(m, only);
                json_print(out, value);
                json_decref(value);
        } else if (only)
                render_database(out, m, only, width);
        else
                render_all(out, m, before, width);
        return EXIT_FIGURES;
}

/* One painting. The exit code it would end with. */
static int paint(const struct stat_options *o, struct watched *w, FILE *out, FILE *complaints) {
        struct model m;
        int r = source_follow(&w->source, o->instance);
        if (r < 0) {
                char *text = source_explain(r, o->instance);
                fprintf(complaints, "lessor stat: %s\n", text);
                free(text);
                return EXIT_ABSENT;
        }
        if (model_read(&w->source.status, &m) < 0)
                out_of_memory();
        r = show(o, out, complaints, &m, o->watch && (w->before.databases || !o->chosen) ? &w->before : NULL);
        model_deinit(&w->before);
        w->before = m;
        return r;
}

static int write_all(int fd, const char *data, size_t size) {
        while (size) {
                ssize_t n = write(fd, data, size);
                if (n < 0 && errno != EINTR)
                        return -errno;
                data += n > 0 ? n : 0;
                size -= n > 0 ? (size_t)n : 0;
        }
        return 0;
}

/* On a terminal, each line is cleared to its end before the next, and what is below the last, too. */
static int put_screen(const char *text, size_t size, bool terminal) {
        char *screen = NULL;
        size_t screen_size = 0;
        FILE *out = open_memstream(&screen, &screen_size);
        int r;

        if (!out)
                out_of_memory();
        fputs(terminal ? "\033[H" : "", out);
        for (size_t i = 0; i < size; i++) {
                if (text[i] == '\n' && terminal)
                        fputs("\033[K", out);
                fputc(text[i], out);
        }
        fputs(terminal ? "\033[J" : "", out);
        if (fclose(out) != 0)
                out_of_memory();
        r = write_all(STDOUT_FILENO, screen, screen_size);
        free(screen);
        return r;
}

static int repaint(const struct stat_options *o, struct watched *w, bool terminal) {
        char *text = NULL;
        size_t size = 0;
        FILE *out = open_memstream(&text, &size);
        int r;

        if (!out)
                out_of_memory();
        /* Complaints are part of the screen: a broker that is missing now may come. JSON's reader gets them apart. */
        paint(o, w, out, o->json ? stderr : out);
        if (!o->json && !terminal)
                fputc('\n', out);
        if (fclose(out) != 0)
                out_of_memory();
        r = put_screen(text, size, terminal);
        free(text);
        return r;
}

static int watch(const struct stat_options *o) {
        bool terminal = isatty(STDOUT_FILENO) && !o->json;
        struct timespec interval = {.tv_sec = (time_t)(o->interval_ns / NS_PER_S),
                                    .tv_nsec = (long)(o->interval_ns % NS_PER_S)};
        struct watched w = {0};
        sigset_t ends;
        int r;

        sigemptyset(&ends);
        sigaddset(&ends, SIGINT);
        sigaddset(&ends, SIGTERM);
        sigprocmask(SIG_BLOCK, &ends, NULL);
        signal(SIGPIPE, SIG_IGN); /* a reader that goes away (`| head`) is an EPIPE, and the end */
        r = terminal ? write_all(STDOUT_FILENO, "\033[?25l\033[2J", 10) : 0;
        while (r == 0) {
                r = repaint(o, &w, terminal);
                if (r == 0 && sigtimedwait(&ends, NULL, &interval) > 0)
                        break;
        }
        if (terminal)
                write_all(STDOUT_FILENO, "\033[?25h", 6);
        watched_deinit(&w);
        return r == 0 || r == -EPIPE ? EXIT_FIGURES : EXIT_TROUBLE;
}

static bool parse_interval(const char *text, uint64_t *ret) {
        char *end;
        double seconds = strtod(text, &end);
        if (end == text || *end || !(seconds >= 0.05 && seconds <= 86400))
                return false;
        *ret = (uint64_t)(seconds * (double)NS_PER_S);
        return true;
}

static int list_figures(void) {
        for (unsigned i = 0; i < figures_number(); i++)
                printf("%-24s %s\n", figure_name(i).s, figure_help(i));
        return EXIT_FIGURES;
}

enum { OPTION_DONE = 1000 };

/* 0 to go on; OPTION_DONE: nothing is left to do but this; else an exit code. */
static int parse_option(const struct command *self, struct stat_options *o, int option) {
        switch (option) {
        case 'j':
                o->json = true;
                return 0;
        case 'i':
                o->instance = optarg;
                return 0;
        case '1':
                o->chosen = true;
                return 0;
        case 'f':
                o->chosen = true;
                return choice_add(&o->choice, optarg) ? 0 : usage_error(self, "too many --field");
        case 'w':
                o->watch = true;
                if (optarg && !parse_interval(optarg, &o->interval_ns))
                        return usage_error(self, "--watch=%s: write seconds, 0.05 to 86400", optarg);
                return 0;
        case 'l':
                list_figures();
                return OPTION_DONE;
        default:
                return option == 'h' ? OPTION_DONE : EXIT_USAGE;
        }
}

static int run(const struct command *self, int argc, char **argv) {
        static const struct option options[] = {
                {"json", no_argument, NULL, 'j'},        {"watch", optional_argument, NULL, 'w'},
                {"field", required_argument, NULL, 'f'}, {"once", no_argument, NULL, '1'},
                {"list", no_argument, NULL, 'l'},        {"instance", required_argument, NULL, 'i'},
                {"help", no_argument, NULL, 'h'},        {0},
        };
        struct stat_options o = {.interval_ns = NS_PER_S};
        int option, r;

        while ((option = command_option(self, argc, argv, options)) >= 0)
                if ((r = parse_option(self, &o, option)) != 0)
                        return r == OPTION_DONE ? EXIT_FIGURES : r;
        if (argc - optind > 1)
                return usage_error(self, "one database at most, but also `%s` was given", argv[optind + 1]);
        o.database = argv[optind];
        if (o.watch)
                return watch(&o);
        struct watched w = {0};
        r = paint(&o, &w, stdout, stderr);
        watched_deinit(&w);
        return r;
}

const struct command command_stat = {
        .name = "stat",
        .arguments = "[DATABASE] [-f GLOB ...] [-1] [--json] [--watch[=SECONDS]] [--list] [--instance NAME]",
        .summary = "the figures of every pool, or all there is to know of one",
        .help = "Reads the broker's status segment; does not disturb it, and works when it is dead.\n"
                "\n"
                "  DATABASE          every figure of this database, with its meaning\n"
                "  -f, --field GLOB  a line for each figure whose name matches, exact (durations in nanoseconds), "
                "with\n"
                "                    what it grew a second: since the start, with --watch since the last time. "
                "`leases`\n"
                "                    is of every database, `main.wait*` of one; `!GLOB` leaves out; may be repeated,\n"
                "                    the last that matches decides\n"
                "  -1, --once        the same, of all figures\n"
                "  -l, --list        the names of all figures, and what they mean\n"
                "  -j, --json        one object {instance, overall, databases}, numbers exact: durations in\n"
                "                    nanoseconds unless a name ends in _us, _ms, _s; times since 1970. With -f or -1\n"
                "                    {instance, figures: {DATABASE.FIGURE: value}, rates}\n"
                "  -w, --watch[=SECONDS]\n"
                "                    again every SECONDS (1), with operations per second; ends with ctrl-c\n"
                "  --instance NAME   another broker than $LESSOR_INSTANCE, or `default`\n"
                "\n"
                "USED are connections held by a worker, FREE those ready, OPEN all that count against MAX;\n"
                "QUEUE are requests that wait for one. WAIT and CALL P99: 99 of 100 took less, since the start.\n"
                "\n"
                "Exit: 0 figures shown (even if stale), 1 no such database or figure, 2 no broker has run here, 64 "
                "usage.\n",
        .run = run,
};

/* SPDX-License-Identifier: MIT */
/* `lessor bench`: which one, and how its figures are told. */
#include "bench.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <base/cleanup.h>

#include "cli.h"
#include "format.h"
#include "json.h"
#include "markdown.h"
#include "nearest.h"

enum { ROUNDS_DEFAULT = 5, ROUNDS_MOST = 1000 };

static const struct bench *const benches[] = {&bench_direct, &bench_cold,      &bench_warm,         &bench_handover,
                                              &bench_storm,  &bench_footprint, &bench_open_breaker, &bench_status,
                                              &bench_crowd,  &bench_pipeline,  &bench_async};

void bench_put(json_t *object, const char *name, json_t *value) {
        if (json_object_set_new(object, name, value) < 0)
                out_of_memory();
}

json_t *bench_spread(struct sample *s) {
        return json_pack("{s:f, s:f, s:f}", "median", sample_median(s), "min", sample_least(s), "max", sample_most(s));
}

static bool met(const struct bench *b, const struct bench_result *r) {
        double ratio = r->value / r->reference;
        return b->at_most ? ratio <= b->bar : ratio >= b->bar;
}

static void print_json(const struct bench *b, const struct bench_options *o, const struct bench_result *r) {
        json_t *value = json_pack("{s:s, s:s, s:f, s:f, s:f, s:i, s:O}", "name", b->name, "unit", b->unit, "value",
                                  r->value, "reference", r->reference, "ratio", r->value / r->reference, "rounds",
                                  (int)o->rounds, "extra", r->extra);
        if (!value)
                out_of_memory();
        json_print(stdout, value);
        json_decref(value);
}

static struct text number(const struct bench *b, double x) {
        if (strcmp(b->unit, "bytes") == 0)
                return format_bytes(x);
        return format_real(x);
}

/* "12 (11 .. 14)" for what bench_spread() made. */
static bool print_spread(const char *name, json_t *o) {
        json_t *median = json_object_get(o, "median"), *min = json_object_get(o, "min"),
               *max = json_object_get(o, "max");
        if (!median || !min || !max)
                return false;
        printf("  %-32s %.6g (%.6g .. %.6g)\n", name, json_number_value(median), json_number_value(min),
               json_number_value(max));
        return true;
}

/* Nested objects as dotted names. */
static void print_extra(json_t *object, const char *prefix);

static void print_figure(const char *name, json_t *value) {
        char prefix[128];
        if (json_is_object(value)) {
                snprintf(prefix, sizeof(prefix), "%s.", name);
                if (!print_spread(name, value))
                        print_extra(value, prefix);
        } else if (json_is_string(value))
                printf("  %-32s %s\n", name, json_string_value(value));
        else if (json_is_number(value))
                printf("  %-32s %.6g\n", name, json_number_value(value));
        else
                printf("  %-32s %s\n", name, json_is_true(value) ? "yes" : json_is_false(value) ? "no" : "-");
}

static void print_extra(json_t *object, const char *prefix) {
        const char *key;
        json_t *value;
        json_object_foreach(object, key, value) {
                char name[96];
                snprintf(name, sizeof(name), "%s%s", prefix, key);
                print_figure(name, value);
        }
}

static void print_text(const struct bench *b, const struct bench_options *o, const struct bench_result *r) {
        printf("%s: %s\n", b->name, b->summary);
        printf("  %s against %s (%s): ratio %.3f; bar %s %.3g: %s (medians of %u rounds)\n", number(b, r->value).s,
               number(b, r->reference).s, b->unit, r->value / r->reference, b->at_most ? "<=" : ">=", b->bar,
               met(b, r) ? "met" : "MISSED", o->rounds);
        print_extra(r->extra, "");
}

struct job {
        const struct bench *bench;
        const struct bench_options *options;
};

static int broke_off(const struct bench *b, const struct servers *s) {
        char words[384];
        servers_last_words(s, words, sizeof(words));
        fprintf(stderr, "lessor bench %s: %s%s%s\n", b->name, s->error, words[0] ? "\nlessord's last words: " : "",
                words);
        return EXIT_NO_SUCH;
}

/* A benchmark that is more than one ratio. */
static void print_own(const struct job *job, const struct servers *s, json_t *extra) {
        if (job->options->json)
                json_print(stdout, extra);
        else
                job->bench->print(job->options, s, extra);
}

/* Seconds; 0: as long as it takes. */
static unsigned limit_of(const struct bench *b, const struct bench_options *o) {
        unsigned limit = b->limit_s ? b->limit_s : BENCH_LIMIT_S;
        return !o->markdown ? 0 : o->quick ? limit / BENCH_QUICK : limit;
}

/* In the child that servers_supervised() made. */
static int run_one(struct servers *s, void *argument) {
        const struct job *job = argument;
        struct bench_result result = {.extra = json_object()};
        int r;

        if (!result.extra)
                out_of_memory();
        servers_raise_files();
        alarm(limit_of(job->bench, job->options)); /* who does not end by himself is ended, and all he started */
        if (job->bench->run(job->options, s, &result) < 0) {
                r = broke_off(job->bench, s);
        } else if (job->options->markdown) {
                markdown_result(job->bench, &result);
                r = EXIT_FIGURES;
        } else if (job->bench->print) {
                print_own(job, s, result.extra);
                r = EXIT_FIGURES;
        } else {
                bench_put(result.extra, "bar", json_real(job->bench->bar));
                bench_put(result.extra, "met", json_boolean(met(job->bench, &result)));
                (job->options->json ? print_json : print_text)(job->bench, job->options, &result);
                r = EXIT_FIGURES;
        }
        json_decref(result.extra);
        return r;
}

/* ---- what benchmarks share ------------------------------------------------------------------------------------- */

redisContext *bench_connect_like(struct servers *s, int fd) {
        struct sockaddr_storage peer = {0};
        socklen_t size = sizeof(peer) - 1;
        char host[INET6_ADDRSTRLEN] = "";
        redisContext *c;

        if (getpeername(fd, (struct sockaddr *)&peer, &size) < 0)
                return servers_fail(s, -errno, "getpeername: %s", strerror(errno)), NULL;
        if (peer.ss_family == AF_UNIX)
                c = redisConnectUnix(((struct sockaddr_un *)&peer)->sun_path);
        else if (peer.ss_family == AF_INET6)
                c = redisConnect(inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&peer)->sin6_addr, host, sizeof(host)),
                                 ntohs(((struct sockaddr_in6 *)&peer)->sin6_port));
        else
                c = redisConnect(inet_ntop(AF_INET, &((struct sockaddr_in *)&peer)->sin_addr, host, sizeof(host)),
                                 ntohs(((struct sockaddr_in *)&peer)->sin_port));
        if (c && !c->err)
                return c;
        servers_fail(s, -EIO, "cannot connect to Redis: %s", c ? c->errstr : "out of memory");
        if (c)
                redisFree(c);
        return NULL;
}

const char *bench_broker(const struct bench_options *o, struct servers *s, unsigned max) {
        char config[256];
        if (o->socket)
                return o->socket;
        snprintf(config, sizeof(config), "databases:\n  main: {db: 0, unix_socket: %s, max_connections: %u}\n",
                 s->redis_socket, max);
        return servers_start_redis(s) == 0 && servers_start_broker(s, config) == 0 ? s->broker_socket : NULL;
}

/* ---- the command ----------------------------------------------------------------------------------------------- */

static int list(void) {
        for (size_t i = 0; i < ARRAY_SIZE(benches); i++)
                if (benches[i]->bars)
                        printf("%-12s %s; bars: %s\n", benches[i]->name, benches[i]->summary, benches[i]->bars);
                else
                        printf("%-12s %s; bar: ratio %s %.3g\n", benches[i]->name, benches[i]->summary,
                               benches[i]->at_most ? "<=" : ">=", benches[i]->bar);
        return EXIT_FIGURES;
}

static bool is_known(const char *name) {
        bool known = strcmp(name, "all") == 0;
        for (size_t i = 0; i < ARRAY_SIZE(benches); i++)
                known = known || strcmp(name, benches[i]->name) == 0;
        return known;
}

static int unknown(const struct command *self, const char *name) {
        const char *names[ARRAY_SIZE(benches)], *near;
        for (size_t i = 0; i < ARRAY_SIZE(benches); i++)
                names[i] = benches[i]->name;
        near = nearest(name, names, ARRAY_SIZE(names));
        return usage_error(self, "no benchmark `%s`%s%s; `lessor bench list` lists them", name,
                           near ? ", did you mean " : "", near ? near : "");
}

static int run_head(struct servers *s, void *argument) {
        const struct bench_options *o = argument;
        if (markdown_head(s, o) == 0)
                return EXIT_FIGURES;
        fprintf(stderr, "lessor bench %s: %s\n", o->name, s->error);
        return EXIT_NO_SUCH;
}

/* What it said of itself went to standard error. */
static int run_row(const struct bench *b, const struct bench_options *o) {
        int r = servers_supervised(run_one, &(struct job){b, o});
        char why[64];
        if (!o->markdown || r == EXIT_FIGURES)
                return r;
        snprintf(why, sizeof(why), "not done within %u s", limit_of(b, o));
        markdown_none(b, r == 128 + SIGALRM ? why : "it broke off");
        fflush(stdout);
        return r == 128 + SIGALRM ? EXIT_NO_SUCH : r;
}

static int run_named(const struct command *self, const char *name, const struct bench_options *o) {
        bool all = strcmp(name, "all") == 0;
        int worst = -1;

        if (o->markdown && is_known(name)) {
                int r = servers_supervised(run_head, (void *)(uintptr_t)o);
                if (r)
                        return r;
        }

        for (size_t i = 0; i < ARRAY_SIZE(benches); i++) {
                if (!all && strcmp(name, benches[i]->name) != 0)
                        continue;
                if (o->socket && benches[i]->own_broker)
                        return usage_error(self, "%s starts a broker of its own: leave --socket out", benches[i]->name);
                int r = run_row(benches[i], o);
                if (r > worst)
                        worst = r;
                if (r > 128) /* ctrl-c: of all */
                        break;
        }
        return worst < 0 ? unknown(self, name) : worst;
}

/* Everything that does not go together. EXIT_FIGURES: nothing. */
static int check_options(const struct command *self, const struct bench_options *o, bool rounds) {
        if (o->json && o->markdown)
                return usage_error(self, "--json or --markdown, not both");
        if (o->quick && !o->markdown)
                return usage_error(self, "--quick is for --markdown; else say --rounds 1");
        if (o->quick && rounds)
                return usage_error(self, "--quick is one round: leave --rounds out");
        return EXIT_FIGURES;
}

static bool parse_rounds(const char *text, unsigned *ret) {
        char *end;
        unsigned long n = strtoul(text, &end, 10);
        if (end == text || *end || n < 1 || n > ROUNDS_MOST)
                return false;
        *ret = (unsigned)n;
        return true;
}

static int run(const struct command *self, int argc, char **argv) {
        static const struct option options[] = {
                {"json", no_argument, NULL, 'j'},
                {"markdown", no_argument, NULL, 'm'},
                {"quick", no_argument, NULL, 'q'},
                {"rounds", required_argument, NULL, 'r'},
                {"socket", required_argument, NULL, 's'},
                {"help", no_argument, NULL, 'h'},
                {0},
        };
        struct bench_options o = {0};
        int option, r;

        while ((option = command_option(self, argc, argv, options)) >= 0) {
                if (option == 'j')
                        o.json = true;
                else if (option == 'm')
                        o.markdown = true;
                else if (option == 'q')
                        o.quick = true;
                else if (option == 's')
                        o.socket = optarg;
                else if (option != 'r')
                        return option == 'h' ? EXIT_FIGURES : EXIT_USAGE;
                else if (!parse_rounds(optarg, &o.rounds))
                        return usage_error(self, "--rounds %s: write a number, 1 to %d", optarg, ROUNDS_MOST);
        }
        if (argc - optind != 1)
                return usage_error(self, "one name, please: a benchmark, or list, or all");
        r = check_options(self, &o, o.rounds > 0);
        if (r != EXIT_FIGURES)
                return r;
        o.name = argv[optind];
        o.rounds = o.quick ? 1 : o.rounds ? o.rounds : ROUNDS_DEFAULT;
        return strcmp(o.name, "list") == 0 ? list() : run_named(self, o.name, &o);
}

const struct command command_bench = {
        .name = "bench",
        .arguments = "NAME|list|all [--json | --markdown [--quick]] [--rounds N] [--socket PATH]",
        .summary = "measures Lessor against doing without it, on this machine",
        .help = "Starts a private redis-server and a private lessord ($LESSORD, or the one beside this program), "
                "measures\n"
                "subject and reference in turn, and removes everything again.\n"
                "\n"
                "  NAME, list, all   one of `lessor bench list`; all, one after the other\n"
                "  --json            one object a line: {name, unit, value, reference, ratio, rounds, extra};\n"
                "                    of crowd: {name, rows, ratios}\n"
                "  --markdown        a table for a README, with machine, versions and day; one that takes too long\n"
                "                    (a minute for most) is given up, so that all take less than a quarter of an hour\n"
                "  --quick           likewise, one round and a fifth of the time: to see that it runs\n"
                "  --rounds N        figures are medians of N rounds (5)\n"
                "  --socket PATH     a broker that runs already, its database `main`; writes keys lessor:bench:*\n"
                "\n"
                "Exit: 0 measured, whether or not the bar is met (see `met` in extra), 1 not, 64 usage.\n",
        .run = run,
};

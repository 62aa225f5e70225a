/* SPDX-License-Identifier: MIT */
/*
 * The rows follow from what each benchmark tells: its own ratio, then each object of `extra` that has a `ratio` of its own, with
 * what it is made of (`X` and `reference_X`), and each figure that has a bar of its own (`X_bar`).
 */
#include "markdown.h"

#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include <base/cleanup.h>

#include "cli.h"
#include "format.h"

/* ---- rows --------------------------------------------------------------------------------------------------------- */

/* A name of JSON, or a summary, of which what follows a semicolon is of the other rows. */
static void put_words(const char *text) {
        bool name = !strchr(text, ' ');
        for (; *text && *text != ';'; text++)
                putchar(name && *text == '_' ? ' ' : *text);
}

static void put_amount(double x, const char *unit) {
        if (strcmp(unit, "bytes") == 0)
                printf("%s", format_bytes(x).s);
        else
                printf("%s %s", format_real(x).s, unit);
}

void markdown_row(const struct markdown_row *r) {
        printf("| `%s`%s", r->bench, *r->what ? ", " : "");
        put_words(r->what);
        fputs(" | ", stdout);
        if (r->reference > 0)
                put_amount(r->reference, r->unit);
        fputs(" | ", stdout);
        if (r->value > 0)
                put_amount(r->value, r->unit);
        printf(" | %.3g | ", r->ratio);
        if (r->bar > 0)
                printf("%s %.3g, %s", r->at_most ? "at most" : "at least", r->bar,
                       (r->at_most ? r->ratio <= r->bar : r->ratio >= r->bar) ? "met" : "not met");
        puts(" |");
}

void markdown_none(const struct bench *b, const char *why) {
        printf("| `%s` | | not measured: %s | | |\n", b->name, why);
}

/* ---- what `extra` has --------------------------------------------------------------------------------------------- */

/* Of what bench_spread() made, or a plain number; NaN: neither. */
static double median_of(json_t *value) {
        if (json_is_object(value))
                value = json_object_get(value, "median");
        return json_is_number(value) ? json_number_value(value) : NAN;
}

static double named_median(json_t *o, const char *prefix, const char *name) {
        char whole[96];
        snprintf(whole, sizeof(whole), "%s%s", prefix, name);
        return median_of(json_object_get(o, whole));
}

/* The first X for which there is a reference_X, and its unit: the last part of its name. */
static void find_pair(json_t *o, struct markdown_row *row) {
        static const char *const prefixes[] = {"reference_", "raw_"};
        const char *key;
        json_t *value;
        json_object_foreach(o, key, value) {
                for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
                        double reference = named_median(o, prefixes[i], key);
                        if (isnan(reference) || isnan(median_of(value)))
                                continue;
                        row->reference = reference;
                        row->value = median_of(value);
                        row->unit = strcmp(key, "ops_per_s") == 0 ? "ops/s"
                                    : strrchr(key, '_')           ? strrchr(key, '_') + 1
                                                                  : key;
                        return;
                }
        }
}

static void add_arm(const struct bench *b, json_t *extra, const char *name, json_t *arm) {
        struct markdown_row row = {.bench = b->name,
                                   .what = name,
                                   .unit = b->unit,
                                   .ratio = named_median(arm, "", "ratio"),
                                   .at_most = b->at_most};
        char named[96];
        snprintf(named, sizeof(named), "%s_bar", name);
        double bar = median_of(json_object_get(arm, "bar")), other = median_of(json_object_get(extra, named));
        row.bar = !isnan(bar) ? bar : !isnan(other) ? other : 0;
        find_pair(arm, &row);
        markdown_row(&row);
}

/* A figure of which so much may be, as of memory. */
static void add_figure(const struct bench *b, json_t *extra, const char *name, double value) {
        char named[96];
        snprintf(named, sizeof(named), "%s_bar", name);
        double bar = median_of(json_object_get(extra, named));
        if (isnan(bar) || isnan(value))
                return;
        markdown_row(&(struct markdown_row){.bench = b->name,
                                            .what = name,
                                            .unit = b->unit,
                                            .reference = bar,
                                            .value = value,
                                            .ratio = value / bar,
                                            .bar = 1,
                                            .at_most = true});
}

void markdown_result(const struct bench *b, const struct bench_result *r) {
        const char *own = b->own_arm, *key;
        json_t *value;

        if (b->markdown) {
                b->markdown(r->extra);
                return;
        }
        if (!own)
                own = json_string_value(json_object_get(r->extra, "placement"));
        markdown_row(&(struct markdown_row){.bench = b->name,
                                            .what = b->summary,
                                            .unit = b->unit,
                                            .reference = r->reference,
                                            .value = r->value,
                                            .ratio = r->value / r->reference,
                                            .bar = b->bar,
                                            .at_most = b->at_most});
        json_object_foreach(r->extra, key, value) {
                if (own && strcmp(key, own) == 0)
                        continue;
                if (!isnan(named_median(value, "", "ratio")))
                        add_arm(b, r->extra, key, value);
                else
                        add_figure(b, r->extra, key, median_of(value));
        }
}

/* ---- the head ----------------------------------------------------------------------------------------------------- */

/* "Intel(R) Xeon(R) ...", as the kernel says. */
static void processor(char *ret, size_t size) {
        char line[256], *colon;
        FILE *f = fopen("/proc/cpuinfo", "re");
        snprintf(ret, size, "unknown processor");
        while (f && fgets(line, sizeof(line), f)) {
                if (strncmp(line, "model name", 10) != 0 || !(colon = strchr(line, ':')))
                        continue;
                snprintf(ret, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
                break;
        }
        if (f)
                fclose(f);
}

static unsigned processors(void) {
        cpu_set_t set;
        return sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 0;
}

/* redis_version: of the server itself; NULL is an error that s->error tells. */
static char *redis_version(struct servers *s) {
        redisContext *c = servers_start_redis(s) == 0 ? servers_connect(s) : NULL;
        redisReply *info = c ? redisCommand(c, "INFO server") : NULL;
        const char *at = info && info->str ? strstr(info->str, "redis_version:") : NULL;
        char *version = at ? strndup(at + 14, strcspn(at + 14, "\r\n")) : NULL;
        if (c && !version)
                servers_fail(s, -EIO, "Redis does not tell its version");
        if (info)
                freeReplyObject(info);
        if (c)
                redisFree(c);
        return version;
}

int markdown_head(struct servers *s, const struct bench_options *o) {
        char cpu[128], day[32];
        double load[1] = {0};
        time_t now = time(NULL);
        struct utsname system;
        struct tm utc;
        char *redis;

        if (getloadavg(load, 1) < 1)
                load[0] = NAN; /* before our own servers add to it */
        redis = redis_version(s);
        if (!redis)
                return -EIO;
        processor(cpu, sizeof(cpu));
        uname(&system);
        strftime(day, sizeof(day), "%Y-%m-%d %H:%M UTC", gmtime_r(&now, &utc));
        printf("%s: Lessor %s, Redis %s, hiredis %d.%d.%d; %u CPUs (%s), %s %s on %s; load before: %.2g.\n"
               "Medians of %u round%s, Lessor and its reference in turn; measured by `lessor bench %s --markdown`.\n\n"
               "| what | reference | Lessor | ratio | bar |\n"
               "|---|---|---|---|---|\n",
               day, LESSOR_RELEASE, redis, HIREDIS_MAJOR, HIREDIS_MINOR, HIREDIS_PATCH, processors(), cpu,
               system.sysname, system.release, system.machine, load[0], o->rounds, o->rounds == 1 ? "" : "s", o->name);
        free(redis);
        return 0;
}

/* SPDX-License-Identifier: MIT */
/*
 * Three significant digits are what a reader of a table takes in; the exact numbers are in the JSON. Thresholds stand
 * at 999.5 of a unit, since that is where "%.3g" would turn to exponents.
 */
#include "format.h"

#include <stdio.h>

#include <base/clock.h>

static struct text scaled(double x, double step, const char *const *units) {
        struct text t;
        while (x >= 999.5 && units[1]) {
                x /= step;
                units++;
        }
        if (x >= 999.5)
                snprintf(t.s, sizeof(t.s), "%.0f%s", x, *units);
        else
                snprintf(t.s, sizeof(t.s), "%.3g%s", x, *units);
        return t;
}

struct text format_count(uint64_t n) {
        static const char *const units[] = {"", "k", "M", "G", "T", "P", "E", NULL};
        struct text t;
        if (n >= 10000)
                return scaled((double)n, 1000, units);
        snprintf(t.s, sizeof(t.s), "%u", (unsigned)n);
        return t;
}

struct text format_real(double x) {
        return x < 999.5 ? scaled(x, 1000, (const char *const[]){"", NULL}) : format_count((uint64_t)(x + 0.5));
}

static struct text long_duration(uint64_t s) {
        struct text t;
        if (s < 3600)
                snprintf(t.s, sizeof(t.s), "%um%02us", (unsigned)(s / 60), (unsigned)(s % 60));
        else if (s < 86400)
                snprintf(t.s, sizeof(t.s), "%uh%02um", (unsigned)(s / 3600), (unsigned)(s / 60 % 60));
        else
                snprintf(t.s, sizeof(t.s), "%lud%02uh", (unsigned long)(s / 86400), (unsigned)(s / 3600 % 24));
        return t;
}

struct text format_duration(uint64_t ns) {
        static const char *const units[] = {"ns", "us", "ms", "s", NULL};
        return ns < 100 * NS_PER_S ? scaled((double)ns, 1000, units) : long_duration(ns / NS_PER_S);
}

struct text format_bytes(double bytes) {
        static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", NULL};
        return scaled(bytes, 1024, units);
}

struct text format_percent(double percent) {
        struct text t;
        double shown = (double)(uint64_t)(percent * 100) / 100;
        snprintf(t.s, sizeof(t.s), shown >= 100 ? "%.0f%%" : "%.2f%%", shown);
        return t;
}

struct text format_ago(uint64_t wall_now, uint64_t wall) {
        struct text t, span = format_duration(wall_now > wall ? wall_now - wall : 0);
        snprintf(t.s, sizeof(t.s), wall ? "%.24s ago" : "never", span.s);
        return t;
}

char *format_clean(char *s) {
        for (char *p = s; *p; p++)
                if (*p < 0x20 || *p > 0x7e)
                        *p = '?';
        return s;
}

/* SPDX-License-Identifier: MIT */
#pragma once
/* Numbers for people. Pure. The text comes by value: printf("%s", format_count(n).s). */
#include <stddef.h>
#include <stdint.h>

struct text {
        char s[32];
};

struct text format_count(uint64_t n);                     /* 9999, 12.3k, 1.2M */
struct text format_real(double x);                        /* likewise, below 100 with three digits: 0.98, 12.3 */
struct text format_duration(uint64_t ns);                 /* 27ns, 1.25ms, 3m04s, 2h05m, 3d04h */
struct text format_bytes(double bytes);                   /* 512B, 7.9MiB */
struct text format_percent(double percent);               /* 99.98%: never rounded up to 100% */
struct text format_ago(uint64_t wall_now, uint64_t wall); /* "3.1s ago", "never" for 0 */

/* What must not reach a terminal (control characters, bytes that are not ASCII) becomes `?`. Returns s. */
char *format_clean(char *s);

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The broker's log: one line an event on standard error, in logfmt, written whole by one write(2):
 *
 *      2026-11-23T18:00:00.123Z info  upstream: connected db=main slot=3 local=127.0.0.1:40112 client_id=17
 *
 * The levels read debug, info, warn and error. Control characters in a line become '?', a line over 4 kB ends in "...".
 * Whoever decides logs, once. Values that come from outside are quoted and escaped by log_quote(). Thread-safe.
 */
#include <stdbool.h>
#include <stddef.h>

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARNING, LOG_LEVEL_ERROR };

void log_set_level(enum log_level level);
enum log_level log_level_now(void);
const char *log_level_text(enum log_level level);
bool log_level_parse(const char *text, enum log_level *ret); /* "debug", "info", "warning" or "warn", "error" */
void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)

/* What this thread logs as an error until log_tap_end() is also written here, line by line, as far as there is room. */
void log_tap(char *buffer, size_t size);
void log_tap_end(void);

/* A text from outside, made safe for one line: "..." with \n, \", \\ and \xNN. Truncates; returns `buffer`. */
const char *log_quote(const char *text, char *buffer, size_t size);
#define LOG_QUOTE(text) log_quote((text), (char[256]){0}, 256)

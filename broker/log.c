/* SPDX-License-Identifier: MIT */
/*
 * A line is built on the stack and leaves by one write(2), so that lines of several threads do not mix (a pipe keeps
 * them whole up to PIPE_BUF). A line that cannot be written is lost: the log never stops the broker. Standard error may
 * well be a pipe or a socket whose reader has stopped, and O_NONBLOCK would be set for everybody who shares it: so nothing
 * is written before poll(2) says that there is room, and somebody is waited for once, not at every line.
 */
#include "log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define LOG_PATIENCE_MS 100
#define LOG_LINE_SIZE 4096U /* PIPE_BUF */
#define LOG_CUT "..."

static const char *const log_words[] = {
        [LOG_LEVEL_DEBUG] = "debug",
        [LOG_LEVEL_INFO] = "info",
        [LOG_LEVEL_WARNING] = "warn",
        [LOG_LEVEL_ERROR] = "error",
};

static atomic_int log_level = LOG_LEVEL_INFO;

void log_set_level(enum log_level level) { atomic_store_explicit(&log_level, (int)level, memory_order_relaxed); }

enum log_level log_level_now(void) { return (enum log_level)atomic_load_explicit(&log_level, memory_order_relaxed); }

const char *log_level_text(enum log_level level) { return log_words[level]; }

bool log_level_parse(const char *text, enum log_level *ret) {
        for (size_t i = 0; i < ARRAY_SIZE(log_words); i++)
                if (strcmp(text, log_words[i]) == 0 || (i == LOG_LEVEL_WARNING && strcmp(text, "warning") == 0)) {
                        *ret = (enum log_level)i;
                        return true;
                }
        return false;
}

/* The bytes written; at most size - 1. */
static size_t log_stamp(char *buffer, size_t size, enum log_level level) {
        struct timespec now;
        struct tm utc;
        char date[32];
        int n;

        clock_gettime(CLOCK_REALTIME, &now);
        gmtime_r(&now.tv_sec, &utc);
        strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &utc);
        n = snprintf(buffer, size, "%s.%03ldZ %-5s ", date, now.tv_nsec / 1000000, log_words[level]);
        return n > 0 && (size_t)n < size ? (size_t)n : 0;
}

static bool log_control(char c) { return (unsigned char)c < 0x20 || c == 0x7f; }

/* One thread at a time: between poll() and write() nobody else of ours takes the room. */
static pthread_mutex_t log_turn = PTHREAD_MUTEX_INITIALIZER;
static bool log_stuck; /* the last line was lost: the reader had his time */

static bool log_has_room(uint64_t deadline) {
        struct pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT};
        int r;
        do
                r = poll(&out, 1, log_stuck ? 0 : (int)(time_left(clock_now(), deadline) / NS_PER_MS));
        while (r < 0 && errno == EINTR);
        return r > 0;
}

/* A pipe with room takes a line whole; a socket may take a part of it, and would wait with the rest. */
static ssize_t log_write_some(const char *line, size_t size) {
        ssize_t n = send(STDERR_FILENO, line, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        return n < 0 && errno == ENOTSOCK ? write(STDERR_FILENO, line, size) : n;
}

static void log_write(const char *line, size_t size) {
        uint64_t deadline = clock_now() + LOG_PATIENCE_MS * NS_PER_MS;
        pthread_mutex_lock(&log_turn);
        while (size > 0 && log_has_room(deadline)) {
                ssize_t n = log_write_some(line, size);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        break;
                line += n;
                size -= (size_t)n;
                log_stuck = false;
        }
        log_stuck = size > 0;
        pthread_mutex_unlock(&log_turn);
}

static _Thread_local struct {
        char *at;
        size_t left; /* room, the NUL's included */
} log_tapped;

void log_tap(char *buffer, size_t size) {
        buffer[0] = '\0';
        log_tapped.at = buffer;
        log_tapped.left = size;
}

void log_tap_end(void) { log_tapped.at = NULL; }

static void log_to_tap(const char *text, size_t size) {
        int n = snprintf(log_tapped.at, log_tapped.left, "%.*s\n", (int)size, text);
        size_t taken = n < 0 ? 0 : (size_t)n < log_tapped.left ? (size_t)n : log_tapped.left - 1;
        log_tapped.at += taken;
        log_tapped.left -= taken;
}

void log_line(enum log_level level, const char *fmt, ...) {
        int keep = errno, n;
        char line[LOG_LINE_SIZE];
        size_t start, end;
        va_list args;

        if ((int)level < atomic_load_explicit(&log_level, memory_order_relaxed))
                return;
        start = end = log_stamp(line, sizeof(line), level);
        errno = keep; /* for %m */
        va_start(args, fmt);
        n = vsnprintf(line + start, sizeof(line) - start, fmt, args);
        va_end(args);
        if (n > 0)
                end += (size_t)n;
        if (end > sizeof(line) - 1) {
                end = sizeof(line) - 1;
                memcpy(line + end - strlen(LOG_CUT), LOG_CUT, strlen(LOG_CUT));
        }
        for (size_t i = start; i < end; i++)
                if (log_control(line[i]))
                        line[i] = '?';
        if (level == LOG_LEVEL_ERROR && log_tapped.at)
                log_to_tap(line + start, end - start);
        line[end++] = '\n';
        log_write(line, end);
        errno = keep;
}

/* Bytes beyond ASCII are escaped too: some terminals obey control characters that are written in UTF-8. */
static size_t log_escape(char c, char ret[5]) {
        if (c == '\n')
                return (size_t)snprintf(ret, 5, "\\n");
        if (c == '"' || c == '\\')
                return (size_t)snprintf(ret, 5, "\\%c", c);
        if (log_control(c) || (unsigned char)c >= 0x80)
                return (size_t)snprintf(ret, 5, "\\x%02x", (unsigned char)c);
        ret[0] = c;
        return 1;
}

const char *log_quote(const char *text, char *buffer, size_t size) {
        size_t at = 1, cut = 1, room; /* cut: the last place where LOG_CUT has room, between two characters */
        char escaped[5];

        if (size < sizeof("\"\"")) {
                if (size > 0)
                        buffer[0] = 0;
                return buffer;
        }
        room = size - 2; /* for the closing quote and the NUL */
        buffer[0] = '"';
        for (const char *c = text ? text : ""; *c; c++) {
                size_t n = log_escape(*c, escaped);
                if (at + strlen(LOG_CUT) <= room)
                        cut = at;
                if (at + n > room) {
                        at = cut;
                        for (const char *dot = LOG_CUT; *dot && at < room; dot++)
                                buffer[at++] = *dot;
                        break;
                }
                memcpy(buffer + at, escaped, n);
                at += n;
        }
        buffer[at++] = '"';
        buffer[at] = 0;
        return buffer;
}

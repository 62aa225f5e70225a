/* SPDX-License-Identifier: MIT */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "log.h"
#include "support/check.h"

#define STAMP "2026-11-23T18:00:00.123Z "

struct capture {
        int saved, from;
        char text[1 << 16];
};

/* Standard error is a pipe from here to capture_end(); check() must wait until then. */
static void capture_begin(struct capture *c) {
        int ends[2];
        check_eq(pipe2(ends, O_CLOEXEC), 0);
        fflush(stderr);
        c->saved = dup(STDERR_FILENO);
        dup2(ends[1], STDERR_FILENO);
        close(ends[1]);
        c->from = ends[0];
}

static void capture_end(struct capture *c) {
        size_t size = 0;
        ssize_t n;
        dup2(c->saved, STDERR_FILENO);
        close(c->saved);
        while ((n = read(c->from, c->text + size, sizeof(c->text) - 1 - size)) > 0)
                size += (size_t)n;
        c->text[size] = 0;
        close(c->from);
}

static const char *after_stamp(const struct capture *c) {
        return strlen(c->text) > strlen(STAMP) ? c->text + strlen(STAMP) : "";
}

TEST(log, a_line_has_a_utc_time_in_milliseconds_a_level_and_the_text) {
        static struct capture c;
        time_t before = time(NULL) - 1, after, said; /* time() is coarser than the log's clock: it may lag behind */
        struct tm tm = {0};
        char millis[8];
        setenv("TZ", "Asia/Tokyo", 1);
        tzset();
        capture_begin(&c);
        log_info("upstream: connected db=%s slot=%d", "main", 3);
        capture_end(&c);
        after = time(NULL);
        check_str(after_stamp(&c), "info  upstream: connected db=main slot=3\n");
        check_eq(sscanf(c.text, "%4d-%2d-%2dT%2d:%2d:%2d.%3[0-9]Z ", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
                        &tm.tm_min, &tm.tm_sec, millis),
                 7);
        check_eq(strlen(millis), 3);
        tm.tm_year -= 1900;
        tm.tm_mon -= 1;
        said = timegm(&tm);
        check(said >= before && said <= after);
}

TEST(log, a_level_lets_through_itself_and_what_is_above) {
        static const char *const shown[] = {
                [LOG_LEVEL_DEBUG] = "debug dinfo  iwarn  werror e",
                [LOG_LEVEL_INFO] = "info  iwarn  werror e",
                [LOG_LEVEL_WARNING] = "warn  werror e",
                [LOG_LEVEL_ERROR] = "error e",
        };
        for (int set = LOG_LEVEL_DEBUG; set <= LOG_LEVEL_ERROR; set++) {
                static struct capture c;
                char expected[64] = "";
                const char *at;
                capture_begin(&c);
                log_set_level((enum log_level)set);
                log_debug("d");
                log_info("i");
                log_warning("w");
                log_error("e");
                capture_end(&c);
                at = c.text;
                for (const char *end; (end = strchr(at, '\n')); at = end + 1)
                        strncat(expected, at + strlen(STAMP), (size_t)(end - at) - strlen(STAMP));
                check_str(expected, shown[set]);
        }
        log_set_level(LOG_LEVEL_INFO);
}

TEST(log, the_levels_have_names) {
        const struct {
                const char *text;
                enum log_level level;
        } good[] = {{"debug", LOG_LEVEL_DEBUG},
                    {"info", LOG_LEVEL_INFO},
                    {"warning", LOG_LEVEL_WARNING},
                    {"warn", LOG_LEVEL_WARNING},
                    {"error", LOG_LEVEL_ERROR}};
        const char *bad[] = {"", "INFO", "inf", "infos", "err", "warnings", "0"};
        for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
                enum log_level level = (enum log_level) - 1;
                check(log_level_parse(good[i].text, &level));
                check_eq(level, good[i].level);
        }
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                enum log_level level = LOG_LEVEL_WARNING;
                check(!log_level_parse(bad[i], &level));
                check_eq(level, LOG_LEVEL_WARNING);
        }
}

TEST(log, errno_is_kept_and_can_be_printed) {
        static struct capture c;
        int written, filtered, failed, saved;
        setenv("TZ", ":/nonexistent/zone", 1); /* looking for it sets errno */
        capture_begin(&c);
        errno = EDOM;
        log_info("%m");
        written = errno;
        errno = EEXIST;
        log_debug("not shown");
        filtered = errno;
        capture_end(&c);
        saved = dup(STDERR_FILENO);
        close(STDERR_FILENO);
        errno = EPERM;
        log_info("lost");
        failed = errno;
        dup2(saved, STDERR_FILENO);
        close(saved);
        check_str(after_stamp(&c), "info  Numerical argument out of domain\n");
        check_eq(written, EDOM);
        check_eq(filtered, EEXIST);
        check_eq(failed, EPERM);
}

TEST(log, no_byte_of_a_text_breaks_the_line) {
        for (int byte = 1; byte < 256; byte++) {
                static struct capture c;
                char expected[32];
                bool control = byte < 0x20 || byte == 0x7f;
                capture_begin(&c);
                log_info("a%cb", byte);
                capture_end(&c);
                snprintf(expected, sizeof(expected), "info  a%cb\n", control ? '?' : byte);
                check_str(after_stamp(&c), expected);
        }
        {
                static struct capture c;
                capture_begin(&c);
                log_info("a%cb", 0);
                capture_end(&c);
                check_str(after_stamp(&c), "info  a?b\n");
        }
}

TEST(log, a_line_of_any_length_ends_and_one_that_is_cut_says_so) {
        for (size_t len = 4000; len < 4200; len++) {
                static struct capture c;
                char text[4200];
                size_t head = strlen(STAMP "info  "), room = 4095 - head;
                memset(text, 'x', len);
                text[len] = 0;
                capture_begin(&c);
                log_info("%s", text);
                capture_end(&c);
                check_eq(strlen(c.text), head + (len < room ? len : room) + 1);
                check_eq(c.text[strlen(c.text) - 1], '\n');
                check_eq(strstr(c.text, "...\n") != NULL, len > room);
        }
}

struct writer {
        pthread_t thread;
        int id;
};

static void *write_lines(void *data) {
        const struct writer *w = data;
        for (int i = 0; i < 50; i++)
                log_info("writer=%d %0*d end", w->id, 100, i);
        return NULL;
}

TEST(log, lines_of_several_threads_do_not_mix) {
        static struct capture c;
        struct writer writers[8];
        unsigned lines = 0, whole = 0;
        capture_begin(&c);
        fcntl(STDERR_FILENO, F_SETPIPE_SZ, 1 << 17); /* nobody reads until the end */
        for (int i = 0; i < 8; i++) {
                writers[i].id = i;
                if (pthread_create(&writers[i].thread, NULL, write_lines, &writers[i]) != 0)
                        _exit(1);
        }
        for (int i = 0; i < 8; i++)
                pthread_join(writers[i].thread, NULL);
        capture_end(&c);
        for (char *at = c.text, *end; (end = strchr(at, '\n')); at = end + 1, lines++) {
                int id, number, length = 0;
                *end = 0;
                if (sscanf(at + strlen(STAMP), "info  writer=%d %d end%n", &id, &number, &length) == 2)
                        whole += at + strlen(STAMP) + length == end;
        }
        check_eq(lines, 400);
        check_eq(whole, 400);
}

static volatile sig_atomic_t alarms;
static int drain_fd = -1;
static char drained[1 << 16];
static volatile size_t drained_size;

/* From the third alarm on somebody reads: until then a write that has no room is interrupted again and again. */
static void on_alarm(int signal) {
        int keep = errno;
        ssize_t n;
        if (++alarms >= 3)
                while ((n = recv(drain_fd, drained + drained_size, sizeof(drained) - 1 - drained_size, MSG_DONTWAIT)) >
                       0)
                        drained_size += (size_t)n;
        errno = keep;
}

/*
 * A socket, as journald gives. There is room for one more packet and a long line needs two: so the first alarm makes the
 * write a partial one.
 */
TEST(log, a_line_survives_interruptions_and_partial_writes) {
        struct itimerval often = {.it_value = {.tv_usec = 5000}, .it_interval = {.tv_usec = 5000}}, never = {0};
        struct sigaction action = {.sa_handler = on_alarm}; /* no SA_RESTART */
        int ends[2], saved = dup(STDERR_FILENO), smallest = 1;
        size_t filled = 0;
        char text[3901];
        memset(text, 'x', sizeof(text) - 1);
        text[sizeof(text) - 1] = 0;
        check_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        check_eq(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &smallest, sizeof(smallest)), 0);
        while (send(ends[0], text, 100, MSG_DONTWAIT) == 100)
                filled += 100;
        check_eq(recv(ends[1], text, 100, 0), 100);
        drain_fd = ends[1];
        check_eq(sigaction(SIGALRM, &action, NULL), 0);
        fflush(stderr);
        dup2(ends[0], STDERR_FILENO);
        setitimer(ITIMER_REAL, &often, NULL);
        log_info("%s whole", text);
        setitimer(ITIMER_REAL, &never, NULL);
        dup2(saved, STDERR_FILENO);
        check(alarms >= 3);
        on_alarm(0);
        check_eq(drained_size, filled - 100 + strlen(STAMP "info  ") + strlen(text) + strlen(" whole\n"));
        check_str(drained + drained_size - strlen("xxx whole\n"), "xxx whole\n");
        close(ends[0]);
        close(ends[1]);
        close(saved);
}

TEST(log, a_full_pipe_that_does_not_block_loses_the_line_and_no_more) {
        static struct capture c;
        char page[4096];
        capture_begin(&c);
        fcntl(STDERR_FILENO, F_SETFL, O_WRONLY | O_NONBLOCK);
        memset(page, 'x', sizeof(page));
        while (write(STDERR_FILENO, page, sizeof(page)) > 0)
                ;
        log_info("lost");
        capture_end(&c);
        check(!strstr(c.text, "lost"));
}

/* Whose reader has stopped: the first line waits a little for him, those after it not at all. */
static uint64_t time_of_many_lines_to(int fd) {
        int saved = dup(STDERR_FILENO);
        uint64_t began = clock_now();
        fflush(stderr);
        dup2(fd, STDERR_FILENO);
        for (unsigned i = 0; i < 5000; i++)
                log_info("nobody reads this, nor any of the lines that follow it: number %u", i);
        dup2(saved, STDERR_FILENO);
        close(saved);
        return (clock_now() - began) / NS_PER_MS;
}

TEST_WITH(log, a_reader_who_has_stopped_stops_nobody, .timeout = 20) {
        int pipe_ends[2], socket_ends[2];
        check_eq(pipe2(pipe_ends, O_CLOEXEC), 0);
        check_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socket_ends), 0);
        check(time_of_many_lines_to(pipe_ends[1]) < 5000);
        check(time_of_many_lines_to(socket_ends[1]) < 5000);
        close(pipe_ends[0]), close(pipe_ends[1]), close(socket_ends[0]), close(socket_ends[1]);
}

TEST(log, a_quoted_text_is_safe_for_one_line) {
        char buffer[64];
        check_str(log_quote("plain text", buffer, sizeof(buffer)), "\"plain text\"");
        check_str(log_quote("", buffer, sizeof(buffer)), "\"\"");
        check_str(log_quote(NULL, buffer, sizeof(buffer)), "\"\"");
        check_str(log_quote("a\nb", buffer, sizeof(buffer)), "\"a\\nb\"");
        check_str(log_quote("say \"x\"\\", buffer, sizeof(buffer)), "\"say \\\"x\\\"\\\\\"");
        check_str(log_quote("\r\t\x1b[31m\x7f", buffer, sizeof(buffer)), "\"\\x0d\\x09\\x1b[31m\\x7f\"");
        check_str(log_quote("\xc2\x9b", buffer, sizeof(buffer)), "\"\\xc2\\x9b\""); /* CSI in UTF-8 */
        check(log_quote("x", buffer, sizeof(buffer)) == buffer);
        check_str(LOG_QUOTE("x"), "\"x\"");
}

TEST(log, every_byte_is_quoted_to_printable_ascii_and_can_be_told_apart) {
        char seen[256][16];
        for (int byte = 1; byte < 256; byte++) {
                char text[2] = {(char)byte, 0};
                log_quote(text, seen[byte], sizeof(seen[byte]));
                for (const char *c = seen[byte]; *c; c++)
                        check(*c >= 0x20 && *c < 0x7f);
                for (int other = 1; other < byte; other++)
                        check(strcmp(seen[byte], seen[other]) != 0);
        }
}

/* Every size of buffer: quotes at both ends, never half an escape, `...` where something is missing. */
TEST(log, a_quoted_text_is_truncated_between_characters) {
        const char *text = "a\x01\"\n\xff z";
        const char *pieces[] = {"a", "\\x01", "\\\"", "\\n", "\\xff", " ", "z"};
        for (size_t size = 0; size <= 32; size++) {
                char *buffer = malloc(size + 1), expected[40] = "";
                size_t total = 2;
                check(buffer);
                memset(buffer, 0x5a, size + 1);
                check(log_quote(text, buffer, size) == buffer);
                check_eq(buffer[size], 0x5a);
                for (size_t i = 0; i < ARRAY_SIZE(pieces); i++)
                        total += strlen(pieces[i]);
                if (size >= 3) {
                        bool all = total < size;
                        size_t room = all ? 38 : size - 3;
                        strcat(expected, "\"");
                        for (size_t i = 0, at = 0; i < ARRAY_SIZE(pieces); i++) {
                                at += strlen(pieces[i]);
                                if (at + (all ? 0 : 3) > room)
                                        break;
                                strcat(expected, pieces[i]);
                        }
                        if (!all)
                                strncat(expected, "...", size - 2 - strlen(expected));
                        strcat(expected, "\"");
                        check_str(buffer, expected);
                } else if (size > 0)
                        check_str(buffer, "");
                free(buffer);
        }
}

/* SPDX-License-Identifier: MIT */
/* `lessor pause`, `resume`, `drain`, `reconnect`, `breaker` and `log-level`: orders with a word or two. */
#include "admin.h"
#include "nearest.h"

#include <base/cleanup.h>

/* Options, then `n` words; EXIT_FIGURES: go on; else what to return. */
static int parse(const struct command *self, int argc, char **argv, const char *const needs[], struct order *ret) {
        static const struct option options[] = {{"why", required_argument, NULL, 'w'}, ADMIN_OPTIONS, {0}};
        int option, n = 0;
        while ((option = command_option(self, argc, argv, options)) >= 0)
                if (!admin_option(ret, option, optarg))
                        return option == 'h' ? -1 : EXIT_USAGE;
        for (; needs[n]; n++)
                if (!argv[optind + n])
                        return usage_error(self, "%s is missing", needs[n]);
        if (argv[optind + n])
                return usage_error(self, "`%s` is one word too many", argv[optind + n]);
        return EXIT_FIGURES;
}

static bool fits(char *to, size_t size, const char *from) { return (size_t)snprintf(to, size, "%s", from) < size; }

static int run_database(const struct command *self, int argc, char **argv) {
        static const char *const needs[] = {"DATABASE", NULL};
        struct order order = {0};
        int r = parse(self, argc, argv, needs, &order);
        if (r)
                return r < 0 ? EXIT_FIGURES : r;
        order.request.command = self == &command_pause    ? LESSOR_ADMIN_PAUSE
                                : self == &command_resume ? LESSOR_ADMIN_RESUME
                                : self == &command_drain  ? LESSOR_ADMIN_DRAIN
                                                          : LESSOR_ADMIN_RECONNECT;
        if (!fits(order.request.database, sizeof(order.request.database), argv[optind]))
                return usage_error(self, "`%s` is longer than any database's name", argv[optind]);
        return admin_order(self, &order);
}

static int run_breaker(const struct command *self, int argc, char **argv) {
        static const char *const needs[] = {"open, close or reset", "DATABASE", NULL};
        static const char *const words[] = {"open", "close", "reset"};
        struct order order = {0};
        int r = parse(self, argc, argv, needs, &order);
        if (r)
                return r < 0 ? EXIT_FIGURES : r;
        for (size_t i = 0; i < ARRAY_SIZE(words); i++)
                if (strcmp(argv[optind], words[i]) == 0)
                        order.request.command = LESSOR_ADMIN_BREAKER_OPEN + (uint32_t)i;
        if (!order.request.command)
                return usage_error(self, "open, close or reset, not `%s`", argv[optind]);
        if (!fits(order.request.database, sizeof(order.request.database), argv[optind + 1]))
                return usage_error(self, "`%s` is longer than any database's name", argv[optind + 1]);
        return admin_order(self, &order);
}

static int run_log_level(const struct command *self, int argc, char **argv) {
        static const char *const needs[] = {"LEVEL", NULL};
        static const char *const levels[] = {"debug", "info", "warn", "warning", "error"};
        struct order order = {.request = {.command = LESSOR_ADMIN_LOG_LEVEL}};
        int r = parse(self, argc, argv, needs, &order);
        bool known = false;
        if (r)
                return r < 0 ? EXIT_FIGURES : r;
        for (size_t i = 0; i < ARRAY_SIZE(levels); i++)
                known = known || strcmp(argv[optind], levels[i]) == 0;
        if (!known)
                return usage_error(self, "debug, info, warn or error, not `%s`", argv[optind]);
        fits(order.request.why, sizeof(order.request.why), argv[optind]);
        return admin_order(self, &order);
}

/* What all of them take and say besides. */
#define WHY_HELP "  --why TEXT        told to those who wait, and in `lessor health`\n"
#define ORDER(word, runs, takes, means, options, tells)                                                                \
        {                                                                                                              \
                .name = word, .arguments = takes " [--json] [--instance NAME]", .summary = means,                      \
                .help = options ADMIN_HELP "\n" tells ADMIN_EXIT, .run = runs                                          \
        }

const struct command command_pause =
        ORDER("pause", run_database, "DATABASE [--why TEXT]",
              "leases no more connections of a database; who waits waits on, until `lessor resume`", WHY_HELP,
              "For a moment in which Redis is to be left alone: a restart, a fail-over. Leases that are held go on;\n"
              "parked connections come back. Requests wait until their own deadlines (wait_timeout), whose error says\n"
              "that, by whom and why it was paused. Nothing is dialled or checked meanwhile, and that Redis is gone\n"
              "trips no breaker. A pause ends with the broker. ");

const struct command command_resume =
        ORDER("resume", run_database, "DATABASE", "ends a pause or a drain of a database", "", "");

const struct command command_drain = ORDER(
        "drain", run_database, "DATABASE [--why TEXT]",
        "pauses a database, and closes each of its connections as it comes back", WHY_HELP,
        "`lessor stat` says `draining` while leases are still held, then `drained`: no connection is left, until\n"
        "`lessor resume`. ");

const struct command command_reconnect =
        ORDER("reconnect", run_database, "DATABASE", "replaces each connection of a database, as it comes back", "",
              "After a fail-over behind one address, say. Leases that are held are not disturbed: their connections\n"
              "are replaced at their end. ");

const struct command command_breaker =
        ORDER("breaker", run_breaker, "open|close|reset DATABASE [--why TEXT]",
              "opens, closes or resets the circuit breaker of a database", WHY_HELP,
              "open: requests fail at once, without asking Redis or the broker, until it is closed by hand.\n"
              "close: closed, without waiting for the next probe; it counts failures from 0, and may open again.\n"
              "reset: likewise, and what was learnt of the server (backoff, refused credentials) is forgotten: the\n"
              "next request dials at once. ");

const struct command command_log_level =
        ORDER("log-level", run_log_level, "debug|info|warn|error",
              "sets the least severe event that the broker logs, until its next reload", "", "");

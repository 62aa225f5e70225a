/* SPDX-License-Identifier: MIT */
#pragma once
/* The commands of `lessor`, and what they share: exit codes, usage errors, parsing of options. */
#include <getopt.h>
#include <stdbool.h>

enum {
        EXIT_FIGURES = 0,
        EXIT_NO_SUCH = 1, /* no such database, or a benchmark that could not be run */
        EXIT_ABSENT = 2,  /* no broker of this instance, or its segment is not readable */
        EXIT_USAGE = 64,  /* sysexits.h' EX_USAGE */
        EXIT_TROUBLE = 71,
        EXIT_LATER = 75, /* the broker is busy, or late */
        EXIT_FORBIDDEN = 77,
};

struct command {
        const char *name, *arguments, *summary, *help;
        int (*run)(const struct command *self, int argc, char **argv); /* argv[0] is the command's name */
};

extern const struct command command_top, command_stat, command_health, command_leases, command_metrics, command_pause,
        command_resume, command_drain, command_reconnect, command_breaker, command_kill, command_reload,
        command_log_level, command_shutdown, command_bench;

/* Says what is wrong and where to read on, on standard error. Returns EXIT_USAGE. */
int usage_error(const struct command *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void command_help(const struct command *command);

/*
 * getopt_long() with our own words for what is wrong: >= 0 is an option's value, -1 the end, '?' a usage error that has
 * been told already, 'h' is --help (shown already): return EXIT_USAGE or 0 then. Positional arguments are permuted
 * last. An option whose value is a letter or a digit has it for a short name.
 */
int command_option(const struct command *command, int argc, char **argv, const struct option *options);

/* An option of command_flags(): either a switch or a value. */
struct command_flag {
        const char *name;
        bool *on;           /* --name sets it */
        const char **value; /* --name VALUE, when `on` is NULL */
};

enum { COMMAND_RUN = -1 };

/*
 * For commands whose options are that simple: sets what `flags` (the last one has no name) point to, --help comes by
 * itself. *ret_argument, NULL unless given, is the one positional argument; with NULL instead there may be none.
 * COMMAND_RUN, or an exit code: all is said.
 */
int command_flags(const struct command *command, int argc, char **argv, const struct command_flag *flags,
                  const char **ret_argument);

void out_of_memory(void) __attribute__((noreturn));

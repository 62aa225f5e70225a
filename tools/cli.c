/* SPDX-License-Identifier: MIT */
#include "cli.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/cleanup.h>

#include "nearest.h"

void out_of_memory(void) {
        fputs("lessor: out of memory\n", stderr);
        exit(EXIT_TROUBLE);
}

int usage_error(const struct command *command, const char *fmt, ...) {
        va_list args;
        fprintf(stderr, "lessor %s: ", command->name);
        va_start(args, fmt);
        vfprintf(stderr, fmt, args);
        va_end(args);
        fprintf(stderr, "\nUsage: lessor %s %s; more: lessor help %s\n", command->name, command->arguments,
                command->name);
        return EXIT_USAGE;
}

void command_help(const struct command *command) {
        printf("lessor %s: %s\n\nUsage: lessor %s %s\n\n%s", command->name, command->summary, command->name,
               command->arguments, command->help);
}

/* Long options that were meant by `word`: the nearest one, for the error text. */
static const char *nearest_option(const char *word, const struct option *options) {
        const char *names[16];
        size_t n = 0, length = strcspn(word, "=");
        char name[64];

        for (const struct option *o = options; o->name && n < ARRAY_SIZE(names); o++)
                names[n++] = o->name;
        snprintf(name, sizeof(name), "%.*s", (int)(length < 60 ? length : 60), word);
        return nearest(name, names, n);
}

static void unknown_option(const struct command *command, const char *word, const struct option *options) {
        const char *near = strncmp(word, "--", 2) == 0 ? nearest_option(word + 2, options) : NULL;
        if (near)
                usage_error(command, "no option `%s`; did you mean --%s?", word, near);
        else
                usage_error(command, "no option `%s`", word);
}

/* For getopt: each long option whose value is a letter or digit has it for a short one. */
static void short_options(const struct option *options, char *ret, size_t size) {
        size_t n = 0;
        ret[n++] = ':';
        for (; options->name && n + 4 < size; options++) {
                if (options->val <= ' ' || options->val >= 0x7f)
                        continue;
                ret[n++] = (char)options->val;
                for (int i = 0; i < options->has_arg; i++) /* one colon: required_argument, two: optional_argument */
                        ret[n++] = ':';
        }
        ret[n] = '\0';
}

int command_option(const struct command *command, int argc, char **argv, const struct option *options) {
        int at = optind ? optind : 1, value;

        char letters[64];

        opterr = 0;
        short_options(options, letters, sizeof(letters));
        value = getopt_long(argc, argv, letters, options, NULL);
        if (value == 'h')
                command_help(command);
        else if (value == ':')
                usage_error(command, "%s needs a value", argv[optind - 1]);
        else if (value == '?' && optopt && optind > at && strncmp(argv[optind - 1], "--", 2) == 0)
                usage_error(command, "%s takes no value", argv[optind - 1]);
        else if (value == '?')
                unknown_option(command, argv[optind > at ? optind - 1 : optind], options);
        return value == ':' ? '?' : value;
}

enum { FLAGS_MAX = 12, FLAGS_FIRST = 256 /* beyond every letter */ };

static int parse_flags(const struct command *command, int argc, char **argv, const struct command_flag *flags,
                       const struct option *options) {
        int option;
        while ((option = command_option(command, argc, argv, options)) >= 0) {
                if (option == 'h' || option == '?')
                        return option == 'h' ? EXIT_FIGURES : EXIT_USAGE;
                const struct command_flag *f = &flags[option - FLAGS_FIRST];
                if (f->on)
                        *f->on = true;
                else
                        *f->value = optarg;
        }
        return COMMAND_RUN;
}

int command_flags(const struct command *command, int argc, char **argv, const struct command_flag *flags,
                  const char **ret_argument) {
        struct option options[FLAGS_MAX + 2] = {0};
        int n = 0, r;

        for (; flags[n].name; n++) {
                assert(n < FLAGS_MAX);
                options[n] = (struct option){flags[n].name, flags[n].on ? no_argument : required_argument, NULL,
                                             FLAGS_FIRST + n};
        }
        options[n] = (struct option){"help", no_argument, NULL, 'h'};
        r = parse_flags(command, argc, argv, flags, options);
        if (r != COMMAND_RUN)
                return r;
        if (ret_argument && argc - optind > 1)
                return usage_error(command, "one database at most, but also `%s` was given", argv[optind + 1]);
        if (!ret_argument && argv[optind])
                return usage_error(command, "takes no arguments, but `%s` was given", argv[optind]);
        if (ret_argument)
                *ret_argument = argv[optind];
        return COMMAND_RUN;
}

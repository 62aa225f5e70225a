/* SPDX-License-Identifier: MIT */
/* `lessor`, the one command line: which command is meant. Each command is a file of its own (cli.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/cleanup.h>

#include "cli.h"
#include "nearest.h"

static const struct command *const commands[] = {
        &command_top,   &command_stat,   &command_health,    &command_leases,    &command_metrics,
        &command_pause, &command_resume, &command_drain,     &command_reconnect, &command_breaker,
        &command_kill,  &command_reload, &command_log_level, &command_shutdown,  &command_bench};

static const struct command *find(const char *name) {
        for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
                if (strcmp(commands[i]->name, name) == 0)
                        return commands[i];
        return NULL;
}

static void overview(FILE *out) {
        fputs("lessor: Redis connections leased from this host's broker, lessord\n\n", out);
        for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
                fprintf(out, "  lessor %-9s %s\n", commands[i]->name, commands[i]->summary);
        fputs("  lessor help      [COMMAND]: this text, or a command's options\n"
              "\n"
              "lessor --version: the release. $LESSOR_INSTANCE names the broker to look at, `default` unless set.\n",
              out);
}

static int unknown_command(const char *word) {
        const char *names[ARRAY_SIZE(commands) + 1], *near;
        for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
                names[i] = commands[i]->name;
        names[ARRAY_SIZE(commands)] = "help";
        near = nearest(word, names, ARRAY_SIZE(names));
        fprintf(stderr, "lessor: no command `%s`%s%s%s; `lessor help` lists them\n", word,
                near ? ", did you mean `" : "", near ? near : "", near ? "`?" : "");
        return EXIT_USAGE;
}

static int help(int argc, char **argv) {
        const struct command *command;
        if (argc < 2) {
                overview(stdout);
                return EXIT_FIGURES;
        }
        command = find(argv[1]);
        if (!command)
                return unknown_command(argv[1]);
        command_help(command);
        return EXIT_FIGURES;
}

int main(int argc, char **argv) {
        const struct command *command;
        int r;

        if (argc < 2) {
                overview(stderr);
                return EXIT_USAGE;
        }
        if (strcmp(argv[1], "--version") == 0) {
                puts("lessor " LESSOR_RELEASE);
                return EXIT_FIGURES;
        }
        if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
                return help(argc - 1, argv + 1);
        command = find(argv[1]);
        r = command ? command->run(command, argc - 1, argv + 1) : unknown_command(argv[1]);
        if (fflush(stdout) != 0 || ferror(stdout)) {
                perror("lessor: standard output");
                return EXIT_TROUBLE;
        }
        return r;
}

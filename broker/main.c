/* SPDX-License-Identifier: MIT */
/* lessord: the command line, the configuration, and then the broker in the foreground. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "broker.h"
#include "config/keys.h"
#include "config/load.h"
#include "config/print.h"
#include "log.h"

enum mode { MODE_RUN, MODE_CHECK, MODE_PRINT, MODE_KEYS, MODE_HELP, MODE_VERSION };

struct arguments {
        enum mode mode;
        struct config_options config;
        const char *sets[256];
};

static const char usage[] =
        "Usage: lessord [-c FILE] [OPTION ...]\n"
        "Owns this host's Redis connections and leases them to worker processes. Runs in the foreground.\n"
        "\n"
        "  -c, --config FILE      the configuration; else $LESSOR_CONFIG, else " CONFIG_FILE_DEFAULT ",\n"
        "                         else one database `main`: db 0 at 127.0.0.1:6379\n"
        "      --instance NAME    this broker's name among those of the host (default)\n"
        "      --socket PATH      where workers attach (/run/lessor/<instance>.sock)\n"
        "      --set KEY=VALUE    a value that beats file and environment; DB.KEY=VALUE for one database;\n"
        "                         may be given again\n"
        "      --check-config     check the configuration, say what is wrong, exit 0 if nothing is\n"
        "      --print-config     print the effective configuration, each value with its source\n"
        "      --help-config      explain every key\n"
        "      --version\n"
        "      --help\n"
        "\n"
        "SIGHUP (`lessor reload`): reads the configuration again; errors in it change nothing.\n"
        "Exit status: 0 after SIGTERM or SIGINT; 64 wrong usage; 69 cannot start (the log says why);\n"
        "78 the configuration has errors.\n";

static const struct option options[] = {
        {"config", required_argument, NULL, 'c'}, {"instance", required_argument, NULL, 'i'},
        {"socket", required_argument, NULL, 's'}, {"set", required_argument, NULL, 'S'},
        {"check-config", no_argument, NULL, 'C'}, {"print-config", no_argument, NULL, 'P'},
        {"help-config", no_argument, NULL, 'K'},  {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'},         {0},
};

static int usage_error(const char *what) {
        fprintf(stderr, "lessord: %s\nTry `lessord --help`.\n", what);
        return EX_USAGE;
}

static int take_option(struct arguments *a, int option) {
        switch (option) {
        case 'c':
                a->config.file = optarg;
                return 0;
        case 'i':
                a->config.instance = optarg;
                return 0;
        case 's':
                a->config.socket = optarg;
                return 0;
        case 'S':
                if (a->config.n_sets == ARRAY_SIZE(a->sets))
                        return usage_error("too many --set");
                a->sets[a->config.n_sets++] = optarg;
                return 0;
        case 'C':
                a->mode = MODE_CHECK;
                return 0;
        case 'P':
                a->mode = MODE_PRINT;
                return 0;
        case 'K':
                a->mode = MODE_KEYS;
                return 0;
        case 'V':
                a->mode = MODE_VERSION;
                return 0;
        case 'h':
                a->mode = MODE_HELP;
                return 0;
        default: /* getopt has said what is wrong */
                return usage_error("unknown or incomplete option");
        }
}

static int parse_arguments(struct arguments *a, int argc, char **argv) {
        int option, r = 0;
        a->config.sets = a->sets;
        a->config.environment = environ;
        while (r == 0 && (option = getopt_long(argc, argv, "c:h", options, NULL)) != -1)
                r = take_option(a, option);
        if (r == 0 && optind < argc) {
                fprintf(stderr, "lessord: `%s`: ", argv[optind]);
                r = usage_error("no arguments are expected besides options");
        }
        return r;
}

/* The report goes to the log when the broker is to run, and is the answer when it is only to check. */
static void log_report(const struct config_report *report) {
        for (unsigned i = 0; i < report->n; i++) {
                const struct config_message *m = &report->messages[i];
                enum log_level level = m->severity == CONFIG_ERROR     ? LOG_LEVEL_ERROR
                                       : m->severity == CONFIG_WARNING ? LOG_LEVEL_WARNING
                                                                       : LOG_LEVEL_INFO;
                log_line(level, "config: %s%s%s", m->where, *m->where ? ": " : "", m->text);
        }
}

static int load_again(void *userdata, struct config **ret) {
        const struct arguments *a = userdata;
        struct config_report report = {0};
        int r = config_load(&a->config, &report, ret);
        log_report(&report);
        config_report_deinit(&report);
        return r;
}

static int run(const struct arguments *a, const struct config *config) {
        const struct broker_loader loader = {.load = load_again, .userdata = (void *)(uintptr_t)a};
        struct broker *broker;
        log_set_level((enum log_level)config->log_level);
        signal(SIGPIPE, SIG_IGN);
        signal(SIGHUP, SIG_IGN); /* until the broker takes it as the order to reload */
        if (broker_new(config, &loader, &broker) < 0)
                return EX_UNAVAILABLE;
        int r = broker_run(broker);
        broker_free(broker);
        return r < 0 ? EX_UNAVAILABLE : EXIT_SUCCESS;
}

static int with_config(const struct arguments *a) {
        struct config_report report = {0};
        struct config *config = NULL;
        int r = config_load(&a->config, &report, &config);
        if (a->mode == MODE_RUN)
                log_report(&report);
        else
                config_report_write(&report, stderr);
        config_report_deinit(&report);
        if (r != 0) {
                if (r < 0)
                        log_error("config: %s", strerror(-r));
                return r < 0 ? EX_UNAVAILABLE : EX_CONFIG;
        }
        if (a->mode == MODE_RUN)
                r = run(a, config);
        else if (a->mode == MODE_PRINT)
                config_write(config, stdout);
        else
                config_write_summary(config, stdout);
        config_free(config);
        return r;
}

int main(int argc, char **argv) {
        struct arguments arguments = {.mode = MODE_RUN};
        int r = parse_arguments(&arguments, argc, argv);
        if (r != 0)
                return r;
        switch (arguments.mode) {
        case MODE_HELP:
                fputs(usage, stdout);
                return EXIT_SUCCESS;
        case MODE_VERSION:
                puts("lessord " LESSOR_RELEASE);
                return EXIT_SUCCESS;
        case MODE_KEYS:
                config_write_keys(stdout);
                return EXIT_SUCCESS;
        case MODE_RUN:
        case MODE_CHECK:
        case MODE_PRINT:
                break;
        }
        return with_config(&arguments);
}

/* SPDX-License-Identifier: MIT */
/* `lessor metrics`: the figures for Prometheus and its like, once or over HTTP. */
#include "cli.h"
#include "metrics_server.h"
#include "metrics_text.h"
#include "reading.h"

static int print_once(const char *instance, enum metrics_format format) {
        struct model m;
        int r = reading_take(instance, &m);

        if (r < 0) {
                metrics_print(stdout, NULL, format);
                return reading_absent(&command_metrics, r, instance);
        }
        metrics_print(stdout, &m, format);
        model_deinit(&m);
        return EXIT_FIGURES;
}

static int run(const struct command *self, int argc, char **argv) {
        const char *instance = NULL, *address = NULL;
        bool prometheus = false;
        const struct command_flag flags[] = {{"listen", .value = &address},
                                             {"prometheus", .on = &prometheus},
                                             {"instance", .value = &instance},
                                             {0}};
        int r = command_flags(self, argc, argv, flags, NULL);

        if (r != COMMAND_RUN)
                return r;
        if (!address)
                return print_once(instance, prometheus ? METRICS_PROMETHEUS : METRICS_OPENMETRICS);
        r = metrics_serve(instance, address);
        if (r == -EINVAL)
                return usage_error(self, "--listen %s: write HOST:PORT, [ADDRESS]:PORT or :PORT", address);
        if (r < 0)
                fprintf(stderr, "lessor metrics: cannot listen on %s: %s\n", address, strerror(-r));
        return r < 0 ? EXIT_TROUBLE : EXIT_FIGURES;
}

const struct command command_metrics = {
        .name = "metrics",
        .arguments = "[--listen HOST:PORT] [--prometheus] [--instance NAME]",
        .summary = "the figures as OpenMetrics text, once or over HTTP",
        .help = "Reads the broker's status segment; needs no rights, and works when the broker is dead (lessor_up 0).\n"
                "\n"
                "  --listen HOST:PORT  serve /metrics and /healthz; [ADDRESS]:PORT for IPv6, :PORT for all of IPv4,\n"
                "                      port 0 for a free one. /metrics is OpenMetrics for clients that accept it,\n"
                "                      else Prometheus' text format; /healthz is 200 while callers are served,\n"
                "                      degraded or not, and 503 otherwise. Ends with SIGTERM and ctrl-c\n"
                "  --prometheus        without --listen: Prometheus' text format 0.0.4, for its textfile collector\n"
                "  --instance NAME     another broker than $LESSOR_INSTANCE, or `default`\n"
                "\n"
                "Each figure of `lessor stat DATABASE` is lessor_NAME{database=\"...\"}: in seconds "
                "lessor_NAME_seconds,\n"
                "counters lessor_NAME_total. db_client_connection_* are those of OpenTelemetry's conventions.\n"
                "\n"
                "Exit: 0 printed (even if stale), or ended, 2 no broker has run here (lessor_up 0 is printed), 64 "
                "usage,\n"
                "71 nobody can listen there.\n",
        .run = run,
};

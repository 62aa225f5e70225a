/* SPDX-License-Identifier: MIT */
/* `lessor leases`: who holds which connection, since when and from where in the code. */
#include "cli.h"
#include "json.h"
#include "render.h"
#include "source.h"

static int show(const struct model *m, const char *database, bool json) {
        if (database && !model_find(m, database)) {
                fprintf(stderr, "lessor leases: no database `%s`; there are: ", database);
                render_names(stderr, m);
                fputc('\n', stderr);
                return EXIT_NO_SUCH;
        }
        if (json) {
                json_t *value = json_leases(m, database);
                json_print(stdout, value);
                json_decref(value);
        } else
                render_leases(stdout, m, database, render_width(fileno(stdout)));
        return EXIT_FIGURES;
}

static int leases(const char *instance, const char *database, bool json) {
        struct lessor_status status;
        struct model m;
        int r = source_open(instance, &status);

        if (r < 0) {
                char *text = source_explain(r, instance);
                fprintf(stderr, "lessor leases: %s\n", text);
                free(text);
                return EXIT_ABSENT;
        }
        if (model_read(&status, &m) < 0)
                out_of_memory();
        r = show(&m, database, json);
        model_deinit(&m);
        lessor_status_close(&status);
        return r;
}

static int run(const struct command *self, int argc, char **argv) {
        static const struct option options[] = {
                {"json", no_argument, NULL, 'j'},
                {"instance", required_argument, NULL, 'i'},
                {"help", no_argument, NULL, 'h'},
                {0},
        };
        const char *instance = NULL;
        bool json = false;
        int option;

        while ((option = command_option(self, argc, argv, options)) >= 0) {
                if (option == 'j')
                        json = true;
                else if (option == 'i')
                        instance = optarg;
                else
                        return option == 'h' ? EXIT_FIGURES : EXIT_USAGE;
        }
        if (argc - optind > 1)
                return usage_error(self, "one database at most, but also `%s` was given", argv[optind + 1]);
        return leases(instance, argv[optind], json);
}

const struct command command_leases = {
        .name = "leases",
        .arguments = "[DATABASE] [--json] [--instance NAME]",
        .summary = "who holds which connection, since when, from which line of code",
        .help = "One line for each leased connection, the oldest first.\n"
                "\n"
                "  --json            one object {instance, leases: [...]}\n"
                "  --instance NAME   another broker than $LESSOR_INSTANCE, or `default`\n"
                "\n"
                "SITE is where the program asked for it (lessor_acquire), LOCAL the connection's own address and\n"
                "CLIENT its id, as Redis shows them in CLIENT LIST and SLOWLOG.\n"
                "\n"
                "Exit: 0 shown, 1 no such database, 2 no broker has run here, 64 usage.\n",
        .run = run,
};

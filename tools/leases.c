/* SPDX-License-Identifier: MIT */
/* `lessor leases`: who holds which connection, since when and from where in the code; who has commands in lanes. */
#include "cli.h"
#include "json.h"
#include "reading.h"
#include "render.h"

struct leases_options {
        const char *instance, *database, *address;
        bool json;
};

static int missing(const struct leases_options *o, const struct model *m) {
        if (o->database && !model_find(m, o->database)) {
                fprintf(stderr, "lessor leases: no database `%s`; there are: ", o->database);
                render_names(stderr, m);
                fputc('\n', stderr);
                return EXIT_NO_SUCH;
        }
        if (!o->address)
                return EXIT_FIGURES;
        for (unsigned i = 0; i < m->n_connections; i++)
                if (model_chosen(&m->connections[i], o->database, o->address))
                        return EXIT_FIGURES;
        fprintf(stderr, "lessor leases: no connection of the broker is `%s` as Redis sees it, or it is closed by now\n",
                o->address);
        return EXIT_NO_SUCH;
}

static int show(const struct leases_options *o, const struct model *m) {
        int r = missing(o, m);
        if (r != EXIT_FIGURES)
                return r;
        if (o->json) {
                json_t *value = json_leases(m, o->database, o->address);
                json_print(stdout, value);
                json_decref(value);
        } else
                render_leases(stdout, m, o->database, o->address, render_width(fileno(stdout)));
        return EXIT_FIGURES;
}

static int leases(const struct leases_options *o) {
        struct model m;
        int r = reading_take(o->instance, &m);

        if (r < 0)
                return reading_absent(&command_leases, r, o->instance);
        r = show(o, &m);
        model_deinit(&m);
        return r;
}

static int run(const struct command *self, int argc, char **argv) {
        struct leases_options o = {0};
        const struct command_flag flags[] = {
                {"json", .on = &o.json}, {"addr", .value = &o.address}, {"instance", .value = &o.instance}, {0}};
        int r = command_flags(self, argc, argv, flags, &o.database);
        return r == COMMAND_RUN ? leases(&o) : r;
}

const struct command command_leases = {
        .name = "leases",
        .arguments = "[DATABASE] [--addr ADDRESS] [--json] [--instance NAME]",
        .summary = "who holds which connection, since when, from which line of code",
        .help = "One line for each leased connection, the oldest first; then one for each session that has commands\n"
                "under way in a lane, the longest first.\n"
                "\n"
                "  --addr ADDRESS    the connection that SLOWLOG GET or CLIENT LIST names, 127.0.0.1:40112 or the\n"
                "                    client's id: in whatever state, with the worker that has it, or, of a lanes'\n"
                "                    connection, the sessions whose commands are under way on it\n"
                "  --json            one object {instance, leases: [...], lanes: [...], lane_sessions, "
                "lane_under_way}\n"
                "  --instance NAME   another broker than $LESSOR_INSTANCE, or `default`\n"
                "\n"
                "SITE is where the program asked for it (lessor_acquire), LOCAL the connection's own address and\n"
                "CLIENT its id, as Redis shows them in CLIENT LIST and SLOWLOG; LEASE and SESSION are the\n"
                "numbers that `lessor kill` takes. Of lanes, OLDEST is how long the oldest command has been under "
                "way,\n"
                "SENT how many Redis has, QUEUED how many could not be sent yet; shown are the 64 longest of each "
                "thread\n"
                "of the broker, while lane_sessions and lane_under_way count all.\n"
                "\n"
                "Exit: 0 shown, 1 no such database or connection, 2 no broker has run here, 64 usage.\n",
        .run = run,
};

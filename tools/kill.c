/* SPDX-License-Identifier: MIT */
/* `lessor kill`: a lease, or a session. */
#include "admin.h"
#include "reading.h"
#include "source.h"

struct victim {
        const char *address, *pid;
        struct order order;
};

static bool parse_number(const char *text, uint64_t *ret) {
        char *end;
        errno = 0;
        unsigned long long n = strtoull(text, &end, 10);
        if (errno || *end || end == text || *text == '-' || n == 0)
                return false;
        *ret = n;
        return true;
}

/* Numbers of leases begin with the instance's generation; `lessor leases` shows what comes after it. */
static int open_segment(const struct command *self, const char *instance, struct lessor_status *ret) {
        int r = source_open(instance, ret);
        return r == 0 ? EXIT_FIGURES : reading_absent(self, r, instance);
}

static int resolve_number(const struct command *self, const char *text, struct order *order) {
        struct lessor_status s;
        if (!parse_number(text, &order->request.number))
                return usage_error(self, "`%s` is no number of a lease", text);
        int r = open_segment(self, order->instance, &s);
        if (r)
                return r;
        if (order->request.number < s.constants.instance)
                order->request.number += s.constants.instance;
        lessor_status_close(&s);
        return EXIT_FIGURES;
}

/* The lease that is now on the connection with that address. */
static bool find_address(const struct lessor_status *s, const char *address, struct order *order) {
        struct lessor_status_connection c;
        struct lessor_status_database d;
        for (unsigned i = 0; i < lessor_status_connections(s); i++) {
                if (lessor_status_read_connection(s, i, &c) < 0 || strncmp(c.local, address, sizeof(c.local)) != 0 ||
                    (c.state != LESSOR_CONNECTION_LEASED && c.state != LESSOR_CONNECTION_PARKED) ||
                    lessor_status_read_database(s, c.database, LESSOR_STATUS_NO_HISTOGRAMS, &d) < 0)
                        continue;
                order->request.number = c.lease;
                memcpy(order->request.database, d.name, sizeof(order->request.database));
                return true;
        }
        return false;
}

static int resolve_address(const struct command *self, const char *address, struct order *order) {
        struct lessor_status s;
        int r = open_segment(self, order->instance, &s);
        if (r)
                return r;
        bool found = find_address(&s, address, order);
        lessor_status_close(&s);
        if (found)
                return EXIT_FIGURES;
        fprintf(stderr, "lessor %s: no leased connection has the address %s; `lessor leases` lists them\n", self->name,
                address);
        return EXIT_NO_SUCH;
}

static int kill_lease(const struct command *self, char **words, struct victim *v) {
        struct lessor_admin_request *request = &v->order.request;
        int r;
        request->command = LESSOR_ADMIN_KILL_LEASE;
        if (v->pid)
                return usage_error(self, "--pid is for sessions");
        if (v->address ? words[0] != NULL : !words[0] || !words[1] || words[2])
                return usage_error(self, "kill lease takes DATABASE and LEASE, or --addr");
        if (v->address)
                r = resolve_address(self, v->address, &v->order);
        else if ((size_t)snprintf(request->database, sizeof(request->database), "%s", words[0]) >=
                 sizeof(request->database))
                r = usage_error(self, "`%s` is longer than any database's name", words[0]);
        else
                r = resolve_number(self, words[1], &v->order);
        return r ? r : admin_order(self, &v->order);
}

static int kill_session(const struct command *self, char **words, struct victim *v) {
        struct lessor_admin_request *request = &v->order.request;
        const char *number = v->pid ? v->pid : words[0];
        request->command = LESSOR_ADMIN_KILL_SESSION;
        request->flags = v->pid ? LESSOR_ADMIN_BY_PID : 0;
        if (v->address)
                return usage_error(self, "--addr is for leases");
        if (v->pid ? words[0] != NULL : !words[0] || words[1])
                return usage_error(self, "kill session takes SESSION, or --pid");
        if (!parse_number(number, &request->number))
                return usage_error(self, "`%s` is no number of a %s", number, v->pid ? "process" : "session");
        return admin_order(self, &v->order);
}

static int run(const struct command *self, int argc, char **argv) {
        static const struct option options[] = {
                {"addr", required_argument, NULL, 'a'}, {"pid", required_argument, NULL, 'p'}, ADMIN_OPTIONS, {0}};
        struct victim v = {0};
        int option;
        while ((option = command_option(self, argc, argv, options)) >= 0) {
                if (option == 'a')
                        v.address = optarg;
                else if (option == 'p')
                        v.pid = optarg;
                else if (!admin_option(&v.order, option, optarg))
                        return option == 'h' ? EXIT_FIGURES : EXIT_USAGE;
        }
        if (argv[optind] && strcmp(argv[optind], "lease") == 0)
                return kill_lease(self, argv + optind + 1, &v);
        if (argv[optind] && strcmp(argv[optind], "session") == 0)
                return kill_session(self, argv + optind + 1, &v);
        return usage_error(self, argv[optind] ? "a lease or a session, not `%s`" : "a lease or a session?",
                           argv[optind]);
}

const struct command command_kill = {
        .name = "kill",
        .arguments = "lease DATABASE LEASE | lease --addr A:P | session SESSION | session --pid PID",
        .summary = "cuts a lease off, or ends a worker's session and takes back what it held",
        .help = "  --addr A:P        the lease of the connection that Redis knows by this address (CLIENT LIST, "
                "SLOWLOG)\n"
                "  --pid PID         all sessions of a process\n" ADMIN_HELP "\n"
                "`lessor leases` shows the numbers. The worker's next command on a lease that was cut off fails; the\n"
                "connection is closed and replaced. A worker whose session was ended attaches again with its next\n"
                "request. A lease that is parked is taken back without harm. " ADMIN_EXIT,
        .run = run,
};

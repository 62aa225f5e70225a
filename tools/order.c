/* SPDX-License-Identifier: MIT */
/*
 * `lessor reload` and `lessor shutdown`. By orders and not by signals: a signal goes to the pid that a status segment
 * names, which anybody may have written; an order goes to the broker, and is answered.
 */
#include "admin.h"

#include <base/clock.h>

#define STOP_NS (30 * NS_PER_S)

static void pause_a_little(void) { nanosleep(&(struct timespec){.tv_nsec = 10 * (long)NS_PER_MS}, NULL); }

/* It has said that it stops: until its segment is gone, or another's. */
static int wait_for_end(const struct command *self, const struct lessor_status *s) {
        for (uint64_t end = clock_now() + STOP_NS; clock_now() < end; pause_a_little())
                if (lessor_status_replaced(s))
                        return EXIT_FIGURES;
        fprintf(stderr, "lessor %s: the broker, pid %d, has not ended within %u s\n", self->name,
                s->constants.broker_pid, (unsigned)(STOP_NS / NS_PER_S));
        return EXIT_LATER;
}

static int shut_down(const struct command *self, struct order *order) {
        struct lessor_status s;
        bool seen = lessor_status_open(order->instance, &s) == 0;
        int r = admin_order(self, order);
        if (seen && r == EXIT_FIGURES)
                r = wait_for_end(self, &s);
        if (seen)
                lessor_status_close(&s);
        return r;
}

static int run(const struct command *self, int argc, char **argv) {
        bool reloads = self == &command_reload, cut = false;
        struct order order = {.request = {.command = reloads ? LESSOR_ADMIN_RELOAD : LESSOR_ADMIN_SHUTDOWN}};
        const struct command_flag flags[] = {{"cut", .on = &cut}, ADMIN_FLAGS(order), {0}};
        int r = command_flags(self, argc, argv, flags + reloads, NULL);
        if (r != COMMAND_RUN)
                return r;
        order.request.flags = cut ? LESSOR_ADMIN_CUT : 0;
        return reloads ? admin_order(self, &order) : shut_down(self, &order);
}

const struct command command_reload = {
        .name = "reload",
        .arguments = "[--json] [--instance NAME]",
        .summary = "makes the broker read its configuration again, and says whether it took it over",
        .help = ADMIN_HELP
        "\n"
        "The configuration is checked whole before anything changes; what is wrong with it is said here, what\n"
        "has changed in the broker's log. Leases that are held are not disturbed. SIGHUP does the same, without\n"
        "an answer. Only root and the broker's own user may. Exit: 0 reloaded, 1 refused, 2 no living broker,\n"
        "64 usage, 71 other trouble, 75 the broker is busy or late, 77 this user may not.\n",
        .run = run,
};

const struct command command_shutdown = {
        .name = "shutdown",
        .arguments = "[--cut] [--json] [--instance NAME]",
        .summary = "stops the broker; leases that are held go on unless --cut ends them",
        .help = "  --cut             end the connections of all leases, too\n" ADMIN_HELP "\n"
                "Said again, with --cut, it makes a cut of a stop that is under way. SIGTERM and SIGQUIT do the same. "
                "Only\n"
                "root and the broker's own user may. Exit: 0 it has stopped, 2 no living broker, 64 usage, 71 other\n"
                "trouble, 75 it has not ended yet, 77 this user may not.\n",
        .run = run,
};

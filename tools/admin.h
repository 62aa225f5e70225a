/* SPDX-License-Identifier: MIT */
#pragma once
/* An order to the broker (lessor/admin.h), and what to say and to return when it has been answered, or cannot be. */
#include <lessor/admin.h>
#include <lessor/status.h>

#include "cli.h"

struct order {
        const char *instance; /* NULL: as usual */
        bool json;
        struct lessor_admin_request request; /* command, flags, number, database, why */
};

/*
 * Sends the order and waits for its answer (10 s at most). 0: *ret; -ENOENT, -ECONNREFUSED no broker takes orders here;
 * -EACCES this user may not; -EPIPE it ended before it answered; -ETIMEDOUT; other -errno.
 */
int admin_ask(const struct order *order, struct lessor_admin_answer *ret);

/* Asks, tells by text or as JSON, and returns the exit code. */
int admin_order(const struct command *self, struct order *order);

#define ADMIN_FLAGS(order)                                                                                             \
        {"json", .on = &(order).json}, { "instance", .value = &(order).instance }
/* Where words follow: true when `option` was one of --why, --json, --instance. */
#define ADMIN_OPTIONS                                                                                                  \
        {"json", no_argument, NULL, 'j'}, {"instance", required_argument, NULL, 'i'}, { "help", no_argument, NULL, 'h' }
bool admin_option(struct order *order, int option, const char *value);

/* For the help texts. */
#define ADMIN_HELP                                                                                                     \
        "  --json            one object {command, outcome, done, text, ...}\n"                                         \
        "  --instance NAME   another broker than $LESSOR_INSTANCE, or `default`\n"
#define ADMIN_EXIT                                                                                                     \
        "Only root and the broker's own user may. Exit: 0 done, 1 refused (no such database, lease or session),\n"     \
        "2 no living broker, 64 usage, 71 other trouble, 75 the broker is busy or late, 77 this user may not.\n"

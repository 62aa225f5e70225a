/* SPDX-License-Identifier: MIT */
#pragma once
/* Orders to a broker, by `lessor` and by datagrams of our own. */
#include <stdarg.h>

#include <lessor/admin.h>

#include "broker.h"

enum { ORDER_MS = 30000 };

/* `lessor WORDS... --instance ...`: its exit status; *ret_said (may be NULL) what it printed, for free(). At most 8 words, then NULL. */
int order(const struct broker *, char **ret_said, ...) __attribute__((sentinel));
/* Likewise; fails the test unless it exits so, and says that. */
void check_order(const struct broker *, int status, const char *says, ...) __attribute__((sentinel));

/* A client of lessor/admin.h: a socket whose address ends in `name`, connected to the broker; or -errno. */
int orders_open(const struct broker *, const char *name);
struct lessor_admin_request orders_request(enum lessor_admin_command command, const char *database);
/* Sends and waits for the answer: its outcome, or -errno. */
int orders_ask(int socket, const struct lessor_admin_request *, struct lessor_admin_answer *ret);
int orders_wait(int socket, struct lessor_admin_answer *ret);

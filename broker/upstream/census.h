/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Asks a server for its COMMAND list, on a connection fresh from the dial that nobody else has touched, within the
 * target's connect timeout.
 */
#include <event2/event.h>

#include "handshake.h"

struct census;

/* reply: NULL, the connection is good for nothing; else whatever came, and nothing after it. It is freed afterwards. */
typedef void census_done(void *userdata, const redisReply *reply);

/* `done` is called once, from the loop, never from within census_start(); the census is freed after. fd is borrowed. 0; -ENOMEM. */
int census_start(struct event_base *base, int fd, const struct upstream_target *target, census_done *done,
                 void *userdata, struct census **ret);
void census_cancel(struct census *census); /* NULL ok; `done` is not called */

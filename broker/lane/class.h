/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * May a command share a connection with other people's? Pure.
 *
 * What the server says of its own commands (the reply to COMMAND, in RESP2: of Redis 7 with subcommands, of Redis 6 with
 * ACL categories, of older ones with flags alone) becomes a table to look up by name. A built-in list has the last word
 * for what must never be sent there, since no version of Redis says it all: WAIT is no blocking command before 7.0,
 * SELECT none of the connection's in 6.0. Before the server has been asked, that list and base/command.h decide alone.
 * What neither knows goes nowhere but to a lease.
 */
#include <stdbool.h>
#include <stddef.h>

struct redisReply;

enum lane_class {
        LANE_CLASS_SAFE,        /* one reply, at once, and the connection is as before */
        LANE_CLASS_BLOCKING,    /* waits, and with it everybody's commands behind it: BLPOP, XREAD, WAIT */
        LANE_CLASS_CONNECTION,  /* changes the connection, or tells of it: SELECT, AUTH, CLIENT, HELLO, RESET */
        LANE_CLASS_TRANSACTION, /* MULTI, EXEC, DISCARD, WATCH, UNWATCH */
        LANE_CLASS_PUBSUB,      /* subscribes */
        LANE_CLASS_MONITOR, /* takes over the connection, or has no business in a lane: MONITOR, SYNC, DEBUG, all administration */
        LANE_CLASS_UNKNOWN, /* nobody knows */
};
const char *lane_class_reason(enum lane_class c); /* "blocks" ..., to be read after "the command" */

struct lane_classes; /* a server's; immutable */

/* commands: the reply to COMMAND. Entries that are malformed are left out. 0; -EPROTO: not such a reply; -ENOMEM. */
int lane_classes_new(const struct redisReply *commands, struct lane_classes **ret);
void lane_classes_free(struct lane_classes *classes);
size_t lane_classes_count(const struct lane_classes *classes);

/* name, sub: as in base/resp.h, any case; sub may be NULL. classes: NULL before the server has been asked. */
enum lane_class lane_class_of(const struct lane_classes *classes, const char *name, size_t name_len, const char *sub,
                              size_t sub_len);

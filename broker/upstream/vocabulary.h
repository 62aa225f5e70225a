/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What a server's own COMMAND reply says of commands that our table (libclient/base/command.h) does not know: modules',
 * newer servers'. Pure. Harmless is what reads or writes data and nothing else: any flag or category that speaks of the
 * connection, of transactions, subscriptions, waiting or administration, and any subcommands, rule it out.
 */
#include <stdbool.h>
#include <stddef.h>

#include <hiredis/hiredis.h>

/*
 * Puts the harmless ones among the unknown into `names`, in upper case, each with its NUL, as many as fit into `room`.
 * How many bytes that makes. False: this is no COMMAND reply.
 */
bool vocabulary_derive(const redisReply *reply, char *names, size_t room, size_t *ret_size);

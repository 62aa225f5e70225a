/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Resetting: from a connection a worker has touched to the proof that it is as good as new (proof.h), or to the reason
 * why it is not. Off every caller's path, within the target's connect timeout.
 *
 * The file description is the worker's, too: O_NONBLOCK may be off, his dup may read our answers or write into our
 * requests. So every byte goes by MSG_DONTWAIT and MSG_NOSIGNAL, a request that does not fit into the socket at once is a
 * failure, and no credential is ever sent. What he disturbs does not prove anything, and the connection is closed.
 */
#include <event2/event.h>

#include "proof.h"

struct reset;

/* why: NULL, the connection is clean; else it is to be closed. */
typedef void reset_done(void *userdata, const char *why);

/*
 * `done` is called once, from the loop, never from within reset_start(); the reset is freed before. fd and target are
 * borrowed; the socket's end is the caller's to watch. 0; -ENOMEM.
 */
int reset_start(struct event_base *base, int fd, const struct upstream_target *target, uint64_t client_id,
                const uint8_t nonce[PROOF_NONCE_SIZE], reset_done *done, void *userdata, struct reset **ret);
void reset_cancel(struct reset *reset); /* NULL ok; `done` is not called */

/* SPDX-License-Identifier: MIT */
#pragma once
/* A redisAsyncContext around a connection that is there already, with every hiredis since 0.14.1. */
#include <stdbool.h>

#include <hiredis/async.h>

/*
 * A context on `fd`, which stays the caller's, attached to no event loop. The socket is made non-blocking: the flag belongs to
 * the description, and whoever had the connection before may have cleared it. 0; -ENOMEM, other -errno.
 */
int adopt_fd(int fd, redisAsyncContext **ret);

/* hiredis frees the context without closing the fd. */
static inline void adopt_forget_fd(redisAsyncContext *ac) { ac->c.fd = -1; }

/* Not a byte was read that did not belong to a reply that is over. */
bool adopt_reader_is_empty(const redisReader *reader);

/* Of a context whose callbacks nobody wants to hear of: they are not called when it is freed. False: some cannot be reached. */
bool adopt_silence(redisAsyncContext *ac);

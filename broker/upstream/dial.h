/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Dialling: from a target to a connected, authenticated, selected, named socket, or to an error that says why not.
 *
 * The socket is made here and the answers are parsed by hiredis' redisReader, but not by redisAsyncContext: 0.14.1
 * calls assert() on a reply that nobody asked for, which would let a broken server end the broker (broker/README.md).
 */
#include <event2/event.h>

#include "handshake.h"
#include "resolver.h"

struct dial;

struct dial_result {
        int outcome;        /* LESSOR_OK, LESSOR_E_UPSTREAM, _CREDENTIALS, _LOADING, _EXHAUSTED, or -errno of ours */
        int fd;             /* LESSOR_OK: the socket, the callee's, O_NONBLOCK and CLOEXEC; else -1 */
        uint64_t client_id; /* 0: the server has none */
        char local[LESSOR_NAME_SIZE];
        enum lessor_trouble trouble; /* what kind of failure; _NONE */
        char text[LESSOR_STATUS_TEXT_SIZE];
};

typedef void dial_done(void *userdata, const struct dial_result *result);

/* `done` is called once, from the loop, never from within dial_start(); the dial is freed before. target is borrowed. 0; -errno. */
int dial_start(struct event_base *base, struct resolver *resolver, const struct upstream_target *target,
               dial_done *done, void *userdata, struct dial **ret);
void dial_cancel(struct dial *dial); /* NULL ok; `done` is not called */

/* SPDX-License-Identifier: MIT */
#pragma once
/* A pipe from the inside: what was added, as one piece, and what its replies mean. */
#include <stddef.h>

#include <lessor.h>

struct lessor_pipe {
        lessor_db *db;
        unsigned flags;
        char *data;
        size_t size, room;
        size_t *ends; /* of each request in data */
        size_t n, n_room;
};

/* Nothing was added. */
static inline bool pipe_is_empty(const lessor_pipe *p) { return p->n == (p->flags & LESSOR_ATOMIC ? 1 : 0); }
/* EXEC at the end of an atomic one; 0, -ENOMEM. Only before it is sent. */
int pipe_close(lessor_pipe *p);
/* Room once had is kept, so that this cannot fail but the first time. */
int pipe_clear(lessor_pipe *p);
/* The replies to all that was sent become those to what was added: 0, and the first *n of them; or the code of *error (NULL ok). */
int pipe_unfold(unsigned flags, redisReply **replies, size_t *n, lessor_error *error);

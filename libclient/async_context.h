/* SPDX-License-Identifier: MIT */
#pragma once
/* A lease as a redisAsyncContext on somebody's event loop. */
#include <lessor/async.h>

#include "base/list.h"
#include "lease.h"

/* What the contexts of one owner have in common. They may outlive it: async_contexts_forget(). */
struct async_contexts {
        struct list list;
        void *owner;
        /* Attaches a context to the loop, by hiredis' adapter for it: REDIS_OK, or not. */
        int (*attach)(void *data, redisAsyncContext *ac);
        void *attach_data;
        /* Gives back, without waiting, a lease whose context has ended. */
        void (*give)(void *owner, struct lessor_lease *l);
};

/*
 * A context on the lease's connection: 0, and the lease is the context's, given back when that ends, whichever way. Else the
 * code of *error, and the lease is still the caller's: LESSOR_E_CONNECTION when the connection has ended meanwhile.
 */
int async_context_new(struct async_contexts *contexts, struct lessor_lease *l, redisAsyncContext **ret,
                      lessor_error *error);
/* The owner goes; not in a child. What is still out goes on working, and is given back by lease_give(). */
void async_contexts_forget(struct async_contexts *contexts);

/* SPDX-License-Identifier: MIT */
/* A lease asked for from a loop, as a context on it. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "async_core.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "error.h"
#include "lease.h"

struct acquire {
        struct async_ask ask;
        lessor_async_lease_fn *fn;
        void *data;
        unsigned dead; /* connections that had ended when they came */
};
enum { DEAD_MAX = 8 };

static void acquire_again(struct acquire *x) {
        struct request request = x->ask.request;
        uint64_t left = time_left(clock_now(), x->ask.deadline) / NS_PER_MS;

        request.wait_ms = left < INT_MAX ? (int)left : INT_MAX;
        async_ask(&x->ask, &request);
}

static void acquire_answered(struct async_ask *ask, struct lessor_lease *lease, const lessor_error *answer) {
        struct acquire *x = container_of(ask, struct acquire, ask);
        lessor_async *a = ask->db->async;
        redisAsyncContext *context = NULL;
        lessor_error error = *answer;

        if (lease && async_context_new(&a->contexts, lease, &context, &error) != 0) {
                lease->broken = error.code;
                async_give(a, lease);
                if (error.code == LESSOR_E_CONNECTION && !a->ended && x->dead++ < DEAD_MAX) {
                        acquire_again(x);
                        return;
                }
        }
        x->fn(ask->db, context, &error, x->data);
        free(x);
}

void acquire_forget(struct async_ask *ask) { free(container_of(ask, struct acquire, ask)); }

static int acquire(lessor_async_db *db, const struct request *request, lessor_async_lease_fn *fn, void *data) {
        int r = async_check(db, request->wait_ms, 0);
        struct acquire *x;

        if (r != 0)
                return r;
        if (!fn || !db->async->adapter.attach)
                return LESSOR_E_INVALID;
        x = calloc(1, sizeof(*x));
        if (!x)
                return -ENOMEM;
        x->fn = fn;
        x->data = data;
        x->ask = (struct async_ask){.db = db, .answered = acquire_answered, .data = data, .own = true};
        async_ask(&x->ask, request);
        async_changed(db->async);
        return 0;
}

int lessor_async_acquire_at(lessor_async_db *db, int wait_ms, lessor_async_lease_fn *fn, void *data, const char *file,
                            int line) {
        NO_CANCEL;
        return acquire(db, &(struct request){.wait_ms = wait_ms, .site = {.file = file, .line = line}}, fn, data);
}

int lessor_async_acquire_pinned_at(lessor_async_db *db, int wait_ms, lessor_async_lease_fn *fn, void *data,
                                   const char *file, int line) {
        NO_CANCEL;
        return acquire(db, &(struct request){.wait_ms = wait_ms, .pinned = true, .site = {.file = file, .line = line}},
                       fn, data);
}

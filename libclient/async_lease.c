/* SPDX-License-Identifier: MIT */
/* lessor_async_acquire(): asked for like any other lease from a loop (async_ask.c), handed out as a context. */
#include <errno.h>
#include <stdlib.h>

#include "async_core.h"
#include "base/cleanup.h"
#include "error.h"
#include "lease.h"

struct acquisition {
        struct async_ask ask;
        lessor_async_lease_fn *fn;
        void *data;
};

/* A context that could not be made has used nothing of the connection. */
static void acquired(struct async_ask *ask, struct lessor_lease *l, const lessor_error *error) {
        struct acquisition q = *container_of(ask, struct acquisition, ask);
        lessor_async_db *db = ask->db;
        redisAsyncContext *ac = NULL;
        lessor_error trouble = *error;

        free(container_of(ask, struct acquisition, ask));
        if (l && async_context_new(db->async, l, &ac, &trouble) != 0)
                async_give(db->async, l);
        q.fn(db, ac, &trouble, q.data);
}

static int acquire(lessor_async_db *db, const struct request *request, lessor_async_lease_fn *fn, void *data) {
        NO_CANCEL;
        int r = fn ? async_check(db, request->wait_ms, 0) : LESSOR_E_INVALID;
        struct acquisition *q;

        if (r != 0)
                return r;
        if (!db->async->adapter.attach)
                return LESSOR_E_INVALID;
        q = calloc(1, sizeof(*q));
        if (!q)
                return -ENOMEM;
        q->ask = (struct async_ask){.db = db, .answered = acquired, .data = data, .own = true};
        q->fn = fn;
        q->data = data;
        async_ask(&q->ask, request);
        async_changed(db->async);
        return 0;
}

static void acquisitions_free(struct list *asks) {
        list_for_each_safe (asks, it, next) {
                struct async_ask *ask = container_of(it, struct async_ask, link);
                if (ask->own)
                        free(container_of(ask, struct acquisition, ask));
        }
}

void async_leases_free(lessor_async *a) {
        acquisitions_free(&a->asks);
        acquisitions_free(&a->answered);
}

int lessor_async_acquire_at(lessor_async_db *db, int wait_ms, lessor_async_lease_fn *fn, void *data, const char *file,
                            int line) {
        return acquire(db, &(struct request){.wait_ms = wait_ms, .site = {.file = file, .line = line}}, fn, data);
}

int lessor_async_acquire_pinned_at(lessor_async_db *db, int wait_ms, lessor_async_lease_fn *fn, void *data,
                                   const char *file, int line) {
        return acquire(db, &(struct request){.wait_ms = wait_ms, .pinned = true, .site = {.file = file, .line = line}},
                       fn, data);
}

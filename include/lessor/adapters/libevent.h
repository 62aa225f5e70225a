/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A lessor_async in a loop of libevent. Header-only: whoever includes it links libevent (event_core).
 *
 *      lessor_libevent_attach(a, base);        // lessor_async_free() undoes it: before event_base_free()
 *      event_base_dispatch(base);              // returns when nothing is under way any more
 */
#include <errno.h>
#include <stdlib.h>

#include <event2/event.h>
#include <hiredis/adapters/libevent.h>

#include <lessor/async.h>

struct lessor_libevent {
        lessor_async *async;
        struct event_base *base;
        struct event *event;
};

static inline void lessor_libevent_ready(evutil_socket_t fd, short events, void *data) {
        (void)fd;
        (void)events;
        lessor_async_dispatch(((struct lessor_libevent *)data)->async);
}

static inline int lessor_libevent_context(void *data, redisAsyncContext *context) {
        return redisLibeventAttach(context, ((struct lessor_libevent *)data)->base);
}

static inline void lessor_libevent_busy(void *data, bool busy) {
        struct lessor_libevent *l = (struct lessor_libevent *)data;
        if (busy)
                event_add(l->event, NULL);
        else
                event_del(l->event);
}

static inline void lessor_libevent_cleanup(void *data) {
        struct lessor_libevent *l = (struct lessor_libevent *)data;
        event_free(l->event);
        free(l);
}

/* 0, -ENOMEM, or as lessor_async_set_adapter(). Free the lessor_async before the base. */
static inline int lessor_libevent_attach(lessor_async *async, struct event_base *base) {
        struct lessor_libevent *l = (struct lessor_libevent *)malloc(sizeof(*l));
        struct lessor_async_adapter adapter;
        int r;

        if (!l)
                return -ENOMEM;
        l->async = async;
        l->base = base;
        l->event = event_new(base, lessor_async_fd(async), EV_READ | EV_PERSIST, lessor_libevent_ready, l);
        if (!l->event) {
                free(l);
                return -ENOMEM;
        }
        adapter.data = l;
        adapter.attach = lessor_libevent_context;
        adapter.busy = lessor_libevent_busy;
        adapter.cleanup = lessor_libevent_cleanup;
        r = lessor_async_set_adapter(async, &adapter);
        if (r != 0)
                lessor_libevent_cleanup(l);
        return r;
}

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * lessor/async.h on libev. Header-only; whoever includes it links -lev.
 *
 *      lessor_async_new(l, &async);
 *      lessor_libev_attach(EV_DEFAULT_ async);         // without multiplicity: lessor_libev_attach(async)
 *      ... lessor_async_command(...) ...
 *      ev_run(EV_DEFAULT_ 0);                          // ends when nothing is under way any more
 *      lessor_async_free(async);                       // before the loop is destroyed
 */
#include <errno.h>
#include <stdlib.h>

#include <ev.h>
#include <hiredis/adapters/libev.h>

#include <lessor/async.h>

struct lessor_libev {
        ev_io readable;
        lessor_async *async;
        struct ev_loop *loop;
};

static inline void lessor_libev_readable(EV_P_ ev_io *w, int revents) {
#if EV_MULTIPLICITY
        (void)loop;
#endif
        (void)revents;
        lessor_async_dispatch(((struct lessor_libev *)w->data)->async);
}

static inline void lessor_libev_busy(void *data, bool busy) {
        struct lessor_libev *e = (struct lessor_libev *)data;
#if EV_MULTIPLICITY
        struct ev_loop *loop = e->loop;
#endif
        if (busy)
                ev_io_start(EV_A_ & e->readable);
        else
                ev_io_stop(EV_A_ & e->readable);
}

static inline int lessor_libev_context(void *data, redisAsyncContext *ac) {
#if EV_MULTIPLICITY
        struct ev_loop *loop = ((struct lessor_libev *)data)->loop;
#else
        (void)data;
#endif
        return redisLibevAttach(EV_A_ ac);
}

static inline void lessor_libev_cleanup(void *data) {
        lessor_libev_busy(data, false);
        free(data);
}

/* 0; -ENOMEM; what lessor_async_set_adapter() says. */
static inline int lessor_libev_attach(EV_P_ lessor_async *async) {
        struct lessor_libev *e = (struct lessor_libev *)calloc(1, sizeof(*e));
        struct lessor_async_adapter adapter = {e, lessor_libev_context, lessor_libev_busy, lessor_libev_cleanup};
        int r;

        if (!e)
                return -ENOMEM;
#if EV_MULTIPLICITY
        e->loop = loop;
#endif
        e->async = async;
        ev_io_init(&e->readable, lessor_libev_readable, lessor_async_fd(async), EV_READ);
        e->readable.data = e;
        r = lessor_async_set_adapter(async, &adapter);
        if (r != 0)
                free(e);
        return r;
}

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * lessor/async.h on libuv. Header-only; whoever includes it links -luv.
 *
 *      lessor_async_new(l, &async);
 *      lessor_libuv_attach(async, uv_default_loop());
 *      ... lessor_async_command(...) ...
 *      uv_run(uv_default_loop(), UV_RUN_DEFAULT);      // ends when nothing is under way any more
 *      lessor_async_free(async);                       // before the loop is closed, and ...
 *      uv_run(uv_default_loop(), UV_RUN_DEFAULT);      // ... libuv wants to close its handles in a turn of the loop
 */
#include <errno.h>
#include <stdlib.h>

#include <hiredis/adapters/libuv.h>
#include <uv.h>

#include <lessor/async.h>

struct lessor_libuv {
        uv_poll_t readable;
        uv_loop_t *loop;
        lessor_async *async;
};

/* An error of the poll is told by the dispatch, which reads what is polled. */
static inline void lessor_libuv_readable(uv_poll_t *handle, int status, int events) {
        (void)status;
        (void)events;
        lessor_async_dispatch(((struct lessor_libuv *)handle->data)->async);
}

static inline void lessor_libuv_busy(void *data, bool busy) {
        struct lessor_libuv *e = (struct lessor_libuv *)data;
        if (busy)
                uv_poll_start(&e->readable, UV_READABLE, lessor_libuv_readable);
        else
                uv_poll_stop(&e->readable);
}

/*
 * When a connection breaks with an error libuv stops its poll and says so by `status`, which hiredis' adapter does not look
 * at: nobody would ever be told. So it is polled for hiredis, and hiredis reads the error.
 */
static inline void lessor_libuv_poll(uv_poll_t *handle, int status, int events) {
        redisLibuvEvents *e = (redisLibuvEvents *)handle->data;
        if (status == 0)
                redisLibuvPoll(handle, status, events);
        else if (e->context)
                redisAsyncHandleRead(e->context);
}

static inline void lessor_libuv_polled(redisLibuvEvents *e) {
        if (e->events)
                uv_poll_start(&e->handle, e->events, lessor_libuv_poll);
}

static inline void lessor_libuv_add_read(void *data) {
        redisLibuvAddRead(data);
        lessor_libuv_polled((redisLibuvEvents *)data);
}

static inline void lessor_libuv_del_read(void *data) {
        redisLibuvDelRead(data);
        lessor_libuv_polled((redisLibuvEvents *)data);
}

static inline void lessor_libuv_add_write(void *data) {
        redisLibuvAddWrite(data);
        lessor_libuv_polled((redisLibuvEvents *)data);
}

static inline void lessor_libuv_del_write(void *data) {
        redisLibuvDelWrite(data);
        lessor_libuv_polled((redisLibuvEvents *)data);
}

static inline int lessor_libuv_context(void *data, redisAsyncContext *ac) {
        if (redisLibuvAttach(ac, ((struct lessor_libuv *)data)->loop) != REDIS_OK)
                return REDIS_ERR;
        ac->ev.addRead = lessor_libuv_add_read;
        ac->ev.delRead = lessor_libuv_del_read;
        ac->ev.addWrite = lessor_libuv_add_write;
        ac->ev.delWrite = lessor_libuv_del_write;
        return REDIS_OK;
}

static inline void lessor_libuv_closed(uv_handle_t *handle) { free(handle->data); }

static inline void lessor_libuv_cleanup(void *data) {
        uv_close((uv_handle_t *)&((struct lessor_libuv *)data)->readable, lessor_libuv_closed);
}

/* 0; -ENOMEM, other -errno; what lessor_async_set_adapter() says. */
static inline int lessor_libuv_attach(lessor_async *async, uv_loop_t *loop) {
        struct lessor_libuv *e = (struct lessor_libuv *)calloc(1, sizeof(*e));
        struct lessor_async_adapter adapter = {e, lessor_libuv_context, lessor_libuv_busy, lessor_libuv_cleanup};
        int r;

        if (!e)
                return -ENOMEM;
        e->loop = loop;
        e->async = async;
        r = uv_poll_init(loop, &e->readable, lessor_async_fd(async)); /* on Unix libuv's errors are -errno */
        if (r != 0) {
                free(e);
                return r;
        }
        e->readable.data = e;
        r = lessor_async_set_adapter(async, &adapter);
        if (r != 0)
                lessor_libuv_cleanup(e);
        return r;
}

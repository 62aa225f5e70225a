/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * liblessor in an event loop: nothing here waits. Answers come by callback, from the loop:
 *
 *      lessor_async_new(l, &a);                                        // no I/O yet
 *      lessor_libevent_attach(a, base);                                // <lessor/adapters/libevent.h>; libev.h, libuv.h
 *      lessor_async_database(a, NULL, &db);                            // "main"
 *      lessor_async_command(db, got, data, "GET %s", key);             // as many as you like: see LESSOR_E_EXHAUSTED
 *
 *      void got(lessor_async_db *db, redisReply *reply, const lessor_error *e, void *data) {
 *              if (!reply)
 *                      warn("%s (may have run: %d)", e->text, e->may_have_run);
 *      }                                                               // the reply is freed for you
 *
 * With a loop of one's own: watch lessor_async_fd() for reading, and call lessor_async_dispatch() when it is readable.
 *
 * CALLBACKS. Each is called exactly once, from lessor_async_dispatch() or lessor_async_free(), never from within the call that
 * asked for it. In a callback everything is allowed, lessor_async_free() too.
 * ORDER. The commands of one lessor_async to one database run in the order in which they were submitted, pipelines too. They go
 * by lane or by a borrowed connection, as lessor_command() does: which is better, the broker knows. Behind one that blocks (BLPOP) those
 * that follow wait, and its reply is waited for no longer than any: for what blocks or subscribes, lessor_async_acquire() is better.
 * Leases stand outside the order.
 * WITHOUT A BROKER what was surely never sent waits for the next one, until its deadline. What may have run is never sent again.
 * THREADS. One lessor_async belongs to one thread at a time, the loop's. A process may have several, one after the other
 * or at once, on one handle, besides the calls of lessor.h, which wait: not in a loop's thread, please.
 * FORK. A lessor_async is its process' own: in a child its use is LESSOR_E_FORKED, and lessor_async_free() frees memory only, and
 * calls nothing. Make one there, on the same handle.
 */
#include <lessor.h>

#include <hiredis/async.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

typedef struct lessor_async lessor_async;
typedef struct lessor_async_db lessor_async_db; /* a database of one lessor_async */

/* Of one lessor_async, submitted and not called back yet: commands and pipelines, and the bytes of their requests. */
#define LESSOR_ASYNC_MAX 16384
#define LESSOR_ASYNC_BYTES_MAX (64 * 1024 * 1024)

/* 0; -EINVAL; -ENOMEM, -EMFILE, other -errno. Free it before lessor_close(). */
int lessor_async_new(lessor *, lessor_async **ret);
/* What is under way is given up, and called back with LESSOR_E_CANCELLED, before this returns. NULL ok. */
void lessor_async_free(lessor_async *);

/*
 * The database `name`, NULL for "main". No I/O: that there is none of that name is told to each call's callback
 * (LESSOR_E_UNKNOWN_DATABASE; the text lists those known). 0, LESSOR_E_INVALID, LESSOR_E_FORKED, -ENOMEM. *ret lives as long as the
 * lessor_async; the same name gives the same pointer.
 */
int lessor_async_database(lessor_async *, const char *name, lessor_async_db **ret);
lessor_async *lessor_async_of(const lessor_async_db *);

/*
 * reply: freed when the callback returns; an error of Redis is a reply of type REDIS_REPLY_ERROR. NULL: see *error, whose code is 0
 * otherwise; it ends with the callback, too.
 */
typedef void lessor_async_fn(lessor_async_db *, redisReply *reply, const lessor_error *error, void *data);

/*
 * 0: the callback will be called (it may be NULL: nobody wants to know). Else it will not: LESSOR_E_INVALID, LESSOR_E_FORKED, -ENOMEM;
 * LESSOR_E_EXHAUSTED: LESSOR_ASYNC_MAX or LESSOR_ASYNC_BYTES_MAX are under way, go on from a callback. (A single command may
 * be larger, when nothing else is under way.) Everything else comes by callback. wait_ms (LESSOR_WAIT_CONFIGURED, as
 * lessor_async_command() has it): until when it may wait to be sent; the reply's time is the database's socket_timeout.
 */
int lessor_async_command(lessor_async_db *, lessor_async_fn *, void *data, const char *fmt, ...);
int lessor_async_command_argv(lessor_async_db *, int wait_ms, lessor_async_fn *, void *data, int argc,
                              const char **argv, const size_t *argv_len);

/*
 * Several commands as one: lessor_pipe_add(), _add_argv() and _free() of lessor.h fill and free it, lessor_async_pipeline() takes what was
 * added, and the pipe is empty again (but when it returns not 0: then nothing has changed). The replies, n of them, as of
 * lessor_pipe_run(); freed when the callback returns. NULL: see *error. n is 0 and error->code 0 of an empty pipe.
 */
typedef void lessor_async_pipe_fn(lessor_async_db *, redisReply **replies, size_t n, const lessor_error *error,
                                  void *data);
lessor_pipe *lessor_async_pipe_new(lessor_async_db *, unsigned flags); /* NULL: out of memory, or an unknown flag */
int lessor_async_pipeline(lessor_async_db *, lessor_pipe *, int wait_ms, lessor_async_pipe_fn *, void *data);

/*
 * One connection, exclusively, as a redisAsyncContext that is connected and attached to the loop: needs an adapter below
 * (LESSOR_E_INVALID without one). Given back by lessor_async_release(), at once or when the callback returns in which it is said; what is
 * still under way on it, or subscribed to, ends with it, and is called back as redisAsyncFree() does. The library has seen what was
 * sent, and whether it was answered: a connection that was left clean is handed on as it is, else it is reset or replaced.
 *
 * When the connection ends, hiredis says so by the disconnect callback and frees the context, and the lease is over: no release
 * after that. redisAsyncFree() and redisAsyncDisconnect() end it likewise. Contexts outlive lessor_async_free() and lessor_close().
 * In a child they have lost their fd, and their release frees memory only. hiredis writes to them: ignore SIGPIPE.
 */
typedef void lessor_async_lease_fn(lessor_async_db *, redisAsyncContext *, const lessor_error *error, void *data);
int lessor_async_acquire_at(lessor_async_db *, int wait_ms, lessor_async_lease_fn *, void *data, const char *file,
                            int line);
#define lessor_async_acquire(db, wait_ms, fn, data)                                                                    \
        lessor_async_acquire_at((db), (wait_ms), (fn), (data), __FILE__, __LINE__)
/* Likewise for one that will block for long: see lessor_acquire_pinned(). */
int lessor_async_acquire_pinned_at(lessor_async_db *, int wait_ms, lessor_async_lease_fn *, void *data,
                                   const char *file, int line);
#define lessor_async_acquire_pinned(db, wait_ms, fn, data)                                                             \
        lessor_async_acquire_pinned_at((db), (wait_ms), (fn), (data), __FILE__, __LINE__)
void lessor_async_release(redisAsyncContext *);

/*
 * Takes back what was asked for with this data and is not called back yet; how many that were. Each is called back all the same, from
 * the loop, with LESSOR_E_CANCELLED, which says whether it may have run.
 */
unsigned lessor_async_cancel(lessor_async *, const void *data);
unsigned lessor_async_in_flight(const lessor_async *); /* asked for, and not called back */

/* Readable when there is something to do, deadlines included. The lessor_async's: watch it, no more. -1 in a forked child. */
int lessor_async_fd(const lessor_async *);
/* Does it, but not all at once: the fd stays readable while there is more. Not from within a callback (nothing happens). */
void lessor_async_dispatch(lessor_async *);

/*
 * How a loop is told, by adapters. All may be NULL. attach: makes the loop serve a context, by hiredis' own adapter; REDIS_OK.
 * busy: something is under way, or nothing is, at first and whenever that changes; so a loop ends by itself when it has nothing else to do.
 * cleanup: the lessor_async is freed, or has another adapter; the last call.
 */
struct lessor_async_adapter {
        void *data;
        int (*attach)(void *data, redisAsyncContext *);
        void (*busy)(void *data, bool);
        void (*cleanup)(void *data);
};
/* 0, LESSOR_E_INVALID, LESSOR_E_FORKED. *adapter is copied; NULL: none any more. */
int lessor_async_set_adapter(lessor_async *, const struct lessor_async_adapter *);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

/* SPDX-License-Identifier: MIT */
/*
 * hiredis 1.0 has REDIS_CONN_USERFD for this. Before, there was no way but its public fields: a context whose connecting failed
 * at once has no fd; it is given one, and what says that it failed is taken back. Which of the two is chosen when this is
 * configured (LESSOR_HIREDIS_USERFD).
 *
 * Not REDIS_OPT_NOAUTOFREE, which also came with 1.0: with it a context would outlive its connection, without it it does
 * not; a program must not need to know which hiredis it runs with.
 */
#include "adopt.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#ifdef LESSOR_HIREDIS_USERFD
static const redisReadTask *first_task(const redisReader *reader) { return reader->task[0]; }

static redisAsyncContext *adopt_new(int fd) {
        redisOptions options = {.type = REDIS_CONN_USERFD, .endpoint.fd = fd};
        return redisAsyncConnectWithOptions(&options);
}
#else
static const redisReadTask *first_task(const redisReader *reader) { return &reader->rstack[0]; }

static redisAsyncContext *adopt_new(int fd) {
        /* No Redis, and never one. The socket that hiredis opens for it, and closes, is not CLOEXEC meanwhile. */
        redisAsyncContext *ac = redisAsyncConnectUnix("/");

        if (!ac || ac->c.fd >= 0)
                return ac;
        ac->c.fd = fd;
        ac->c.err = ac->err = 0;
        memset(ac->c.errstr, 0, sizeof(ac->c.errstr));
        ac->errstr = NULL;
        return ac;
}
#endif

static int set_nonblocking(int fd) {
        int flags = fcntl(fd, F_GETFL);

        if (flags < 0 || (!(flags & O_NONBLOCK) && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0))
                return -errno;
        return 0;
}

int adopt_fd(int fd, redisAsyncContext **ret) {
        int r = set_nonblocking(fd);
        redisAsyncContext *ac;

        if (r < 0)
                return r;
        ac = adopt_new(fd);
        if (!ac)
                return -ENOMEM;
        if (ac->err || ac->c.fd != fd) { /* hiredis ran out of memory, or of fds, on its way to failing */
                if (ac->c.fd == fd)
                        adopt_forget_fd(ac);
                redisAsyncFree(ac);
                return -ENOMEM;
        }
        /* Who is told of it has a connection: its end will be told to the disconnect callback, not to the connect callback. */
        ac->c.flags |= REDIS_CONNECTED;
        *ret = ac;
        return 0;
}

/* hiredis begins a next reply when it looks for one, before there is anything of it. */
bool adopt_reader_is_empty(const redisReader *reader) {
        return reader->pos == reader->len &&
               (reader->ridx == -1 || (reader->ridx == 0 && first_task(reader)->type < 0));
}

bool adopt_silence(redisAsyncContext *ac) {
        for (redisCallback *cb = ac->replies.head; cb; cb = cb->next)
                cb->fn = NULL;
        ac->onDisconnect = NULL;
        /* Those of subscriptions stand in a table of hiredis' own. */
        return !(ac->c.flags & (REDIS_SUBSCRIBED | REDIS_MONITORING));
}

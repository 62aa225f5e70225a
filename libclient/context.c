/* SPDX-License-Identifier: MIT */
/*
 * The connection as a redisContext. hiredis then reads and writes it in its own way, blocking, with the socket's
 * timeouts; both belong to the file description, so they are set here and not trusted to be as they were. The context
 * and our own I/O share one parser: whichever reads first, no byte is lost between them.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "error.h"
#include "lease.h"

/* hiredis' deadline is the kernel's, which starts anew with every byte; good enough for what is raw anyway. */
static void context_timeout(struct lessor_lease *l) {
        struct timeval t = {0}; /* for ever */

        if (!l->context)
                return;
        if (l->timeout_ns != TIME_NEVER) {
                uint64_t us = l->timeout_ns / NS_PER_US > 0 ? l->timeout_ns / NS_PER_US : 1;
                t.tv_sec = (time_t)(us / 1000000);
                t.tv_usec = (suseconds_t)(us % 1000000);
        }
        setsockopt(l->stream.fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
        setsockopt(l->stream.fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t));
}

static bool context_blocking(int fd) {
        int flags = fcntl(fd, F_GETFL);
        return flags >= 0 && (!(flags & O_NONBLOCK) || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == 0);
}

redisContext *lessor_context(lessor_lease *l) {
        redisContext *c;

        if (lease_check(l, "lessor_context", NULL) != 0)
                return NULL;
        if (l->context)
                return l->context;
        if (!context_blocking(l->stream.fd))
                return NULL;
        c = redisConnectFd(l->stream.fd);
        if (!c || c->err) {
                if (c)
                        redisFreeKeepFd(c);
                return NULL;
        }
        if (l->stream.reader) {
                redisReaderFree(c->reader);
                c->reader = l->stream.reader;
        }
        l->stream.reader = c->reader;
        l->stream.poll_only = true;
        l->context = c;
        l->touched = true;
        context_timeout(l);
        guard_set_context(l->guard, l, c);
        return c;
}

void lessor_lease_set_timeout(lessor_lease *l, int reply_ms) {
        if (!l || l->epoch != fork_epoch())
                return;
        l->touched = true;
        l->timeout_ns = reply_ms < 0 ? TIME_NEVER : (uint64_t)reply_ms * NS_PER_MS;
        context_timeout(l);
}

lessor_lease *lessor_lease_of(const redisContext *context) {
        if (!context)
                return NULL;
        fork_epoch(); /* in a child the parent's contexts are nobody's */
        return guard_lease_of(context);
}

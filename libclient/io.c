/* SPDX-License-Identifier: MIT */
/*
 * Writing and reading take turns: a pipeline larger than both socket buffers must not stop Redis, which stops reading
 * while nobody takes its replies. Replies are taken out of the buffer as they become whole, each of which starts the
 * deadline anew: a peer that sends byte by byte gets no more time than one that sends nothing.
 */
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <lessor/outcome.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "step.h"

enum {
        BUFFER_SMALL = 16 * 1024,  /* on the stack: most replies */
        BUFFER_LARGE = 256 * 1024, /* on the heap, for as long as an exchange fills the small one */
};

struct inlet {
        char small[BUFFER_SMALL];
        char *large; /* NULL until needed */
};

static void inlet_deinit(struct inlet *in) { free(in->large); }

int io_poll(int fd, short events, uint64_t deadline) {
        struct pollfd p = {.fd = fd, .events = events};

        for (;;) {
                uint64_t left = deadline == TIME_NEVER ? TIME_NEVER : time_left(clock_now(), deadline);
                struct timespec t = {.tv_sec = (time_t)(left / NS_PER_S), .tv_nsec = (long)(left % NS_PER_S)};
                int r = ppoll(&p, 1, deadline == TIME_NEVER ? NULL : &t, NULL);
                if (r > 0)
                        return p.revents;
                if (r == 0)
                        return 0;
                if (errno != EINTR)
                        return -errno;
        }
}

static int exchange_fail(struct exchange *x, int error) {
        x->error = error;
        return LESSOR_E_CONNECTION;
}

static void stream_wrote(struct stream *s, struct exchange *x, size_t n) {
        x->written += n;
        while (x->whole < x->requests && x->ends[x->whole] <= x->written) {
                x->whole++;
                s->requests++;
        }
}

/* As much as the socket takes: 0 or an error. */
static int stream_write(struct stream *s, struct exchange *x) {
        while (x->written < x->size) {
                ssize_t n = send(s->fd, x->out + x->written, x->size - x->written, MSG_DONTWAIT | MSG_NOSIGNAL);
                if (n >= 0) {
                        stream_wrote(s, x, (size_t)n);
                        if (x->written < x->size)
                                STEP("request half written");
                } else if (errno == EAGAIN || errno == EWOULDBLOCK)
                        return 0;
                else if (errno != EINTR)
                        return exchange_fail(x, errno);
        }
        return 0;
}

enum { SEND_PARTS = 64 };

/* n bytes more are sent, of the first of them first. */
static void stream_sent(struct stream *s, struct exchange *const *x, size_t n) {
        while (n > 0) {
                size_t part = (*x)->size - (*x)->written < n ? (*x)->size - (*x)->written : n;
                stream_wrote(s, *x++, part);
                n -= part;
        }
}

int stream_send(struct stream *s, struct exchange *const *x, size_t n, int *ret_error) {
        struct iovec parts[SEND_PARTS];
        struct msghdr message = {.msg_iov = parts};

        while (n > 0) {
                size_t k = n < SEND_PARTS ? n : SEND_PARTS, size = 0;
                ssize_t sent;
                for (size_t i = 0; i < k; i++) {
                        parts[i].iov_base = (void *)(uintptr_t)(x[i]->out + x[i]->written);
                        parts[i].iov_len = x[i]->size - x[i]->written;
                        size += parts[i].iov_len;
                }
                message.msg_iovlen = k;
                do
                        sent = sendmsg(s->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
                while (sent < 0 && errno == EINTR);
                if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
                        return 0;
                if (sent < 0) {
                        *ret_error = errno;
                        return LESSOR_E_CONNECTION;
                }
                stream_sent(s, x, (size_t)sent);
                if ((size_t)sent < size)
                        return 0;
                x += k;
                n -= k;
        }
        return 0;
}

/* Takes whole replies out of the buffer. */
int stream_parse(struct stream *s, struct exchange *x) {
        while (s->reader && x->got < x->expected) {
                void *reply = NULL;
                if (redisReaderGetReply(s->reader, &reply) != REDIS_OK) {
                        x->text = s->reader->errstr;
                        return s->reader->err == REDIS_ERR_OOM ? -ENOMEM : LESSOR_E_PROTOCOL;
                }
                if (!reply) {
                        if (s->reader->pos < s->reader->len)
                                STEP("reply half read");
                        return 0;
                }
                x->replies[x->got++] = reply;
                s->replies++;
        }
        return 0;
}

static int stream_feed(struct stream *s, const char *data, size_t size) {
        if (!s->reader)
                s->reader = redisReaderCreate();
        if (!s->reader || redisReaderFeed(s->reader, data, size) != REDIS_OK)
                return -ENOMEM;
        return 0;
}

int stream_receive(struct stream *s, struct exchange *x, char *buffer, size_t size) {
        ssize_t n = recv(s->fd, buffer, size, MSG_DONTWAIT);

        if (n == 0)
                return exchange_fail(x, 0);
        if (n < 0)
                return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? -EAGAIN : exchange_fail(x, errno);
        if (stream_feed(s, buffer, (size_t)n) < 0)
                return -ENOMEM;
        return (size_t)n < size ? 0 : STREAM_MORE;
}

/* What the socket has, at most one buffer of it: 0 or an error; nothing there is 0 too. */
static int stream_read(struct stream *s, struct exchange *x, struct inlet *in, int flags) {
        size_t room = in->large ? BUFFER_LARGE : BUFFER_SMALL;
        char *buffer = in->large ? in->large : in->small;
        ssize_t n = recv(s->fd, buffer, room, flags);
        int r;

        if (n == 0)
                return exchange_fail(x, 0);
        if (n < 0)
                return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : exchange_fail(x, errno);
        r = stream_feed(s, buffer, (size_t)n);
        if (r == 0 && (size_t)n == room && !in->large)
                in->large = malloc(BUFFER_LARGE); /* without it we only go on in small steps */
        return r;
}

/* One wait, and whatever it says can be done. */
static int stream_turn(struct stream *s, struct exchange *x, struct inlet *in, uint64_t deadline) {
        int events = io_poll(s->fd, x->written < x->size ? POLLIN | POLLOUT : POLLIN, deadline), r = 0;

        if (events == 0)
                return LESSOR_E_REPLY_TIMEOUT;
        if (events < 0)
                return events;
        /* Reading first: after an error or hangup there may still be replies, and why Redis closed. */
        if (events & ~POLLOUT)
                r = stream_read(s, x, in, MSG_DONTWAIT);
        if (r == 0 && (events & POLLOUT))
                r = stream_write(s, x);
        return r;
}

static bool stream_arm(struct stream *s, uint64_t timeout_ns) {
        struct timeval t = {0}; /* for ever */
        int flags = fcntl(s->fd, F_GETFL);

        if (timeout_ns != TIME_NEVER) {
                t.tv_sec = (time_t)(timeout_ns / NS_PER_S);
                t.tv_usec = (suseconds_t)(timeout_ns % NS_PER_S / NS_PER_US);
        }
        return flags >= 0 && (!(flags & O_NONBLOCK) || fcntl(s->fd, F_SETFL, flags & ~O_NONBLOCK) == 0) &&
               setsockopt(s->fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)) == 0;
}

/* May the exchange begin by a blocking recv()? See io.h. Arming it costs three system calls: not for a command or two. */
static bool stream_blocks(struct stream *s, const struct exchange *x) {
        enum { STEADY = 3 };

        if (s->poll_only || s->exchanges < STEADY || x->requests == 0 || x->written < x->size ||
            x->timeout_ns < NS_PER_MS)
                return false;
        if (s->blocks_ns != x->timeout_ns) {
                s->poll_only = !stream_arm(s, x->timeout_ns);
                s->blocks_ns = x->timeout_ns;
        }
        return !s->poll_only;
}

int stream_exchange(struct stream *s, struct exchange *x) {
        __attribute__((cleanup(inlet_deinit))) struct inlet in;
        uint64_t deadline = time_after(x->now, x->timeout_ns);
        bool block;
        int r;

        in.large = NULL;
        r = stream_write(s, x);
        if (r == 0)
                r = stream_parse(s, x); /* what an earlier read brought along */
        block = r == 0 && stream_blocks(s, x);
        s->exchanges++;
        while (r == 0 && x->got < x->expected) {
                size_t before = x->got;
                r = block ? stream_read(s, x, &in, 0) : stream_turn(s, x, &in, deadline);
                block = false;
                if (r == 0)
                        r = stream_parse(s, x);
                if (r == 0 && x->got < x->expected) {
                        uint64_t now = clock_now();
                        if (x->got != before)
                                deadline = time_after(now, x->timeout_ns);
                        else if (now >= deadline) /* poll() alone would go on for as long as bytes keep coming */
                                r = LESSOR_E_REPLY_TIMEOUT;
                }
        }
        return r;
}

bool stream_even(const struct stream *s) {
        bool empty = !s->reader || (s->reader->pos == s->reader->len && s->reader->ridx == -1);
        return empty && s->requests == s->replies;
}

void stream_deinit(struct stream *s) {
        if (s->reader)
                redisReaderFree(s->reader);
        s->reader = NULL;
}

/* SPDX-License-Identifier: MIT */
#include "census.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"

/* Redis 7.0 without modules says 200 kB. */
#define LIST_MAX (8U << 20)

static const char request[] = "*1\r\n$7\r\nCOMMAND\r\n";

struct census {
        int fd;
        struct event *io, *timer; /* timer: the time is up, or the end is to be told */
        redisReader *reader;
        size_t received;
        redisReply *reply;
        census_done *done;
        void *userdata;
};

void census_cancel(struct census *c) {
        if (!c)
                return;
        if (c->io)
                event_free(c->io);
        if (c->timer)
                event_free(c->timer);
        if (c->reader)
                redisReaderFree(c->reader);
        freeReplyObject(c->reply);
        free(c);
}

static void finish(struct census *c) {
        event_del(c->io);
        event_del(c->timer);
        event_active(c->timer, EV_TIMEOUT, 0);
}

static void on_timer(evutil_socket_t fd, short what, void *userdata) {
        struct census *c = userdata;
        event_free(c->io); /* before the fd has another owner */
        c->io = NULL;
        c->done(c->userdata, c->reply);
        census_cancel(c);
}

static void on_readable(evutil_socket_t fd, short what, void *userdata) {
        struct census *c = userdata;
        char buffer[65536];
        void *reply = NULL;
        ssize_t n = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n > 0 && (c->received += (size_t)n) <= LIST_MAX &&
            redisReaderFeed(c->reader, buffer, (size_t)n) == REDIS_OK &&
            redisReaderGetReply(c->reader, &reply) == REDIS_OK && !reply)
                return;
        c->reply = reply;
        if (reply && c->reader->pos < c->reader->len) {
                freeReplyObject(reply);
                c->reply = NULL;
        }
        finish(c);
}

static int prepare(struct census *c, struct event_base *base, uint64_t timeout_ns) {
        struct timeval timeout = {.tv_sec = (time_t)(timeout_ns / NS_PER_S),
                                  .tv_usec = (suseconds_t)(timeout_ns % NS_PER_S / NS_PER_US)};
        c->reader = redisReaderCreate();
        c->io = event_new(base, c->fd, EV_READ | EV_PERSIST, on_readable, c);
        c->timer = event_new(base, -1, 0, on_timer, c);
        if (!c->reader || !c->io || !c->timer || event_add(c->io, NULL) < 0 || event_add(c->timer, &timeout) < 0)
                return -ENOMEM;
        return 0;
}

int census_start(struct event_base *base, int fd, const struct upstream_target *target, census_done *done,
                 void *userdata, struct census **ret) {
        struct census *c = calloc(1, sizeof(*c));
        if (!c)
                return -ENOMEM;
        c->fd = fd;
        c->done = done;
        c->userdata = userdata;
        if (prepare(c, base, target->connect_timeout_ns) < 0) {
                census_cancel(c);
                return -ENOMEM;
        }
        if (send(fd, request, sizeof(request) - 1, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)sizeof(request) - 1)
                finish(c);
        *ret = c;
        return 0;
}

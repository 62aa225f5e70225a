/* SPDX-License-Identifier: MIT */
#include "reset.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"

/* Messages of a subscription, or what MONITOR says, may be waiting; more than this is not worth reading. */
#define DRAIN_MAX 65536U

struct reset {
        int fd;
        struct event *io, *timer; /* timer: the time is up, or the end is to be told */
        bool finished, clean;
        struct proof proof;
        char why[LESSOR_STATUS_TEXT_SIZE];
        reset_done *done;
        void *userdata;
};

void reset_cancel(struct reset *r) {
        if (!r)
                return;
        if (r->io)
                event_free(r->io);
        if (r->timer)
                event_free(r->timer);
        free(r);
}

/* Tells it from the loop, so that nobody is called back from within his own call. why: NULL, it is clean. */
static void finish(struct reset *r, const char *why) {
        r->finished = true;
        r->clean = !why;
        snprintf(r->why, sizeof(r->why), "%s", why ? why : "");
        event_del(r->io);
        event_del(r->timer);
        event_active(r->timer, EV_TIMEOUT, 0);
}

static void deliver(struct reset *r) {
        char why[sizeof(r->why)];
        bool clean = r->clean;
        reset_done *done = r->done;
        void *userdata = r->userdata;
        memcpy(why, r->why, sizeof(why));
        reset_cancel(r);
        done(userdata, clean ? NULL : why);
}

static void on_timer(evutil_socket_t fd, short what, void *userdata) {
        struct reset *r = userdata;
        if (r->finished)
                deliver(r);
        else
                finish(r, "no answer in time: socket_connect_timeout passed");
}

/* A clean connection has room for a hundred bytes. */
static void send_request(struct reset *r) {
        ssize_t n = send(r->fd, r->proof.request, r->proof.request_size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0)
                finish(r, errno == EAGAIN ? "its socket is full of unsent requests" : strerror(errno));
        else if ((size_t)n < r->proof.request_size)
                finish(r, "its socket is full of unsent requests");
}

static void on_readable(evutil_socket_t fd, short what, void *userdata) {
        struct reset *r = userdata;
        char buffer[sizeof(r->proof.reply)];
        ssize_t n = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n <= 0) {
                finish(r, n < 0 ? strerror(errno) : "Redis closed the connection");
                return;
        }
        switch (proof_take(&r->proof, buffer, (size_t)n)) {
        case PROOF_WAIT:
                break;
        case PROOF_SAY:
                send_request(r);
                break;
        case PROOF_CLEAN:
                finish(r, NULL);
                break;
        case PROOF_FAILED:
                finish(r, r->proof.text);
                break;
        }
}

/* What came before we asked is nobody's answer. NULL; why the connection is good for nothing. */
static const char *drain(int fd) {
        char buffer[16384];
        size_t drained = 0;
        for (;;) {
                ssize_t n = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
                if (n < 0)
                        return errno == EAGAIN ? NULL : strerror(errno);
                if (n == 0)
                        return "Redis closed the connection";
                if ((drained += (size_t)n) > DRAIN_MAX)
                        return "too much is waiting to be read";
        }
}

static int prepare(struct reset *r, struct event_base *base, uint64_t timeout_ns) {
        struct timeval timeout = {.tv_sec = (time_t)(timeout_ns / NS_PER_S),
                                  .tv_usec = (suseconds_t)(timeout_ns % NS_PER_S / NS_PER_US)};
        r->io = event_new(base, r->fd, EV_READ | EV_PERSIST, on_readable, r);
        r->timer = event_new(base, -1, 0, on_timer, r);
        if (!r->io || !r->timer || event_add(r->io, NULL) < 0 || event_add(r->timer, &timeout) < 0)
                return -ENOMEM;
        return 0;
}

int reset_start(struct event_base *base, int fd, const struct upstream_target *target, uint64_t client_id,
                const uint8_t nonce[PROOF_NONCE_SIZE], reset_done *done, void *userdata, struct reset **ret) {
        struct reset *r = calloc(1, sizeof(*r));
        if (!r)
                return -ENOMEM;
        r->fd = fd;
        r->done = done;
        r->userdata = userdata;
        proof_start(&r->proof, target, client_id, nonce);
        if (prepare(r, base, target->connect_timeout_ns) < 0) {
                reset_cancel(r);
                return -ENOMEM;
        }
        const char *why = drain(fd);
        if (why)
                finish(r, why);
        else
                send_request(r);
        *ret = r;
        return 0;
}

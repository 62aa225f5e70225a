/* SPDX-License-Identifier: MIT */
#include "link.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"

void link_init(struct link *link, link_event *on_lost, link_event *on_closed) {
        *link = (struct link){.fd = -1, .on_lost = on_lost, .on_closed = on_closed};
}

static void end(struct link *link) {
        event_del(&link->event);
        /* Ends every dup a worker or its forked child may still hold; close() alone would not. */
        (void)shutdown(link->fd, SHUT_RDWR);
        link->fd = fd_close(link->fd);
        link->closing = false;
        link->on_closed(link);
}

static void on_event(evutil_socket_t fd, short what, void *userdata) {
        struct link *link = userdata;
        if (link->closing) {
                end(link);
                return;
        }
        link->ended = true;
        event_del(&link->event); /* level-triggered: it would fire for ever */
        link->on_lost(link);
}

int link_open(struct link *link, struct event_base *base, int fd) {
        if (event_assign(&link->event, base, fd, EV_CLOSED | EV_PERSIST, on_event, link) < 0 ||
            event_add(&link->event, NULL) < 0)
                return -ENOMEM;
        link->fd = fd;
        link->ended = link->closing = false;
        return 0;
}

enum link_state link_peek(const struct link *link) {
        char byte;
        if (link->ended)
                return LINK_ENDED;
        ssize_t n = recv(link->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        if (n > 0)
                return LINK_STRAY;
        return n < 0 && (errno == EAGAIN || errno == EINTR) ? LINK_QUIET : LINK_ENDED;
}

void link_close(struct link *link) {
        struct timeval linger = {.tv_sec = LINK_LINGER_NS / NS_PER_S};
        link->closing = true;
        if (link->ended || shutdown(link->fd, SHUT_WR) < 0) {
                /* Nothing to wait for, but whoever asked is not called back from within his call. */
                event_del(&link->event);
                event_active(&link->event, EV_TIMEOUT, 0);
        } else {
                event_add(&link->event, &linger);
        }
}

void link_drop(struct link *link) {
        if (link->fd < 0)
                return;
        event_del(&link->event);
        link->fd = fd_close(link->fd);
}

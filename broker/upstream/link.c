/* SPDX-License-Identifier: MIT */
#include "link.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fdpass.h"

#define EVENTS_PER_TURN 64

struct link_watch {
        struct event_base *base;
        int epoll;
        struct event *event;
};

void link_init(struct link *link, link_event *on_lost, link_event *on_closed) {
        *link = (struct link){.fd = -1, .on_lost = on_lost, .on_closed = on_closed};
}

/* Before the fd is closed: a dup in a worker's hands would keep it in the set for ever. */
static void unwatch(struct link *link) { (void)epoll_ctl(link->watch->epoll, EPOLL_CTL_DEL, link->fd, NULL); }

static void end(struct link *link) {
        event_del(&link->timer);
        if (!link->ended)
                unwatch(link);
        /* Ends every dup a worker or its forked child may still hold; close() alone would not. */
        (void)shutdown(link->fd, SHUT_RDWR);
        link->fd = fdpass_close_shared(link->fd);
        link->closing = false;
        link->on_closed(link);
}

static void on_timer(evutil_socket_t fd, short what, void *userdata) { end(userdata); }

/* An end, seen. A link of the same batch that is closed meanwhile is still the one it was: a new socket takes a dial. */
static void on_end(struct link *link) {
        if (link->closing) {
                end(link);
        } else if (!link->ended) {
                unwatch(link); /* level-triggered: it would be said for ever */
                link->ended = true;
                link->on_lost(link);
        }
}

static void on_ends(evutil_socket_t fd, short what, void *userdata) {
        struct epoll_event events[EVENTS_PER_TURN];
        int n = epoll_wait(fd, events, EVENTS_PER_TURN, 0);
        for (int i = 0; i < n; i++)
                on_end(events[i].data.ptr);
}

int link_watch_new(struct event_base *base, struct link_watch **ret) {
        struct link_watch *watch = calloc(1, sizeof(*watch));
        int r = 0;
        if (!watch)
                return -ENOMEM;
        watch->base = base;
        watch->epoll = epoll_create1(EPOLL_CLOEXEC);
        if (watch->epoll < 0)
                r = -errno;
        else if (!(watch->event = event_new(base, watch->epoll, EV_READ | EV_PERSIST, on_ends, watch)) ||
                 event_add(watch->event, NULL) < 0)
                r = -ENOMEM;
        if (r < 0) {
                link_watch_free(watch);
                return r;
        }
        *ret = watch;
        return 0;
}

void link_watch_free(struct link_watch *watch) {
        if (!watch)
                return;
        if (watch->event)
                event_free(watch->event);
        fd_close(watch->epoll);
        free(watch);
}

int link_open(struct link *link, struct link_watch *watch, int fd) {
        struct epoll_event end = {.events = EPOLLRDHUP, .data.ptr = link}; /* EPOLLERR and EPOLLHUP come unasked */
        if (epoll_ctl(watch->epoll, EPOLL_CTL_ADD, fd, &end) < 0)
                return -errno;
        evtimer_assign(&link->timer, watch->base, on_timer, link);
        link->watch = watch;
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
        if (link->ended || shutdown(link->fd, SHUT_WR) < 0)
                /* Nothing to wait for, but whoever asked is not called back from within his call. */
                event_active(&link->timer, EV_TIMEOUT, 0);
        else
                event_add(&link->timer, &linger);
}

void link_cut(struct link *link) {
        if (link->fd >= 0)
                (void)shutdown(link->fd, SHUT_RDWR);
}

void link_drop(struct link *link) {
        if (link->fd < 0)
                return;
        event_del(&link->timer);
        if (!link->ended)
                unwatch(link);
        link->fd = fdpass_close_shared(link->fd);
}

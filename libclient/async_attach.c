/* SPDX-License-Identifier: MIT */
/*
 * A lessor_async's session is its process', which threads that wait, queues and other loops share. Whoever of them reads its
 * socket tells the others; while nobody does, the epoll says when there is something.
 */
#include <errno.h>
#include <sys/epoll.h>

#include "async_core.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "error.h"

static int epoll_of(lessor_async *a) { return guard_fd(a->inbox.epoll); }

static void session_ready(struct async_source *source, uint32_t events) {
        lessor_async *a = container_of(source, lessor_async, socket);

        (void)events;
        if (a->session)
                session_look(a->session);
}

/* Only to be woken: the turn goes on with it. */
static void attach_ready(struct async_source *source, uint32_t events) {
        (void)source;
        (void)events;
}

static void session_told(struct session_watch *w) { inbox_poke(&container_of(w, lessor_async, watch)->inbox); }
static void home_told(struct client_watch *w) { inbox_poke(&container_of(w, lessor_async, home)->inbox); }

void async_session_init(lessor_async *a) {
        a->socket.ready = session_ready;
        a->attached.ready = attach_ready;
        a->watch.told = session_told;
        a->home.told = home_told;
        a->attach = (struct client_attach){.fd = -1, .at = TIME_NEVER};
        list_init(&a->watch.link);
        list_init(&a->home.link);
}

static void attach_watch(lessor_async *a, const struct client_attach *attach) {
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = &a->attached};

        if (a->attach.fd >= 0 && a->attach.fd != attach->fd)
                epoll_ctl(epoll_of(a), EPOLL_CTL_DEL, a->attach.fd, NULL);
        if (attach->fd >= 0)
                epoll_ctl(epoll_of(a), EPOLL_CTL_ADD, attach->fd, &e); /* it may be there */
        a->attach = *attach;
}

/* A socket that has ended stays readable for ever. */
static void session_unlook(lessor_async *a) {
        if (a->watching)
                epoll_ctl(epoll_of(a), EPOLL_CTL_DEL, a->session->fd, NULL);
        a->watching = a->flushing = false;
}

static void session_let_go(lessor_async *a) {
        if (!a->session)
                return;
        session_unlook(a);
        session_unwatch(a->session, &a->watch);
        a->session = session_unref(a->session);
}

static void session_adopt(lessor_async *a, struct session *s) {
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = &a->socket};

        a->session = s;
        a->watching = epoll_ctl(epoll_of(a), EPOLL_CTL_ADD, s->fd, &e) == 0;
        session_watch(s, &a->watch);
        inbox_poke(&a->inbox); /* what was said before we watched */
        a->next_at = 0;        /* deadlines that are configured are known now */
        error_clear(&a->trouble);
        a->hopeless = false;
}

struct session *async_session(lessor_async *a) {
        const struct client_attach none = {.fd = -1, .at = TIME_NEVER};
        struct client_attach attach = none;
        struct session *s;
        lessor_error error;
        int r;

        if (a->session && !session_over(a->session))
                return a->session;
        /* What was under way on the old one is told, and put back in order, before there is a new one. */
        if (!a->turning || a->ended || a->in_lanes > 0)
                return NULL;
        if (a->tried) {
                a->again = a->again || a->session;
                return NULL;
        }
        session_let_go(a);
        a->tried = true;
        error_clear(&error);
        r = client_session_now(a->client, &a->home, &s, &attach, &error);
        attach_watch(a, &attach);
        if (r == 0) {
                session_adopt(a, s);
        } else if (r != -EINPROGRESS) {
                a->trouble = error;
                a->hopeless = r != LESSOR_E_UNAVAILABLE;
                a->attach.at = atomic_load_explicit(&a->client->next_attach, memory_order_relaxed);
        } else {
                a->hopeless = false;
        }
        return a->session;
}

void async_attach_turn(lessor_async *a, uint64_t now) {
        if (a->attach.fd >= 0)
                async_session(a);
        else if (a->attach.at <= now)
                a->attach.at = TIME_NEVER; /* who still wants one tries again */
}

void async_session_turn(lessor_async *a) {
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = &a->socket};
        bool flushing;

        if (!a->session)
                return;
        if (session_over(a->session)) {
                session_unlook(a);
                return;
        }
        flushing = session_flush(a->session);
        if (flushing == a->flushing)
                return;
        e.events |= flushing ? EPOLLOUT : 0;
        a->flushing = epoll_ctl(epoll_of(a), EPOLL_CTL_MOD, a->session->fd, &e) == 0 && flushing;
}

void async_session_end(lessor_async *a) {
        client_unwatch(a->client, &a->home);
        session_let_go(a);
        attach_watch(a, &(struct client_attach){.fd = -1, .at = TIME_NEVER});
}

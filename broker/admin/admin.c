/* SPDX-License-Identifier: MIT */
#include "admin.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "request.h"

/* Bounded work per turn: signals and publication have their turn, too. */
#define ORDERS_PER_TURN 16
/*
 * Answers that nobody reads fill the send buffer of our one socket (the kernel counts a datagram against its sender until it
 * is read). Whoever is refused is answered from half of it only, so that garbage never costs an honest order its answer.
 */
#define SEND_BUFFER (1 << 20)
/* At the end, more than the kernel's queue holds (net.unix.max_dgram_qlen). */
#define ORDERS_AT_THE_END 1024

struct admin {
        struct admin_options o;
        char *path;
        int fd;
        struct event readable;
        struct list calls;
        unsigned n_calls;
        int refusal_room; /* bytes unread */
        bool stopping;
};

/* ---- answers ------------------------------------------------------------------------------------------------------- */

void admin_say(struct admin_call *call, enum lessor_admin_outcome outcome, const char *fmt, ...) {
        va_list args;
        call->answer.outcome = outcome;
        va_start(args, fmt);
        vsnprintf(call->answer.text, sizeof(call->answer.text), fmt, args);
        va_end(args);
}

static bool has_room_for_refusal(const struct admin *a) {
        int unread;
        return ioctl(a->fd, SIOCOUTQ, &unread) == 0 && unread < a->refusal_room;
}

/* Who has no room for his answer, or is gone, or has not said where he is: he has himself to thank. */
static void send_answer(struct admin_call *call) {
        struct lessor_admin_answer *a = &call->answer;
        a->magic = LESSOR_ADMIN_MAGIC;
        a->version = LESSOR_ADMIN_VERSION;
        a->command = call->request.command;
        a->tag = call->request.tag;
        if (call->from_size > offsetof(struct sockaddr_un, sun_path))
                (void)sendto(call->admin->fd, a, sizeof(*a), MSG_DONTWAIT | MSG_NOSIGNAL,
                             (struct sockaddr *)&call->from, call->from_size);
        call->admin->o.ops->answered(call->admin->o.userdata, call);
}

static void forget(struct admin_call *call) {
        event_del(&call->patience);
        list_remove(&call->link);
        call->admin->n_calls--;
        free(call);
}

void admin_done(struct admin_call *call) {
        if (!call->told)
                send_answer(call);
        forget(call);
}

static void on_late(evutil_socket_t fd, short what, void *userdata) {
        struct admin_call *call = userdata;
        admin_say(call, LESSOR_ADMIN_LATE,
                  "not done within %u s: the thread that is to do it is busy, or hangs; it does it when it comes to it",
                  (unsigned)(LESSOR_ADMIN_PATIENCE_NS / 1000000000U));
        send_answer(call);
        call->told = true;
}

/* ---- orders -------------------------------------------------------------------------------------------------------- */

/* 0, or an outcome that is to be answered at once. */
static enum lessor_admin_outcome judge(struct admin_call *call, bool known, const void *data, size_t size) {
        struct admin *a = call->admin;
        char text[LESSOR_ADMIN_TEXT_SIZE];
        enum lessor_admin_outcome r = admin_request_read(data, size, &call->request, text);
        if (!admin_may(known, call->who.uid, geteuid()))
                admin_say(call, LESSOR_ADMIN_DENIED, "uid %u may not: only root and the broker's own user, uid %u, may",
                          known ? call->who.uid : (uid_t)-1, geteuid());
        else if (r != LESSOR_ADMIN_DONE)
                admin_say(call, r, "%s", text);
        else if (call->request.command == LESSOR_ADMIN_SHUTDOWN)
                return LESSOR_ADMIN_DONE; /* whatever else hangs, or is in the way */
        else if (a->stopping)
                admin_say(call, LESSOR_ADMIN_STOPPING, "the broker is stopping");
        else if (a->n_calls > LESSOR_ADMIN_CALLS)
                admin_say(call, LESSOR_ADMIN_BUSY, "%u orders are under way already: try again in a moment",
                          LESSOR_ADMIN_CALLS);
        return (enum lessor_admin_outcome)call->answer.outcome;
}

static void take(struct admin *a, const struct admin_call *from, bool known, const void *data, size_t size) {
        struct timeval patience = {.tv_sec = LESSOR_ADMIN_PATIENCE_NS / 1000000000U};
        struct admin_call *call = calloc(1, sizeof(*call));
        if (!call)
                return; /* he gives up after a while */
        call->admin = a;
        call->who = from->who;
        call->from = from->from;
        call->from_size = from->from_size;
        evtimer_assign(&call->patience, a->o.base, on_late, call);
        list_push_back(&a->calls, &call->link);
        a->n_calls++;
        if (judge(call, known, data, size) != LESSOR_ADMIN_DONE) {
                call->told = !has_room_for_refusal(a);
                admin_done(call);
                return;
        }
        event_add(&call->patience, &patience);
        a->o.ops->order(a->o.userdata, call);
}

/* Room for the credentials and nothing else: fds that somebody sends along are dropped by the kernel. */
static bool receive_one(struct admin *a) {
        unsigned char data[sizeof(struct lessor_admin_request) + 1]; /* one more: who sends too much is found out */
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(sizeof(struct ucred))];
        } control;
        struct admin_call from = {0};
        struct iovec part = {.iov_base = data, .iov_len = sizeof(data)};
        struct msghdr message = {.msg_name = &from.from,
                                 .msg_namelen = sizeof(from.from),
                                 .msg_iov = &part,
                                 .msg_iovlen = 1,
                                 .msg_control = &control,
                                 .msg_controllen = sizeof(control)};
        ssize_t n = recvmsg(a->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0)
                return errno == EINTR;
        from.from_size = message.msg_namelen;
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        bool known = c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS &&
                     c->cmsg_len == CMSG_LEN(sizeof(struct ucred));
        if (known)
                memcpy(&from.who, CMSG_DATA(c), sizeof(from.who));
        take(a, &from, known, data, (size_t)n);
        return true;
}

static void on_readable(evutil_socket_t fd, short what, void *userdata) {
        for (unsigned i = 0; i < ORDERS_PER_TURN && receive_one(userdata); i++)
                ;
}

/* ---- birth and end ------------------------------------------------------------------------------------------------- */

/* A dead broker's socket goes; the instance's lock is ours, so that no living one's can be there. */
static int clear(const char *path) {
        struct stat st;
        if (lstat(path, &st) < 0)
                return errno == ENOENT ? 0 : -errno;
        if (!S_ISSOCK(st.st_mode) || st.st_uid != geteuid())
                return -EEXIST;
        return unlink(path) < 0 ? -errno : 0;
}

static void set_buffer(struct admin *a) {
        int size = SEND_BUFFER, got = 0;
        socklen_t length = sizeof(got);
        if (setsockopt(a->fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
                (void)setsockopt(a->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)); /* as much as one may */
        if (getsockopt(a->fd, SOL_SOCKET, SO_SNDBUF, &got, &length) == 0)
                a->refusal_room = got / 2;
}

static int listen_at(struct admin *a) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int on = 1, r = clear(a->path);
        if (r < 0)
                return r;
        if (strlen(a->path) >= sizeof(address.sun_path))
                return -ENAMETOOLONG;
        memcpy(address.sun_path, a->path, strlen(a->path) + 1);
        a->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        /* Before it has a name: whoever sends, sends his credentials. */
        if (a->fd < 0 || setsockopt(a->fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0)
                return -errno;
        set_buffer(a);
        mode_t mask = umask(0177);
        r = bind(a->fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
        umask(mask);
        return r;
}

int admin_new(const struct admin_options *options, struct admin **ret) {
        struct admin *a = calloc(1, sizeof(*a));
        if (!a)
                return -ENOMEM;
        a->o = *options;
        a->fd = -1;
        list_init(&a->calls);
        int r = (a->path = strdup(options->path)) ? listen_at(a) : -ENOMEM;
        if (r == 0 && (event_assign(&a->readable, options->base, a->fd, EV_READ | EV_PERSIST, on_readable, a) < 0 ||
                       event_add(&a->readable, NULL) < 0))
                r = -ENOMEM;
        if (r < 0) {
                fd_close(a->fd);
                free(a->path);
                free(a);
                return r;
        }
        *ret = a;
        return 0;
}

void admin_stop(struct admin *a) {
        if (a)
                a->stopping = true;
}

void admin_free(struct admin *a) {
        if (!a)
                return;
        a->stopping = true;
        for (unsigned i = 0; i < ORDERS_AT_THE_END && receive_one(a); i++)
                ;
        list_for_each_safe (&a->calls, it, next) {
                struct admin_call *call = container_of(it, struct admin_call, link);
                admin_say(call, LESSOR_ADMIN_STOPPING, "the broker has stopped before it was done");
                admin_done(call);
        }
        event_del(&a->readable);
        (void)unlink(a->path);
        fd_close(a->fd);
        free(a->path);
        free(a);
}

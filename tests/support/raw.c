/* SPDX-License-Identifier: MIT */
#include "raw.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "process.h"

int raw_connect(const char *path) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), r;

        snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
                return fd < 0 ? -errno : fd;
        r = -errno;
        close(fd);
        return r;
}

int raw_send(int socket, const void *bytes, size_t size, const int *fds, unsigned n_fds) {
        union {
                struct cmsghdr header;
                char room[CMSG_SPACE(sizeof(int) * 253)];
        } control;
        struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
        struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

        if (n_fds > 253)
                return -EINVAL;
        if (n_fds) {
                memset(&control, 0, sizeof(control));
                message.msg_control = &control;
                message.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
                control.header.cmsg_level = SOL_SOCKET;
                control.header.cmsg_type = SCM_RIGHTS;
                control.header.cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
                memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * n_fds);
        }
        return sendmsg(socket, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int raw_say(int socket, const void *message) {
        const struct lessor_msg_header *header = message;
        return raw_send(socket, message, header->size, NULL, 0);
}

static void take_fds(struct msghdr *message, int fds[RAW_FDS], unsigned *n_fds) {
        for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                for (size_t i = 0; i < n && *n_fds < RAW_FDS; i++)
                        memcpy(&fds[(*n_fds)++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
        }
}

ssize_t raw_receive(int socket, union raw_message *ret, int ret_fds[RAW_FDS], unsigned *ret_n_fds) {
        union {
                struct cmsghdr header;
                char room[CMSG_SPACE(sizeof(int) * RAW_FDS)];
        } control;
        struct iovec iov = {.iov_base = ret, .iov_len = sizeof(*ret)};
        struct msghdr message = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
        struct pollfd readable = {.fd = socket, .events = POLLIN};
        ssize_t size;

        *ret_n_fds = 0;
        memset(ret, 0, sizeof(*ret));
        if (poll(&readable, 1, RAW_MS * PROCESS_SLOW) <= 0)
                return -ETIMEDOUT;
        size = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (size < 0)
                return errno == ECONNRESET ? 0 : -errno;
        take_fds(&message, ret_fds, ret_n_fds);
        return size;
}

bool raw_expect(int socket, enum lessor_message type, union raw_message *ret) {
        int fds[RAW_FDS];
        unsigned n_fds;
        ssize_t size = raw_receive(socket, ret, fds, &n_fds);

        while (n_fds > 0)
                close(fds[--n_fds]);
        return size >= (ssize_t)sizeof(ret->header) && ret->header.size == (size_t)size && ret->header.type == type;
}

bool raw_ended(int socket, bool *ret_fatal) {
        union raw_message message;
        int fds[RAW_FDS];
        unsigned n_fds;
        ssize_t size;
        bool fatal = false;

        while ((size = raw_receive(socket, &message, fds, &n_fds)) > 0) {
                while (n_fds > 0)
                        close(fds[--n_fds]);
                fatal |= message.header.type == LESSOR_MSG_ERROR && (message.error.flags & LESSOR_FATAL);
        }
        if (ret_fatal)
                *ret_fatal = fatal;
        return size == 0;
}

#define HEADER(type_, request_, message)                                                                               \
        { .type = (type_), .size = sizeof(message), .request = (request_) }

struct lessor_msg_attach raw_attach_message(uint64_t features) {
        struct lessor_msg_attach m = {.header = HEADER(LESSOR_MSG_ATTACH, 1, m),
                                      .version_min = LESSOR_PROTOCOL_MIN,
                                      .version_max = LESSOR_PROTOCOL_MAX,
                                      .features = features,
                                      .program = "raw"};
        return m;
}

struct lessor_msg_lookup raw_lookup_message(uint64_t request, const char *name) {
        struct lessor_msg_lookup m = {.header = HEADER(LESSOR_MSG_LOOKUP, request, m)};
        snprintf(m.name, sizeof(m.name), "%s", name);
        return m;
}

struct lessor_msg_lease raw_lease_message(uint64_t request, uint32_t database, uint64_t wait_ns) {
        struct lessor_msg_lease m = {.header = HEADER(LESSOR_MSG_LEASE, request, m),
                                     .database = database,
                                     .wait_ns = wait_ns,
                                     .site = "raw.c:1"};
        return m;
}

struct lessor_msg_return raw_return_message(const struct lessor_msg_grant *g, uint32_t flags) {
        struct lessor_msg_return m = {.header = HEADER(LESSOR_MSG_RETURN, 0, m),
                                      .database = g->database,
                                      .slot = g->slot,
                                      .generation = g->generation,
                                      .lease = g->lease,
                                      .flags = flags};
        return m;
}

int raw_pidfd(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

/* Closes the fds of ATTACHED: memory is of no use to who speaks messages only. */
int raw_attach(const char *path, uint64_t features, struct lessor_msg_attached *ret) {
        struct lessor_msg_attach attach = raw_attach_message(features);
        union raw_message answer;
        int fd = raw_connect(path), pidfd = raw_pidfd(getpid());
        bool good = fd >= 0 && pidfd >= 0 && raw_send(fd, &attach, sizeof(attach), &pidfd, 1) == 0 &&
                    raw_expect(fd, LESSOR_MSG_ATTACHED, &answer);

        if (pidfd >= 0)
                close(pidfd);
        if (good && ret)
                *ret = answer.attached;
        if (!good && fd >= 0)
                close(fd);
        return good ? fd : -1;
}

static int outcome(const union raw_message *m) {
        return m->header.type == LESSOR_MSG_ERROR && m->error.outcome > 0 ? -m->error.outcome : -LESSOR_E_PROTOCOL;
}

int raw_lookup(int socket, const char *name) {
        struct lessor_msg_lookup lookup = raw_lookup_message(2, name);
        union raw_message answer = {0};
        if (raw_say(socket, &lookup) < 0 || !raw_expect(socket, LESSOR_MSG_DATABASE, &answer))
                return outcome(&answer);
        return (int)answer.database.database;
}

int raw_lease(int socket, uint32_t database, uint64_t wait_ns, struct lessor_msg_grant *ret) {
        struct lessor_msg_lease lease = raw_lease_message(3, database, wait_ns);
        union raw_message answer = {0};
        int fds[RAW_FDS];
        unsigned n_fds = 0;

        if (raw_say(socket, &lease) < 0 || raw_receive(socket, &answer, fds, &n_fds) <= 0)
                return -LESSOR_E_UNAVAILABLE;
        if (answer.header.type == LESSOR_MSG_GRANT && n_fds == 1) {
                *ret = answer.grant;
                return fds[0];
        }
        while (n_fds > 0)
                close(fds[--n_fds]);
        return outcome(&answer);
}

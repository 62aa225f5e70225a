/* SPDX-License-Identifier: MIT */
/*
 * Fds by SCM_RIGHTS. From the moment recvmsg() returns, every fd in the packet is ours, asked for or not: each goes
 * into the result or is closed here, whatever kind of control message it came in.
 */
#include "fdpass.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "cleanup.h"

#ifndef SCM_PIDFD /* Linux 6.5, glibc 2.39 */
#define SCM_PIDFD 0x04
#endif

/* Room for what SO_PASSCRED and its like put in front of the fds on a socket that has them on. */
#define CONTROL_OTHERS 128U

/* SCM_MAX_FD: what does not fit is closed by the kernel within recvmsg(), which may wait (fdpass_close_shared()). */
#define CONTROL_FDS 253U

union fdpass_control {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * CONTROL_FDS) + CONTROL_OTHERS];
};

int fdpass_send(int socket, const void *packet, size_t size, const int *fds, unsigned n_fds) {
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(sizeof(int) * WIRE_FDS_MAX)];
        } control;
        struct iovec part = {.iov_base = (void *)(uintptr_t)packet, .iov_len = size};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
        ssize_t sent;

        if (size == 0 || n_fds > WIRE_FDS_MAX) /* an empty packet would read like an end of file */
                return -EINVAL;
        if (n_fds > 0) {
                memset(&control, 0, sizeof(control));
                message.msg_control = control.bytes;
                message.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
                control.header.cmsg_level = SOL_SOCKET;
                control.header.cmsg_type = SCM_RIGHTS;
                control.header.cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
                memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * n_fds);
        }
        do
                sent = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (sent < 0 && errno == EINTR);
        if (sent < 0)
                return -errno;
        return (size_t)sent == size ? 0 : -EMSGSIZE; /* packets go whole, unless this is no SOCK_SEQPACKET */
}

static int fdpass_fd(const struct cmsghdr *header, size_t index) {
        int fd;
        memcpy(&fd, CMSG_DATA(header) + index * sizeof(fd), sizeof(fd));
        return fd;
}

static void fdpass_collect(struct fdpass_packet *packet, const struct cmsghdr *header) {
        size_t n = header->cmsg_len < CMSG_LEN(0) ? 0 : (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (header->cmsg_level != SOL_SOCKET)
                return;
        if (header->cmsg_type == SCM_PIDFD && n == 1)
                fd_close(fdpass_fd(header, 0));
        if (header->cmsg_type != SCM_RIGHTS)
                return;
        for (size_t i = 0; i < n; i++) {
                int fd = fdpass_fd(header, i);
                if (packet->n_fds < WIRE_FDS_MAX)
                        packet->fds[packet->n_fds++] = fd;
                else {
                        fdpass_close_shared(fd);
                        packet->fds_lost = true;
                }
        }
}

static int fdpass_take(int socket, void *buffer, size_t size, int flags, struct fdpass_packet *ret) {
        struct fdpass_packet packet = {0};
        union fdpass_control control;
        struct iovec part = {.iov_base = buffer, .iov_len = size};
        struct msghdr message;
        ssize_t received;

        assert(size > 0);
        for (size_t i = 0; i < WIRE_FDS_MAX; i++)
                packet.fds[i] = -1;
        message = (struct msghdr){.msg_iov = &part,
                                  .msg_iovlen = 1,
                                  .msg_control = control.bytes,
                                  .msg_controllen = sizeof(control.bytes)};
        received = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
        if (received < 0)
                return -errno;
        for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header))
                fdpass_collect(&packet, header);
        packet.size = (size_t)received;
        packet.cut = message.msg_flags & MSG_TRUNC;
        packet.fds_lost = packet.fds_lost || (message.msg_flags & MSG_CTRUNC);
        if (packet.size == 0) /* who sees an end of file does not look for fds */
                fdpass_close(&packet);
        *ret = packet;
        return 0;
}

int fdpass_receive(int socket, void *buffer, size_t size, struct fdpass_packet *ret) {
        int r;

        do
                r = fdpass_take(socket, buffer, size, MSG_DONTWAIT, ret);
        while (r == -EINTR);
        return r;
}

int fdpass_wait(int socket, void *buffer, size_t size, struct fdpass_packet *ret) {
        return fdpass_take(socket, buffer, size, 0, ret);
}

void fdpass_close(struct fdpass_packet *packet) {
        for (unsigned i = 0; i < packet->n_fds; i++)
                packet->fds[i] = fdpass_close_shared(packet->fds[i]);
        packet->n_fds = 0;
}

int fdpass_close_shared(int fd) {
        struct linger none = {0};
        int keep = errno;
        if (fd >= 0)
                (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none)); /* ENOTSOCK: as well */
        errno = keep;
        return fd_close(fd);
}

int fdpass_close_socket(int socket) {
        struct fdpass_packet packet;
        char byte;
        int keep = errno;
        if (socket < 0)
                return -1;
        (void)shutdown(socket, SHUT_RDWR); /* nothing more comes */
        while (fdpass_receive(socket, &byte, sizeof(byte), &packet) == 0 && packet.size > 0)
                fdpass_close(&packet);
        errno = keep;
        return fd_close(socket);
}

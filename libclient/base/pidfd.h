/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Who is at the other end of a Unix socket, as a pidfd of the kernel's own making: since Linux 6.5. Worker and broker
 * live on one kernel, so both know whether it can be had.
 */
#include <errno.h>
#include <stdbool.h>
#include <sys/socket.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* The fd, CLOEXEC; -ENOPROTOOPT: this kernel has no such thing; another -errno: ESRCH, EINVAL when he is gone. */
static inline int pidfd_of_peer(int socket) {
        int pidfd = -1;
        socklen_t size = sizeof(pidfd);
        return getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size) < 0 ? -errno : pidfd;
}

/* Asked of a socket without a peer: nothing is made, and the kernel says which of the two is missing. */
static inline bool pidfd_of_peers_known(int unconnected) { return pidfd_of_peer(unconnected) != -ENOPROTOOPT; }

/* SPDX-License-Identifier: MIT */
#pragma once
/* One packet with its fds over a SOCK_SEQPACKET socket. Never raises SIGPIPE, blocks where it says so; thread-safe. */
#include <stdbool.h>
#include <stddef.h>

#include "wire.h"

/* 0; -EAGAIN the peer does not read; -EPIPE, -ECONNRESET it is gone; -ETOOMANYREFS; other -errno. The fds stay the caller's. */
int fdpass_send(int socket, const void *packet, size_t size, const int *fds, unsigned n_fds);

struct fdpass_packet {
        size_t size;   /* bytes; 0 is end of file */
        bool cut;      /* the packet was longer than the buffer */
        bool fds_lost; /* fds were sent that did not arrive (MSG_CTRUNC: we are out of fds, or there were too many) */
        unsigned n_fds;
        int fds[WIRE_FDS_MAX]; /* the caller's, CLOEXEC: take with fd_steal(), then fdpass_close() the rest */
};

/* 0; -EAGAIN nothing there; other -errno. On failure no fd is held and *ret is untouched. */
int fdpass_receive(int socket, void *buffer, size_t size, struct fdpass_packet *ret);
/* Likewise, but waits as long as the socket's SO_RCVTIMEO says before -EAGAIN; -EINTR when a signal came first. */
int fdpass_wait(int socket, void *buffer, size_t size, struct fdpass_packet *ret);
void fdpass_close(struct fdpass_packet *packet); /* closes the fds not taken; may be said twice */

/*
 * Closes an fd that others have had in their hands: with SO_LINGER, which belongs to the shared socket, close() would wait
 * for as long as they please, O_NONBLOCK or not. -1; keeps errno.
 */
int fdpass_close_shared(int fd);
/* Closes a session's socket and, in this way, all that is still on its way in it: close() alone would drop that itself. -1 */
int fdpass_close_socket(int socket);

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What makes a broker the only one of its name: the lock, the listening socket, the fd budget. Logs why it refuses.
 *
 * The lock is a file of our own, mode 0600, in /dev/shm: one that others may open (the status segment, say) could be
 * locked by them and keep us from starting. The kernel drops it with the process, however that ends; the file stays.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

int instance_lock(const char *name); /* the lock's fd, to be kept open; -EBUSY another broker runs; -errno */

struct instance_socket {
        const char *path;
        mode_t mode;
        gid_t group; /* (gid_t)-1: as it comes */
};

/*
 * Listens on the path, taking over what a dead broker left there: bound under another name and renamed, so that there is
 * no moment without a socket or with wrong permissions. The fd; -EADDRINUSE somebody listens there; -EEXIST what is there is
 * no stale socket of ours; -errno.
 */
int instance_listen(const struct instance_socket *socket);
void instance_unlisten(const char *path, int fd); /* removes the path if it is still this socket's */

int instance_raise_fds(uint64_t need); /* raises RLIMIT_NOFILE as far as allowed. 0; -EMFILE it cannot reach `need` */

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Small files of /proc, read once for a worker. Not by stdio: that is a buffer, an fstat() and a second read() more, for
 * each of a thousand workers who start at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* What fits, as a string. Its length, or -errno. */
static inline ssize_t proc_read(const char *path, char *ret, size_t size) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        ssize_t n = read(fd, ret, size - 1);
        if (n < 0)
                n = -errno;
        close(fd);
        ret[n > 0 ? n : 0] = '\0';
        return n;
}

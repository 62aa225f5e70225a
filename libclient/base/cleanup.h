/* SPDX-License-Identifier: MIT */
#pragma once
/* Cleanup attributes and explicit steals: `_cleanup_(fd_closep) int fd = -1; ... return fd_steal(&fd);` */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))
#define _unused_ __attribute__((unused))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Always -1, so that `fd = fd_close(fd)` reads well; keeps errno. */
static inline int fd_close(int fd) {
        if (fd >= 0) {
                int keep = errno;
                close(fd);
                errno = keep;
        }
        return -1;
}
static inline void fd_closep(int *fd) { fd_close(*fd); }
static inline int fd_steal(int *fd) {
        int stolen = *fd;
        *fd = -1;
        return stolen;
}

static inline void freep(void *p) { free(*(void **)p); }
static inline void *ptr_steal(void *pp) {
        void *stolen = *(void **)pp;
        *(void **)pp = NULL;
        return stolen;
}

/* SPDX-License-Identifier: MIT */
#include "apart.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"

#define KEEP_ROOM (64U * 1024U)

bool reply_budget_take(struct reply_budget *budget, uint64_t own, uint64_t more) {
        uint64_t used = atomic_load_explicit(&budget->used, memory_order_relaxed);
        uint64_t limit = atomic_load_explicit(&budget->limit, memory_order_relaxed);
        do
                if (used != own && (more > limit || used > limit - more))
                        return false;
        while (!atomic_compare_exchange_weak_explicit(&budget->used, &used, used + more, memory_order_relaxed,
                                                      memory_order_relaxed));
        return true;
}

void reply_budget_give(struct reply_budget *budget, uint64_t bytes) {
        atomic_fetch_sub_explicit(&budget->used, bytes, memory_order_relaxed);
}

void apart_init(struct apart *a, struct reply_budget *budget) { *a = (struct apart){.budget = budget, .fd = -1}; }

void apart_clear(struct apart *a) {
        if (a->room > KEEP_ROOM) {
                free(ptr_steal(&a->data));
                a->room = 0;
        }
        a->fd = fd_close(a->fd);
        if (a->reserved > 0) /* of most replies, nothing: the budget is all threads' */
                reply_budget_give(a->budget, a->reserved);
        a->size = a->reserved = 0;
        a->dropped = false;
}

void apart_deinit(struct apart *a) {
        if (a->budget)
                apart_clear(a);
        free(ptr_steal(&a->data));
        a->room = 0;
}

static void drop(struct apart *a) {
        uint64_t size = a->size;
        apart_clear(a);
        a->size = size;
        a->dropped = true;
}

static bool append(struct apart *a, const char *data, size_t size) {
        size_t room = a->room ? a->room : 4096;
        while (room < a->size + size)
                room *= 2;
        if (room != a->room) {
                char *grown = realloc(a->data, room);
                if (!grown)
                        return false;
                a->data = grown;
                a->room = room;
        }
        memcpy(a->data + a->size, data, size);
        return true;
}

static bool write_all(int fd, const char *data, size_t size) {
        while (size > 0) {
                ssize_t n = write(fd, data, size);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return false;
                data += n;
                size -= (size_t)n;
        }
        return true;
}

static bool reserve(struct apart *a, uint64_t bytes) {
        if (bytes <= a->reserved)
                return true;
        if (!reply_budget_take(a->budget, a->reserved, bytes - a->reserved))
                return false;
        a->reserved = bytes;
        return true;
}

/* From memory into a memfd. */
static bool move_out(struct apart *a) {
        a->fd = memfd_create("lessor-reply", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        return a->fd >= 0 && write_all(a->fd, a->data, (size_t)a->size);
}

static bool add_apart(struct apart *a, const char *data, size_t size, uint64_t expected) {
        return reserve(a, a->size + size + expected) && (a->fd >= 0 || move_out(a)) && write_all(a->fd, data, size);
}

void apart_add(struct apart *a, const char *data, size_t size, size_t small, uint64_t expected) {
        bool fits = a->fd < 0 && size + expected <= small && a->size <= small - size - expected;
        if (!a->dropped && !(fits ? append(a, data, size) : add_apart(a, data, size, expected)))
                drop(a);
        a->size += size;
}

int apart_seal(struct apart *a, uint64_t *ret_size, uint64_t *ret_reserved) {
        int fd = fd_steal(&a->fd);
        if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0) {
                fd = fd_close(fd);
        } else {
                *ret_size = a->size;
                *ret_reserved = a->reserved;
                a->reserved = 0;
        }
        apart_clear(a);
        return fd;
}

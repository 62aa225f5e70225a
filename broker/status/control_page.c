/* SPDX-License-Identifier: MIT */
#include "control_page.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/wire.h"

int control_page_init(struct control_page *page, uint64_t instance) {
        const size_t size = sizeof(struct lessor_control);
        _cleanup_(fd_closep) int fd = memfd_create("lessor-control", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
                return -errno;
        void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED)
                return -errno;
        if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0) {
                int r = -errno;
                munmap(map, size);
                return r;
        }
        page->map = map;
        page->map->version = LESSOR_CONTROL_VERSION;
        page->map->database_size = sizeof(struct lessor_control_database);
        page->map->commands_offset = offsetof(struct lessor_control, commands);
        page->map->bells_offset = offsetof(struct lessor_control, bells);
        page->map->instance = instance;
        page->map->magic = LESSOR_CONTROL_MAGIC; /* nobody has the fd yet: sending it orders these stores */
        page->fd = fd_steal(&fd);
        return 0;
}

void control_page_deinit(struct control_page *page) {
        if (page->map)
                munmap(page->map, sizeof(*page->map));
        page->map = NULL;
        page->fd = fd_close(page->fd);
}

void control_page_set(struct control_page *page, unsigned index, const struct control_entry *entry) {
        struct lessor_control_database *d = &page->map->database[index];
        wire_string(d->name, sizeof(d->name), entry->name);
        d->max_connections = entry->max_connections;
        d->max_pinned = entry->max_pinned;
        d->thread = entry->thread;
        d->wait_timeout_ns = entry->wait_timeout_ns;
        d->socket_timeout_ns = entry->socket_timeout_ns;
        /* Pair with the acquire loads in libclient: an entry seen OPEN is complete, and so are those counted. */
        atomic_store_explicit((_Atomic uint32_t *)&d->state, LESSOR_CONTROL_OPEN, memory_order_release);
        if (index >= page->map->databases)
                atomic_store_explicit((_Atomic uint32_t *)&page->map->databases, index + 1, memory_order_release);
}

void control_page_set_breaker(struct control_page *page, unsigned index, const struct control_breaker *breaker) {
        struct lessor_control_database *d = &page->map->database[index];
        _Atomic uint64_t *word = (_Atomic uint64_t *)&d->breaker;
        uint64_t number = atomic_load_explicit(word, memory_order_relaxed) >> 2;

        /* Pair with control_refusal() of libclient: whoever sees a byte of the new text sees the word changed, too. */
        atomic_store_explicit(word, (number + 1) << 2 | LESSOR_BREAKER_CHANGING, memory_order_relaxed);
        atomic_thread_fence(memory_order_release);
        atomic_store_explicit((_Atomic uint64_t *)&d->breaker_retry_ns, breaker->retry_at, memory_order_relaxed);
        atomic_store_explicit((_Atomic uint64_t *)&d->breaker_length, strlen(breaker->text), memory_order_relaxed);
        memcpy(d->breaker_text, breaker->text, sizeof(d->breaker_text));
        atomic_store_explicit(word, (number + 2) << 2 | breaker->state, memory_order_release);
}

void control_page_set_path(struct control_page *page, unsigned index, enum lessor_path path) {
        /* Relaxed: an advice, nothing depends on when it is seen. */
        atomic_store_explicit((_Atomic uint32_t *)&page->map->database[index].path, (uint32_t)path,
                              memory_order_relaxed);
}

void control_page_remove(struct control_page *page, unsigned index) {
        atomic_store_explicit((_Atomic uint32_t *)&page->map->database[index].state, LESSOR_CONTROL_ABSENT,
                              memory_order_release);
}

void control_page_set_commands(struct control_page *page, unsigned index, const char *names, size_t size) {
        struct lessor_control_commands *c = &page->map->commands[index];
        assert(c->size == 0 && size <= sizeof(c->names));
        memcpy(c->names, names, size);
        /* Pairs with the acquire in control_says_harmless(). */
        atomic_store_explicit((_Atomic uint32_t *)&c->size, (uint32_t)size, memory_order_release);
}

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The control page (lessor/protocol.h): what workers must be able to trust. A memfd that only the mapping made here can
 * write: F_SEAL_FUTURE_WRITE forbids any other, also to our own uid. Passed read-only to every session.
 */
#include <stddef.h>

#include <lessor/protocol.h>

struct control_page {
        int fd;
        struct lessor_control *map;
};

int control_page_init(struct control_page *page, uint64_t instance); /* 0; -errno */
void control_page_deinit(struct control_page *page);

struct control_entry {
        const char *name;
        unsigned max_connections, max_pinned, thread;
        uint64_t wait_timeout_ns, socket_timeout_ns;
};

/* A database in no configuration any more: nobody finds it. */
void control_page_remove(struct control_page *page, unsigned index);

struct control_breaker {
        enum lessor_breaker state;
        uint64_t retry_at;
        char text[LESSOR_BREAKER_TEXT_SIZE];
};
/* By the entry's one writer, the database's thread. */
void control_page_set_breaker(struct control_page *page, unsigned index, const struct control_breaker *breaker);

void control_page_set_path(struct control_page *page, unsigned index, enum lessor_path path); /* likewise */

/* Entry `index` becomes visible, whole, to those who load its state. Entries are set in order. */
void control_page_set(struct control_page *page, unsigned index, const struct control_entry *entry);
/* Once for each entry, by one thread: names as in struct lessor_control_commands, at most LESSOR_COMMANDS_SIZE bytes. */
void control_page_set_commands(struct control_page *page, unsigned index, const char *names, size_t size);

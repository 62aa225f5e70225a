/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The shared memory of a session: the broker's control page, which we read, and the session segment, which we write.
 * Sizes and offsets are checked and copied once, when they are mapped; what is found in there later is only numbers.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lessor.h>
#include <lessor/protocol.h>

#include "base/word.h"

struct control {
        const struct lessor_control *page; /* NULL: not mapped */
        size_t size;
        size_t stride;
        uint32_t room;                                  /* entries that fit */
        const struct lessor_control_commands *commands; /* LESSOR_DATABASES_MAX of them; NULL: there are none */
        const struct lessor_control_bell *bells;        /* LESSOR_THREADS_MAX of them; NULL likewise */
};

struct segment {
        struct lessor_segment *base; /* NULL: not mapped */
        size_t size;
        size_t offset, stride;
        uint32_t databases;
        struct lessor_slot *slots;       /* NULL: there are no words */
        uint32_t words;                  /* slots */
        struct lessor_ticket *tickets;   /* LESSOR_TICKETS of them; NULL: none */
        char (*sites)[LESSOR_SITE_SIZE]; /* LESSOR_SITES of them; NULL: no room for call sites */
};

/* Map `fd`, which stays the caller's. NULL, or what is wrong with it (a static text); then nothing is mapped. */
const char *control_map(int fd, uint64_t size, uint64_t instance, struct control *ret);
const char *segment_map(int fd, uint64_t size, uint64_t session, struct segment *ret);
void control_unmap(struct control *c);
void segment_unmap(struct segment *s);

/* Memory that cannot shrink, for as long as it is mapped; not a child's. NULL, or what is wrong. */
const char *shared_map(int fd, uint64_t size, int protection, void **ret);
/* The memory is given up, and zeros are in its place, so that who comes late finds nothing there. NULL ok. */
void shared_fade(const void *map, size_t size, int protection);

/* The database in use under that number or name; NULL: none. */
const struct lessor_control_database *control_database(const struct control *c, uint32_t index);
const struct lessor_control_database *control_find(const struct control *c, const char *name, uint32_t *ret_index);
/* 0, or LESSOR_E_BREAKER_OPEN with what the broker has written down for it: no use asking. No system call. */
int control_refusal_told(const struct lessor_control_database *db, lessor_error *error);
static inline int control_refusal(const struct lessor_control_database *db, lessor_error *error) {
        bool closed = (__atomic_load_n(&db->breaker, __ATOMIC_RELAXED) & 3) == LESSOR_BREAKER_CLOSED;
        return __builtin_expect(closed, 1) ? 0 : control_refusal_told(db, error);
}
/* Does this database's server say of a command that our table does not know that it leaves nothing behind? */
bool control_says_harmless(const struct control *c, uint32_t index, const char *name, size_t len);
/* "main, cache, sessions and 10 more", as far as the buffer goes. */
void control_names(const struct control *c, char *buffer, size_t size);

/* What one exchange came to, for the statistics. */
struct outcome_counts {
        uint32_t ok, failed, timeouts;
        uint64_t call_ns; /* 0: no reply came */
};
/* One sampled hold of a warm lease. */
void segment_count_hold(const struct segment *s, uint32_t database, uint64_t held_ns);
void segment_count(const struct segment *s, uint32_t database, const struct outcome_counts *counts);

/* SPDX-License-Identifier: MIT */
/*
 * The broker is trusted to mean well, not to be of our version or free of mistakes: memory that could shrink under
 * us (SIGBUS) or whose table leaves its bounds is refused at attach. Both mappings are MADV_DONTFORK: a child has
 * sessions of its own, and must not count for its parent.
 */
#include "control.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/command.h"
#include "base/histogram.h"
#include "error.h"

#define COPY_PIECE 64U
#define COPY_REST 8U /* divides the size of both texts */
_Static_assert(LESSOR_ERROR_TEXT % COPY_REST == 0 && LESSOR_BREAKER_TEXT_SIZE % COPY_REST == 0, "whole pieces");
#define TRUST_NS (10 * NS_PER_S) /* beyond the next probe's time, an open breaker is believed no longer */

const char *shared_map(int fd, uint64_t size, int protection, void **ret) {
        struct stat st;
        int seals;
        void *map;

        if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || size > SIZE_MAX / 2 || (uint64_t)st.st_size < size)
                return "shared memory is smaller than announced";
        seals = fcntl(fd, F_GET_SEALS);
        if (seals < 0 || !(seals & F_SEAL_SHRINK))
                return "shared memory is not sealed against shrinking";
        map = mmap(NULL, (size_t)size, protection, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED)
                return "shared memory cannot be mapped (out of address space or memory?)";
        madvise(map, (size_t)size, MADV_DONTFORK);
        *ret = map;
        return NULL;
}

void shared_fade(const void *map, size_t size, int protection) {
        void *at = (void *)(uintptr_t)map, *zeros;

        if (!at)
                return;
        zeros = mmap(NULL, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (zeros == MAP_FAILED)
                return;
        madvise(zeros, size, MADV_DONTFORK);
        /* In one step: at no time is there nothing. (And not by mmap(), which sanitizers take for a write to what is there.) */
        if (mremap(zeros, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, at) == MAP_FAILED)
                munmap(zeros, size);
}

/* How many entries of `stride` fit from `offset` on. */
static uint64_t table_room(uint64_t size, uint64_t offset, uint64_t stride) {
        return offset > size ? 0 : (size - offset) / stride;
}

static const char *control_check(struct control *c, uint64_t instance) {
        const struct lessor_control *page = c->page;
        uint64_t room;

        if (page->magic != LESSOR_CONTROL_MAGIC)
                return "the control page has no magic number";
        if (page->version != LESSOR_CONTROL_VERSION)
                return "the control page has an unknown version";
        if (page->instance != instance)
                return "the control page belongs to another instance";
        c->stride = page->database_size;
        if (c->stride < sizeof(struct lessor_control_database) || c->stride % 8 != 0)
                return "the control page has entries too small";
        room = table_room(c->size, offsetof(struct lessor_control, database), c->stride);
        c->room = room < UINT32_MAX ? (uint32_t)room : UINT32_MAX;
        if (page->commands_offset > 0 && page->commands_offset % 8 == 0 &&
            table_room(c->size, page->commands_offset, sizeof(*c->commands)) >= LESSOR_DATABASES_MAX)
                c->commands = (const void *)((const char *)page + page->commands_offset);
        if (page->bells_offset > 0 && page->bells_offset % sizeof(*c->bells) == 0 &&
            table_room(c->size, page->bells_offset, sizeof(*c->bells)) >= LESSOR_THREADS_MAX)
                c->bells = (const void *)((const char *)page + page->bells_offset);
        return NULL;
}

const char *control_map(int fd, uint64_t size, uint64_t instance, struct control *ret) {
        struct control c = {.size = (size_t)size};
        const char *wrong;
        void *map;

        if (size < offsetof(struct lessor_control, database))
                return "the control page is too small";
        wrong = shared_map(fd, size, PROT_READ, &map);
        if (wrong)
                return wrong;
        c.page = map;
        wrong = control_check(&c, instance);
        if (wrong)
                control_unmap(&c);
        else
                *ret = c;
        return wrong;
}

static const char *segment_check_words(struct segment *s) {
        char *start = (char *)s->base;

        if (s->base->words_offset % sizeof(struct lessor_slot) != 0 || s->base->sites_offset % 8 != 0 ||
            s->base->tickets_offset % sizeof(struct lessor_ticket) != 0)
                return "the session segment has its words out of place";
        if (s->base->words_offset > 0 &&
            table_room(s->size, s->base->words_offset, sizeof(struct lessor_slot)) >= s->base->words) {
                s->slots = (struct lessor_slot *)(void *)(start + s->base->words_offset);
                s->words = s->base->words;
        }
        if (s->base->tickets_offset > 0 &&
            table_room(s->size, s->base->tickets_offset, sizeof(struct lessor_ticket)) >= LESSOR_TICKETS)
                s->tickets = (struct lessor_ticket *)(void *)(start + s->base->tickets_offset);
        if (s->base->sites_offset > 0 && table_room(s->size, s->base->sites_offset, LESSOR_SITE_SIZE) >= LESSOR_SITES)
                s->sites = (char(*)[LESSOR_SITE_SIZE])(void *)(start + s->base->sites_offset);
        return NULL;
}

static const char *segment_check(struct segment *s, uint64_t session) {
        const struct lessor_segment *base = s->base;
        uint64_t room;

        if (base->magic != LESSOR_SEGMENT_MAGIC)
                return "the session segment has no magic number";
        if (base->version != LESSOR_SEGMENT_VERSION)
                return "the session segment has an unknown version";
        if (base->session != session)
                return "the session segment belongs to another session";
        s->offset = base->database_offset;
        s->stride = base->database_size;
        if (s->offset < sizeof(struct lessor_segment) || s->offset % 8 != 0 ||
            s->stride < sizeof(struct lessor_segment_database) || s->stride % 8 != 0)
                return "the session segment has entries out of place";
        room = table_room(s->size, s->offset, s->stride);
        s->databases = room < base->databases ? (uint32_t)room : base->databases;
        return segment_check_words(s);
}

const char *segment_map(int fd, uint64_t size, uint64_t session, struct segment *ret) {
        struct segment s = {.size = (size_t)size};
        const char *wrong;
        void *map;

        if (size < sizeof(struct lessor_segment))
                return "the session segment is too small";
        wrong = shared_map(fd, size, PROT_READ | PROT_WRITE, &map);
        if (wrong)
                return wrong;
        s.base = map;
        wrong = segment_check(&s, session);
        if (wrong)
                segment_unmap(&s);
        else
                *ret = s;
        return wrong;
}

void control_unmap(struct control *c) {
        if (c->page)
                munmap((void *)(uintptr_t)c->page, c->size);
        c->page = NULL;
}

void segment_unmap(struct segment *s) {
        if (s->base)
                munmap(s->base, s->size);
        s->base = NULL;
}

const struct lessor_control_database *control_database(const struct control *c, uint32_t index) {
        const char *table = (const char *)c->page + offsetof(struct lessor_control, database);
        const struct lessor_control_database *db;

        /* Both loads pair with the broker's release stores: entries below the count, fields before the state. */
        if (index >= c->room || index >= __atomic_load_n(&c->page->databases, __ATOMIC_ACQUIRE))
                return NULL;
        db = (const struct lessor_control_database *)(const void *)(table + index * c->stride);
        return __atomic_load_n(&db->state, __ATOMIC_ACQUIRE) == LESSOR_CONTROL_OPEN ? db : NULL;
}

/*
 * In pieces of known sizes, which are a few moves each: gcc makes `rep movs` of the whole, which takes longer to begin than
 * this to end. What is copied beyond the text lies in both arrays, and is nobody's.
 */
static inline void control_copy_text(char *to, const char *from, size_t length) {
        size_t i = 0;

        for (; i < length && i + COPY_PIECE <= LESSOR_ERROR_TEXT; i += COPY_PIECE)
                memcpy(to + i, from + i, COPY_PIECE);
        for (; i < length; i += COPY_REST)
                memcpy(to + i, from + i, COPY_REST);
        to[length] = '\0';
}

/* Changed again and again under us, or by a broker that died over it: no text to be had. */
static __attribute__((noinline)) int control_refusal_bare(const struct lessor_control_database *db,
                                                          lessor_error *error) {
        error_set(error, LESSOR_E_BREAKER_OPEN, "database `%.*s`: circuit breaker open", (int)sizeof(db->name),
                  db->name);
        error_retry(error, NS_PER_MS);
        return LESSOR_E_BREAKER_OPEN;
}

/* Pairs with control_page_set_breaker() of the broker. */
int control_refusal_told(const struct lessor_control_database *db, lessor_error *error) {
        enum { TRIES = 3 };
        /* 4 ms are fine enough here, at a third of the cost. */
        uint64_t now = clock_ns(CLOCK_MONOTONIC_COARSE);

        for (int i = 0; i < TRIES; i++) {
                uint64_t word = __atomic_load_n(&db->breaker, __ATOMIC_ACQUIRE);
                uint64_t retry = __atomic_load_n(&db->breaker_retry_ns, __ATOMIC_RELAXED);
                uint64_t length = __atomic_load_n(&db->breaker_length, __ATOMIC_RELAXED);
                if ((word & 3) == LESSOR_BREAKER_CLOSED)
                        return 0;
                if ((word & 3) == LESSOR_BREAKER_CHANGING)
                        continue;
                if (now >= time_after(retry, TRUST_NS))
                        return 0; /* a living broker has probed by then: ask it, and see whether it lives */
                error->code = LESSOR_E_BREAKER_OPEN;
                error->may_have_run = false;
                error_retry(error, retry > now ? retry - now : NS_PER_MS);
                control_copy_text(error->text, db->breaker_text,
                                  length < LESSOR_ERROR_TEXT ? length : LESSOR_ERROR_TEXT - 1);
                __atomic_thread_fence(__ATOMIC_ACQUIRE);
                if (__builtin_expect(__atomic_load_n(&db->breaker, __ATOMIC_RELAXED) == word, 1))
                        return LESSOR_E_BREAKER_OPEN;
        }
        return control_refusal_bare(db, error);
}

bool control_says_harmless(const struct control *c, uint32_t index, const char *name, size_t len) {
        const struct lessor_control_commands *commands;
        uint32_t size;

        if (!c->commands || index >= LESSOR_DATABASES_MAX)
                return false;
        commands = c->commands + index;
        /* Pairs with the release in control_page_set_commands(): the names are whole, and never change. */
        size = __atomic_load_n(&commands->size, __ATOMIC_ACQUIRE);
        return size <= sizeof(commands->names) && command_listed(commands->names, size, name, len);
}

static uint32_t control_count(const struct control *c) {
        uint32_t n = __atomic_load_n(&c->page->databases, __ATOMIC_ACQUIRE);
        return n < c->room ? n : c->room;
}

const struct lessor_control_database *control_find(const struct control *c, const char *name, uint32_t *ret_index) {
        for (uint32_t i = 0, n = control_count(c); i < n; i++) {
                const struct lessor_control_database *db = control_database(c, i);
                if (db && strncmp(db->name, name, sizeof(db->name)) == 0) {
                        *ret_index = i;
                        return db;
                }
        }
        return NULL;
}

void control_names(const struct control *c, char *buffer, size_t size) {
        enum { MORE = sizeof(" and 4294967295 more") };
        size_t used = 0;
        unsigned left = 0;

        buffer[0] = '\0';
        for (uint32_t i = 0, n = control_count(c); i < n; i++) {
                const struct lessor_control_database *db = control_database(c, i);
                size_t length = db ? strnlen(db->name, sizeof(db->name)) : 0;
                if (length == 0)
                        continue;
                if (left > 0 || used + 2 + length + MORE > size) {
                        left++;
                        continue;
                }
                used += (size_t)snprintf(buffer + used, size - used, "%s%.*s", used > 0 ? ", " : "", (int)length,
                                         db->name);
        }
        if (left > 0)
                snprintf(buffer + used, size - used, " and %u more", left);
}

static struct lessor_segment_database *segment_database(const struct segment *s, uint32_t database) {
        if (!s->base || database >= s->databases)
                return NULL;
        return (struct lessor_segment_database *)(void *)((char *)s->base + s->offset + database * s->stride);
}

void segment_count_hold(const struct segment *s, uint32_t database, uint64_t held_ns) {
        struct lessor_segment_database *db = segment_database(s, database);

        if (!db)
                return;
        __atomic_fetch_add(&db->hold_time[histogram_bucket(held_ns)], 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&db->holds_sampled, 1, __ATOMIC_RELAXED);
}

/* Relaxed: each number stands for itself, and the broker sums them up whenever it looks. */
void segment_count(const struct segment *s, uint32_t database, const struct outcome_counts *counts) {
        struct lessor_segment_database *db = segment_database(s, database);

        if (!db)
                return;
        if (counts->ok > 0) {
                __atomic_fetch_add(&db->operations_ok, counts->ok, __ATOMIC_RELAXED);
                /* The coarse clock: 4 ms are fine enough for "when did it last work", at a third of the cost. */
                __atomic_store_n(&db->last_success_ns, clock_ns(CLOCK_REALTIME_COARSE), __ATOMIC_RELAXED);
        }
        if (counts->failed > 0)
                __atomic_fetch_add(&db->operations_failed, counts->failed, __ATOMIC_RELAXED);
        if (counts->timeouts > 0)
                __atomic_fetch_add(&db->timeouts, counts->timeouts, __ATOMIC_RELAXED);
        if (counts->call_ns > 0)
                __atomic_fetch_add(&db->call_time[histogram_bucket(counts->call_ns)], 1, __ATOMIC_RELAXED);
}

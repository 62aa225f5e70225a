/* SPDX-License-Identifier: MIT */
#include "session_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/futex.h"
#include "base/histogram.h"

/*
 * What a worker of a few connections and two databases touches is the first page, and no other: the header, the tickets,
 * the first words, the first databases' counters. The other words come after the counters, which are taken out of their
 * table: the numbers of words that would lie there are never granted.
 */
#define PAGE 4096U
#define TICKETS_OFFSET 128U
#define WORDS_OFFSET (TICKETS_OFFSET + LESSOR_TICKETS * sizeof(struct lessor_ticket))
#define WORDS_NEAR 16U
#define DATABASE_OFFSET (WORDS_OFFSET + WORDS_NEAR * sizeof(struct lessor_slot))
#define DATABASE_END (DATABASE_OFFSET + LESSOR_DATABASES_MAX * sizeof(struct lessor_segment_database))
#define WORDS_FAR ((DATABASE_END - WORDS_OFFSET) / sizeof(struct lessor_slot)) /* the first of the others */
#define WORDS (WORDS_FAR + LESSOR_WORDS_MAX - WORDS_NEAR)
#define SITES_OFFSET (WORDS_OFFSET + WORDS * sizeof(struct lessor_slot))
#define SEGMENT_SIZE ((SITES_OFFSET + LESSOR_SITES * LESSOR_SITE_SIZE + PAGE - 1) / PAGE * PAGE)
_Static_assert(sizeof(struct lessor_segment) <= TICKETS_OFFSET, "the header ends before the tickets");
_Static_assert(sizeof(struct lessor_ticket) == 64 && WORDS_OFFSET % 64 == 0, "one cache line each");
_Static_assert(sizeof(struct lessor_slot) == 64 && DATABASE_END % 64 == 0, "words begin where the counters end");
_Static_assert(DATABASE_OFFSET + 2 * sizeof(struct lessor_segment_database) <= PAGE, "two databases in the first page");

/* No process does more commands a second: what grows faster is garbage. */
#define OPERATIONS_PER_S_MAX UINT64_C(20000000)

/* What was last seen on one database: made at its first use, most workers use few. */
struct seen {
        struct seen *next;
        unsigned database;
        uint64_t ok, failed, timeouts, holds;
        uint32_t call_time[LESSOR_CALL_BUCKETS], hold_time[LESSOR_CALL_BUCKETS];
};

struct session_memory {
        struct lessor_segment *map;
        struct seen *seen;
        atomic_uint references, words, open_requests;
        _Atomic uint64_t used[LESSOR_DATABASES_MAX / 64];
};

void session_memory_note_use(struct session_memory *memory, unsigned database) {
        _Atomic uint64_t *word = &memory->used[database / 64];
        uint64_t bit = UINT64_C(1) << database % 64;
        if (!(atomic_load_explicit(word, memory_order_relaxed) & bit))
                atomic_fetch_or_explicit(word, bit, memory_order_relaxed);
}

uint64_t session_memory_used(const struct session_memory *memory, unsigned word) {
        return atomic_load_explicit(&memory->used[word], memory_order_relaxed);
}

uint64_t session_memory_size(void) { return SEGMENT_SIZE; }

int session_memory_new(uint64_t session, uint64_t instance, struct session_memory **ret, int *ret_fd) {
        _cleanup_(fd_closep) int fd = memfd_create("lessor-session", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0 || ftruncate(fd, (off_t)SEGMENT_SIZE) < 0 ||
            fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
                return -errno;
        struct session_memory *memory = calloc(1, sizeof(*memory));
        if (!memory)
                return -ENOMEM;
        memory->map = mmap(NULL, SEGMENT_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (memory->map == MAP_FAILED) {
                free(memory);
                return -errno;
        }
        *memory->map = (struct lessor_segment){.magic = LESSOR_SEGMENT_MAGIC,
                                               .version = LESSOR_SEGMENT_VERSION,
                                               .database_offset = DATABASE_OFFSET,
                                               .database_size = sizeof(struct lessor_segment_database),
                                               .databases = LESSOR_DATABASES_MAX,
                                               .session = session,
                                               .instance = instance,
                                               .tickets_offset = TICKETS_OFFSET,
                                               .words_offset = WORDS_OFFSET,
                                               .words = WORDS,
                                               .sites_offset = SITES_OFFSET};
        atomic_init(&memory->references, 1);
        *ret = memory;
        *ret_fd = fd_steal(&fd);
        return 0;
}

static void session_memory_free(struct session_memory *memory) {
        while (memory->seen) {
                struct seen *next = memory->seen->next;
                free(memory->seen);
                memory->seen = next;
        }
        munmap(memory->map, SEGMENT_SIZE);
        free(memory);
}

struct session_memory *session_memory_ref(struct session_memory *memory) {
        atomic_fetch_add_explicit(&memory->references, 1, memory_order_relaxed);
        return memory;
}

struct session_memory *session_memory_unref(struct session_memory *memory) {
        /* acq_rel: what the others did with it happens before it goes. */
        if (memory && atomic_fetch_sub_explicit(&memory->references, 1, memory_order_acq_rel) == 1)
                session_memory_free(memory);
        return NULL;
}

uint32_t session_memory_new_word(struct session_memory *memory) {
        unsigned used = atomic_load_explicit(&memory->words, memory_order_relaxed);
        while (used < LESSOR_WORDS_MAX)
                if (atomic_compare_exchange_weak_explicit(&memory->words, &used, used + 1, memory_order_relaxed,
                                                          memory_order_relaxed))
                        return used < WORDS_NEAR ? used : used - WORDS_NEAR + WORDS_FAR;
        return LESSOR_WORD_NONE;
}

struct lessor_slot *session_memory_slot(struct session_memory *memory, uint32_t word) {
        return (struct lessor_slot *)(void *)((char *)memory->map + WORDS_OFFSET) + word;
}

atomic_uint *session_memory_open_requests(struct session_memory *memory) { return &memory->open_requests; }

static struct lessor_ticket *ticket_at(struct session_memory *memory, uint32_t ticket) {
        return (struct lessor_ticket *)(void *)((char *)memory->map + TICKETS_OFFSET) + (ticket - 1);
}

static void answer_ticket(struct lessor_ticket *t, uint32_t state) {
        _Atomic(uint32_t) *word = (_Atomic(uint32_t) *)&t->state;
        /* Release, pairs with the acquire in libclient: the grant is there, or the mail is on its way. */
        atomic_store_explicit(word, state, memory_order_release);
        futex_wake(word);
}

void session_memory_grant(struct session_memory *memory, uint32_t ticket, const struct lessor_msg_grant *g) {
        struct lessor_ticket *t = ticket_at(memory, ticket);
        t->slot = g->slot;
        t->word = g->word;
        t->forget = g->forget;
        t->request = g->header.request;
        t->generation = g->generation;
        t->lease = g->lease;
        t->client_id = g->client_id;
        t->sequence = g->sequence;
        answer_ticket(t, LESSOR_TICKET_GRANTED);
        atomic_fetch_sub_explicit(&memory->open_requests, 1, memory_order_relaxed);
}

void session_memory_mail(struct session_memory *memory, uint32_t ticket) {
        answer_ticket(ticket_at(memory, ticket), LESSOR_TICKET_MAIL);
}

void session_memory_site(struct session_memory *memory, uint32_t site, char to[LESSOR_SITE_SIZE]) {
        size_t n = 0;
        if (site >= 1 && site <= LESSOR_SITES) {
                const char *from = (const char *)memory->map + SITES_OFFSET + (size_t)(site - 1) * LESSOR_SITE_SIZE;
                for (; n < LESSOR_SITE_SIZE - 1; n++) {
                        char c = atomic_load_explicit((const _Atomic char *)&from[n], memory_order_relaxed);
                        if (c == '\0')
                                break;
                        to[n] = c >= ' ' && c <= '~' ? c : '?';
                }
        }
        memset(to + n, 0, LESSOR_SITE_SIZE - n);
}

static struct seen *seen_of(struct session_memory *memory, unsigned database) {
        struct seen *s = memory->seen;
        while (s && s->database != database)
                s = s->next;
        if (!s && (s = calloc(1, sizeof(*s)))) {
                s->database = database;
                s->next = memory->seen;
                memory->seen = s;
        }
        return s;
}

/* Growth since `*last`; a counter that fell is one that grew by nearly 2^64, which `most` refuses as well. */
static uint64_t growth(uint64_t now, uint64_t *last, uint64_t most) {
        uint64_t grown = now - *last;
        *last = now;
        return grown <= most ? grown : 0;
}

static uint64_t load(const uint64_t *word) {
        return atomic_load_explicit((const _Atomic uint64_t *)word, memory_order_relaxed);
}

static void harvest_histogram(const uint32_t from[LESSOR_CALL_BUCKETS], uint32_t last[LESSOR_CALL_BUCKETS],
                              uint64_t most, struct lessor_status_histogram *h) {
        for (unsigned i = 0; i < LESSOR_CALL_BUCKETS; i++) {
                uint32_t now = atomic_load_explicit((const _Atomic uint32_t *)&from[i], memory_order_relaxed);
                uint32_t grown = now - last[i];
                last[i] = now;
                if (grown == 0 || grown > most)
                        continue;
                uint64_t longest = lessor_status_bucket_below_ns(i);
                h->bucket[i] += grown;
                h->count += grown;
                h->sum_ns += grown * histogram_bucket_middle(i);
                if (i == LESSOR_CALL_BUCKETS - 1)
                        longest = histogram_bucket_middle(i);
                if (longest > h->max_ns)
                        h->max_ns = longest;
        }
}

int session_memory_harvest(struct session_memory *memory, unsigned database, uint64_t elapsed_ns, uint64_t wall_ns,
                           struct worker_totals *totals) {
        const struct lessor_segment_database *d =
                (const struct lessor_segment_database *)(const void *)((const char *)memory->map + DATABASE_OFFSET) +
                database;
        struct seen *s = seen_of(memory, database);
        uint64_t most = OPERATIONS_PER_S_MAX / NS_PER_MS * (elapsed_ns / NS_PER_US + 1) + OPERATIONS_PER_S_MAX / 100;
        if (!s)
                return -ENOMEM;
        uint64_t ok = growth(load(&d->operations_ok), &s->ok, most);
        uint64_t failed = growth(load(&d->operations_failed), &s->failed, most);
        uint64_t holds = growth(load(&d->holds_sampled), &s->holds, most);
        if (holds > 0)
                harvest_histogram(d->hold_time, s->hold_time, most, &totals->hold_time);
        if (ok == 0 && failed == 0)
                return 0; /* the common case: nothing since, and no histogram to read */
        totals->operations_ok += ok;
        totals->operations_failed += failed;
        totals->timeouts += growth(load(&d->timeouts), &s->timeouts, most);
        uint64_t last_success = load(&d->last_success_ns);
        if (last_success > totals->last_success_ns && last_success <= wall_ns)
                totals->last_success_ns = last_success;
        harvest_histogram(d->call_time, s->call_time, most, &totals->call_time);
        return 0;
}

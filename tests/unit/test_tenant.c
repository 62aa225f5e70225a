/* SPDX-License-Identifier: MIT */
/* The ledger of what a session holds at one database, and of the fds its worker keeps. */
#include "tenant.h"

#include "base/cleanup.h"

#include "support/check.h"

enum { CACHE = 2 };

static struct session_memory *memory;
static struct tenant *tenant;

static void setup(void) {
        int fd;
        check_eq(session_memory_new(7, 1, &memory, &fd), 0);
        close(fd);
        tenant = tenant_new(NULL, 7, memory);
        check(tenant != NULL);
}

static void teardown(void) {
        tenant_free(tenant);
        session_memory_unref(memory);
}

#define TENANT_TEST(name) TEST_WITH(tenant, name, .init = setup, .fini = teardown, .timeout = 60)

static struct pool_conn conn(unsigned slot, uint64_t generation) {
        static uint64_t last;
        return (struct pool_conn){.slot = slot, .generation = generation, .lease = ++last};
}

static struct place *grant(unsigned slot, uint64_t generation) {
        struct pool_conn c = conn(slot, generation);
        struct place *p = tenant_grant(tenant, &c, CACHE);
        check(p != NULL);
        check_eq(p->state, PLACE_BUSY);
        check_eq(p->lease, c.lease);
        check(p->slot == slot && p->generation == generation);
        return p;
}

static unsigned count(enum place_state state) {
        unsigned n = 0;
        list_for_each (&tenant->places[state], it)
                n++;
        return n;
}

static unsigned kept_and_idle(void) {
        unsigned n = 0;
        list_for_each (&tenant->places[PLACE_IDLE], it)
                n += container_of(it, struct place, link)->kept;
        return n;
}

TENANT_TEST(a_connection_that_comes_back_finds_its_word_and_its_fd_again) {
        struct place *p = grant(3, 1);
        uint32_t word = p->word;
        check(word != LESSOR_WORD_NONE && !p->kept);
        tenant_returned(p, true);
        check_eq(tenant->n_idle, 1);
        check(grant(3, 1) == p);
        check(p->kept);
        check_eq(p->word, word);
        check_eq(tenant->n_idle, 0);
}

TENANT_TEST(a_connection_dialled_anew_needs_its_fd_again) {
        struct place *p = grant(3, 1);
        tenant_returned(p, true);
        check(grant(3, 2) == p); /* the same slot: the same word */
        check(!p->kept);
}

TENANT_TEST(who_gave_his_fd_back_is_sent_it_again) {
        struct place *p = grant(0, 1);
        tenant_returned(p, false);
        check(grant(0, 1) == p);
        check(!p->kept);
}

TENANT_TEST(leases_held_together_have_words_of_their_own) {
        struct place *a = grant(0, 1), *b = grant(1, 1), *c = grant(2, 1);
        check(a->word != b->word && b->word != c->word && a->word != c->word);
        check_eq(count(PLACE_BUSY), 3);
        check(place_slot(a) != place_slot(b));
}

TENANT_TEST(a_place_without_an_fd_serves_another_connection_first) {
        struct place *kept = grant(0, 1), *empty = grant(1, 1);
        uint32_t word = empty->word;
        tenant_returned(kept, true);
        tenant_returned(empty, false);
        check(grant(2, 1) == empty);
        check_eq(empty->word, word);
        check(!empty->kept);
}

TENANT_TEST(below_the_cache_a_new_connection_gets_a_new_place_and_the_old_fd_stays) {
        struct place *a = grant(0, 1);
        tenant_returned(a, true);
        struct place *b = grant(1, 1);
        check(b != a && b->word != a->word);
        check(a->kept);
}

TENANT_TEST(with_a_full_cache_the_longest_unused_place_is_taken_over) {
        struct place *a = grant(0, 1), *b = grant(1, 1);
        tenant_returned(b, true);
        tenant_returned(a, true);
        check(grant(2, 1) == b);
        check(!b->kept);
        check(grant(0, 1) == a);
        check(a->kept);
}

TENANT_TEST(whatever_is_granted_the_fds_kept_are_no_more_than_the_cache) {
        enum { SLOTS = 20 };
        struct place *held[SLOTS];
        for (unsigned i = 0; i < SLOTS; i++)
                held[i] = grant(i, 1);
        for (unsigned i = 0; i < SLOTS; i++)
                tenant_returned(held[i], true);
        check_eq(kept_and_idle(), SLOTS);
        /* Each grant has the worker close one more, the longest unused first; none that the grant itself is about. */
        for (unsigned i = 0; i < SLOTS; i++) {
                struct place *p = grant(SLOTS - 1, 1);
                check(p->kept);
                uint32_t forget = tenant_forget(tenant, CACHE);
                check(forget == LESSOR_WORD_NONE ? kept_and_idle() <= CACHE : forget == held[i]->word);
                check(forget != p->word);
                tenant_returned(p, true);
        }
        check(kept_and_idle() <= CACHE + 1); /* the one just returned among them */
        check_eq(count(PLACE_BUSY) + count(PLACE_ENDED), 0);
}

TENANT_TEST(what_is_beyond_the_cache_grows_less_even_if_each_grant_is_of_what_was_just_forgotten) {
        enum { SLOTS = 8 };
        struct place *held[SLOTS];
        for (unsigned i = 0; i < SLOTS; i++)
                held[i] = grant(i, 1);
        for (unsigned i = 0; i < SLOTS; i++)
                tenant_returned(held[i], true);
        for (unsigned i = 0; i < 2 * SLOTS; i++) {
                struct place *p = grant(i % SLOTS, 1);
                tenant_forget(tenant, CACHE);
                tenant_returned(p, true);
        }
        check(kept_and_idle() <= CACHE + 1);
}

TENANT_TEST(nothing_is_forgotten_below_the_cache) {
        check_eq(tenant_forget(tenant, CACHE), LESSOR_WORD_NONE);
        struct place *a = grant(0, 1), *b = grant(1, 1);
        tenant_returned(a, true);
        tenant_returned(b, true);
        check_eq(tenant_forget(tenant, CACHE), LESSOR_WORD_NONE);
        check(a->kept && b->kept);
        check_eq(tenant_forget(tenant, 1), a->word);
        check_eq(tenant_forget(tenant, 1), LESSOR_WORD_NONE); /* said once */
        check(!a->kept && b->kept);
}

TENANT_TEST(no_cache_at_all_keeps_no_fd) {
        struct pool_conn c = conn(0, 1);
        struct place *p = tenant_grant(tenant, &c, 0);
        tenant_returned(p, true);
        check_eq(tenant_forget(tenant, 0), p->word);
        check_eq(kept_and_idle(), 0);
}

TENANT_TEST(an_ended_lease_keeps_its_word_until_its_return_comes) {
        struct place *p = grant(0, 1);
        uint64_t lease = p->lease;
        tenant_ended(p);
        check_eq(p->state, PLACE_ENDED);
        struct place *other = grant(0, 2); /* the same slot, a new connection: somebody may be using the old fd */
        check(other != p && other->word != p->word);
        check(tenant_find(tenant, 0, 1, lease) == p);
        tenant_returned(p, true);
        check_eq(p->state, PLACE_IDLE);
        check(tenant_find(tenant, 0, 1, lease) == NULL);
}

TENANT_TEST(a_lease_is_found_by_all_three_of_its_numbers_and_as_long_as_it_lasts) {
        struct place *p = grant(4, 9);
        check(tenant_find(tenant, 4, 9, p->lease) == p);
        check(tenant_find(tenant, 5, 9, p->lease) == NULL);
        check(tenant_find(tenant, 4, 8, p->lease) == NULL);
        check(tenant_find(tenant, 4, 9, p->lease + 1) == NULL);
        tenant_returned(p, true);
        check(tenant_find(tenant, 4, 9, p->lease) == NULL);
}

TENANT_TEST(when_the_words_run_out_leases_go_by_messages_alone) {
        struct place *last = NULL;
        for (unsigned i = 0; i < LESSOR_WORDS_MAX; i++) {
                struct place *p = grant(i, 1);
                check(!last || p->word > last->word);
                last = p;
        }
        struct place *cold = grant(LESSOR_WORDS_MAX, 1);
        check_eq(cold->word, LESSOR_WORD_NONE);
        check(place_slot(cold) == NULL);
        tenant_returned(cold, true); /* nothing of it stays */
        check_eq(tenant->n_idle, 0);
        /* Then a place that is idle serves, full cache or not. */
        tenant_returned(last, true);
        check(grant(LESSOR_WORDS_MAX + 1, 1) == last);
}

/* Some numbers would lie among the databases' counters. */
TENANT_TEST(no_word_lies_on_anything_else_in_the_segment) {
        const struct lessor_segment *header =
                (const void *)((uintptr_t)session_memory_slot(memory, 0) & ~(uintptr_t)4095);
        size_t counters = header->database_offset, end = counters + header->databases * header->database_size;
        check_eq(header->magic, LESSOR_SEGMENT_MAGIC);
        for (unsigned i = 0; i < LESSOR_WORDS_MAX; i++) {
                const struct place *p = grant(i, 1);
                size_t at = (size_t)((const char *)place_slot(p) - (const char *)header);
                check(p->word < header->words);
                check_eq(at, header->words_offset + p->word * sizeof(struct lessor_slot));
                check(at >= header->tickets_offset + LESSOR_TICKETS * sizeof(struct lessor_ticket));
                check(at + sizeof(struct lessor_slot) <= counters || at >= end);
                check(at + sizeof(struct lessor_slot) <= header->sites_offset);
        }
        check(header->sites_offset + LESSOR_SITES * LESSOR_SITE_SIZE <= session_memory_size());
}

TENANT_TEST(words_are_the_sessions_and_never_shared_by_two_databases) {
        struct tenant *other = tenant_new(NULL, 7, memory);
        struct pool_conn c = conn(0, 1);
        struct place *a = grant(0, 1), *b = tenant_grant(other, &c, CACHE);
        check(a->word != b->word);
        tenant_free(other);
}

TEST(tenant, who_has_no_segment_leases_by_messages_alone_and_keeps_nothing) {
        struct tenant *t = tenant_new(NULL, 8, NULL);
        struct pool_conn c = conn(0, 1);
        struct place *p = tenant_grant(t, &c, CACHE);
        check_eq(p->word, LESSOR_WORD_NONE);
        check(!p->kept && place_slot(p) == NULL);
        tenant_ended(p);
        tenant_returned(p, true);
        check_eq(t->n_idle, 0);
        check_eq(tenant_forget(t, 0), LESSOR_WORD_NONE);
        tenant_free(t);
}

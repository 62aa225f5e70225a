/* SPDX-License-Identifier: MIT */
/* Lists are short (leases, and a handful of kept fds): they are walked. */
#include "tenant.h"

#include <assert.h>
#include <stdlib.h>

#include "base/cleanup.h"

struct tenant *tenant_new(struct loop *home, uint64_t session, struct session_memory *memory) {
        struct tenant *t = calloc(1, sizeof(*t));
        if (!t)
                return NULL;
        list_init(&t->link);
        t->home = home;
        t->session = session;
        t->memory = memory ? session_memory_ref(memory) : NULL;
        for (unsigned i = 0; i < ARRAY_SIZE(t->places); i++)
                list_init(&t->places[i]);
        return t;
}

void tenant_free(struct tenant *t) {
        if (!t)
                return;
        for (unsigned i = 0; i < ARRAY_SIZE(t->places); i++)
                list_for_each_safe (&t->places[i], it, next)
                        free(container_of(it, struct place, link));
        session_memory_unref(t->memory);
        free(t);
}

static void move(struct place *p, enum place_state to) {
        list_remove(&p->link);
        p->tenant->n_idle -= p->state == PLACE_IDLE;
        p->state = to;
        p->tenant->n_idle += to == PLACE_IDLE;
        list_push_back(&p->tenant->places[to], &p->link);
}

static struct place *place_new(struct tenant *t, uint32_t word) {
        struct place *p = calloc(1, sizeof(*p));
        if (!p)
                return NULL;
        p->tenant = t;
        p->word = word;
        p->state = PLACE_BUSY;
        list_push_back(&t->places[PLACE_BUSY], &p->link);
        return p;
}

/* The place under which he has an fd of that slot. */
static struct place *find_kept(struct tenant *t, unsigned slot) {
        list_for_each (&t->places[PLACE_IDLE], it) {
                struct place *p = container_of(it, struct place, link);
                if (p->kept && p->slot == slot)
                        return p;
        }
        return NULL;
}

/* The longest unused of those whose fd he has, or of the others; *ret_n: how many there are. */
static struct place *oldest(struct tenant *t, bool kept, unsigned *ret_n) {
        struct place *first = NULL;
        *ret_n = 0;
        list_for_each (&t->places[PLACE_IDLE], it) {
                struct place *p = container_of(it, struct place, link);
                if (p->kept != kept)
                        continue;
                first = first ? first : p;
                ++*ret_n;
        }
        return first;
}

/*
 * For a connection that he has no fd of. With a full cache the new fd takes the place of another, although there may be a
 * place without one: else what is beyond the cache would never grow less.
 */
static struct place *find_room(struct tenant *t, unsigned fd_cache) {
        unsigned n_kept, n_empty;
        struct place *kept = oldest(t, true, &n_kept), *empty = oldest(t, false, &n_empty);
        if (!t->memory)
                return place_new(t, LESSOR_WORD_NONE);
        if (kept && n_kept >= fd_cache)
                return kept;
        if (empty)
                return empty;
        uint32_t word = session_memory_new_word(t->memory);
        return word == LESSOR_WORD_NONE && kept ? kept : place_new(t, word);
}

struct place *tenant_grant(struct tenant *t, const struct pool_conn *conn, unsigned fd_cache) {
        struct place *p = find_kept(t, conn->slot);
        if (!p && !(p = find_room(t, fd_cache)))
                return NULL;
        p->kept = p->kept && p->slot == conn->slot && p->generation == conn->generation;
        p->slot = conn->slot;
        p->generation = conn->generation;
        p->lease = conn->lease;
        p->parked = p->frozen = p->warned = false;
        move(p, PLACE_BUSY);
        return p;
}

uint32_t tenant_forget(struct tenant *t, unsigned fd_cache) {
        unsigned n_kept;
        if (t->n_idle <= fd_cache)
                return LESSOR_WORD_NONE;
        struct place *p = oldest(t, true, &n_kept);
        if (n_kept <= fd_cache)
                return LESSOR_WORD_NONE;
        p->kept = false;
        return p->word;
}

void tenant_returned(struct place *p, bool kept) {
        assert(p->state != PLACE_IDLE);
        p->kept = kept && p->word != LESSOR_WORD_NONE;
        move(p, PLACE_IDLE);
        if (p->word != LESSOR_WORD_NONE)
                return;
        list_remove(&p->link);
        p->tenant->n_idle--;
        free(p);
}

void tenant_ended(struct place *p) {
        assert(p->state == PLACE_BUSY);
        move(p, PLACE_ENDED);
}

static struct place *find_in(struct list *places, unsigned slot, uint64_t generation, uint64_t lease) {
        list_for_each (places, it) {
                struct place *p = container_of(it, struct place, link);
                if (p->lease == lease && p->slot == slot && p->generation == generation)
                        return p;
        }
        return NULL;
}

struct place *tenant_find(struct tenant *t, unsigned slot, uint64_t generation, uint64_t lease) {
        struct place *p = find_in(&t->places[PLACE_BUSY], slot, generation, lease);
        return p ? p : find_in(&t->places[PLACE_ENDED], slot, generation, lease);
}

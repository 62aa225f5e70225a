/* SPDX-License-Identifier: MIT */
/*
 * Who may touch a lease object: the thread that holds it (its word is HELD, or it is cold); and, while its word is VACANT,
 * whoever reads the session's socket, under the session's lock: the broker grants a word only when its last lease is over
 * and told so. So a RETURN is the last thing a thread does with a lease.
 */
#include "warm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "error.h"

_Thread_local struct warm_hint warm_hint __attribute__((tls_model("initial-exec")));
_Atomic uint32_t warm_sets_freed;

int32_t warm_thread_id(void) {
        uint32_t now = fork_epoch();

        if (warm_hint.tid == 0 || warm_hint.epoch != now)
                warm_hint = (struct warm_hint){.epoch = now, .tid = (int32_t)syscall(SYS_gettid)};
        return warm_hint.tid;
}

/* ---- taking and parking -------------------------------------------------------------------------------------------- */

static void warm_remember(struct lessor_lease *l) {
        warm_hint.tid = warm_thread_id();
        warm_hint.set = l->set;
        warm_hint.lease = l;
        warm_hint.freed = atomic_load(&warm_sets_freed);
}

struct lessor_lease *warm_take(struct warm_set *set, struct site site) {
        /* Acquire, pairs with the release in warm_add(). */
        struct lessor_lease *l = atomic_load_explicit(&set->first, memory_order_acquire);

        while (l && !word_retake(&l->slot->word, &l->held))
                l = l->next;
        if (!l)
                return NULL;
        warm_began(l);
        warm_remember(l);
        warm_note(l, site, warm_hint.tid);
        return l;
}

void warm_measure(struct lessor_lease *l) { l->sampled = clock_now(); }

void warm_sample(struct lessor_lease *l) {
        uint64_t held_ns = clock_now() - l->sampled;

        slot_held_for(l->slot, held_ns);
        segment_count_hold(&l->set->session->segment, l->set->database, held_ns);
        l->sampled = 0;
}

/* ---- giving back --------------------------------------------------------------------------------------------------- */

static void lease_free_context(struct lessor_lease *l) {
        if (!l->context)
                return;
        l->stream.reader = NULL; /* the context's by now */
        redisFreeKeepFd(l->context);
        l->context = NULL;
}

/* Everything but the object: the connection is no longer this process'. */
static void lease_drop(struct lessor_lease *l) {
        if (l->epoch == fork_epoch())
                guard_free(l->guard);
        l->guard = NULL;
        lease_free_context(l);
        stream_deinit(&l->stream);
}

static void warm_set_free(struct warm_set *set) {
        for (struct lessor_lease *l = atomic_load(&set->first), *next; l; l = next) {
                next = l->next;
                lease_drop(l);
                free(l);
        }
        if (set->uses)
                session_unref(set->session);
        session_drop(set->session);
        atomic_fetch_add(&warm_sets_freed, 1);
        free(set);
}

/* After lessor_close(): one lease less that needs the set. */
static void warm_set_released(struct warm_set *set) {
        /* acq_rel: what others did with it happens before it goes. */
        if (atomic_load(&set->state) == WARM_CLOSED &&
            atomic_fetch_sub_explicit(&set->pending, 1, memory_order_acq_rel) == 1)
                warm_set_free(set);
}

static uint32_t lease_proof(const struct lessor_lease *l, bool clean) {
        if (clean)
                return LESSOR_RETURN_CLEAN;
        return (lease_resettable(l) ? LESSOR_RETURN_RESETTABLE : 0) | (l->unknown ? LESSOR_RETURN_UNKNOWN : 0);
}

/*
 * The fds that are kept for a next grant, when there is none to come: the session is over. Without a broker nobody else ends
 * these connections, and Redis would see them for as long as this process lives. A lease that is neither parked nor held is nobody's
 * but the lock's.
 */
static void warm_set_forget(struct warm_set *set) {
        struct session *s = set->session;

        pthread_mutex_lock(&s->lock);
        for (struct lessor_lease *l = session_over(s) ? atomic_load(&set->first) : NULL; l; l = l->next) {
                /* Acquire, pairs with word_park(): what its last holder did is there. */
                uint64_t word = atomic_load_explicit(&l->slot->word, memory_order_acquire);
                bool given = atomic_load_explicit(&l->given, memory_order_relaxed);
                if (!warm_is_busy(l) && (given || word_state(word) == WORD_STATE_VACANT))
                        lease_drop(l);
        }
        pthread_mutex_unlock(&s->lock);
}

void warm_give_back(struct lessor_lease *l, bool clean) {
        struct warm_set *set = l->set;
        bool mine = l->epoch == fork_epoch(), cold = !l->slot;
        bool kept = mine && clean && !cold && atomic_load(&set->state) == WARM_OPEN;
        struct lessor_msg_return m = {
                .database = l->grant.database,
                .slot = l->grant.slot,
                .generation = l->grant.generation,
                .lease = l->grant.lease,
                .flags = lease_proof(l, clean) | (kept ? LESSOR_RETURN_KEPT : 0),
                .requests = l->stream.requests,
                .replies = l->stream.replies,
        };
        int keep = errno;

        if (mine && l->sampled)
                warm_sample(l);
        /* The fd goes first: when the broker hands the connection on, we have nothing of it any more, or it knows. */
        if (!kept)
                lease_drop(l);
        atomic_store_explicit(&l->given, true, memory_order_relaxed);
        warm_set_busy(l, false);
        /* Release, pairs with warm_at(): it may be granted again, at another thread's ticket, before we have the lock. */
        if (mine && !cold)
                atomic_fetch_or_explicit(&l->slot->word, 0, memory_order_release);
        if (cold)
                free(l);
        if (mine)
                session_return(set->session, &m, cold);
        if (cold)
                atomic_fetch_sub(&set->cold, 1);
        /* Kept for the next grant, and meanwhile there is none to come. */
        if (kept && atomic_load(&set->state) != WARM_OPEN)
                warm_set_forget(set);
        warm_set_released(set);
        errno = keep;
}

/* ---- sets ---------------------------------------------------------------------------------------------------------- */

/* What is parked is the caller's; what is held cannot be parked any more. False: neither. */
static bool warm_freeze(struct lessor_lease *l) {
        lessor_atomic64 *word = &l->slot->word;

        if (word_retake(word, &l->held)) {
                warm_set_busy(l, true);
                l->touched = true;
                return true;
        }
        /* As the broker would: from here on the holder gives it back by message. */
        atomic_fetch_or_explicit(word, WORD_WANTED_BIT, memory_order_relaxed);
        return false;
}

static void warm_set_give_up(struct warm_set *set) {
        for (struct lessor_lease *l = atomic_load(&set->first); l; l = l->next) {
                if (!l->slot || set->epoch != fork_epoch())
                        continue;
                if (warm_freeze(l))
                        warm_give_back(l, true);
                else if (!warm_is_busy(l))
                        lease_drop(l);
        }
}

/* A newer session has taken over. */
static void warm_set_retire(struct warm_set *set) {
        int open = WARM_OPEN;

        if (!atomic_compare_exchange_strong(&set->state, &open, WARM_RETIRED) || set->epoch != fork_epoch())
                return;
        for (struct lessor_lease *l = atomic_load(&set->first); l; l = l->next)
                if (warm_freeze(l))
                        warm_give_back(l, true);
        warm_set_forget(set);
        if (session_over(set->session))
                session_retire(set->session);
}

void warm_retire_others(struct lessor *client, const struct session *s) {
        for (struct lessor_db *db = atomic_load(&client->databases); db; db = db->next) {
                struct warm_set *set = atomic_load_explicit(&db->warm, memory_order_acquire);
                if (set && set->session != s)
                        warm_set_retire(set);
        }
}

void warm_set_close(struct warm_set *set) {
        unsigned held = atomic_load(&set->cold);

        set->uses = session_hold(set->session);
        atomic_store(&set->state, WARM_RETIRED);
        warm_set_give_up(set);
        for (struct lessor_lease *l = atomic_load(&set->first); l; l = l->next)
                held += warm_is_busy(l);
        atomic_store(&set->pending, held + 1);
        atomic_store(&set->state, WARM_CLOSED);
        warm_set_released(set);
}

static struct warm_set *warm_set_new(struct lessor_db *db, struct session *s, uint32_t database,
                                     const struct lessor_control_database *control) {
        struct warm_set *set = calloc(1, sizeof(*set));

        if (!set)
                return NULL;
        set->session = session_keep(s);
        set->control = control;
        set->database = database;
        set->epoch = s->epoch;
        memcpy(set->name, db->name, sizeof(set->name));
        return set;
}

struct warm_set *warm_set_for(struct lessor_db *db, struct session *s, uint32_t database,
                              const struct lessor_control_database *control) {
        struct warm_set *set = atomic_load_explicit(&db->warm, memory_order_acquire), *fresh;

        if (set && set->session == s && set->database == database)
                return set;
        fresh = warm_set_new(db, s, database, control);
        if (!fresh)
                return NULL;
        do {
                if (set && set->session == s && set->database == database) {
                        warm_set_free(fresh);
                        return set;
                }
                fresh->older = set;
                /* Release: the set is complete; pairs with warm_current(). */
        } while (!atomic_compare_exchange_weak_explicit(&db->warm, &set, fresh, memory_order_acq_rel,
                                                        memory_order_acquire));
        if (set)
                warm_set_retire(set);
        return fresh;
}

/* ---- words -------------------------------------------------------------------------------------------------------- */

/* A table of tables, made at need: a worker who holds one lease does not pay for four thousand words when he attaches. */
enum { WORDS_PER_TABLE = 64 };

static uint32_t word_tables(const struct session *s) {
        return s->segment.words / WORDS_PER_TABLE + (s->segment.words % WORDS_PER_TABLE > 0);
}

int warm_words_init(struct session *s) {
        s->by_word = calloc(word_tables(s) + 1, sizeof(*s->by_word));
        return s->by_word ? 0 : -ENOMEM;
}

void warm_words_free(struct session *s) {
        for (uint32_t i = 0; s->by_word && i < word_tables(s); i++)
                free(s->by_word[i]);
        free(s->by_word);
}

/* Session lock held, likewise below. */
static struct lessor_lease *word_lease(const struct session *s, uint32_t word) {
        struct lessor_lease **table = word < s->segment.words ? s->by_word[word / WORDS_PER_TABLE] : NULL;
        return table ? table[word % WORDS_PER_TABLE] : NULL;
}

static int word_set_lease(struct session *s, uint32_t word, struct lessor_lease *l) {
        struct lessor_lease ***table = &s->by_word[word / WORDS_PER_TABLE];

        if (!*table)
                *table = calloc(WORDS_PER_TABLE, sizeof(**table));
        if (!*table)
                return -ENOMEM;
        (*table)[word % WORDS_PER_TABLE] = l;
        return 0;
}

/* ---- grants -------------------------------------------------------------------------------------------------------- */

static struct lessor_lease *lease_new(struct warm_set *set) {
        const size_t line = 64;
        struct lessor_lease *l = aligned_alloc(line, (sizeof(*l) + line - 1) / line * line);

        if (l)
                *l = (struct lessor_lease){.set = set,
                                           .epoch = set->epoch,
                                           .attention = &set->session->attention,
                                           .breaker = &set->control->breaker};
        return l;
}

/* Session lock held. The lease object of this word; NULL: out of memory. */
static struct lessor_lease *warm_add(struct session *s, struct warm_set *set, uint32_t word) {
        struct lessor_lease *l = lease_new(set), *first;

        if (!l || word_set_lease(s, word, l) < 0) {
                free(l);
                return NULL;
        }
        l->slot = &s->segment.slots[word];
        first = atomic_load_explicit(&set->first, memory_order_relaxed);
        do
                l->next = first;
        /* Release: the lease is complete; pairs with warm_search(). */
        while (!atomic_compare_exchange_weak_explicit(&set->first, &first, l, memory_order_release,
                                                      memory_order_relaxed));
        return l;
}

/* Session lock held. The object under this word, nobody's now: the broker has said something about it. */
static struct lessor_lease *warm_at(struct session *s, uint32_t word) {
        struct lessor_lease *l = word_lease(s, word);

        if (l) /* acquire, pairs with word_park(): what its last holder did is there */
                atomic_load_explicit(&l->slot->word, memory_order_acquire);
        return l;
}

/*
 * Session lock held. The fd of a connection that the broker counts as given up. Grants by ticket and by message overtake
 * each other: what was granted under that word after `g` is not meant.
 */
static void warm_forget(struct session *s, const struct lessor_msg_grant *g) {
        struct lessor_lease *l = g->forget == g->word ? NULL : warm_at(s, g->forget);

        if (l && l->grant.lease < g->lease && !warm_is_busy(l)) {
                lease_drop(l);
                STEP("fd forgotten");
        }
}

static bool warm_has(const struct lessor_lease *l, const struct lessor_msg_grant *g) {
        return l->guard && l->grant.slot == g->slot && l->grant.generation == g->generation;
}

static int lease_begin(struct lessor_lease *l, const struct lessor_msg_grant *g, int fd) {
        uint64_t timeout = l->set->control->socket_timeout_ns;

        if (!(g->flags & LESSOR_GRANT_KEPT)) {
                struct guard *guard = guard_new(fd);
                if (!guard)
                        return -ENOMEM;
                lease_drop(l);
                STEP("fd replaced");
                l->guard = guard;
        }
        /* Others had it meanwhile: nothing about the socket is as we left it. */
        l->stream = (struct stream){.fd = guard_fd(l->guard), .reader = l->stream.reader};
        l->trail = (struct command_trail){0};
        l->unknown = false;
        l->grant = *g;
        l->broken = 0;
        l->touched = l->pinned = l->raw = false;
        atomic_store_explicit(&l->given, false, memory_order_relaxed);
        l->last_used = 0;
        l->sampled = 0;
        l->socket_timeout_ns = timeout > 0 ? timeout : TIME_NEVER;
        l->timeout_ns = l->socket_timeout_ns;
        warm_set_busy(l, true);
        return 0;
}

/* -EPROTO; 0 and *ret the object for it; -ENOMEM. */
static int warm_object(struct session *s, struct warm_set *set, const struct lessor_msg_grant *g,
                       struct lessor_lease **ret) {
        struct lessor_lease *l;

        if (g->word == LESSOR_WORD_NONE) {
                *ret = lease_new(set);
                return g->flags & LESSOR_GRANT_KEPT ? -EPROTO : *ret ? 0 : -ENOMEM;
        }
        if (g->word >= s->segment.words)
                return -EPROTO;
        l = warm_at(s, g->word);
        if (l && (l->set != set || warm_is_busy(l)))
                return -EPROTO;
        if (g->flags & LESSOR_GRANT_KEPT && !(l && warm_has(l, g)))
                return -EPROTO;
        *ret = l ? l : warm_add(s, set, g->word);
        return *ret ? 0 : -ENOMEM;
}

int warm_granted(struct session *s, struct warm_set *set, const struct lessor_msg_grant *g, int fd,
                 struct lessor_lease **ret) {
        struct lessor_lease *l = NULL;
        int r;

        warm_forget(s, g);
        r = fd < 0 && !(g->flags & LESSOR_GRANT_KEPT) ? -EMFILE : warm_object(s, set, g, &l);
        if (r == 0)
                r = lease_begin(l, g, fd);
        if (r < 0) {
                if (l && !l->slot)
                        free(l);
                fd_close(fd);
                return r;
        }
        l->held = word_value(WORD_STATE_HELD, g->generation, g->sequence);
        if (!l->slot)
                atomic_fetch_add(&set->cold, 1);
        *ret = l;
        return 0;
}

bool warm_orphaned(struct session *s, const struct lessor_msg_grant *g, int fd) {
        struct lessor_lease *l = warm_at(s, g->word);

        fd_close(fd);
        warm_forget(s, g);
        if (l && g->flags & LESSOR_GRANT_KEPT)
                return warm_has(l, g);
        if (l && !warm_is_busy(l)) /* the word is another connection's now */
                lease_drop(l);
        return false;
}

bool warm_any_busy(const struct session *s) {
        for (uint32_t word = 0; word < s->segment.words; word++) {
                const struct lessor_lease *l = word_lease(s, word);
                if (l && warm_is_busy(l))
                        return true;
        }
        return false;
}

bool warm_accept(struct lessor_lease *l, struct site site) {
        if (!l->slot)
                return true;
        if (!word_accept(&l->slot->word, l->held))
                return false;
        l->sampled = clock_now(); /* of those that come from the broker, each is measured */
        warm_remember(l);
        /* The broker has heard of them in LEASE: they are written down when somebody else retakes it. */
        l->site = site;
        l->tid = warm_hint.tid;
        return true;
}

/* ---- who and where ------------------------------------------------------------------------------------------------- */

/* "file.c:123". By hand: snprintf() would be a noticeable part of a lease's time. */
void site_text(struct site site, char text[LESSOR_SITE_SIZE]) {
        char digits[12];
        size_t length = 0, n = 0;
        const char *base = site.file ? strrchr(site.file, '/') : NULL;

        text[0] = '\0';
        if (!site.file)
                return;
        base = base ? base + 1 : site.file;
        while (base[length] && length < LESSOR_SITE_SIZE - sizeof(digits) - 2)
                length++;
        memcpy(text, base, length);
        if (site.line > 0) {
                text[length++] = ':';
                for (unsigned left = (unsigned)site.line; left > 0; left /= 10)
                        digits[n++] = (char)('0' + left % 10);
        }
        while (n > 0)
                text[length++] = digits[--n];
        text[length] = '\0';
}

enum { SITE_PROBES = 8 };

static uint32_t site_start(struct site site) {
        uint64_t key = (uint64_t)(uintptr_t)site.file + (uint64_t)site.line * UINT64_C(0x9e3779b97f4a7c15);
        return (uint32_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> 32);
}

/* 1 + its place in the table; 0: it is not there. *ret_free: a place it could have, likewise. */
static uint32_t site_find(const struct session_site *sites, struct site site, uint32_t *ret_free) {
        uint32_t start = site_start(site);

        *ret_free = 0;
        for (uint32_t i = 0; i < SITE_PROBES; i++) {
                uint32_t at = (start + i) % LESSOR_SITES;
                /* Acquire, pairs with the release in site_add(): the line is there. */
                const char *file = atomic_load_explicit(&sites[at].file, memory_order_acquire);
                if (!file) {
                        *ret_free = at + 1;
                        return 0;
                }
                if (file == site.file && sites[at].line == site.line)
                        return at + 1;
        }
        return 0;
}

/* Session lock held. 0: there is no room. */
static uint32_t site_add(struct session *s, struct session_site *sites, struct site site) {
        uint32_t room, number = site_find(sites, site, &room);

        if (!number && room) {
                number = room;
                site_text(site, s->segment.sites[number - 1]);
                sites[number - 1].line = site.line;
                atomic_store_explicit(&sites[number - 1].file, site.file, memory_order_release);
        }
        return number;
}

/* The session's table; its first use makes it. NULL: out of memory. */
static struct session_site *session_sites(struct session *s) {
        struct session_site *sites = atomic_load_explicit(&s->sites, memory_order_acquire), *fresh;

        if (sites)
                return sites;
        fresh = calloc(LESSOR_SITES, sizeof(*fresh));
        /* Release: it is empty; pairs with the load above. */
        if (!fresh || atomic_compare_exchange_strong_explicit(&s->sites, &sites, fresh, memory_order_acq_rel,
                                                              memory_order_acquire))
                return fresh;
        free(fresh);
        return sites;
}

static uint32_t site_number(struct session *s, struct site site) {
        struct session_site *sites = site.file && s->segment.sites ? session_sites(s) : NULL;
        uint32_t room, number = sites ? site_find(sites, site, &room) : 0;

        if (number || !sites || !room)
                return number;
        pthread_mutex_lock(&s->lock);
        number = site_add(s, sites, site);
        pthread_mutex_unlock(&s->lock);
        return number;
}

void warm_note_site(struct lessor_lease *l, struct site site, int32_t tid) {
        atomic_store_explicit(&l->slot->tid, (uint32_t)tid, memory_order_relaxed);
        atomic_store_explicit(&l->slot->site, site_number(l->set->session, site), memory_order_relaxed);
        l->tid = tid;
        l->site = site;
}

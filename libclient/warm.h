/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The connections that this process keeps of one database: leases as objects that stay, because a parked one is taken
 * again by compare-and-swap on its word in the session segment (base/word.h), without a system call or a lock.
 *
 * A set belongs to one session and one database. It is published in lessor_db by a release store, only ever grows, and
 * is freed by lessor_close(), or by the last lease that was still held then: whoever finds a set may walk it. When a new
 * session takes over, the old set is retired: what is parked in it is given up, what is held goes on to its release.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "client.h"
#include "fork.h"
#include "lease.h"
#include "step.h"

enum warm_state { WARM_OPEN, WARM_RETIRED, WARM_CLOSED };

struct warm_set {
        struct session *session; /* which it keeps */
        bool uses;               /* a reference to it, too: it outlives its handle */
        const struct lessor_control_database *control;
        uint32_t database; /* its number in this session */
        uint32_t epoch;    /* the session's: another process' set is not to be touched */
        _Atomic(struct lessor_lease *) first;
        atomic_int state;       /* enum warm_state */
        atomic_uint cold;       /* leases without a word that are held */
        atomic_uint pending;    /* WARM_CLOSED: leases still held; the last one frees the set */
        struct warm_set *older; /* of an earlier session, or of a parent process */
        char name[LESSOR_NAME_SIZE];
};

/* The set of this process that leases may be taken from without asking anybody; NULL. */
static inline struct warm_set *warm_current(struct lessor_db *db) {
        /* Acquire, pairs with the release in warm_set_for(). */
        struct warm_set *set = atomic_load_explicit(&db->warm, memory_order_acquire);
        return set && set->epoch == fork_epoch() ? set : NULL;
}

static inline bool warm_is_quiet(const atomic_uint *attention) {
        return __builtin_expect(atomic_load_explicit(attention, memory_order_relaxed) == 0, 1);
}

/* The database's circuit breaker is; else control_refusal() says what to tell. */
static inline bool warm_is_closed(const uint64_t *breaker) {
        return __builtin_expect((__atomic_load_n(breaker, __ATOMIC_RELAXED) & 3) == LESSOR_BREAKER_CLOSED, 1);
}

/*
 * Where this thread found its last lease: most threads use one. All of it holds as long as the set is the database's, no
 * set was freed since (an address may be used again), and the process is the same. In the static TLS block: no call to find it.
 */
struct warm_hint {
        const struct warm_set *set;
        struct lessor_lease *lease;
        uint32_t freed, epoch;
        int32_t tid;
};
extern _Thread_local struct warm_hint warm_hint __attribute__((tls_model("initial-exec")));
extern _Atomic uint32_t warm_sets_freed;

void warm_note_site(struct lessor_lease *l, struct site site, int32_t tid);

static inline void warm_note(struct lessor_lease *l, struct site site, int32_t tid) {
        if (__builtin_expect((l->site.file != site.file) | (l->site.line != site.line) | (l->tid != tid), 0))
                warm_note_site(l, site, tid);
}

void warm_measure(struct lessor_lease *l); /* this hold, from now on */

/* Relaxed: a plain load or store. Others look at it when the broker has not answered somebody, see session_settle(). */
static inline void warm_set_busy(struct lessor_lease *l, bool busy) {
        atomic_store_explicit(&l->busy, busy, memory_order_relaxed);
}
static inline bool warm_is_busy(const struct lessor_lease *l) {
        return atomic_load_explicit(&l->busy, memory_order_relaxed);
}

static inline void warm_began(struct lessor_lease *l) {
        if (__builtin_expect(slot_retaken(l->slot), 0))
                warm_measure(l);
        warm_set_busy(l, true);
}

/* The lease that this thread had last, if it is parked and nobody wants it; NULL: search. Nothing but loads and one CAS. */
static inline __attribute__((always_inline)) struct lessor_lease *warm_take_last(struct lessor_db *db,
                                                                                 struct site site) {
        const struct warm_hint *hint = &warm_hint;
        struct lessor_lease *l = hint->lease;

        if (!l || hint->set != atomic_load_explicit(&db->warm, memory_order_acquire) ||
            hint->freed != atomic_load_explicit(&warm_sets_freed, memory_order_relaxed) ||
            hint->epoch != fork_epoch() || !warm_is_quiet(l->attention) || !warm_is_closed(l->breaker))
                return NULL;
        STEP("before retake");
        if (!word_retake(&l->slot->word, &l->held))
                return NULL;
        STEP("retaken");
        warm_began(l);
        warm_note(l, site, hint->tid);
        return l;
}

/* Has a connection of it ever been kept here? Then the next grant may need no fd. */
static inline bool warm_keeps_any(struct warm_set *set) {
        return atomic_load_explicit(&set->first, memory_order_relaxed) != NULL;
}

/* The table of a session's words; -ENOMEM. */
int warm_words_init(struct session *s);
void warm_words_free(struct session *s);

/* A parked lease, held by the caller from now on; NULL: there is none, or it is wanted by others. */
struct lessor_lease *warm_take(struct warm_set *set, struct site site);

/* The other samples than those of warm leases are taken where the broker grants. */
void warm_sample(struct lessor_lease *l);
/* Parks it. False: the caller still holds it, and gives it back by warm_give_back(). */
static inline bool warm_park(struct lessor_lease *l) {
        if (__builtin_expect(l->sampled != 0, 0))
                warm_sample(l);
        warm_set_busy(l, false);
        STEP("before park");
        if (__builtin_expect(word_park(&l->slot->word, l->held) == WORD_PARKED, 1)) {
                STEP("parked");
                return true;
        }
        STEP("not parked, wanted");
        warm_set_busy(l, true); /* WANTED, or the broker has ended it: in both cases to be told */
        return false;
}
/* Ends the holding by RETURN, whatever came of it, and frees what goes with it. `clean`: with proof. Keeps errno. */
void warm_give_back(struct lessor_lease *l, bool clean);

/* The session's set of this database, made and published at its first use; NULL: out of memory. */
struct warm_set *warm_set_for(struct lessor_db *db, struct session *s, uint32_t database,
                              const struct lessor_control_database *control);
/* `s` has taken over: what other sessions had parked of any database is given up. */
void warm_retire_others(struct lessor *client, const struct session *s);
/* lessor_close(): gives back what is parked; the set goes with the last lease that is still held. */
void warm_set_close(struct warm_set *set);

/*
 * A GRANT has come. Session lock held, `fd` is taken (-1: none). 0: *ret is the asker's, and to be accepted by
 * warm_accept(); -ENOMEM; -EMFILE the fd was lost on the way; -EPROTO the broker is mistaken.
 */
int warm_granted(struct session *s, struct warm_set *set, const struct lessor_msg_grant *g, int fd,
                 struct lessor_lease **ret);
/* Likewise for a GRANT that nobody waits for any more. True: the fd is still kept under its word. */
bool warm_orphaned(struct session *s, const struct lessor_msg_grant *g, int fd);
/* Session lock held. Does any thread hold a lease with a word? */
bool warm_any_busy(const struct session *s);
/* The thread that asked: false when the broker has ended the lease meanwhile. */
bool warm_accept(struct lessor_lease *l, struct site site);

void site_text(struct site site, char text[LESSOR_SITE_SIZE]); /* "file.c:123" */
int32_t warm_thread_id(void);                                  /* gettid(), once a thread and process */

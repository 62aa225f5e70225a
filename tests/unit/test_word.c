/* SPDX-License-Identifier: MIT */
/*
 * The lease word: every operation on every kind of value; threads on both sides (under ThreadSanitizer: what a holder
 * leaves in plain memory reaches the next); garbage; death at any instant. tests/model/word proves the protocol itself.
 */
#include "base/word.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "support/check.h"

#define INVALID 3U
#define GENERATION_MAX WORD_GENERATION_MASK
#define SEQUENCE_MAX WORD_SEQUENCE_MASK

static uint64_t load(lessor_atomic64 *word) { return atomic_load_explicit(word, memory_order_relaxed); }

/* By the layout of the header's first picture, not by its macros. */
static uint64_t raw(unsigned state, bool wanted, uint64_t generation, uint64_t sequence) {
        return state + (wanted ? 4 : 0) + generation * 8 + sequence * (UINT64_C(1) << 27);
}

struct kind {
        unsigned state;
        bool wanted;
        uint64_t generation, sequence, value;
};

static const uint64_t generations[] = {0, 1, 0x155555, GENERATION_MAX - 1, GENERATION_MAX};
static const uint64_t sequences[] = {0, 1, UINT64_C(0x1234567890), SEQUENCE_MAX - 1, SEQUENCE_MAX};

/* Runs f on every kind of word; its own generation (bits beyond the 24 count for nothing) and others asked for. */
static void each_kind(void (*f)(const struct kind *kind, uint64_t generation)) {
        for (unsigned state = 0; state <= INVALID; state++)
                for (unsigned wanted = 0; wanted < 2; wanted++)
                        for (unsigned g = 0; g < ARRAY_SIZE(generations); g++)
                                for (unsigned s = 0; s < ARRAY_SIZE(sequences); s++) {
                                        struct kind k = {state, wanted, generations[g], sequences[s], 0};
                                        k.value = raw(state, wanted, k.generation, k.sequence);
                                        for (unsigned asked = 0; asked < ARRAY_SIZE(generations); asked++)
                                                f(&k, generations[asked]);
                                        f(&k, k.generation | UINT64_C(0xabcdef) << 24);
                                        f(&k, k.generation ^ 1U << 23);
                                }
}

#define check_word(word, expected)                                                                                     \
        check_msg(load(word) == (expected), "%" PRIx64 " is not %s, %" PRIx64, load(word), #expected,                  \
                  (uint64_t)(expected))

/* ---- one thread: state x operation ------------------------------------------------------------------------------- */

TEST(word, the_parts_of_a_value_are_where_the_layout_says) {
        for (unsigned g = 0; g < ARRAY_SIZE(generations); g++)
                for (unsigned s = 0; s < ARRAY_SIZE(sequences); s++) {
                        uint64_t value = word_value(WORD_STATE_PARKED, generations[g], sequences[s]);
                        check(value == raw(2, false, generations[g], sequences[s]));
                        check(!word_is_wanted(value) && word_is_wanted(value | 4));
                        check_eq(word_state(value), WORD_STATE_PARKED);
                        check(word_generation(value) == generations[g]);
                        check(word_sequence(value) == sequences[s]);
                }
        /* Too long for their fields, they spill into nobody else's. */
        check(word_value(WORD_STATE_HELD, UINT64_MAX, 0) == raw(1, false, GENERATION_MAX, 0));
        check(word_value(WORD_STATE_HELD, 0, UINT64_MAX) == raw(1, false, 0, SEQUENCE_MAX));
        check_eq(word_state(UINT64_MAX), INVALID);
        check_eq(sizeof(struct lessor_slot), 64);
}

static void grant_one(const struct kind *k, uint64_t generation) {
        lessor_atomic64 word = k->value;
        check_eq(word_grant(&word, generation, k->sequence + 1), k->state == WORD_STATE_VACANT && !k->wanted);
        check_word(&word, raw(1, false, generation & GENERATION_MAX, (k->sequence + 1) & SEQUENCE_MAX));
}

TEST(word, a_grant_makes_any_word_held_and_says_whether_it_was_vacant) { each_kind(grant_one); }

static void recall_one(const struct kind *k, uint64_t generation) {
        lessor_atomic64 word = k->value;
        bool right = (generation & GENERATION_MAX) == k->generation;
        enum word_recall outcome = word_recall(&word, generation);
        if (right && k->state == WORD_STATE_PARKED) {
                check_eq(outcome, WORD_RECALLED);
                check_word(&word, raw(0, false, k->generation, k->sequence));
        } else {
                check_eq(outcome, right && k->state == WORD_STATE_HELD ? WORD_WANTED : WORD_BAD);
                check_word(&word, k->value | 4);
        }
}

TEST(word, a_recall_takes_what_is_parked_and_marks_what_is_held) { each_kind(recall_one); }

static void unwant_one(const struct kind *k, uint64_t generation) {
        lessor_atomic64 word = k->value;
        bool right = (generation & GENERATION_MAX) == k->generation;
        bool cleared = right && k->wanted && k->state == WORD_STATE_HELD;
        check_eq(word_unwant(&word, generation), cleared);
        check_word(&word, cleared ? k->value - 4 : k->value);
}

TEST(word, wanted_is_cleared_from_a_held_word_of_that_generation_only) { each_kind(unwant_one); }

static void vacate_one(const struct kind *k, uint64_t generation) {
        lessor_atomic64 word = k->value;
        word_vacate(&word);
        check_word(&word, raw(0, false, k->generation, k->sequence));
        check(word_next_sequence(&word) == (k->sequence == SEQUENCE_MAX ? 0 : k->sequence + 1));
        check(word_grant(&word, generation, word_next_sequence(&word)));
}

TEST(word, any_word_can_be_vacated_and_then_granted) { each_kind(vacate_one); }

static void accept_and_park_one(const struct kind *k, uint64_t generation) {
        for (unsigned s = 0; s < ARRAY_SIZE(sequences); s++) {
                uint64_t held = word_value(WORD_STATE_HELD, generation, sequences[s]);
                bool mine = k->state == WORD_STATE_HELD && (generation & GENERATION_MAX) == k->generation &&
                            sequences[s] == k->sequence;
                lessor_atomic64 word = k->value;
                check_eq(word_accept(&word, held), mine);
                check_word(&word, k->value);
                if (mine && !k->wanted) {
                        check_eq(word_park(&word, held), WORD_PARKED);
                        check_word(&word, k->value + 1);
                } else {
                        check_eq(word_park(&word, held), mine ? WORD_RETURN : WORD_LOST);
                        check_word(&word, k->value);
                }
        }
}

TEST(word, only_the_very_lease_is_parked_and_only_if_nobody_wants_it) { each_kind(accept_and_park_one); }

static void retake_one(const struct kind *k, uint64_t generation) {
        lessor_atomic64 word = k->value;
        uint64_t held = 7;
        if (k->state == WORD_STATE_PARKED && !k->wanted) {
                uint64_t next = k->sequence == SEQUENCE_MAX ? 0 : k->sequence + 1;
                check(word_retake(&word, &held));
                check(held == raw(1, false, k->generation, next));
                check_word(&word, held);
                check(word_accept(&word, held));
        } else {
                check(!word_retake(&word, &held));
                check(held == 7);
                check_word(&word, k->value);
        }
}

TEST(word, a_parked_word_is_retaken_with_the_next_sequence_unless_wanted) { each_kind(retake_one); }

TEST(word, the_sequence_wraps_and_goes_on) {
        lessor_atomic64 word = 0;
        uint64_t held;
        check(word_grant(&word, GENERATION_MAX, SEQUENCE_MAX - 1));
        held = word_value(WORD_STATE_HELD, GENERATION_MAX, SEQUENCE_MAX - 1);
        for (unsigned i = 0; i < 4; i++) {
                check_eq(word_park(&word, held), WORD_PARKED);
                check(word_retake(&word, &held));
                check(word_sequence(held) == ((SEQUENCE_MAX + i) & SEQUENCE_MAX));
                check(word_generation(held) == GENERATION_MAX);
        }
        /* The 24 bits of the generation wrap as well: 2^24 sockets later it is the same, and its neighbour is not. */
        check_eq(word_recall(&word, GENERATION_MAX + (UINT64_C(5) << 24)), WORD_WANTED);
        check(!word_unwant(&word, GENERATION_MAX + 1));
        check(word_unwant(&word, GENERATION_MAX));
}

TEST(word, a_recall_and_its_withdrawal_may_be_said_twice) {
        lessor_atomic64 word = 0;
        check(word_grant(&word, 9, 1));
        check_eq(word_recall(&word, 9), WORD_WANTED);
        check_eq(word_recall(&word, 9), WORD_WANTED);
        check(word_unwant(&word, 9));
        check(!word_unwant(&word, 9));
        check_word(&word, raw(1, false, 9, 1));
}

TEST(word, who_comes_late_changes_nothing_about_the_next_lease) {
        lessor_atomic64 word = 0;
        uint64_t first = word_value(WORD_STATE_HELD, 1, 1), second, third;
        check(word_grant(&word, 1, word_next_sequence(&word)));
        check(word_accept(&word, first));
        word_vacate(&word); /* revoked; the same socket is granted to another thread */
        check_eq(word_park(&word, first), WORD_LOST);
        second = word_value(WORD_STATE_HELD, 1, word_next_sequence(&word));
        check(word_grant(&word, 1, word_next_sequence(&word)));
        check(!word_accept(&word, first));
        check(word_accept(&word, second));
        check_eq(word_park(&word, first), WORD_LOST);
        check_eq(word_recall(&word, 1), WORD_WANTED);
        check_eq(word_park(&word, first), WORD_LOST);
        check(word_unwant(&word, 1));
        check_eq(word_park(&word, second), WORD_PARKED);
        check_eq(word_park(&word, second), WORD_LOST);
        check(word_retake(&word, &third));
        check_eq(word_park(&word, second), WORD_LOST);
        check_eq(word_park(&word, third), WORD_PARKED);
}

TEST(word, one_hold_in_sixty_four_is_measured_the_first_included) {
        struct lessor_slot slot = {.word = 0};
        unsigned measured = 0;
        for (unsigned i = 0; i < 3 * SLOT_SAMPLE_EVERY; i++)
                if (slot_retaken(&slot)) {
                        check_eq(i % SLOT_SAMPLE_EVERY, 0);
                        slot_held_for(&slot, 10 + measured++);
                }
        check_eq(load(&slot.retakes), 3 * SLOT_SAMPLE_EVERY);
        check_eq(load(&slot.held_samples), 3);
        check_eq(load(&slot.held_ns), 33);
}

/* ---- threads on both sides --------------------------------------------------------------------------------------- */

struct relay {
        lessor_atomic64 word;
        uint64_t broker_wrote, worker_wrote; /* plain on purpose: handed over by the word and by nothing else */
        unsigned wrong;
};
enum { RELAYS = 2000 };

static void *accept_and_park(void *argument) {
        struct relay *r = argument;
        for (uint64_t round = 1; round <= RELAYS; round++) {
                uint64_t held = word_value(WORD_STATE_HELD, round, round);
                while (!word_accept(&r->word, held))
                        sched_yield();
                r->wrong += r->broker_wrote != round;
                r->worker_wrote = round;
                r->wrong += word_park(&r->word, held) != WORD_PARKED;
        }
        return NULL;
}

TEST(word, what_was_written_before_a_grant_or_a_park_is_seen_by_who_has_the_word_next) {
        struct relay r = {.word = 0};
        pthread_t thread;
        check_eq(pthread_create(&thread, NULL, accept_and_park, &r), 0);
        for (uint64_t round = 1; round <= RELAYS; round++) {
                r.broker_wrote = round;
                word_grant(&r.word, round, round);
                while (word_state(load(&r.word)) != WORD_STATE_PARKED)
                        sched_yield();
                if (round % 2)
                        word_vacate(&r.word);
                else
                        check_eq(word_recall(&r.word, round), WORD_RECALLED);
                check(r.worker_wrote == round);
        }
        pthread_join(thread, NULL);
        check_eq(r.wrong, 0);
}

/*
 * A pool of SLOTS connections, WORKERS threads of one worker process and, in the broker's thread, callers of other
 * processes. Messages and grants go by a mutex and a condition, as they will by socket and futex. Everybody who holds a
 * connection writes to its plain memory, so that ThreadSanitizer sees a hand-over without order, and two holders.
 */
enum { SLOTS = 3, WORKERS = 4, OUTSIDER = WORKERS, OUTSIDERS = 2, ENOUGH = 400 };

struct connection {
        uint64_t uses, written[4]; /* plain on purpose */
        atomic_bool busy;
};

struct place { /* of the broker's ledger */
        enum { FREE, LEASED, AWAY } state;
        bool called; /* recall said WANTED, and neither a return nor an unwant has followed */
        uint64_t generation;
};

struct answer {
        bool asked, queued, there;
        unsigned slot;
        uint64_t held;
};

struct stress {
        struct lessor_slot slots[SLOTS] __attribute__((aligned(64)));
        struct connection connections[SLOTS];
        _Atomic(const char *) fault; /* what a worker complains of: checks belong to the test's own thread */
        atomic_bool stop;

        pthread_mutex_t lock; /* the socket, as it were: guards answers and returned */
        pthread_cond_t answered;
        struct answer answers[WORKERS];
        bool returned[SLOTS];

        /* The broker's own. */
        struct place places[SLOTS];
        unsigned queue[WORKERS + OUTSIDERS], queued, outsiders;
        uint64_t recalled, called, handed_back, withdrawn, served;
};

struct worker {
        struct stress *stress;
        unsigned number;
        uint64_t uses, retakes, parked, returned;
        uint32_t random;
};

static uint32_t chance(uint32_t *state) {
        *state ^= *state << 13;
        *state ^= *state >> 17;
        *state ^= *state << 5;
        return *state;
}

/* False: somebody else is at it, too. */
static bool connection_use(struct connection *c) {
        bool alone = !atomic_exchange_explicit(&c->busy, true, memory_order_relaxed);
        for (unsigned i = 0; i < ARRAY_SIZE(c->written); i++)
                alone = alone && c->written[i] == c->uses;
        c->uses++;
        for (unsigned i = 0; i < ARRAY_SIZE(c->written); i++)
                c->written[i] = c->uses;
        return alone;
}

static void connection_leave(struct connection *c) { atomic_store_explicit(&c->busy, false, memory_order_relaxed); }

static void worker_expect(struct worker *w, bool ok, const char *what) {
        if (!ok)
                atomic_store(&w->stress->fault, what);
}

static bool worker_retake(struct worker *w, unsigned *ret_slot, uint64_t *ret_held) {
        for (unsigned i = 0; i < SLOTS; i++) {
                unsigned slot = (w->number + i) % SLOTS;
                if (!word_retake(&w->stress->slots[slot].word, ret_held))
                        continue;
                slot_retaken(&w->stress->slots[slot]);
                w->retakes++;
                *ret_slot = slot;
                return true;
        }
        return false;
}

/* False: told to stop before there was an answer. */
static bool worker_ask(struct worker *w, unsigned *ret_slot, uint64_t *ret_held) {
        struct stress *s = w->stress;
        struct answer *a = &s->answers[w->number];
        bool there;
        pthread_mutex_lock(&s->lock);
        a->asked = true;
        while (!a->there && !atomic_load(&s->stop))
                pthread_cond_wait(&s->answered, &s->lock);
        there = a->there;
        if (there) {
                *ret_slot = a->slot;
                *ret_held = a->held;
                *a = (struct answer){.asked = false};
        }
        pthread_mutex_unlock(&s->lock);
        if (there)
                worker_expect(w, word_accept(&s->slots[*ret_slot].word, *ret_held), "a grant that does not stand");
        return there;
}

static void worker_release(struct worker *w, unsigned slot, uint64_t held) {
        struct stress *s = w->stress;
        switch (word_park(&s->slots[slot].word, held)) {
        case WORD_PARKED:
                w->parked++;
                break;
        case WORD_RETURN:
                w->returned++;
                pthread_mutex_lock(&s->lock);
                worker_expect(w, !s->returned[slot], "one lease returned twice");
                s->returned[slot] = true;
                pthread_mutex_unlock(&s->lock);
                break;
        case WORD_LOST:
                worker_expect(w, false, "a lease taken away from its holder");
                break;
        }
}

static void *worker_run(void *argument) {
        struct worker *w = argument;
        struct stress *s = w->stress;
        while (!atomic_load_explicit(&s->stop, memory_order_relaxed)) {
                unsigned slot;
                uint64_t held;
                if (!worker_retake(w, &slot, &held) && !worker_ask(w, &slot, &held))
                        break;
                worker_expect(w, connection_use(&s->connections[slot]), "a connection held by two");
                w->uses++;
                if (chance(&w->random) % 16 == 0)
                        sched_yield(); /* to be met while holding ... */
                connection_leave(&s->connections[slot]);
                worker_release(w, slot, held);
                if (chance(&w->random) % 16 == 0)
                        sched_yield(); /* ... and while not */
        }
        return NULL;
}

static void broker_enqueue(struct stress *s, unsigned who) { s->queue[s->queued++] = who; }

static unsigned broker_dequeue(struct stress *s, unsigned at) {
        unsigned who = s->queue[at];
        memmove(s->queue + at, s->queue + at + 1, (--s->queued - at) * sizeof(s->queue[0]));
        return who;
}

static void broker_hear(struct stress *s) {
        pthread_mutex_lock(&s->lock);
        for (unsigned slot = 0; slot < SLOTS; slot++) {
                if (!s->returned[slot])
                        continue;
                struct place *p = &s->places[slot];
                s->returned[slot] = false;
                check_eq(p->state, LEASED);
                word_vacate(&s->slots[slot].word);
                s->handed_back += p->called;
                p->called = false;
                p->state = FREE;
        }
        for (unsigned n = 0; n < WORKERS; n++) {
                struct answer *a = &s->answers[n];
                if (a->asked && !a->queued)
                        broker_enqueue(s, n);
                a->queued = a->asked;
        }
        pthread_mutex_unlock(&s->lock);
}

/* A free connection goes to who is first. */
static void broker_give(struct stress *s, unsigned slot) {
        lessor_atomic64 *word = &s->slots[slot].word;
        struct place *p = &s->places[slot];
        unsigned who = broker_dequeue(s, 0);
        uint64_t sequence = word_next_sequence(word);
        if (who == OUTSIDER) {
                check(connection_use(&s->connections[slot]));
                p->state = AWAY;
                p->generation++; /* let us say that its socket is replaced afterwards */
                s->outsiders--;
                s->served++;
                return;
        }
        p->state = LEASED;
        check(word_grant(word, p->generation, sequence));
        pthread_mutex_lock(&s->lock);
        s->answers[who].there = true;
        s->answers[who].slot = slot;
        s->answers[who].held = word_value(WORD_STATE_HELD, p->generation, sequence);
        pthread_cond_broadcast(&s->answered);
        pthread_mutex_unlock(&s->lock);
}

/* Somebody waits. True: the connection is free. */
static bool broker_recall(struct stress *s, unsigned slot) {
        struct place *p = &s->places[slot];
        enum word_recall outcome = word_recall(&s->slots[slot].word, p->generation);
        check(outcome != WORD_BAD);
        if (outcome == WORD_RECALLED) {
                check(!p->called); /* what is wanted cannot be parked */
                p->state = FREE;
                s->recalled++;
                return true;
        }
        s->called += !p->called;
        p->called = true;
        return false;
}

static void broker_unwant(struct stress *s, unsigned slot) {
        struct place *p = &s->places[slot];
        if (!p->called)
                return;
        check(word_unwant(&s->slots[slot].word, p->generation));
        p->called = false;
        s->withdrawn++;
}

static void broker_settle(struct stress *s) {
        for (unsigned slot = 0; slot < SLOTS; slot++)
                do {
                        if (s->places[slot].state == FREE && s->queued > 0)
                                broker_give(s, slot);
                } while (s->queued > 0 && s->places[slot].state == LEASED && broker_recall(s, slot));
        for (unsigned slot = 0; slot < SLOTS && s->queued == 0; slot++)
                broker_unwant(s, slot);
}

/* Callers of other processes come, give up, and give back what they hold. */
static void broker_outsiders(struct stress *s, uint32_t random) {
        if (random % 8 == 0 && s->outsiders < OUTSIDERS) {
                broker_enqueue(s, OUTSIDER);
                s->outsiders++;
        } else if (random % 8 == 1 && s->outsiders > 0) {
                unsigned at = 0;
                while (s->queue[at] != OUTSIDER)
                        at++;
                broker_dequeue(s, at);
                s->outsiders--;
        }
        for (unsigned slot = 0; slot < SLOTS && random % 2; slot++) {
                if (s->places[slot].state != AWAY)
                        continue;
                connection_leave(&s->connections[slot]);
                s->places[slot].state = FREE;
        }
}

/* Until everything has happened often enough. */
static void broker_run(struct stress *s) {
        uint32_t random = 2463534242;
        while (!atomic_load(&s->fault) &&
               (s->recalled < ENOUGH || s->handed_back < ENOUGH || s->withdrawn < ENOUGH || s->served < ENOUGH)) {
                broker_hear(s);
                broker_outsiders(s, chance(&random));
                broker_settle(s);
                sched_yield();
        }
        pthread_mutex_lock(&s->lock);
        atomic_store(&s->stop, true);
        pthread_cond_broadcast(&s->answered);
        pthread_mutex_unlock(&s->lock);
}

/* Nobody runs any more. Whatever is leased is parked, or was granted to a worker that did not stay for the answer. */
static void check_slot(struct stress *s, unsigned slot, unsigned *still_called) {
        struct place *p = &s->places[slot];
        bool unread = false;
        for (unsigned n = 0; n < WORKERS; n++)
                unread = unread || (s->answers[n].there && s->answers[n].slot == slot);
        if (p->called) {
                check_msg(unread, "slot %u is wanted, and nobody is left to return it: a recall was lost", slot);
                ++*still_called;
        }
        if (p->state == LEASED)
                check_eq(word_recall(&s->slots[slot].word, p->generation), unread ? WORD_WANTED : WORD_RECALLED);
        else
                check_eq(word_state(load(&s->slots[slot].word)), WORD_STATE_VACANT);
}

static void check_books(struct stress *s, const struct worker *workers) {
        uint64_t uses = s->served, retakes = 0, connections_used = 0, slots_retaken = 0;
        unsigned still_called = 0;
        broker_hear(s);
        for (unsigned slot = 0; slot < SLOTS; slot++) {
                check_slot(s, slot, &still_called);
                slots_retaken += load(&s->slots[slot].retakes);
                connections_used += s->connections[slot].uses;
        }
        for (unsigned n = 0; n < WORKERS; n++) {
                check_eq(workers[n].parked + workers[n].returned, workers[n].uses);
                uses += workers[n].uses;
                retakes += workers[n].retakes;
        }
        check_eq(s->called, s->handed_back + s->withdrawn + still_called);
        check_eq(slots_retaken, retakes);
        check_eq(connections_used, uses);
        check(retakes > 0);
}

TEST_WITH(word, shared_by_threads_and_recalled_no_lease_has_two_holders_and_no_recall_is_lost, .timeout = 120) {
        static struct stress s = {.lock = PTHREAD_MUTEX_INITIALIZER, .answered = PTHREAD_COND_INITIALIZER};
        struct worker workers[WORKERS];
        pthread_t threads[WORKERS];
        for (unsigned slot = 0; slot < SLOTS; slot++) { /* both soon to wrap */
                s.places[slot].generation = GENERATION_MAX - 20;
                s.slots[slot].word = raw(0, false, 0, SEQUENCE_MAX - 100);
        }
        for (unsigned n = 0; n < WORKERS; n++) {
                workers[n] = (struct worker){.stress = &s, .number = n, .random = 88675123 + n};
                check_eq(pthread_create(&threads[n], NULL, worker_run, &workers[n]), 0);
        }
        broker_run(&s);
        for (unsigned n = 0; n < WORKERS; n++)
                pthread_join(threads[n], NULL);
        check_msg(!atomic_load(&s.fault), "%s", atomic_load(&s.fault));
        check_books(&s, workers);
}

/* ---- hostile and dead workers ------------------------------------------------------------------------------------ */

struct vandal {
        lessor_atomic64 *word;
        atomic_bool stop;
};

static void *run_vandal(void *argument) {
        struct vandal *v = argument;
        uint32_t random = 1;
        while (!atomic_load_explicit(&v->stop, memory_order_relaxed)) {
                uint64_t garbage = (uint64_t)chance(&random) << 32 | chance(&random);
                /* Half of them close to what is right, else nearly all would be BAD. */
                atomic_store_explicit(v->word,
                                      garbage & 1 ? garbage : raw(garbage >> 1 & 3, garbage & 8, 7, garbage >> 40),
                                      memory_order_relaxed);
        }
        return NULL;
}

TEST(word, garbage_written_all_the_time_neither_stops_nor_misleads_the_broker) {
        lessor_atomic64 word = 0;
        struct vandal vandal = {.word = &word};
        uint64_t outcomes[3] = {0};
        pthread_t thread;
        check_eq(pthread_create(&thread, NULL, run_vandal, &vandal), 0);
        for (unsigned i = 0; i < 50000; i++) {
                enum word_recall outcome = word_recall(&word, 7);
                check(outcome == WORD_RECALLED || outcome == WORD_WANTED || outcome == WORD_BAD);
                outcomes[outcome]++;
                word_unwant(&word, 7);
                word_vacate(&word);
                check(word_next_sequence(&word) <= SEQUENCE_MAX);
                word_grant(&word, 7, word_next_sequence(&word));
        }
        atomic_store(&vandal.stop, true);
        pthread_join(thread, NULL);
        check_eq(outcomes[0] + outcomes[1] + outcomes[2], 50000);
        /* And afterwards the word is as good as any. */
        word_vacate(&word);
        check(word_grant(&word, 8, 1));
        check_eq(word_park(&word, word_value(WORD_STATE_HELD, 8, 1)), WORD_PARKED);
        check_eq(word_recall(&word, 8), WORD_RECALLED);
}

static void hold_and_park_for_ever(struct lessor_slot *slot, uint64_t held) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        child_check(word_accept(&slot->word, held));
        for (;;) {
                slot_retaken(slot);
                if (word_park(&slot->word, held) != WORD_PARKED || !word_retake(&slot->word, &held))
                        for (;;)
                                pause(); /* wanted: the kill comes before the message */
        }
}

TEST(word, a_process_killed_at_any_instant_leaves_a_word_that_can_be_taken_back) {
        struct lessor_slot *slot = mmap(NULL, sizeof(*slot), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        check(slot != MAP_FAILED);
        for (uint64_t round = 1; round <= 100; round++) {
                uint64_t sequence = word_next_sequence(&slot->word), before = load(&slot->retakes), value;
                pid_t child;
                int status;
                check(word_grant(&slot->word, round, sequence));
                child = fork();
                check(child >= 0);
                if (child == 0)
                        hold_and_park_for_ever(slot, word_value(WORD_STATE_HELD, round, sequence));
                while (load(&slot->retakes) < before + 1 + round % 7)
                        sched_yield();
                if (round % 2 == 0) /* it may have been asked for the lease, or not */
                        check(word_recall(&slot->word, round) != WORD_BAD);
                check_eq(kill(child, SIGKILL), 0);
                check_eq(waitpid(child, &status, 0), child);
                check(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
                value = load(&slot->word);
                check(word_generation(value) == round);
                check(word_state(value) != INVALID);
                check(word_recall(&slot->word, round) == (word_state(value) == WORD_STATE_PARKED   ? WORD_RECALLED
                                                          : word_state(value) == WORD_STATE_VACANT ? WORD_BAD
                                                                                                   : WORD_WANTED));
                word_vacate(&slot->word);
        }
        munmap(slot, sizeof(*slot));
}

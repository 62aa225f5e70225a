/* SPDX-License-Identifier: MIT */
/* Answers by ticket and by message overtake each other: what an early one says of a word is not meant of a later grant. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/futex.h"
#include "base/word.h"
#include "client/fake.h"
#include "client/helpers.h"
#include "support/check.h"

enum {
        WORDS = 8,
        GENERATION = 5,
        TICKETS_AT = 128,
        WORDS_AT = TICKETS_AT + LESSOR_TICKETS * sizeof(struct lessor_ticket)
};

/* A segment with tickets and words in the place of the fake's own. */
static void offer_words(struct fake *f) {
        size_t databases = WORDS_AT + WORDS * sizeof(struct lessor_slot);
        size_t size = databases + f->segment->databases * sizeof(struct lessor_segment_database);
        int fd = memfd_create("segment", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        check(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
        struct lessor_segment *s = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        check(s != MAP_FAILED && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
        *s = *f->segment;
        s->tickets_offset = TICKETS_AT;
        s->words_offset = WORDS_AT;
        s->words = WORDS;
        s->database_offset = (uint32_t)databases;
        munmap(f->segment, sizeof(*s));
        fd_close(f->segment_fd);
        f->segment = s;
        f->segment_fd = fd;
        f->attached.segment_size = size;
        f->attached.features |= LESSOR_FEATURE_WORDS;
}

static struct lessor_ticket *ticket_of(struct fake *f, const union wire_message *lease) {
        return (struct lessor_ticket *)(void *)((char *)f->segment + TICKETS_AT) + (lease->lease.ticket - 1);
}

static lessor_atomic64 *word_of(struct fake *f, uint32_t word) {
        return &((struct lessor_slot *)(void *)((char *)f->segment + WORDS_AT) + word)->word;
}

static void answer_ticket(struct fake *f, const union wire_message *lease, uint32_t state) {
        uint32_t *word = &ticket_of(f, lease)->state;
        __atomic_store_n(word, state, __ATOMIC_RELEASE);
        futex_wake((_Atomic(uint32_t) *)word);
}

/* By message, with an fd: under `word`, a connection of the same slot number. Redis' end; -1. */
static int grant_word(struct fake *f, const union wire_message *lease, uint32_t word) {
        uint64_t sequence = word_next_sequence(word_of(f, word));
        union wire_message m;
        int pair[2];

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ||
            !word_grant(word_of(f, word), GENERATION, sequence))
                return -1;
        wire_init(&m, LESSOR_MSG_GRANT, lease->header.request);
        m.grant.slot = word;
        m.grant.generation = GENERATION;
        m.grant.lease = ++f->leases;
        m.grant.sequence = sequence;
        m.grant.word = word;
        m.grant.forget = LESSOR_WORD_NONE;
        if (lease->lease.ticket)
                answer_ticket(f, lease, LESSOR_TICKET_MAIL);
        bool sent = fake_send(f, &m, m.header.size, &pair[1], 1);
        close(pair[1]);
        return sent ? pair[0] : fd_close(pair[0]);
}

/* At the ticket: the connection that is kept under `word`, and which fd to forget. */
static void grant_at_ticket(struct fake *f, const union wire_message *lease, uint32_t word, uint64_t number,
                            uint32_t forget) {
        struct lessor_ticket *t = ticket_of(f, lease);
        uint64_t sequence = word_next_sequence(word_of(f, word));

        need(f, word_grant(word_of(f, word), GENERATION, sequence));
        t->slot = t->word = word;
        t->forget = forget;
        t->request = lease->header.request;
        t->generation = GENERATION;
        t->lease = number;
        t->client_id = 99;
        t->sequence = sequence;
        answer_ticket(f, lease, LESSOR_TICKET_GRANTED);
}

struct scene {
        lessor_db *db;
        pthread_barrier_t step; /* the script and the thread it is about */
};

static void meet(struct scene *s) { pthread_barrier_wait(&s->step); }

/*
 * Two connections are known and free. The first to ask is granted the second of them, at his ticket, and told to forget
 * the first; before he looks, the first's word has been granted anew, with an fd of its own, and is parked again.
 */
static void forgets_too_late(struct fake *f, void *data) {
        struct scene *s = data;
        union wire_message early, late, m;
        int redis[3];

        need(f, fake_attach(f));
        for (uint32_t i = 0; i < 2; i++) {
                need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
                need(f, (redis[i] = grant_word(f, &m, i)) >= 0);
        }
        meet(s); /* both are parked */
        for (uint32_t i = 0; i < 2; i++)
                need(f, word_recall(word_of(f, i), GENERATION) == WORD_RECALLED);
        meet(s);
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &early));
        meet(s);
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &late));
        need(f, early.lease.ticket && late.lease.ticket && early.lease.ticket != late.lease.ticket);
        f->leases++; /* the early one's */
        need(f, (redis[2] = grant_word(f, &late, 0)) >= 0);
        meet(s); /* parked again */
        grant_at_ticket(f, &early, 1, 3, 0);
        meet(s); /* and the early one has his */
        need(f, fake_expect(redis[2], "*1\r\n$4\r\nPING\r\n"));
        need(f, fake_say(redis[2], "+PONG\r\n"));
        need(f, fake_gone(f));
        for (unsigned i = 0; i < 3; i++)
                close(redis[i]);
}

static void *asks_early(void *data) {
        struct scene *s = data;
        lessor_error e;
        return lessor_acquire(s->db, 20000, &e);
}

static void park_two(struct scene *s) {
        lessor_lease *lease[2];
        lessor_error e;

        for (unsigned i = 0; i < 2; i++)
                check((lease[i] = lessor_acquire(s->db, 5000, &e)));
        for (unsigned i = 0; i < 2; i++)
                lessor_release(lease[i]);
        meet(s);
        meet(s); /* recalled */
}

TEST(client_tickets, a_forget_that_a_later_grant_of_the_word_has_overtaken_closes_nothing) {
        struct scene s = {0};
        pthread_t early;
        struct fake f;
        lessor_error e;
        lessor_lease *late;
        void *granted;

        pthread_barrier_init(&s.step, NULL, 2);
        fake_init(&f);
        offer_words(&f);
        fake_run(&f, forgets_too_late, &s);
        lessor *l = client_open(&f);
        s.db = client_db(l, "main");
        park_two(&s);
        check_eq(pthread_create(&early, NULL, asks_early, &s), 0);
        meet(&s);
        late = lessor_acquire(s.db, 20000, &e);
        check_msg(late, "%s", e.text);
        lessor_release(late);
        meet(&s);
        check_eq(pthread_join(early, &granted), 0);
        check(granted);
        meet(&s);
        check(client_pings(s.db)); /* on what this thread had last: the word that was to be forgotten */
        lessor_release(granted);
        lessor_close(l);
        fake_stop(&f);
        pthread_barrier_destroy(&s.step);
}

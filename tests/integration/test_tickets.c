/* SPDX-License-Identifier: MIT */
/*
 * Tickets from the outside: a request that waits at one is answered there or, when its answer goes by the socket, is told so
 * there first. Whoever has read the message may ask again with the same ticket.
 */
#include <sys/socket.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"
#include "support/words.h"

enum { WAIT_MS = 30000, TICKET = 3 };

static uint32_t *state_of_ticket(const struct words *w) {
        return &((struct lessor_ticket *)(void *)(w->segment + 128))[TICKET - 1].state;
}

static void ask(const struct words *w, uint64_t request, uint64_t wait_ns) {
        struct lessor_msg_lease m = raw_lease_message(request, w->database, wait_ns);
        m.ticket = TICKET;
        __atomic_store_n(state_of_ticket(w), LESSOR_TICKET_EMPTY, __ATOMIC_RELAXED);
        check_eq(raw_say(w->socket, &m), 0);
}

/* Marked afterwards, it would be the next question's, whose asker would look for its grant in the wrong place. */
TEST(tickets, one_is_marked_before_its_answer_can_be_read_from_the_socket) {
        enum { TURNS = 300 };
        struct lessor_msg_grant g;
        struct words w;
        struct host h;

        host_start(&h, "max_connections: 1");
        check(words_attach(&w, h.broker.socket, "main"));
        for (uint64_t i = 0; i < TURNS; i++) {
                ask(&w, 10 + i, LESSOR_WAIT_DEFAULT);
                int fd = words_answer(&w, &g);
                check_msg(fd >= 0, "answer %llu: %d", (unsigned long long)i, fd);
                check_eq(__atomic_load_n(state_of_ticket(&w), __ATOMIC_ACQUIRE), LESSOR_TICKET_MAIL);
                /* A refusal goes by the socket, too. */
                ask(&w, 1000 + i, 0);
                check_eq(words_answer(&w, &(struct lessor_msg_grant){0}), -LESSOR_E_EXHAUSTED);
                check_eq(__atomic_load_n(state_of_ticket(&w), __ATOMIC_ACQUIRE), LESSOR_TICKET_MAIL);
                close(fd);
                check_eq(words_return(&w, &g, LESSOR_RETURN_CLEAN), 0); /* not kept: the next grant has an fd again */
        }
        words_detach(&w);
        host_end(&h);
}

TEST(tickets, what_the_worker_has_kept_is_granted_there_and_nothing_is_sent) {
        struct lessor_msg_grant g;
        struct words w;
        struct host h;

        host_start(&h, "max_connections: 1");
        check(words_attach(&w, h.broker.socket, "main"));
        ask(&w, 10, LESSOR_WAIT_DEFAULT);
        int fd = words_answer(&w, &g);
        check(fd >= 0);
        check_eq(words_return(&w, &g, LESSOR_RETURN_CLEAN | LESSOR_RETURN_KEPT), 0);
        ask(&w, 11, LESSOR_WAIT_DEFAULT);
        check_soon(__atomic_load_n(state_of_ticket(&w), __ATOMIC_ACQUIRE) == LESSOR_TICKET_GRANTED, WAIT_MS);
        const struct lessor_ticket *t = &((struct lessor_ticket *)(void *)(w.segment + 128))[TICKET - 1];
        check_eq(t->request, 11);
        check_eq(t->word, g.word);
        check_eq(t->slot, g.slot);
        check_eq(t->generation, g.generation);
        check(t->lease > g.lease);
        check(words_ping(fd));
        char byte;
        check_eq(recv(w.socket, &byte, 1, MSG_DONTWAIT), -1);
        close(fd);
        words_detach(&w);
        host_end(&h);
}

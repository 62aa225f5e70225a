/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Tickets (lessor/protocol.h): where a thread sleeps until the broker has answered its LEASE, when the answer may need no
 * message because the fd is here already. The session's lock is held for all but ticket_sleep().
 */
#include "base/futex.h"
#include "session.h"

/* Nobody wakes those who sleep at tickets when the broker dies: so often they look whether it is there. */
#define TICKET_GLANCE_NS UINT64_C(100000000)

static inline _Atomic(uint32_t) *ticket_word(struct session *s, uint32_t ticket) {
        return (_Atomic(uint32_t) *)&s->segment.tickets[ticket - 1].state;
}
static inline uint32_t ticket_state(struct session *s, uint32_t ticket) {
        /* Acquire, pairs with the broker's release: the grant is complete. */
        return atomic_load_explicit(ticket_word(s, ticket), memory_order_acquire);
}

/* LESSOR_TICKET_NONE: all are taken, or there are none. */
static inline uint32_t ticket_take(struct session *s) {
        uint32_t ticket = (uint32_t)__builtin_ctz(~(s->tickets_taken | 1U)); /* they are counted from 1 */

        if (!s->segment.tickets || ticket > LESSOR_TICKETS)
                return LESSOR_TICKET_NONE;
        s->tickets_taken |= UINT32_C(1) << ticket;
        atomic_store_explicit(ticket_word(s, ticket), LESSOR_TICKET_EMPTY, memory_order_relaxed);
        return ticket;
}
static inline void ticket_free(struct session *s, uint32_t ticket) { s->tickets_taken &= ~(UINT32_C(1) << ticket); }

/* The answer has come, or will come, by another way. */
static inline void ticket_wake(struct session *s, uint32_t ticket) {
        uint32_t empty = LESSOR_TICKET_EMPTY;
        /* Else the broker has answered there, and woken whoever slept. */
        if (atomic_compare_exchange_strong(ticket_word(s, ticket), &empty, LESSOR_TICKET_MAIL))
                futex_wake(ticket_word(s, ticket));
}

static inline void ticket_sleep(struct session *s, uint32_t ticket, uint64_t left_ns) {
        futex_wait(ticket_word(s, ticket), LESSOR_TICKET_EMPTY,
                   left_ns < TICKET_GLANCE_NS ? left_ns : TICKET_GLANCE_NS);
}

/* The GRANT that a ticket stands for. */
static inline struct lessor_msg_grant ticket_grant(struct session *s, uint32_t ticket, uint32_t database) {
        const struct lessor_ticket *t = &s->segment.tickets[ticket - 1];
        return (struct lessor_msg_grant){.header.request = t->request,
                                         .database = database,
                                         .slot = t->slot,
                                         .generation = t->generation,
                                         .lease = t->lease,
                                         .client_id = t->client_id,
                                         .sequence = t->sequence,
                                         .word = t->word,
                                         .flags = LESSOR_GRANT_KEPT,
                                         .forget = t->forget};
}

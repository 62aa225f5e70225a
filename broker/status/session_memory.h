/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The session segment (lessor/protocol.h) from the broker's side: made, mapped, and read as evidence. Every byte may be
 * garbage at any time: counters are copied once, only their growth counts, and growth faster than any worker can be is ignored.
 */
#include <lessor/protocol.h>
#include <lessor/status.h>

#include "base/word.h"

struct session_memory;

/* What workers counted on one database, summed over all sessions that ever were. */
struct worker_totals {
        uint64_t operations_ok, operations_failed, timeouts, last_success_ns;
        struct lessor_status_histogram call_time, hold_time;
};

/* *ret_fd: to be sent to the worker, the caller's. 0; -errno. */
int session_memory_new(uint64_t session, uint64_t instance, struct session_memory **ret, int *ret_fd);
uint64_t session_memory_size(void);

/* Counted, because databases of other threads look at the words until they know that the session has ended. */
struct session_memory *session_memory_ref(struct session_memory *memory);
struct session_memory *session_memory_unref(struct session_memory *memory); /* NULL ok; returns NULL */

/* A word that was never used, from any thread: LESSOR_WORD_NONE when all are. */
uint32_t session_memory_new_word(struct session_memory *memory);
struct lessor_slot *session_memory_slot(struct session_memory *memory, uint32_t word);
/* Unanswered requests: raised by the session's thread, lowered by whoever answers. */
atomic_uint *session_memory_open_requests(struct session_memory *memory);
/* He uses this database: harvest it. From any thread; read by word of 64 databases, from any thread. */
void session_memory_note_use(struct session_memory *memory, unsigned database);
uint64_t session_memory_used(const struct session_memory *memory, unsigned word);
/* Answers the request that waits at this ticket: by what stands in *grant; or by what is in the socket. */
void session_memory_grant(struct session_memory *memory, uint32_t ticket, const struct lessor_msg_grant *grant);
void session_memory_mail(struct session_memory *memory, uint32_t ticket);
/* The call site under that number, as the worker wrote it, printable and ended; empty when there is none. */
void session_memory_site(struct session_memory *memory, uint32_t site, char to[LESSOR_SITE_SIZE]);

/* Adds what was counted on `database` since the last time. One thread at a time; elapsed: since this was last asked. 0; -ENOMEM. */
int session_memory_harvest(struct session_memory *memory, unsigned database, uint64_t elapsed_ns, uint64_t wall_ns,
                           struct worker_totals *totals);

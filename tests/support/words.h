/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A raw client (raw.h) with lease words: its segment mapped, its words in its own hands. Does not fail the test by itself,
 * so that forked children can use it.
 */
#include "raw.h"

struct words {
        int socket;
        uint32_t database; /* number of the one asked for last */
        char *segment;
        size_t size;
};

#define WORDS_FD_KEPT (-1000) /* no fd came along: the worker still has it */

bool words_attach(struct words *, const char *path, const char *database); /* false: something is wrong */
void words_detach(struct words *);

struct lessor_slot_layout *words_slot(const struct words *, uint32_t word);
uint64_t words_load(const struct words *, uint32_t word);
void words_store(const struct words *, uint32_t word, uint64_t value);
/* HELD -> PARKED and PARKED -> HELD, as lessor/protocol.h says. False: it was not as it should be, or is wanted. */
bool words_park(const struct words *, uint32_t word);
bool words_retake(const struct words *, uint32_t word);

/* An fd, WORDS_FD_KEPT, or -outcome. */
int words_lease(const struct words *, uint64_t wait_ns, struct lessor_msg_grant *ret);
int words_ask(const struct words *, uint64_t request, uint64_t wait_ns); /* without waiting for the answer */
int words_answer(const struct words *, struct lessor_msg_grant *ret);
int words_return(const struct words *, const struct lessor_msg_grant *, uint32_t flags);

bool words_ping(int fd); /* PING, +PONG on a leased connection */

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A reply on its way from Redis to a lane, for as long as it is not whole: in memory while it is small enough for the
 * lane, else in a memfd that is handed to the worker, sealed. Memory for those is counted against `reply_budget`, over the
 * whole host; only one that has the budget to itself may exceed it, since a reply may have any size. What there is no
 * room for is read and thrown away.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct reply_budget {
        _Atomic uint64_t used, limit;
};

/* False: no room for so many bytes more by one who has `own` of them already. */
bool reply_budget_take(struct reply_budget *budget, uint64_t own, uint64_t more);
void reply_budget_give(struct reply_budget *budget, uint64_t bytes);

struct apart {
        struct reply_budget *budget;
        char *data; /* while it is small */
        size_t room;
        uint64_t size;     /* bytes so far */
        uint64_t reserved; /* of the budget */
        int fd;            /* the memfd; -1: there is none */
        bool dropped;
};

void apart_init(struct apart *apart, struct reply_budget *budget);
void apart_deinit(struct apart *apart);
/* So many bytes more; above `small` of them in a memfd. expected: bytes that are known to follow. Never fails: see `dropped`. */
void apart_add(struct apart *apart, const char *data, size_t size, size_t small, uint64_t expected);
/* Seals it. The fd and what it has reserved are the caller's; the reply is forgotten here. -1: it could not be had. */
int apart_seal(struct apart *apart, uint64_t *ret_size, uint64_t *ret_reserved);
void apart_clear(struct apart *apart); /* small, or dropped: ready for the next; keeps a little memory */

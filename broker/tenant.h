/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A session at one database: the ledger of what it holds, and of the fds it keeps. Belongs to the database's thread;
 * made by the session's, which hands it over with its first request and never looks inside.
 *
 * A place is one connection of which the worker has the fd, and the word of his segment under which he has it:
 *
 *      (none) -> BUSY -> IDLE -> BUSY ...      BUSY -> ENDED -> IDLE
 *
 * BUSY: leased. IDLE: given back or recalled; the fd is kept for the next grant of the same connection. ENDED: the broker
 * has ended the lease while somebody held it; until his RETURN comes he may be using the fd, and the place and its word
 * go to nobody else. A grant of another connection may take over an IDLE place: the worker then closes the old fd.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <lessor/protocol.h>

#include "base/list.h"
#include "base/word.h"
#include "peer/program.h"
#include "pool/pool.h"
#include "status/session_memory.h"

struct loop;

enum place_state { PLACE_BUSY, PLACE_IDLE, PLACE_ENDED };

struct place {
        struct list link; /* in the tenant's list of its state; IDLE: the longest unused first */
        struct tenant *tenant;
        enum place_state state;
        uint32_t word; /* LESSOR_WORD_NONE: the lease goes by messages alone, and the place with it */
        unsigned slot;
        uint64_t generation;
        uint64_t lease;    /* BUSY, ENDED: the lease's number */
        bool kept;         /* the worker has the fd */
        uint64_t retakes;  /* of the slot, as last seen */
        uint64_t sequence; /* of the word, likewise */
        bool parked;       /* likewise */
        bool frozen;       /* it was found held when it was wanted: it changes hands no more */
        uint64_t since;    /* when it was last seen to change hands */
        bool warned;       /* of this holder's long holding */
};

struct tenant {
        struct list link; /* in the database's list, from the first request on */
        struct loop *home;
        uint64_t session;
        struct program program;
        uid_t uid;
        struct session_memory *memory; /* NULL: he leases by messages alone */
        struct pool_account *account;  /* the database's, of his uid */
        struct list places[3];         /* by state */
        unsigned n_idle;
        bool bad; /* he wrote into a word what no worker may */
};

/* memory: NULL, or a reference of which the tenant takes its own. NULL: out of memory. */
struct tenant *tenant_new(struct loop *home, uint64_t session, struct session_memory *memory);
void tenant_free(struct tenant *tenant); /* NULL ok */

/*
 * The place under which `conn` is to be granted, BUSY from now on: the one he has it under, else an idle one if he keeps
 * fd_cache of them, else a new one. place->kept: he has the fd of this very generation. NULL: out of memory.
 */
struct place *tenant_grant(struct tenant *tenant, const struct pool_conn *conn, unsigned fd_cache);
/* One more idle place than he may keep: its word, his fd is forgotten; LESSOR_WORD_NONE. */
uint32_t tenant_forget(struct tenant *tenant, unsigned fd_cache);

/* The lease is over; frees the place if nothing of it stays. `kept`: he keeps the fd. */
void tenant_returned(struct place *place, bool kept);
void tenant_ended(struct place *place); /* by the broker, while held */

/* The BUSY or ENDED place of that lease; NULL: it is not his. */
struct place *tenant_find(struct tenant *tenant, unsigned slot, uint64_t generation, uint64_t lease);

static inline struct lessor_slot *place_slot(const struct place *place) {
        return place->word == LESSOR_WORD_NONE ? NULL : session_memory_slot(place->tenant->memory, place->word);
}

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The upkeep of FREE connections: which to check, which to close for their age or for want of use. Pure; pool.c asks,
 * when `due` has come, and carries it out.
 */
#include <stdbool.h>
#include <stdint.h>

struct pool;
struct pool_conn;

struct upkeep_limits {
        uint64_t health_ns;   /* between two checks of an idle connection; 0: none */
        uint64_t idle_ns;     /* idle for longer: closed; 0: never */
        uint64_t sweep_ns;    /* how often idle ones are looked for; 0: never */
        uint64_t lifetime_ns; /* 0: for ever */
        unsigned min_idle;    /* so many are kept, and dialled for */
};

struct upkeep {
        struct upkeep_limits limits;
        uint64_t due;         /* nothing to decide before */
        uint64_t next_sweep;  /* for idle ones */
        uint64_t last_sweep;  /* 0: none yet */
        uint64_t next_retire; /* retirements are spaced: those dialled together must not be missing together */
};

void upkeep_init(struct upkeep *u, const struct upkeep_limits *limits, uint64_t now);

/* When a connection established now is to be retired: within the last tenth of its lifetime, by chance. */
uint64_t upkeep_retirement(const struct upkeep *u, uint64_t now, uint64_t random);

/* `conn` has become FREE: is anything due earlier than was known? */
void upkeep_watch(struct upkeep *u, const struct pool_conn *conn);

enum upkeep_verdict { UPKEEP_NOTHING, UPKEEP_CHECK, UPKEEP_RETIRE, UPKEEP_IDLE, UPKEEP_OUTDATED };
/* The next thing to do with a FREE connection; UPKEEP_NOTHING, and `due` is when to ask again. */
enum upkeep_verdict upkeep_next(struct pool *pool, uint64_t now, struct pool_conn **ret);

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The demonstration: a private Redis and a broker (bench/servers.h), a crew of forked workers who borrow connections to
 * thirteen databases and check every reply, one of them killed now and then, at last the broker itself, and a table of what
 * goes on, read from shared memory. Redis itself is asked how many connections it has. Then 200 workers, who share 20
 * connections and have one each, by turns.
 *
 *      main -> {crew -> work, watch -> screen, report, compare}
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <lessor.h>
#include <lessor/status.h>

#include "bench/servers.h"

enum { DEMO_DATABASES = 13, DEMO_WORKERS_MAX = 1024, DEMO_TEXT = 256 };
extern const char *const demo_databases[DEMO_DATABASES];

struct demo_options {
        unsigned seconds, workers, connections; /* connections: the cap of each database */
        const char *redis;                      /* HOST:PORT or a path; NULL: a private one */
        bool json, no_comparison;
};

/* What one worker has done; his alone to write, and his successor's. */
struct demo_tally {
        _Alignas(64) _Atomic uint64_t operations;
        _Atomic uint64_t errors, wrong;
        _Atomic uint64_t cut_off; /* calls that were under way in the broker when it was killed, and said so */
};

/* Shared by all workers and the one who watches. */
struct demo_board {
        _Atomic bool end;
        _Atomic bool broker_killed;
        _Atomic unsigned said; /* bits: first_error, first_wrong taken */
        char first_error[DEMO_TEXT], first_wrong[DEMO_TEXT];
        char prefix[32]; /* of every key */
        struct demo_tally tally[];
};

struct demo_member {
        pid_t pid;
        unsigned lives;
};

struct demo {
        struct demo_options o;
        struct servers *servers;
        lessor *handle; /* opened once, used by every worker */
        struct demo_board *board;
        struct demo_member crew[DEMO_WORKERS_MAX];
        char *config;        /* the broker's */
        redisContext *redis; /* ours, for questions */
        char redis_version[32], redis_place[96];
        struct lessor_status status;
        uint64_t began_ns, ended_ns;
        /* seen so far */
        unsigned killed, killed_holding, connections, most_connections;
        unsigned most_between; /* connections, since the broker was killed: the old one's went, the new one's came */
        char last_killed[160]; /* what he was doing */
        uint64_t places_lost;
        bool interrupted;
};

static inline unsigned demo_cap(const struct demo *d) { return d->o.connections * DEMO_DATABASES; }
/* Pools in each process: one connection of each worker to each database is the least they open. */
static inline unsigned demo_per_process(const struct demo *d) { return d->o.workers * DEMO_DATABASES; }

struct demo_totals {
        uint64_t operations, errors, wrong, cut_off;
};
struct demo_totals demo_totals(const struct demo *d);

/* work.c: the life of a worker; returns when the board says so. */
void demo_work(lessor *handle, struct demo_board *board, struct demo_tally *tally, unsigned number, unsigned seed);

/* crew.c */
int demo_crew_start(struct demo *d);
void demo_crew_mind(struct demo *d);     /* a dead worker is replaced */
void demo_crew_kill_one(struct demo *d); /* -9; one who holds a connection, if there is one */
void demo_crew_end(struct demo *d);      /* asks them to end, waits */

/* watch.c */
int demo_watch_start(struct demo *d);
void demo_watch_connections(struct demo *d); /* asks Redis */
int demo_watch_next(struct demo *d);         /* the broker has been replaced */
void demo_expect_two(struct demo *d);        /* it will be */
bool demo_settled(const struct lessor_status *status, void *demo);
void demo_clean_up(struct demo *d); /* the keys in a Redis that is not ours */

/* screen.c: a table where there is a terminal for it, else a line now and then. */
struct demo_screen;
struct demo_screen *demo_screen_new(const struct demo *d);
void demo_screen_draw(struct demo_screen *screen, struct demo *d, uint64_t now_ns);
void demo_screen_free(struct demo_screen *screen);

/* report.c: what it came to; false if anything was lost or wrong. */
bool demo_report(const struct demo *d);

/* compare.c: on the same Redis, with a broker of its own. */
int demo_compare(struct demo *d);

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The benchmarks. Each measures a subject (Lessor) and a reference (the same without Lessor, or a bar) in one run,
 * slice by slice in turn, so that what else the machine does hits both alike; its figures are medians of rounds.
 */
#include <jansson.h>

#include "sample.h"
#include "servers.h"

struct bench_options {
        const char *name; /* as asked for: of a benchmark, or "all" */
        unsigned rounds;
        bool json, markdown, quick;
        const char *socket; /* of a broker that runs already; NULL: a private one */
};

struct bench_result {
        double value, reference;
        json_t *extra; /* an object, made by the caller: what else was measured */
};

struct bench {
        const char *name, *unit, *summary;
        const char *bars; /* of a benchmark with several, for the list; NULL: the one below */
        bool at_most;     /* the ratio must be `bar` at most; else at least */
        double bar;
        bool own_broker;     /* --socket makes no sense */
        const char *own_arm; /* of `extra`: what the one ratio is. NULL: what `placement` says there, if anything */
        unsigned limit_s;    /* in a table: how long it may take. 0: BENCH_LIMIT_S */
        /* 0, or a negative errno with s->error set. Servers that it started are stopped by the caller. */
        int (*run)(const struct bench_options *o, struct servers *s, struct bench_result *ret);
        /*
         * Tells `extra`, all there is, in text, while the servers still run; its JSON is `extra` as it stands. NULL: what
         * it found is one ratio.
         */
        void (*print)(const struct bench_options *o, const struct servers *s, json_t *extra);
        void (*markdown)(json_t *extra); /* likewise, as rows of a table; see markdown.h */
};

/* All of them take less than a quarter of an hour; with --quick, a fifth of it. */
#define BENCH_LIMIT_S 60U
#define BENCH_QUICK 5U

extern const struct bench bench_direct, bench_cold, bench_warm, bench_handover, bench_storm, bench_footprint,
        bench_open_breaker, bench_status, bench_crowd, bench_pipeline, bench_async;

/* Into an object of figures. */
void bench_put(json_t *object, const char *name, json_t *value);
/* {median, min, max}: of the rounds. */
json_t *bench_spread(struct sample *s);

/* The connection that a lease is, said by its address: what a private one is made to. NULL: s->error. */
redisContext *bench_connect_like(struct servers *s, int fd);

/* Redis and a broker with one database `main` of `max` connections, unless o->socket names one. NULL: s->error. */
const char *bench_broker(const struct bench_options *o, struct servers *s, unsigned max);

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Forked workers of a benchmark. They are made beforehand and sleep; crew_begin() lets all of them go at once, at one
 * job, crew_finish() waits until each has done it. What they found stands in memory they share with us.
 */
#include <stdatomic.h>
#include <stdint.h>

#include "sample.h"
#include "servers.h"

enum crew_phase { CREW_WARMING, CREW_MEASURING, CREW_OVER };

/* Written by the worker while it is at a job, by us in between. */
struct crew_member {
        uint64_t operations; /* while CREW_MEASURING */
        uint64_t all;        /* at any time */
        uint64_t wrong;      /* of them: replies that do not belong to what was asked */
        uint64_t ended_ns;   /* when it was done with the job */
        char trouble[256];   /* empty: none */
        size_t n_times;
        uint64_t times[]; /* crew->room of them */
};

struct crew;
typedef void crew_work(struct crew *crew, unsigned self, unsigned job);

struct crew {
        unsigned n, forked;
        bool failed; /* some may still be at their job */
        pid_t *pids;
        size_t room, stride;
        struct crew_shared *shared;
        char *members;
        crew_work *work;
        void *argument;
        struct servers *servers;
};

/* `times` is the room for what each worker measures, in one job. 0 or -errno, and crew_end() is to be called anyway. */
int crew_start(struct crew *c, struct servers *s, unsigned n, size_t times, crew_work *work, void *argument);
void crew_end(struct crew *c); /* they exit, and are gone when this returns */

void crew_begin(struct crew *c, unsigned job);
/* Warming for so long, then measuring; the second is returned, as it really was. crew_finish() is still to be called. */
uint64_t crew_measure(struct crew *c, uint64_t warm_ns, uint64_t measure_ns);
int crew_finish(struct crew *c);        /* a worker that died, was in trouble or got a wrong reply is an error */
uint64_t crew_begun_ns(struct crew *c); /* when the last crew_begin() let them go */
struct crew_member *crew_member(struct crew *c, unsigned i);
uint64_t crew_sum(struct crew *c, size_t field); /* of a uint64_t of the members, by its offset */

/* ---- for the workers ------------------------------------------------------------------------------------------- */

enum crew_phase crew_phase(struct crew *c);
void crew_time(struct crew *c, unsigned self, uint64_t ns); /* kept while there is room */
void crew_trouble(struct crew *c, unsigned self, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

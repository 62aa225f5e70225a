/* SPDX-License-Identifier: MIT */
#pragma once
/* What `lessor bench crowd` found, and how it is told. */
#include "bench.h"

/* The reference is the last but one: it is always there. */
enum crowd_arm { CROWD_COMMAND, CROWD_LANES, CROWD_LEASES, CROWD_PRIVATE, CROWD_TWEMPROXY, CROWD_ARMS };

extern const char *const crowd_arm_names[CROWD_ARMS];
#define CROWD_LANES_DATABASE "lanes"

/* What must be reached at so many workers; 0: only reported. */
struct crowd_bars {
        unsigned workers;
        double private, twemproxy;       /* operations per second against theirs, at least */
        double p99_private, cpu_private; /* at most */
};

enum { CROWD_SIZES = 5 };
extern const struct crowd_bars crowd_bars[CROWD_SIZES];

/* Of one arm at one number of workers, by round. */
struct crowd_row {
        struct sample ops, p50_us, p99_us, p999_us, cpu_us;
        unsigned connections; /* the most that Redis had after a slice */
};

/* Of lessor_command() against another arm in the same round. */
struct crowd_ratios {
        struct sample private, twemproxy, p99_private, cpu_private;
};

struct crowd_size {
        struct crowd_row rows[CROWD_ARMS];
        struct crowd_ratios ratios;
        unsigned arms; /* CROWD_ARMS, or one less: no twemproxy here */
};

void crowd_size_deinit(struct crowd_size *c);
/* {name, rows, ratios} */
void crowd_tell(struct crowd_size *sizes, json_t *ret);
/* And what the broker itself counted of its lanes. */
void crowd_markdown(json_t *told);
void crowd_print(const struct bench_options *o, const struct servers *s, json_t *told);

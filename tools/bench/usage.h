/* SPDX-License-Identifier: MIT */
#pragma once
/* What processes have used of the CPUs. */
#include <sys/types.h>

struct usage {
        double cpu_us;   /* user and system, of all threads */
        double switches; /* voluntary and not */
};

/* Added to *ret; a process that is gone adds nothing. */
void usage_add(pid_t pid, struct usage *ret);
/* What was used between two readings. */
struct usage usage_between(const struct usage *before, const struct usage *after);

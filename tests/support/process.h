/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Processes of a test: programs it starts, workers it forks, and how it waits for what they do. Nothing here sleeps for
 * a guess: one waits for a stage that somebody advances, for an exit, or, where only looking helps, for a condition that
 * is looked at every few milliseconds until a deadline. All children die with the test.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PROCESS_SLOW 4
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define PROCESS_SLOW 4
#endif
#endif
#ifndef PROCESS_SLOW
#define PROCESS_SLOW 1 /* how many times slower than usual this build is: for deadlines */
#endif

uint64_t deadline_in(unsigned ms);         /* CLOCK_MONOTONIC, ns; longer in slow builds */
bool look_again_before(uint64_t deadline); /* waits 2 ms; false: the deadline has passed */
uint64_t now_ms(void);

/* True as soon as the condition is; false if it was not within the time. */
#define wait_until(cond, ms)                                                                                           \
        __extension__({                                                                                                \
                uint64_t deadline_ = deadline_in(ms);                                                                  \
                bool met_;                                                                                             \
                while (!(met_ = (cond)) && look_again_before(deadline_))                                               \
                        ;                                                                                              \
                met_;                                                                                                  \
        })
#define check_soon(cond, ms) check_msg(wait_until(cond, ms), "not within %u ms: %s", (unsigned)(ms), #cond)

/* Zeroed memory shared with all children forked later. */
void *shared_memory(size_t size);

/* A count in shared memory that processes advance and wait for. */
struct stage {
        _Atomic uint32_t count;
};
void stage_advance(struct stage *);
bool stage_reached(struct stage *, uint32_t count, unsigned ms); /* waits for it */

/* A program. Standard output and error go to the file `output` (NULL: ours). The path is searched. Its pid. */
pid_t program_start(const char *output, const char *const argv[]);
/* The same, and calls `prepare` in the child before exec (NULL: nothing). */
pid_t program_start_prepared(const char *output, const char *const argv[], void (*prepare)(void *), void *arg);
/* Reaps the child: its exit status, 128 + the signal's number, or -1 when it has not ended in time. */
int program_wait(pid_t pid, unsigned ms);
int program_end(pid_t pid, int signal, unsigned ms); /* the same, after a signal */
/* Runs a program to its end; *ret_output (may be NULL) is what it printed, for free(). */
int program_run(const char *const argv[], char **ret_output, unsigned ms);

/* What a worker returns is its exit status. */
typedef int worker_function(unsigned index, void *arg);

enum { WORKERS_MAX = 256 };
struct workers {
        unsigned n;
        pid_t pid[WORKERS_MAX]; /* 0: reaped */
};
void workers_start(struct workers *, unsigned n, worker_function *, void *arg);
unsigned workers_wait(struct workers *, unsigned ms); /* how many ended with 0; fails the test if one does not end */
bool workers_ended(struct workers *);                 /* all of them, just now? Reaps nothing. */
void workers_kill(struct workers *, unsigned index);  /* -9, and reaped */
unsigned workers_run(unsigned n, worker_function *, void *arg, unsigned ms);

unsigned fd_count(pid_t pid); /* open fds, from /proc; 0: no such process */

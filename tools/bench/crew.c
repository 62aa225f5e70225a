/* SPDX-License-Identifier: MIT */
/*
 * A turn is a number in shared memory, waited for by futex: one system call wakes all. Its job stands beside it, and is
 * written before it.
 */
#include "crew.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/clock.h>

#define JOB_DEADLINE_NS (60 * NS_PER_S)
enum { JOB_EXIT = UINT_MAX };

struct crew_shared {
        _Atomic uint32_t turn, ready, done, phase;
        unsigned job;
        uint64_t begun_ns;
};

static void futex_wait(_Atomic uint32_t *word, uint32_t value, const struct timespec *timeout) {
        syscall(SYS_futex, word, FUTEX_WAIT, value, timeout, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0); }

struct crew_member *crew_member(struct crew *c, unsigned i) {
        return (struct crew_member *)(void *)(c->members + i * c->stride);
}

/* ---- workers --------------------------------------------------------------------------------------------------- */

enum crew_phase crew_phase(struct crew *c) {
        return (enum crew_phase)atomic_load_explicit(&c->shared->phase, memory_order_relaxed);
}

void crew_time(struct crew *c, unsigned self, uint64_t ns) {
        struct crew_member *m = crew_member(c, self);
        if (m->n_times < c->room)
                m->times[m->n_times++] = ns;
}

void crew_trouble(struct crew *c, unsigned self, const char *fmt, ...) {
        struct crew_member *m = crew_member(c, self);
        va_list args;
        va_start(args, fmt);
        vsnprintf(m->trouble, sizeof(m->trouble), fmt, args);
        va_end(args);
}

static void tell(_Atomic uint32_t *count, unsigned of) {
        /* Pairs with the acquire in await_all(): what the worker wrote before is there. */
        if (atomic_fetch_add_explicit(count, 1, memory_order_release) + 1 == of)
                futex_wake(count);
}

static void live(struct crew *c, unsigned self) {
        struct crew_shared *s = c->shared;
        uint32_t turn = 0;

        tell(&s->ready, c->n);
        for (;;) {
                /* Pairs with the release in crew_begin(): the job is written. */
                while (atomic_load_explicit(&s->turn, memory_order_acquire) == turn)
                        futex_wait(&s->turn, turn, NULL);
                turn++;
                if (s->job == JOB_EXIT)
                        _exit(0);
                c->work(c, self, s->job);
                crew_member(c, self)->ended_ns = clock_now();
                tell(&s->done, c->n);
        }
}

/* ---- their boss ------------------------------------------------------------------------------------------------ */

/* Until `count` is n; a look at who has died each 100 ms. */
static int await_all(struct crew *c, _Atomic uint32_t *count) {
        const struct timespec pause = {.tv_nsec = 100 * (long)NS_PER_MS};
        uint64_t deadline = clock_now() + JOB_DEADLINE_NS;
        uint32_t now;

        while ((now = atomic_load_explicit(count, memory_order_acquire)) != c->n) {
                futex_wait(count, now, &pause);
                for (unsigned i = 0; i < c->forked; i++)
                        if (c->pids[i] > 0 && waitpid(c->pids[i], NULL, WNOHANG) > 0) {
                                c->pids[i] = 0;
                                return servers_fail(c->servers, -ECHILD, "worker %u died", i);
                        }
                if (clock_now() > deadline)
                        return servers_fail(c->servers, -ETIMEDOUT, "%u of %u workers are not done after %u s",
                                            c->n - now, c->n, (unsigned)(JOB_DEADLINE_NS / NS_PER_S));
        }
        return 0;
}

static int map(struct crew *c) {
        void *shared, *members;

        c->stride = (sizeof(struct crew_member) + c->room * sizeof(uint64_t) + 4095) & ~(size_t)4095;
        shared = mmap(NULL, sizeof(*c->shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        members = mmap(NULL, c->n * c->stride, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        c->shared = shared == MAP_FAILED ? NULL : shared;
        c->members = members == MAP_FAILED ? NULL : members;
        c->pids = calloc(c->n, sizeof(*c->pids));
        return c->shared && c->members && c->pids ? 0 : servers_fail(c->servers, -ENOMEM, "out of memory");
}

int crew_start(struct crew *c, struct servers *s, unsigned n, size_t times, crew_work *work, void *argument) {
        *c = (struct crew){.n = n, .room = times, .work = work, .argument = argument, .servers = s};
        int r = map(c);

        for (; r == 0 && c->forked < n; c->forked++) {
                pid_t pid = servers_fork();
                if (pid == 0)
                        live(c, c->forked);
                if (pid < 0)
                        return servers_fail(s, -errno, "fork: %s", strerror(errno));
                c->pids[c->forked] = pid;
        }
        return r < 0 ? r : await_all(c, &c->shared->ready);
}

void crew_begin(struct crew *c, unsigned job) {
        struct crew_shared *s = c->shared;

        for (unsigned i = 0; i < c->n; i++) {
                struct crew_member *m = crew_member(c, i);
                m->operations = m->all = m->wrong = m->n_times = 0;
                m->trouble[0] = '\0';
        }
        s->job = job;
        s->begun_ns = clock_now();
        atomic_store_explicit(&s->done, 0, memory_order_relaxed);
        atomic_store_explicit(&s->phase, CREW_WARMING, memory_order_relaxed);
        atomic_fetch_add_explicit(&s->turn, 1, memory_order_release); /* pairs with the acquire in live() */
        futex_wake(&s->turn);
}

static void nap(uint64_t ns) {
        nanosleep(&(struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)}, NULL);
}

uint64_t crew_measure(struct crew *c, uint64_t warm_ns, uint64_t measure_ns) {
        uint64_t start;

        nap(warm_ns);
        atomic_store_explicit(&c->shared->phase, CREW_MEASURING, memory_order_relaxed);
        start = clock_now();
        nap(measure_ns);
        atomic_store_explicit(&c->shared->phase, CREW_OVER, memory_order_relaxed);
        return clock_now() - start;
}

int crew_finish(struct crew *c) {
        int r = await_all(c, &c->shared->done);

        c->failed = r < 0;
        for (unsigned i = 0; i < c->n && r == 0; i++) {
                struct crew_member *m = crew_member(c, i);
                if (m->trouble[0] || m->wrong)
                        return servers_fail(c->servers, -EIO, "worker %u: %" PRIu64 " wrong replies%s%s", i, m->wrong,
                                            m->trouble[0] ? "; " : "", m->trouble);
        }
        return r;
}

uint64_t crew_begun_ns(struct crew *c) { return c->shared->begun_ns; }

uint64_t crew_sum(struct crew *c, size_t field) {
        uint64_t sum = 0, value;
        for (unsigned i = 0; i < c->n; i++) {
                memcpy(&value, (char *)crew_member(c, i) + field, sizeof(value));
                sum += value;
        }
        return sum;
}

void crew_end(struct crew *c) {
        bool idle = c->shared && atomic_load(&c->shared->ready) == c->n && !c->failed;
        if (idle)
                crew_begin(c, JOB_EXIT);
        for (unsigned i = 0; i < c->forked; i++) {
                if (c->pids[i] > 0 && !idle)
                        kill(c->pids[i], SIGKILL);
                if (c->pids[i] > 0)
                        waitpid(c->pids[i], NULL, 0);
        }
        if (c->shared)
                munmap(c->shared, sizeof(*c->shared));
        if (c->members)
                munmap(c->members, c->n * c->stride);
        free(c->pids);
        *c = (struct crew){0};
}

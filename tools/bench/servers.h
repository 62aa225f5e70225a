/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A private redis-server, a private lessord and a private twemproxy for a benchmark, in a directory of their own under $TMPDIR. Whatever
 * becomes of the benchmark (its end, ctrl-c, a crash), nothing is left: see servers_supervised().
 *
 * Functions return 0 or a negative errno, with a sentence in `error`.
 */
#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#include <hiredis/hiredis.h>
#include <lessor/status.h>

struct servers {
        char directory[48], instance[32];
        char redis_socket[80], broker_socket[80], proxy_socket[80];
        unsigned redis_port;        /* on 127.0.0.1, besides the socket */
        pid_t redis, broker, proxy; /* 0: not running */
        int cpu_client, cpu_server; /* different where the machine has two we may use */
        char error[512];
};

/*
 * Makes the directory and the names, runs `run` in a child of its own, waits until that child and every process it left
 * has ended, removes the directory and the status segment. Returns what `run` returned, or 128 + the signal that ended
 * it.
 */
int servers_supervised(int (*run)(struct servers *s, void *argument), void *argument);

/* fork() whose child dies with its parent. */
pid_t servers_fork(void);

int servers_start_redis(struct servers *s);                      /* pinned to cpu_server */
int servers_start_broker(struct servers *s, const char *config); /* the YAML's text; pinned likewise */
/* twemproxy, Debian's nutcracker, with one connection to Redis, as is its default. -ENOENT: it is not installed. */
int servers_start_proxy(struct servers *s);
void servers_stop_broker(struct servers *s);
void servers_kill_broker(struct servers *s); /* -9; may be started again */
void servers_stop(struct servers *s);

/* The last line of the broker's log, empty without a broker of ours: for the error of a benchmark that broke off. */
void servers_last_words(const struct servers *s, char *ret, size_t size);

int servers_fail(struct servers *s, int error, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Binds every thread of the process (0: ours) to one CPU. */
void servers_pin(pid_t pid, int cpu);
void servers_unpin(pid_t pid);  /* to any CPU it may use */
void servers_raise_files(void); /* RLIMIT_NOFILE up to its hard limit */

/* A connection for questions, NULL: error says why. */
redisContext *servers_connect(struct servers *s);
/* What Redis itself says. CPU: user and system time of the whole process, in microseconds. */
double servers_redis_cpu_us(redisContext *c);
double servers_redis_cpu_of_asking_us(redisContext *c); /* what the question above adds to the next answer */
double servers_redis_connections(redisContext *c);      /* ever accepted */

/* Polls the broker's status segment until `done` says so, at most 10 s. */
int servers_wait_status(struct servers *s, bool (*done)(const struct lessor_status *status, void *argument),
                        void *argument);

/* SPDX-License-Identifier: MIT */
#pragma once
/* The pool that one writes oneself, for threads of one process: contexts made at need, a mutex, a condition. */
#include <pthread.h>
#include <stdbool.h>

#include <hiredis/hiredis.h>

enum { POOL_MAX = 20 };

struct pool {
        pthread_mutex_t lock;
        pthread_cond_t returned;
        redisContext *idle[POOL_MAX];
        unsigned n, open;
        redisContext *(*connect)(void *argument);
        void *argument;
};

void pool_init(struct pool *p, redisContext *(*connect)(void *argument), void *argument);
void pool_deinit(struct pool *p);                    /* every context must be back */
redisContext *pool_get(struct pool *p, int wait_ms); /* NULL: none within that time, or connecting failed */
void pool_put(struct pool *p, redisContext *c);

/* SPDX-License-Identifier: MIT */
/* In a file of its own, as a user's would be: the compiler must not see through it. */
#include "pool.h"

#include <time.h>

#include <base/clock.h>

void pool_init(struct pool *p, redisContext *(*connect)(void *), void *argument) {
        pthread_condattr_t attributes;

        *p = (struct pool){.connect = connect, .argument = argument};
        pthread_mutex_init(&p->lock, NULL);
        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        pthread_cond_init(&p->returned, &attributes);
        pthread_condattr_destroy(&attributes);
}

void pool_deinit(struct pool *p) {
        while (p->n > 0)
                redisFree(p->idle[--p->n]);
        pthread_cond_destroy(&p->returned);
        pthread_mutex_destroy(&p->lock);
}

/* Lock held. */
static void wait_for_one(struct pool *p, int wait_ms) {
        uint64_t at = clock_now() + (uint64_t)wait_ms * NS_PER_MS;
        struct timespec t = {.tv_sec = (time_t)(at / NS_PER_S), .tv_nsec = (long)(at % NS_PER_S)};

        while (p->n == 0 && p->open == POOL_MAX)
                if (pthread_cond_timedwait(&p->returned, &p->lock, &t) != 0)
                        return;
}

redisContext *pool_get(struct pool *p, int wait_ms) {
        redisContext *c = NULL;
        bool connect = false;

        pthread_mutex_lock(&p->lock);
        if (p->n == 0 && p->open == POOL_MAX)
                wait_for_one(p, wait_ms);
        if (p->n > 0)
                c = p->idle[--p->n];
        else if (p->open < POOL_MAX) {
                p->open++;
                connect = true;
        }
        pthread_mutex_unlock(&p->lock);
        if (connect && !(c = p->connect(p->argument)))
                pool_put(p, NULL);
        return c;
}

void pool_put(struct pool *p, redisContext *c) {
        bool broken = !c || c->err;

        pthread_mutex_lock(&p->lock);
        if (broken)
                p->open--;
        else
                p->idle[p->n++] = c;
        pthread_mutex_unlock(&p->lock);
        pthread_cond_signal(&p->returned);
        if (broken && c)
                redisFree(c);
}

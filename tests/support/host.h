/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What nearly every test needs: a redis-server and a broker in front of it.
 *
 *      struct host h;
 *      host_start(&h, "max_connections: 1, wait_timeout: 10s");       // one database, "main", db 0
 *      ... use client_open(&h.broker) ...; lessor_close(...);
 *      host_end(&h);                                                   // the books must balance
 */
#include "broker.h"
#include "redis.h"

struct host {
        struct redis redis;
        struct broker broker;
};

enum { HOST_DATABASES = 13 };
extern const char *const host_databases[HOST_DATABASES]; /* the thirteen of the shipped example */

void host_start(struct host *, const char *keys);
void host_start_many(struct host *, const char *keys); /* the thirteen, with these keys each */
void host_end(struct host *);

/* SPDX-License-Identifier: MIT */
#include "host.h"

#include <stdio.h>

#include "check.h"

const char *const host_databases[HOST_DATABASES] = {"main",  "knowledge", "prompts",   "agents", "metrics",
                                                    "cache", "sessions",  "workflows", "logs",   "temp",
                                                    "audit", "analytics", "codebase"};

void host_start(struct host *h, const char *keys) {
        redis_start(&h->redis, NULL);
        broker_start(&h->broker, "databases:\n  main: {%s, %s}\n", redis_address(&h->redis), keys);
}

void host_start_many(struct host *h, const char *keys) {
        char text[8192];
        int n = snprintf(text, sizeof(text), "databases:\n");

        redis_start(&h->redis, NULL);
        for (unsigned i = 0; i < HOST_DATABASES; i++)
                n += snprintf(text + n, sizeof(text) - (size_t)n, "  %s: {db: %u, %s, %s}\n", host_databases[i],
                              i < 12 ? i : 11, redis_address(&h->redis), keys);
        check((size_t)n < sizeof(text));
        broker_start(&h->broker, "%s", text);
}

void host_end(struct host *h) {
        check_settled(&h->broker, &h->redis);
        broker_free(&h->broker);
        redis_stop(&h->redis);
}

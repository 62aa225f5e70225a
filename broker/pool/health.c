/* SPDX-License-Identifier: MIT */
#include <stdio.h>

#include "pool.h"

enum lessor_health pool_health(const struct pool *pool, const char *last_error, const char *strain, char *reason) {
        unsigned serving = pool->count[CONN_FREE] + pool->count[CONN_LEASED] + pool->count[CONN_RESETTING];
        const char *what = "", *why = "";
        enum lessor_health health = LESSOR_HEALTH_HEALTHY;

        if (pool->breaker.state == BREAKER_OPEN) {
                health = LESSOR_HEALTH_FAILED;
                what = "circuit breaker open: ";
                why = pool->breaker.held ? "by an administrator" : last_error;
        } else if (pool->breaker.state == BREAKER_HALF_OPEN) {
                health = LESSOR_HEALTH_DEGRADED;
                what = "circuit breaker half-open, a probe is under way: ";
                why = last_error;
        } else if (pool->trouble) {
                health = serving ? LESSOR_HEALTH_DEGRADED : LESSOR_HEALTH_FAILED;
                why = last_error;
        } else if (strain[0]) {
                health = LESSOR_HEALTH_DEGRADED;
                what = "near exhaustion: ";
                why = strain;
        } else if (pool->replica) {
                health = LESSOR_HEALTH_DEGRADED;
                what = "the server is a replica and refuses writes";
        } else if (!pool->stats.created && !pool->stats.failed && !pool->count[CONN_DIALLING]) {
                health = LESSOR_HEALTH_UNUSED;
        }
        snprintf(reason, LESSOR_STATUS_TEXT_SIZE, "%s%s", what, why);
        return health;
}

/* SPDX-License-Identifier: MIT */
#pragma once
/* Readings for the tests of `lessor top`, without a segment. */
#include "top/top.h"

#include "support/check.h"

#define SECOND UINT64_C(1000000000)

enum { TOP_FAKES = 3 };

static struct lessor_status_database fakes[TOP_FAKES];
static struct model_lease fake_leases[1];

/* A model at `second`; the databases are `fakes`, which the test changes between readings. */
static inline struct model fake_model(unsigned second) {
        struct model m = {.databases = fakes,
                          .n_databases = TOP_FAKES,
                          .leases = fake_leases,
                          .connections = fake_leases,
                          .read_at = second * SECOND,
                          .wall = (1000 + second) * SECOND};
        m.instance = (struct model_instance){.pid = 42, .generation = 7, .uptime_ns = 90 * SECOND, .sessions = 3};
        snprintf(m.instance.name, LESSOR_NAME_SIZE, "here");
        snprintf(m.instance.release, LESSOR_NAME_SIZE, "1.2.3");
        model_derive_overall(fakes, TOP_FAKES, &m.overall);
        return m;
}

static inline void fake_databases(void) {
        static const char *const names[TOP_FAKES] = {"main", "cache", "audit"};
        memset(fakes, 0, sizeof(fakes));
        memset(fake_leases, 0, sizeof(fake_leases));
        for (unsigned i = 0; i < TOP_FAKES; i++) {
                snprintf(fakes[i].name, LESSOR_NAME_SIZE, "%s", names[i]);
                snprintf(fakes[i].endpoint, LESSOR_STATUS_TEXT_SIZE, "unix:/run/redis.sock/%u", i);
                fakes[i].health = LESSOR_HEALTH_HEALTHY;
                fakes[i].max_connections = 20;
        }
}

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What the commands show: one reading of the status segment, and the figures derived from it. Knows nothing of how it
 * is printed (render.h, json.h). Strings are terminated here, whatever stood in the segment; not yet fit for a
 * terminal.
 */
#include <lessor/status.h>

struct model_instance {
        char name[LESSOR_NAME_SIZE], release[LESSOR_NAME_SIZE];
        int pid;
        bool gone;  /* no process has this pid */
        bool stale; /* dead or hung: the figures are its last */
        uint64_t generation, uptime_ns, heartbeat_age_ns;
        uint64_t sessions, sessions_total, sessions_refused, reloads, reloads_failed;
};

struct model_overall {
        bool healthy; /* no database is degraded or failed, and the broker is alive */
        unsigned total, healthy_databases, degraded_databases, failed_databases; /* unused counts healthy */
        double success_rate;                                                     /* 0..100 */
};

struct model_lease {
        struct lessor_status_connection connection;
        const char *database; /* the model's */
        uint64_t age_ns;      /* in this state */
};

/* A session's commands under way in one database's lane. */
struct model_lane {
        struct lessor_status_lane record;
        const char *database;                              /* the model's */
        const struct lessor_status_connection *connection; /* the model's: that carries them; NULL: none was sent yet */
        uint64_t age_ns;                                   /* of the oldest */
};

struct model {
        struct model_instance instance;
        struct model_overall overall;
        uint64_t read_at, wall;                   /* CLOCK_MONOTONIC, CLOCK_REALTIME of the reading */
        struct lessor_status_database *databases; /* those that are configured */
        unsigned n_databases;
        unsigned *places; /* of each record, in `databases` */
        unsigned n_records;
        struct model_lease *leases; /* held ones, oldest first */
        unsigned n_leases;
        struct model_lease *connections; /* in whatever state but vacant, by database and slot */
        unsigned n_connections;
        struct model_lane *lanes; /* those under way longest, the oldest first */
        unsigned n_lanes;
};

/* 0; -ENOMEM. *ret is the caller's, for model_deinit(). */
int model_read(const struct lessor_status *status, struct model *ret);
void model_deinit(struct model *m); /* a zeroed one ok; may be said twice */

const struct lessor_status_database *model_find(const struct model *m, const char *database); /* NULL: no such */
/* NULLs: any. The address is the connection's own as Redis sees it, or the number of its CLIENT ID. */
bool model_chosen(const struct model_lease *l, const char *database, const char *address);
bool model_lane_chosen(const struct model_lane *l, const char *database, const char *address); /* likewise */
/* Sessions with commands under way in lanes, and the commands: more than m->lanes has, perhaps. NULL: of all databases. */
struct model_in_flight {
        uint64_t sessions, commands;
};
struct model_in_flight model_in_flight(const struct model *m, const char *database);
const char *model_health_text(uint64_t health);
const char *model_standing_text(
        const struct lessor_status_database *d); /* likewise, or "paused", "draining", "drained" */
/* As people are shown it, and `lessor kill` takes it: numbers of leases begin with the instance's generation. */
uint64_t model_lease_number(const struct model *m, uint64_t lease);
const char *model_connection_text(uint32_t state);
const char *model_breaker_text(uint64_t state);
const char *model_state_text(const char *field, uint64_t value); /* of unit ENUM; NULL: not known here */

uint64_t model_operations(const struct lessor_status_database *d);
double model_success_rate(uint64_t ok, uint64_t failed); /* 0..100; 100 when nothing ran */
void model_derive_overall(const struct lessor_status_database *databases, unsigned n, struct model_overall *ret);

struct model_times {
        uint64_t count;
        double mean_us, p50_us, p90_us, p99_us, max_us;
};
struct model_times model_times(const struct lessor_status_histogram *h);

enum model_verdict { MODEL_HEALTHY = 0, MODEL_DEGRADED = 1, MODEL_FAILED = 2 }; /* exit codes of `lessor health` */
enum model_verdict model_verdict(const struct model *m);

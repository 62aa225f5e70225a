/* SPDX-License-Identifier: MIT */
#pragma once
/* What the files of one database share: database.c and its neighbours, nobody else. */
#include "database.h"
#include "upstream/dial.h"
#include "upstream/link.h"

struct connection {
        struct database *database;
        struct pool_conn *conn; /* of the same slot */
        struct dial *dial;
        struct link link;
        uint64_t client_id;
        char local[LESSOR_NAME_SIZE];
        struct database_caller holder; /* while leased */
};

struct counters {
        uint64_t lease_timeouts, exhausted, cancelled, reports, last_error_time, last_success_time, last_lease_time;
};

struct database {
        struct database_options o;
        struct pool pool;
        struct connection *connections;
        struct upstream_target target;
        char client_name[2 * LESSOR_NAME_SIZE + 16]; /* lessor:<instance>:<database> */
        char endpoint[LESSOR_STATUS_TEXT_SIZE];
        char last_error[LESSOR_STATUS_TEXT_SIZE];
        struct event wake; /* at pool_wakeup() */
        struct counters counters;
        _Atomic uint64_t denied; /* counted by the sessions' threads */
};

static inline const char *name_of(const struct database *db) { return db->o.config->name; }

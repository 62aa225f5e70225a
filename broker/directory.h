/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The look-up tables, RCU-protected: read by data threads on every request, without a lock or a shared write.
 *
 * Names: an immutable snapshot, replaced whole (a reload will do so under load). Sessions: liburcu's lock-free hash
 * table, changed at attach and detach, walked by the control thread to harvest what workers counted. What leaves a table
 * is freed after a grace period, by the control thread, which may block.
 */
#include <stdbool.h>

#include "database.h"
#include "rcu.h"

struct directory_names {
        unsigned n;
        struct database *databases[]; /* by index */
};

struct directory_session {
        struct cds_lfht_node node;
        uint64_t id;
};

struct directory {
        struct directory_names *names; /* rcu_dereference() */
        struct cds_lfht *sessions;
};

int directory_init(struct directory *directory, unsigned max_sessions); /* 0; -ENOMEM */
void directory_deinit(struct directory *directory); /* no sessions left; frees the names, not the databases */

/* Publishes `names` and returns those before (NULL: none), to be freed after synchronize_rcu(). */
struct directory_names *directory_publish(struct directory *directory, struct directory_names *names);

/* Between rcu_read_lock() and rcu_read_unlock(); the result is good until then. NULL: none. */
struct database *directory_database(const struct directory *directory, unsigned index);
struct database *directory_find(const struct directory *directory, const char *name);
/* "`main`, `cache`, `jobs`": what an unknown name is told. */
void directory_list(const struct directory *directory, char *to, size_t size);

void directory_add(struct directory *directory, struct directory_session *session);
void directory_remove(struct directory *directory, struct directory_session *session);
struct directory_session *directory_session(const struct directory *directory, uint64_t id);
typedef void directory_visit(struct directory_session *session, void *userdata);
void directory_walk(const struct directory *directory, directory_visit *visit, void *userdata);

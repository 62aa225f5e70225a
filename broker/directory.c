/* SPDX-License-Identifier: MIT */
#include "directory.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

int directory_init(struct directory *directory, unsigned max_sessions) {
        unsigned long buckets = 64;
        while (buckets < max_sessions && buckets < 1UL << 16)
                buckets <<= 1;
        /* Sized for the most there can be: growing would need a thread of liburcu's own. */
        directory->names = NULL;
        directory->sessions = cds_lfht_new(buckets, buckets, buckets, 0, NULL);
        return directory->sessions ? 0 : -ENOMEM;
}

void directory_deinit(struct directory *directory) {
        free(directory->names);
        directory->names = NULL;
        if (directory->sessions) {
                int r = cds_lfht_destroy(directory->sessions, NULL);
                assert(r == 0);
                (void)r;
        }
        directory->sessions = NULL;
}

struct directory_names *directory_publish(struct directory *directory, struct directory_names *names) {
        rcu_handover(names);
        return rcu_xchg_pointer(&directory->names, names);
}

static const struct directory_names *names_of(const struct directory *directory) {
        struct directory_names *names = rcu_dereference(directory->names);
        rcu_takeover(names);
        return names;
}

struct database *directory_database(const struct directory *directory, unsigned index) {
        const struct directory_names *names = names_of(directory);
        return index < names->n ? names->databases[index] : NULL;
}

struct database *directory_find(const struct directory *directory, const char *name) {
        const struct directory_names *names = names_of(directory);
        for (unsigned i = 0; i < names->n; i++)
                if (!database_removed(names->databases[i]) &&
                    strcmp(database_config(names->databases[i])->name, name) == 0)
                        return names->databases[i];
        return NULL;
}

void directory_list(const struct directory *directory, char *to, size_t size) {
        const struct directory_names *names = names_of(directory);
        size_t used = 0;
        to[0] = '\0';
        for (unsigned i = 0; i < names->n; i++) {
                if (database_removed(names->databases[i]))
                        continue;
                int n = snprintf(to + used, size - used, "%s`%s`", used ? ", " : "",
                                 database_config(names->databases[i])->name);
                if (n < 0 || (size_t)n >= size - used) {
                        to[used] = '\0'; /* whole names only */
                        return;
                }
                used += (size_t)n;
        }
}

/* Session numbers count up: a multiplication spreads them over the buckets (Knuth's golden ratio, 64 bits). */
static unsigned long hash(uint64_t id) { return (unsigned long)(id * UINT64_C(0x9e3779b97f4a7c15) >> 20); }

static int match(struct cds_lfht_node *node, const void *key) {
        const struct directory_session *session = container_of(node, struct directory_session, node);
        return session->id == *(const uint64_t *)key;
}

void directory_add(struct directory *directory, struct directory_session *session) {
        cds_lfht_node_init(&session->node);
        rcu_handover(session);
        rcu_read_lock();
        cds_lfht_add(directory->sessions, hash(session->id), &session->node);
        rcu_read_unlock();
}

void directory_remove(struct directory *directory, struct directory_session *session) {
        rcu_read_lock();
        (void)cds_lfht_del(directory->sessions, &session->node);
        rcu_read_unlock();
}

static struct directory_session *session_of(struct cds_lfht_iter *iter) {
        struct cds_lfht_node *node = cds_lfht_iter_get_node(iter);
        struct directory_session *session = node ? container_of(node, struct directory_session, node) : NULL;
        rcu_takeover(session);
        return session;
}

struct directory_session *directory_session(const struct directory *directory, uint64_t id) {
        struct cds_lfht_iter iter;
        cds_lfht_lookup(directory->sessions, hash(id), match, &id, &iter);
        return session_of(&iter);
}

void directory_walk(const struct directory *directory, directory_visit *visit, void *userdata) {
        struct cds_lfht_iter iter;
        struct directory_session *session;
        cds_lfht_first(directory->sessions, &iter);
        while ((session = session_of(&iter))) {
                visit(session, userdata);
                cds_lfht_next(directory->sessions, &iter);
        }
}

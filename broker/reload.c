/* SPDX-License-Identifier: MIT */
/*
 * A reload: the new configuration is loaded and checked whole, then everything that can fail is made ready, and only then
 * anything changes. On the control thread, between two snapshots:
 *
 *      names and control page are replaced -> a letter to each database's thread -> all letters back -> a grace
 *      period -> what nobody looks at any more is freed: the old table of names, the old configuration
 *
 * Databases keep their numbers and their objects while the broker lives; a removed one stays, empty, so that leases which
 * are still out find their way back. Every database gets a letter, also an unchanged one: it points into the old configuration.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "broker_internal.h"
#include "config/diff.h"
#include "instance.h"
#include "log.h"

struct reload {
        struct broker *broker;
        struct config *config; /* the new one, until the broker has it */
        struct config_diff diff;
        struct directory_names *names; /* the old ones, to be freed */
        unsigned letters_out;
        bool old_in_use; /* a database could not take over the new one */
};

struct order {
        struct letter letter;
        struct reload *reload;
        struct database *database;
        const struct config_database *config; /* NULL: remove it */
        bool start, failed;
};

void reload_free(struct reload *reload) {
        if (!reload)
                return;
        config_diff_deinit(&reload->diff);
        config_free(reload->config);
        free(reload->names);
        reload->broker->reload = NULL;
        free(reload);
}

/* ---- all letters are back ------------------------------------------------------------------------------------------ */

static void finish(struct reload *r) {
        struct broker *b = r->broker;
        struct config *old = (struct config *)(uintptr_t)b->current;
        synchronize_rcu();
        b->current = r->config;
        atomic_store_explicit(&b->reply_budget.limit, r->config->reply_budget, memory_order_relaxed);
        r->config = NULL;
        /* What the broker started with stays, for its own keys; its passwords have been replaced, perhaps because they leaked. */
        if (old == b->config && !r->old_in_use)
                config_wipe_secrets(old);
        else if (!r->old_in_use)
                config_free(old);
        administer_reloaded(b, !r->old_in_use);
        log_info("config: reloaded databases=%u", b->current->n_databases);
        reload_free(r);
}

static void open_back(struct letter *letter) {
        struct order *order = container_of(letter, struct order, letter);
        struct reload *r = order->reload;
        if (order->failed) {
                r->old_in_use = true;
                log_error("config: out of memory, `%s` goes on as it was", database_config(order->database)->name);
        }
        free(order);
        if (--r->letters_out == 0)
                finish(r);
}

/* On the database's thread. */
static void open_order(struct letter *letter) {
        struct order *order = container_of(letter, struct order, letter);
        struct broker *b = order->reload->broker;
        if (order->start)
                database_start(order->database);
        else if (order->config)
                order->failed =
                        database_reconfigure(order->database, order->config, order->reload->config->fd_cache) < 0;
        else
                database_remove(order->database);
        mailbox_post(&b->control_loop.inbox, &order->letter, open_back);
}

/* ---- what can fail -------------------------------------------------------------------------------------------------- */

static void log_changes(const struct config_diff *diff) {
        char *text = NULL, *rest = NULL;
        size_t size = 0;
        FILE *f = open_memstream(&text, &size);
        if (!f)
                return;
        config_diff_write(diff, f);
        fclose(f);
        for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
                log_info("config: %s", line);
        if (diff->restart)
                log_warning("config: what says restart takes effect when lessord is started again");
        free(text);
}

/* The added ones, as objects that nobody knows yet. */
static int make_added(struct reload *r) {
        struct broker *b = r->broker;
        for (unsigned i = 0; i < r->config->n_databases; i++) {
                const struct config_database *c = &r->config->databases[i];
                if (config_find(b->current, c->name))
                        continue;
                int result =
                        b->n_databases == LESSOR_DATABASES_MAX ? -ENOSPC : broker_make_database(b, c, b->n_databases);
                if (result < 0)
                        return result;
        }
        return 0;
}

static void unmake_added(struct broker *b, unsigned before, unsigned connections_before) {
        while (b->n_databases > before) {
                database_free(b->databases[--b->n_databases]);
                b->databases[b->n_databases] = NULL;
        }
        b->n_connections = connections_before;
}

static struct directory_names *make_names(const struct broker *b) {
        struct directory_names *names = calloc(1, sizeof(*names) + b->n_databases * sizeof(struct database *));
        if (!names)
                return NULL;
        names->n = b->n_databases;
        memcpy(names->databases, b->databases, b->n_databases * sizeof(struct database *));
        return names;
}

static struct order *make_orders(unsigned n, struct order *ret[]) {
        for (unsigned i = 0; i < n; i++)
                if (!(ret[i] = calloc(1, sizeof(**ret)))) {
                        while (i > 0)
                                free(ret[--i]);
                        return NULL;
                }
        return n ? ret[0] : NULL;
}

/* ---- what cannot ---------------------------------------------------------------------------------------------------- */

static void give_order(struct reload *r, struct order *order, unsigned index, unsigned before) {
        struct broker *b = r->broker;
        struct database *db = b->databases[index];
        const struct config_database *config = config_find(r->config, database_config(db)->name);
        *order = (struct order){.reload = r, .database = db, .config = config, .start = index >= before};
        if (config)
                broker_show_database(b, config, index);
        else
                control_page_remove(&b->page, index);
        if (index >= before)
                control_add_database(b->control, index);
        r->letters_out++;
        mailbox_post(&database_loop(db)->inbox, &order->letter, open_order);
}

static void carry_out(struct reload *r, struct directory_names *names, struct order *orders[], unsigned before) {
        struct broker *b = r->broker;
        unsigned next = 0;
        log_set_level((enum log_level)r->config->log_level);
        r->names = directory_publish(&b->directory, names);
        for (unsigned i = 0; i < b->n_databases; i++)
                if (!database_removed(b->databases[i]))
                        give_order(r, orders[next++], i, before);
}

static unsigned count_served(const struct broker *b) {
        unsigned n = 0;
        for (unsigned i = 0; i < b->n_databases; i++)
                n += !database_removed(b->databases[i]);
        return n;
}

static int change(struct reload *r) {
        struct broker *b = r->broker;
        unsigned before = b->n_databases, connections_before = b->n_connections;
        struct order *orders[LESSOR_DATABASES_MAX];
        struct directory_names *names = NULL;
        int result = make_added(r);
        if (result == 0 && (!(names = make_names(b)) || !make_orders(count_served(b), orders)))
                result = -ENOMEM;
        if (result < 0) {
                free(names);
                unmake_added(b, before, connections_before);
                return result;
        }
        carry_out(r, names, orders, before);
        return 0;
}

static unsigned places_of(const struct broker *b, const char *name) {
        for (unsigned i = 0; i < b->n_databases; i++)
                if (!database_removed(b->databases[i]) && strcmp(database_config(b->databases[i])->name, name) == 0)
                        return database_places(b->databases[i]);
        return 0;
}

/* Places and records cannot be had while the broker runs: then it is said how many there are, and nothing changes. */
static int check_room(const struct reload *r) {
        const struct broker *b = r->broker;
        unsigned places, databases = b->n_databases, connections = b->n_connections;
        for (unsigned i = 0; i < r->config->n_databases; i++) {
                const struct config_database *c = &r->config->databases[i];
                if (!config_find(b->current, c->name)) {
                        databases++;
                        connections += dialling_places(c);
                } else if (c->max_connections > (places = places_of(b, c->name))) {
                        log_error("config: max_connections of `%s` can grow to %u while the broker runs, not to %u: "
                                  "restart it",
                                  c->name, places, c->max_connections);
                        return -ENOSPC;
                }
        }
        if (databases > LESSOR_DATABASES_MAX || connections > b->connection_capacity) {
                log_error("config: no room for these databases while the broker runs (with those removed since its "
                          "start, "
                          "%u of %u; %u of %u places, each takes twice its max_connections and 8): restart it",
                          databases, LESSOR_DATABASES_MAX, connections, b->connection_capacity);
                return -ENOSPC;
        }
        return 0;
}

static int prepare(struct reload *r) {
        struct broker *b = r->broker;
        int result = b->loader.load(b->loader.userdata, &r->config);
        if (result != 0)
                return result < 0 ? result : -EINVAL;
        if (b->current->file && !r->config->file) {
                log_error("config: %s is gone", b->current->file);
                return -EINVAL;
        }
        result = check_room(r);
        return result < 0 ? result : config_diff(b->current, r->config, &r->diff);
}

bool reload_begin(struct broker *b) {
        struct reload *r;
        if (b->reload)
                return false;
        service_reloading(&b->service);
        r = calloc(1, sizeof(*r));
        int result = r ? 0 : -ENOMEM;
        if (r) {
                r->broker = b;
                b->reload = r;
                result = prepare(r);
        }
        if (result == 0) {
                log_changes(&r->diff);
                (void)instance_raise_fds(config_fd_need(r->config));
                result = change(r);
        }
        if (result < 0) {
                log_error("config: not reloaded, nothing has changed: %s", result == -EINVAL   ? "it has errors"
                                                                           : result == -ENOSPC ? "it needs a restart"
                                                                                               : strerror(-result));
                administer_reloaded(b, false);
                reload_free(r);
        }
        return true;
}

/* SPDX-License-Identifier: MIT */
#pragma once
/* What broker.c, reload.c and administer.c share. */
#include "admin/admin.h"
#include "broker.h"
#include "control.h"
#include "service.h"

/* Connection records in the status segment for databases that a reload may add. */
#define BROKER_SPARE_CONNECTIONS 1024U

struct broker {
        const struct config *config;  /* what it started with: the broker's own keys, which a restart alone changes */
        const struct config *current; /* the databases': the same, or the reload's that owns it */
        struct broker_loader loader;
        struct reload *reload; /* under way; NULL */
        uint64_t generation;
        int lock, listener;
        bool activated; /* the listener is the service manager's, and so is its path */
        struct service service;
        struct loop control_loop;
        struct control *control;
        struct session_host host;
        struct directory directory;
        struct reply_budget reply_budget;
        struct control_page page;
        struct status_segment *segment;
        struct session_set *threads;
        unsigned n_threads_ready;
        struct database **databases;
        unsigned *first_connection;
        unsigned n_databases, n_connections; /* in use; and connection records there is room for: */
        unsigned connection_capacity;
        struct event *accept, *accept_pause;
        unsigned next_thread;
        struct admin *admin;                       /* NULL: its socket could not be made */
        struct list reloads_wanted, reloads_begun; /* calls */
        bool reload_begins, stopping;
        unsigned n_stopping; /* data threads that have not said yet that they have stopped */
};

/* Makes database `index` as `c` says, and its places in the tables; nobody sees it yet. 0; -ENOMEM; -ENOSPC: no room. */
int broker_make_database(struct broker *b, const struct config_database *c, unsigned index);
void broker_show_database(struct broker *b, const struct config_database *c, unsigned index); /* in the control page */

bool reload_begin(struct broker *broker); /* false: one is under way, ask again */
void reload_free(struct reload *reload);  /* NULL ok */

/* administer.c: what orders on the administration socket mean. */
void administer_start(struct broker *b);               /* without it the broker serves as well: trouble is logged */
void administer_end(struct broker *b);                 /* what was under way has come home with its letters */
bool administer_reload(void *broker);                  /* reload_begin(), for those who have asked for one */
void administer_reloaded(struct broker *b, bool well); /* the one that was begun has ended */

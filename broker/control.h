/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The control thread (the process' first): signals, publication of the status segment, burial of ended sessions.
 *
 * Publication goes by letters: ten times a second each data thread is asked for a snapshot of its databases, fills it
 * and sends it back; only then is the heartbeat moved, which therefore proves that data threads make progress.
 */
#include "loop.h"
#include "service.h"
#include "session.h"
#include "status/segment.h"

#define CONTROL_PERIOD_MS 100

struct control;

struct control_options {
        struct session_host *host;
        struct session_set *threads; /* the data threads */
        unsigned n_threads;
        struct database **databases;
        unsigned n_databases;
        const unsigned *first_connection; /* of each database, in the status segment */
        unsigned n_connections;
        struct status_segment *segment;
        struct service *service;
        bool (*reload)(void *userdata); /* it is wanted: called while no snapshot is away; false: not now */
        void *userdata;
};

int control_new(struct loop *loop, const struct control_options *options, struct control **ret); /* 0; -errno */
/* From within `reload`: databases[index], the next one, is there from now on. */
void control_add_database(struct control *control, unsigned index);
void control_want_reload(struct control *control);    /* as SIGHUP does */
void control_stop(struct control *control, bool cut); /* as SIGTERM does, or SIGQUIT */
/* The data threads are being stopped: no more figures, while the loop goes on until they have. */
void control_stopping(struct control *control);
bool control_cut(const struct control *control); /* held leases are to end, too */
void control_reloaded(struct control *control, bool well);
void control_free(struct control *control); /* after the data threads have ended */
void control_bury(struct letter *letter);   /* session_host.bury, opened in the control loop */

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * One session's lane at one data thread, the broker's side. Made by the session's thread, which keeps the pointer only to
 * say port_end(); all else happens on the lane's own thread.
 *
 * What is taken from the lane is checked here and offered to its database. What cannot be sent yet is kept, in order,
 * apart for each database: one that cannot be reached does not hold up the others. Kept are at most HELD_MAX bytes; beyond
 * that nothing more is taken, and the lane is full.
 */
#include <stdbool.h>
#include <stdint.h>

#include <event2/event_struct.h>

#include "advice.h"
#include "base/lane.h"
#include "base/list.h"
#include "lane/batch.h"
#include "loop.h"
#include "peer/peer.h"

struct lanes;
struct port;
struct roll;
struct config_database;
struct database;
struct session_memory;

/* The port's part in one database. */
struct share {
        struct share *next; /* of the port's */
        struct port *port;
        struct database *database;
        struct batch_lane lane;
        const struct config_database *judged; /* the configuration by which `allowed` was found */
        bool allowed;
        struct list held; /* requests that wait to be sent, in order */
        struct advice_lane advice;
};

/* Taken from the lane. */
struct call {
        uint64_t tag, deadline;
        const char *data;
        uint32_t length;
        bool linked; /* LANE_LINKED */
};

struct port_options {
        struct lanes *lanes;
        struct loop *home;
        uint64_t session;
        const char *program;            /* as he calls himself */
        struct session_memory *memory;  /* a reference of its own is taken */
        struct peer_identity *identity; /* taken, whatever comes of it */
};
/* fds: for the worker: the memory, the caller's to close; the doorbell, which stays the port's. 0; -errno. */
int port_new(const struct port_options *options, struct port **ret, int fds[2]);
uint64_t port_size(const struct lanes *lanes);
/* From the session's thread, once each, in this order. */
void port_begin(struct port *port);
void port_end(struct port *port);

/* ---- on the lane's thread ---- */

void port_free(struct port *port);
struct port *port_of_link(struct list *link);       /* in lanes->active or ->quiet */
struct port *port_of_told_link(struct list *link);  /* in lanes->told */
bool port_collect(struct port *port, uint64_t now); /* true: there was something */
bool port_is_idle(struct port *port, uint64_t now); /* for long, and nothing is under way in it */
bool port_has_more(struct port *port);              /* the last look before sleeping */
void port_set_quiet(struct port *port, bool quiet);
void port_show(struct port *port, struct roll *roll); /* what is under way, for each database; see lanes_show() */
void port_wake(struct port *port);                    /* who waits for completions */
/* The answer to a call: data are the raw reply, or with an outcome the error's text. */
void port_complete(struct port *port, const struct lane_answer *answer);
/* Likewise, with a reply in a memfd, which is taken, as is what it has reserved of the budget. */
void port_complete_apart(struct port *port, uint64_t tag, int fd, uint64_t size, uint64_t reserved);

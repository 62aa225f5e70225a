/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A worker's session: his socket (peer), his segment, and his requests on their way to the databases' threads and back.
 *
 * It belongs to one data thread. A request for a database of the same thread is a call; for another's it travels as a
 * letter, and so does its answer, with a dup of the fd, because the database may close its own meanwhile. Letters keep
 * their order, so that "session ended" finds everything the session asked for before.
 */
#include <stdatomic.h>

#include "directory.h"
#include "lanes.h"
#include "status/control_page.h"
#include "status/session_memory.h"
#include "users.h"

struct session;

/* What all sessions of a broker share. */
struct session_set;
struct session_host {
        struct session_set *threads; /* for their lanes */
        unsigned n_threads;
        struct directory *directory;
        struct control_page *control;
        struct mailbox *undertaker; /* gets the letter of each session that has ended: session_bury() */
        letter_open *bury;
        void *undertaker_data;
        uint64_t instance;
        unsigned max_sessions;
        _Atomic unsigned max_sessions_per_user; /* 0: no limit */
        struct users users;
        _Atomic uint64_t attached, total, refused; /* sessions now, ever, turned away */
        _Atomic uint64_t newcomers;                /* of all threads */
        _Atomic uint64_t last_id;
};

/* A data thread: its loop, and the sessions that belong to it. */
struct session_set {
        struct loop loop;
        struct session_host *host;
        struct list sessions;
        struct list newcomers; /* connected, not attached yet: the oldest first */
        unsigned n_newcomers;
        bool ended; /* by session_end_all() */
        struct lanes lanes;
};

/*
 * Those who connect and do not attach hold nobody else up: beyond this many of a thread, and beyond the places that
 * max_sessions has left (all workers of a host may start at once), the oldest of them is ended.
 */
#define SESSION_NEWCOMERS_MAX 64U

void session_set_init(struct session_set *set, struct session_host *host);
void session_accept(struct session_set *set, int fd); /* takes the fd; on the set's thread */
/* Ends the session of that number, or, when it is 0, those of that process. How many; the first one's pid, if any. */
unsigned session_kill(struct session_set *set, uint64_t id, pid_t pid, pid_t *ret_pid);
/* The broker stops: tells each, frees each, and turns away whoever comes from now on. */
void session_end_all(struct session_set *set, const char *why);

extern const struct database_ops session_database_ops;
extern const struct lanes_ops session_lanes_ops;

/* For the undertaker, which alone does this: what the worker counted since the last time, for each database he used. */
typedef void session_totals(void *userdata, unsigned database, struct session_memory *memory);
void session_harvest(struct directory_session *session, session_totals *visit, void *userdata);
struct directory_session *session_of_letter(struct letter *letter); /* what a bury letter is about */
void *session_undertaker(struct letter *letter);                    /* its host's undertaker_data */
void session_free(struct directory_session *session);               /* after a grace period */

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A broker made of a script: a thread that a test gives a function to, which says message by message what the library
 * meets. It listens on a real socket, makes real shared memory, and grants one end of a socketpair, whose other end is
 * the script's to play Redis on.
 *
 * A script checks with need(): the first failure ends it, and fake_stop(), which waits for the script, tells it.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/wire.h"

struct fake;
typedef void (*fake_script)(struct fake *, void *data);

struct fake {
        char directory[64], path[96];
        int listener, session; /* -1: not open */
        int quit;              /* eventfd: fake_stop() was called */
        int pidfd;             /* the last worker's */
        int control_fd, segment_fd;
        struct lessor_control *control;
        struct lessor_segment *segment; /* as the broker sees it */
        struct lessor_msg_attached attached;
        uint64_t wait_ns, socket_timeout_ns;
        uint64_t leases;                             /* granted so far */
        unsigned sessions, returned, returned_clean; /* counted by fake_serve() */
        fake_script script;
        void *data;
        pthread_t thread;
        char failure[256];
};

#define need(f, cond)                                                                                                  \
        do {                                                                                                           \
                if (!(cond)) {                                                                                         \
                        fake_fail((f), __FILE__, __LINE__, #cond);                                                     \
                        return;                                                                                        \
                }                                                                                                      \
        } while (0)

/* Databases main 0, cache 1, jobs 2. Change what you like in `f` between fake_init() and fake_run(). */
void fake_init(struct fake *f);
void fake_run(struct fake *f, fake_script script, void *data);
static inline void fake_start(struct fake *f, fake_script script, void *data) {
        fake_init(f);
        fake_run(f, script, data);
}
void fake_stop(struct fake *f);
void fake_fail(struct fake *f, const char *file, int line, const char *what);

/* Each false, or -1, when it did not happen within ten seconds. */
bool fake_accept(struct fake *f);   /* a worker connects and says ATTACH */
bool fake_attached(struct fake *f); /* and is told f->attached */
static inline bool fake_attach(struct fake *f) { return fake_accept(f) && fake_attached(f); }
bool fake_receive(struct fake *f, enum lessor_message type, union wire_message *ret);
bool fake_gone(struct fake *f); /* the worker closes the session; anything it still says is skipped */
bool fake_send(struct fake *f, const void *message, size_t size, const int *fds, unsigned n_fds);
int fake_grant(struct fake *f, const union wire_message *lease); /* returns Redis' end */
bool fake_grant_fd(struct fake *f, const union wire_message *lease, int fd);
bool fake_refuse(struct fake *f, uint64_t request, enum lessor_outcome outcome, unsigned flags, const char *text);
void fake_hang_up(struct fake *f);

/* Redis' side of a connection. */
bool fake_expect(int fd, const char *bytes); /* exactly these come next */
bool fake_say(int fd, const char *bytes);
bool fake_ended(int fd); /* the other side is closed */

/*
 * A script of its own: the shortest broker. Any number of sessions attach, whatever they ask for is granted, and
 * each command is answered by PONG; until fake_stop().
 */
void fake_serve(struct fake *f, void *unused);

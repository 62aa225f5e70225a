/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What every loop of the broker has: an event base, a mailbox, and for data threads the resolver and the watch over
 * links. A data thread owns pools and sessions and alone changes them; the control thread owns signals and the status
 * segment.
 */
#include <pthread.h>
#include <stdbool.h>

#include "mailbox.h"
#include "upstream/link.h"
#include "upstream/resolver.h"

/* What is done between two waits; see lanes.h. */
struct loop_turns {
        bool (*turn)(void *userdata);      /* true: there was something, only look for events */
        bool (*may_sleep)(void *userdata); /* the last look; false: something has come */
        void (*awake)(void *userdata);     /* after each may_sleep() that was true */
        void *userdata;
};

struct loop {
        struct event_base *base;
        struct mailbox inbox;
        struct resolver *resolver; /* NULL in the control thread; likewise below */
        struct link_watch *links;
        pthread_t thread;
        bool running;            /* the thread exists and is to be joined */
        struct loop_turns turns; /* none: turn is NULL */
};

int loop_init(struct loop *loop, bool with_upstream); /* 0; -errno */
void loop_deinit(struct loop *loop);
int loop_start(struct loop *loop, const char *name); /* runs it in a thread of its own, deaf to signals. 0; -errno */
void loop_join(struct loop *loop);

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The administration socket (lessor/admin.h), on the control thread: orders come in, answers go out. What an order means
 * is the owner's business: it comes up through admin_ops, and goes back by admin_done() at any later time.
 *
 * Nothing a client does, or leaves undone, is waited for. A call is answered at once, or when the owner is done, or as
 * LATE after LESSOR_ADMIN_PATIENCE_NS; it stays the owner's until he is done, so that no more than LESSOR_ADMIN_CALLS are ever
 * under way, whatever hangs.
 */
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#include <lessor/admin.h>

#include "base/list.h"

struct admin;

struct admin_call {
        struct list link;
        struct admin *admin;
        struct event patience;
        bool told; /* that it is late: nothing more is said */
        struct ucred who;
        struct sockaddr_un from;
        socklen_t from_size;
        struct lessor_admin_request request;
        struct lessor_admin_answer answer; /* the owner fills in outcome, text and numbers */
};

struct admin_ops {
        void (*order)(void *userdata, struct admin_call *call);          /* ends in admin_done(), now or later */
        void (*answered)(void *userdata, const struct admin_call *call); /* for the log */
};

struct admin_options {
        struct event_base *base;
        const char *path;
        const struct admin_ops *ops;
        void *userdata;
};

int admin_new(const struct admin_options *options,
              struct admin **ret);        /* 0; -EEXIST what is there is not ours; -errno */
void admin_done(struct admin_call *call); /* frees it */
void admin_say(struct admin_call *call, enum lessor_admin_outcome outcome, const char *fmt, ...)
        __attribute__((format(printf, 3, 4))); /* fills in the answer */
void admin_stop(struct admin *admin);          /* from now on SHUTDOWN alone; NULL ok, likewise below */
/* Whoever is still waiting is told that the broker stops. The owner has no calls any more. */
void admin_free(struct admin *admin);

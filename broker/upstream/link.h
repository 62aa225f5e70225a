/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * An established connection's socket, from the dial to its end. Once it has been leased its file description is shared
 * with a worker: it is only ever used with MSG_DONTWAIT, and watched for its end alone (EPOLLRDHUP; silent about data).
 *
 * link_close() keeps the cap true as Redis sees it: it sends our end (SHUT_WR, which also stops every dup a worker may
 * have from writing), waits for Redis' own, at most LINK_LINGER_NS, and only then closes and reports: a place is free
 * for the next dial when Redis no longer counts the old connection.
 */
#include <stdbool.h>
#include <stdint.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#define LINK_LINGER_NS UINT64_C(1000000000)

struct link;
typedef void link_event(struct link *link);

struct link {
        int fd; /* -1: none */
        bool closing;
        bool ended; /* Redis has closed its side */
        struct event event;
        link_event *on_lost;   /* Redis closed it, while not closing */
        link_event *on_closed; /* after link_close(), never from within */
};

void link_init(struct link *link, link_event *on_lost, link_event *on_closed);
int link_open(struct link *link, struct event_base *base, int fd); /* takes the fd on success. 0; -errno */

enum link_state { LINK_QUIET, LINK_STRAY, LINK_ENDED };
enum link_state link_peek(const struct link *link); /* is there anything to be read that nobody asked for? */

void link_close(struct link *link); /* on_closed follows */
void link_drop(struct link *link);  /* at once, unheard: for the broker's own end */

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * An established connection's socket, from the dial to its end. Once it has been leased its file description is shared
 * with a worker: it is only ever used with MSG_DONTWAIT, and watched for its end alone (EPOLLRDHUP; silent about data).
 * The watching is an epoll set of our own inside the loop's: libevent 2.1 turns EPOLLERR, with which a reset comes, into
 * readable-and-writable and never into EV_CLOSED, so that nobody would be told, again and again, at full speed.
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

struct link_watch; /* one a loop */

int link_watch_new(struct event_base *base, struct link_watch **ret); /* 0; -errno */
void link_watch_free(struct link_watch *watch);                       /* its links are closed; NULL ok */

struct link;
typedef void link_event(struct link *link);

struct link {
        int fd; /* -1: none */
        bool closing;
        bool ended; /* Redis has closed its side */
        struct link_watch *watch;
        struct event timer;    /* of the linger; also ends what has nothing to linger for */
        link_event *on_lost;   /* Redis closed it, while not closing */
        link_event *on_closed; /* after link_close(), never from within */
};

void link_init(struct link *link, link_event *on_lost, link_event *on_closed);
int link_open(struct link *link, struct link_watch *watch, int fd); /* takes the fd on success. 0; -errno */

enum link_state { LINK_QUIET, LINK_STRAY, LINK_ENDED };
enum link_state link_peek(const struct link *link); /* is there anything to be read that nobody asked for? */

void link_close(struct link *link); /* on_closed follows */
void link_cut(struct link *link);   /* ends it for whoever has a dup, too; link_drop() follows */
void link_drop(struct link *link);  /* at once, unheard: for the broker's own end */

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A session from the inside: session.c has its life, session_socket.c its messages, session_ask.c those who ask and wait. The
 * session's lock is held, unless said otherwise.
 */
#include "base/fdpass.h"
#include "session.h"

#define SESSION_SEND_NS (1 * NS_PER_S) /* a broker that does not read for so long is hung */

/* A message that waits until the broker reads. */
struct session_later {
        struct list link;
        union wire_message message;
};

/* What fdpass made of one packet, checked. */
struct arrival {
        int result; /* 0, -errno of receiving it */
        struct fdpass_packet packet;
        union wire_message message;
        const char *wrong; /* NULL: a message of the protocol */
};

void session_waiter_wake(struct session *s, struct waiter *w);
/* The fd is shut down, not closed: others may be polling it; that wakes them, and tells the broker. */
void session_end_locked(struct session *s, int code, const char *why);
void session_malformed(struct session *s, const char *what); /* likewise: the broker's fault */

/* Lock held or not. 0, or -errno; waits at most until the deadline for a broker that is slow to read; 0: not at all. */
int session_send(struct session *s, const union wire_message *message, uint64_t deadline);
/* Now or later. 0: it is sent, or will be; -errno: the session is over. */
int session_push(struct session *s, const union wire_message *message);
void session_flush_locked(struct session *s);
bool session_take_out(struct session *s, uint64_t request); /* a LEASE that was never sent; true: it was not */
void session_lost(struct session *s, int error);            /* lock not held: a message could not be sent */

/* Lock not held: only the reader, or whoever holds the lock while there is none, receives. */
void session_receive(struct session *s, bool wait, struct arrival *ret);
/* True: it was a message, and is dealt with. False: there was none, or the session is over. */
bool session_arrived(struct session *s, struct arrival *a);
void session_drain(struct session *s); /* nobody reads. Everything that is there */
/* `fd` is taken; -1: there was none, or it was lost on the way. NULL, or what is wrong. */
const char *session_granted(struct session *s, const struct lessor_msg_grant *g, int fd);
void session_attend(struct session *s); /* how many orphans there are has changed */

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The broker's end of one worker's socket: who is there, what he says, what he is told, when he is gone. It checks the
 * protocol (lessor/protocol.h) and knows nothing of pools: what is asked goes up through peer_ops.
 *
 *      NEW -> ATTACHED -> ENDED        NEW -> ENDED
 *
 * A peer ends for one reason (peer_end): he closed, died, or broke the protocol. That is reported by ops->ended, once,
 * from the loop and never from within another call, after which the owner calls peer_deinit().
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#include "base/list.h"
#include "base/wire.h"

struct peer;

/* Each returns NULL, or what is wrong with the message: that ends the peer. */
struct peer_ops {
        /* Fills in *ret and no or two fds: the first stays the owner's, the second becomes the peer's. 0; an outcome refuses, with `text`. */
        int (*attach)(struct peer *peer, const struct lessor_msg_attach *msg, struct lessor_msg_attached *ret,
                      int fds[2], char text[LESSOR_TEXT_SIZE]);
        const char *(*lookup)(struct peer *peer, const struct lessor_msg_lookup *msg);
        const char *(*lease)(struct peer *peer, const struct lessor_msg_lease *msg);
        const char *(*cancel)(struct peer *peer, const struct lessor_msg_cancel *msg);
        const char *(*giveback)(struct peer *peer, const struct lessor_msg_return *msg);
        const char *(*report)(struct peer *peer, const struct lessor_msg_report *msg);
        const char *(*lane)(struct peer *peer, const struct lessor_msg_lane *msg);
        void (*ended)(struct peer *peer, const char *why);
};

enum peer_state { PEER_NEW, PEER_ATTACHED, PEER_ENDED };

struct peer {
        enum peer_state state;
        int fd, pidfd;
        struct ucred cred;
        const struct peer_ops *ops;
        struct event_base *base;
        struct event readable; /* with the time-out of a NEW one */
        struct event writable; /* while something is in the outbox, in the place of readable */
        struct event death;    /* the pidfd's; reports a peer_end() too */
        struct list outbox;    /* answers that the socket had no room for */
        const char *why;       /* of the end */
};

/* Takes the fd on success. 0; -errno. */
int peer_init(struct peer *peer, struct event_base *base, int fd, const struct peer_ops *ops);
void peer_deinit(struct peer *peer);

/*
 * Sends one message with at most one fd (-1: none), which stays the caller's. What the socket has no room for is sent when
 * he has read; until then nothing is heard from him, so that he is owed no more than he had asked for. One who reads nothing
 * for 5 s is ended.
 */
void peer_send(struct peer *peer, const union wire_message *message, int fd);
void peer_send_two(struct peer *peer, const union wire_message *message, const int fds[2]); /* likewise */
void peer_send_error(struct peer *peer, uint64_t request, int outcome, uint64_t retry_ns, const char *text);

/* why: a static text. The worker is told it if he still listens; nothing is heard from him afterwards. */
void peer_end(struct peer *peer, int outcome, const char *why);
/* Who he is, apart from his socket: for other threads. NULL: out of memory. Freed by free(). */
struct peer_identity {
        pid_t pid;
        uid_t uid;
        unsigned n_groups;
        gid_t groups[]; /* his group and his supplementary groups */
};
struct peer_identity *peer_identify(const struct peer *peer);
bool peer_in_group(const struct peer *peer, gid_t gid); /* his group, or one of his supplementary groups */

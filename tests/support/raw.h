/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A client of the wire written from lessor/protocol.h alone: says what it is told to, right or wrong. Does not fail the
 * test by itself, so that forked children can use it, too; nothing waits longer than RAW_MS.
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <lessor/protocol.h>

enum { RAW_MS = 10000, RAW_FDS = 4 };

union raw_message {
        struct lessor_msg_header header;
        struct lessor_msg_attach attach;
        struct lessor_msg_attached attached;
        struct lessor_msg_lookup lookup;
        struct lessor_msg_database database;
        struct lessor_msg_lease lease;
        struct lessor_msg_grant grant;
        struct lessor_msg_error error;
        struct lessor_msg_cancel cancel;
        struct lessor_msg_return giveback;
        struct lessor_msg_report report;
        struct lessor_msg_lane lane;
        struct lessor_msg_lane_opened lane_opened;
        struct lessor_msg_lane_reply lane_reply;
        struct lessor_msg_lane_wake lane_wake;
};

int raw_connect(const char *path);                                                        /* a socket, or -errno */
int raw_send(int socket, const void *bytes, size_t size, const int *fds, unsigned n_fds); /* 0, or -errno */
int raw_say(int socket, const void *message); /* header.size bytes, no fds */
/* One message. Its size; 0: end of file (or reset); -errno. *ret_n_fds fds are the caller's. */
ssize_t raw_receive(int socket, union raw_message *ret, int ret_fds[RAW_FDS], unsigned *ret_n_fds);
/* Likewise; closes fds nobody wants; true if it is of this type. */
bool raw_expect(int socket, enum lessor_message type, union raw_message *ret);
/* Reads until the end: true if it came. *ret_fatal (may be NULL): an ERROR with LESSOR_FATAL came before it. */
bool raw_ended(int socket, bool *ret_fatal);

/* Messages with everything in place. */
struct lessor_msg_attach raw_attach_message(uint64_t features);
struct lessor_msg_lookup raw_lookup_message(uint64_t request, const char *name);
struct lessor_msg_lease raw_lease_message(uint64_t request, uint32_t database, uint64_t wait_ns);
struct lessor_msg_return raw_return_message(const struct lessor_msg_grant *, uint32_t flags);

int raw_attach(const char *path, uint64_t features,
               struct lessor_msg_attached *ret); /* a socket of a session, or < 0 */
int raw_pidfd(pid_t pid);
int raw_lookup(int socket, const char *name); /* its number, or -outcome */
int raw_lease(int socket, uint32_t database, uint64_t wait_ns, struct lessor_msg_grant *ret); /* an fd, or -outcome */

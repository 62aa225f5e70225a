/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Our own I/O on a leased connection. Never hiredis' read and write: O_NONBLOCK and the socket timeouts belong to
 * the file description, which others had and have; write(2) raises SIGPIPE; SO_RCVTIMEO restarts with every byte.
 * So: MSG_DONTWAIT, MSG_NOSIGNAL, poll, and a deadline of our own. Only the parser, redisReader, is hiredis'.
 *
 * One exception, for speed: once a stream is in steady use, the first wait of an exchange is a blocking recv() with
 * SO_RCVTIMEO set by us. Between CPUs poll() and recv() take a tenth longer (measured: 100 us a round trip, 0.91 of the
 * throughput). It shortens the way to the first byte only; if somebody else who holds the description undoes it, the
 * worst is a wait that his own pool's lease limits end.
 */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <hiredis/hiredis.h>

/* Until `events` (or an error or hangup) or the deadline: the events, 0 when the deadline passed, -errno. */
int io_poll(int fd, short events, uint64_t deadline);

struct stream {
        int fd;              /* borrowed */
        bool poll_only;      /* the socket's own flags and timeouts are somebody else's to set */
        uint64_t blocks_ns;  /* recv() blocks, for at most so long; 0: nobody has seen to that */
        uint64_t exchanges;  /* so far */
        redisReader *reader; /* made at the first reply */
        uint64_t requests;   /* written whole since the stream began */
        uint64_t replies;    /* parsed whole */
};

/* Requests out, replies in. What is asked above the line, what came of it below. */
struct exchange {
        const char *out; /* requests, formatted; NULL: none, a reply is only waited for */
        size_t size;
        const size_t *ends; /* where each of `requests` ends in `out` */
        size_t requests;
        redisReply **replies; /* room for `expected`; filled in order, the caller's even after an error */
        size_t expected;
        uint64_t timeout_ns; /* for each whole reply, counted from the one before; TIME_NEVER */
        uint64_t now;        /* CLOCK_MONOTONIC */
        /* results */
        size_t written;   /* bytes */
        size_t whole;     /* requests written whole */
        size_t got;       /* replies */
        int error;        /* errno of LESSOR_E_CONNECTION, 0: the other side closed */
        const char *text; /* of LESSOR_E_PROTOCOL */
};

/*
 * 0: every expected reply is there. LESSOR_E_CONNECTION, LESSOR_E_REPLY_TIMEOUT, LESSOR_E_PROTOCOL, -ENOMEM, other
 * -errno: after any of these nothing that follows on this stream can be told apart, except a timeout when nothing
 * was written.
 */
int stream_exchange(struct stream *s, struct exchange *x);
/*
 * Without waiting, for several exchanges one behind the other. Sends what the socket takes of them, from the first one's `written` on:
 * 0, or LESSOR_E_CONNECTION and *ret_error is the errno. Then receives what there is, at most `size`, and puts into x what is whole:
 * stream_receive() once: 0, STREAM_MORE (there may be more), -EAGAIN or an error of x; stream_parse() for it and each that follows.
 */
enum { STREAM_MORE = -EINPROGRESS };
int stream_send(struct stream *s, struct exchange *const *x, size_t n, int *ret_error);
int stream_receive(struct stream *s, struct exchange *x, char *buffer, size_t size);
int stream_parse(struct stream *s, struct exchange *x);
/* Everything sent whole, answered whole, and not a byte more. */
bool stream_even(const struct stream *s);
void stream_deinit(struct stream *s);

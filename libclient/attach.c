/* SPDX-License-Identifier: MIT */
/* ATTACH goes with our own pidfd, where the kernel does not make one. */
#include "attach.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fdpass.h"
#include "base/pidfd.h"
#include "error.h"
#include "io.h"
#include "session.h"
#include "step.h"
#include "warm.h"

enum { ATTACH_REQUEST = 1 };

#define RETRY_NS (2 * NS_PER_MS) /* before the backlog is tried again, with as much jitter; doubled each time */
enum { RETRY_DOUBLINGS = 4 };

static int attach_unanswered(const char *socket, lessor_error *error) {
        return error_set(error, LESSOR_E_UNAVAILABLE,
                         "the broker on %s does not answer: it hangs, is stopped, or the host is overloaded", socket);
}

static int attach_refused(const char *path, int errnum, lessor_error *error) {
        switch (errnum) {
        case ENOENT:
        case ENOTDIR:
        case ECONNREFUSED:
        case ECONNRESET:
        case EPIPE:
                return error_set(error, LESSOR_E_UNAVAILABLE,
                                 "no broker answers on %s (%s): start lessord, or set LESSOR_SOCKET", path,
                                 lessor_outcome_text(-errnum));
        case EAGAIN:
                return attach_unanswered(path, error);
        case EACCES:
        case EPERM:
                return error_set(error, -errnum, "%s: %s: this user may not connect to the broker's socket", path,
                                 lessor_outcome_text(-errnum));
        case EPROTOTYPE:
                return error_set(error, -errnum, "%s is not a socket of lessord: %s", path,
                                 lessor_outcome_text(-errnum));
        default:
                return error_set(error, -errnum, "cannot attach to %s: %s", path, lessor_outcome_text(-errnum));
        }
}

/* The backlog is full, and nobody tells when it is not: with jitter, for those who come back are many. */
static int attach_later(struct attach *a, uint64_t now, lessor_error *error) {
        uint64_t pause = RETRY_NS << (a->refusals < RETRY_DOUBLINGS ? a->refusals : RETRY_DOUBLINGS);

        if (now >= a->deadline)
                return attach_unanswered(a->socket, error);
        a->refusals++;
        a->retry = now + pause + (now ^ (uint64_t)getpid() * UINT64_C(0x9e3779b97f4a7c15)) % pause;
        a->retry = a->retry < a->deadline ? a->retry : a->deadline;
        return -EINPROGRESS;
}

/* connect() to a Unix socket waits for room in the backlog only, for as long as SO_SNDTIMEO says. 0; -errno. */
static int connect_until(int fd, const char *path, uint64_t until) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};

        memcpy(address.sun_path, path, strlen(path) + 1);
        for (;;) {
                uint64_t left = until > 0 ? time_left(clock_now(), until) / NS_PER_US + 1 : 1;
                struct timeval t = {.tv_sec = (time_t)(left / 1000000), .tv_usec = (suseconds_t)(left % 1000000)};
                if (until > 0)
                        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t));
                if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
                        return 0;
                if (errno != EINTR)
                        return -errno;
        }
}

static int attach_connect(struct attach *a, uint64_t until, lessor_error *error) {
        const struct timeval receive = {.tv_usec = SESSION_RECEIVE_MS * 1000};
        _cleanup_(fd_closep) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | (until ? 0 : SOCK_NONBLOCK), 0);
        int r;

        if (fd < 0)
                return attach_refused(a->socket, errno, error);
        a->pidfd_known = pidfd_of_peers_known(fd);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &receive, sizeof(receive));
        r = connect_until(fd, a->socket, until);
        if (r == -EAGAIN && (until < a->deadline || until == 0))
                return attach_later(a, clock_now(), error);
        if (r < 0)
                return attach_refused(a->socket, -r, error);
        if (until == 0) /* others will wait at it */
                fcntl(fd, F_SETFL, 0);
        a->session = session_new(a->socket, fd_steal(&fd));
        return a->session ? 0 : error_set(error, -ENOMEM, "out of memory");
}

static int attach_hello(struct session *s, bool pidfd_known, lessor_error *error) {
        _cleanup_(fd_closep) int pidfd = -1;
        union wire_message m;
        int r;

        if (!pidfd_known && (pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0)) < 0)
                return error_set(error, -errno, "pidfd_open: %s", lessor_outcome_text(-errno));
        wire_init(&m, LESSOR_MSG_ATTACH, ATTACH_REQUEST);
        m.attach.version_min = LESSOR_PROTOCOL_MIN;
        m.attach.version_max = LESSOR_PROTOCOL_MAX;
        m.attach.features = LESSOR_FEATURE_SEGMENT | LESSOR_FEATURE_WORDS | LESSOR_FEATURE_LANES;
        wire_string(m.attach.program, sizeof(m.attach.program), program_invocation_short_name);
        r = fdpass_send(s->fd, &m, m.header.size, &pidfd, pidfd >= 0);
        STEP("ATTACH sent");
        /* Refused before we could say anything? Then the reason is waiting to be read. */
        return r == 0 || r == -EPIPE || r == -ECONNRESET ? 0 : attach_refused(s->socket, -r, error);
}

static int attach_map(struct session *s, const struct lessor_msg_attached *m, struct fdpass_packet *packet,
                      lessor_error *error) {
        const char *wrong = NULL;

        if (m->header.request != ATTACH_REQUEST)
                wrong = "it answered another question";
        else if (m->version < LESSOR_PROTOCOL_MIN || m->version > LESSOR_PROTOCOL_MAX)
                wrong = "it chose a protocol version that was not offered";
        else if (!(m->features & LESSOR_FEATURE_SEGMENT))
                wrong = "it offers no shared memory";
        if (!wrong)
                wrong = control_map(packet->fds[0], m->control_size, m->instance, &s->control);
        if (!wrong)
                wrong = segment_map(packet->fds[1], m->segment_size, m->session, &s->segment);
        if (wrong)
                return error_set(error, LESSOR_E_PROTOCOL, "the broker on %s does not fit this library: %s", s->socket,
                                 wrong);
        if (!(m->features & LESSOR_FEATURE_WORDS))
                s->segment.words = 0, s->segment.tickets = NULL;
        s->lanes_offered = m->features & LESSOR_FEATURE_LANES && s->control.bells;
        if (warm_words_init(s) < 0)
                return error_set(error, -ENOMEM, "out of memory");
        s->requests_max = m->requests_max > 0 ? m->requests_max : 1;
        s->last_request = ATTACH_REQUEST;
        atomic_store_explicit(&s->looked, clock_now(), memory_order_relaxed);
        return 0;
}

static int attach_answer(struct session *s, struct fdpass_packet *packet, const union wire_message *buffer,
                         lessor_error *error) {
        union wire_message m;
        const char *wrong;

        if (packet->size == 0)
                return attach_refused(s->socket, ECONNRESET, error);
        if (packet->fds_lost)
                return error_set(error, -EMFILE, "no fds free for the shared memory of %s: raise RLIMIT_NOFILE",
                                 s->socket);
        wrong = wire_decode(WIRE_FROM_BROKER, buffer, packet->size, packet->n_fds, &m);
        if (!wrong && m.header.type == LESSOR_MSG_ERROR) {
                error_set(error, m.error.outcome, "%s: %s", s->socket, m.error.text);
                error_retry(error, m.error.retry_ns);
                return m.error.outcome;
        }
        if (!wrong && m.header.type != LESSOR_MSG_ATTACHED)
                wrong = "a message out of order";
        if (wrong || packet->cut)
                return error_set(error, LESSOR_E_PROTOCOL, "the broker on %s sent what the protocol does not allow: %s",
                                 s->socket, wrong ? wrong : "a message too long");
        return attach_map(s, &m.attached, packet, error);
}

/* At first in recvmsg() alone, as in session_wait(); then until the deadline. 0; -EAGAIN once more; -ETIMEDOUT; -errno. */
static int attach_wait(struct session *s, bool first, uint64_t until, union wire_message *buffer,
                       struct fdpass_packet *packet) {
        int r;

        if (until == 0) {
                r = fdpass_receive(s->fd, buffer, sizeof(*buffer), packet);
                return r == -EAGAIN ? -ETIMEDOUT : r;
        }
        if (first && time_left(clock_now(), until) >= SESSION_RECEIVE_MS * NS_PER_MS)
                return fdpass_wait(s->fd, buffer, sizeof(*buffer), packet);
        r = io_poll(s->fd, POLLIN, until);
        if (r <= 0)
                return r == 0 ? -ETIMEDOUT : r;
        return fdpass_receive(s->fd, buffer, sizeof(*buffer), packet);
}

static int attach_receive(struct attach *a, uint64_t until, lessor_error *error) {
        __attribute__((cleanup(fdpass_close))) struct fdpass_packet packet = {0};
        union wire_message buffer;

        for (bool first = true;; first = false) {
                int r = attach_wait(a->session, first, until, &buffer, &packet);
                if (r == 0)
                        return attach_answer(a->session, &packet, &buffer, error);
                if (r == -ETIMEDOUT)
                        return clock_now() < a->deadline ? -EINPROGRESS : attach_unanswered(a->socket, error);
                /* A reset is told once, before what was still sent to us. */
                if (r != -EAGAIN && r != -EINTR && r != -ECONNRESET)
                        return attach_refused(a->socket, -r, error);
        }
}

/* Until the backlog has room; a step that waits does so in connect(). */
static int attach_pause(const struct attach *a, uint64_t until) {
        struct timespec t;
        uint64_t to = a->retry < until ? a->retry : until;

        if (clock_now() >= a->retry)
                return 0;
        if (until == 0)
                return -EINPROGRESS;
        t = (struct timespec){.tv_sec = (time_t)(to / NS_PER_S), .tv_nsec = (long)(to % NS_PER_S)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
        return a->retry < until ? 0 : -EINPROGRESS;
}

static int attach_go_on(struct attach *a, uint64_t until, lessor_error *error) {
        int r = 0;

        if (!a->session)
                r = attach_pause(a, until);
        if (r == 0 && !a->session)
                r = attach_connect(a, until, error);
        if (!a->session)
                return r;
        if (!a->asked) {
                r = attach_hello(a->session, a->pidfd_known, error);
                a->asked = true;
        }
        return r == 0 ? attach_receive(a, until, error) : r;
}

int attach_step(struct attach *a, uint64_t until, struct session **ret, lessor_error *error) {
        int r = attach_go_on(a, until < a->deadline ? until : a->deadline, error);

        if (r == 0)
                *ret = ptr_steal(&a->session);
        else if (r != -EINPROGRESS)
                a->session = session_unref(a->session);
        return r;
}

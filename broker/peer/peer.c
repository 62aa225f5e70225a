/* SPDX-License-Identifier: MIT */
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fdpass.h"
#include "base/pidfd.h"
#include "proc.h"

/* Bounded work per turn: one worker that talks without pause must not keep the others waiting. */
#define MESSAGES_PER_TURN 16
/* Whoever connects and says nothing must not hold a place for long. */
#define ATTACH_TIMEOUT_S 5
/* Hundreds of requests may be answered in one turn: a worker who reads needs a little while, one who is stopped too long. */
#define READ_TIMEOUT_S 5

/* An answer on its way. */
struct outgoing {
        struct list link;
        union wire_message message;
        unsigned n_fds;
        int fds[2];
};

static void on_death(evutil_socket_t fd, short what, void *userdata) {
        struct peer *peer = userdata;
        if (peer->state != PEER_ENDED) {
                peer->state = PEER_ENDED;
                peer->why = "the worker has died";
        }
        event_del(&peer->readable);
        event_del(&peer->writable);
        event_del(&peer->death);
        peer->ops->ended(peer, peer->why);
}

static void end_quietly(struct peer *peer, const char *why) {
        if (peer->state == PEER_ENDED)
                return;
        peer->state = PEER_ENDED;
        peer->why = why;
        event_del(&peer->readable);
        event_del(&peer->writable);
        event_active(&peer->death, EV_TIMEOUT, 0);
}

void peer_end(struct peer *peer, int outcome, const char *why) {
        union wire_message message;
        if (peer->state == PEER_ENDED)
                return;
        wire_init(&message, LESSOR_MSG_ERROR, 0);
        message.error.outcome = outcome;
        message.error.flags = LESSOR_FATAL;
        wire_string(message.error.text, sizeof(message.error.text), why);
        (void)fdpass_send(peer->fd, &message, message.header.size, NULL, 0);
        end_quietly(peer, why);
}

static void end_unsent(struct peer *peer, int error) {
        if (error == -EPIPE || error == -ECONNRESET)
                end_quietly(peer, "the worker closed the session");
        else
                end_quietly(peer, error == -ETOOMANYREFS ? "the worker does not read its answers"
                                                         : "sending to the worker failed");
}

static void outgoing_free(struct outgoing *o) {
        list_remove(&o->link);
        for (unsigned i = 0; i < o->n_fds; i++)
                fd_close(o->fds[i]);
        free(o);
}

static int keep(struct peer *peer, const union wire_message *message, const int *fds, unsigned n_fds) {
        struct timeval patience = {.tv_sec = READ_TIMEOUT_S};
        struct outgoing *o = malloc(sizeof(*o));
        if (!o)
                return -ENOMEM;
        *o = (struct outgoing){.message = *message};
        list_init(&o->link);
        for (; o->n_fds < n_fds; o->n_fds++)
                if ((o->fds[o->n_fds] = fcntl(fds[o->n_fds], F_DUPFD_CLOEXEC, 0)) < 0) {
                        outgoing_free(o);
                        return -EMFILE;
                }
        if (list_empty(&peer->outbox)) {
                event_del(&peer->readable);
                event_add(&peer->writable, &patience);
        }
        list_push_back(&peer->outbox, &o->link);
        return 0;
}

static void on_writable(evutil_socket_t fd, short what, void *userdata) {
        struct peer *peer = userdata;
        if (what & EV_TIMEOUT) {
                end_quietly(peer, "the worker does not read its answers");
                return;
        }
        list_for_each_safe (&peer->outbox, it, next) {
                struct outgoing *o = container_of(it, struct outgoing, link);
                int r = fdpass_send(fd, &o->message, o->message.header.size, o->fds, o->n_fds);
                if (r == -EAGAIN)
                        return;
                if (r < 0) {
                        end_unsent(peer, r);
                        return;
                }
                outgoing_free(o);
        }
        event_del(&peer->writable);
        event_add(&peer->readable, NULL);
}

static void send_message(struct peer *peer, const union wire_message *message, const int *fds, unsigned n_fds) {
        int r = -EAGAIN;
        if (peer->state == PEER_ENDED)
                return;
        if (list_empty(&peer->outbox))
                r = fdpass_send(peer->fd, message, message->header.size, fds, n_fds);
        if (r == -EAGAIN)
                r = keep(peer, message, fds, n_fds);
        if (r < 0)
                end_unsent(peer, r);
}

void peer_send(struct peer *peer, const union wire_message *message, int fd) {
        send_message(peer, message, &fd, fd >= 0 ? 1 : 0);
}

void peer_send_two(struct peer *peer, const union wire_message *message, const int fds[2]) {
        send_message(peer, message, fds, 2);
}

void peer_send_error(struct peer *peer, uint64_t request, int outcome, uint64_t retry_ns, const char *text) {
        union wire_message message;
        wire_init(&message, LESSOR_MSG_ERROR, request);
        message.error.outcome = outcome;
        message.error.retry_ns = retry_ns;
        wire_string(message.error.text, sizeof(message.error.text), text);
        peer_send(peer, &message, -1);
}

enum { PID_NONE = -1, PID_UNREADABLE = -2 };

/* The pid a pidfd stands for, in our pid namespace; 0: not visible here; PID_NONE: no pidfd; PID_UNREADABLE: errno is ours. */
static pid_t pidfd_pid(int pidfd) {
        char path[64], text[512];
        snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
        ssize_t n = proc_read(path, text, sizeof(text));
        if (n < 0) {
                errno = (int)-n;
                return PID_UNREADABLE;
        }
        const char *line = strstr(text, "\nPid:");
        return line ? (pid_t)strtol(line + strlen("\nPid:"), NULL, 10) : PID_NONE;
}

#define NOT_VISIBLE "the worker lives in a pid namespace that the broker cannot see: share it (hostPID)"

/* The kernel's own. 0; an outcome, and why; likewise below. */
static int ask_for_pidfd(struct peer *peer, char text[LESSOR_TEXT_SIZE]) {
        int pidfd = pidfd_of_peer(peer->fd);
        if (pidfd >= 0) {
                peer->pidfd = pidfd;
                return 0;
        }
        if (pidfd == -ENOPROTOOPT) {
                snprintf(text, LESSOR_TEXT_SIZE, "ATTACH without a pidfd, and this kernel makes none (SO_PEERPIDFD)");
                return LESSOR_E_PROTOCOL;
        }
        snprintf(text, LESSOR_TEXT_SIZE, "the broker cannot watch the worker: %s", strerror(-pidfd));
        return LESSOR_E_LIMIT;
}

/* The worker's own, if it is. */
static int take_pidfd(struct peer *peer, struct fdpass_packet *packet, char text[LESSOR_TEXT_SIZE]) {
        pid_t pid = pidfd_pid(packet->fds[0]);
        const char *wrong = NULL;
        if (pid == PID_UNREADABLE) {
                snprintf(text, LESSOR_TEXT_SIZE, "the broker cannot look at the pidfd sent with ATTACH: %s",
                         strerror(errno));
                return LESSOR_E_LIMIT;
        }
        if (pid < 0)
                wrong = "the fd sent with ATTACH is not a pidfd: send pidfd_open(getpid(), 0)";
        else if (pid == 0)
                wrong = NOT_VISIBLE;
        else if (pid != peer->cred.pid)
                wrong = "the pidfd sent with ATTACH is another process's";
        if (wrong) {
                snprintf(text, LESSOR_TEXT_SIZE, "%s", wrong);
                return LESSOR_E_PROTOCOL;
        }
        peer->pidfd = fd_steal(&packet->fds[0]);
        return 0;
}

/* From now on the worker's death is seen. */
static int watch_worker(struct peer *peer, struct fdpass_packet *packet, char text[LESSOR_TEXT_SIZE]) {
        int r;
        if (peer->cred.pid == 0) {
                snprintf(text, LESSOR_TEXT_SIZE, "%s", NOT_VISIBLE);
                return LESSOR_E_PROTOCOL;
        }
        r = packet->n_fds > 0 ? take_pidfd(peer, packet, text) : ask_for_pidfd(peer, text);
        if (r != 0)
                return r;
        event_assign(&peer->death, peer->base, peer->pidfd, EV_READ | EV_PERSIST, on_death, peer);
        if (event_add(&peer->death, NULL) == 0)
                return 0;
        snprintf(text, LESSOR_TEXT_SIZE, "the broker is out of memory");
        return LESSOR_E_LIMIT;
}

static void refuse(struct peer *peer, uint64_t request, int outcome, const char *text) {
        union wire_message message;
        wire_init(&message, LESSOR_MSG_ERROR, request);
        message.error.outcome = outcome;
        message.error.flags = LESSOR_FATAL;
        wire_string(message.error.text, sizeof(message.error.text), text);
        peer_send(peer, &message, -1);
        end_quietly(peer, "the attach was refused");
}

static const char *handle_attach(struct peer *peer, const struct lessor_msg_attach *msg, struct fdpass_packet *packet) {
        union wire_message answer;
        char text[LESSOR_TEXT_SIZE];
        int fds[2] = {-1, -1}, r;

        if (msg->version_min > LESSOR_PROTOCOL_MAX || msg->version_max < LESSOR_PROTOCOL_MIN ||
            msg->version_min > msg->version_max) {
                snprintf(text, sizeof(text), "the broker speaks versions %u to %u of the protocol, the worker %u to %u",
                         LESSOR_PROTOCOL_MIN, LESSOR_PROTOCOL_MAX, msg->version_min, msg->version_max);
                refuse(peer, msg->header.request, LESSOR_E_VERSION, text);
                return NULL;
        }
        r = watch_worker(peer, packet, text);
        if (r != 0) {
                refuse(peer, msg->header.request, r, text);
                return NULL;
        }
        wire_init(&answer, LESSOR_MSG_ATTACHED, msg->header.request);
        answer.attached.version = msg->version_max < LESSOR_PROTOCOL_MAX ? msg->version_max : LESSOR_PROTOCOL_MAX;
        r = peer->ops->attach(peer, msg, &answer.attached, fds, text);
        if (r != 0) {
                refuse(peer, msg->header.request, r > 0 ? r : LESSOR_E_LIMIT, text);
                return NULL;
        }
        event_remove_timer(&peer->readable); /* event_add() without a time-out would keep the old one */
        peer->state = PEER_ATTACHED;
        if (fdpass_send(peer->fd, &answer, answer.header.size, fds, fds[0] >= 0 ? 2 : 0) < 0)
                end_quietly(peer, "the worker closed the session");
        fd_close(fds[1]);
        return NULL;
}

static const char *handle(struct peer *peer, const union wire_message *message, struct fdpass_packet *packet) {
        enum lessor_message type = (enum lessor_message)message->header.type;
        if ((type == LESSOR_MSG_ATTACH) != (peer->state == PEER_NEW))
                return peer->state == PEER_NEW ? "the first message must be ATTACH" : "a second ATTACH";
        switch (type) {
        case LESSOR_MSG_ATTACH:
                return handle_attach(peer, &message->attach, packet);
        case LESSOR_MSG_LOOKUP:
                return peer->ops->lookup(peer, &message->lookup);
        case LESSOR_MSG_LEASE:
                return peer->ops->lease(peer, &message->lease);
        case LESSOR_MSG_CANCEL:
                return peer->ops->cancel(peer, &message->cancel);
        case LESSOR_MSG_RETURN:
                return peer->ops->giveback(peer, &message->giveback);
        case LESSOR_MSG_REPORT:
                return peer->ops->report(peer, &message->report);
        case LESSOR_MSG_LANE:
                return peer->ops->lane(peer, &message->lane);
        case LESSOR_MSG_LANE_OPENED:
        case LESSOR_MSG_LANE_REPLY:
        case LESSOR_MSG_LANE_WAKE:
        case LESSOR_MSG_ATTACHED:
        case LESSOR_MSG_DATABASE:
        case LESSOR_MSG_GRANT:
        case LESSOR_MSG_ERROR:
                break;
        }
        return "a message that only the broker sends";
}

/* Whoever has asked waits for his answer: to look for more from him now is a system call for nothing. */
static bool expects_answer(const union wire_message *message) {
        return message->header.type == LESSOR_MSG_LEASE || message->header.type == LESSOR_MSG_LOOKUP ||
               message->header.type == LESSOR_MSG_ATTACH;
}

/* One packet; false when no other is likely to be there, or the peer has ended. */
static bool receive_one(struct peer *peer) {
        union {
                union wire_message message;
                unsigned char bytes[sizeof(union wire_message)];
        } buffer;
        struct fdpass_packet packet;
        union wire_message message;
        const char *wrong;
        int outcome = LESSOR_E_PROTOCOL;

        int r = fdpass_receive(peer->fd, &buffer, sizeof(buffer), &packet);
        if (r == -EAGAIN)
                return false;
        if (r < 0 || packet.size == 0) {
                if (r == 0)
                        fdpass_close(&packet);
                end_quietly(peer, "the worker closed the session");
                return false;
        }
        if (packet.cut)
                wrong = "a message longer than any of the protocol";
        else if (packet.fds_lost && packet.n_fds == WIRE_FDS_MAX)
                wrong = "more fds than any message of the protocol carries";
        else if (packet.fds_lost) /* fewer than there was room for: our fault, not his */
                wrong = "the broker is out of file descriptors", outcome = LESSOR_E_LIMIT;
        else if (!(wrong = wire_decode(WIRE_FROM_WORKER, &buffer, packet.size, packet.n_fds, &message)))
                wrong = handle(peer, &message, &packet);
        fdpass_close(&packet);
        if (wrong)
                peer_end(peer, outcome, wrong);
        return !wrong && peer->state != PEER_ENDED && !expects_answer(&message);
}

static void on_readable(evutil_socket_t fd, short what, void *userdata) {
        struct peer *peer = userdata;
        if (what & EV_TIMEOUT) {
                peer_end(peer, LESSOR_E_PROTOCOL, "no ATTACH within 5 s of connecting");
                return;
        }
        for (unsigned i = 0; i < MESSAGES_PER_TURN; i++)
                if (!receive_one(peer) || !list_empty(&peer->outbox))
                        return;
}

int peer_init(struct peer *peer, struct event_base *base, int fd, const struct peer_ops *ops) {
        struct timeval timeout = {.tv_sec = ATTACH_TIMEOUT_S};
        socklen_t size = sizeof(peer->cred);
        *peer = (struct peer){.state = PEER_NEW, .fd = -1, .pidfd = -1, .ops = ops, .base = base};
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer->cred, &size) < 0)
                return -errno;
        list_init(&peer->outbox);
        event_assign(&peer->death, base, -1, 0, on_death, peer);
        event_assign(&peer->writable, base, fd, EV_WRITE | EV_PERSIST, on_writable, peer);
        if (event_assign(&peer->readable, base, fd, EV_READ | EV_PERSIST, on_readable, peer) < 0 ||
            event_add(&peer->readable, &timeout) < 0)
                return -ENOMEM;
        peer->fd = fd;
        return 0;
}

void peer_deinit(struct peer *peer) {
        event_del(&peer->readable);
        event_del(&peer->writable);
        event_del(&peer->death);
        list_for_each_safe (&peer->outbox, it, next)
                outgoing_free(container_of(it, struct outgoing, link));
        peer->fd = fdpass_close_socket(peer->fd);
        peer->pidfd = fd_close(peer->pidfd);
}

struct peer_identity *peer_identify(const struct peer *peer) {
        gid_t groups[256];
        socklen_t size = sizeof(groups);
        if (getsockopt(peer->fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0)
                size = 0;
        unsigned n = (unsigned)(size / sizeof(groups[0]));
        struct peer_identity *identity = malloc(sizeof(*identity) + (n + 1) * sizeof(gid_t));
        if (!identity)
                return NULL;
        identity->pid = peer->cred.pid;
        identity->uid = peer->cred.uid;
        identity->n_groups = n + 1;
        identity->groups[0] = peer->cred.gid;
        memcpy(identity->groups + 1, groups, size);
        return identity;
}

bool peer_in_group(const struct peer *peer, gid_t gid) {
        gid_t groups[256];
        socklen_t size = sizeof(groups);
        if (peer->cred.gid == gid)
                return true;
        if (getsockopt(peer->fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0)
                return false;
        for (size_t i = 0; i < size / sizeof(groups[0]); i++)
                if (groups[i] == gid)
                        return true;
        return false;
}

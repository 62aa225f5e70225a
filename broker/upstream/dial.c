/* SPDX-License-Identifier: MIT */
/*
 * resolve -> for each address: connect -> write the handshake -> read its answers -> done. One timer bounds each
 * address from connect to the last answer. The first address that lets us in wins; if none does, the last error counts,
 * but what an operator must mend (credentials) or wait for (loading) ends the dial at once: other addresses of a name are the same server's.
 */
#include "dial.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/clock.h"

/* Requirement 10. TCP_USER_TIMEOUT sees unacknowledged data, which keepalive does not. */
#define KEEPALIVE_IDLE_S 600
#define KEEPALIVE_INTERVAL_S 60
#define KEEPALIVE_COUNT 5
#define USER_TIMEOUT_MS 10000

/* The answers to a handshake are a few dozen bytes; whoever sends on and on is not let into our memory. */
#define ANSWERS_MAX 65536U

struct dial {
        struct event_base *base;
        const struct upstream_target *target;
        dial_done *done;
        void *userdata;
        struct resolver_job *job;
        struct resolved addresses;
        unsigned next_address;
        int fd;
        struct event *io, *timer; /* timer: the address's time is up, or `result` is to be delivered */
        bool finished;
        struct handshake handshake;
        redisReader *reader;
        char *request; /* holds the password until it is written */
        size_t request_size, written, received;
        struct dial_result result;
};

static void try_next_address(struct dial *d);

static void wipe_request(struct dial *d) {
        if (d->request)
                explicit_bzero(d->request, d->request_size);
        free(d->request);
        d->request = NULL;
}

static void drop_socket(struct dial *d) {
        if (d->io)
                event_free(d->io);
        d->io = NULL;
        d->fd = fd_close(d->fd);
        if (d->reader)
                redisReaderFree(d->reader);
        d->reader = NULL;
        wipe_request(d);
}

void dial_cancel(struct dial *d) {
        if (!d)
                return;
        resolver_cancel(d->job);
        drop_socket(d);
        if (d->timer)
                event_free(d->timer);
        free(d);
}

/* Delivers the result from the loop, so that nobody is called back from within his own call or a parser's. */
static void finish(struct dial *d, int outcome) {
        d->finished = true;
        d->result.outcome = outcome;
        event_del(d->timer);
        event_active(d->timer, EV_TIMEOUT, 0);
}

static void deliver(struct dial *d) {
        struct dial_result result = d->result;
        dial_done *done = d->done;
        void *userdata = d->userdata;
        result.fd = result.outcome == LESSOR_OK ? fd_steal(&d->fd) : -1;
        if (d->io)
                event_free(d->io); /* before the fd has a new owner */
        d->io = NULL;
        dial_cancel(d);
        done(userdata, &result);
}

/* This address did not work: remember why, and try the next. The texts may live in what is dropped here. */
static void address_failed(struct dial *d, int outcome, enum lessor_trouble trouble, const char *what,
                           const char *why) {
        d->result.trouble = trouble;
        snprintf(d->result.text, sizeof(d->result.text), "%s%s%s", what, why ? ": " : "", why ? why : "");
        drop_socket(d);
        if (outcome == LESSOR_E_UPSTREAM && d->next_address < d->addresses.n)
                try_next_address(d);
        else
                finish(d, outcome);
}

static void describe(const struct sockaddr *address, socklen_t size, char *to, size_t to_size) {
        char host[NI_MAXHOST], port[NI_MAXSERV];
        if (address->sa_family == AF_UNIX)
                snprintf(to, to_size, "unix");
        else if (getnameinfo(address, size, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV))
                snprintf(to, to_size, "?");
        else
                snprintf(to, to_size, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

static void succeed(struct dial *d) {
        struct sockaddr_storage local = {0};
        socklen_t size = sizeof(local);
        event_del(d->io);
        d->result.trouble = LESSOR_TROUBLE_NONE; /* of an address before */
        d->result.client_id = d->handshake.client_id;
        if (getsockname(d->fd, (struct sockaddr *)&local, &size) == 0)
                describe((struct sockaddr *)&local, size, d->result.local, sizeof(d->result.local));
        finish(d, LESSOR_OK);
}

/* True while the address may still work out. */
static bool take_replies(struct dial *d) {
        for (;;) {
                void *reply = NULL;
                if (redisReaderGetReply(d->reader, &reply) != REDIS_OK) {
                        address_failed(d, LESSOR_E_UPSTREAM, LESSOR_TROUBLE_NOT_REDIS,
                                       "this does not answer like a Redis", d->reader->errstr);
                        return false;
                }
                if (!reply)
                        return true;
                int r = handshake_reply(&d->handshake, reply);
                freeReplyObject(reply);
                if (r == HANDSHAKE_CONTINUE)
                        continue;
                /* Whatever follows the last answer was not asked for: not a connection to hand to anybody. */
                if (r == LESSOR_OK && d->reader->pos < d->reader->len) {
                        address_failed(d, LESSOR_E_UPSTREAM, LESSOR_TROUBLE_NOT_REDIS,
                                       "this sends replies that nobody asked for", NULL);
                } else if (r == LESSOR_OK) {
                        succeed(d);
                } else {
                        address_failed(d, r, d->handshake.trouble, d->handshake.text, NULL);
                }
                return false;
        }
}

static void read_answers(struct dial *d) {
        char buffer[4096];
        ssize_t n = recv(d->fd, buffer, sizeof(buffer), MSG_DONTWAIT);
        if (n > 0 && (d->received += (size_t)n) > ANSWERS_MAX) {
                address_failed(d, LESSOR_E_UPSTREAM, LESSOR_TROUBLE_NOT_REDIS, "this does not answer like a Redis",
                               "its answers have no end");
        } else if (n > 0) {
                if (redisReaderFeed(d->reader, buffer, (size_t)n) != REDIS_OK)
                        address_failed(d, -ENOMEM, LESSOR_TROUBLE_BROKER, "out of memory", NULL);
                else
                        take_replies(d);
        } else if (n == 0) {
                address_failed(d, LESSOR_E_UPSTREAM, LESSOR_TROUBLE_SILENT,
                               "the server closed the connection during the handshake", NULL);
        } else if (errno != EAGAIN && errno != EINTR) {
                address_failed(d, LESSOR_E_UPSTREAM, LESSOR_TROUBLE_SILENT, "reading the handshake", strerror(errno));
        }
}

static void write_request(struct dial *d) {
        ssize_t n = send(d->fd, d->request + d->written, d->request_size - d->written, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n < 0 && errno != EPIPE && errno != ECONNRESET) {
                address_failed(d, LESSOR_E_UPSTREAM, LESSOR_TROUBLE_SILENT, "writing the handshake", strerror(errno));
                return;
        }
        if (n >= 0 && (d->written += (size_t)n) < d->request_size)
                return;
        /* All is written, or the server has closed: then what it said before (that it is full, say) is worth reading. */
        wipe_request(d);
        event_del(d->io);
        event_assign(d->io, d->base, d->fd, EV_READ | EV_PERSIST, event_get_callback(d->io), d);
        event_add(d->io, NULL);
}

static void on_io(evutil_socket_t fd, short what, void *userdata) {
        struct dial *d = userdata;
        int error = 0;
        socklen_t size = sizeof(error);
        if (what & EV_READ) {
                read_answers(d);
        } else if (d->written == 0 && (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 || error)) {
                address_failed(d, LESSOR_E_UPSTREAM, LESSOR_TROUBLE_UNREACHABLE, "connecting",
                               strerror(error ? error : errno));
        } else {
                write_request(d);
        }
}

static void on_timer(evutil_socket_t fd, short what, void *userdata) {
        struct dial *d = userdata;
        if (d->finished)
                deliver(d);
        else
                address_failed(d, LESSOR_E_UPSTREAM, d->written ? LESSOR_TROUBLE_SILENT : LESSOR_TROUBLE_UNREACHABLE,
                               d->written ? "no answer to the handshake in time" : "no connection in time",
                               "socket_connect_timeout passed");
}

static void set_options(struct dial *d, int family) {
        const struct {
                int level, name, value;
        } options[] = {
                {SOL_SOCKET, SO_KEEPALIVE, 1},
                {IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S},
                {IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S},
                {IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT},
                {IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS},
                {IPPROTO_TCP, TCP_NODELAY, 1},
        };
        if (family == AF_UNIX)
                return;
        /* A kernel that refuses one of these leaves a working connection: not worth failing for. */
        for (size_t i = d->target->keepalive ? 0 : 4; i < ARRAY_SIZE(options); i++)
                (void)setsockopt(d->fd, options[i].level, options[i].name, &options[i].value, sizeof(int));
}

static int start_handshake(struct dial *d) {
        int r = handshake_start(&d->handshake, d->target, &d->request, &d->request_size);
        if (r < 0)
                return r;
        d->written = d->received = 0;
        d->reader = redisReaderCreate();
        d->io = event_new(d->base, d->fd, EV_WRITE | EV_PERSIST, on_io, d);
        return d->reader && d->io && event_add(d->io, NULL) == 0 ? 0 : -ENOMEM;
}

static void try_next_address(struct dial *d) {
        unsigned i = d->next_address++;
        const struct sockaddr *address = (const struct sockaddr *)&d->addresses.at[i].address;
        struct timeval timeout = {.tv_sec = (time_t)(d->target->connect_timeout_ns / NS_PER_S),
                                  .tv_usec = (suseconds_t)(d->target->connect_timeout_ns % NS_PER_S / NS_PER_US)};

        d->fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (d->fd < 0) {
                address_failed(d, -errno, LESSOR_TROUBLE_BROKER, "socket", strerror(errno));
                return;
        }
        set_options(d, address->sa_family);
        if (connect(d->fd, address, d->addresses.at[i].size) < 0 && errno != EINPROGRESS) {
                address_failed(d, LESSOR_E_UPSTREAM, LESSOR_TROUBLE_UNREACHABLE, "connecting", strerror(errno));
                return;
        }
        event_add(d->timer, &timeout);
        if (start_handshake(d) < 0)
                address_failed(d, -ENOMEM, LESSOR_TROUBLE_BROKER, "out of memory", NULL);
}

static void on_resolved(void *userdata, const struct resolved *resolved) {
        struct dial *d = userdata;
        d->job = NULL;
        d->addresses = *resolved;
        /* next_address == n here: these end the dial. */
        if (resolved->error)
                address_failed(d, LESSOR_E_UPSTREAM, LESSOR_TROUBLE_UNREACHABLE, d->target->host,
                               gai_strerror(resolved->error));
        else if (resolved->n == 0)
                address_failed(d, LESSOR_E_UPSTREAM, LESSOR_TROUBLE_UNREACHABLE, d->target->host,
                               "the name has no address");
        else
                try_next_address(d);
}

static void unix_address(const char *path, struct resolved *ret) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        *ret = (struct resolved){.n = 1};
        memcpy(&ret->at[0].address, &address, sizeof(address));
        ret->at[0].size = sizeof(address);
}

int dial_start(struct event_base *base, struct resolver *resolver, const struct upstream_target *target,
               dial_done *done, void *userdata, struct dial **ret) {
        struct dial *d = calloc(1, sizeof(*d));
        int r = 0;
        if (!d)
                return -ENOMEM;
        *d = (struct dial){
                .base = base, .target = target, .done = done, .userdata = userdata, .fd = -1, .result.fd = -1};
        d->timer = event_new(base, -1, 0, on_timer, d);
        if (!d->timer) {
                dial_cancel(d);
                return -ENOMEM;
        }
        if (target->unix_socket) {
                unix_address(target->unix_socket, &d->addresses);
                try_next_address(d);
        } else if (resolve_numeric(target->host, target->port, &d->addresses)) {
                try_next_address(d);
        } else {
                r = resolver_start(resolver, target->host, target->port, on_resolved, d, &d->job);
        }
        if (r < 0) {
                dial_cancel(d);
                return r;
        }
        *ret = d;
        return 0;
}

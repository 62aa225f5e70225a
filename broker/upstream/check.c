/* SPDX-License-Identifier: MIT */
#include "check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <hiredis/hiredis.h>

#include "base/cleanup.h"
#include "base/clock.h"

/* ROLE of a master names its replicas; whoever sends more is not let into our memory. */
#define ANSWERS_MAX 65536U

struct check {
        struct check_options o;
        struct event *io, *timer;
        redisReader *reader;
        size_t received;
        bool role_known;
        char nonce[33];
        struct check_result result;
};

void check_cancel(struct check *c) {
        if (!c)
                return;
        if (c->io)
                event_free(c->io);
        if (c->timer)
                event_free(c->timer);
        if (c->reader)
                redisReaderFree(c->reader);
        free(c);
}

static void finish(struct check *c, enum check_outcome outcome, const char *text) {
        struct check_result result = c->result;
        check_done *done = c->o.done;
        void *userdata = c->o.userdata;
        result.outcome = outcome;
        snprintf(result.text, sizeof(result.text), "%s", text);
        check_cancel(c);
        done(userdata, &result);
}

static void take_role(struct check *c, const redisReply *reply) {
        c->role_known = true;
        c->result.asked = reply->type == REDIS_REPLY_ARRAY;
        c->result.replica = reply->type == REDIS_REPLY_ARRAY && reply->elements > 0 &&
                            reply->element[0]->type == REDIS_REPLY_STRING &&
                            strcmp(reply->element[0]->str, "slave") == 0;
}

static enum check_outcome judge(const struct check *c, const redisReply *reply) {
        if (reply->type == REDIS_REPLY_ERROR)
                return strncmp(reply->str, "NOAUTH", 6) == 0 ? CHECK_LOST : CHECK_ANSWERED;
        return reply->type == REDIS_REPLY_STRING && strcmp(reply->str, c->nonce) == 0 ? CHECK_ANSWERED : CHECK_WRONG;
}

static void take_replies(struct check *c) {
        for (;;) {
                void *reply = NULL;
                if (redisReaderGetReply(c->reader, &reply) != REDIS_OK) {
                        finish(c, CHECK_WRONG, "a health check was answered by what is no reply of a Redis");
                        return;
                }
                if (!reply)
                        return;
                if (c->o.ask_role && !c->role_known) {
                        take_role(c, reply);
                        freeReplyObject(reply);
                        continue;
                }
                enum check_outcome outcome = judge(c, reply);
                freeReplyObject(reply);
                if (outcome == CHECK_ANSWERED && c->reader->pos < c->reader->len)
                        outcome = CHECK_WRONG;
                finish(c, outcome, outcome == CHECK_WRONG ? "a health check got an answer to something else" : "");
                return;
        }
}

static void on_io(evutil_socket_t fd, short what, void *userdata) {
        struct check *c = userdata;
        char buffer[4096];
        ssize_t n = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n <= 0)
                finish(c, CHECK_LOST, n < 0 ? strerror(errno) : "closed by the server");
        else if ((c->received += (size_t)n) > ANSWERS_MAX || redisReaderFeed(c->reader, buffer, (size_t)n) != REDIS_OK)
                finish(c, CHECK_WRONG, "the answer to a health check has no end");
        else
                take_replies(c);
}

static void on_timer(evutil_socket_t fd, short what, void *userdata) {
        finish(userdata, CHECK_SILENT, "no answer to a health check in time");
}

static int ask(const struct check *c) {
        char request[128];
        int n = snprintf(request, sizeof(request), "%s*2\r\n$4\r\nECHO\r\n$32\r\n%s\r\n",
                         c->o.ask_role ? "*1\r\n$4\r\nROLE\r\n" : "", c->nonce);
        ssize_t sent = send(c->o.fd, request, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
        /* An idle socket has room for a hundred bytes: one that has not is stuck. */
        return sent == n ? 0 : sent < 0 ? -errno : -EAGAIN;
}

static int prepare(struct check *c) {
        struct timeval timeout = {.tv_sec = (time_t)(c->o.timeout_ns / NS_PER_S),
                                  .tv_usec = (suseconds_t)(c->o.timeout_ns % NS_PER_S / NS_PER_US)};
        for (unsigned i = 0; i < sizeof(c->o.nonce); i++)
                snprintf(c->nonce + 2 * i, 3, "%02x", c->o.nonce[i]);
        c->reader = redisReaderCreate();
        c->io = event_new(c->o.base, c->o.fd, EV_READ | EV_PERSIST, on_io, c);
        c->timer = evtimer_new(c->o.base, on_timer, c);
        if (!c->reader || !c->io || !c->timer || event_add(c->io, NULL) < 0 || event_add(c->timer, &timeout) < 0)
                return -ENOMEM;
        return ask(c);
}

int check_start(const struct check_options *options, struct check **ret) {
        struct check *c = calloc(1, sizeof(*c));
        if (!c)
                return -ENOMEM;
        c->o = *options;
        int r = prepare(c);
        if (r < 0) {
                check_cancel(c);
                return r;
        }
        *ret = c;
        return 0;
}

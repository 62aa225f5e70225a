/* SPDX-License-Identifier: MIT */
#include "handshake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const step_names[HANDSHAKE_STEPS] = {"AUTH", "SELECT", "CLIENT SETNAME", "CLIENT ID", "PING"};

static int format_step(enum handshake_step step, const struct upstream_target *t, char **ret) {
        char db[16];
        snprintf(db, sizeof(db), "%u", t->db);
        switch (step) {
        case HANDSHAKE_AUTH:
                return t->username ? redisFormatCommand(ret, "AUTH %s %s", t->username, t->password)
                                   : redisFormatCommand(ret, "AUTH %s", t->password);
        case HANDSHAKE_SELECT:
                return redisFormatCommand(ret, "SELECT %s", db);
        case HANDSHAKE_SETNAME:
                return redisFormatCommand(ret, "CLIENT SETNAME %s", t->client_name);
        case HANDSHAKE_ID:
                return redisFormatCommand(ret, "CLIENT ID");
        case HANDSHAKE_PING:
                return redisFormatCommand(ret, "PING");
        case HANDSHAKE_STEPS:
                break;
        }
        return -1;
}

static int append_step(enum handshake_step step, const struct upstream_target *t, char **data, size_t *size) {
        char *request = NULL, *longer;
        int n = format_step(step, t, &request);
        if (n < 0)
                return -ENOMEM;
        longer = malloc(*size + (size_t)n);
        if (longer) {
                if (*size)
                        memcpy(longer, *data, *size);
                memcpy(longer + *size, request, (size_t)n);
        }
        if (*data)
                explicit_bzero(*data, *size);
        explicit_bzero(request, (size_t)n);
        free(*data);
        redisFreeCommand(request);
        *data = longer;
        *size += (size_t)n;
        return longer ? 0 : -ENOMEM;
}

int handshake_start(struct handshake *h, const struct upstream_target *target, char **ret_data, size_t *ret_size) {
        char *data = NULL;
        size_t size = 0;
        *h = (struct handshake){.n = 0};
        if (target->password)
                h->steps[h->n++] = HANDSHAKE_AUTH;
        if (target->db != 0)
                h->steps[h->n++] = HANDSHAKE_SELECT;
        h->steps[h->n++] = HANDSHAKE_SETNAME;
        h->steps[h->n++] = HANDSHAKE_ID;
        h->steps[h->n++] = HANDSHAKE_PING;
        for (unsigned i = 0; i < h->n; i++)
                if (append_step(h->steps[i], target, &data, &size) < 0)
                        return -ENOMEM;
        *ret_data = data;
        *ret_size = size;
        return 0;
}

static int fail(struct handshake *h, int outcome, const char *what, const char *said) {
        snprintf(h->text, sizeof(h->text), "%s: %s", what, said);
        return outcome;
}

static bool starts(const char *text, const char *prefix) { return strncmp(text, prefix, strlen(prefix)) == 0; }

/* An error reply to a step that must succeed: whose fault is it? */
static int judge_error(struct handshake *h, enum handshake_step step, const char *error) {
        if (starts(error, "LOADING"))
                return fail(h, LESSOR_E_LOADING, "Redis is loading its data", error);
        if (starts(error, "NOAUTH"))
                return fail(h, LESSOR_E_CREDENTIALS, "Redis wants a password: configure password or password_file",
                            error);
        if (starts(error, "WRONGPASS"))
                return fail(h, LESSOR_E_CREDENTIALS, "Redis refuses the configured username or password", error);
        /* Said unasked by a server that is full or in protected mode; never an answer to our step. */
        if (starts(error, "ERR max number of clients"))
                return fail(h, LESSOR_E_EXHAUSTED, "Redis is full and refuses the connection", error);
        if (starts(error, "DENIED"))
                return fail(h, LESSOR_E_CREDENTIALS, "Redis is in protected mode and refuses the connection", error);
        if (step == HANDSHAKE_AUTH)
                return fail(h, LESSOR_E_CREDENTIALS, "Redis refuses AUTH: check username and password", error);
        if (step == HANDSHAKE_SELECT)
                return fail(h, LESSOR_E_CREDENTIALS, "Redis refuses SELECT: check db, and the user's rights", error);
        return fail(h, LESSOR_E_UPSTREAM, step_names[step], error);
}

/* Steps that only serve our convenience: an old server or a restricted user may refuse them. */
static bool may_fail(enum handshake_step step, const char *error) {
        bool refused = starts(error, "NOPERM") || starts(error, "ERR unknown") || starts(error, "ERR Unknown") ||
                       starts(error, "ERR syntax");
        if (step == HANDSHAKE_SETNAME || step == HANDSHAKE_ID)
                return refused;
        /* A replica that lost its master, or a user without PING, is connected all the same. */
        return step == HANDSHAKE_PING && (refused || starts(error, "MASTERDOWN"));
}

static bool expected(enum handshake_step step, const redisReply *reply) {
        if (step == HANDSHAKE_ID)
                return reply->type == REDIS_REPLY_INTEGER && reply->integer >= 0;
        return reply->type == REDIS_REPLY_STATUS && strcmp(reply->str, step == HANDSHAKE_PING ? "PONG" : "OK") == 0;
}

int handshake_reply(struct handshake *h, const redisReply *reply) {
        enum handshake_step step = h->steps[h->at];
        if (reply->type == REDIS_REPLY_ERROR) {
                if (!may_fail(step, reply->str))
                        return judge_error(h, step, reply->str);
        } else if (!expected(step, reply)) {
                return fail(h, LESSOR_E_UPSTREAM, "this does not answer like a Redis", step_names[step]);
        } else if (step == HANDSHAKE_ID) {
                h->client_id = (uint64_t)reply->integer;
        }
        return ++h->at == h->n ? LESSOR_OK : HANDSHAKE_CONTINUE;
}

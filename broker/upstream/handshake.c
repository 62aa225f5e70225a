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

static int fail(struct handshake *h, enum lessor_trouble trouble, const char *what, const char *said) {
        static const int outcomes[] = {
                [LESSOR_TROUBLE_NOT_REDIS] = LESSOR_E_UPSTREAM,
                [LESSOR_TROUBLE_LOADING] = LESSOR_E_LOADING,
                [LESSOR_TROUBLE_BUSY] = LESSOR_E_LOADING,
                [LESSOR_TROUBLE_MAXCLIENTS] = LESSOR_E_EXHAUSTED,
                [LESSOR_TROUBLE_PROTECTED_MODE] = LESSOR_E_CREDENTIALS,
                [LESSOR_TROUBLE_NOAUTH] = LESSOR_E_CREDENTIALS,
                [LESSOR_TROUBLE_WRONGPASS] = LESSOR_E_CREDENTIALS,
                [LESSOR_TROUBLE_NOPERM] = LESSOR_E_CREDENTIALS,
                [LESSOR_TROUBLE_WRONG_DB] = LESSOR_E_CREDENTIALS,
                [LESSOR_TROUBLE_REFUSED] = LESSOR_E_UPSTREAM,
        };
        snprintf(h->text, sizeof(h->text), "%s: %s", what, said);
        h->trouble = trouble;
        return outcomes[trouble];
}

static bool starts(const char *text, const char *prefix) { return strncmp(text, prefix, strlen(prefix)) == 0; }

/* An error reply to a step that must succeed: whose fault is it? */
static int judge_error(struct handshake *h, enum handshake_step step, const char *error) {
        static const struct {
                const char *prefix;
                enum lessor_trouble trouble;
                const char *what;
        } classes[] = {
                {"LOADING", LESSOR_TROUBLE_LOADING, "Redis is loading its data"},
                {"BUSY", LESSOR_TROUBLE_BUSY, "Redis is busy with a script"},
                {"NOAUTH", LESSOR_TROUBLE_NOAUTH, "Redis wants a password: configure password or password_file"},
                {"WRONGPASS", LESSOR_TROUBLE_WRONGPASS, "Redis refuses the configured username or password"},
                /* Said unasked by a server that is full or in protected mode; never an answer to our step. */
                {"ERR max number of clients", LESSOR_TROUBLE_MAXCLIENTS, "Redis is full and refuses the connection"},
                {"DENIED", LESSOR_TROUBLE_PROTECTED_MODE, "Redis is in protected mode and refuses the connection"},
        };
        for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++)
                if (starts(error, classes[i].prefix))
                        return fail(h, classes[i].trouble, classes[i].what, error);
        if (step == HANDSHAKE_AUTH)
                return fail(h, LESSOR_TROUBLE_WRONGPASS, "Redis refuses AUTH: check username and password", error);
        if (step == HANDSHAKE_SELECT && starts(error, "NOPERM"))
                return fail(h, LESSOR_TROUBLE_NOPERM, "Redis refuses SELECT: check the user's rights", error);
        if (step == HANDSHAKE_SELECT)
                return fail(h, LESSOR_TROUBLE_WRONG_DB, "Redis refuses SELECT: check db", error);
        return fail(h, LESSOR_TROUBLE_REFUSED, step_names[step], error);
}

/* Steps that only serve our convenience: an old server or a restricted user may refuse them. */
static bool may_fail(enum handshake_step step, const char *error) {
        bool refused = starts(error, "NOPERM") || starts(error, "ERR unknown") || starts(error, "ERR Unknown") ||
                       starts(error, "ERR syntax");
        if (step == HANDSHAKE_SETNAME || step == HANDSHAKE_ID)
                return refused;
        /* A replica without its master, a server that cannot save, a user without PING: connected all the same. */
        return step == HANDSHAKE_PING && (refused || starts(error, "MASTERDOWN") || starts(error, "MISCONF"));
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
                return fail(h, LESSOR_TROUBLE_NOT_REDIS, "this does not answer like a Redis", step_names[step]);
        } else if (step == HANDSHAKE_ID) {
                h->client_id = (uint64_t)reply->integer;
        }
        return ++h->at == h->n ? LESSOR_OK : HANDSHAKE_CONTINUE;
}

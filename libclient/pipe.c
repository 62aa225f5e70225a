/* SPDX-License-Identifier: MIT */
/*
 * A pipe collects formatted commands in one buffer; running it is one exchange on a lease borrowed for it. An
 * atomic pipe has MULTI in front from the start and gets EXEC at its end; its replies are EXEC's elements, put in
 * the callers' places.
 *
 * What answers with more or fewer replies than one (SUBSCRIBE, MONITOR ...) would shift everybody's replies: refused.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/command.h"
#include "base/resp.h"
#include "call.h"
#include "command.h"
#include "error.h"
#include "pipe.h"

static const char multi[] = "*1\r\n$5\r\nMULTI\r\n", exec[] = "*1\r\n$4\r\nEXEC\r\n";

/* Room for `more` beyond `size` entries of `width` bytes; doubles. */
static int grow(void *array, size_t width, size_t size, size_t more, size_t *room) {
        size_t wanted = *room > 0 ? *room : 16;
        void *grown;

        if (more > SIZE_MAX / width / 4 - size)
                return -ENOMEM;
        while (wanted < size + more)
                wanted *= 2;
        if (wanted == *room)
                return 0;
        grown = realloc(*(void **)array, wanted * width);
        if (!grown)
                return -ENOMEM;
        *(void **)array = grown;
        *room = wanted;
        return 0;
}

static int pipe_append(lessor_pipe *p, const char *data, size_t size) {
        if (grow(&p->data, 1, p->size, size, &p->room) < 0 || grow(&p->ends, sizeof(*p->ends), p->n, 1, &p->n_room) < 0)
                return -ENOMEM;
        memcpy(p->data + p->size, data, size);
        p->size += size;
        p->ends[p->n++] = p->size;
        return 0;
}

int pipe_clear(lessor_pipe *p) {
        p->size = 0;
        p->n = 0;
        return p->flags & LESSOR_ATOMIC ? pipe_append(p, multi, sizeof(multi) - 1) : 0;
}

int pipe_close(lessor_pipe *p) { return p->flags & LESSOR_ATOMIC ? pipe_append(p, exec, sizeof(exec) - 1) : 0; }

lessor_pipe *lessor_pipe_new(lessor_db *db, unsigned flags) {
        lessor_pipe *p;

        if (!db || (flags & ~LESSOR_ATOMIC))
                return NULL;
        p = calloc(1, sizeof(*p));
        if (!p)
                return NULL;
        p->db = db;
        p->flags = flags;
        if (pipe_clear(p) < 0) {
                lessor_pipe_free(p);
                return NULL;
        }
        return p;
}

void lessor_pipe_free(lessor_pipe *p) {
        if (!p)
                return;
        free(p->data);
        free(p->ends);
        free(p);
}

/* Does it answer once, and leave our MULTI and EXEC alone? */
static bool pipe_allows(const lessor_pipe *p, const struct command *c) {
        static const char *const refused[] = {"SUBSCRIBE",    "PSUBSCRIBE",   "SSUBSCRIBE", "UNSUBSCRIBE",
                                              "PUNSUBSCRIBE", "SUNSUBSCRIBE", "MONITOR",    "SYNC",
                                              "PSYNC",        "QUIT",         "SHUTDOWN",   "RESET"};
        enum command_effect effect;
        const char *name;
        size_t len;

        if (!resp_command_name(c->data, c->size, &name, &len))
                return false;
        for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
                if (strlen(refused[i]) == len && strncasecmp(refused[i], name, len) == 0)
                        return false;
        effect = command_effect(name, len);
        return !(p->flags & LESSOR_ATOMIC) || effect == COMMAND_HARMLESS || effect == COMMAND_STATE ||
               effect == COMMAND_STICKY;
}

static int pipe_take(lessor_pipe *p, struct command *c) {
        int r = pipe_allows(p, c) ? pipe_append(p, c->data, c->size) : LESSOR_E_INVALID;
        command_deinit(c);
        return r;
}

int lessor_pipe_add(lessor_pipe *p, const char *fmt, ...) {
        struct command c;
        va_list args;
        int r;

        if (!p)
                return LESSOR_E_INVALID;
        va_start(args, fmt);
        r = command_vformat(&c, "lessor_pipe_add", NULL, fmt, args);
        va_end(args);
        return r == 0 ? pipe_take(p, &c) : r;
}

int lessor_pipe_add_argv(lessor_pipe *p, int argc, const char **argv, const size_t *argv_len) {
        struct command c;
        int r;

        if (!p)
                return LESSOR_E_INVALID;
        r = command_format_argv(&c, "lessor_pipe_add_argv", NULL, argc, argv, argv_len);
        return r == 0 ? pipe_take(p, &c) : r;
}

void lessor_pipe_replies_free(redisReply **replies, size_t n) {
        for (size_t i = 0; replies && i < n; i++)
                freeReplyObject(replies[i]);
        free(replies);
}

/* An error reply of our own, made by hiredis, so that freeReplyObject() frees it whatever allocator is in force. */
static redisReply *reply_error(const char *text) {
        redisReader *reader = redisReaderCreate();
        void *reply = NULL;

        if (!reader)
                return NULL;
        if (redisReaderFeed(reader, "-", 1) != REDIS_OK || redisReaderFeed(reader, text, strlen(text)) != REDIS_OK ||
            redisReaderFeed(reader, "\r\n", 2) != REDIS_OK || redisReaderGetReply(reader, &reply) != REDIS_OK)
                reply = NULL;
        redisReaderFree(reader);
        return reply;
}

static bool reply_is_error(const redisReply *r) { return r->type == REDIS_REPLY_ERROR; }

/* EXEC did not run them. `all` is MULTI's reply, n replies of queueing, EXEC's. */
static int pipe_aborted(redisReply **all, size_t n) {
        const redisReply *end = all[n + 1];
        const char *text = LESSOR_PIPE_ABORTED;

        if (reply_is_error(end) && strncmp(end->str, "EXECABORT", strlen("EXECABORT")) != 0)
                text = end->str;
        for (size_t i = 1; i <= n; i++) {
                if (reply_is_error(all[i]))
                        continue;
                freeReplyObject(all[i]);
                all[i] = reply_error(text);
                if (!all[i])
                        return -ENOMEM;
        }
        return 0;
}

/* Without MULTI each command ran for itself, unless each was refused for itself (-LOADING, say). */
static int pipe_without_multi(redisReply **all, size_t n, lessor_error *error) {
        for (size_t i = 1; i <= n; i++) {
                if (reply_is_error(all[i]))
                        continue;
                error_set(error, LESSOR_E_UPSTREAM, "Redis refused MULTI (%s): the commands ran, but not atomically",
                          all[0]->str);
                error_may_have_run(error, true);
                return LESSOR_E_UPSTREAM;
        }
        return 0;
}

/* Puts the commands' own replies into all[1 .. n]. */
static int pipe_unwrap(redisReply **all, size_t n, lessor_error *error) {
        redisReply *end = all[n + 1];
        int r;

        if (reply_is_error(all[0]))
                return pipe_without_multi(all, n, error);
        if (end->type == REDIS_REPLY_ARRAY && end->elements == n) {
                for (size_t i = 0; i < n; i++) {
                        freeReplyObject(all[i + 1]);
                        all[i + 1] = end->element[i];
                        end->element[i] = NULL;
                }
                return 0;
        }
        if (end->type != REDIS_REPLY_NIL && !reply_is_error(end)) {
                error_set(error, LESSOR_E_PROTOCOL, "EXEC was not answered by one reply for each command");
                error_may_have_run(error, true);
                return LESSOR_E_PROTOCOL;
        }
        r = pipe_aborted(all, n);
        return r < 0 ? error_set(error, r, "out of memory") : 0;
}

static int pipe_exchange(lessor_pipe *p, int wait_ms, redisReply **replies, lessor_error *error) {
        struct exchange x = {.out = p->data,
                             .size = p->size,
                             .ends = p->ends,
                             .requests = p->n,
                             .replies = replies,
                             .expected = p->n};
        struct request request = {.wait_ms = wait_ms, .site.file = "lessor_pipe_run"};
        lessor_error local;

        return call_exchange_once(p->db, &request, &x, error ? error : &local);
}

/* An atomic pipe's replies stand one place further up, with MULTI's before and EXEC's behind. */
static void pipe_shift(redisReply **all, size_t n) {
        freeReplyObject(all[0]);
        freeReplyObject(all[n + 1]);
        memmove(all, all + 1, n * sizeof(*all));
}

int pipe_unfold(unsigned flags, redisReply **replies, size_t *n, lessor_error *error) {
        int r;

        if (!(flags & LESSOR_ATOMIC))
                return 0;
        r = pipe_unwrap(replies, *n - 2, error);
        if (r != 0)
                return r;
        *n -= 2;
        pipe_shift(replies, *n);
        return 0;
}

static int pipe_run(lessor_pipe *p, int wait_ms, redisReply ***ret, size_t *ret_n, lessor_error *error) {
        redisReply **replies;
        int r = pipe_close(p);
        size_t n = p->n;

        replies = r == 0 ? calloc(p->n, sizeof(*replies)) : NULL;
        if (!replies)
                return error_set(error, -ENOMEM, "lessor_pipe_run: out of memory");
        r = pipe_exchange(p, wait_ms, replies, error);
        if (r == 0)
                r = pipe_unfold(p->flags, replies, &n, error);
        if (r != 0) {
                lessor_pipe_replies_free(replies, p->n);
                return r;
        }
        *ret = replies;
        *ret_n = n;
        return 0;
}

int lessor_pipe_run(lessor_pipe *p, int wait_ms, redisReply ***ret, size_t *ret_n, lessor_error *error) {
        NO_CANCEL;
        int r;

        error_clear(error);
        if (!p || !ret || !ret_n)
                return error_argument(error, "lessor_pipe_run", !p ? "pipe" : "ret", "is NULL");
        if (wait_ms < LESSOR_WAIT_CONFIGURED)
                return error_argument(error, "lessor_pipe_run", "wait_ms", "is negative");
        if (pipe_is_empty(p)) {
                *ret = NULL;
                *ret_n = 0;
                return 0;
        }
        r = pipe_run(p, wait_ms, ret, ret_n, error);
        pipe_clear(p);
        return r;
}

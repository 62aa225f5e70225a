/* SPDX-License-Identifier: MIT */
/*
 * A lease is clean at its end when that can be proved: every request sent whole and answered whole, not a byte left
 * over, no command that leaves state behind, no raw use, no error. In doubt it is not; then the broker resets or
 * replaces the connection.
 *
 * An error that leaves it open which reply would come next breaks the lease: it is good for nothing but its release.
 */
#include "lease.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/resp.h"
#include "error.h"
#include "warm.h"

#define LOOK_AFTER_NS (10 * NS_PER_MS)

/* Puts in front of the text where it happened. */
void lease_say_where(const char *database, const char *socket, lessor_error *error) {
        char text[LESSOR_ERROR_TEXT];

        if (strncmp(error->text, "database `", strlen("database `")) == 0)
                return; /* the broker has said it already */
        memcpy(text, error->text, sizeof(text));
        snprintf(error->text, sizeof(error->text), "database `%s` of %s: %.300s", database, socket, text);
}

bool lease_clean(const struct lessor_lease *l) {
        return !l->broken && !l->context && !l->raw && stream_even(&l->stream) && command_trail_clean(&l->trail);
}

/* Raw use shows us neither its requests nor whether they went out whole: nothing can be said of it. */
bool lease_resettable(const struct lessor_lease *l) {
        return !l->broken && !l->context && !l->raw && stream_even(&l->stream) && command_trail_resettable(&l->trail);
}

int lease_check(const struct lessor_lease *l, const char *function, lessor_error *error) {
        if (!l)
                return error_argument(error, function, "lease", "is NULL");
        if (l->epoch != fork_epoch())
                return error_set(error, LESSOR_E_FORKED,
                                 "database `%s`: this lease is the parent process': acquire one here", l->set->name);
        if (l->broken)
                return error_set(error, LESSOR_E_CONNECTION,
                                 "database `%s`: this lease broke at an earlier command (%s): release it and acquire "
                                 "another",
                                 l->set->name, lessor_outcome_text(l->broken));
        return 0;
}

static void exchange_request(const struct exchange *x, size_t i, const char **ret, size_t *ret_len) {
        size_t start = i > 0 ? x->ends[i - 1] : 0;
        if (!resp_command_name(x->out + start, x->ends[i] - start, ret, ret_len)) {
                *ret = "";
                *ret_len = 0;
        }
}

/* By our own table, or by what the broker has learnt from the server. */
static bool lease_harmless(const struct lessor_lease *l, const char *name, size_t len) {
        if (command_known(name, len))
                return command_effect(name, len) == COMMAND_HARMLESS;
        return control_says_harmless(&l->set->session->control, l->grant.database, name, len);
}

bool lease_trail(struct lessor_lease *l, const char *name, size_t len) {
        unsigned slot = len > 0 ? ((unsigned char)name[0] + (unsigned)len) % ARRAY_SIZE(l->harmless.recent) : 0;
        uint8_t known = l->harmless.recent[slot].len;
        char *room = l->harmless.recent[slot].name;

        if (known > 0 && known == len && memcmp(room, name, len) == 0)
                return true;
        if (!lease_harmless(l, name, len)) {
                command_trail_add(&l->trail, name, len);
                l->unknown = l->unknown || !command_known(name, len);
                return false;
        }
        if (len <= sizeof(l->harmless.recent[slot].name)) {
                memcpy(room, name, len);
                l->harmless.recent[slot].len = (uint8_t)len;
        }
        return true;
}

void lease_report(struct lessor_lease *l, enum lessor_report kind, int error) {
        struct lessor_msg_report m = {
                .database = l->grant.database,
                .slot = l->grant.slot,
                .generation = l->grant.generation,
                .lease = l->grant.lease,
                .kind = kind,
                .error = error,
        };
        session_report(l->set->session, &m);
}

unsigned lease_report_kind(const char *reply_error) {
        static const struct {
                const char *prefix;
                enum lessor_report kind;
        } kinds[] = {{"READONLY ", LESSOR_REPORT_READONLY},
                     {"MOVED ", LESSOR_REPORT_MOVED},
                     {"ASK ", LESSOR_REPORT_MOVED},
                     {"LOADING ", LESSOR_REPORT_LOADING}};

        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
                if (strncmp(reply_error, kinds[i].prefix, strlen(kinds[i].prefix)) == 0)
                        return kinds[i].kind;
        return 0;
}

/* What the replies say about the connection and the server; returns how many are errors. */
static uint32_t lease_judge(struct lessor_lease *l, const struct exchange *x) {
        unsigned report = 0;
        uint32_t errors = 0;

        for (size_t i = 0; i < x->got; i++) {
                const char *name;
                size_t len;
                if (x->replies[i]->type != REDIS_REPLY_ERROR)
                        continue;
                errors++;
                if (report == 0)
                        report = lease_report_kind(x->replies[i]->str);
                if (i < x->requests) {
                        exchange_request(x, i, &name, &len);
                        if (!lease_harmless(l, name, len))
                                command_trail_error(&l->trail, name, len);
                }
        }
        if (report != 0)
                lease_report(l, report, 0);
        return errors;
}

static void lease_count(struct lessor_lease *l, const struct exchange *x, uint32_t errors, int result) {
        struct outcome_counts counts = {
                .ok = (uint32_t)x->got - errors,
                .failed = errors + (uint32_t)(x->expected - x->got),
                .timeouts = result == LESSOR_E_REPLY_TIMEOUT,
        };
        uint64_t now = clock_now();

        if (x->requests == 0) /* a message of SUBSCRIBE is no operation */
                return;
        if (result == 0)
                counts.call_ns = now > x->now ? now - x->now : 1;
        segment_count(&l->set->session->segment, l->grant.database, &counts);
}

static void lease_report_failure(struct lessor_lease *l, const struct exchange *x, int result) {
        if (result == LESSOR_E_CONNECTION)
                lease_report(l, LESSOR_REPORT_CONNECTION, x->error);
        else if (result == LESSOR_E_PROTOCOL)
                lease_report(l, LESSOR_REPORT_PROTOCOL, 0);
        else if (result == LESSOR_E_REPLY_TIMEOUT && l->timeout_ns >= l->socket_timeout_ns && x->requests > 0)
                lease_report(l, LESSOR_REPORT_TIMEOUT, 0); /* not when the caller was in more of a hurry than that */
}

static void lease_say_failure(struct lessor_lease *l, const struct exchange *x, int result, lessor_error *error) {
        bool ran = x->whole > 0;

        switch (result) {
        case LESSOR_E_CONNECTION:
                error_set(error, result, "the connection was lost (%s)",
                          x->error ? lessor_outcome_text(-x->error) : "closed by Redis, or cut by the broker");
                break;
        case LESSOR_E_REPLY_TIMEOUT:
                error_set(error, result, "no reply within %llu ms", (unsigned long long)(x->timeout_ns / NS_PER_MS));
                break;
        case LESSOR_E_PROTOCOL:
                error_set(error, result, "the server sent what is not RESP2 (%s)", x->text);
                break;
        default:
                error_set(error, result, "%s", lessor_outcome_text(result));
                break;
        }
        if (!error)
                return;
        lease_say_where(l->set->name, l->set->session->socket, error);
        if (x->requests > 0)
                strncat(error->text, ran ? "; the command may have run" : "; the command was not sent whole",
                        sizeof(error->text) - strlen(error->text) - 1);
        error_may_have_run(error, ran);
}

/*
 * A parked connection that nobody has used for a while may have ended meanwhile, or have on it what nobody asked for. Seen
 * here, before anything is sent, another one can take its place without a doubt. Else 0.
 */
static int lease_look(const struct lessor_lease *l, struct exchange *x) {
        char byte;
        ssize_t n;

        if (l->touched || x->requests == 0 || l->last_used == 0 || x->now - l->last_used < LOOK_AFTER_NS)
                return 0;
        n = recv(l->stream.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        x->error = n < 0 ? errno : 0;
        x->text = "it sends what nobody asked for";
        return n > 0 ? LESSOR_E_PROTOCOL : LESSOR_E_CONNECTION;
}

int lease_exchange_begin(struct lessor_lease *l, struct exchange *x) {
        int r;

        for (size_t i = 0; i < x->requests; i++) {
                const char *name;
                size_t len;
                exchange_request(x, i, &name, &len);
                lease_trail(l, name, len);
        }
        x->timeout_ns = l->timeout_ns;
        x->now = clock_now();
        session_glance(l->set->session, x->now);
        r = lease_look(l, x);
        l->touched = true;
        l->last_used = x->now;
        return r;
}

int lease_exchange_end(struct lessor_lease *l, struct exchange *x, int r, lessor_error *error) {
        uint32_t errors = lease_judge(l, x);
        bool first = !l->broken;

        lease_count(l, x, errors, r);
        /* A read that timed out has lost nothing: what came so far is still in the buffer. */
        if (r != 0 && !(r == LESSOR_E_REPLY_TIMEOUT && x->requests == 0))
                l->broken = r;
        if (r == 0 && x->written < x->size) /* answered before it was sent whole: the rest must never follow */
                l->broken = LESSOR_E_PROTOCOL;
        if (r != 0) {
                if (first)
                        lease_report_failure(l, x, r);
                lease_say_failure(l, x, r, error);
        }
        return r;
}

int lease_exchange(struct lessor_lease *l, struct exchange *x, lessor_error *error) {
        int r = lease_exchange_begin(l, x);

        if (r == 0)
                r = stream_exchange(&l->stream, x);
        return lease_exchange_end(l, x, r, error);
}

redisReply *lease_command(struct lessor_lease *l, const char *data, size_t size, lessor_error *error) {
        redisReply *reply = NULL;
        struct exchange x = {.out = data, .size = size, .ends = &size, .requests = 1, .replies = &reply, .expected = 1};

        return lease_exchange(l, &x, error) == 0 ? reply : NULL;
}

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
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/resp.h"
#include "error.h"

enum { TRIES = 3 }; /* sessions tried, when one after the other is found dead before the request was sent */

struct wish {
        struct lessor_db *db;
        int wait_ms;
        uint64_t deadline; /* of wait_ms; meaningless when the configured wait applies */
        const char *site;
};

/* gettid() once a thread and process. */
static int32_t thread_id(void) {
        static _Thread_local uint32_t epoch;
        static _Thread_local int32_t tid;
        uint32_t now = fork_epoch();

        if (tid == 0 || epoch != now) {
                tid = (int32_t)syscall(SYS_gettid);
                epoch = now;
        }
        return tid;
}

/* Puts in front of the text where it happened. */
static void lease_say_where(const char *database, const char *socket, lessor_error *error) {
        char text[LESSOR_ERROR_TEXT];

        if (strncmp(error->text, "database `", strlen("database `")) == 0)
                return; /* the broker has said it already */
        memcpy(text, error->text, sizeof(text));
        snprintf(error->text, sizeof(error->text), "database `%s` of %s: %.300s", database, socket, text);
}

static void lease_begin(struct lessor_lease *l, struct session *s, const struct wish *w,
                        const struct lessor_control_database *d, const struct grant *g) {
        memset(l, 0, sizeof(*l));
        l->session = s;
        l->guard = g->guard;
        l->stream.fd = guard_fd(g->guard);
        l->grant = g->message;
        l->epoch = s->epoch;
        l->socket_timeout_ns = d->socket_timeout_ns > 0 ? d->socket_timeout_ns : TIME_NEVER;
        l->timeout_ns = l->socket_timeout_ns;
        memcpy(l->database, w->db->name, sizeof(l->database));
}

/* On this session; takes the reference when it is granted. */
static enum ask lease_ask(struct lessor_lease *l, struct session *s, const struct wish *w, lessor_error *error) {
        const struct lessor_control_database *d;
        struct lessor_msg_lease m = {.tid = thread_id()};
        uint64_t now = clock_now(), wait;
        struct grant grant;
        enum ask result;

        if (client_place(s, w->db, &m.database, &d, error) != 0 || control_refusal(d, error) != 0)
                return ASK_REFUSED;
        wait = w->wait_ms < 0 ? d->wait_timeout_ns : time_left(now, w->deadline);
        m.wait_ns = w->wait_ms < 0 ? LESSOR_WAIT_DEFAULT : wait;
        wire_string(m.site, sizeof(m.site), w->site);
        result = session_lease(s, &m, time_after(now, time_after(wait, SLACK_NS)), &grant, error);
        if (result == ASK_GRANTED)
                lease_begin(l, s, w, d, &grant);
        else
                lease_say_where(w->db->name, s->socket, error);
        return result;
}

int lease_init(struct lessor_lease *l, struct lessor_db *db, int wait_ms, const char *site, lessor_error *error) {
        uint64_t now = clock_now(), wait = wait_ms > 0 ? (uint64_t)wait_ms * NS_PER_MS : 0;
        struct wish wish = {.db = db, .wait_ms = wait_ms, .deadline = now + wait, .site = site};
        uint64_t attach = wait_ms < 0 || wait + SLACK_NS > ATTACH_NS ? ATTACH_NS : wait + SLACK_NS;
        enum ask result = ASK_UNSENT;

        /* A restarted broker is noticed by the first message to it: nothing was asked yet, so ask the new one. */
        for (int i = 0; i < TRIES && result == ASK_UNSENT; i++) {
                struct session *s;
                int r = client_session(db->client, time_after(now, attach), &s, error);
                if (r != 0)
                        return r;
                result = lease_ask(l, s, &wish, error);
                if (result != ASK_GRANTED)
                        session_unref(s);
        }
        return result == ASK_GRANTED ? 0 : error->code;
}

static bool lease_clean(const struct lessor_lease *l) {
        return !l->broken && !l->context && stream_even(&l->stream) && command_trail_clean(&l->trail);
}

static void lease_free_context(struct lessor_lease *l) {
        if (!l->context)
                return;
        l->stream.reader = NULL; /* the context's by now */
        redisFreeKeepFd(l->context);
        l->context = NULL;
}

void lease_deinit(struct lessor_lease *l) {
        struct lessor_msg_return m = {
                .database = l->grant.database,
                .slot = l->grant.slot,
                .generation = l->grant.generation,
                .lease = l->grant.lease,
                .flags = lease_clean(l) ? LESSOR_RETURN_CLEAN : 0,
                .requests = l->stream.requests,
                .replies = l->stream.replies,
        };
        int keep = errno;
        bool mine = l->epoch == fork_epoch();

        /* The fd goes first: when the broker hands the connection on, we have nothing of it any more. */
        if (mine)
                guard_free(l->guard);
        lease_free_context(l);
        stream_deinit(&l->stream);
        if (mine)
                session_return(l->session, &m);
        session_unref(l->session);
        errno = keep;
}

int lease_check(const struct lessor_lease *l, const char *function, lessor_error *error) {
        if (!l)
                return error_argument(error, function, "lease", "is NULL");
        if (l->epoch != fork_epoch())
                return error_set(error, LESSOR_E_FORKED,
                                 "database `%s`: this lease is the parent process': acquire one here", l->database);
        if (l->broken)
                return error_set(error, LESSOR_E_CONNECTION,
                                 "database `%s`: this lease broke at an earlier command (%s): release it and acquire "
                                 "another",
                                 l->database, lessor_outcome_text(l->broken));
        return 0;
}

static void exchange_request(const struct exchange *x, size_t i, const char **ret, size_t *ret_len) {
        size_t start = i > 0 ? x->ends[i - 1] : 0;
        if (!resp_command_name(x->out + start, x->ends[i] - start, ret, ret_len)) {
                *ret = "";
                *ret_len = 0;
        }
}

static void lease_trail(struct lessor_lease *l, const char *name, size_t len) {
        unsigned slot = len > 0 ? ((unsigned char)name[0] + (unsigned)len) % ARRAY_SIZE(l->harmless.recent) : 0;
        uint8_t known = l->harmless.recent[slot].len;
        char *room = l->harmless.recent[slot].name;

        if (known > 0 && known == len && memcmp(room, name, len) == 0)
                return;
        command_trail_add(&l->trail, name, len);
        if (len <= sizeof(l->harmless.recent[slot].name) && command_effect(name, len) == COMMAND_HARMLESS) {
                memcpy(room, name, len);
                l->harmless.recent[slot].len = (uint8_t)len;
        }
}

static void lease_report(struct lessor_lease *l, enum lessor_report kind, int error) {
        struct lessor_msg_report m = {
                .database = l->grant.database,
                .slot = l->grant.slot,
                .generation = l->grant.generation,
                .lease = l->grant.lease,
                .kind = kind,
                .error = error,
        };
        session_report(l->session, &m);
}

/* The kind of report that an error of Redis deserves: it concerns the server, not the command. 0: none. */
static unsigned reply_report(const redisReply *reply) {
        static const struct {
                const char *prefix;
                enum lessor_report kind;
        } kinds[] = {{"READONLY ", LESSOR_REPORT_READONLY},
                     {"MOVED ", LESSOR_REPORT_MOVED},
                     {"ASK ", LESSOR_REPORT_MOVED},
                     {"LOADING ", LESSOR_REPORT_LOADING}};

        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
                if (strncmp(reply->str, kinds[i].prefix, strlen(kinds[i].prefix)) == 0)
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
                        report = reply_report(x->replies[i]);
                if (i < x->requests) {
                        exchange_request(x, i, &name, &len);
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
        segment_count(&l->session->segment, l->grant.database, &counts);
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
        lease_say_where(l->database, l->session->socket, error);
        if (x->requests > 0)
                strncat(error->text, ran ? "; the command may have run" : "; the command was not sent whole",
                        sizeof(error->text) - strlen(error->text) - 1);
        error_may_have_run(error, ran);
}

int lease_exchange(struct lessor_lease *l, struct exchange *x, lessor_error *error) {
        uint32_t errors;
        int r;

        for (size_t i = 0; i < x->requests; i++) {
                const char *name;
                size_t len;
                exchange_request(x, i, &name, &len);
                lease_trail(l, name, len);
        }
        x->timeout_ns = l->timeout_ns;
        x->now = clock_now();
        r = stream_exchange(&l->stream, x);
        errors = lease_judge(l, x);
        lease_count(l, x, errors, r);
        /* A read that timed out has lost nothing: what came so far is still in the buffer. */
        if (r != 0 && !(r == LESSOR_E_REPLY_TIMEOUT && x->requests == 0))
                l->broken = r;
        if (r == 0 && x->written < x->size) /* answered before it was sent whole: the rest must never follow */
                l->broken = LESSOR_E_PROTOCOL;
        if (r != 0) {
                lease_report_failure(l, x, r);
                lease_say_failure(l, x, r, error);
        }
        return r;
}

redisReply *lease_command(struct lessor_lease *l, const char *data, size_t size, lessor_error *error) {
        redisReply *reply = NULL;
        struct exchange x = {.out = data, .size = size, .ends = &size, .requests = 1, .replies = &reply, .expected = 1};

        return lease_exchange(l, &x, error) == 0 ? reply : NULL;
}

/* "file.c:123". By hand: snprintf() would be a noticeable part of a lease's time. */
static void lease_site(char site[LESSOR_SITE_SIZE], const char *file, int line) {
        char digits[12];
        size_t length = 0, n = 0;
        const char *base = strrchr(file, '/');

        base = base ? base + 1 : file;
        while (base[length] && length < LESSOR_SITE_SIZE - sizeof(digits) - 2)
                length++;
        memcpy(site, base, length);
        site[length++] = ':';
        for (unsigned left = line > 0 ? (unsigned)line : 0; n == 0 || left > 0; left /= 10)
                digits[n++] = (char)('0' + left % 10);
        while (n > 0)
                site[length++] = digits[--n];
        site[length] = '\0';
}

lessor_lease *lessor_acquire_at(lessor_db *db, int wait_ms, const char *file, int line, lessor_error *error) {
        NO_CANCEL;
        char site[LESSOR_SITE_SIZE] = "";
        lessor_error local;
        lessor_lease *l;

        error_clear(error);
        if (!error)
                error = &local;
        if (!db || wait_ms < LESSOR_WAIT_CONFIGURED) {
                error_argument(error, "lessor_acquire", !db ? "db" : "wait_ms", !db ? "is NULL" : "is negative");
                return NULL;
        }
        if (file)
                lease_site(site, file, line);
        l = malloc(sizeof(*l));
        if (!l) {
                error_set(error, -ENOMEM, "out of memory");
                return NULL;
        }
        if (lease_init(l, db, wait_ms, site, error) != 0) {
                free(l);
                return NULL;
        }
        return l;
}

void lessor_release(lessor_lease *l) {
        NO_CANCEL;

        if (!l)
                return;
        lease_deinit(l);
        free(l);
}

/* SPDX-License-Identifier: MIT */
/*
 * hiredis owns a redisAsyncContext: it frees it by itself when the connection ends, when its user says redisAsyncFree() or
 * redisAsyncDisconnect(), and, if that is said in a callback, a while later. All of these ways end in ev.cleanup, so
 * there is one place where the lease goes back: ours, which calls the adapter's and takes the fd out of the context.
 *
 * What is between hiredis and the adapter sees every command on its way into the output buffer, and every error of Redis on
 * its way out of the parser. So there is a clean proof, as for the other leases: nothing is under way, no byte is left
 * over, and what was sent leaves nothing behind. Subscriptions are beyond it: their messages come unasked.
 */
#include "async_context.h"

#include <errno.h>
#include <hiredis/sds.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "adopt.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/resp.h"
#include "error.h"
#include "fork.h"

typedef __typeof__(((redisAsyncContext *)NULL)->ev) event_hooks;

struct async_context {
        struct list link;
        struct async_contexts *contexts; /* NULL: forgotten */
        redisAsyncContext *ac;
        struct lessor_lease *lease;
        event_hooks theirs; /* the adapter's; those in the context are ours */
        redisReplyObjectFunctions functions, *usual;
        size_t seen;    /* bytes of the output buffer that were read here */
        bool uncounted; /* what comes cannot be told from what was asked for */
        bool stateful;  /* a command was sent that leaves, or ends, something */
        bool refused;   /* a command was answered by an error */
        bool released;  /* by lessor_async_release(), and then: */
        bool even;      /* everything was answered, nothing is left over */
};

/* ---- what passes by ------------------------------------------------------------------------------------------------ */

static bool is_subscription(const char *name, size_t len) {
        static const char end[] = "SUBSCRIBE"; /* PSUBSCRIBE, UNSUBSCRIBE ... */
        size_t n = sizeof(end) - 1;

        return len >= n && strncasecmp(name + len - n, end, n) == 0;
}

static void context_sent(struct async_context *x, const char *name, size_t len) {
        x->stateful = !lease_trail(x->lease, name, len) || x->stateful;
        x->uncounted = x->uncounted || is_subscription(name, len);
        x->lease->stream.requests++;
}

/* Between two calls the buffer has either grown at its end, by whole commands, or shrunk at its beginning. */
static void context_look(struct async_context *x) {
        const char *data = x->ac->c.obuf, *name;
        size_t size = sdslen(x->ac->c.obuf), len, whole;

        for (; x->seen < size; x->seen += whole) {
                whole = resp_command_size(data + x->seen, size - x->seen);
                if (whole == 0 || !resp_command_name(data + x->seen, whole, &name, &len)) {
                        x->uncounted = true; /* redisAsyncFormattedCommand() takes anything */
                        break;
                }
                context_sent(x, name, len);
        }
        x->seen = size;
}

static void *context_string(const redisReadTask *task, char *text, size_t len) {
        struct async_context *x = task->privdata;

        if (task->type == REDIS_REPLY_ERROR && !task->parent) {
                unsigned report = lease_report_kind(text); /* which a CR ends, if nothing else */
                x->refused = true;
                if (report != 0)
                        lease_report(x->lease, report, 0);
        }
        return x->usual->createString(task, text, len);
}

static bool context_is_even(const struct async_context *x) {
        const redisContext *c = &x->ac->c;

        return c->err == 0 && !x->uncounted && !x->ac->replies.head && sdslen(c->obuf) == 0 &&
               adopt_reader_is_empty(c->reader);
}

/* ---- its end ------------------------------------------------------------------------------------------------------- */

/* Everything that is ours in it, taken out. */
static void context_leave(struct async_context *x) {
        redisAsyncContext *ac = x->ac;

        memset(&ac->ev, 0, sizeof(ac->ev));
        ac->c.reader->fn = x->usual;
        ac->c.reader->privdata = NULL;
        adopt_forget_fd(ac);
}

/* What its connection has come to, as far as the lease's release needs to know. */
static void context_judge(struct async_context *x) {
        struct lessor_lease *l = x->lease;
        bool freeing = x->ac->c.flags & REDIS_FREEING;
        int err = x->ac->c.err;

        /* If redisAsyncFree() was said by others, what was under way has been called back already, and is not to be seen. */
        if (!x->released)
                x->even = !freeing && context_is_even(x);
        if (x->even)
                l->stream.replies = l->stream.requests;
        else
                l->broken = err == REDIS_ERR_PROTOCOL ? LESSOR_E_PROTOCOL : LESSOR_E_CONNECTION;
        if (x->stateful && x->refused) /* a DISCARD that was refused ends no transaction */
                l->trail.state = true;
        if (err == REDIS_ERR_IO || err == REDIS_ERR_EOF)
                lease_report(l, LESSOR_REPORT_CONNECTION, 0);
        else if (err == REDIS_ERR_PROTOCOL)
                lease_report(l, LESSOR_REPORT_PROTOCOL, 0);
        l->stream.blocks_ns = 0; /* the socket's flags were ours */
        l->last_used = clock_now();
}

/* In a child the owner may be gone, though nobody has said so. */
static void context_give(struct async_context *x) {
        bool mine = x->lease->epoch == fork_epoch();

        if (mine)
                list_remove(&x->link);
        if (mine && x->contexts)
                x->contexts->give(x->contexts->owner, x->lease);
        else
                lease_give(x->lease);
        free(x);
}

/* ev.cleanup: whatever has ended the context, this is said once. In a child the loop is the parent's. */
static void context_end(void *data) {
        struct async_context *x = data;
        struct lessor_lease *l = x->lease;

        if (l->epoch == fork_epoch()) {
                if (x->theirs.cleanup)
                        x->theirs.cleanup(x->theirs.data);
                context_judge(x);
                guard_set_context(l->guard, NULL, NULL);
        }
        context_leave(x);
        context_give(x);
}

/* ---- its beginning ------------------------------------------------------------------------------------------------- */

#define CONTEXT_HOOK(name)                                                                                             \
        static void context_##name(void *data) {                                                                       \
                struct async_context *x = data;                                                                        \
                context_look(x);                                                                                       \
                x->theirs.name(x->theirs.data);                                                                        \
        }
CONTEXT_HOOK(addRead)
CONTEXT_HOOK(delRead)
CONTEXT_HOOK(addWrite)
CONTEXT_HOOK(delWrite)
#ifdef LESSOR_HIREDIS_USERFD
static void context_scheduleTimer(void *data, struct timeval tv) {
        struct async_context *x = data;
        x->theirs.scheduleTimer(x->theirs.data, tv);
}
#endif

#define CONTEXT_TAKE_HOOK(x, name)                                                                                     \
        if ((x)->theirs.name)                                                                                          \
        (x)->ac->ev.name = context_##name

static void context_enter(struct async_context *x) {
        redisReader *reader = x->ac->c.reader;

        x->theirs = x->ac->ev;
        x->ac->ev.data = x;
        x->ac->ev.cleanup = context_end;
        CONTEXT_TAKE_HOOK(x, addRead);
        CONTEXT_TAKE_HOOK(x, delRead);
        CONTEXT_TAKE_HOOK(x, addWrite);
        CONTEXT_TAKE_HOOK(x, delWrite);
#ifdef LESSOR_HIREDIS_USERFD
        CONTEXT_TAKE_HOOK(x, scheduleTimer);
#endif
        x->usual = reader->fn;
        x->functions = *reader->fn;
        x->functions.createString = context_string;
        reader->fn = &x->functions;
        reader->privdata = x;
}

/* A parked connection may have ended meanwhile, or say what nobody asked for. */
static bool is_quiet(int fd) {
        char byte;
        return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EINTR);
}

static redisAsyncContext *context_free(redisAsyncContext *ac) {
        if (ac) {
                memset(&ac->ev, 0, sizeof(ac->ev)); /* of an adapter that has failed half-way */
                adopt_forget_fd(ac);
                redisAsyncFree(ac);
        }
        return NULL;
}

int async_context_new(struct async_contexts *contexts, struct lessor_lease *l, redisAsyncContext **ret,
                      lessor_error *error) {
        struct async_context *x;
        redisAsyncContext *ac = NULL;
        int r;

        if (!is_quiet(l->stream.fd))
                return error_set(error, LESSOR_E_CONNECTION, "the connection has ended");
        x = calloc(1, sizeof(*x));
        r = x ? adopt_fd(l->stream.fd, &ac) : -ENOMEM;
        if (r == 0 && contexts->attach(contexts->attach_data, ac) != REDIS_OK)
                r = -EIO;
        if (r < 0) {
                context_free(ac);
                free(x);
                return error_set(error, r, "%s",
                                 r == -EIO ? "the event loop did not take the connection" : lessor_outcome_text(r));
        }
        *x = (struct async_context){.contexts = contexts, .ac = ac, .lease = l};
        list_push_back(&contexts->list, &x->link);
        context_enter(x);
        l->touched = true;
        guard_set_context(l->guard, NULL, &ac->c);
        /* Not every adapter begins by itself: its end is to be seen before anything was sent, too. */
        if (ac->ev.addRead)
                ac->ev.addRead(ac->ev.data);
        *ret = ac;
        return 0;
}

void async_contexts_forget(struct async_contexts *contexts) {
        list_for_each_safe (&contexts->list, it, next) {
                container_of(it, struct async_context, link)->contexts = NULL;
                list_remove(it);
        }
}

/* ---- giving it back ------------------------------------------------------------------------------------------------ */

/* In a child, where it is the parent's: memory, and no callback. */
static void context_abandon(struct async_context *x) {
        redisAsyncContext *ac = x->ac;
        bool silent = adopt_silence(ac);

        context_end(x);
        if (silent)
                redisAsyncFree(ac);
}

void lessor_async_release(redisAsyncContext *ac) {
        struct async_context *x = ac && ac->ev.cleanup == context_end ? ac->ev.data : NULL;

        if (!x || x->released)
                return;
        x->released = true;
        if (x->lease->epoch != fork_epoch()) {
                context_abandon(x);
                return;
        }
        x->even = context_is_even(x);
        redisAsyncFree(ac); /* now, or when the callback that we are in returns */
}

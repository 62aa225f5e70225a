/* SPDX-License-Identifier: MIT */
/*
 * What orders on the administration socket mean. On the control thread an order becomes an errand, a letter that travels
 * to the data thread it concerns (or, for a session, from one to the next until somebody has it) and comes back with the
 * answer. The call itself never leaves the control thread: it may have been answered as late meanwhile.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/request.h"
#include "base/cleanup.h"
#include "broker_internal.h"
#include "log.h"

struct errand {
        struct letter letter;
        struct broker *broker;
        struct admin_call *call; /* the control thread's */
        struct database *database;
        unsigned thread;
        struct lessor_admin_request request;
        struct ucred who;
        struct lessor_admin_answer answer;
};

/* ---- there and back ------------------------------------------------------------------------------------------------ */

static void open_home(struct letter *letter) {
        struct errand *e = container_of(letter, struct errand, letter);
        e->call->answer = e->answer;
        admin_done(e->call);
        free(e);
}

static void go_home(struct errand *e) { mailbox_post(&e->broker->control_loop.inbox, &e->letter, open_home); }

/* Letters that nobody opened are opened at the end, when the threads are no more. */
static bool has_stopped(struct errand *e, struct loop *loop) {
        if (!container_of(loop, struct session_set, loop)->ended)
                return false;
        e->answer.outcome = LESSOR_ADMIN_STOPPING;
        snprintf(e->answer.text, sizeof(e->answer.text), "the broker is stopping");
        go_home(e);
        return true;
}

static struct errand *errand_new(struct broker *b, struct admin_call *call) {
        struct errand *e = calloc(1, sizeof(*e));
        if (!e) {
                admin_say(call, LESSOR_ADMIN_BUSY, "the broker is out of memory");
                admin_done(call);
                return NULL;
        }
        e->broker = b;
        e->call = call;
        e->request = call->request;
        e->who = call->who;
        return e;
}

/* ---- a database ---------------------------------------------------------------------------------------------------- */

static void open_at_database(struct letter *letter) {
        struct errand *e = container_of(letter, struct errand, letter);
        if (has_stopped(e, database_loop(e->database)))
                return;
        database_administer(e->database, &e->request, &e->who, &e->answer);
        go_home(e);
}

static void order_database(struct broker *b, struct admin_call *call) {
        char known[LESSOR_TEXT_SIZE];
        rcu_read_lock();
        struct database *db = directory_find(&b->directory, call->request.database);
        if (!db)
                directory_list(&b->directory, known, sizeof(known));
        rcu_read_unlock();
        if (!db) {
                admin_say(call, LESSOR_ADMIN_NO_SUCH, "no database `%s`; known are %s", call->request.database, known);
                admin_done(call);
                return;
        }
        struct errand *e = errand_new(b, call);
        if (!e)
                return;
        e->database = db; /* databases live as long as the broker */
        mailbox_post(&database_loop(db)->inbox, &e->letter, open_at_database);
}

/* ---- sessions ------------------------------------------------------------------------------------------------------ */

static void tell_of_session(struct errand *e, pid_t pid) {
        struct lessor_admin_answer *a = &e->answer;
        bool by_pid = e->request.flags & LESSOR_ADMIN_BY_PID;
        a->outcome = a->concerned ? LESSOR_ADMIN_DONE : LESSOR_ADMIN_NO_SUCH;
        if (!a->concerned)
                snprintf(a->text, sizeof(a->text), "no session %s %" PRIu64 " (any more)", by_pid ? "of pid" : "number",
                         e->request.number);
        else if (!by_pid)
                snprintf(a->text, sizeof(a->text),
                         "session %" PRIu64 ", of pid %d, was ended; what it held comes back now", e->request.number,
                         (int)pid);
        else
                snprintf(a->text, sizeof(a->text),
                         "%" PRIu64 " session%s of pid %d ended; what was held comes back now", a->concerned,
                         a->concerned == 1 ? "" : "s", (int)pid);
}

/* A session's number is on one thread; a process may have sessions on several. */
static void open_at_sessions(struct letter *letter) {
        struct errand *e = container_of(letter, struct errand, letter);
        struct session_set *set = &e->broker->threads[e->thread];
        bool by_pid = e->request.flags & LESSOR_ADMIN_BY_PID;
        pid_t pid = 0;
        if (has_stopped(e, &set->loop))
                return;
        e->answer.concerned +=
                session_kill(set, by_pid ? 0 : e->request.number, by_pid ? (pid_t)e->request.number : 0, &pid);
        if (++e->thread < e->broker->config->threads && (by_pid || !e->answer.concerned)) {
                mailbox_post(&e->broker->threads[e->thread].loop.inbox, &e->letter, open_at_sessions);
                return;
        }
        tell_of_session(e, by_pid ? (pid_t)e->request.number : pid);
        go_home(e);
}

static void order_session(struct broker *b, struct admin_call *call) {
        struct errand *e = errand_new(b, call);
        if (e)
                mailbox_post(&b->threads[0].loop.inbox, &e->letter, open_at_sessions);
}

/* ---- the broker ---------------------------------------------------------------------------------------------------- */

/* An order to reload is answered by the end of a reload that began after it came. */
static void order_reload(struct broker *b, struct admin_call *call) {
        list_remove(&call->link);
        list_push_back(&b->reloads_wanted, &call->link);
        control_want_reload(b->control);
}

static void move_all(struct list *from, struct list *to) {
        list_for_each_safe (from, it, next) {
                list_remove(it);
                list_push_back(to, it);
        }
}

static void answer_reloads(struct broker *b, bool well, const char *why) {
        list_for_each_safe (&b->reloads_begun, it, next) {
                struct admin_call *call = container_of(it, struct admin_call, link);
                if (well)
                        admin_say(call, LESSOR_ADMIN_DONE, "reloaded");
                else
                        admin_say(call, LESSOR_ADMIN_REFUSED, "%s", why);
                admin_done(call);
        }
}

void administer_reloaded(struct broker *b, bool well) {
        control_reloaded(b->control, well);
        if (!b->reload_begins)
                answer_reloads(b, well, "not taken over by every database: the log says why");
}

bool administer_reload(void *userdata) {
        struct broker *b = userdata;
        char errors[LESSOR_ADMIN_TEXT_SIZE];
        if (b->reload)
                return false;
        move_all(&b->reloads_wanted, &b->reloads_begun);
        log_tap(errors, sizeof(errors));
        b->reload_begins = true;
        (void)reload_begin(b);
        b->reload_begins = false;
        log_tap_end();
        if (!b->reload) /* it has failed already */
                answer_reloads(b, false, errors);
        return true;
}

static void order_log_level(struct admin_call *call) {
        enum log_level before = log_level_now(), level;
        if (!log_level_parse(call->request.why, &level)) {
                admin_say(call, LESSOR_ADMIN_INVALID, "no log level `%s`: debug, info, warn or error",
                          call->request.why);
        } else {
                log_set_level(level);
                admin_say(call, LESSOR_ADMIN_DONE, "the log level is %s (it was %s) until the next reload",
                          log_level_text(level), log_level_text(before));
        }
        admin_done(call);
}

static void order_shutdown(struct broker *b, struct admin_call *call) {
        bool cut = call->request.flags & LESSOR_ADMIN_CUT,
             ends = !b->control; /* at the very end nothing is to be cut */
        const char *leases = ends                             ? ""
                             : cut || control_cut(b->control) ? "; held leases are cut"
                                                              : "; held leases go on";
        admin_say(call, LESSOR_ADMIN_DONE, "%s%s", b->stopping ? "it is stopping already" : "stopping", leases);
        call->answer.concerned = atomic_load_explicit(&b->host.attached, memory_order_relaxed);
        admin_stop(b->admin); /* the next order may be read before the loop ends */
        admin_done(call);
        if (!ends)
                control_stop(b->control, cut);
}

/* ---- the socket ---------------------------------------------------------------------------------------------------- */

static void on_order(void *userdata, struct admin_call *call) {
        struct broker *b = userdata;
        switch ((enum lessor_admin_command)call->request.command) {
        case LESSOR_ADMIN_PAUSE:
        case LESSOR_ADMIN_RESUME:
        case LESSOR_ADMIN_DRAIN:
        case LESSOR_ADMIN_RECONNECT:
        case LESSOR_ADMIN_BREAKER_OPEN:
        case LESSOR_ADMIN_BREAKER_CLOSE:
        case LESSOR_ADMIN_BREAKER_RESET:
        case LESSOR_ADMIN_KILL_LEASE:
                order_database(b, call);
                break;
        case LESSOR_ADMIN_KILL_SESSION:
                order_session(b, call);
                break;
        case LESSOR_ADMIN_RELOAD:
                order_reload(b, call);
                break;
        case LESSOR_ADMIN_LOG_LEVEL:
                order_log_level(call);
                break;
        case LESSOR_ADMIN_SHUTDOWN:
                order_shutdown(b, call);
                break;
        }
}

static void on_answered(void *userdata, const struct admin_call *call) {
        const struct lessor_admin_request *r = &call->request;
        log_line(call->answer.outcome == LESSOR_ADMIN_DONE ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING,
                 "admin: %s%s%s uid=%d pid=%d outcome=%u text=%s", admin_command_name(r->command),
                 r->database[0] ? " db=" : "", r->database, (int)call->who.uid, (int)call->who.pid,
                 call->answer.outcome, LOG_QUOTE(call->answer.text));
}

void administer_end(struct broker *b) {
        move_all(&b->reloads_wanted, &b->reloads_begun);
        list_for_each_safe (&b->reloads_begun, it, next) {
                struct admin_call *call = container_of(it, struct admin_call, link);
                admin_say(call, LESSOR_ADMIN_STOPPING, "the broker has stopped before it was done");
                admin_done(call);
        }
        admin_free(b->admin);
}

void administer_start(struct broker *b) {
        static const struct admin_ops ops = {.order = on_order, .answered = on_answered};
        char path[sizeof(LESSOR_ADMIN_PATH) + LESSOR_NAME_SIZE];
        struct admin_options options = {.base = b->control_loop.base, .path = path, .ops = &ops, .userdata = b};
        snprintf(path, sizeof(path), LESSOR_ADMIN_PATH, b->config->instance);
        int r = admin_new(&options, &b->admin);
        if (r < 0)
                log_error("admin: no orders are taken, signals apart: %s: %s", path,
                          r == -EEXIST ? "it is not a socket of ours: remove it and start again" : strerror(-r));
}

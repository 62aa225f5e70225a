/* SPDX-License-Identifier: MIT */
/*
 * The choice is the broker's, who alone sees how many want something: it stands in the control page, and changes. What
 * cannot go by lane (a class, a size, no room now, no lane as yet) goes by lease without further ado, and so does what
 * came back and surely was never sent.
 *
 * Three times end a call by lane. Until the caller's deadline the broker may send it. If it has not even taken it some time
 * after that, it hangs: the call is taken back, and was never sent. If it has, it answers for the reply's time itself;
 * a while after that the caller leaves, and says that it may have run.
 */
#include "call.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/resp.h"
#include "error.h"
#include "lane.h"
#include "warm.h"

enum { CALLS_SMALL = 8 }; /* on the stack */
enum { TRIES = 3 };       /* sessions tried, when one after the other is over before anything was sent */

_Thread_local bool call_order_matters __attribute__((tls_model("initial-exec")));

/* ---- the way ----------------------------------------------------------------------------------------------------- */

static uint64_t attach_deadline(uint64_t now, int wait_ms) {
        uint64_t wait = wait_ms > 0 ? (uint64_t)wait_ms * NS_PER_MS : 0;
        return time_after(now, wait_ms < 0 || wait + SLACK_NS > ATTACH_NS ? ATTACH_NS : wait + SLACK_NS);
}

/* The session's set of this database, made at the first use. */
static int set_of(struct lessor_db *db, struct session *s, struct warm_set **ret, lessor_error *error) {
        const struct lessor_control_database *control;
        struct warm_set *set;
        uint32_t database;
        int r = client_place(s, db, &database, &control, error);

        if (r != 0)
                return r;
        set = warm_set_for(db, s, database, control);
        if (!set)
                return error_set(error, -ENOMEM, "out of memory");
        *ret = set;
        return 0;
}

static int find_set(struct lessor_db *db, uint64_t deadline, struct warm_set **ret, lessor_error *error) {
        struct session *s;
        int r = client_session(db->client, deadline, &s, error);

        if (r != 0)
                return r;
        r = set_of(db, s, ret, error);
        session_unref(s);
        return r;
}

static bool is_advised(const struct lessor_control_database *control, bool direct) {
        uint32_t path = __atomic_load_n(&control->path, __ATOMIC_RELAXED);
        return path == LESSOR_PATH_LANE || (direct && path == LESSOR_PATH_DIRECT);
}

/* All of the way but the lane. */
static int way_of(const struct lessor_db *db, const struct warm_set *set, bool direct, struct lane_way *ret,
                  lessor_error *error) {
        int r;

        if (session_over(set->session) || !is_advised(set->control, direct))
                return error_set(error, LESSOR_E_NEEDS_LEASE, "database `%s`: commands go by lease", db->name);
        r = control_refusal(set->control, error);
        if (r == 0)
                *ret = (struct lane_way){
                        .session = set->session, .control = set->control, .name = set->name, .database = set->database};
        return r;
}

int call_find_way(struct lessor_db *db, uint64_t deadline, bool direct, bool wait, struct lane_way *ret,
                  lessor_error *error) {
        struct warm_set *set = warm_current(db);
        int r = 0;

        if (!set || session_over(set->session))
                r = find_set(db, deadline, &set, error);
        if (r == 0)
                r = way_of(db, set, direct, ret, error);
        return r == 0 ? lane_get(set->session, set->control->thread, deadline, wait, &ret->lane, error) : r;
}

int call_find_way_now(struct lessor_db *db, struct session *s, struct lane_way *ret, lessor_error *error) {
        struct warm_set *set;
        int r = set_of(db, s, &set, error);

        if (r == 0)
                r = way_of(db, set, false, ret, error);
        return r == 0 ? lane_get_now(s, set->control->thread, &ret->lane, error) : r;
}

/* ---- a run: the calls of one thread, which waits for all of them ----------------------------------------------------- */

struct limits {
        uint64_t send_by;  /* the broker's; then */
        uint64_t take_by;  /* it is taken back if it can be */
        uint64_t leave_at; /* in any case */
};

struct run {
        struct lane_party party;
        struct lane_way way;
        struct limits limits;
        struct lane_waiter waiter;
        struct lane_call *calls;
        size_t n;
};

static void run_done(struct lane_call *call) {
        struct run *run = container_of(call->party, struct run, party);
        lane_waiter_done(run->way.lane, &run->waiter);
}

/* To be read from the session's socket, by the thread that runs it: it has nothing else to do. */
static void run_comes_apart(struct lane_call *call) {
        call->fetching = true;
        run_done(call);
}

/* Lane lock held. False: there is no room for all of them. */
static bool run_submit(struct run *run, const struct exchange *x) {
        struct lane_client *l = run->way.lane;

        if (l->over || l->n_free < run->n || !lane_has_room(&l->worker, x->ends, run->n))
                return false;
        for (size_t i = 0; i < run->n; i++) {
                size_t start = i > 0 ? x->ends[i - 1] : 0;
                struct lane_call *call = &run->calls[i];
                call->party = &run->party;
                call->database = run->way.database;
                call->tid = 0;
                call->linked = i > 0;
                if (lane_client_submit(l, call, run->limits.send_by, x->out + start, x->ends[i] - start) ==
                    LANE_SUBMIT_DONE)
                        run->waiter.left++;
                else /* it was said that there is room */
                        call->outcome = LESSOR_E_EXHAUSTED;
        }
        return true;
}

/* Lane lock held. */
static void run_take_back(struct run *run) {
        for (size_t i = 0; i < run->n; i++) {
                struct lane_call *call = &run->calls[i];
                if (!call->under_way || call->fetching || !lane_take_back(run->way.lane, call))
                        continue;
                call->outcome = LESSOR_E_UNAVAILABLE;
                run->waiter.left--;
        }
}

static void run_abandon(struct run *run) {
        for (size_t i = 0; i < run->n; i++) {
                struct lane_call *call = &run->calls[i];
                if (!call->under_way || call->fetching)
                        continue;
                lane_abandon(run->way.lane, call);
                call->outcome = LESSOR_E_REPLY_TIMEOUT;
                call->may_have_run = true;
        }
}

/* Lane lock held, and given back. */
static void run_await(struct run *run) {
        struct lane_client *l = run->way.lane;

        if (lane_await(l, &run->waiter, run->limits.take_by))
                return;
        run_take_back(run);
        if (!lane_await(l, &run->waiter, run->limits.leave_at)) {
                run_abandon(run);
                lane_leave(l);
        }
}

/* False: there was no room, and nothing was sent. */
static bool run_calls(struct run *run, const struct exchange *x) {
        struct lane_client *l = run->way.lane;

        lane_waiter_init(&run->waiter, 0);
        lane_enter(l);
        if (!run_submit(run, x)) {
                lane_leave(l);
                return false;
        }
        if (lane_is_heard(l)) {
                lane_leave(l);
                lane_ring(l);
                lane_enter(l);
        }
        run_await(run);
        for (size_t i = 0; i < run->n; i++) {
                if (run->calls[i].fetching)
                        lane_fetch(l, &run->calls[i], run->limits.leave_at);
                lane_call_unfold(&run->calls[i]);
        }
        return true;
}

/* ---- what came of it --------------------------------------------------------------------------------------------- */

enum ran {
        RAN,           /* every reply is there */
        RAN_FAILED,    /* *error says why */
        RAN_ELSEWHERE, /* nothing was sent: by lease, please */
        RAN_OVER,      /* likewise, for the session is over: there may be another one */
        RAN_PARTLY,    /* x->got replies are there, what follows was not sent: by lease, please */
};

static const char *call_text(const struct lane_call *call) {
        if (call->text)
                return call->text;
        switch (call->outcome) {
        case LESSOR_E_UNAVAILABLE:
                return "the broker did not take the command in time: it hangs, is stopped, or the host is overloaded";
        case LESSOR_E_REPLY_TIMEOUT:
                return "no reply in time";
        case LESSOR_E_PROTOCOL:
                return "the server sent what is not RESP2";
        case -EMFILE:
                return "no fd free for a large reply: raise RLIMIT_NOFILE";
        default:
                return lessor_outcome_text(call->outcome);
        }
}

void call_say(const struct lane_way *way, const struct lane_call *call, lessor_error *error) {
        if (!error)
                return;
        error_set(error, call->outcome, "%s", call_text(call));
        lease_say_where(way->name, way->session->socket, error);
        if (!strstr(error->text, "may have run") && !strstr(error->text, "not sent"))
                strncat(error->text, call->may_have_run ? "; the command may have run" : "; the command was not sent",
                        sizeof(error->text) - strlen(error->text) - 1);
        error_may_have_run(error, call->may_have_run);
}

/* The first n of them. */
static void run_count(const struct run *run, size_t n, uint64_t began) {
        struct outcome_counts counts = {0};
        uint64_t now = clock_now();

        for (size_t i = 0; i < n; i++) {
                const struct lane_call *call = &run->calls[i];
                bool ok = call->outcome == 0 && call->reply->type != REDIS_REPLY_ERROR;
                counts.ok += ok;
                counts.failed += !ok;
                counts.timeouts += call->outcome == LESSOR_E_REPLY_TIMEOUT;
                if (call->outcome == 0)
                        counts.call_ns = now > began ? now - began : 1;
        }
        segment_count(&run->way.session->segment, run->way.database, &counts);
}

/* How many, from the first on, were answered; and whether all that follow were not sent, and may go another way. */
static size_t run_answered(const struct run *run, bool *ret_rest_unsent) {
        size_t n = 0;

        while (n < run->n && run->calls[n].outcome == 0)
                n++;
        *ret_rest_unsent = true;
        for (size_t i = n; i < run->n; i++)
                *ret_rest_unsent = *ret_rest_unsent && call_is_unsent(&run->calls[i]);
        return n;
}

static enum ran run_fail(const struct run *run, const struct lane_call *failed, lessor_error *error) {
        bool may_have_run = false;

        for (size_t i = 0; i < run->n; i++)
                may_have_run = may_have_run || run->calls[i].outcome == 0 || run->calls[i].may_have_run;
        call_say(&run->way, failed, error);
        error_may_have_run(error, may_have_run);
        return RAN_FAILED;
}

/*
 * Errors of Redis are replies; one failure of ours is the whole run's. Where the broker says that one needs a lease it says so of
 * all that follow, too (LANE_LINKED): so the order is kept when these go by lease.
 */
static enum ran run_judge(const struct run *run, struct exchange *x, lessor_error *error) {
        bool rest_unsent;
        size_t n = run_answered(run, &rest_unsent);

        if (n < run->n) {
                const struct lane_call *rest = &run->calls[n];
                if (!rest_unsent || (n > 0 && rest->over)) {
                        run_count(run, run->n, x->now);
                        return run_fail(run, rest, error);
                }
                if (n == 0)
                        return rest->over ? RAN_OVER : RAN_ELSEWHERE;
        }
        run_count(run, n, x->now);
        for (size_t i = 0; i < n; i++)
                x->replies[i] = ptr_steal(&run->calls[i].reply);
        x->got = n;
        return n < run->n ? RAN_PARTLY : RAN;
}

static enum ran run(struct run *run, struct exchange *x, lessor_error *error) {
        struct lane_call small[CALLS_SMALL];
        enum ran ran;

        run->party = (struct lane_party){.done = run_done, .comes_apart = run_comes_apart};
        run->n = x->requests;
        run->calls = run->n <= ARRAY_SIZE(small) ? small : calloc(run->n, sizeof(*run->calls));
        if (!run->calls || !run_calls(run, x)) {
                ran = RAN_ELSEWHERE;
        } else {
                ran = run_judge(run, x, error);
                for (size_t i = 0; i < run->n; i++)
                        lane_call_deinit(&run->calls[i]);
        }
        if (run->calls != small)
                free(run->calls);
        run->calls = NULL;
        return ran;
}

/* ---- the choice -------------------------------------------------------------------------------------------------- */

bool call_goes_by_lane(const struct exchange *x) {
        if (x->requests == 0 || x->requests > LANE_ENTRIES_MAX || x->requests != x->expected)
                return false;
        for (size_t i = 0; i < x->requests; i++) {
                size_t start = i > 0 ? x->ends[i - 1] : 0, len;
                const char *name;
                if (!resp_command_name(x->out + start, x->ends[i] - start, &name, &len) ||
                    !command_goes_by_lane(name, len))
                        return false;
        }
        return true;
}

/*
 * Nothing but loads, when the answer is no: it is asked before each call. Without a broker what is parked serves, as for
 * other leases; as soon as there is one again, lanes do.
 */
static inline bool is_to_be_considered(struct lessor_db *db, const struct request *request) {
        const struct warm_set *set = warm_current(db);
        return !request->pinned &&
               (!set || (is_advised(set->control, false) &&
                         (!session_over(set->session) || lease_may_attach(db->client, clock_now()))));
}

/* `until`: TIME_NEVER, or when the call is over whatever has become of it. RAN_FAILED, too, without a broker. */
static enum ran by_lane(struct lessor_db *db, int wait_ms, uint64_t until, struct exchange *x, lessor_error *error) {
        bool attached_before = warm_current(db) != NULL;
        struct run r = {0};
        uint64_t wait, reply;
        int found;

        if (!call_goes_by_lane(x))
                return RAN_ELSEWHERE;
        x->now = clock_now();
        found = call_find_way(db, attach_deadline(x->now, wait_ms), false, false, &r.way, error);
        if (found == LESSOR_E_UNAVAILABLE && attached_before)
                lease_attach_later(db->client, x->now);
        if (found == LESSOR_E_NEEDS_LEASE || (found == LESSOR_E_UNAVAILABLE && attached_before))
                return RAN_ELSEWHERE;
        if (found != 0 || !r.way.control)
                return RAN_FAILED;
        wait = wait_ms < 0 ? r.way.control->wait_timeout_ns : (uint64_t)wait_ms * NS_PER_MS;
        reply = r.way.control->socket_timeout_ns > 0 ? r.way.control->socket_timeout_ns : TIME_NEVER;
        r.limits.send_by = time_after(x->now, wait);
        r.limits.take_by = time_after(r.limits.send_by, SLACK_NS);
        r.limits.leave_at = time_after(r.limits.take_by, reply);
        if (until != TIME_NEVER)
                r.limits = (struct limits){.send_by = until, .take_by = until, .leave_at = until};
        return run(&r, x, error);
}

/* What is left of it for the next attempt. */
static int remaining_ms(int wait_ms, uint64_t began) {
        uint64_t wait = wait_ms > 0 ? (uint64_t)wait_ms * NS_PER_MS : 0;
        return wait_ms <= 0 || began == 0 ? wait_ms
                                          : (int)(time_left(clock_now(), time_after(began, wait)) / NS_PER_MS);
}

/* What was not sent by lane of a pipe that has begun there. Whatever comes of it, the rest has run. */
static int rest_by_lease(struct lessor_db *db, const struct request *request, struct exchange *x, lessor_error *error) {
        size_t done = x->got, n = x->requests - done, start = x->ends[done - 1];
        size_t *ends = malloc(n * sizeof(*ends));
        struct exchange rest = {.out = x->out + start,
                                .size = x->size - start,
                                .ends = ends,
                                .requests = n,
                                .replies = x->replies + done,
                                .expected = n};
        int r;

        for (size_t i = 0; ends && i < n; i++)
                ends[i] = x->ends[done + i] - start;
        r = ends ? lease_exchange_once(db, request, &rest, error) : error_set(error, -ENOMEM, "out of memory");
        free(ends);
        x->got += rest.got;
        if (r != 0)
                error_may_have_run(error, true);
        return r;
}

int call_exchange_once(struct lessor_db *db, const struct request *request, struct exchange *x, lessor_error *error) {
        struct request again = *request;
        enum ran ran = RAN_OVER;
        uint64_t began = 0;
        int r;

        for (int i = 0; i < TRIES && ran == RAN_OVER && is_to_be_considered(db, request); i++) {
                ran = by_lane(db, again.wait_ms, TIME_NEVER, x, error);
                if (ran == RAN || ran == RAN_FAILED)
                        return ran == RAN ? 0 : error->code;
                began = began > 0 ? began : x->now;
                again.wait_ms = remaining_ms(request->wait_ms, began);
                error_clear(error);
        }
        r = call_order_matters ? call_keep_order(db, again.wait_ms, error) : 0;
        if (r != 0)
                return r;
        return ran == RAN_PARTLY ? rest_by_lease(db, &again, x, error) : lease_exchange_once(db, &again, x, error);
}

/* What another attempt may mend. */
static bool is_broken_off(const lessor_error *e) {
        return e->code == LESSOR_E_CONNECTION || e->code == LESSOR_E_REPLY_TIMEOUT ||
               (e->code == LESSOR_E_UNAVAILABLE && e->may_have_run);
}

int call_exchange_until(struct lessor_db *db, const struct request *request, struct exchange *x, lessor_error *error) {
        uint64_t began = clock_now(), until = time_after(began, (uint64_t)request->wait_ms * NS_PER_MS);
        struct request again = *request;
        bool may_have_run = false;
        int r;

        while (is_to_be_considered(db, request)) {
                enum ran ran = by_lane(db, again.wait_ms, until, x, error);
                if (ran == RAN)
                        return 0;
                if (ran == RAN_ELSEWHERE || (ran == RAN_OVER && clock_now() >= until))
                        break;
                if (ran == RAN_OVER)
                        continue;
                may_have_run = may_have_run || error->may_have_run;
                if (!is_broken_off(error) || clock_now() >= until) {
                        error_may_have_run(error, may_have_run);
                        return error->code;
                }
                again.wait_ms = remaining_ms(request->wait_ms, began);
        }
        again.wait_ms = remaining_ms(request->wait_ms, began);
        error_clear(error);
        r = call_order_matters ? call_keep_order(db, again.wait_ms, error) : 0;
        if (r == 0)
                r = lease_exchange_until(db, &again, x, error);
        if (r != 0)
                error_may_have_run(error, may_have_run || error->may_have_run);
        return r;
}

int call_keep_order(struct lessor_db *db, int wait_ms, lessor_error *error) {
        uint64_t now = clock_now(), wait = wait_ms > 0 ? (uint64_t)wait_ms * NS_PER_MS : 0;

        for (struct warm_set *set = warm_current(db); set && set->epoch == fork_epoch(); set = set->older) {
                struct lane_client *l = lane_find(set->session, set->control->thread);
                if (wait_ms < 0)
                        wait = set->control->wait_timeout_ns;
                if (!l || lane_await_order(l, set->database, warm_thread_id(), time_after(now, wait)))
                        continue;
                return error_set(error, LESSOR_E_TIMEOUT,
                                 "database `%s`: what this thread has submitted before was not done in time", db->name);
        }
        return 0;
}

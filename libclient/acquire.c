/* SPDX-License-Identifier: MIT */
/*
 * Taking a lease and giving it back. Warm, when a parked connection is at hand and nobody else is waiting for it: a
 * compare-and-swap each way. Else cold: the broker is asked, and told.
 *
 * When the broker has died, what is parked stays usable; a new broker is looked for now and then, and as soon as there is
 * one, its connections are used, and the old ones end with their leases.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "call.h"
#include "error.h"
#include "lease.h"
#include "step.h"
#include "warm.h"

enum { TRIES = 3 }; /* sessions or grants tried, when one after the other is found over before anything was sent */

/* Dead connections that one command is ready to meet: after a restart of Redis all that were parked are. */
enum { DEAD_MAX = 64 };

/* How long those who can do with what is parked wait before they look for a new broker again, with as much jitter. */
#define REATTACH_NS (50 * NS_PER_MS)

struct wish {
        struct lessor_db *db;
        int wait_ms;
        bool pinned;
        uint64_t now;
        uint64_t deadline; /* of wait_ms; meaningless when the configured wait applies */
        struct site site;
};

/* ---- warm ---------------------------------------------------------------------------------------------------------- */

/* Without a broker, or before it is worth looking for one again: what is parked serves. */
static struct lessor_lease *take_without_broker(struct lessor_db *db, struct site site) {
        struct warm_set *set = warm_current(db);
        return set && session_over(set->session) ? warm_take(set, site) : NULL;
}

bool lease_may_attach(struct lessor *client, uint64_t now) {
        return now >= atomic_load_explicit(&client->next_attach, memory_order_relaxed);
}

void lease_attach_later(struct lessor *client, uint64_t now) {
        uint64_t jitter = (now ^ (uint64_t)warm_thread_id() * UINT64_C(0x9e3779b97f4a7c15)) % REATTACH_NS;
        atomic_store_explicit(&client->next_attach, now + REATTACH_NS + jitter, memory_order_relaxed);
}

/* ---- cold ---------------------------------------------------------------------------------------------------------- */

static enum ask ask_broker(const struct wish *w, struct session *s, struct warm_set *set,
                           const struct lessor_control_database *d, struct lessor_lease **ret, lessor_error *error) {
        struct lessor_msg_lease m = {.database = set->database, .tid = warm_thread_id()};
        uint64_t now = clock_now(), wait;
        enum ask result;

        wait = w->wait_ms < 0 ? d->wait_timeout_ns : time_left(now, w->deadline);
        m.flags = w->pinned && d->max_pinned > 0 ? LESSOR_LEASE_PINNED : 0;
        m.wait_ns = w->wait_ms < 0 ? LESSOR_WAIT_DEFAULT : wait;
        site_text(w->site, m.site);
        result = session_lease(s, &m, time_after(now, time_after(wait, SLACK_NS)), set, ret, error);
        if (result == ASK_GRANTED && !warm_accept(*ret, w->site)) {
                warm_give_back(*ret, true); /* not used: the broker has cut it off already */
                error_set(error, LESSOR_E_CONNECTION, "the broker took the connection back at once");
                return ASK_UNSENT;
        }
        if (result == ASK_GRANTED)
                STEP("accepted");
        if (result == ASK_GRANTED)
                (*ret)->pinned = m.flags & LESSOR_LEASE_PINNED;
        return result;
}

/* On this session: what another thread has parked meanwhile, or what the broker grants. */
static enum ask take_from(const struct wish *w, struct session *s, struct lessor_lease **ret, lessor_error *error) {
        const struct lessor_control_database *d;
        struct warm_set *set;
        uint32_t database;
        enum ask result;

        if (client_place(s, w->db, &database, &d, error) != 0 || control_refusal(d, error) != 0)
                return ASK_REFUSED;
        set = warm_set_for(w->db, s, database, d);
        if (!set) {
                error_set(error, -ENOMEM, "out of memory");
                return ASK_FAILED;
        }
        if (!w->pinned || d->max_pinned == 0) {
                *ret = warm_take(set, w->site);
                if (*ret)
                        return ASK_GRANTED;
        }
        result = ask_broker(w, s, set, d, ret, error);
        if (result != ASK_GRANTED)
                lease_say_where(w->db->name, s->socket, error);
        return result;
}

static int take_cold(const struct wish *w, struct lessor_lease **ret, lessor_error *error) {
        uint64_t wait = w->wait_ms > 0 ? (uint64_t)w->wait_ms * NS_PER_MS : 0;
        uint64_t attach = w->wait_ms < 0 || wait + SLACK_NS > ATTACH_NS ? ATTACH_NS : wait + SLACK_NS;
        enum ask result = ASK_UNSENT;

        /* A restarted broker is noticed by the first message to it: nothing was asked yet, so ask the new one. */
        for (int i = 0; i < TRIES && result == ASK_UNSENT; i++) {
                struct session *s;
                int r = client_session(w->db->client, time_after(w->now, attach), &s, error);
                if (r != 0)
                        return r;
                result = take_from(w, s, ret, error);
                session_unref(s);
        }
        return result == ASK_GRANTED ? 0 : error->code;
}

static int take_slowly(const struct wish *w, struct lessor_lease **ret, lessor_error *error) {
        NO_CANCEL;
        struct warm_set *set = warm_current(w->db);
        int r;

        if (set && !warm_is_quiet(&set->session->attention) && !session_over(set->session))
                session_look(set->session);
        if (!lease_may_attach(w->db->client, w->now) && (*ret = take_without_broker(w->db, w->site)))
                return 0;
        r = take_cold(w, ret, error);
        /* Not when there is one, and it says no. */
        if (r != LESSOR_E_UNAVAILABLE || !(*ret = take_without_broker(w->db, w->site)))
                return r;
        lease_attach_later(w->db->client, w->now);
        error_clear(error);
        return 0;
}

/* By the breaker, as the broker has written it down for all: nobody is asked. */
static inline bool is_refused(struct lessor_db *db, lessor_error *error) {
        struct warm_set *set = warm_current(db);
        return set && !session_over(set->session) && control_refusal(set->control, error) != 0;
}

static int take(struct lessor_db *db, const struct request *r, struct lessor_lease **ret, lessor_error *error) {
        struct warm_set *set = warm_current(db);
        uint64_t now, wait = r->wait_ms > 0 ? (uint64_t)r->wait_ms * NS_PER_MS : 0;
        struct wish wish = {.db = db, .wait_ms = r->wait_ms, .pinned = r->pinned, .site = r->site};

        if (set && !r->pinned && warm_is_quiet(&set->session->attention) && (*ret = warm_take(set, r->site)))
                return 0;
        now = clock_now();
        wish.now = now;
        wish.deadline = now + wait;
        return take_slowly(&wish, ret, error);
}

int lease_take(struct lessor_db *db, const struct request *request, struct lessor_lease **ret, lessor_error *error) {
        *ret = request->pinned ? NULL : warm_take_last(db, request->site);
        if (*ret)
                return 0;
        return is_refused(db, error) ? error->code : take(db, request, ret, error);
}

/* The session is looked at after it is parked: who holds nothing and waits for nothing does not come again. */
static bool park_and_look(struct lessor_lease *l) {
        struct session *s = session_keep(l->set->session);
        bool parked = warm_park(l);

        session_look(s);
        session_drop(s);
        return parked;
}

static __attribute__((noinline)) void give_slowly(struct lessor_lease *l, bool clean) {
        NO_CANCEL;
        int keep = errno;
        bool look = l->epoch == fork_epoch() && !warm_is_quiet(l->attention);

        if (!look || !clean || !l->slot || l->pinned || !park_and_look(l)) {
                if (look)
                        session_look(l->set->session);
                warm_give_back(l, clean);
        }
        errno = keep;
}

/* As it was taken: what the last holder has set for himself ends with his lease. */
static void restore(struct lessor_lease *l) {
        l->timeout_ns = l->socket_timeout_ns;
        l->touched = false;
}

static __attribute__((noinline)) void give_touched(struct lessor_lease *l) {
        bool clean = l->epoch == fork_epoch() && lease_clean(l);

        if (clean)
                restore(l);
        if (!clean || !l->slot || l->pinned || !warm_is_quiet(l->attention) || !warm_park(l))
                give_slowly(l, clean);
}

static inline void give(struct lessor_lease *l) {
        if (__builtin_expect(l->touched | l->pinned, 0))
                give_touched(l);
        else if (l->epoch != fork_epoch() || !l->slot || !warm_is_quiet(l->attention) || !warm_park(l))
                give_slowly(l, true);
}

void lease_give(struct lessor_lease *l) { give(l); }

/* As x was before the exchange that came to nothing: not a byte of it was sent. */
static bool is_unsent(const struct exchange *x, int r) {
        return (r == LESSOR_E_CONNECTION || r == LESSOR_E_PROTOCOL) && x->written == 0 && x->got == 0;
}

static int remaining_ms(int wait_ms, uint64_t deadline) {
        return wait_ms <= 0 || deadline == 0 ? wait_ms : (int)(time_left(clock_now(), deadline) / NS_PER_MS);
}

int lease_exchange_once(struct lessor_db *db, const struct request *request, struct exchange *x, lessor_error *error) {
        struct request again = *request;
        uint64_t deadline = 0;
        int r = LESSOR_E_CONNECTION;

        for (unsigned i = 0; i < DEAD_MAX; i++) {
                struct lessor_lease *lease = NULL;
                int taken = lease_take(db, &again, &lease, error);
                if (taken != 0 || !lease)
                        return taken;
                r = lease_exchange(lease, x, error);
                lease_give(lease);
                if (!is_unsent(x, r))
                        return r;
                if (i == 0)
                        deadline = x->now + (request->wait_ms > 0 ? (uint64_t)request->wait_ms * NS_PER_MS : 0);
                again.wait_ms = remaining_ms(request->wait_ms, deadline);
        }
        return r;
}

/* What another connection may mend. */
static bool is_broken_off(int r) { return r == LESSOR_E_CONNECTION || r == LESSOR_E_REPLY_TIMEOUT; }

int lease_exchange_until(struct lessor_db *db, const struct request *request, struct exchange *x, lessor_error *error) {
        uint64_t deadline = time_after(clock_now(), (uint64_t)request->wait_ms * NS_PER_MS), left;
        struct request again = *request;
        bool may_have_run = false;
        int r;

        do {
                struct lessor_lease *lease = NULL;
                again.wait_ms = remaining_ms(request->wait_ms, deadline);
                r = lease_take(db, &again, &lease, error);
                if (r != 0 || !lease)
                        break;
                left = time_left(clock_now(), deadline);
                lease->touched = true; /* the timeout is this call's */
                lease->timeout_ns = left < lease->timeout_ns ? left : lease->timeout_ns;
                x->written = x->whole = x->got = 0;
                r = lease_exchange(lease, x, error);
                lease_give(lease);
                may_have_run = may_have_run || x->whole > 0;
        } while (is_broken_off(r) && time_left(clock_now(), deadline) > 0);
        if (r != 0)
                error_may_have_run(error, may_have_run);
        return r;
}

static __attribute__((noinline)) lessor_lease *acquire_slowly(lessor_db *db, const struct request *request,
                                                              lessor_error *error) {
        lessor_error local;
        lessor_lease *l;

        if (!error)
                error = &local;
        error_clear(error);
        if (!db || request->wait_ms < LESSOR_WAIT_CONFIGURED) {
                error_argument(error, "lessor_acquire", !db ? "db" : "wait_ms", !db ? "is NULL" : "is negative");
                return NULL;
        }
        if (is_refused(db, error))
                return NULL;
        return take(db, request, &l, error) == 0 ? l : NULL;
}

/* First of all whether there is any use in asking: while a server is away every caller of the host comes this way. */
static __attribute__((noinline)) lessor_lease *acquire_or_refuse(lessor_db *db, int wait_ms, const char *file, int line,
                                                                 lessor_error *error) {
        if (db && error && wait_ms >= LESSOR_WAIT_CONFIGURED && is_refused(db, error))
                return NULL;
        return acquire_slowly(db, &(struct request){.wait_ms = wait_ms, .site = {.file = file, .line = line}}, error);
}

/* What this thread has submitted to queues runs first. False: not in time. */
static __attribute__((noinline)) bool acquire_in_order(lessor_db *db, int *wait_ms, lessor_error *error) {
        NO_CANCEL;
        uint64_t wait = *wait_ms > 0 ? (uint64_t)*wait_ms * NS_PER_MS : 0, deadline = clock_now() + wait;

        if (!db || *wait_ms < LESSOR_WAIT_CONFIGURED)
                return true; /* which is an error of its own */
        if (call_keep_order(db, *wait_ms, error) != 0)
                return false;
        *wait_ms = remaining_ms(*wait_ms, deadline);
        return true;
}

lessor_lease *lessor_acquire_at(lessor_db *db, int wait_ms, const char *file, int line, lessor_error *error) {
        struct site site = {.file = file, .line = line};
        lessor_lease *l;

        if (__builtin_expect(call_order_matters, 0) && !acquire_in_order(db, &wait_ms, error))
                return NULL;
        l = db && wait_ms >= LESSOR_WAIT_CONFIGURED ? warm_take_last(db, site) : NULL;

        if (__builtin_expect(!l, 0))
                return acquire_or_refuse(db, wait_ms, file, line, error);
        error_clear(error);
        return l;
}

lessor_lease *lessor_acquire_pinned_at(lessor_db *db, int wait_ms, const char *file, int line, lessor_error *error) {
        if (call_order_matters && !acquire_in_order(db, &wait_ms, error))
                return NULL;
        return acquire_slowly(
                db, &(struct request){.wait_ms = wait_ms, .pinned = true, .site = {.file = file, .line = line}}, error);
}

void lessor_release(lessor_lease *l) {
        if (l)
                give(l);
}

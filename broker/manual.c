/* SPDX-License-Identifier: MIT */
/* What an operator does to one database, on its thread; and how that is told: to him, to those who wait, to those who look. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <lessor/admin.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "database_internal.h"
#include "log.h"

/* "paused by uid 0 (pid 4711) at 2026-11-24 22:50:01 UTC: new Redis" */
static void sign(char *to, size_t size, const char *what, const struct ucred *who, const char *why) {
        time_t now = time(NULL);
        struct tm utc;
        char date[32];
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", gmtime_r(&now, &utc));
        snprintf(to, size, "%s by uid %u (pid %d) at %s UTC%s%s", what, who->uid, (int)who->pid, date, *why ? ": " : "",
                 why);
}

static const char *plural(uint64_t n) { return n == 1 ? "" : "s"; }

static unsigned held_count(const struct database *db) {
        unsigned n = 0;
        list_for_each (&db->pool.by_state[CONN_LEASED], it)
                n += !db->connections[container_of(it, struct pool_conn, link)->slot].place->parked;
        return n;
}

__attribute__((format(printf, 2, 3))) static void say(struct lessor_admin_answer *a, const char *fmt, ...) {
        size_t used = strlen(a->text);
        va_list args;
        va_start(args, fmt);
        vsnprintf(a->text + used, sizeof(a->text) - used, fmt, args);
        va_end(args);
}

/* ---- pause, drain, resume, reconnect ------------------------------------------------------------------------------- */

static void hold(struct database *db, enum pool_hold how, const struct lessor_admin_request *r, const struct ucred *who,
                 struct lessor_admin_answer *a) {
        struct manual *m = &db->manual;
        uint64_t now = clock_now();
        unsigned open = pool_open(&db->pool);
        enum pool_hold before = db->pool.hold;
        if (!before)
                m->held_since = clock_wall();
        sign(m->held, sizeof(m->held), how == POOL_PAUSED ? "paused" : "drained", who, r->why);
        pool_hold(&db->pool, how, now);
        database_pump(db, now);
        unsigned held = held_count(db), waiting = db->pool.waiting;
        a->concerned = how == POOL_DRAINED ? open : held;
        if (how == POOL_PAUSED)
                say(a, "`%s` is %spaused: %u lease%s on, ", name_of(db), before == POOL_PAUSED ? "still " : "", held,
                    held == 1 ? " that is held goes" : "s that are held go");
        else
                say(a, "`%s` is drained: of %u connection%s %u %s closed now, %u as %s back, ", name_of(db), open,
                    plural(open), open - held, open - held == 1 ? "is" : "are", held,
                    held == 1 ? "it comes" : "they come");
        say(a, "%u request%s until the deadline; `lessor resume %s` ends it", waiting,
            waiting == 1 ? " waits" : "s wait", name_of(db));
}

static void resume(struct database *db, struct lessor_admin_answer *a) {
        uint64_t now = clock_now(), held_for = clock_wall() - db->manual.held_since;
        unsigned waiting = db->pool.waiting;
        if (!db->pool.hold) {
                say(a, "`%s` was not paused", name_of(db));
                return;
        }
        pool_hold(&db->pool, POOL_SERVING, now);
        db->manual.held[0] = '\0';
        db->manual.held_since = 0;
        database_pump(db, now);
        a->concerned = waiting;
        say(a, "`%s` serves again, after %" PRIu64 ".%" PRIu64 " s; %u request%s waiting", name_of(db),
            held_for / NS_PER_S, held_for / (NS_PER_S / 10) % 10, waiting, waiting == 1 ? " was" : "s were");
}

static void reconnect(struct database *db, struct lessor_admin_answer *a) {
        uint64_t now = clock_now();
        unsigned open = pool_open(&db->pool);
        pool_outdate(&db->pool, now);
        database_pump(db, now);
        unsigned held = held_count(db);
        a->concerned = open;
        say(a, "of `%s`'s %u connection%s %u %s replaced now, %u as %s back", name_of(db), open, plural(open),
            open - held, open - held == 1 ? "is" : "are", held, held == 1 ? "it comes" : "they come");
}

/* ---- the breaker --------------------------------------------------------------------------------------------------- */

static void breaker_open(struct database *db, const struct lessor_admin_request *r, const struct ucred *who,
                         struct lessor_admin_answer *a) {
        unsigned waiting = db->pool.waiting;
        sign(db->manual.breaker, sizeof(db->manual.breaker), "opened", who, r->why);
        if (!database_breaker_open(db))
                say(a, "it was so already: ");
        unsigned held = held_count(db);
        a->concerned = waiting;
        say(a,
            "the circuit breaker of `%s` is open until `lessor breaker close %s`: %u request%s refused, %u lease%s on",
            name_of(db), name_of(db), waiting, waiting == 1 ? " was" : "s were", held,
            held == 1 ? " that is held goes" : "s that are held go");
}

static void breaker_close(struct database *db, bool forget, struct lessor_admin_answer *a) {
        static const char *const was[] = {
                [BREAKER_CLOSED] = "closed", [BREAKER_OPEN] = "open", [BREAKER_HALF_OPEN] = "half-open"};
        const char *before = was[db->pool.breaker.state];
        unsigned failures = db->pool.breaker.failures;
        (void)(forget ? database_breaker_reset(db) : database_breaker_close(db));
        db->manual.breaker[0] = '\0';
        a->concerned = failures;
        say(a, "the circuit breaker of `%s` is closed (it was %s, after %u failure%s); %s", name_of(db), before,
            failures, plural(failures),
            forget ? "what was learnt of the server is forgotten, the next request dials at once"
                   : "failures are counted from 0");
}

/* ---- a lease ------------------------------------------------------------------------------------------------------- */

static struct connection *find_lease(struct database *db, uint64_t number) {
        list_for_each (&db->pool.by_state[CONN_LEASED], it) {
                struct pool_conn *conn = container_of(it, struct pool_conn, link);
                if (conn->lease == number)
                        return connection_of(db, conn);
        }
        return NULL;
}

static void kill_lease(struct database *db, uint64_t number, struct lessor_admin_answer *a) {
        struct connection *c = find_lease(db, number);
        uint64_t now = clock_now();
        char who[512];
        if (!c) {
                a->outcome = LESSOR_ADMIN_NO_SUCH;
                say(a, "`%s` has no lease %" PRIu64 " (any more)", name_of(db), number - db->o.generation);
                return;
        }
        bool cut = holders_kill(db, c, now, who, sizeof(who));
        database_pump(db, now);
        a->concerned = 1;
        say(a, "lease %" PRIu64 " of `%s` %s: %s", number - db->o.generation, name_of(db),
            cut ? "was cut off" : "was parked, nobody used it: it was taken back", who);
}

/* ---- orders -------------------------------------------------------------------------------------------------------- */

void database_administer(struct database *db, const struct lessor_admin_request *r, const struct ucred *who,
                         struct lessor_admin_answer *a) {
        switch ((enum lessor_admin_command)r->command) {
        case LESSOR_ADMIN_PAUSE:
                hold(db, POOL_PAUSED, r, who, a);
                break;
        case LESSOR_ADMIN_DRAIN:
                hold(db, POOL_DRAINED, r, who, a);
                break;
        case LESSOR_ADMIN_RESUME:
                resume(db, a);
                break;
        case LESSOR_ADMIN_RECONNECT:
                reconnect(db, a);
                break;
        case LESSOR_ADMIN_BREAKER_OPEN:
                breaker_open(db, r, who, a);
                break;
        case LESSOR_ADMIN_BREAKER_CLOSE:
        case LESSOR_ADMIN_BREAKER_RESET:
                breaker_close(db, r->command == LESSOR_ADMIN_BREAKER_RESET, a);
                break;
        case LESSOR_ADMIN_KILL_LEASE:
                kill_lease(db, r->number, a);
                break;
        case LESSOR_ADMIN_KILL_SESSION:
        case LESSOR_ADMIN_RELOAD:
        case LESSOR_ADMIN_LOG_LEVEL:
        case LESSOR_ADMIN_SHUTDOWN:
                a->outcome = LESSOR_ADMIN_INVALID;
                say(a, "no order for a database");
                break;
        }
        a->open = pool_open(&db->pool);
        a->in_use = held_count(db);
        a->waiting = db->pool.waiting;
}

/* ---- as it is shown ------------------------------------------------------------------------------------------------ */

void manual_show(const struct database *db, struct lessor_status_database *r) {
        const struct manual *m = &db->manual;
        r->paused_at = m->held_since;
        r->paused = (uint64_t)db->pool.hold;
        if (db->pool.hold == POOL_DRAINED && pool_open(&db->pool) == 0)
                r->paused = LESSOR_PAUSED_DRAINED;
        if (db->pool.hold) {
                if (r->health != LESSOR_HEALTH_FAILED)
                        r->health = LESSOR_HEALTH_DEGRADED;
                snprintf(r->reason, sizeof(r->reason), "%s", m->held);
        }
        if (db->pool.breaker.held)
                snprintf(r->reason, sizeof(r->reason), "circuit breaker %s", m->breaker);
}

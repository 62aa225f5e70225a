/* SPDX-License-Identifier: MIT */
#include "control.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/histogram.h"
#include "log.h"
#include "pipeline.h"
#include "pool/share.h"

/* One data thread's part of the figures; travels between it and the control thread, owned by whoever holds it. */
struct snapshot {
        struct letter letter;
        struct control *control;
        struct loop *thread;
        bool away;
        unsigned n;
        unsigned *indices; /* of the thread's databases */
        struct lessor_status_database *databases;
        struct lessor_status_connection **connections;
        struct lessor_status_lane lanes[LANES_SHOWN]; /* of the thread */
};

struct control {
        struct control_options o;
        struct loop *loop;
        struct event *tick, *terminate, *interrupt, *quit, *hangup;
        bool cut;
        bool reload_wanted;
        uint64_t reloads, reloads_failed;
        struct snapshot *snapshots;      /* one a data thread */
        struct worker_totals *totals;    /* one a database */
        struct share *shares;            /* likewise */
        struct directory_session **dead; /* buried at the next tick, together */
        unsigned n_dead, dead_capacity;
        uint64_t last_harvest;
        int last_error; /* of publishing: logged when it changes */
};

/* ---- what workers counted ---------------------------------------------------------------------------------------- */

struct harvest {
        struct control *control;
        uint64_t elapsed, wall;
};

static void harvest_database(void *userdata, unsigned database, struct session_memory *memory) {
        const struct harvest *h = userdata;
        if (database < h->control->o.n_databases)
                (void)session_memory_harvest(memory, database, h->elapsed, h->wall, &h->control->totals[database]);
}

static void harvest_session(struct directory_session *session, void *userdata) {
        session_harvest(session, harvest_database, userdata);
}

static void harvest_all(struct control *c, uint64_t now) {
        struct harvest h = {.control = c, .elapsed = now - c->last_harvest, .wall = clock_wall()};
        rcu_read_lock();
        directory_walk(c->o.host->directory, harvest_session, &h);
        rcu_read_unlock();
        for (unsigned i = 0; i < c->n_dead; i++)
                harvest_session(c->dead[i], &h);
        c->last_harvest = now;
}

/* One grace period for all that ended since the last tick; nobody finds them any more. */
static void bury_all(struct control *c) {
        if (!c->n_dead)
                return;
        synchronize_rcu();
        for (unsigned i = 0; i < c->n_dead; i++)
                session_free(c->dead[i]);
        c->n_dead = 0;
}

void control_bury(struct letter *letter) {
        struct control *c = session_undertaker(letter);
        if (c->n_dead == c->dead_capacity) {
                unsigned capacity = c->dead_capacity ? 2 * c->dead_capacity : 64;
                struct directory_session **dead = realloc(c->dead, capacity * sizeof(struct directory_session *));
                if (!dead) {
                        harvest_all(c, clock_now());
                        bury_all(c);
                } else {
                        c->dead = dead;
                        c->dead_capacity = capacity;
                }
        }
        if (c->n_dead < c->dead_capacity)
                c->dead[c->n_dead++] = session_of_letter(letter);
}

/* ---- publication -------------------------------------------------------------------------------------------------- */

static void merge_totals(struct lessor_status_database *r, const struct worker_totals *t) {
        r->operations_ok = t->operations_ok;
        r->operations_failed = t->operations_failed;
        r->timeouts = t->timeouts;
        r->call_time = t->call_time;
        histogram_merge(&r->hold_time, &t->hold_time);
        if (t->last_success_ns > r->last_success_time)
                r->last_success_time = t->last_success_ns;
}

static void judge_share(struct share *share, struct lessor_status_database *r, uint64_t now) {
        share_update(share, r->operations_ok, r->operations_failed, now);
        if (!share_high(share) || r->health != LESSOR_HEALTH_HEALTHY)
                return;
        r->health = LESSOR_HEALTH_DEGRADED;
        snprintf(r->reason, sizeof(r->reason), "%u %% of the operations of the last %u s failed", share->percent,
                 SHARE_SECONDS);
}

static int publish_snapshot(struct control *c, struct snapshot *s) {
        int r = 0, failed;
        for (unsigned i = 0; i < s->n; i++) {
                unsigned index = s->indices[i];
                merge_totals(&s->databases[i], &c->totals[index]);
                judge_share(&c->shares[index], &s->databases[i], clock_now());
                failed = status_segment_write_database(c->o.segment, index, &s->databases[i]);
                r = failed ? failed : r;
                for (unsigned slot = 0; slot < database_places(c->o.databases[index]); slot++) {
                        failed = status_segment_write_connection(c->o.segment, c->o.first_connection[index] + slot,
                                                                 &s->connections[i][slot]);
                        r = failed ? failed : r;
                }
        }
        for (unsigned i = 0; i < LANES_SHOWN; i++) {
                failed = status_segment_write_lane(c->o.segment, (unsigned)(s - c->snapshots) * LANES_SHOWN + i,
                                                   &s->lanes[i]);
                r = failed ? failed : r;
        }
        return r;
}

static int publish_live(struct control *c, uint64_t heartbeat) {
        const struct session_host *host = c->o.host;
        struct status_live live = {.heartbeat = heartbeat,
                                   .databases = c->o.n_databases,
                                   .connections = c->o.n_connections,
                                   .sessions = atomic_load_explicit(&host->attached, memory_order_relaxed),
                                   .sessions_total = atomic_load_explicit(&host->total, memory_order_relaxed),
                                   .sessions_refused = atomic_load_explicit(&host->refused, memory_order_relaxed),
                                   .reloads = c->reloads,
                                   .reloads_failed = c->reloads_failed};
        return status_segment_write_live(c->o.segment, &live);
}

static void note_result(struct control *c, int r) {
        if (r != c->last_error && r < 0)
                log_error("status: cannot write the segment: %s", strerror(-r));
        else if (r != c->last_error)
                log_info("status: the segment can be written again");
        c->last_error = r;
}

static void fill(struct snapshot *s) {
        const struct control_options *o = &s->control->o;
        for (unsigned i = 0; i < s->n; i++)
                pipelines_survey(o->databases[s->indices[i]]);
        lanes_show(&container_of(s->thread, struct session_set, loop)->lanes, s->lanes);
        for (unsigned i = 0; i < s->n; i++)
                database_snapshot(o->databases[s->indices[i]], &s->databases[i], s->connections[i]);
}

static bool all_home(const struct control *c) {
        for (unsigned i = 0; i < c->o.n_threads; i++)
                if (c->snapshots[i].away)
                        return false;
        return true;
}

static void show_progress(struct control *c) {
        struct service_health h = {0};
        for (unsigned i = 0; i < c->o.n_threads; i++)
                for (unsigned k = 0; k < c->snapshots[i].n; k++) {
                        const struct lessor_status_database *r = &c->snapshots[i].databases[k];
                        h.databases += r->name[0] != '\0'; /* else removed */
                        h.degraded += r->name[0] && r->health == LESSOR_HEALTH_DEGRADED;
                        h.failed += r->name[0] && r->health == LESSOR_HEALTH_FAILED;
                }
        service_progress(c->o.service, &h, clock_now());
}

/* On the data thread. */
static void open_return(struct letter *letter);
static void open_fill(struct letter *letter) {
        struct snapshot *s = container_of(letter, struct snapshot, letter);
        fill(s);
        mailbox_post(&s->control->loop->inbox, &s->letter, open_return);
}

/* Back on the control thread: when all are back, the figures are published and the heartbeat moves. */
static void open_return(struct letter *letter) {
        struct snapshot *s = container_of(letter, struct snapshot, letter);
        struct control *c = s->control;
        int r;
        s->away = false;
        r = publish_snapshot(c, s);
        if (!all_home(c))
                return;
        int live = publish_live(c, clock_now());
        note_result(c, r < 0 ? r : live);
        show_progress(c);
}

/* Before any data thread runs: whoever can connect finds every database in the segment. */
static int publish_first(struct control *c) {
        int r = 0;
        for (unsigned i = 0; r == 0 && i < c->o.n_threads; i++) {
                fill(&c->snapshots[i]);
                r = publish_snapshot(c, &c->snapshots[i]);
        }
        return r < 0 ? r : publish_live(c, clock_now());
}

static void on_tick(evutil_socket_t fd, short what, void *userdata) {
        struct control *c = userdata;
        harvest_all(c, clock_now());
        bury_all(c);
        if (c->reload_wanted && all_home(c))
                c->reload_wanted = !c->o.reload(c->o.userdata);
        for (unsigned i = 0; i < c->o.n_threads; i++) {
                struct snapshot *s = &c->snapshots[i];
                if (s->away)
                        continue; /* a data thread that hangs: the heartbeat stays, and readers see it */
                s->away = true;
                mailbox_post(&s->thread->inbox, &s->letter, open_fill);
        }
}

/* ---- signals, birth and end --------------------------------------------------------------------------------------- */

static void on_signal(evutil_socket_t number, short what, void *userdata) {
        struct control *c = userdata;
        bool cut = number == SIGQUIT;
        log_info("broker: stopping on SIG%s%s", sigabbrev_np((int)number), cut ? ", held leases are cut" : "");
        control_stop(c, cut);
}

void control_stop(struct control *c, bool cut) {
        c->cut = c->cut || cut;
        event_base_loopbreak(c->loop->base);
}

void control_stopping(struct control *c) { event_del(c->tick); }

static void on_hangup(evutil_socket_t number, short what, void *userdata) { control_want_reload(userdata); }

void control_want_reload(struct control *c) { c->reload_wanted = true; }

bool control_cut(const struct control *c) { return c->cut; }

void control_reloaded(struct control *c, bool well) {
        c->reloads += well;
        c->reloads_failed += !well;
        service_reloaded(c->o.service, well);
}

static int add_to_snapshot(const struct control_options *o, struct snapshot *s, unsigned index) {
        s->connections[s->n] = calloc(database_places(o->databases[index]), sizeof(struct lessor_status_connection));
        if (!s->connections[s->n])
                return -ENOMEM;
        s->indices[s->n++] = index;
        return 0;
}

void control_add_database(struct control *c, unsigned index) {
        struct database *db = c->o.databases[index];
        for (unsigned i = 0; i < c->o.n_threads; i++)
                if (c->snapshots[i].thread == database_loop(db) && add_to_snapshot(&c->o, &c->snapshots[i], index) < 0)
                        log_error("status: out of memory, `%s` will have no figures", database_config(db)->name);
        c->o.n_databases = index + 1;
        c->o.n_connections = c->o.first_connection[index] + database_places(db);
}

/* Room for all the databases there can be: a reload only adds. What is not used is never touched. */
static int allocate_snapshot(struct control *c, struct snapshot *s, struct loop *thread) {
        const struct control_options *o = &c->o;
        s->control = c;
        s->thread = thread;
        s->indices = calloc(LESSOR_DATABASES_MAX, sizeof(*s->indices));
        s->databases = calloc(LESSOR_DATABASES_MAX, sizeof(*s->databases));
        s->connections = calloc(LESSOR_DATABASES_MAX, sizeof(*s->connections));
        if (!s->indices || !s->databases || !s->connections)
                return -ENOMEM;
        for (unsigned i = 0; i < o->n_databases; i++)
                if (database_loop(o->databases[i]) == thread && add_to_snapshot(o, s, i) < 0)
                        return -ENOMEM;
        return 0;
}

static void free_snapshot(struct snapshot *s) {
        for (unsigned i = 0; i < s->n; i++)
                free(s->connections[i]);
        free(s->connections);
        free(s->databases);
        free(s->indices);
}

static int add_events(struct control *c) {
        struct timeval period = {.tv_usec = CONTROL_PERIOD_MS * 1000};
        c->tick = event_new(c->loop->base, -1, EV_PERSIST, on_tick, c);
        c->terminate = evsignal_new(c->loop->base, SIGTERM, on_signal, c);
        c->interrupt = evsignal_new(c->loop->base, SIGINT, on_signal, c);
        c->quit = evsignal_new(c->loop->base, SIGQUIT, on_signal, c);
        c->hangup = evsignal_new(c->loop->base, SIGHUP, on_hangup, c);
        if (!c->tick || !c->terminate || !c->interrupt || !c->quit || !c->hangup || event_add(c->tick, &period) < 0 ||
            event_add(c->terminate, NULL) < 0 || event_add(c->interrupt, NULL) < 0 || event_add(c->quit, NULL) < 0 ||
            event_add(c->hangup, NULL) < 0)
                return -ENOMEM;
        return 0;
}

int control_new(struct loop *loop, const struct control_options *options, struct control **ret) {
        struct control *c = calloc(1, sizeof(*c));
        if (!c)
                return -ENOMEM;
        c->o = *options;
        c->loop = loop;
        c->last_harvest = clock_now();
        c->totals = calloc(LESSOR_DATABASES_MAX, sizeof(*c->totals));
        c->shares = calloc(LESSOR_DATABASES_MAX, sizeof(*c->shares));
        c->snapshots = calloc(options->n_threads, sizeof(*c->snapshots));
        int r = c->totals && c->shares && c->snapshots ? 0 : -ENOMEM;
        for (unsigned i = 0; r == 0 && i < options->n_threads; i++)
                r = allocate_snapshot(c, &c->snapshots[i], &options->threads[i].loop);
        if (r == 0)
                r = publish_first(c);
        if (r == 0)
                r = add_events(c);
        if (r < 0) {
                control_free(c);
                return r;
        }
        options->host->undertaker_data = c;
        *ret = c;
        return 0;
}

void control_free(struct control *c) {
        if (!c)
                return;
        mailbox_drain(&c->loop->inbox); /* sessions that ended last */
        bury_all(c);
        for (unsigned i = 0; c->snapshots && i < c->o.n_threads; i++)
                free_snapshot(&c->snapshots[i]);
        if (c->tick)
                event_free(c->tick);
        if (c->terminate)
                event_free(c->terminate);
        if (c->interrupt)
                event_free(c->interrupt);
        if (c->quit)
                event_free(c->quit);
        if (c->hangup)
                event_free(c->hangup);
        free(c->dead);
        free(c->totals);
        free(c->shares);
        free(c->snapshots);
        free(c);
}

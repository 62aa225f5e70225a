/* SPDX-License-Identifier: MIT */
/*
 * A record that stays odd belongs to a broker that was interrupted, or killed, between two writes. The first is over
 * within milliseconds: we try again for a while. After the second the record is lost, and said to be: its database
 * counts as failed, and the others are shown nevertheless.
 */
#include "model.h"

#include <inttypes.h>
#include <signal.h>

#include <base/cleanup.h>
#include <base/clock.h>

enum { READ_ATTEMPTS = 50 };

static void pause_a_millisecond(void) { nanosleep(&(struct timespec){.tv_nsec = (long)NS_PER_MS}, NULL); }

#define TERMINATE(field) ((field)[sizeof(field) - 1] = '\0')

uint64_t model_operations(const struct lessor_status_database *d) { return d->operations_ok + d->operations_failed; }

double model_success_rate(uint64_t ok, uint64_t failed) {
        return ok + failed ? 100.0 * (double)ok / ((double)ok + (double)failed) : 100.0;
}

static bool has_address(const struct lessor_status_connection *c, const char *address) {
        char id[24];
        snprintf(id, sizeof(id), "%" PRIu64, c->client_id);
        return strcmp(c->local, address) == 0 || strcmp(id, address) == 0;
}

bool model_chosen(const struct model_lease *l, const char *database, const char *address) {
        return (!database || strcmp(l->database, database) == 0) && (!address || has_address(&l->connection, address));
}

bool model_lane_chosen(const struct model_lane *l, const char *database, const char *address) {
        return (!database || strcmp(l->database, database) == 0) &&
               (!address || (l->connection && has_address(l->connection, address)));
}

struct model_in_flight model_in_flight(const struct model *m, const char *database) {
        struct model_in_flight f = {0};
        for (unsigned i = 0; i < m->n_databases; i++)
                if (!database || strcmp(m->databases[i].name, database) == 0) {
                        f.sessions += m->databases[i].lane_sessions;
                        f.commands += m->databases[i].lane_under_way;
                }
        return f;
}

const char *model_standing_text(const struct lessor_status_database *d) {
        static const char *const words[] = {NULL, "paused", "draining", "drained"};
        bool held = d->health != LESSOR_HEALTH_FAILED && d->paused > 0 && d->paused < ARRAY_SIZE(words);
        return held ? words[d->paused] : model_health_text(d->health);
}

uint64_t model_lease_number(const struct model *m, uint64_t lease) {
        return lease > m->instance.generation ? lease - m->instance.generation : lease;
}

const char *model_health_text(uint64_t health) {
        static const char *const texts[] = {"unused", "healthy", "degraded", "failed"};
        return health < sizeof(texts) / sizeof(texts[0]) ? texts[health] : "unknown";
}

const char *model_connection_text(uint32_t state) {
        static const char *const texts[] = {"vacant",  "dialling", "free", "held",  "resetting",
                                            "closing", "checking", "lane", "parked"};
        return state < sizeof(texts) / sizeof(texts[0]) ? texts[state] : "other";
}

const char *model_breaker_text(uint64_t state) {
        static const char *const texts[] = {"closed", "open", "half-open"};
        return state < sizeof(texts) / sizeof(texts[0]) ? texts[state] : "unknown";
}

static const char *path_text(uint64_t path) {
        static const char *const texts[] = {"lease", "direct", "lane"};
        return path < sizeof(texts) / sizeof(texts[0]) ? texts[path] : "unknown";
}

const char *model_state_text(const char *field, uint64_t value) {
        if (strcmp(field, "breaker_state") == 0)
                return model_breaker_text(value);
        if (strcmp(field, "path") == 0)
                return path_text(value);
        if (strcmp(field, "trouble") == 0)
                return lessor_trouble_word(value);
        return strcmp(field, "health") == 0 ? model_health_text(value) : NULL;
}

void model_derive_overall(const struct lessor_status_database *databases, unsigned n, struct model_overall *ret) {
        struct lessor_status_overall o = {.overall_healthy = true, .success_rate = 100};

        for (unsigned i = 0; i < n; i++)
                lessor_status_add(&o, &databases[i]);
        *ret = (struct model_overall){.healthy = o.overall_healthy,
                                      .total = o.total_databases,
                                      .healthy_databases = o.healthy_databases,
                                      .degraded_databases = o.degraded_databases,
                                      .failed_databases = o.failed_databases,
                                      .success_rate = o.success_rate};
}

struct model_times model_times(const struct lessor_status_histogram *h) {
        struct model_times t = {.count = h->count};
        t.mean_us = h->count ? (double)h->sum_ns / (double)h->count / 1000 : 0;
        t.p50_us = (double)lessor_status_percentile(h, 0.50) / 1000;
        t.p90_us = (double)lessor_status_percentile(h, 0.90) / 1000;
        t.p99_us = (double)lessor_status_percentile(h, 0.99) / 1000;
        t.max_us = (double)h->max_ns / 1000;
        return t;
}

enum model_verdict model_verdict(const struct model *m) {
        if (m->instance.stale || m->overall.failed_databases)
                return MODEL_FAILED;
        return m->overall.degraded_databases ? MODEL_DEGRADED : MODEL_HEALTHY;
}

const struct lessor_status_database *model_find(const struct model *m, const char *database) {
        for (unsigned i = 0; i < m->n_databases; i++)
                if (strcmp(m->databases[i].name, database) == 0)
                        return &m->databases[i];
        return NULL;
}

static void read_instance(const struct lessor_status *s, uint64_t wall, struct model_instance *ret) {
        const struct lessor_status_header *h = s->header;
        struct model_instance i = {.pid = s->constants.broker_pid, .generation = s->constants.instance};

        memcpy(i.name, s->constants.name, sizeof(i.name));
        memcpy(i.release, s->constants.release, sizeof(i.release));
        TERMINATE(i.name);
        TERMINATE(i.release);
        i.heartbeat_age_ns = lessor_status_heartbeat_age(s);
        i.stale = i.heartbeat_age_ns > LESSOR_STATUS_STALE_NS;
        i.gone = i.stale && i.pid > 0 && kill(i.pid, 0) < 0 && errno == ESRCH;
        i.uptime_ns = time_left(s->constants.start_time, wall);
        if (i.stale) /* it was up until its last heartbeat */
                i.uptime_ns = time_left(i.heartbeat_age_ns, i.uptime_ns);
        i.sessions = lessor_status_word(&h->sessions);
        i.sessions_total = lessor_status_word(&h->sessions_total);
        i.sessions_refused = lessor_status_word(&h->sessions_refused);
        i.reloads = lessor_status_word(&h->reloads);
        i.reloads_failed = lessor_status_word(&h->reloads_failed);
        *ret = i;
}

static void read_database(const struct lessor_status *s, unsigned index, struct lessor_status_database *ret) {
        for (int attempt = 0; attempt < READ_ATTEMPTS; attempt++) {
                if (lessor_status_read_database(s, index, LESSOR_STATUS_ALL, ret) == 0) {
                        TERMINATE(ret->name);
                        TERMINATE(ret->endpoint);
                        TERMINATE(ret->reason);
                        TERMINATE(ret->last_error);
                        return;
                }
                pause_a_millisecond();
        }
        *ret = (struct lessor_status_database){.health = LESSOR_HEALTH_FAILED};
        snprintf(ret->name, sizeof(ret->name), "#%u", index);
        snprintf(ret->reason, sizeof(ret->reason), "its record was left half-written: the broker died over it");
}

static int older_first(const void *a, const void *b) {
        const struct model_lease *x = a, *y = b;
        return (x->age_ns < y->age_ns) - (x->age_ns > y->age_ns);
}

/* What a reload has removed is a record without a name: not shown. The others move up; `places` says where to. */
static void leave_out_removed(struct model *m) {
        unsigned n = 0;
        for (unsigned i = 0; i < m->n_records; i++) {
                m->places[i] = n;
                if (m->databases[i].name[0])
                        m->databases[n++] = m->databases[i];
        }
        m->n_databases = n;
}

static const char *database_of(const struct model *m, uint32_t record) {
        unsigned place = record < m->n_records ? m->places[record] : UINT32_MAX;
        return place < m->n_databases ? m->databases[place].name : "?";
}

static void read_lease(const struct model *m, const struct lessor_status_connection *c, struct model_lease *ret) {
        ret->connection = *c;
        TERMINATE(ret->connection.holder);
        TERMINATE(ret->connection.site);
        TERMINATE(ret->connection.local);
        ret->database = database_of(m, c->database);
        ret->age_ns = time_left(c->since_ns, m->read_at);
}

/* One that kept changing is between two holders: it is no lease to be worried about, and left out. */
static int read_connections(const struct lessor_status *s, struct model *m) {
        unsigned n = lessor_status_connections(s);
        struct lessor_status_connection c;

        m->connections = calloc(n ? n : 1, sizeof(*m->connections));
        m->leases = calloc(n ? n : 1, sizeof(*m->leases));
        if (!m->connections || !m->leases)
                return -ENOMEM;
        for (unsigned i = 0; i < n; i++) {
                if (lessor_status_read_connection(s, i, &c) < 0 || c.state == LESSOR_CONNECTION_VACANT)
                        continue;
                read_lease(m, &c, &m->connections[m->n_connections]);
                if (c.state == LESSOR_CONNECTION_LEASED)
                        m->leases[m->n_leases++] = m->connections[m->n_connections];
                m->n_connections++;
        }
        qsort(m->leases, m->n_leases, sizeof(*m->leases), older_first);
        return 0;
}

static int longer_first(const void *a, const void *b) {
        const struct model_lane *x = a, *y = b;
        if (x->age_ns != y->age_ns)
                return x->age_ns < y->age_ns ? 1 : -1;
        return x->record.session < y->record.session ? -1 : 1; /* sent in the same moment */
}

static const struct lessor_status_connection *carrier_of(const struct model *m, const struct lessor_status_lane *l) {
        for (unsigned i = 0; i < m->n_connections; i++) {
                const struct lessor_status_connection *c = &m->connections[i].connection;
                if (c->database == l->database && c->slot == l->slot && c->state == LESSOR_CONNECTION_LANE)
                        return c;
        }
        return NULL;
}

/* After the connections. */
static int read_lanes(const struct lessor_status *s, struct model *m) {
        unsigned n = lessor_status_lanes(s);
        struct lessor_status_lane l;

        m->lanes = calloc(n ? n : 1, sizeof(*m->lanes));
        if (!m->lanes)
                return -ENOMEM;
        for (unsigned i = 0; i < n; i++) {
                if (lessor_status_read_lane(s, i, &l) < 0 || !l.session)
                        continue;
                TERMINATE(l.holder);
                m->lanes[m->n_lanes++] = (struct model_lane){.record = l,
                                                             .database = database_of(m, l.database),
                                                             .connection = carrier_of(m, &l),
                                                             .age_ns = time_left(l.since_ns, m->read_at)};
        }
        qsort(m->lanes, m->n_lanes, sizeof(*m->lanes), longer_first);
        return 0;
}

int model_read(const struct lessor_status *status, struct model *ret) {
        struct model m = {.wall = clock_wall(), .n_records = lessor_status_databases(status)};
        int r;

        read_instance(status, m.wall, &m.instance);
        m.databases = calloc(m.n_records + 1, sizeof(*m.databases));
        m.places = calloc(m.n_records + 1, sizeof(*m.places));
        if (!m.databases || !m.places) {
                model_deinit(&m);
                return -ENOMEM;
        }
        for (unsigned i = 0; i < m.n_records; i++)
                read_database(status, i, &m.databases[i]);
        leave_out_removed(&m);
        model_derive_overall(m.databases, m.n_databases, &m.overall);
        m.overall.healthy = m.overall.healthy && !m.instance.stale;
        m.read_at = lessor_status_now_ns();
        r = read_connections(status, &m);
        if (r == 0)
                r = read_lanes(status, &m);
        if (r < 0) {
                model_deinit(&m);
                return r;
        }
        *ret = m;
        return 0;
}

void model_deinit(struct model *m) {
        free(m->databases);
        free(m->places);
        free(m->leases);
        free(m->connections);
        free(m->lanes);
        *m = (struct model){0};
}

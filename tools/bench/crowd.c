/* SPDX-License-Identifier: MIT */
/*
 * crowd: many workers, small commands. W forked workers, 1 to 1,000, say SET and GET in turn, by five ways: lessor_command(),
 * which chooses; by lane only; by lease only; on a private connection each; through twemproxy with its one connection. All are
 * open in the same workers, which use one at a time: in slices one after the other and back again, each round set
 * against the private arm's of the same round. All processes go where the scheduler puts them, as on a host.
 *
 * The three of Lessor are three databases of one broker, with a pool and a `path` of their own, on the same Redis. A value
 * names key, worker and number: a reply that went astray is told from the right one, and makes the benchmark fail.
 */
#include "crowd.h"

#include <inttypes.h>
#include <string.h>

#include <base/cleanup.h>
#include <base/clock.h>
#include <lessor.h>

#include "crew.h"
#include "latency.h"
#include "usage.h"

enum { CAP = 20, TURNS = 2, CONNECT = CROWD_ARMS }; /* a job is an arm, or to connect */
/* lessor_command() finds its way anew in each slice: what it does at first is not measured. */
#define WARM_NS (100 * NS_PER_MS)
#define MEASURE_NS (250 * NS_PER_MS)

const char *const crowd_arm_names[CROWD_ARMS] = {"lessor_command", "lanes", "leases", "private", "twemproxy"};
static const char *const databases[] = {"main", CROWD_LANES_DATABASE, "leases"}; /* by arm */

const struct crowd_bars crowd_bars[CROWD_SIZES] = {
        {.workers = 1, .private = 0.95, .twemproxy = 2.0},
        {.workers = 4, .private = 0.95, .twemproxy = 2.5},
        {.workers = 20, .private = 1.05, .twemproxy = 1.6, .p99_private = 1.0, .cpu_private = 0.5},
        {.workers = 200, .private = 2.3, .twemproxy = 2.8, .p99_private = 0.5, .cpu_private = 0.125},
        {.workers = 1000},
};

/* ---- workers --------------------------------------------------------------------------------------------------- */

struct worker {
        struct crew *crew;
        unsigned self;
        enum crowd_arm arm;
        struct crew_member *me;
        lessor_db *db[ARRAY_SIZE(databases)];
        redisContext *direct, *proxy;
        char key[48];
        uint64_t number;
        lessor_error error;
};

static struct worker worker; /* each process has one */

struct scene {
        struct servers *servers;
        lessor *l;
        redisContext *admin;
        bool proxy; /* there is one */
};

static void connect_all(struct worker *w, const struct scene *scene) {
        struct servers *s = w->crew->servers;

        snprintf(w->key, sizeof(w->key), "lessor:bench:%d", (int)getpid());
        for (size_t i = 0; i < ARRAY_SIZE(databases); i++)
                if (lessor_database(scene->l, databases[i], &w->db[i], &w->error) != 0)
                        crew_trouble(w->crew, w->self, "cannot attach: %s", w->error.text);
        w->direct = servers_connect(s);
        if (!w->direct)
                crew_trouble(w->crew, w->self, "%s", s->error);
        else
                freeReplyObject(redisCommand(w->direct, "CLIENT SETNAME %s", crowd_arm_names[CROWD_PRIVATE]));
        w->proxy = scene->proxy ? redisConnectUnix(s->proxy_socket) : NULL;
        if (scene->proxy && (!w->proxy || w->proxy->err))
                crew_trouble(w->crew, w->self, "cannot connect to twemproxy: %s",
                             w->proxy ? w->proxy->errstr : "out of memory");
}

/* What both say of a command that has no reply. */
static const char *why(struct worker *w) {
        if (w->arm < ARRAY_SIZE(databases))
                return w->error.text;
        return (w->arm == CROWD_PRIVATE ? w->direct : w->proxy)->errstr;
}

static redisReply *say(struct worker *w, const char *value) {
        redisContext *c = w->arm == CROWD_PRIVATE ? w->direct : w->proxy;

        if (w->arm < ARRAY_SIZE(databases))
                return value ? lessor_command(w->db[w->arm], &w->error, "SET %s %s", w->key, value)
                             : lessor_command(w->db[w->arm], &w->error, "GET %s", w->key);
        return value ? redisCommand(c, "SET %s %s", w->key, value) : redisCommand(c, "GET %s", w->key);
}

/* SET and GET by turns; *start is when the one before ended, and becomes when this one did. */
static bool command(struct worker *w, uint64_t *start) {
        char value[96];
        bool set = w->number % 2 == 0;
        redisReply *reply;
        uint64_t end;

        snprintf(value, sizeof(value), "%s, worker %u, %" PRIu64, w->key, w->self, w->number++ / 2);
        reply = say(w, set ? value : NULL);
        if (!reply) {
                crew_trouble(w->crew, w->self, "%s", why(w));
                return false;
        }
        end = clock_now();
        w->me->wrong += !reply->str || strcmp(reply->str, set ? "OK" : value) != 0;
        w->me->all++;
        if (crew_phase(w->crew) == CREW_MEASURING) {
                w->me->operations++;
                w->me->times[latency_bucket(end - *start)]++;
        }
        *start = end;
        freeReplyObject(reply);
        return true;
}

static void work(struct crew *c, unsigned self, unsigned job) {
        struct worker *w = &worker;
        uint64_t start;

        w->crew = c;
        w->self = self;
        w->me = crew_member(c, self);
        if (job == CONNECT) {
                connect_all(w, c->argument);
                return;
        }
        w->arm = job;
        memset(w->me->times, 0, LATENCY_BUCKETS * sizeof(w->me->times[0]));
        start = clock_now();
        while (crew_phase(c) != CREW_OVER && command(w, &start))
                ;
}

/* ---- one arm's share of a round -------------------------------------------------------------------------------- */

struct share {
        double operations, seconds; /* measured */
        double all, redis_us;       /* warming included */
        uint64_t buckets[LATENCY_BUCKETS];
};

/* CLIENT LIST's clients of this name: "" are those that have none. */
static unsigned clients_named(redisContext *admin, const char *name) {
        redisReply *reply = redisCommand(admin, "CLIENT LIST");
        char wanted[160];
        unsigned n = 0;

        snprintf(wanted, sizeof(wanted), " name=%s ", name);
        for (const char *at = reply ? reply->str : NULL; at && (at = strstr(at, wanted)); at++)
                n++;
        freeReplyObject(reply);
        return n;
}

static unsigned connections(const struct scene *scene, enum crowd_arm arm) {
        char name[128] = "";

        if (arm == CROWD_PRIVATE)
                snprintf(name, sizeof(name), "%s", crowd_arm_names[arm]);
        else if (arm < ARRAY_SIZE(databases))
                snprintf(name, sizeof(name), "lessor:%s:%s", scene->servers->instance, databases[arm]);
        return clients_named(scene->admin, name);
}

static int slice(const struct scene *scene, struct crew *crew, enum crowd_arm arm, struct share *share) {
        struct usage before = {0}, after = {0};
        uint64_t elapsed;
        int r;

        usage_add(scene->servers->redis, &before);
        crew_begin(crew, arm);
        elapsed = crew_measure(crew, WARM_NS, MEASURE_NS);
        r = crew_finish(crew);
        usage_add(scene->servers->redis, &after);
        share->redis_us += usage_between(&before, &after).cpu_us;
        share->seconds += (double)elapsed / 1e9;
        share->operations += (double)crew_sum(crew, offsetof(struct crew_member, operations));
        share->all += (double)crew_sum(crew, offsetof(struct crew_member, all));
        for (unsigned i = 0; i < crew->n; i++)
                for (unsigned b = 0; b < LATENCY_BUCKETS; b++)
                        share->buckets[b] += crew_member(crew, i)->times[b];
        return r;
}

static void end_row(struct crowd_row *row, const struct share *share) {
        sample_add(&row->ops, share->operations / share->seconds);
        sample_add(&row->p50_us, latency_quantile_ns(share->buckets, 0.5) / 1e3);
        sample_add(&row->p99_us, latency_quantile_ns(share->buckets, 0.99) / 1e3);
        sample_add(&row->p999_us, latency_quantile_ns(share->buckets, 0.999) / 1e3);
        sample_add(&row->cpu_us, share->redis_us / share->all);
}

/* The round that has just been added to the rows is the last of each. */
static double last_ratio(const struct sample *ours, const struct sample *theirs) {
        return ours->values[ours->n - 1] / theirs->values[theirs->n - 1];
}

static void end_ratios(struct crowd_size *c) {
        const struct crowd_row *ours = &c->rows[CROWD_COMMAND], *theirs = &c->rows[CROWD_PRIVATE];

        sample_add(&c->ratios.private, last_ratio(&ours->ops, &theirs->ops));
        sample_add(&c->ratios.p99_private, last_ratio(&ours->p99_us, &theirs->p99_us));
        sample_add(&c->ratios.cpu_private, last_ratio(&ours->cpu_us, &theirs->cpu_us));
        if (c->arms > CROWD_TWEMPROXY)
                sample_add(&c->ratios.twemproxy, last_ratio(&ours->ops, &c->rows[CROWD_TWEMPROXY].ops));
}

/* ---- the comparison -------------------------------------------------------------------------------------------- */

static int run_round(const struct scene *scene, struct crew *crew, struct crowd_size *c) {
        struct share *shares = calloc(c->arms, sizeof(*shares));
        int r = 0;

        if (!shares)
                return servers_fail(scene->servers, -ENOMEM, "out of memory");
        for (unsigned i = 0; i < TURNS * c->arms && r == 0; i++) {
                unsigned arm = i < c->arms ? i : TURNS * c->arms - 1 - i;
                r = slice(scene, crew, arm, &shares[arm]);
                unsigned n = r == 0 ? connections(scene, arm) : 0;
                if (n > c->rows[arm].connections)
                        c->rows[arm].connections = n;
        }
        for (unsigned i = 0; i < c->arms && r == 0; i++)
                end_row(&c->rows[i], &shares[i]);
        if (r == 0)
                end_ratios(c);
        free(shares);
        return r;
}

static int measure_size(const struct bench_options *o, struct scene *scene, unsigned workers, struct crowd_size *c) {
        struct crew crew = {0};
        int r = crew_start(&crew, scene->servers, workers, LATENCY_BUCKETS, work, scene);

        c->arms = scene->proxy ? CROWD_ARMS : CROWD_TWEMPROXY;
        if (r == 0) {
                crew_begin(&crew, CONNECT);
                r = crew_finish(&crew);
        }
        for (unsigned i = 0; i < o->rounds && r == 0; i++)
                r = run_round(scene, &crew, c);
        crew_end(&crew);
        return r;
}

static int measure(const struct bench_options *o, struct scene *scene, struct bench_result *ret) {
        struct crowd_size sizes[CROWD_SIZES] = {0};
        int r = 0;

        for (unsigned i = 0; i < CROWD_SIZES && r == 0; i++)
                r = measure_size(o, scene, crowd_bars[i].workers, &sizes[i]);
        if (r == 0)
                crowd_tell(sizes, ret->extra);
        for (unsigned i = 0; i < CROWD_SIZES; i++)
                crowd_size_deinit(&sizes[i]);
        return r;
}

static int start_broker(struct servers *s) {
        char config[512];

        snprintf(config, sizeof(config),
                 "unix_socket: %s\nmax_connections: %d\nwait_timeout: 60s\nsocket_timeout: 60s\n"
                 "databases:\n  %s: {path: auto}\n  %s: {path: lane}\n  %s: {path: lease}\n",
                 s->redis_socket, CAP, databases[CROWD_COMMAND], databases[CROWD_LANES], databases[CROWD_LEASES]);
        return servers_start_broker(s, config);
}

/* Without twemproxy its arm is left out, and that is said. */
static int start(struct scene *scene) {
        struct servers *s = scene->servers;
        int r = servers_start_redis(s);

        if (r == 0)
                r = start_broker(s);
        if (r < 0)
                return r;
        r = servers_start_proxy(s);
        scene->proxy = r == 0;
        if (r == -ENOENT)
                fprintf(stderr, "lessor bench crowd: no arm twemproxy: %s\n", s->error);
        else if (r < 0)
                return r;
        servers_unpin(s->redis);
        servers_unpin(s->broker);
        if (scene->proxy)
                servers_unpin(s->proxy);
        scene->admin = servers_connect(s);
        if (!scene->admin)
                return -EIO;
        freeReplyObject(redisCommand(scene->admin, "CLIENT SETNAME admin"));
        return lessor_open(s->broker_socket, &scene->l) < 0 ? servers_fail(s, -ENOMEM, "out of memory") : 0;
}

static int run(const struct bench_options *o, struct servers *s, struct bench_result *ret) {
        struct scene scene = {.servers = s};
        int r = start(&scene);

        if (r == 0)
                r = measure(o, &scene, ret);
        lessor_close(scene.l);
        if (scene.admin)
                redisFree(scene.admin);
        return r;
}

const struct bench bench_crowd = {
        .name = "crowd",
        .unit = "ops/s",
        .summary =
                "1 to 1,000 workers with small commands: lessor_command, lanes, leases, private connections, twemproxy",
        .bars = "by the number of workers, in its text",
        .own_broker = true,
        .run = run,
        .print = crowd_print,
        .markdown = crowd_markdown,
        .limit_s = 240,
};

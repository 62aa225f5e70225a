/* SPDX-License-Identifier: MIT */
/*
 * storm: a host whose 1,000 workers start at once. They are forked beforehand and wait; let go, each attaches to a broker
 * that has not dialled yet, asks its first command and keeps what it has. The reference: each connects to Redis and asks.
 * What is compared is the time until the last has its answer.
 *
 * A broker of its own for each storm. The values asked for name key and worker and are checked. That the cap held is
 * asked of both who can tell: the broker's own peak, and Redis' list of clients while all workers are attached.
 */
#include <string.h>

#include <base/cleanup.h>
#include <base/clock.h>
#include <lessor.h>

#include "bench.h"
#include "crew.h"

enum { WORKERS = 1000, CAP = 20 };

static void name_value(unsigned worker, char key[48], char value[96]) {
        snprintf(key, 48, "lessor:bench:storm:%u", worker);
        snprintf(value, 96, "%s of worker %u", key, worker);
}

static int write_values(redisContext *admin, struct servers *s) {
        char key[48], value[96];
        redisReply *reply = NULL;

        for (unsigned i = 0; i < WORKERS; i++) {
                name_value(i, key, value);
                redisAppendCommand(admin, "SET %s %s", key, value);
        }
        for (unsigned i = 0; i < WORKERS; i++) {
                if (redisGetReply(admin, (void **)&reply) != REDIS_OK)
                        return servers_fail(s, -EIO, "SET: %s", admin->errstr);
                freeReplyObject(reply);
        }
        return 0;
}

/* ---- workers --------------------------------------------------------------------------------------------------- */

static void check_reply(struct crew *c, unsigned self, redisReply *reply, const char *value, const char *why) {
        if (!reply)
                crew_trouble(c, self, "%s", why);
        else
                crew_member(c, self)->wrong += !reply->str || strcmp(reply->str, value) != 0;
        freeReplyObject(reply);
}

static void by_lessor(struct crew *c, unsigned self, unsigned job) {
        char key[48], value[96];
        lessor_db *db;
        lessor_error e;

        name_value(self, key, value);
        if (lessor_database(c->argument, NULL, &db, &e) != 0)
                crew_trouble(c, self, "cannot attach: %s", e.text);
        else
                check_reply(c, self, lessor_command(db, &e, "GET %s", key), value, e.text);
}

static void directly(struct crew *c, unsigned self, unsigned job) {
        redisContext *connection = servers_connect(c->servers);
        char key[48], value[96];

        name_value(self, key, value);
        if (!connection)
                crew_trouble(c, self, "%s", c->servers->error);
        else
                check_reply(c, self, redisCommand(connection, "GET %s", key), value, connection->errstr);
}

/* ---- one storm ------------------------------------------------------------------------------------------------- */

struct arm {
        crew_work *work;
        struct sample each;     /* of one storm, ms */
        struct sample p50, all; /* by round */
};

static void collect(struct arm *a, struct crew *c) {
        sample_clear(&a->each);
        for (unsigned i = 0; i < c->n; i++)
                sample_add(&a->each, (double)(crew_member(c, i)->ended_ns - crew_begun_ns(c)) / NS_PER_MS);
        sample_add(&a->p50, sample_median(&a->each));
        sample_add(&a->all, sample_most(&a->each));
}

/* `meanwhile` is called while all workers still have what they got. */
static int storm(struct servers *s, struct arm *a, lessor *handle, int (*meanwhile)(struct servers *, void *),
                 void *argument) {
        struct crew c = {0};
        int r = crew_start(&c, s, WORKERS, 0, a->work, handle);

        if (r == 0) {
                crew_begin(&c, 0);
                r = crew_finish(&c);
        }
        if (r == 0)
                collect(a, &c);
        if (r == 0 && meanwhile)
                r = meanwhile(s, argument);
        crew_end(&c);
        return r;
}

/* ---- the cap --------------------------------------------------------------------------------------------------- */

struct cap {
        redisContext *admin;
        double before, peak, listed, accepted; /* connections; the last three the most of all rounds */
};

static double listed_clients(redisContext *admin) {
        redisReply *reply = redisCommand(admin, "CLIENT LIST");
        double n = 0;
        for (const char *at = reply ? reply->str : NULL; at && (at = strstr(at, "name=lessor:")); at++)
                n++;
        freeReplyObject(reply);
        return n;
}

static void most(double *of, double value) { *of = value > *of ? value : *of; }

static bool all_counted(const struct lessor_status *status, void *argument) {
        struct lessor_status_database d;
        if (lessor_status_read_database(status, 0, LESSOR_STATUS_NO_HISTOGRAMS, &d) != 0)
                return false;
        most(argument, (double)d.peak_connections);
        return lessor_status_word(&status->header->sessions) == WORKERS;
}

static int look_at_cap(struct servers *s, void *argument) {
        struct cap *cap = argument;
        int r = servers_wait_status(s, all_counted, &cap->peak);

        most(&cap->listed, listed_clients(cap->admin));
        most(&cap->accepted, servers_redis_connections(cap->admin) - cap->before);
        if (r == 0 && (cap->peak > CAP || cap->listed > CAP))
                return servers_fail(s, -EIO, "the cap of %d did not hold: %.0f open at once, %.0f seen by Redis", CAP,
                                    cap->peak, cap->listed);
        return r;
}

static int lessor_storm(struct servers *s, struct arm *a, struct cap *cap) {
        char config[192];
        lessor *l;
        int r;

        snprintf(config, sizeof(config), "databases:\n  main: {db: 0, unix_socket: %s, max_connections: %d}\n",
                 s->redis_socket, CAP);
        r = servers_start_broker(s, config);
        if (r == 0 && lessor_open(s->broker_socket, &l) < 0)
                r = servers_fail(s, -ENOMEM, "out of memory");
        if (r < 0)
                return r;
        servers_unpin(s->broker);
        cap->before = servers_redis_connections(cap->admin);
        r = storm(s, a, l, look_at_cap, cap);
        lessor_close(l);
        if (r == 0)
                servers_stop_broker(s); /* else its last words are wanted */
        return r;
}

/* ---------------------------------------------------------------------------------------------------------------- */

static int run_round(struct servers *s, struct arm *ours, struct arm *theirs, struct cap *cap, bool ours_first) {
        int r = ours_first ? lessor_storm(s, ours, cap) : 0;
        if (r == 0)
                r = storm(s, theirs, NULL, NULL, NULL);
        return r == 0 && !ours_first ? lessor_storm(s, ours, cap) : r;
}

static void tell(struct arm *ours, struct arm *theirs, struct sample *ratios, const struct cap *cap,
                 struct bench_result *ret) {
        json_t *x = ret->extra;

        ret->reference = sample_median(&theirs->all);
        ret->value = ret->reference * sample_median(ratios);
        bench_put(x, "ratio", bench_spread(ratios));
        bench_put(x, "last_ms", bench_spread(&ours->all));
        bench_put(x, "reference_last_ms", bench_spread(&theirs->all));
        bench_put(x, "median_worker_ms", bench_spread(&ours->p50));
        bench_put(x, "reference_median_worker_ms", bench_spread(&theirs->p50));
        bench_put(x, "workers", json_integer(WORKERS));
        bench_put(x, "cap", json_integer(CAP));
        bench_put(x, "peak_connections", json_real(cap->peak));
        bench_put(x, "redis_clients", json_real(cap->listed));
        bench_put(x, "redis_accepted", json_real(cap->accepted));
        bench_put(x, "cap_held", json_true()); /* or we should not be here */
        bench_put(x, "wrong_replies", json_integer(0));
}

static void arm_deinit(struct arm *a) {
        struct sample *all[] = {&a->each, &a->p50, &a->all};
        for (size_t i = 0; i < ARRAY_SIZE(all); i++)
                sample_deinit(all[i]);
}

static int run(const struct bench_options *o, struct servers *s, struct bench_result *ret) {
        struct arm ours = {.work = by_lessor}, theirs = {.work = directly};
        struct sample ratios = {0};
        struct cap cap = {0};
        int r = servers_start_redis(s);

        cap.admin = r == 0 ? servers_connect(s) : NULL;
        r = cap.admin ? write_values(cap.admin, s) : -EIO;
        if (r == 0)
                servers_unpin(s->redis);
        for (unsigned i = 0; i < o->rounds && r == 0; i++) {
                r = run_round(s, &ours, &theirs, &cap, i & 1);
                if (r == 0)
                        sample_add(&ratios, ours.all.values[i] / theirs.all.values[i]);
        }
        if (r == 0)
                tell(&ours, &theirs, &ratios, &cap, ret);
        if (cap.admin)
                redisFree(cap.admin);
        sample_deinit(&ratios);
        arm_deinit(&ours);
        arm_deinit(&theirs);
        return r;
}

const struct bench bench_storm = {
        .name = "storm",
        .unit = "ms",
        .summary = "1,000 workers attach at once and ask a first command, against as many direct connections",
        .at_most = true,
        .bar = 1,
        .own_broker = true,
        .run = run,
};

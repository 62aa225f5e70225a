/* SPDX-License-Identifier: MIT */
/*
 * pipeline: one process with many commands under way by lane (lessor/queue.h), against hiredis pipelining as many on a
 * private connection: so many commands are submitted, then as many replies taken. What it costs that a broker stands
 * between; the more are under way, the less.
 *
 * Depth by depth and side by side, in slices in turn; each slice's rate set against that of the private connection beside
 * it. Commands are SET and GET of the same key in turn: in order, or the values are wrong.
 */
#include <inttypes.h>
#include <string.h>

#include <base/cleanup.h>
#include <base/clock.h>
#include <lessor/queue.h>

#include "bench.h"

enum { DEPTH_MOST = 256, TURNS = 4, WAIT_MS = 60000 };
#define SLICE_NS (40 * NS_PER_MS)
#define BAR 0.7

static const unsigned depths[] = {1, 4, 16, 64, DEPTH_MOST};
enum { DEPTHS = ARRAY_SIZE(depths), TOLD = 3 };

struct command {
        const char *argv[3];
        size_t lengths[3];
        int argc;
        char key[48], value[96]; /* what is set, or is expected */
};

struct side {
        int (*turn)(struct servers *s, struct side *side, unsigned n); /* n commands; 0, or s->error */
        lessor_db *db;
        lessor_queue *queue;      /* of Lessor */
        redisContext *connection; /* of the private connection */
        uint64_t number;
        struct command commands[DEPTH_MOST]; /* under way: by number, round and round */
};

static struct command *next_command(struct side *side) {
        struct command *c = &side->commands[side->number % DEPTH_MOST];
        bool set = side->number % 2 == 0;

        snprintf(c->key, sizeof(c->key), "lessor:bench:%d:%d", (int)getpid(), side->queue ? 1 : 2);
        snprintf(c->value, sizeof(c->value), "value of %d, %" PRIu64, (int)getpid(), side->number++ / 2);
        c->argc = set ? 3 : 2;
        c->argv[0] = set ? "SET" : "GET";
        c->argv[1] = c->key;
        c->argv[2] = c->value;
        for (int k = 0; k < c->argc; k++)
                c->lengths[k] = strlen(c->argv[k]);
        return c;
}

static int check_reply(struct servers *s, const struct command *c, redisReply *reply) {
        const char *expected = c->argc == 3 ? "OK" : c->value;
        bool good = reply->str && strcmp(reply->str, expected) == 0;

        if (!good)
                servers_fail(s, -EIO, "a wrong reply: `%s`, expected `%s`", reply->str ? reply->str : "", expected);
        freeReplyObject(reply);
        return good ? 0 : -EIO;
}

/* 1: one is taken; 0: there is none within that time. */
static int take_one(struct servers *s, struct side *side, int wait_ms) {
        lessor_result result;
        int r = lessor_reap(side->queue, wait_ms, &result);

        if (r == 0)
                return 0;
        if (r != 1 || !result.reply)
                return servers_fail(s, -EIO, "reap: %s", r == 1 ? result.error.text : lessor_outcome_text(r));
        r = check_reply(s, result.userdata, result.reply);
        return r < 0 ? r : 1;
}

/* All that are there, at least one. */
static int take_all(struct servers *s, struct side *side) {
        int taken = 0, r = take_one(s, side, WAIT_MS);

        for (; r == 1; r = take_one(s, side, 0))
                taken++;
        if (r == 0 && taken == 0)
                return servers_fail(s, -ETIMEDOUT, "no reply within %d s", WAIT_MS / 1000);
        return r < 0 ? r : taken;
}

/* A lane may be full before the deepest is under way: then replies are taken first. */
static int submit_one(struct servers *s, struct side *side) {
        struct command *c = next_command(side);
        lessor_error e = {0};
        int r = 0;

        while (r >= 0 && lessor_submit(side->queue, side->db, WAIT_MS, c->argc, c->argv, c->lengths, c, &e) != 0)
                r = e.code == LESSOR_E_EXHAUSTED && lessor_queue_in_flight(side->queue) > 0
                            ? take_all(s, side)
                            : servers_fail(s, -EIO, "submit: %s", e.text);
        return r;
}

static int lane_turn(struct servers *s, struct side *side, unsigned n) {
        int r = 0;

        for (unsigned i = 0; i < n && r >= 0; i++)
                r = submit_one(s, side);
        while (r >= 0 && lessor_queue_in_flight(side->queue) > 0)
                r = take_all(s, side);
        return r < 0 ? r : 0;
}

static int private_turn(struct servers *s, struct side *side, unsigned n) {
        struct command *commands[DEPTH_MOST];
        void *reply;

        for (unsigned i = 0; i < n; i++) {
                struct command *c = commands[i] = next_command(side);
                if (redisAppendCommandArgv(side->connection, c->argc, c->argv, c->lengths) != REDIS_OK)
                        return servers_fail(s, -ENOMEM, "out of memory");
        }
        for (unsigned i = 0; i < n; i++) {
                if (redisGetReply(side->connection, &reply) != REDIS_OK)
                        return servers_fail(s, -EIO, "%s", side->connection->errstr);
                int r = check_reply(s, commands[i], reply);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* ---------------------------------------------------------------------------------------------------------------- */

struct depth {
        unsigned n;
        struct sample ours, theirs, ratios; /* of the slices of a round */
        struct sample rate, reference, ratio;
};

static int slice(struct servers *s, struct side *side, unsigned n, struct sample *ret) {
        uint64_t start = clock_now(), now = start, done = 0;
        int r = 0;

        for (; r == 0 && now - start < SLICE_NS; now = clock_now(), done += n)
                r = side->turn(s, side, n);
        if (r == 0)
                sample_add(ret, (double)done * 1e9 / (double)(now - start));
        return r;
}

static int run_round(struct servers *s, struct depth *d, struct side *ours, struct side *theirs) {
        int r = 0;

        for (unsigned i = 0; i < TURNS && r == 0; i++) {
                r = i % 2 ? slice(s, ours, d->n, &d->ours) : slice(s, theirs, d->n, &d->theirs);
                if (r == 0)
                        r = i % 2 ? slice(s, theirs, d->n, &d->theirs) : slice(s, ours, d->n, &d->ours);
                if (r == 0)
                        sample_add(&d->ratios, d->ours.values[i] / d->theirs.values[i]);
        }
        if (r < 0)
                return r;
        sample_add(&d->rate, sample_median(&d->ours));
        sample_add(&d->reference, sample_median(&d->theirs));
        sample_add(&d->ratio, sample_median(&d->ratios));
        sample_clear(&d->ours);
        sample_clear(&d->theirs);
        sample_clear(&d->ratios);
        return 0;
}

static void depth_deinit(struct depth *d) {
        struct sample *all[] = {&d->ours, &d->theirs, &d->ratios, &d->rate, &d->reference, &d->ratio};
        for (size_t i = 0; i < ARRAY_SIZE(all); i++)
                sample_deinit(all[i]);
}

static void tell(struct depth *d, struct bench_result *ret) {
        ret->reference = sample_median(&d[TOLD].reference);
        ret->value = ret->reference * sample_median(&d[TOLD].ratio);
        for (unsigned i = 0; i < DEPTHS; i++) {
                json_t *o = json_object();
                char name[32];
                snprintf(name, sizeof(name), "in_flight_%u", d[i].n);
                bench_put(o, "ratio", bench_spread(&d[i].ratio));
                bench_put(o, "ops_per_s", bench_spread(&d[i].rate));
                bench_put(o, "reference_ops_per_s", bench_spread(&d[i].reference));
                bench_put(ret->extra, name, o);
        }
}

static int measure(const struct bench_options *o, struct servers *s, struct side *ours, struct side *theirs,
                   struct bench_result *ret) {
        struct depth d[DEPTHS] = {0};
        int r = 0;

        for (unsigned i = 0; i < DEPTHS; i++)
                d[i].n = depths[i];
        for (unsigned i = 0; i < o->rounds * DEPTHS && r == 0; i++)
                r = run_round(s, &d[i % DEPTHS], ours, theirs);
        if (r == 0)
                tell(d, ret);
        for (unsigned i = 0; i < DEPTHS; i++)
                depth_deinit(&d[i]);
        return r;
}

static int start(struct servers *s) {
        char config[256];
        int r = servers_start_redis(s);

        snprintf(config, sizeof(config), "databases:\n  main: {unix_socket: %s, path: lane, socket_timeout: 60s}\n",
                 s->redis_socket);
        if (r == 0)
                r = servers_start_broker(s, config);
        if (r == 0) {
                servers_unpin(s->redis);
                servers_unpin(s->broker);
        }
        return r;
}

static int run(const struct bench_options *o, struct servers *s, struct bench_result *ret) {
        static struct side ours = {.turn = lane_turn}, theirs = {.turn = private_turn};
        lessor_error e = {0};
        lessor *l = NULL;
        int r = start(s);

        if (r < 0)
                return r;
        if (lessor_open(s->broker_socket, &l) < 0 || lessor_queue_new(l, &ours.queue) < 0)
                r = servers_fail(s, -ENOMEM, "out of memory");
        else if (lessor_database(l, NULL, &ours.db, &e) != 0)
                r = servers_fail(s, e.code, "cannot attach: %s", e.text);
        else if (!(theirs.connection = servers_connect(s)))
                r = -EIO;
        else
                r = measure(o, s, &ours, &theirs, ret);
        if (theirs.connection)
                redisFree(theirs.connection);
        lessor_queue_free(ours.queue);
        lessor_close(l);
        return r;
}

const struct bench bench_pipeline = {
        .name = "pipeline",
        .own_arm = "in_flight_64",
        .unit = "ops/s",
        .summary =
                "64 commands under way from one process by lane, against hiredis pipelining as many; 1 to 256 in extra",
        .bar = BAR,
        .own_broker = true,
        .run = run,
};

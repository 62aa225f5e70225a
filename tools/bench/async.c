/* SPDX-License-Identifier: MIT */
/*
 * async: one event loop (libevent) with 64 commands under way (lessor/async.h), against a private redisAsyncContext
 * on the same loop with as many. From a callback the next command is submitted, so there are always 64, until the slice is
 * over; then what is under way is waited for.
 *
 * In slices in turn; each slice's rate is set against the private one's beside it. Commands are SET and GET of the same key
 * in turn: in order, or the values are wrong. Ours go as the broker advises, which for a loop that is alone is a borrowed connection;
 * beside it (by_lane) what they do by lane, where many workers' commands would go.
 */
#include <inttypes.h>
#include <signal.h>
#include <string.h>

#include <base/cleanup.h>
#include <base/clock.h>
#include <event2/event.h>
#include <lessor/adapters/libevent.h>

#include "bench.h"

enum { IN_FLIGHT = 64, TURNS = 4, WAIT_MS = 60000 };
#define SLICE_NS (100 * NS_PER_MS)
#define BAR 0.8

struct command {
        struct side *side;
        bool set;
        char key[48], value[96]; /* what is set, or is expected */
};

struct side {
        struct servers *s;
        const char *name;      /* of its key */
        lessor_async_db *db;   /* of Lessor */
        redisAsyncContext *ac; /* of the private connection */
        struct command commands[IN_FLIGHT];
        uint64_t number, done, until;
        unsigned under_way;
        int result; /* 0, or why it broke off */
};

static int submit_private(struct side *side, struct command *c, int argc, const char **argv);
static int submit_lessor(struct side *side, struct command *c, int argc, const char **argv);

/* The next one in the place of c, which is answered. */
static void next(struct side *side, struct command *c) {
        const char *argv[3] = {"SET", c->key, c->value};
        int r;

        c->side = side;
        c->set = side->number % 2 == 0;
        snprintf(c->key, sizeof(c->key), "lessor:bench:%d:%s", (int)getpid(), side->name);
        snprintf(c->value, sizeof(c->value), "value of %d, %" PRIu64, (int)getpid(), side->number++ / 2);
        argv[0] = c->set ? "SET" : "GET";
        r = side->db ? submit_lessor(side, c, c->set ? 3 : 2, argv) : submit_private(side, c, c->set ? 3 : 2, argv);
        if (r == 0)
                side->under_way++;
        else if (side->result == 0)
                side->result = servers_fail(side->s, -EIO, "a command could not be submitted: %d", r);
}

static void answered(struct command *c, const redisReply *reply, const char *why) {
        struct side *side = c->side;
        const char *expected = c->set ? "OK" : c->value;

        side->under_way--;
        if (!reply || !reply->str || strcmp(reply->str, expected) != 0) {
                if (side->result == 0)
                        side->result = servers_fail(side->s, -EIO, "%s `%s`, expected `%s`", why,
                                                    reply && reply->str ? reply->str : "", expected);
                return;
        }
        side->done++;
        /* Looking at the clock once in 64 is often enough, and for both the same. */
        if (side->done % IN_FLIGHT == 0 && clock_now() >= side->until)
                side->until = 0;
        if (side->until != 0 && side->result == 0)
                next(side, c);
}

static void lessor_answered(lessor_async_db *db, redisReply *reply, const lessor_error *error, void *data) {
        answered(data, reply, reply ? "a wrong reply" : error->text);
}

static void private_answered(redisAsyncContext *ac, void *reply, void *data) {
        answered(data, reply, reply ? "a wrong reply" : "the private connection was lost");
}

static int submit_lessor(struct side *side, struct command *c, int argc, const char **argv) {
        return lessor_async_command_argv(side->db, WAIT_MS, lessor_answered, c, argc, argv, NULL);
}

static int submit_private(struct side *side, struct command *c, int argc, const char **argv) {
        return redisAsyncCommandArgv(side->ac, private_answered, c, argc, argv, NULL);
}

/* ---------------------------------------------------------------------------------------------------------------- */

/* One of ours against theirs. */
struct match {
        struct side ours;
        struct sample our_slices, their_slices, ratios; /* of a round */
        struct sample rate, reference, ratio;           /* of the rounds */
};

enum { ADVISED, BY_LANE, MATCHES };
static const char *const databases[MATCHES] = {"main", "lane"};

struct contest {
        struct event_base *base;
        struct match matches[MATCHES];
        struct side theirs;
};

/* The loop ends, of ours by itself, of theirs when there is nothing to wait for: a private connection always waits. */
static int slice(struct contest *c, struct side *side, struct sample *ret) {
        uint64_t start = clock_now(), now;

        side->done = 0;
        side->until = start + SLICE_NS;
        for (unsigned i = 0; i < IN_FLIGHT && side->result == 0; i++)
                next(side, &side->commands[i]);
        while (side->under_way > 0 && side->result == 0)
                event_base_loop(c->base, EVLOOP_ONCE);
        now = clock_now();
        if (side->result == 0)
                sample_add(ret, (double)side->done * 1e9 / (double)(now - start));
        return side->result;
}

static int run_round(struct contest *c, struct match *m) {
        int r = 0;

        for (unsigned i = 0; i < TURNS && r == 0; i++) {
                r = i % 2 ? slice(c, &m->ours, &m->our_slices) : slice(c, &c->theirs, &m->their_slices);
                if (r == 0)
                        r = i % 2 ? slice(c, &c->theirs, &m->their_slices) : slice(c, &m->ours, &m->our_slices);
                if (r == 0)
                        sample_add(&m->ratios, m->our_slices.values[i] / m->their_slices.values[i]);
        }
        if (r < 0)
                return r;
        sample_add(&m->rate, sample_median(&m->our_slices));
        sample_add(&m->reference, sample_median(&m->their_slices));
        sample_add(&m->ratio, sample_median(&m->ratios));
        sample_clear(&m->our_slices);
        sample_clear(&m->their_slices);
        sample_clear(&m->ratios);
        return 0;
}

static void tell(struct match *m, json_t *ret) {
        bench_put(ret, "ratio", bench_spread(&m->ratio));
        bench_put(ret, "ops_per_s", bench_spread(&m->rate));
        bench_put(ret, "reference_ops_per_s", bench_spread(&m->reference));
}

static void match_deinit(struct match *m) {
        struct sample *all[] = {&m->our_slices, &m->their_slices, &m->ratios, &m->rate, &m->reference, &m->ratio};

        for (unsigned i = 0; i < ARRAY_SIZE(all); i++)
                sample_deinit(all[i]);
}

/* Attaches, connects, opens lanes. */
static int warm_up(struct contest *c) {
        struct sample none = {0};
        int r = slice(c, &c->theirs, &none);

        for (unsigned i = 0; i < MATCHES && r == 0; i++)
                r = slice(c, &c->matches[i].ours, &none);
        sample_deinit(&none);
        return r;
}

static int measure(const struct bench_options *o, struct contest *c, struct bench_result *ret) {
        struct match *told = &c->matches[ADVISED];
        int r = warm_up(c);

        for (unsigned i = 0; i < o->rounds * MATCHES && r == 0; i++)
                r = run_round(c, &c->matches[i % MATCHES]);
        if (r == 0) {
                json_t *by_lane = json_object();
                ret->reference = sample_median(&told->reference);
                ret->value = ret->reference * sample_median(&told->ratio);
                tell(told, ret->extra);
                tell(&c->matches[BY_LANE], by_lane);
                bench_put(ret->extra, "by_lane", by_lane);
        }
        for (unsigned i = 0; i < MATCHES; i++)
                match_deinit(&c->matches[i]);
        return r;
}

static int start(struct servers *s) {
        char config[384];
        int r = servers_start_redis(s);

        snprintf(config, sizeof(config),
                 "unix_socket: %s\nsocket_timeout: 60s\ndatabases:\n  main: {db: 0}\n  lane: {db: 0, path: lane}\n",
                 s->redis_socket);
        if (r == 0)
                r = servers_start_broker(s, config);
        if (r == 0) {
                servers_unpin(s->redis);
                servers_unpin(s->broker);
        }
        return r;
}

static int open_ours(struct servers *s, struct contest *c, lessor **l, lessor_async **async) {
        int r = lessor_open(s->broker_socket, l);

        if (r == 0)
                r = lessor_async_new(*l, async);
        if (r == 0)
                r = lessor_libevent_attach(*async, c->base);
        for (unsigned i = 0; i < MATCHES && r == 0; i++) {
                c->matches[i].ours.s = s;
                c->matches[i].ours.name = databases[i];
                r = lessor_async_database(*async, databases[i], &c->matches[i].ours.db);
        }
        return r == 0 ? 0 : servers_fail(s, -ENOMEM, "%s", lessor_outcome_text(r));
}

static int open_theirs(struct servers *s, struct contest *c) {
        c->theirs.s = s;
        c->theirs.name = "private";
        c->theirs.ac = redisAsyncConnectUnix(s->redis_socket);
        if (!c->theirs.ac || c->theirs.ac->err || redisLibeventAttach(c->theirs.ac, c->base) != REDIS_OK)
                return servers_fail(s, -EIO, "cannot connect to the private redis-server");
        return 0;
}

static int run(const struct bench_options *o, struct servers *s, struct bench_result *ret) {
        static struct contest c;
        lessor_async *async = NULL;
        lessor *l = NULL;
        int r = start(s);

        if (r < 0)
                return r;
        signal(SIGPIPE, SIG_IGN);
        c.base = event_base_new();
        r = c.base ? open_ours(s, &c, &l, &async) : servers_fail(s, -ENOMEM, "out of memory");
        if (r == 0)
                r = open_theirs(s, &c);
        if (r == 0)
                r = measure(o, &c, ret);
        if (c.theirs.ac)
                redisAsyncFree(c.theirs.ac);
        lessor_async_free(async);
        lessor_close(l);
        if (c.base)
                event_base_free(c.base);
        return r;
}

const struct bench bench_async = {
        .name = "async",
        .unit = "ops/s",
        .summary = "64 commands under way on one event loop, against a private hiredis context on the same loop",
        .bar = BAR,
        .own_broker = true,
        .run = run,
};

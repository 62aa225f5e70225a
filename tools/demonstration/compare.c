/* SPDX-License-Identifier: MIT */
/*
 * Many workers, few connections, and how fast that is: the same workers say SET and GET through Lessor, on at most 20
 * connections, and on a private connection each, by turns. `lessor bench crowd` measures this with care; here it can be watched.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <base/clock.h>

#include "bench/crew.h"
#include "demo.h"
#include "format.h"

enum { WORKERS = 200, CAP = 20, ROUNDS = 3, SHARED = 0, PRIVATE = 1, CONNECT = 2 };
#define WARM_NS (200 * NS_PER_MS)
#define MEASURE_NS (600 * NS_PER_MS)

struct own {
        lessor_db *db;
        redisContext *direct;
        lessor_error error;
        uint64_t number;
};

static struct own own; /* each worker process has one */

static void connect_both(struct crew *crew, unsigned self) {
        struct demo *d = crew->argument;

        if (lessor_database(d->handle, NULL, &own.db, &own.error) != 0)
                crew_trouble(crew, self, "%s", own.error.text);
        own.direct = servers_connect(crew->servers);
        if (!own.direct)
                crew_trouble(crew, self, "%s", crew->servers->error);
}

static redisReply *say(unsigned way, const char *command) {
        return way == SHARED ? lessor_command(own.db, &own.error, command)
                             : redisCommand(own.direct, command); /* NOLINT */
}

/* A value names its worker and its number. */
static bool set_and_get(struct crew *crew, unsigned self, unsigned way) {
        struct crew_member *me = crew_member(crew, self);
        char text[128], value[64];

        snprintf(value, sizeof(value), "%u-%" PRIu64, self, own.number++);
        snprintf(text, sizeof(text), "SET lessor-demo:%u %s", self, value);
        redisReply *set = say(way, text);
        snprintf(text, sizeof(text), "GET lessor-demo:%u", self);
        redisReply *get = set ? say(way, text) : NULL;
        if (!get)
                crew_trouble(crew, self, "%s", way == SHARED ? own.error.text : own.direct->errstr);
        else
                me->wrong += !get->str || strcmp(get->str, value) != 0;
        if (crew_phase(crew) == CREW_MEASURING)
                me->operations += 2;
        freeReplyObject(set);
        freeReplyObject(get);
        return get != NULL;
}

static void work(struct crew *crew, unsigned self, unsigned job) {
        if (job == CONNECT)
                connect_both(crew, self);
        else
                while (crew_phase(crew) != CREW_OVER && set_and_get(crew, self, job))
                        ;
}

/* Operations a second, the best of the rounds: this is a show, and the machine may be at other things. */
static int measure(struct crew *crew, unsigned way, double *best) {
        crew_begin(crew, way);
        uint64_t ns = crew_measure(crew, WARM_NS, MEASURE_NS);
        int r = crew_finish(crew);
        double rate = (double)crew_sum(crew, offsetof(struct crew_member, operations)) * 1e9 / (double)(ns ? ns : 1);

        *best = rate > *best ? rate : *best;
        return r;
}

static int by_turns(struct crew *crew) {
        double rate[2] = {0};
        int r;

        crew_begin(crew, CONNECT);
        r = crew_finish(crew);
        for (unsigned i = 0; i < ROUNDS && r == 0; i++)
                for (unsigned way = SHARED; way <= PRIVATE && r == 0; way++)
                        r = measure(crew, way, &rate[way]);
        if (r < 0)
                return r;
        printf("\n%d workers say SET and GET, the best of %d rounds by turns\n\n", WORKERS, ROUNDS);
        printf("  by Lessor     %11s   a second, on at most %d connections\n", format_real(rate[SHARED]).s, CAP);
        printf("  private       %11s   a second, on a connection each: %d\n", format_real(rate[PRIVATE]).s, WORKERS);
        printf("\nSharing is %.1f times as fast.\n", rate[SHARED] / rate[PRIVATE]);
        return 0;
}

static int start_broker_for_all(struct demo *d) {
        char config[256];

        servers_stop_broker(d->servers);
        freeReplyObject(redisCommand(d->redis, "CONFIG SET maxclients %d", 2 * WORKERS + 2 * CAP));
        snprintf(config, sizeof(config), "max_connections: %d\ndatabases: {main: {unix_socket: \"%s\"}}\n", CAP,
                 d->servers->redis_socket);
        return servers_start_broker(d->servers, config);
}

int demo_compare(struct demo *d) {
        struct crew crew = {0};
        int r = start_broker_for_all(d);

        if (r < 0)
                return r;
        servers_unpin(d->servers->redis);
        servers_unpin(d->servers->broker);
        r = crew_start(&crew, d->servers, WORKERS, 0, work, d);
        if (r == 0)
                r = by_turns(&crew);
        crew_end(&crew);
        return r;
}

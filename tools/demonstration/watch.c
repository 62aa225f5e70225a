/* SPDX-License-Identifier: MIT */
/* Looking on from outside: what Redis says of its connections, and what the broker's books say at the end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "demo.h"

struct demo_totals demo_totals(const struct demo *d) {
        struct demo_totals t = {0};
        for (unsigned i = 0; i < d->o.workers; i++) {
                t.operations += atomic_load_explicit(&d->board->tally[i].operations, memory_order_relaxed);
                t.errors += atomic_load_explicit(&d->board->tally[i].errors, memory_order_relaxed);
                t.cut_off += atomic_load_explicit(&d->board->tally[i].cut_off, memory_order_relaxed);
                t.wrong += atomic_load_explicit(&d->board->tally[i].wrong, memory_order_relaxed);
        }
        return t;
}

static redisReply *ask(struct demo *d, const char *command) {
        redisReply *r = redisCommand(d->redis, command); /* NOLINT: constant commands of this file */
        if (r && r->type == REDIS_REPLY_STRING)
                return r;
        freeReplyObject(r);
        return NULL;
}

static void learn_version(struct demo *d) {
        redisReply *r = ask(d, "INFO server");
        const char *at = r ? strstr(r->str, "redis_version:") : NULL;
        if (at)
                snprintf(d->redis_version, sizeof(d->redis_version), "%.*s", (int)strcspn(at + 14, "\r\n"), at + 14);
        freeReplyObject(r);
}

/* One connection more than that and ours, and a private Redis would refuse it: the table cannot miss it. */
static void expect(struct demo *d, unsigned connections) {
        if (!d->o.redis)
                freeReplyObject(redisCommand(d->redis, "CONFIG SET maxclients %u", connections + 1));
}

int demo_watch_next(struct demo *d) {
        lessor_status_close(&d->status);
        int r = lessor_status_open(d->servers->instance, &d->status);
        return r < 0 ? servers_fail(d->servers, r, "cannot read the broker's status segment: %s", strerror(-r)) : 0;
}

int demo_watch_start(struct demo *d) {
        int r = demo_watch_next(d);
        if (r < 0)
                return r;
        learn_version(d);
        expect(d, demo_cap(d));
        if (!d->o.redis)
                freeReplyObject(redisCommand(d->redis, "CONFIG RESETSTAT"));
        return 0;
}

void demo_expect_two(struct demo *d) {
        demo_watch_connections(d);
        expect(d, 2 * demo_cap(d));
}

static unsigned count(const char *list, const char *wanted) {
        unsigned n = 0;
        for (const char *p = list; (p = strstr(p, wanted)); p += strlen(wanted))
                n++;
        return n;
}

/* Connections refused above the cap would have been connections: they count as seen. */
static unsigned refused(struct demo *d) {
        redisReply *r = d->o.redis ? NULL : ask(d, "INFO stats");
        const char *at = r ? strstr(r->str, "rejected_connections:") : NULL;
        unsigned n = at ? (unsigned)strtoul(at + strlen("rejected_connections:"), NULL, 10) : 0;
        freeReplyObject(r);
        return n;
}

void demo_watch_connections(struct demo *d) {
        char wanted[64];
        redisReply *r = ask(d, "CLIENT LIST");
        unsigned over = refused(d);

        snprintf(wanted, sizeof(wanted), " name=lessor:%s:", d->servers->instance);
        bool between = atomic_load(&d->board->broker_killed);
        unsigned *most = between ? &d->most_between : &d->most_connections;

        if (r)
                d->connections = count(r->str, wanted);
        if (over > 0 && *most <= demo_cap(d) * (1U + between))
                *most = demo_cap(d) * (1U + between) + over;
        if (d->connections > *most)
                *most = d->connections;
        freeReplyObject(r);
}

/* Every place is accounted for: what is open is available, nobody waits, nobody is attached. */
bool demo_settled(const struct lessor_status *status, void *demo) {
        struct lessor_status_database db;
        struct demo *d = demo;

        d->places_lost = 0;
        for (unsigned i = 0; i < lessor_status_databases(status); i++) {
                if (lessor_status_read_database(status, i, LESSOR_STATUS_NO_HISTOGRAMS, &db) < 0)
                        return false;
                d->places_lost += db.open_connections - db.available_connections - db.lane_connections + db.waiting;
        }
        return d->places_lost == 0 && lessor_status_word(&status->header->sessions) == 0;
}

static void remove_keys(struct demo *d) {
        char cursor[32] = "0";
        do {
                redisReply *r = redisCommand(d->redis, "SCAN %s MATCH %s* COUNT 1000", cursor, d->board->prefix);
                if (!r || r->type != REDIS_REPLY_ARRAY || r->elements != 2) {
                        freeReplyObject(r);
                        return;
                }
                snprintf(cursor, sizeof(cursor), "%s", r->element[0]->str);
                for (size_t i = 0; i < r->element[1]->elements; i++)
                        freeReplyObject(redisCommand(d->redis, "UNLINK %s", r->element[1]->element[i]->str));
                freeReplyObject(r);
        } while (strcmp(cursor, "0") != 0);
}

void demo_clean_up(struct demo *d) {
        if (!d->o.redis || !d->redis)
                return;
        for (unsigned db = 0; db < DEMO_DATABASES - 1; db++) {
                freeReplyObject(redisCommand(d->redis, "SELECT %u", db));
                remove_keys(d);
        }
}

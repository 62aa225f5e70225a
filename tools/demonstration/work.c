/* SPDX-License-Identifier: MIT */
/*
 * What a worker does: commands of many kinds, on a database picked by chance, and every reply is checked. Values begin
 * with their own key, so that a reply to somebody else's command gives itself away; counters that one transaction
 * raises together are equal.
 */
#include "demo.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <base/cleanup.h>

enum { KEYS = 50, PIPE_PAIRS = 5 };

struct worker {
        lessor *handle;
        struct demo_board *board;
        struct demo_tally *tally;
        unsigned number;
        uint64_t chance;
        lessor_db *db;    /* of this turn */
        const char *name; /* of that database */
        long long counter[DEMO_DATABASES];
};

static unsigned chance(struct worker *w, unsigned below) {
        w->chance ^= w->chance << 13;
        w->chance ^= w->chance >> 7;
        w->chance ^= w->chance << 17;
        return (unsigned)((w->chance >> 32) % below);
}

/* The first of its kind is kept for the report. */
__attribute__((format(printf, 4, 0))) static void say_once(struct worker *w, unsigned bit, char text[DEMO_TEXT],
                                                           const char *fmt, va_list args) {
        if (!(atomic_fetch_or(&w->board->said, bit) & bit))
                vsnprintf(text, DEMO_TEXT, fmt, args);
}

__attribute__((format(printf, 2, 3))) static void count_error(struct worker *w, const char *fmt, ...) {
        va_list args;
        va_start(args, fmt);
        atomic_fetch_add_explicit(&w->tally->errors, 1, memory_order_relaxed);
        say_once(w, 1, w->board->first_error, fmt, args);
        va_end(args);
}

__attribute__((format(printf, 2, 3))) static void count_wrong(struct worker *w, const char *fmt, ...) {
        va_list args;
        va_start(args, fmt);
        atomic_fetch_add_explicit(&w->tally->wrong, 1, memory_order_relaxed);
        say_once(w, 2, w->board->first_wrong, fmt, args);
        va_end(args);
}

/* Who asks while the broker is gone is told so, and comes again; who had asked is told that it may have run. */
static void count_failure(struct worker *w, const char *what, const lessor_error *e) {
        if (!atomic_load(&w->board->broker_killed) || e->code != LESSOR_E_UNAVAILABLE)
                count_error(w, "%s on %s: %s", what, w->name, e->text);
        else if (e->may_have_run)
                atomic_fetch_add_explicit(&w->tally->cut_off, 1, memory_order_relaxed);
        else
                nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

static void count_done(struct worker *w, unsigned operations) {
        atomic_fetch_add_explicit(&w->tally->operations, operations, memory_order_relaxed);
}

/* A reply that came and is of this type; says so otherwise. */
static bool is_reply(struct worker *w, const char *what, const redisReply *r, int type, const lessor_error *e) {
        if (!r) {
                count_failure(w, what, e);
                return false;
        }
        count_done(w, 1);
        if (r->type == REDIS_REPLY_ERROR)
                count_error(w, "%s on %s: Redis: %s", what, w->name, r->str);
        else if (r->type != type)
                count_wrong(w, "%s on %s: a reply of type %d, not %d", what, w->name, r->type, type);
        return r->type == type;
}

/* The value of a key begins with the key and '='. */
static void check_value(struct worker *w, const char *key, const redisReply *r) {
        size_t n = strlen(key);
        if (r->len <= n || memcmp(r->str, key, n) != 0 || r->str[n] != '=')
                count_wrong(w, "%s on %s is `%.60s`", key, w->name, r->str);
}

static void pick_key(struct worker *w, char key[64]) {
        snprintf(key, 64, "%s%s:%u", w->board->prefix, w->name, chance(w, KEYS));
}

static void set_and_get(struct worker *w) {
        lessor_error e = {0};
        char key[64];

        pick_key(w, key);
        redisReply *r = lessor_command(w->db, &e, "SET %s %s=%u", key, key, chance(w, 1000000));
        bool set = is_reply(w, "SET", r, REDIS_REPLY_STATUS, &e);
        freeReplyObject(r);
        if (!set)
                return;
        r = lessor_command(w->db, &e, "GET %s", key);
        if (is_reply(w, "GET", r, REDIS_REPLY_STRING, &e))
                check_value(w, key, r);
        freeReplyObject(r);
}

static void increment(struct worker *w, unsigned database) {
        lessor_error e = {0};
        redisReply *r = lessor_command(w->db, &e, "INCR %scounter", w->board->prefix);
        if (is_reply(w, "INCR", r, REDIS_REPLY_INTEGER, &e)) {
                if (r->integer <= w->counter[database])
                        count_wrong(w, "INCR on %s: %lld after %lld", w->name, r->integer, w->counter[database]);
                w->counter[database] = r->integer;
        }
        freeReplyObject(r);
}

static void pipeline(struct worker *w, unsigned flags) {
        char keys[PIPE_PAIRS][64];
        redisReply **r = NULL;
        lessor_error e = {0};
        size_t n = 0;

        lessor_pipe *p = lessor_pipe_new(w->db, flags);
        for (unsigned i = 0; p && i < PIPE_PAIRS; i++) {
                pick_key(w, keys[i]);
                lessor_pipe_add(p, "SET %s %s=%u", keys[i], keys[i], chance(w, 1000000));
                lessor_pipe_add(p, "GET %s", keys[i]);
        }
        if (!p)
                count_error(w, "a pipeline: out of memory");
        else if (lessor_pipe_run(p, LESSOR_WAIT_CONFIGURED, &r, &n, &e) != 0)
                count_failure(w, "a pipeline", &e);
        else if (n != (size_t)2 * PIPE_PAIRS)
                count_wrong(w, "a pipeline of %d gave %zu replies", 2 * PIPE_PAIRS, n);
        else
                for (size_t i = 0; i < PIPE_PAIRS; i++)
                        if (is_reply(w, "SET in a pipeline", r[2 * i], REDIS_REPLY_STATUS, &e) &&
                            is_reply(w, "GET in a pipeline", r[2 * i + 1], REDIS_REPLY_STRING, &e))
                                check_value(w, keys[i], r[2 * i + 1]);
        lessor_pipe_replies_free(r, n);
        lessor_pipe_free(p);
}

/* One command on a lease: did its reply come, and of this type? */
__attribute__((format(printf, 5, 6))) static redisReply *on_lease(struct worker *w, lessor_lease *lease,
                                                                  const char *what, int type, const char *fmt, ...) {
        lessor_error e = {0};
        char command[DEMO_TEXT];
        va_list args;

        va_start(args, fmt);
        vsnprintf(command, sizeof(command), fmt, args);
        va_end(args);
        redisReply *r = lessor_lease_command(lease, &e, command); /* our own keys: no blanks, no percent signs */
        if (is_reply(w, what, r, type, &e))
                return r;
        freeReplyObject(r);
        return NULL;
}

static bool say_on_lease(struct worker *w, lessor_lease *lease, const char *what, const char *key) {
        redisReply *r = key ? on_lease(w, lease, what, REDIS_REPLY_STATUS, "%s %s", what, key)
                            : on_lease(w, lease, what, REDIS_REPLY_STATUS, "%s", what);
        freeReplyObject(r);
        return r != NULL;
}

static lessor_lease *borrow(struct worker *w) {
        lessor_error e = {0};
        lessor_lease *lease = lessor_acquire(w->db, LESSOR_WAIT_CONFIGURED, &e);
        if (!lease)
                count_failure(w, "a lease", &e);
        return lease;
}

/* Two counters that only ever rise together. */
static void transaction(struct worker *w) {
        LESSOR_SCOPED lessor_lease *lease = borrow(w);
        char left[64], right[64];

        if (!lease)
                return;
        snprintf(left, sizeof(left), "%sleft", w->board->prefix);
        snprintf(right, sizeof(right), "%sright", w->board->prefix);
        if (!say_on_lease(w, lease, "MULTI", NULL) || !say_on_lease(w, lease, "INCR", left) ||
            !say_on_lease(w, lease, "INCR", right))
                return;
        redisReply *r = on_lease(w, lease, "EXEC", REDIS_REPLY_ARRAY, "EXEC");
        if (r && (r->elements != 2 || r->element[0]->integer != r->element[1]->integer))
                count_wrong(w, "a transaction on %s: %zu replies, %lld and %lld", w->name, r->elements,
                            r->elements > 0 ? r->element[0]->integer : -1,
                            r->elements > 1 ? r->element[1]->integer : -1);
        freeReplyObject(r);
}

/* From a list of this worker's own: a predecessor who was killed may have left something on it. */
static void blocking_pop(struct worker *w) {
        LESSOR_SCOPED lessor_lease *lease = borrow(w);
        char list[64];

        if (!lease)
                return;
        snprintf(list, sizeof(list), "%slist:%u", w->board->prefix, w->number);
        redisReply *r = on_lease(w, lease, "LPUSH", REDIS_REPLY_INTEGER, "LPUSH %s %s=%u", list, list, chance(w, 1000));
        bool pushed = r != NULL;
        freeReplyObject(r);
        if (!pushed)
                return;
        r = on_lease(w, lease, "BLPOP", REDIS_REPLY_ARRAY, "BLPOP %s 1", list);
        if (r && r->elements == 2 && strcmp(r->element[0]->str, list) == 0)
                check_value(w, list, r->element[1]);
        else if (r)
                count_wrong(w, "BLPOP of %s on %s: %zu elements", list, w->name, r->elements);
        freeReplyObject(r);
}

static void take_a_turn(struct worker *w) {
        unsigned database = chance(w, DEMO_DATABASES), what = chance(w, 100);
        lessor_error e = {0};

        w->name = demo_databases[database];
        if (lessor_database(w->handle, w->name, &w->db, &e) != 0)
                count_failure(w, "a look-up", &e);
        else if (what < 45)
                set_and_get(w);
        else if (what < 65)
                increment(w, database);
        else if (what < 80)
                pipeline(w, 0);
        else if (what < 85)
                pipeline(w, LESSOR_ATOMIC);
        else if (what < 95)
                transaction(w);
        else
                blocking_pop(w);
}

void demo_work(lessor *handle, struct demo_board *board, struct demo_tally *tally, unsigned number, unsigned seed) {
        struct worker w = {.handle = handle,
                           .board = board,
                           .tally = tally,
                           .number = number,
                           .chance = UINT64_C(0x9e3779b97f4a7c15) * (seed + 1)};
        while (!atomic_load_explicit(&board->end, memory_order_relaxed))
                take_a_turn(&w);
}

/* SPDX-License-Identifier: MIT */
/*
 * Requests and replies of every size around every boundary: of a lane's areas, of what is handed over apart, and up to
 * Redis' own limit, 512 MB, in a run of tools/check --release ($LESSOR_RELEASE).
 */
#include <hiredis/hiredis.h>
#include <stdatomic.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"

enum { KIB = 1024, MIB = 1024 * 1024, WAIT_MS = 60000 };

static char *value_of(size_t size) {
        char *value = malloc(size + 1);
        if (value)
                for (size_t i = 0; i < size; i++)
                        value[i] = (char)(i * 31 + i / 251 + size);
        return value;
}

static redisReply *command(lessor_db *db, int argc, const char **argv, const size_t *lengths, lessor_error *e) {
        *e = (lessor_error){0};
        return lessor_command_argv(db, LESSOR_WAIT_CONFIGURED, argc, argv, lengths, e);
}

/* Set and got, and likewise as the reply to ECHO alone. */
static void check_size(lessor_db *db, const char *value, size_t size) {
        const char *set[] = {"SET", "k", value}, *get[] = {"GET", "k"};
        lessor_error e;
        redisReply *reply = command(db, 3, set, (size_t[]){3, 1, size}, &e);
        check_msg(reply && reply->type == REDIS_REPLY_STATUS, "SET of %zu bytes: %s", size,
                  reply ? reply->str : e.text);
        freeReplyObject(reply);
        reply = command(db, 2, get, NULL, &e);
        check_msg(reply && reply->type == REDIS_REPLY_STRING, "GET of %zu bytes: %s", size,
                  reply ? reply->str : e.text);
        check_msg((size_t)reply->len == size && memcmp(reply->str, value, size) == 0, "GET of %zu bytes: %zu came back",
                  size, (size_t)reply->len);
        freeReplyObject(reply);
}

/* Areas are as large as said, rounded up to whole pages: all sizes up to where both must be exceeded. */
static void sweep(lessor_db *db, size_t from, size_t to, size_t step) {
        for (size_t size = from; size <= to; size += step) {
                char *value = value_of(size);
                check_size(db, value, size);
                free(value);
        }
}

static void start(struct host *h, const char *lane_size) {
        redis_start(&h->redis, NULL);
        broker_start(&h->broker,
                     "lane_size: %s\ndatabases: {main: {%s, path: lane, max_connections: 3, wait_timeout: 30s}}\n",
                     lane_size, redis_address(&h->redis));
}

TEST_WITH(lane_sizes, every_size_around_the_ends_of_a_small_lane, .timeout = 240) {
        struct host h;
        start(&h, "4KiB");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        sweep(db, 0, 40, 1);
        sweep(db, 4 * KIB - 100, 4 * KIB + 40, 1);
        sweep(db, 4 * KIB, 12 * KIB, PROCESS_SLOW > 1 ? 97 : 13);
        sweep(db, 8 * KIB - 100, 8 * KIB + 40, 1);
        check(broker_figures_now(&h.broker, "main").lane_calls > 500);
        check(broker_figures(&h.broker, "main").lane_apart > 0);
        lessor_close(l);
        host_end(&h);
}

TEST_WITH(lane_sizes, sizes_around_powers_of_two_up_to_64_mib, .timeout = 240) {
        struct host h;
        start(&h, "64KiB");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        for (size_t size = 16 * KIB; size <= 4 * MIB; size *= 2)
                sweep(db, size - 1, size + 1, 1);
        sweep(db, 64 * KIB - 60, 64 * KIB + 20, 3);
        sweep(db, 64 * MIB, 64 * MIB, 1);
        lessor_close(l);
        host_end(&h);
}

TEST_WITH(lane_sizes, as_large_as_redis_allows, .timeout = 1200) {
        struct host h;
        if (!getenv("LESSOR_RELEASE"))
                test_skip("512 MB are for tools/check --release");
        redis_start(&h.redis, NULL);
        broker_start(&h.broker, "databases: {main: {%s, path: lane, socket_timeout: 600s}}\n", redis_address(&h.redis));
        lessor *l = client_open(&h.broker);
        sweep(client_database(l, NULL), 512 * (size_t)MIB, 512 * (size_t)MIB, 1);
        lessor_close(l);
        host_end(&h);
}

TEST(lane_sizes, values_that_look_like_the_protocol_are_values) {
        static const char *const values[] = {"\r\n",   "$-1\r\n",     "+OK\r\n$5\r\nhello\r\n",
                                             "*2\r\n", "-ERR no\r\n", ":1\r\n:2\r\n"};
        struct host h;
        start(&h, "4KiB");
        lessor *l = client_open(&h.broker);
        for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
                check_size(client_database(l, NULL), values[i], strlen(values[i]));
        check_size(client_database(l, NULL), "a\0b\0", 4);
        lessor_close(l);
        host_end(&h);
}

TEST(lane_sizes, a_reply_of_many_elements_is_whole) {
        enum { ELEMENTS = 100000 };
        struct host h;
        start(&h, "4KiB");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        redisReply *reply = client_command(db, "EVAL %s 0", "local t = {} for i = 1, 100000 do t[i] = i end return t");
        check_eq(reply->elements, ELEMENTS);
        for (size_t i = 0; i < ELEMENTS; i++)
                check_eq(reply->element[i]->integer, i + 1);
        freeReplyObject(reply);
        lessor_close(l);
        host_end(&h);
}

/* ---- more at once than there is memory for ------------------------------------------------------------------------------ */

enum { LARGE = 4 * MIB, READERS = 12, READS = 10 };

struct crowd {
        const char *socket;
        _Atomic unsigned good, refused;
};

/* The value, or a word that it was too much; never another's. */
static int read_large(unsigned index, void *arg) {
        struct crowd *c = arg;
        char key[16];
        const char *argv[] = {"GET", key};
        char *expected = value_of(LARGE + index);
        lessor_error e = {0};
        lessor *l;
        lessor_db *db;
        snprintf(key, sizeof(key), "large:%u", index);
        child_check(expected && lessor_open(c->socket, &l) == 0 && lessor_database(l, NULL, &db, &e) == 0);
        for (unsigned i = 0; i < READS; i++) {
                redisReply *reply = command(db, 2, argv, NULL, &e);
                child_check(!reply || (reply->type == REDIS_REPLY_STRING && (size_t)reply->len == LARGE + index &&
                                       memcmp(reply->str, expected, reply->len) == 0));
                child_check(reply || e.may_have_run);
                atomic_fetch_add(reply ? &c->good : &c->refused, 1);
                freeReplyObject(reply);
        }
        lessor_close(l);
        free(expected);
        return 0;
}

TEST_WITH(lane_sizes, large_replies_to_many_stay_within_the_budget_of_the_host, .timeout = 120) {
        struct crowd *c = shared_memory(sizeof(*c));
        struct host h;
        redis_start(&h.redis, NULL);
        broker_start(&h.broker, "reply_budget: 16MiB\ndatabases: {main: {%s, path: lane, socket_timeout: 30s}}\n",
                     redis_address(&h.redis));
        c->socket = h.broker.socket;
        for (unsigned i = 0; i < READERS; i++) {
                char *value = value_of(LARGE + i);
                redis_say(&h.redis, "SET large:%u %b", i, value, (size_t)LARGE + i);
                free(value);
        }
        check_eq(workers_run(READERS, read_large, c, WAIT_MS), READERS);
        fprintf(stderr, "%u large replies, %u refused\n", c->good, c->refused);
        check_eq(c->good + c->refused, READERS * READS);
        check(c->good > 0);
        host_end(&h);
}

/* SPDX-License-Identifier: MIT */
/* What a caller gets for a command or a pipeline: its own replies, whole, in order, each error in its place. */
#include <pthread.h>
#include <stdatomic.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"

enum { WAIT_MS = 30000 };

struct scene {
        struct host host;
        lessor *l;
        lessor_db *db;
};

static void scene_start(struct scene *s, const char *keys) {
        host_start(&s->host, keys);
        s->l = client_open(&s->host.broker);
        s->db = client_database(s->l, NULL);
}

static void scene_end(struct scene *s) {
        lessor_close(s->l);
        host_end(&s->host);
}

TEST(commands, replies_have_the_type_redis_gave_them) {
        struct scene s;
        redisReply *r;

        scene_start(&s, "max_connections: 2");
        r = client_command(s.db, "SET key value");
        check_eq(r->type, REDIS_REPLY_STATUS);
        freeReplyObject(r);
        r = client_command(s.db, "GET nothing");
        check_eq(r->type, REDIS_REPLY_NIL);
        freeReplyObject(r);
        r = client_command(s.db, "RPUSH list %s %s %d", "a", "b", 3);
        check_eq(r->integer, 3);
        freeReplyObject(r);
        r = client_command(s.db, "LRANGE list 0 -1");
        check_eq(r->type, REDIS_REPLY_ARRAY);
        check_eq(r->elements, 3);
        check_str(r->element[2]->str, "3");
        freeReplyObject(r);
        r = client_command(s.db, "LRANGE none 0 -1");
        check_eq(r->elements, 0);
        freeReplyObject(r);
        scene_end(&s);
}

TEST(commands, an_error_of_redis_is_a_reply_and_no_trouble_of_ours) {
        struct scene s;
        lessor_error e = {.code = 42};

        scene_start(&s, "max_connections: 2");
        freeReplyObject(client_command(s.db, "SET text abc"));
        redisReply *r = lessor_command(s.db, &e, "INCR text");
        check(r && r->type == REDIS_REPLY_ERROR);
        check(strstr(r->str, "not an integer"));
        freeReplyObject(r);
        r = lessor_command(s.db, NULL, "NOSUCHCOMMAND");
        check(r && r->type == REDIS_REPLY_ERROR);
        freeReplyObject(r);
        freeReplyObject(client_command(s.db, "PING"));
        scene_end(&s);
}

TEST(commands, values_are_bytes) {
        struct scene s;
        unsigned char bytes[256 * 3];
        const char *argv[] = {"SET", NULL, NULL};
        size_t len[] = {3, sizeof(bytes), sizeof(bytes)};
        lessor_error e = {0};

        scene_start(&s, "max_connections: 2");
        for (unsigned i = 0; i < sizeof(bytes); i++)
                bytes[i] = (unsigned char)i;
        argv[1] = argv[2] = (const char *)bytes;
        redisReply *r = lessor_command_argv(s.db, WAIT_MS, 3, argv, len, &e);
        check_msg(r && r->type == REDIS_REPLY_STATUS, "%s", e.text);
        freeReplyObject(r);
        r = client_command(s.db, "GET %b", bytes, sizeof(bytes));
        check_eq(r->len, sizeof(bytes));
        check(memcmp(r->str, bytes, sizeof(bytes)) == 0);
        freeReplyObject(r);
        r = client_command(s.db, "SET %b %b", "", (size_t)0, "a\r\n\0b", (size_t)5);
        freeReplyObject(r);
        r = client_command(s.db, "GET %b", "", (size_t)0);
        check(r->len == 5 && memcmp(r->str, "a\r\n\0b", 5) == 0);
        freeReplyObject(r);
        scene_end(&s);
}

TEST(commands, what_cannot_be_a_command_is_refused_before_it_is_sent) {
        struct scene s;
        lessor_error e = {0};

        scene_start(&s, "max_connections: 2");
        check(!lessor_command_argv(s.db, WAIT_MS, 0, NULL, NULL, &e));
        check_msg(e.code == LESSOR_E_INVALID && !e.may_have_run, "%d: %s", e.code, e.text);
        freeReplyObject(client_command(s.db, "PING"));
        scene_end(&s);
}

static void check_large(struct scene *s, size_t size) {
        char *value = malloc(size);
        check(value != NULL);
        for (size_t i = 0; i < size; i++)
                value[i] = (char)(i * 31 + (i >> 12));
        freeReplyObject(client_command(s->db, "SET large %b", value, size));
        redisReply *r = client_command(s->db, "GET large");
        check_eq(r->len, size);
        check(memcmp(r->str, value, size) == 0);
        freeReplyObject(r);
        free(value);
}

TEST_WITH(commands, values_of_up_to_64_mb_come_back_as_they_were, .timeout = 180) {
        struct scene s;

        scene_start(&s, "max_connections: 2, socket_timeout: 60s");
        for (size_t size = 1; size <= (size_t)64 << 20; size *= 8)
                check_large(&s, size + 1);
        check_large(&s, (size_t)64 << 20);
        scene_end(&s);
}

TEST(commands, a_reply_that_does_not_come_in_time_is_an_error_that_may_have_run) {
        struct scene s;
        lessor_error e = {0};

        scene_start(&s, "max_connections: 2, socket_timeout: 300ms");
        freeReplyObject(client_command(s.db, "PING"));
        redis_pause(&s.host.redis);
        uint64_t began = now_ms();
        redisReply *r = lessor_command(s.db, &e, "INCR n");
        uint64_t took = now_ms() - began;
        redis_resume(&s.host.redis);
        check(!r);
        check_msg(e.code == LESSOR_E_REPLY_TIMEOUT && e.may_have_run, "%d: %s", e.code, e.text);
        check_msg(took >= 299 && took < 5000 * PROCESS_SLOW, "after %llu ms", (unsigned long long)took);
        check_soon((r = lessor_command(s.db, &e, "GET n")) != NULL, WAIT_MS);
        check_msg(r->type == REDIS_REPLY_NIL || strcmp(r->str, "1") == 0, "%s", r->str); /* never sent twice */
        freeReplyObject(r);
        check_figure_soon(&s.host.broker, "main", timeouts, 1, 5000);
        scene_end(&s);
}

/* One byte at a time is no progress that puts the deadline off. */
TEST(commands, a_reply_that_trickles_does_not_put_its_deadline_off) {
        struct scene s;
        lessor_error e = {0};

        scene_start(&s, "max_connections: 2, socket_timeout: 400ms");
        lessor_lease *lease = lessor_acquire(s.db, WAIT_MS, &e);
        redisReply *r = lessor_lease_command(lease, &e, "SUBSCRIBE drip");
        check_msg(r, "%s", e.text);
        freeReplyObject(r);
        uint64_t began = now_ms();
        check(!lessor_lease_read(lease, &e));
        check_msg(e.code == LESSOR_E_REPLY_TIMEOUT, "%d: %s", e.code, e.text);
        check(now_ms() - began >= 399 && now_ms() - began < 5000 * PROCESS_SLOW);
        lessor_release(lease);
        scene_end(&s);
}

TEST(commands, a_blocking_pop_waits_as_long_as_it_is_told) {
        struct scene s;
        lessor_error e = {0};

        scene_start(&s, "max_connections: 2, socket_timeout: 300ms");
        lessor_lease *lease = lessor_acquire(s.db, WAIT_MS, &e);
        lessor_lease_set_timeout(lease, 10000);
        redisReply *r = lessor_lease_command(lease, &e, "BLPOP nothing 1");
        check_msg(r && r->type == REDIS_REPLY_NIL, "%s", e.text);
        freeReplyObject(r);
        lessor_release(lease);
        freeReplyObject(client_command(s.db, "PING"));
        check_figure(&s.host.broker, "main", created_connections, 1);
        scene_end(&s);
}

TEST(commands, messages_of_a_subscription_are_read_one_by_one) {
        struct scene s;
        lessor_error e = {0};

        scene_start(&s, "max_connections: 2");
        lessor_lease *lease = lessor_acquire(s.db, WAIT_MS, &e);
        redisReply *r = lessor_lease_command(lease, &e, "SUBSCRIBE news");
        check_msg(r && r->type == REDIS_REPLY_ARRAY, "%s", e.text);
        freeReplyObject(r);
        for (unsigned i = 0; i < 3; i++) {
                char text[16];
                snprintf(text, sizeof(text), "item-%u", i);
                check_eq(redis_integer(&s.host.redis, "PUBLISH news %s", text), 1);
                r = lessor_lease_read(lease, &e);
                check_msg(r && r->elements == 3, "%s", e.text);
                check_str(r->element[2]->str, text);
                freeReplyObject(r);
        }
        lessor_release(lease);
        scene_end(&s);
}

TEST(commands, a_raw_context_is_a_hiredis_context) {
        struct scene s;
        lessor_error e = {0};

        scene_start(&s, "max_connections: 1");
        lessor_lease *lease = lessor_acquire(s.db, WAIT_MS, &e);
        redisContext *c = lessor_context(lease);
        check(c && lessor_context(lease) == c && lessor_lease_of(c) == lease);
        redisReply *r = redisCommand(c, "SET raw %s", "yes");
        check_msg(r && r->type == REDIS_REPLY_STATUS, "%s", c->errstr);
        freeReplyObject(r);
        lessor_release(lease);
        client_check_string(s.db, "raw", "yes");
        scene_end(&s);
}

TEST(commands, a_scoped_lease_ends_with_its_scope) {
        struct scene s;
        lessor_error e = {0};

        scene_start(&s, "max_connections: 1");
        for (unsigned i = 0; i < 3; i++) {
                LESSOR_SCOPED lessor_lease *lease = lessor_acquire(s.db, WAIT_MS, &e);
                check_msg(lease, "%s", e.text);
        }
        lessor_release(NULL);
        scene_end(&s);
}

TEST(commands, closing_with_a_lease_still_held_is_safe) {
        struct scene s;
        lessor_error e = {0};

        scene_start(&s, "max_connections: 1");
        lessor_lease *lease = lessor_acquire(s.db, WAIT_MS, &e);
        lessor_close(s.l);
        redisReply *r = lessor_lease_command(lease, &e, "PING");
        check_msg(r, "%s", e.text);
        freeReplyObject(r);
        lessor_release(lease);
        host_end(&s.host);
        lessor_close(NULL);
}

TEST(commands, names_are_looked_up_and_unknown_ones_are_told_which_there_are) {
        struct host h;
        lessor_db *db, *same;
        lessor_error e = {0};

        host_start_many(&h, "max_connections: 2");
        lessor *l = client_open(&h.broker);
        db = client_database(l, NULL);
        check(client_database(l, "main") == db);
        same = client_database(l, "cache");
        check(same != db && client_database(l, "cache") == same);
        check_eq(lessor_database(l, "cash", &db, &e), LESSOR_E_UNKNOWN_DATABASE);
        check_eq(e.code, LESSOR_E_UNKNOWN_DATABASE);
        check_msg(strstr(e.text, "cash") && strstr(e.text, "cache") && strstr(e.text, "main"), "%s", e.text);
        check(lessor_database(l, "a-name-of-more-than-sixty-three-bytes-which-no-database-can-ever-have-had", &db,
                              NULL) > 0);
        check(lessor_database(l, "", &db, NULL) > 0);
        lessor_close(l);
        host_end(&h);
}

TEST(commands, a_pool_that_nobody_used_has_no_connection) {
        struct host h;

        host_start_many(&h, "max_connections: 2");
        lessor *l = client_open(&h.broker);
        freeReplyObject(client_command(client_database(l, "cache"), "PING"));
        for (unsigned i = 0; i < HOST_DATABASES; i++) {
                bool used = strcmp(host_databases[i], "cache") == 0;
                check_figure(&h.broker, host_databases[i], created_connections, used);
                check_figure(&h.broker, host_databases[i], health, used ? LESSOR_HEALTH_HEALTHY : LESSOR_HEALTH_UNUSED);
        }
        check_eq(redis_connections(&h.redis, NULL), 1);
        lessor_close(l);
        host_end(&h);
}

/* ---- pipelines ---------------------------------------------------------------------------------------------------- */

static void add(lessor_pipe *p, const char *fmt, const char *argument) {
        check_eq(lessor_pipe_add(p, fmt, argument), 0); /* NOLINT: constant formats of this file */
}

static size_t run(lessor_pipe *p, redisReply ***ret) {
        lessor_error e = {0};
        size_t n = 0;
        int r = lessor_pipe_run(p, WAIT_MS, ret, &n, &e);
        check_msg(r == 0, "%d: %s", r, e.text);
        return n;
}

TEST(pipeline, gives_one_reply_for_each_command_errors_in_their_place) {
        struct scene s;
        redisReply **r;

        scene_start(&s, "max_connections: 2");
        lessor_pipe *p = lessor_pipe_new(s.db, 0);
        for (unsigned round = 0; round < 3; round++) { /* a pipe is empty again after its run */
                add(p, "SET text %s", "abc");
                add(p, "INCR text", NULL);
                add(p, "GET %s", "text");
                add(p, "NOSUCHCOMMAND", NULL);
                add(p, "INCR n", NULL);
                check_eq(run(p, &r), 5);
                check_eq(r[0]->type, REDIS_REPLY_STATUS);
                check_eq(r[1]->type, REDIS_REPLY_ERROR);
                check_str(r[2]->str, "abc");
                check_eq(r[3]->type, REDIS_REPLY_ERROR);
                check_eq(r[4]->integer, round + 1);
                lessor_pipe_replies_free(r, 5);
        }
        check_eq(run(p, &r), 0);
        lessor_pipe_replies_free(r, 0);
        lessor_pipe_free(p);
        lessor_pipe_free(NULL);
        scene_end(&s);
}

TEST(pipeline, an_atomic_one_is_a_transaction) {
        struct scene s;
        redisReply **r;

        scene_start(&s, "max_connections: 2");
        lessor_pipe *p = lessor_pipe_new(s.db, LESSOR_ATOMIC);
        add(p, "SET text %s", "abc");
        add(p, "INCR text", NULL);
        add(p, "INCR n", NULL);
        check_eq(run(p, &r), 3);
        check_eq(r[0]->type, REDIS_REPLY_STATUS);
        check_eq(r[1]->type, REDIS_REPLY_ERROR);
        check_eq(r[2]->integer, 1);
        lessor_pipe_replies_free(r, 3);
        lessor_pipe_free(p);
        check_figure(&s.host.broker, "main", created_connections, 1);
        scene_end(&s);
}

TEST(pipeline, an_atomic_one_with_a_command_refused_does_nothing) {
        struct scene s;
        redisReply **r;

        scene_start(&s, "max_connections: 2");
        lessor_pipe *p = lessor_pipe_new(s.db, LESSOR_ATOMIC);
        add(p, "SET text %s", "abc");
        add(p, "NOSUCHCOMMAND", NULL);
        add(p, "INCR n", NULL);
        check_eq(run(p, &r), 3);
        for (unsigned i = 0; i < 3; i++)
                check_eq(r[i]->type, REDIS_REPLY_ERROR);
        check_msg(strstr(r[1]->str, "unknown command"), "%s", r[1]->str);
        check_msg(strstr(r[0]->str, LESSOR_PIPE_ABORTED), "%s", r[0]->str);
        check_msg(strstr(r[2]->str, LESSOR_PIPE_ABORTED), "%s", r[2]->str);
        lessor_pipe_replies_free(r, 3);
        redisReply *text = client_command(s.db, "EXISTS text n");
        check_eq(text->integer, 0);
        freeReplyObject(text);
        lessor_pipe_free(p);
        scene_end(&s);
}

TEST(pipeline, wrong_arguments_add_nothing) {
        struct scene s;
        redisReply **r;

        scene_start(&s, "max_connections: 2");
        check(lessor_pipe_new(s.db, 1U << 31) == NULL);
        lessor_pipe *p = lessor_pipe_new(s.db, 0);
        check_eq(lessor_pipe_add_argv(p, 0, NULL, NULL), LESSOR_E_INVALID);
        add(p, "PING", NULL);
        check_eq(run(p, &r), 1);
        lessor_pipe_replies_free(r, 1);
        lessor_pipe_free(p);
        scene_end(&s);
}

static void check_many(struct scene *s, unsigned flags, unsigned n) {
        redisReply **r;
        lessor_pipe *p = lessor_pipe_new(s->db, flags);
        for (unsigned i = 0; i < n; i++)
                check_eq(lessor_pipe_add(p, i % 2 ? "GET key:%u" : "SET key:%u value:%u", i & ~1U, i), 0);
        check_eq(run(p, &r), n);
        for (unsigned i = 1; i < n; i += 2) {
                char expected[32];
                snprintf(expected, sizeof(expected), "value:%u", i - 1);
                check_str(r[i]->str, expected);
        }
        lessor_pipe_replies_free(r, n);
        lessor_pipe_free(p);
}

TEST_WITH(pipeline, of_ten_thousand_commands, .timeout = 120) {
        struct scene s;

        scene_start(&s, "max_connections: 2, socket_timeout: 30s");
        check_many(&s, 0, 10000);
        check_many(&s, LESSOR_ATOMIC, 10000);
        scene_end(&s);
}

/* Both sides' socket buffers fill: who only writes first and reads afterwards never ends. */
TEST_WITH(pipeline, of_large_values_both_ways_does_not_lock_up, .timeout = 120) {
        enum { N = 40, SIZE = 1 << 20 };
        struct scene s;
        redisReply **r;

        scene_start(&s, "max_connections: 2, socket_timeout: 60s");
        char *value = malloc(SIZE);
        memset(value, 'v', SIZE);
        freeReplyObject(client_command(s.db, "SET large %b", value, (size_t)SIZE));
        lessor_pipe *p = lessor_pipe_new(s.db, 0);
        for (unsigned i = 0; i < N; i++) {
                check_eq(lessor_pipe_add(p, "GET large"), 0);
                check_eq(lessor_pipe_add(p, "SET large %b", value, (size_t)SIZE), 0);
        }
        check_eq(run(p, &r), 2 * N);
        for (unsigned i = 0; i < 2 * N; i += 2)
                check_eq(r[i]->len, SIZE);
        lessor_pipe_replies_free(r, 2 * N);
        lessor_pipe_free(p);
        free(value);
        scene_end(&s);
}

struct crowd {
        lessor_db *db;
        unsigned number;
};

static void *ask_and_compare(void *arg) {
        struct crowd *c = arg;
        for (unsigned i = 0; i < 200; i++) {
                char mine[64];
                lessor_error e = {0};
                snprintf(mine, sizeof(mine), "%u:%u", c->number, i);
                redisReply *r = lessor_command(c->db, &e, "ECHO %s", mine);
                child_check(r && r->type == REDIS_REPLY_STRING && strcmp(r->str, mine) == 0);
                freeReplyObject(r);
        }
        return NULL;
}

TEST(commands, threads_of_one_handle_get_their_own_replies) {
        enum { THREADS = 16 };
        struct scene s;
        pthread_t threads[THREADS];
        struct crowd crowd[THREADS];

        scene_start(&s, "max_connections: 4, wait_timeout: 30s");
        for (unsigned i = 0; i < THREADS; i++) {
                crowd[i] = (struct crowd){s.db, i};
                check(pthread_create(&threads[i], NULL, ask_and_compare, &crowd[i]) == 0);
        }
        for (unsigned i = 0; i < THREADS; i++)
                check(pthread_join(threads[i], NULL) == 0);
        check_figure_soon(&s.host.broker, "main", operations_ok, THREADS * 200, 5000);
        scene_end(&s);
}

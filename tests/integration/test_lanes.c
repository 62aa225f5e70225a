/* SPDX-License-Identifier: MIT */
/* Lanes from the outside: which calls go by them, what comes back, and what happens when Redis or the broker does not. */
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"
#include "support/sandbox.h"

enum { WAIT_MS = 30000 };

/* A machine that stands still for a while is nobody's trouble here. */
#define PATIENT ", socket_timeout: 50s, wait_timeout: 50s"

static uint64_t lane_calls(const struct host *h) { return broker_figures_now(&h->broker, "main").lane_calls; }

static void echo(lessor_db *db, const char *prefix, unsigned i) {
        char token[64];
        lessor_error e = {0};
        snprintf(token, sizeof(token), "%s-%d-%u", prefix, (int)getpid(), i);
        redisReply *reply = lessor_command(db, &e, "ECHO %s", token);
        if (!reply)
                fprintf(stderr, "%s: %s\n", token, e.text);
        child_check(reply && reply->str && strcmp(reply->str, token) == 0);
        freeReplyObject(reply);
}

/* ---- which way --------------------------------------------------------------------------------------------------------- */

TEST(lanes, single_commands_go_by_lane_and_what_cannot_takes_a_lease) {
        struct host h;
        host_start(&h, "path: lane, max_connections: 4" PATIENT);
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        freeReplyObject(client_command(db, "SET k v"));
        client_check_string(db, "k", "v");
        for (unsigned i = 0; i < 50; i++)
                echo(db, "one", i);
        check_eq(lane_calls(&h), 52);
        check_figure(&h.broker, "main", leases, 0);
        redisReply *reply = client_command(db, "CLIENT GETNAME");
        check_str(reply->str, broker_client_name(&h.broker, "main"));
        freeReplyObject(reply);
        freeReplyObject(client_command(db, "BLPOP nobody 0.01"));
        check_eq(lane_calls(&h), 52);
        check(broker_figures(&h.broker, "main").leases > 0);
        lessor_close(l);
        host_end(&h);
}

TEST(lanes, with_path_lease_nothing_goes_by_lane) {
        struct host h;
        host_start(&h, "path: lease, max_connections: 2" PATIENT);
        lessor *l = client_open(&h.broker);
        for (unsigned i = 0; i < 20; i++)
                echo(client_database(l, NULL), "lease", i);
        check_eq(lane_calls(&h), 0);
        check_figure(&h.broker, "main", lane_connections, 0);
        lessor_close(l);
        host_end(&h);
}

static void reload(struct host *h, const char *path) {
        char text[512];
        const char *const argv[] = {tool_path(), "reload", "--instance", h->broker.instance, NULL};
        snprintf(text, sizeof(text), "databases: {main: {%s, path: %s}}\n", redis_address(&h->redis), path);
        sandbox_write(h->broker.config, text);
        check_eq(program_run(argv, NULL, WAIT_MS), 0);
}

TEST(lanes, the_path_changes_by_a_reload_under_callers_that_are_attached) {
        struct host h;
        host_start(&h, "path: lease" PATIENT);
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        echo(db, "lease", 0);
        reload(&h, "lane");
        for (unsigned i = 0; i < 20; i++)
                echo(db, "lane", i);
        check_eq(lane_calls(&h), 20);
        reload(&h, "lease");
        for (unsigned i = 0; i < 20; i++)
                echo(db, "lease", i);
        check_eq(lane_calls(&h), 20);
        lessor_close(l);
        host_end(&h);
}

struct crowd {
        const char *socket;
        struct stage ready;
        _Atomic bool end;
        _Atomic uint64_t calls;
};

static lessor_db *child_database(const char *socket, lessor **ret) {
        lessor_error e = {0};
        lessor_db *db;
        child_check(lessor_open(socket, ret) == 0 && lessor_database(*ret, NULL, &db, &e) == 0);
        return db;
}

static int keep_calling(unsigned index, void *arg) {
        struct crowd *c = arg;
        lessor *l;
        lessor_db *db = child_database(c->socket, &l);
        for (unsigned i = 0; !atomic_load(&c->end); i++) {
                echo(db, "crowd", i);
                atomic_fetch_add(&c->calls, 1);
        }
        lessor_close(l);
        return 0;
}

TEST(lanes, of_itself_the_path_follows_the_number_of_callers) {
        struct crowd *c = shared_memory(sizeof(*c));
        struct workers w;
        struct host h;
        host_start(&h, "max_connections: 4" PATIENT);
        lessor *l = client_open(&h.broker);
        for (unsigned i = 0; i < 50; i++)
                echo(client_database(l, NULL), "alone", i);
        check_eq(lane_calls(&h), 0);
        c->socket = h.broker.socket;
        workers_start(&w, 40, keep_calling, c);
        check_soon(broker_figures(&h.broker, "main").lane_calls > 1000, WAIT_MS);
        atomic_store(&c->end, true);
        check_eq(workers_wait(&w, WAIT_MS), 40);
        check_figure_soon(&h.broker, "main", path, LESSOR_PATH_DIRECT, WAIT_MS);
        lessor_close(l);
        host_end(&h);
}

/* ---- who is in the way ------------------------------------------------------------------------------------------------- */

static int hold_a_place(unsigned index, void *arg) {
        struct crowd *c = arg;
        lessor_error e = {0};
        lessor *l;
        lessor_lease *lease = lessor_acquire(child_database(c->socket, &l), WAIT_MS, &e);
        child_check(lease);
        lessor_lease_set_timeout(lease, -1);
        stage_advance(&c->ready);
        redisReply *reply = lessor_lease_command(lease, &e, "BLPOP release 0");
        child_check(reply && reply->type == REDIS_REPLY_ARRAY);
        freeReplyObject(reply);
        lessor_release(lease);
        lessor_close(l);
        return 0;
}

TEST(lanes, one_who_blocks_on_each_place_but_one_does_not_stop_them) {
        enum { CAP = 4 };
        struct crowd *c = shared_memory(sizeof(*c));
        struct workers w;
        struct host h;
        host_start(&h, "path: lane, max_connections: 4" PATIENT);
        c->socket = h.broker.socket;
        workers_start(&w, CAP - 1, hold_a_place, c);
        check(stage_reached(&c->ready, CAP - 1, WAIT_MS));
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        for (unsigned i = 0; i < 200; i++)
                echo(db, "beside", i);
        check_eq(lane_calls(&h), 200);
        for (unsigned i = 0; i < CAP - 1; i++)
                freeReplyObject(client_command(db, "RPUSH release go"));
        check_eq(workers_wait(&w, WAIT_MS), CAP - 1);
        check(broker_figures_now(&h.broker, "main").peak_connections <= CAP);
        lessor_close(l);
        host_end(&h);
}

static void *echo_often(void *arg) {
        for (unsigned i = 0; i < 500; i++) {
                char prefix[32];
                snprintf(prefix, sizeof(prefix), "thread-%p", (void *)&prefix);
                echo(arg, prefix, i);
        }
        return NULL;
}

static int have_many_threads(unsigned index, void *arg) {
        enum { THREADS = 8 };
        pthread_t threads[THREADS];
        lessor *l;
        lessor_db *db = child_database(((struct crowd *)arg)->socket, &l);
        for (unsigned i = 0; i < THREADS; i++)
                child_check(pthread_create(&threads[i], NULL, echo_often, db) == 0);
        for (unsigned i = 0; i < THREADS; i++)
                child_check(pthread_join(threads[i], NULL) == 0);
        lessor_close(l);
        return 0;
}

TEST(lanes, threads_of_a_process_share_its_lane_and_each_gets_its_own_replies) {
        struct crowd *c = shared_memory(sizeof(*c));
        struct host h;
        host_start(&h, "path: lane, max_connections: 4" PATIENT);
        c->socket = h.broker.socket;
        check_eq(workers_run(4, have_many_threads, c, WAIT_MS), 4);
        /* While one asks for the lane the others go by lease. */
        check(lane_calls(&h) > 4 * 8 * 400);
        host_end(&h);
}

static int use_what_the_parent_opened(unsigned index, void *arg) {
        for (unsigned i = 0; i < 100; i++)
                echo(arg, "child", i);
        return 0;
}

TEST(lanes, a_forked_child_has_a_lane_of_its_own_and_the_parent_keeps_his) {
        struct workers w;
        struct host h;
        host_start(&h, "path: lane, max_connections: 4" PATIENT);
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        echo(db, "parent", 0);
        workers_start(&w, 3, use_what_the_parent_opened, db);
        for (unsigned i = 1; i < 100; i++)
                echo(db, "parent", i);
        check_eq(workers_wait(&w, WAIT_MS), 3);
        echo(db, "parent", 100);
        check_eq(lane_calls(&h), 401);
        lessor_close(l);
        host_end(&h);
}

/* ---- what comes back --------------------------------------------------------------------------------------------------- */

TEST(lanes, replies_of_every_kind_come_back_as_they_were) {
        struct host h;
        host_start(&h, "path: lane" PATIENT);
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        redisReply *reply = client_command(db, "GET nothing");
        check_eq(reply->type, REDIS_REPLY_NIL);
        freeReplyObject(reply);
        reply = client_command(db, "INCRBY n -9223372036854775807");
        check(reply->type == REDIS_REPLY_INTEGER && reply->integer == -INT64_MAX);
        freeReplyObject(reply);
        reply = client_command(db, "LRANGE nothing 0 -1");
        check(reply->type == REDIS_REPLY_ARRAY && reply->elements == 0);
        freeReplyObject(reply);
        reply = client_command(db, "EVAL %s 0", "return {1, {'two', {3, false}}, {}, {ok='FOUR'}}");
        check(reply->type == REDIS_REPLY_ARRAY && reply->elements == 4 && reply->element[1]->elements == 2);
        check(reply->element[1]->element[1]->element[1]->type == REDIS_REPLY_NIL);
        check_str(reply->element[3]->str, "FOUR");
        freeReplyObject(reply);
        lessor_error e = {0};
        reply = lessor_command(db, &e, "LPUSH n x");
        check(reply && reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "WRONGTYPE", 9) == 0);
        freeReplyObject(reply);
        check_eq(lane_calls(&h), 5);
        lessor_close(l);
        host_end(&h);
}

TEST(lanes, a_pipe_is_one_unit_with_every_error_in_its_place) {
        struct host h;
        redisReply **replies;
        size_t n = 0;
        lessor_error e = {0};
        host_start(&h, "path: lane" PATIENT);
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_pipe *p = lessor_pipe_new(db, 0);
        check(p && lessor_pipe_add(p, "SET k v") == 0 && lessor_pipe_add(p, "LPUSH k x") == 0 &&
              lessor_pipe_add(p, "GET k") == 0);
        for (unsigned i = 0; i < 100; i++)
                check_eq(lessor_pipe_add(p, "ECHO %u", i), 0);
        check_msg(lessor_pipe_run(p, LESSOR_WAIT_CONFIGURED, &replies, &n, &e) == 0, "%s", e.text);
        check_eq(n, 103);
        check_str(replies[0]->str, "OK");
        check_eq(replies[1]->type, REDIS_REPLY_ERROR);
        check_str(replies[2]->str, "v");
        for (unsigned i = 0; i < 100; i++)
                check_eq(strtoul(replies[3 + i]->str, NULL, 10), i);
        lessor_pipe_replies_free(replies, n);
        lessor_pipe_free(p);
        lessor_close(l);
        host_end(&h);
}

/* The library thinks that OBJECT may go by lane; that this server knows no such subcommand only the broker knows. */
TEST(lanes, of_a_pipe_what_needs_a_lease_gets_one_and_the_order_is_kept) {
        struct host h;
        redisReply **replies;
        size_t n = 0;
        lessor_error e = {0};
        host_start(&h, "path: lane" PATIENT);
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        freeReplyObject(client_command(db, "SET k 0")); /* the server has been asked what its commands are */
        uint64_t before = lane_calls(&h);
        lessor_pipe *p = lessor_pipe_new(db, 0);
        check(p && lessor_pipe_add(p, "INCR k") == 0 && lessor_pipe_add(p, "OBJECT NOSUCH k") == 0);
        for (unsigned i = 0; i < 20; i++)
                check_eq(lessor_pipe_add(p, "INCR k"), 0);
        check_msg(lessor_pipe_run(p, LESSOR_WAIT_CONFIGURED, &replies, &n, &e) == 0, "%s", e.text);
        check_eq(n, 22);
        check_eq(replies[0]->integer, 1);
        check(replies[1]->type == REDIS_REPLY_ERROR && strstr(replies[1]->str, "subcommand"));
        for (unsigned i = 0; i < 20; i++)
                check_eq(replies[2 + i]->integer, 2 + i);
        lessor_pipe_replies_free(replies, n);
        lessor_pipe_free(p);
        check_eq(lane_calls(&h), before + 1);
        lessor_close(l);
        host_end(&h);
}

/* ---- when Redis or the broker is not there ------------------------------------------------------------------------------ */

static redisReply *echo_within(lessor_db *db, int ms, const char *token, lessor_error *e) {
        const char *argv[] = {"ECHO", token};
        return lessor_command_idempotent(db, ms, 2, argv, NULL, e);
}

TEST(lanes, who_leaves_at_his_deadline_leaves_his_reply_to_nobody) {
        struct host h;
        lessor_error e = {0};
        host_start(&h, "path: lane, socket_timeout: 60s, breaker_failures: 1000");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        echo(db, "before", 0);
        redis_pause(&h.redis);
        for (unsigned i = 0; i < 5; i++) {
                uint64_t began = now_ms();
                check(!echo_within(db, 100, "late", &e));
                check_msg(e.may_have_run, "%d: %s", e.code, e.text);
                check(now_ms() - began < 5000 * PROCESS_SLOW);
        }
        redis_resume(&h.redis);
        for (unsigned i = 0; i < 20; i++)
                echo(db, "after", i);
        lessor_close(l);
        host_end(&h);
}

struct one_call {
        const char *socket;
        _Atomic int code;
        _Atomic bool may_have_run;
};

static int call_once(unsigned index, void *arg) {
        struct one_call *c = arg;
        lessor_error e = {0};
        lessor *l;
        lessor_db *db = child_database(c->socket, &l);
        redisReply *reply = lessor_command(db, &e, "INCR n");
        child_check(!reply);
        atomic_store(&c->may_have_run, e.may_have_run);
        atomic_store(&c->code, e.code);
        lessor_close(l);
        return 0;
}

/* Something dies while one worker's call is at Redis, who has got it, and does not answer. */
struct outage {
        struct host h;
        struct one_call *call;
        struct workers caller;
        lessor *l;
        lessor_db *db; /* of another one, who is served before and after */
};

static void outage_begin(struct outage *o, const char *keys) {
        host_start(&o->h, keys);
        o->l = client_open(&o->h.broker);
        o->db = client_database(o->l, NULL);
        echo(o->db, "before", 0);
        uint64_t before = lane_calls(&o->h);
        o->call = shared_memory(sizeof(*o->call));
        o->call->socket = o->h.broker.socket;
        redis_pause(&o->h.redis);
        workers_start(&o->caller, 1, call_once, o->call);
        check_soon(broker_figures(&o->h.broker, "main").lane_calls > before, WAIT_MS);
}

static void check_told(struct outage *o) {
        check_eq(workers_wait(&o->caller, WAIT_MS), 1);
        check(o->call->may_have_run);
}

static bool is_served(lessor_db *db) {
        redisReply *reply = lessor_command(db, &(lessor_error){0}, "PING");
        bool served = reply != NULL;
        freeReplyObject(reply);
        return served;
}

static void check_served_again(struct outage *o) {
        check_soon(is_served(o->db), WAIT_MS);
        echo(o->db, "after", 0);
        check(lane_calls(&o->h) > 0);
        lessor_close(o->l);
}

TEST(lanes, a_call_under_way_when_redis_dies_may_have_run_and_the_next_ones_are_served_when_it_is_back) {
        struct outage o;
        outage_begin(&o, "path: lane, socket_timeout: 60s, retry_base: 50ms, retry_max: 100ms, wait_timeout: 30s");
        redis_kill(&o.h.redis);
        check_told(&o);
        redis_restart(&o.h.redis);
        check_served_again(&o);
        host_end(&o.h);
}

static void end_without_books(struct host *h) {
        broker_stop(&h->broker);
        broker_free(&h->broker);
        redis_stop(&h->redis);
}

TEST(lanes, a_call_under_way_when_the_broker_dies_may_have_run_and_the_next_broker_serves_the_next) {
        struct outage o;
        outage_begin(&o, "path: lane, socket_timeout: 60s");
        broker_kill(&o.h.broker);
        check_told(&o);
        redis_resume(&o.h.redis);
        broker_relaunch(&o.h.broker);
        check_served_again(&o);
        end_without_books(&o.h);
}

TEST(lanes, while_the_breaker_is_open_nothing_is_sent_and_nobody_waits) {
        struct host h;
        lessor_error e = {0};
        host_start(&h, "path: lane, breaker_failures: 1, breaker_early_probe: no, breaker_open_time: 60s");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        echo(db, "before", 0);
        redis_kill(&h.redis);
        check_figure_soon(&h.broker, "main", breaker_state, 1, WAIT_MS);
        uint64_t began = now_ms();
        check(!lessor_command(db, &e, "PING"));
        check_eq(e.code, LESSOR_E_BREAKER_OPEN);
        check(!e.may_have_run && now_ms() - began < 3000 * PROCESS_SLOW);
        lessor_close(l);
        end_without_books(&h);
}

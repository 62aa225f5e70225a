/* SPDX-License-Identifier: MIT */
/* `lessor`, the command line: what it prints is what is so, and its exit status says what it found. */
#include <jansson.h>

#include "support/check.h"
#include "support/host.h"
#include "support/lanes.h"
#include "support/process.h"

enum { WAIT_MS = 20000 };

static int tool(const struct broker *b, char **ret, const char *first, const char *second) {
        const char *argv[] = {tool_path(), first, "--instance", b->instance, second, NULL};
        return program_run(argv, ret, WAIT_MS);
}

static json_t *tool_json(const struct broker *b, const char *command) {
        char *text;
        json_error_t error;
        int status = tool(b, &text, command, "--json");
        json_t *root = json_loads(text, 0, &error);
        check_msg(root, "lessor %s --json (status %d): %s in: %s", command, status, error.text, text);
        free(text);
        return root;
}

/* The object of the array whose `name` (or `database`) it is; also takes a map of name -> object. */
static json_t *find(json_t *list, const char *name) {
        size_t i;
        json_t *entry;
        if (json_is_object(list))
                return json_object_get(list, name);
        json_array_foreach(list, i, entry) {
                const char *is = json_string_value(json_object_get(entry, "name"));
                if (is && strcmp(is, name) == 0)
                        return entry;
        }
        return NULL;
}

static json_int_t number(json_t *object, const char *key) {
        json_t *value = json_object_get(object, key);
        check_msg(json_is_integer(value), "no number `%s`", key);
        return json_integer_value(value);
}

TEST(tools, stat_json_gives_the_figures_of_the_segment) {
        struct host h;

        host_start_many(&h, "max_connections: 5");
        lessor *l = client_open(&h.broker);
        for (unsigned i = 0; i < 10; i++)
                freeReplyObject(client_command(client_database(l, "cache"), "PING"));
        check_figure_soon(&h.broker, "cache", operations_ok, 10, 5000);
        json_t *root = tool_json(&h.broker, "stat"), *databases = json_object_get(root, "databases");
        check_eq(json_is_object(databases) ? json_object_size(databases) : json_array_size(databases), HOST_DATABASES);
        json_t *cache = find(databases, "cache");
        check(cache);
        check_eq(number(cache, "created_connections"), 1);
        check_eq(number(cache, "available_connections"), 1);
        check_eq(number(cache, "in_use_connections"), 0);
        check_eq(number(cache, "max_connections"), 5);
        check_eq(number(cache, "idle_connections"), 0);
        check_eq(number(cache, "waiting"), 0);
        check_eq(number(cache, "operations_ok"), 10);
        check_eq(number(find(databases, "main"), "created_connections"), 0);
        json_decref(root);
        lessor_close(l);
        host_end(&h);
}

TEST(tools, stat_shows_every_database_and_one_when_asked) {
        struct host h;
        char *text;

        host_start_many(&h, "max_connections: 5");
        check_eq(tool(&h.broker, &text, "stat", NULL), 0);
        for (unsigned i = 0; i < HOST_DATABASES; i++)
                check_msg(strstr(text, host_databases[i]), "no %s in:\n%s", host_databases[i], text);
        free(text);
        check_eq(tool(&h.broker, &text, "stat", "cache"), 0);
        check(strstr(text, "cache") && !strstr(text, "knowledge"));
        free(text);
        check(tool(&h.broker, &text, "stat", "cash") != 0);
        check_msg(strstr(text, "cash") && strstr(text, "cache"), "%s", text);
        free(text);
        host_end(&h);
}

static bool can_lease(lessor_db *db) {
        lessor_lease *lease = lessor_acquire(db, 1000, NULL);
        lessor_release(lease);
        return lease != NULL;
}

TEST(tools, health_has_an_exit_status_for_each_answer) {
        struct host h;
        char *text;

        /* A breaker that opened, or probed, between two looks would say something else in each. */
        host_start(&h, "max_connections: 5, retry_base: 50ms, retry_max: 50ms, breaker_failures: 1000");
        check_eq(tool(&h.broker, &text, "health", NULL), 0);
        free(text);
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        freeReplyObject(client_command(db, "PING"));
        check_eq(tool(&h.broker, &text, "health", NULL), 0);
        free(text);
        json_t *health = tool_json(&h.broker, "health");
        check(json_is_true(json_object_get(health, "overall_healthy")));
        check_eq(number(health, "total_databases"), 1);
        check_eq(number(health, "healthy_databases"), 1);
        check_eq(number(health, "degraded_databases"), 0);
        check_eq(number(health, "failed_databases"), 0);
        check(json_is_number(json_object_get(health, "success_rate")));
        json_decref(health);
        redis_kill(&h.redis);
        check_soon(!can_lease(db), WAIT_MS); /* as soon as the one that was parked has been taken away */
        check_figure_soon(&h.broker, "main", health, LESSOR_HEALTH_FAILED, WAIT_MS);
        check_eq(tool(&h.broker, &text, "health", NULL), 2);
        check_msg(strstr(text, "main") && strstr(text, broker_figures(&h.broker, "main").reason), "%s", text);
        free(text);
        redis_restart(&h.redis);
        check_soon(can_lease(db), WAIT_MS);
        check_figure_soon(&h.broker, "main", health, LESSOR_HEALTH_HEALTHY, WAIT_MS);
        check_eq(tool(&h.broker, &text, "health", NULL), 0);
        free(text);
        lessor_close(l);
        host_end(&h);
}

TEST(tools, health_of_a_host_with_one_database_out_of_reach) {
        struct redis r;
        struct broker b;
        lessor_error e = {0};

        redis_start(&r, NULL);
        broker_start(&b, "databases: {main: {%s}, gone: {unix_socket: %s.not}}\n", redis_address(&r), r.socket);
        lessor *l = client_open(&b);
        freeReplyObject(client_command(client_database(l, NULL), "PING"));
        check(!lessor_acquire(client_database(l, "gone"), 1000, &e));
        check_figure_soon(&b, "gone", health, LESSOR_HEALTH_FAILED, WAIT_MS);
        json_t *health = tool_json(&b, "health");
        check(json_is_false(json_object_get(health, "overall_healthy")));
        check_eq(number(health, "total_databases"), 2);
        check_eq(number(health, "healthy_databases"), 1);
        check_eq(number(health, "failed_databases"), 1);
        json_decref(health);
        check(tool(&b, NULL, "health", NULL) != 0);
        lessor_close(l);
        broker_free(&b);
        redis_stop(&r);
}

TEST(tools, a_killed_broker_is_not_healthy) {
        struct host h;
        char *text;

        host_start(&h, "max_connections: 5");
        broker_kill(&h.broker);
        check_soon(tool(&h.broker, NULL, "health", NULL) == 2, WAIT_MS);
        tool(&h.broker, &text, "stat", NULL);
        check_msg(strstr(text, "stale") || strstr(text, "dead") || strstr(text, "gone"), "%s", text);
        free(text);
        broker_free(&h.broker);
        redis_stop(&h.redis);
}

TEST(tools, a_missing_broker_is_said_by_every_command) {
        static const char *const commands[] = {"stat", "health", "leases"};
        struct broker b;
        char *text;

        broker_prepare(&b, "databases: {main: {db: 0}}\n");
        for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
                check_eq(tool(&b, &text, commands[i], NULL), 2);
                check_msg(strstr(text, b.instance), "%s", text);
                free(text);
        }
        broker_free(&b);
}

TEST(tools, leases_show_who_holds_what_and_from_where) {
        struct host h;
        char *text, pid[16], site[64], client[32];
        lessor_error e = {0};

        host_start(&h, "max_connections: 5");
        lessor *l = client_open(&h.broker);
        lessor_lease *lease = lessor_acquire(client_database(l, NULL), WAIT_MS, &e);
        snprintf(site, sizeof(site), "test_tools.c:%d", __LINE__ - 1);
        snprintf(pid, sizeof(pid), "%d", (int)getpid());
        redisReply *id = lessor_lease_command(lease, &e, "CLIENT ID");
        snprintf(client, sizeof(client), "%lld", id->integer);
        freeReplyObject(id);
        check_figure_soon(&h.broker, "main", in_use_connections, 1, 5000);
        check_eq(tool(&h.broker, &text, "leases", NULL), 0);
        check_msg(strstr(text, pid) && strstr(text, site) && strstr(text, "main") && strstr(text, client) &&
                          strstr(text, "test_tools"),
                  "%s, %s, client %s in:\n%s", pid, site, client, text);
        free(text);
        lessor_release(lease);
        check_figure_soon(&h.broker, "main", in_use_connections, 0, 5000);
        check_eq(tool(&h.broker, &text, "leases", NULL), 0);
        check_msg(!strstr(text, site), "%s", text);
        free(text);
        lessor_close(l);
        host_end(&h);
}

/* What SLOWLOG GET or CLIENT LIST call a client: one that is parked by now, too. */
TEST(tools, leases_find_the_worker_behind_an_address_of_redis) {
        struct redis r;
        struct broker b;
        char *text, pid[16], local[LESSOR_NAME_SIZE], id[24];

        redis_start(&r, &(struct redis_options){.tcp = true});
        broker_start(&b, "databases: {main: {%s}}\n", redis_address(&r));
        lessor *l = client_open(&b);
        lessor_lease *lease = lessor_acquire(client_database(l, NULL), WAIT_MS, NULL);
        check(lease);
        struct lessor_status_connection c = broker_connection_held(&b);
        snprintf(pid, sizeof(pid), "%d", (int)getpid());
        snprintf(local, sizeof(local), "%s", c.local);
        snprintf(id, sizeof(id), "%llu", (unsigned long long)c.client_id);
        for (int parked = 0; parked < 2; parked++) {
                const char *const addresses[] = {local, id};
                for (int i = 0; i < 2; i++) {
                        const char *argv[] = {tool_path(),  "leases",   "--addr", addresses[i],
                                              "--instance", b.instance, NULL};
                        check_eq(program_run(argv, &text, WAIT_MS), 0);
                        check_msg(strstr(text, pid) && strstr(text, local) && strstr(text, parked ? "parked" : "held"),
                                  "%s", text);
                        free(text);
                }
                if (!parked)
                        lessor_release(lease);
                check_figure_soon(&b, "main", parked_connections, 1, WAIT_MS);
        }
        const char *other[] = {tool_path(), "leases", "--addr", "127.0.0.1:1", "--instance", b.instance, NULL};
        check_eq(program_run(other, &text, WAIT_MS), 1);
        check_msg(strstr(text, "127.0.0.1:1"), "%s", text);
        free(text);
        lessor_close(l);
        broker_free(&b);
        redis_stop(&r);
}

/* The number after `"name":` in the object of `session`. */
static double lane_figure(const char *text, uint64_t session, const char *name) {
        json_error_t e;
        json_t *all = json_loads(text, 0, &e), *lane;
        double value = -1;
        size_t i;
        check_msg(all, "%s", text);
        json_array_foreach(json_object_get(all, "lanes"), i, lane) {
                if ((uint64_t)json_integer_value(json_object_get(lane, "session")) == session)
                        value = json_number_value(json_object_get(lane, name));
        }
        json_decref(all);
        return value;
}

/* The broker numbers sessions from 1 on. */
TEST(tools, leases_show_which_sessions_have_commands_under_way_in_lanes) {
        struct lanes one, two;
        struct redis r;
        struct broker b;
        char *text, client[24];

        redis_start(&r, NULL);
        broker_start(&b, "databases: {main: {%s, max_connections: 4, path: lane, socket_timeout: 50s}}\n",
                     redis_address(&r));
        check(lanes_attach(&one, b.socket, "main") && lanes_attach(&two, b.socket, "main"));
        check(lanes_say(&one, 1, "PING") == LANE_SUBMIT_DONE && lanes_expect(&one, 1, "+PONG\r\n"));
        check_figure(&b, "main", lane_sessions, 0);
        redis_pause(&r);
        for (uint64_t tag = 2; tag < 5; tag++)
                check(lanes_say(&one, tag, "PING") == LANE_SUBMIT_DONE);
        check(lanes_say(&two, 1, "ECHO two") == LANE_SUBMIT_DONE);
        check_figure_soon(&b, "main", lane_under_way, 4, WAIT_MS);
        check_figure(&b, "main", lane_sessions, 2);
        check(broker_figures(&b, "main").oldest_lane_call > 0);
        const char *argv[] = {tool_path(), "leases", "--json", "--instance", b.instance, NULL};
        check_eq(program_run(argv, &text, WAIT_MS), 0);
        check(lane_figure(text, 1, "sent") == 3 && lane_figure(text, 2, "sent") == 1);
        check(lane_figure(text, 1, "queued") == 0 && lane_figure(text, 1, "age_ms") > 0);
        check(lane_figure(text, 1, "pid") == getpid());
        snprintf(client, sizeof(client), "%.0f", lane_figure(text, 1, "client_id"));
        free(text);

        /* The connection that SLOWLOG would name. */
        const char *by_client[] = {tool_path(), "leases", "--addr", client, "--instance", b.instance, NULL};
        check_eq(program_run(by_client, &text, WAIT_MS), 0);
        check_msg(strstr(text, " lane ") && strstr(text, "under way on it") && strstr(text, "test_tools"), "%s", text);
        free(text);

        redis_resume(&r);
        for (uint64_t tag = 2; tag < 5; tag++)
                check(lanes_expect(&one, tag, "+PONG\r\n"));
        check(lanes_expect(&two, 1, "$3\r\ntwo\r\n"));
        check_figure(&b, "main", lane_under_way, 0);
        check_eq(program_run(argv, &text, WAIT_MS), 0);
        check(lane_figure(text, 1, "sent") == -1 && lane_figure(text, 2, "sent") == -1);
        free(text);
        lanes_detach(&one);
        lanes_detach(&two);
        broker_free(&b);
        redis_stop(&r);
}

TEST(tools, what_waits_in_a_lane_of_a_paused_database_is_shown_as_queued) {
        struct lanes lane;
        struct host h;
        char *text;

        host_start(&h, "max_connections: 4, path: lane");
        check(lanes_attach(&lane, h.broker.socket, "main"));
        const char *pause[] = {tool_path(), "pause", "main", "--instance", h.broker.instance, NULL};
        const char *resume[] = {tool_path(), "resume", "main", "--instance", h.broker.instance, NULL};
        const char *leases[] = {tool_path(), "leases", "--json", "--instance", h.broker.instance, NULL};
        check_eq(program_run(pause, NULL, WAIT_MS), 0);
        check(lanes_say(&lane, 1, "PING") == LANE_SUBMIT_DONE && lanes_say(&lane, 2, "PING") == LANE_SUBMIT_DONE);
        check_figure_soon(&h.broker, "main", lane_under_way, 2, WAIT_MS);
        check_eq(program_run(leases, &text, WAIT_MS), 0);
        check(lane_figure(text, 1, "sent") == 0 && lane_figure(text, 1, "queued") == 2);
        free(text);
        check_eq(program_run(resume, NULL, WAIT_MS), 0);
        check(lanes_expect(&lane, 1, "+PONG\r\n") && lanes_expect(&lane, 2, "+PONG\r\n"));
        lanes_detach(&lane);
        host_end(&h);
}

/* Two benchmarks that are over soon; what they measure on a machine that runs other tests is nobody's business here. */
TEST_WITH(tools, bench_tells_its_figures_as_a_table_with_the_machine_and_the_versions, .timeout = 240) {
        static const char *const names[] = {"open-breaker", "warm"};
        char *text, row[64];
        for (unsigned i = 0; i < 2; i++) {
                const char *argv[] = {tool_path(), "bench", names[i], "--markdown", "--quick", NULL};
                int status = program_run(argv, &text, 4 * WAIT_MS);
                bool late = status == 1 && strstr(text, "not done within"); /* it is said, and nothing hangs */
                check_msg(late || status == 0, "%d: %s", status, text);
                check_msg(strstr(text, "Lessor " LESSOR_RELEASE ", Redis ") && strstr(text, " CPUs ("), "%s", text);
                check_msg(strstr(text, "\n\n| what | reference | Lessor | ratio | bar |\n|---|---|---|---|---|\n"),
                          "%s", text);
                snprintf(row, sizeof(row), "\n| `%s`, acquire", names[i]);
                check_msg(late || strstr(text, row), "no row of %s in: %s", names[i], text);
                check_msg(late || i == 0 || strstr(text, "\n| `warm`, four threads | "), "%s", text);
                free(text);
        }
}

TEST(tools, help_and_mistakes) {
        char *text;
        check_eq(program_run((const char *[]){tool_path(), "help", NULL}, &text, WAIT_MS), 0);
        check(strstr(text, "stat") && strstr(text, "health") && strstr(text, "leases") && strstr(text, "bench"));
        free(text);
        check_eq(program_run((const char *[]){tool_path(), "--version", NULL}, &text, WAIT_MS), 0);
        check(strstr(text, LESSOR_RELEASE));
        free(text);
        check_eq(program_run((const char *[]){tool_path(), "stats", NULL}, &text, WAIT_MS), 64);
        check_msg(strstr(text, "stat"), "%s", text);
        free(text);
}

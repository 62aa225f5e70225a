/* SPDX-License-Identifier: MIT */
/* The demonstration tells the truth, leaves nothing behind, and can be left at any time. */
#include <jansson.h>

#include "support/check.h"
#include "support/process.h"
#include "support/redis.h"
#include "support/sandbox.h"

enum { WAIT_MS = 60000 };

static const char *demo_path(void) { return LESSOR_BINARY_DIR "/tools/lessor-demo"; }

static json_int_t number(json_t *object, const char *key) {
        json_t *value = json_object_get(object, key);
        check_msg(json_is_integer(value), "no number `%s`", key);
        return json_integer_value(value);
}

/* The last line is one object. */
static json_t *last_line(char *output) {
        json_error_t error;
        size_t n = strlen(output);
        check_msg(n > 1 && output[n - 1] == '\n', "%s", output);
        output[n - 1] = '\0';
        char *line = strrchr(output, '\n');
        json_t *root = json_loads(line ? line + 1 : output, 0, &error);
        check_msg(root, "%s in: %s", error.text, output);
        return root;
}

static void check_good(char *output, unsigned workers) {
        json_t *root = last_line(output);
        check(number(root, "ops") > 100);
        check_eq(number(root, "errors"), 0);
        check_eq(number(root, "wrong_replies"), 0);
        check_eq(number(root, "places_lost"), 0);
        check_eq(number(root, "cap"), 26);
        check(number(root, "max_connections_seen") >= 1 && number(root, "max_connections_seen") <= 26);
        check_eq(number(root, "per_process_would_be"), workers * 13);
        json_decref(root);
}

TEST_WITH(demo, loses_nothing_and_says_so, .timeout = 120) {
        char *output;
        int status = program_run((const char *[]){demo_path(), "--seconds", "3", "--workers", "12", "--connections",
                                                  "2", "--json", NULL},
                                 &output, WAIT_MS);
        check_msg(status == 0, "status %d: %s", status, output);
        check_msg(strstr(output, "Nothing was lost"), "%s", output);
        check_good(output, 12);
        free(output);
}

TEST_WITH(demo, takes_a_redis_that_is_there_and_leaves_it_as_it_was, .timeout = 120) {
        struct redis r;
        char *output, place[64];

        redis_start(&r, &(struct redis_options){.tcp = true});
        redis_say(&r, "SET mine yes");
        snprintf(place, sizeof(place), "127.0.0.1:%u", r.port);
        int status = program_run((const char *[]){demo_path(), "--seconds", "1", "--workers", "4", "--connections", "2",
                                                  "--redis", place, "--json", NULL},
                                 &output, WAIT_MS);
        check_msg(status == 0, "status %d: %s", status, output);
        check_good(output, 4);
        free(output);
        redis_check_string(&r, "mine", "yes");
        check_eq(redis_integer(&r, "DBSIZE"), 1);
        for (unsigned db = 1; db < 12; db++) {
                redis_say(&r, "SELECT %d", (int)db);
                check_eq(redis_integer(&r, "DBSIZE"), 0);
        }
        redis_stop(&r);
}

/* The broker is killed towards the end; then many workers share few connections, and have one each. */
TEST_WITH(demo, kills_its_broker_and_compares, .timeout = 120) {
        char *output;
        int status = program_run(
                (const char *[]){demo_path(), "--seconds", "2", "--workers", "8", "--connections", "2", NULL}, &output,
                WAIT_MS);
        check_msg(status == 0, "status %d: %s", status, output);
        check_msg(strstr(output, "the broker; ") && strstr(output, "Nothing was lost"), "%s", output);
        check_msg(strstr(output, "200 workers") && strstr(output, "times as fast"), "%s", output);
        free(output);
}

/* Ctrl-C: a report of what was, and an end. */
TEST_WITH(demo, can_be_interrupted, .timeout = 120) {
        char *log = sandbox_path("demo.log");
        pid_t pid = program_start(log, (const char *[]){demo_path(), "--seconds", "600", "--workers", "4", NULL});
        char *output = NULL;

        check_soon((free(output), output = sandbox_read(log, NULL), strstr(output, "operations")), WAIT_MS);
        check_eq(program_end(pid, SIGINT, WAIT_MS), 0);
        free(output);
        output = sandbox_read(log, NULL);
        check_msg(strstr(output, "Nothing was lost"), "%s", output);
        free(output);
        free(log);
}

TEST(demo, wrong_options_and_an_unreachable_redis_are_said) {
        char *output;
        check_eq(program_run((const char *[]){demo_path(), "--seconds", "soon", NULL}, &output, WAIT_MS), 64);
        check(strstr(output, "usage"));
        free(output);
        int status = program_run((const char *[]){demo_path(), "--redis", "/no/such/socket", NULL}, &output, WAIT_MS);
        check_msg(status > 1, "status %d", status);
        check_msg(strstr(output, "/no/such/socket"), "%s", output);
        free(output);
}

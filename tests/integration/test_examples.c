/* SPDX-License-Identifier: MIT */
/* The programs of tests/examples, run as a reader would run them. And once more under valgrind: nothing of them leaks. */
#include "support/check.h"
#include "support/host.h"
#include "support/process.h"
#include "support/sandbox.h"

#define EXAMPLES LESSOR_BINARY_DIR "/tests/examples/"
enum { RUN_MS = 60000 };

static void scene_start(struct host *h) {
        host_start(h, "max_connections: 10, wait_timeout: 30s");
        check_eq(setenv("LESSOR_SOCKET", h->broker.socket, 1), 0);
}

/* Its standard output and error; `under` is a program to run it, with its options, or NULL. */
static char *run_example(const char *const under[], const char *name, const char *a, const char *b) {
        const char *argv[16] = {NULL};
        char path[256], *output = NULL;
        unsigned n = 0;

        snprintf(path, sizeof(path), EXAMPLES "%s", name);
        for (; under && under[n]; n++)
                argv[n] = under[n];
        argv[n++] = path;
        argv[n++] = a;
        argv[n] = a ? b : NULL;
        int status = program_run(argv, &output, under ? 4 * RUN_MS : RUN_MS);
        check_msg(status == 0, "%s ends with status %d and says:\n%s", name, status, output);
        return output;
}

static void check_says(char *output, const char *text) {
        check_msg(strstr(output, text), "expected `%s`, it says:\n%s", text, output);
        free(output);
}

/* ---- 10,000 under way --------------------------------------------------------------------------------------------------- */

static void flood(const char *const under[], const char *name) {
        struct host h;
        scene_start(&h);
        check_says(run_example(under, name, NULL, NULL), "10000 answered, 0 failed, at most 10000 under way");
        long long sum = 0;
        for (unsigned i = 0; i < 100; i++)
                sum += redis_integer(&h.redis, "GET example:flood:%u", i);
        check_eq(sum, 10000);
        host_end(&h);
}

TEST_WITH(examples, ten_thousand_commands_in_flight_on_libevent, .timeout = 120) { flood(NULL, "flood_libevent"); }
TEST_WITH(examples, ten_thousand_commands_in_flight_on_libev, .timeout = 120) { flood(NULL, "flood_libev"); }
TEST_WITH(examples, ten_thousand_commands_in_flight_on_libuv, .timeout = 120) { flood(NULL, "flood_libuv"); }

/* ---- a prefork server ----------------------------------------------------------------------------------------------------- */

static void prefork(const char *const under[], const char *workers, const char *requests) {
        char expected[64];
        struct host h;

        scene_start(&h);
        snprintf(expected, sizeof(expected), "%s workers, %s requests each, 0 failed", workers, requests);
        check_says(run_example(under, "prefork", workers, requests), expected);
        long long all = atoll(workers) * atoll(requests);
        check_eq(redis_integer(&h.redis, "GET example:prefork:requests"), all);
        check_eq(redis_integer(&h.redis, "GET example:prefork:sold"), all);
        check_eq(redis_integer(&h.redis, "GET example:prefork:stock"), -all);
        /* A transaction that was carried out leaves nothing behind: no connection had to be replaced or reset. */
        check_figure(&h.broker, "main", discards_dirty, 0);
        check_figure(&h.broker, "main", resets, 0);
        host_end(&h);
}

TEST_WITH(examples, a_prefork_server_opens_once, .timeout = 120) { prefork(NULL, "12", "50"); }

/* ---- a pub/sub listener --------------------------------------------------------------------------------------------------- */

static bool says(const char *path, const char *text) {
        char *all = sandbox_read(path, NULL);
        bool there = strstr(all, text);
        free(all);
        return there;
}

static void listener(const char *const under[]) {
        const char *argv[16] = {NULL};
        char output[256];
        unsigned n = 0;
        struct host h;

        scene_start(&h);
        snprintf(output, sizeof(output), "%s.heard", h.broker.log);
        for (; under && under[n]; n++)
                argv[n] = under[n];
        argv[n++] = EXAMPLES "listener";
        argv[n] = "news";
        pid_t pid = program_start(output, argv);
        check_soon(says(output, "listening on news\n"), RUN_MS);
        redis_say(&h.redis, "PUBLISH news hello");
        redis_say(&h.redis, "PUBLISH news world");
        check_soon(says(output, "hello\nworld\n"), RUN_MS);
        check_soon(redis_integer(&h.redis, "EXISTS example:heard:news") == 1 &&
                           redis_integer(&h.redis, "GET example:heard:news") == 2,
                   RUN_MS);
        redis_kill(&h.redis);
        check_soon(says(output, "world\nlost: "), RUN_MS);
        redis_restart(&h.redis);
        check_soon(redis_integer(&h.redis, "PUBLISH news again") == 1, RUN_MS); /* somebody has heard it */
        check_soon(says(output, "listening on news\nagain\n"), RUN_MS);
        redis_say(&h.redis, "PUBLISH news quit");
        check_eq(program_wait(pid, RUN_MS), 0);
        host_end(&h);
}

TEST_WITH(examples, a_listener_takes_another_connection_when_its_own_is_lost, .timeout = 180) { listener(NULL); }

/* ---- a plain hiredis program ---------------------------------------------------------------------------------------------- */

TEST(examples, a_plain_hiredis_program_moves_over_by_two_functions) {
        struct redis_options options = {.tcp = true};
        char port[16], *before, *after;
        struct host h;

        redis_start(&h.redis, &options);
        broker_start(&h.broker, "databases:\n  main: {%s}\n", redis_address(&h.redis));
        check_eq(setenv("LESSOR_SOCKET", h.broker.socket, 1), 0);
        snprintf(port, sizeof(port), "%u", h.redis.port);
        before = run_example(NULL, "plain", "127.0.0.1", port);
        after = run_example(NULL, "plain_lessor", "127.0.0.1", port);
        check_str(before, "1\n2\n3\nitem-0\nitem-1\nitem-2\n");
        check_str(after, before);
        free(before);
        free(after);
        check_eq(broker_figures_now(&h.broker, "main").leases, 1);
        host_end(&h);
}

/* ---- under valgrind ------------------------------------------------------------------------------------------------------- */

/* Skips where there is no valgrind (tools/setup --dev brings it), or where it cannot run what was built. */
static const char *const *valgrind(void) {
        static const char *const run[] = {"valgrind",
                                          "--quiet",
                                          "--leak-check=full",
                                          "--error-exitcode=99",
                                          "--trace-children=no",
                                          "--errors-for-leak-kinds=definite,indirect,possible",
                                          "--child-silent-after-fork=no",
                                          NULL};
        static const char *const there[] = {"valgrind", "--version", NULL};
        char *version = NULL;

        if (PROCESS_SLOW > 1)
                test_skip("valgrind does not run what a sanitizer is built into");
        int status = program_run(there, &version, RUN_MS);
        free(version);
        if (status != 0)
                test_skip("there is no valgrind: tools/setup --dev installs it");
        return run;
}

TEST_WITH(examples, nothing_leaks_under_valgrind_on_libevent, .timeout = 300) { flood(valgrind(), "flood_libevent"); }
TEST_WITH(examples, nothing_leaks_under_valgrind_on_libev, .timeout = 300) { flood(valgrind(), "flood_libev"); }
TEST_WITH(examples, nothing_leaks_under_valgrind_on_libuv, .timeout = 300) { flood(valgrind(), "flood_libuv"); }
TEST_WITH(examples, nothing_leaks_under_valgrind_across_fork, .timeout = 300) { prefork(valgrind(), "3", "10"); }
TEST_WITH(examples, nothing_leaks_under_valgrind_of_a_listener, .timeout = 300) { listener(valgrind()); }

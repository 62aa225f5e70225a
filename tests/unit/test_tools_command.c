/* SPDX-License-Identifier: MIT */
/* The program itself, `lessor stat`, `health` and `leases`, on a segment written here: output and exit codes. */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <jansson.h>

#include "test_status_fake.h"

static struct fake fake;
static struct lessor_status_database main_database, cache_database;

static void make_databases(void) {
        main_database = (struct lessor_status_database){
                .health = LESSOR_HEALTH_HEALTHY, .max_connections = 20, .operations_ok = 99, .operations_failed = 1};
        cache_database = (struct lessor_status_database){.health = LESSOR_HEALTH_UNUSED, .max_connections = 15};
        snprintf(main_database.name, LESSOR_NAME_SIZE, "main");
        snprintf(cache_database.name, LESSOR_NAME_SIZE, "cache");
        main_database.wait_time.count = main_database.wait_time.bucket[5] = 10;
        main_database.wait_time.sum_ns = 25000;
        main_database.wait_time.max_ns = 2500;
        fake_database(&fake, 0, &main_database);
        fake_database(&fake, 1, &cache_database);
}

static void make_lease(unsigned index, uint64_t age_ns, const char *site) {
        struct lessor_status_connection c = {.database = index % 2,
                                             .slot = index,
                                             .state = LESSOR_CONNECTION_LEASED,
                                             .client_id = 1000 + index,
                                             .holder_pid = 4321,
                                             .holder_tid = 4322};
        c.since_ns = lessor_status_now_ns() - age_ns;
        snprintf(c.holder, sizeof(c.holder), "worker\033[2J");
        snprintf(c.site, sizeof(c.site), "%s", site);
        snprintf(c.local, sizeof(c.local), "127.0.0.1:40112");
        fake_connection(&fake, index, &c);
}

static void setup(void) {
        fake_make(&fake);
        make_databases();
        make_lease(0, 1000000000, "young.c:1");
        make_lease(1, 90000000000, "old.c:2");
        fake.header.databases = 2;
        fake.header.connections = 2;
        fake.header.sessions = 3;
        fake_header(&fake);
        setenv("LESSOR_INSTANCE", fake.instance, 1);
}

static void teardown(void) { fake_remove(&fake); }

#define COMMAND_TEST(name) TEST_WITH(tools_command, name, .init = setup, .fini = teardown, .timeout = 60)

static char output[65536];

/* The exit code; what it printed, both streams, is in `output`. */
static int lessor(const char *arguments) {
        char command[512];
        size_t n;
        FILE *in;

        snprintf(command, sizeof(command), "%s/tools/lessor %s 2>&1", LESSOR_BINARY_DIR, arguments);
        in = popen(command, "r");
        check(in != NULL);
        n = fread(output, 1, sizeof(output) - 1, in);
        output[n] = '\0';
        int status = pclose(in);
        check(WIFEXITED(status));
        return WEXITSTATUS(status);
}

static void check_fits(unsigned width) {
        for (const char *line = output; *line; line += strcspn(line, "\n") + 1)
                check_msg(strcspn(line, "\n") <= width, "a line is longer than %u: %.200s", width, line);
}

static json_t *parsed(void) {
        json_error_t error;
        json_t *value = json_loads(output, 0, &error);
        check_msg(value != NULL, "%s in: %.400s", error.text, output);
        return value;
}

static double at(json_t *object, const char *a, const char *b, const char *c) {
        json_t *value = json_object_get(object, a);
        value = b ? json_object_get(value, b) : value;
        value = c ? json_object_get(value, c) : value;
        check_msg(value != NULL, "no %s %s %s in: %.400s", a, b ? b : "", c ? c : "", output);
        return json_is_boolean(value) ? json_is_true(value) : json_number_value(value);
}

/* ---- stat ------------------------------------------------------------------------------------------------------ */

COMMAND_TEST(stat_prints_a_line_for_each_database_in_a_hundred_columns) {
        check_eq(lessor("stat"), 0);
        check(strstr(output, "main") && strstr(output, "cache") && strstr(output, "unused") &&
              strstr(output, "99.00%"));
        check_fits(100);
}

COMMAND_TEST(stat_prints_chosen_figures_a_line_each_with_what_they_grew) {
        check_eq(lessor("stat -f operations_ok -f 'main.max_c*'"), 0);
        check(strstr(output, "main.operations_ok") && strstr(output, "cache.operations_ok"));
        check(strstr(output, "main.max_connections") && !strstr(output, "cache.max_connections"));
        check(strstr(output, "max_waiters") == NULL);
        check_msg(strstr(output, "  99        1.6"), "99 in a minute are 1.6 a second: %s", output);
        check_eq(lessor("stat main -1 --field='!discards*'"), 0);
        check(strstr(output, "main.wait_time.p99") && strstr(output, "main.trouble") && !strstr(output, "cache."));
        check(!strstr(output, "discards"));
        check_eq(lessor("stat -f nothing"), 1);
        check_eq(lessor("stat -f"), 64);
        check(strstr(output, "needs a value"));
}

COMMAND_TEST(stat_json_of_chosen_figures_is_flat_and_exact) {
        check_eq(lessor("stat -j -f 'main.operations_*' -f '!*failed' -f main.wait_time.max"), 0);
        json_t *value = parsed();
        check(at(value, "figures", "main.operations_ok", NULL) == 99);
        check(at(value, "figures", "main.operations_total", NULL) == 100);
        check(at(value, "figures", "main.wait_time.max", NULL) == 2500);
        check_eq(json_object_size(json_object_get(value, "figures")), 3);
        check_eq(json_object_size(json_object_get(value, "rates")), 2);
        json_decref(value);
}

COMMAND_TEST(stat_lists_every_field_of_the_schema) {
        check_eq(lessor("stat --list"), 0);
#define LESSOR_STATUS_FIELD(name, kind, unit, help) check(strstr(output, #name " "));
#include <lessor/status_fields.h>
#define LESSOR_STATUS_HISTOGRAM(name, help) check(strstr(output, #name ".p99 "));
#include <lessor/status_fields.h>
}

COMMAND_TEST(stat_json_has_every_field_of_the_schema_under_its_own_name) {
        check_eq(lessor("stat --json"), 0);
        json_t *value = parsed();
#define LESSOR_STATUS_FIELD(name, kind, unit, help)                                                                    \
        check(at(value, "databases", "main", #name) == (double)main_database.name);
#include <lessor/status_fields.h>
        check(at(value, "databases", "main", "operations_total") == 100);
        check(at(value, "databases", "main", "success_rate") == 99);
        check(at(value, "databases", "cache", "success_rate") == 100);
        check(at(value, "overall", "overall_healthy", NULL) == 1);
        check(at(value, "overall", "total_databases", NULL) == 2);
        check(at(value, "overall", "healthy_databases", NULL) == 2);
        check(at(value, "overall", "degraded_databases", NULL) == 0);
        check(at(value, "overall", "failed_databases", NULL) == 0);
        check(at(value, "overall", "success_rate", NULL) == 99);
        check(at(value, "instance", "generation", NULL) == 7);
        check(at(value, "instance", "sessions", NULL) == 3);
        check(at(value, "instance", "stale", NULL) == 0);
        check(at(value, "instance", "uptime_s", NULL) >= 59);
        json_t *wait = json_object_get(json_object_get(json_object_get(value, "databases"), "main"), "wait_time");
        check(at(wait, "count", NULL, NULL) == 10 && at(wait, "mean_us", NULL, NULL) == 2.5);
        check(at(wait, "p50_us", NULL, NULL) == 2.5 && at(wait, "p90_us", NULL, NULL) == 2.5);
        check(at(wait, "p99_us", NULL, NULL) == 2.5 && at(wait, "max_us", NULL, NULL) == 2.5);
        json_decref(value);
}

COMMAND_TEST(stat_of_one_database_explains_every_figure) {
        check_eq(lessor("stat main"), 0);
#define LESSOR_STATUS_FIELD(name, kind, unit, help) check_msg(strstr(output, #name), "no " #name);
#include <lessor/status_fields.h>
        check_fits(100);
}

COMMAND_TEST(stat_of_an_unknown_database_names_those_known) {
        check_eq(lessor("stat mian"), 1);
        check(strstr(output, "`mian`") && strstr(output, "main, cache"));
}

COMMAND_TEST(stat_without_a_segment_says_what_to_do) {
        check_eq(lessor("stat --instance no-such-instance"), 2);
        check(strstr(output, "`no-such-instance`") && strstr(output, "lessord --instance no-such-instance"));
        check(strstr(output, fake.instance)); /* the one that is here */
}

COMMAND_TEST(stat_of_a_stale_segment_says_so_and_shows_the_last_figures) {
        fake_beat(&fake, 60000000000);
        check_eq(lessor("stat"), 0);
        check(strstr(output, "STALE: no heartbeat for 6") && strstr(output, "cache"));
        check_eq(lessor("stat --json"), 0);
        json_t *value = parsed();
        check(at(value, "instance", "stale", NULL) == 1);
        check(at(value, "overall", "overall_healthy", NULL) == 0);
        json_decref(value);
}

/* A watch whose output goes to a pipe; each repetition is one JSON line. */
static pid_t start_watch(FILE **ret) {
        int ends[2];
        check(pipe(ends) == 0);
        pid_t pid = fork();
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nothing behind */
                dup2(ends[1], 1);
                close(ends[0]);
                close(ends[1]);
                execl(LESSOR_BINARY_DIR "/tools/lessor", "lessor", "stat", "--json", "--watch=0.05", (char *)NULL);
                _exit(127);
        }
        close(ends[1]);
        *ret = fdopen(ends[0], "r");
        check(pid > 0 && *ret);
        return pid;
}

static double next_generation(FILE *in) {
        check(fgets(output, sizeof(output), in));
        json_t *value = parsed();
        double generation = at(value, "instance", "generation", NULL);
        json_decref(value);
        return generation;
}

COMMAND_TEST(watch_follows_a_new_broker_and_ends_cleanly_on_sigint) {
        FILE *in;
        int status;
        pid_t pid = start_watch(&in);

        check(next_generation(in) == 7);
        check(next_generation(in) == 7);
        fake.header.instance = 8;
        char fresh[96];
        snprintf(fresh, sizeof(fresh), "/lessor.%s.new", fake.instance);
        struct fake other = fake;
        other.fd = shm_open(fresh, O_RDWR | O_CREAT | O_EXCL, 0644);
        check(other.fd >= 0 && ftruncate(other.fd, (off_t)fake.header.segment_size) == 0);
        fake_header(&other);
        char from[128], to[128];
        snprintf(from, sizeof(from), "/dev/shm%s", fresh);
        snprintf(to, sizeof(to), "/dev/shm%s", fake.path);
        check(rename(from, to) == 0);
        while (next_generation(in) != 8)
                ;
        check(kill(pid, SIGINT) == 0);
        check(waitpid(pid, &status, 0) == pid);
        check(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        fclose(in);
        close(other.fd);
}

COMMAND_TEST(watch_ends_cleanly_when_its_reader_goes_away) {
        FILE *in;
        int status;
        pid_t pid = start_watch(&in);
        check(next_generation(in) == 7);
        fclose(in);
        check(waitpid(pid, &status, 0) == pid);
        check(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- health ---------------------------------------------------------------------------------------------------- */

COMMAND_TEST(health_is_told_by_the_exit_code) {
        check_eq(lessor("health"), 0);
        cache_database.health = LESSOR_HEALTH_DEGRADED;
        snprintf(cache_database.reason, LESSOR_STATUS_TEXT_SIZE, "queue is full");
        fake_database(&fake, 1, &cache_database);
        check_eq(lessor("health"), 1);
        check(strstr(output, "cache is degraded: queue is full"));
        main_database.health = LESSOR_HEALTH_FAILED;
        fake_database(&fake, 0, &main_database);
        check_eq(lessor("health --json"), 2);
        json_t *value = parsed();
        check_str(json_string_value(json_object_get(value, "status")), "failed");
        check(at(value, "failed_databases", NULL, NULL) == 1 && at(value, "degraded_databases", NULL, NULL) == 1);
        check(at(value, "overall_healthy", NULL, NULL) == 0);
        json_decref(value);
}

COMMAND_TEST(a_stale_or_absent_broker_is_not_healthy) {
        fake_beat(&fake, 10000000000);
        check_eq(lessor("health"), 2);
        check(strstr(output, "STALE"));
        check_eq(lessor("health --json --instance no-such-instance"), 2);
        json_t *value = parsed();
        check_str(json_string_value(json_object_get(value, "status")), "absent");
        json_decref(value);
}

/* ---- leases ---------------------------------------------------------------------------------------------------- */

COMMAND_TEST(leases_are_listed_oldest_first_and_nothing_steers_the_terminal) {
        check_eq(lessor("leases"), 0);
        const char *old = strstr(output, "old.c:2"), *young = strstr(output, "young.c:1");
        check(old && young && old < young);
        check(!strchr(output, '\033') && strstr(output, "worker?[2J"));
        check(strstr(output, "4321") && strstr(output, "4322") && strstr(output, "127.0.0.1:40112"));
        check_fits(100);
}

COMMAND_TEST(leases_of_one_database) {
        check_eq(lessor("leases --json cache"), 0);
        json_t *value = parsed(), *leases = json_object_get(value, "leases");
        check_eq(json_array_size(leases), 1);
        check(at(json_array_get(leases, 0), "client_id", NULL, NULL) == 1001);
        check(at(json_array_get(leases, 0), "age_ms", NULL, NULL) >= 90000);
        json_decref(value);
        check_eq(lessor("leases nope"), 1);
        check(strstr(output, "main, cache"));
}

static void make_lane(unsigned index, uint64_t session, uint32_t slot, uint64_t age_ns) {
        struct lessor_status_lane l = {
                .session = session, .slot = slot, .sent = 3, .queued = 1, .holder_pid = 777, .holder_uid = 33};
        l.since_ns = lessor_status_now_ns() - age_ns;
        snprintf(l.holder, sizeof(l.holder), "web\033[2J");
        fake_lane(&fake, index, &l);
}

/* Two sessions with commands in lanes of `main`, one of them on a connection that is there. */
static void make_lanes(void) {
        struct lessor_status_connection c = {.slot = 9, .state = LESSOR_CONNECTION_LANE, .client_id = 88};
        snprintf(c.local, sizeof(c.local), "127.0.0.1:50001");
        fake_connection(&fake, 2, &c);
        make_lane(1, 51, 9, 2000000000);
        make_lane(2, 52, LESSOR_STATUS_NO_SLOT, 70000000000);
        main_database.lane_sessions = 5;
        main_database.lane_under_way = 20;
        fake_database(&fake, 0, &main_database);
        fake.header.connections = 3;
        fake_header(&fake);
}

COMMAND_TEST(sessions_with_commands_in_lanes_are_listed_longest_first) {
        check_eq(lessor("leases"), 0);
        check(!strstr(output, "by lane"));
        make_lanes();
        check_eq(lessor("leases"), 0);
        check_msg(strstr(output, "\nby lane, 5 sessions have 20 commands under way, the 2 longest:\n"), "%s", output);
        const char *lanes = strstr(output, "by lane"), *old = strstr(lanes, " 52 "), *young = strstr(lanes, " 51 ");
        check(old && young && old < young);
        check(strstr(young, "127.0.0.1:50001") && strstr(lanes, "web?[2J"));
        check_fits(100);
        check_eq(lessor("leases cache"), 0);
        check(!strstr(output, "by lane"));
}

COMMAND_TEST(the_address_of_a_lanes_connection_tells_whose_commands_are_under_way_on_it) {
        make_lanes();
        check_eq(lessor("leases --addr 127.0.0.1:50001"), 0);
        check_msg(strstr(output, "under way on it") && strstr(output, " 51 ") && !strstr(output, " 52 "), "%s", output);
        check_eq(lessor("leases --json --addr 88"), 0);
        json_t *value = parsed(), *lanes = json_object_get(value, "lanes"), *first = json_array_get(lanes, 0);
        check_eq(json_array_size(lanes), 1);
        check(at(first, "session", NULL, NULL) == 51 && at(first, "pid", NULL, NULL) == 777);
        check(at(first, "sent", NULL, NULL) == 3 && at(first, "queued", NULL, NULL) == 1);
        check(at(first, "age_ms", NULL, NULL) >= 2000);
        json_decref(value);
        check_eq(lessor("leases --json"), 0);
        value = parsed();
        check_eq(json_array_size(json_object_get(value, "lanes")), 2);
        check(at(value, "lane_sessions", NULL, NULL) == 5 && at(value, "lane_under_way", NULL, NULL) == 20);
        json_decref(value);
}

/* ---- the command line ------------------------------------------------------------------------------------------ */

COMMAND_TEST(errors_of_usage_are_64_and_name_the_nearest) {
        check_eq(lessor(""), 64);
        check_eq(lessor("stta"), 64);
        check(strstr(output, "did you mean `stat`"));
        check_eq(lessor("stat --jsno"), 64);
        check(strstr(output, "--json"));
        check_eq(lessor("stat main cache"), 64);
        check_eq(lessor("stat --watch=never"), 64);
        check_eq(lessor("health x"), 64);
        check_eq(lessor("leases --instance"), 64);
        check_eq(lessor("bench"), 64);
        check_eq(lessor("bench colt"), 64);
        check(strstr(output, "did you mean cold"));
        check_eq(lessor("bench cold --rounds 0"), 64);
        check_eq(lessor("bench cold --json --markdown"), 64);
        check_eq(lessor("bench cold --quick"), 64);
        check_eq(lessor("bench cold --markdown --quick --rounds 3"), 64);
        check_eq(lessor("bench colt --markdown"), 64);
}

COMMAND_TEST(help_and_version) {
        check_eq(lessor("--version"), 0);
        check_eq(strncmp(output, "lessor ", 7), 0);
        check_eq(lessor("help"), 0);
        check(strstr(output, "leases"));
        check_eq(lessor("help stat"), 0);
        check(strstr(output, "--watch"));
        check_fits(120);
        check_eq(lessor("leases --help"), 0);
        check_eq(lessor("bench list"), 0);
        check(strstr(output, "\nwarm ") && strstr(output, "\nhandover ") && strstr(output, "\nstorm ") &&
              strstr(output, "\nfootprint ") && strstr(output, "\ncrowd ") && strstr(output, "\npipeline ") &&
              strstr(output, "\nasync "));
}

COMMAND_TEST(a_full_disk_is_an_error) {
        char command[256];
        snprintf(command, sizeof(command), "%s/tools/lessor stat >/dev/full 2>/dev/null", LESSOR_BINARY_DIR);
        int status = system(command);
        check(WIFEXITED(status) && WEXITSTATUS(status) != 0);
}

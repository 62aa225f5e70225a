/* SPDX-License-Identifier: MIT */
/*
 * One broker of an instance: a second is refused, a dead one's leavings are taken over, and what is not ours to take over
 * is refused in words.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"
#include "support/raw.h"
#include "support/sandbox.h"

enum { NOT_PERMITTED = 77, SOON_MS = 10000 };

static void segment_path(const struct broker *b, char ret[128]) {
        snprintf(ret, 128, "/dev/shm/lessor.%s", b->instance);
}

/* Refused with a status of its own (no signal, no sanitizer), in words that name what is wrong. */
static void check_refused(struct broker *b, int status, const char *words) {
        if (status <= 0 || status >= 126 || !broker_log_has(b, words))
                broker_dump_log(b);
        check_msg(status > 0 && status < 126, "ended with status %d", status);
        check_msg(broker_log_has(b, words), "the log does not say `%s`", words);
}

static void check_serves(struct broker *b) {
        lessor *l = client_open(b);
        lessor_db *db = client_database(l, NULL);
        freeReplyObject(client_command(db, "PING"));
        lessor_close(l);
}

/* A broker prepared for a redis-server, not yet launched. */
static void prepare(struct host *h) {
        redis_start(&h->redis, NULL);
        broker_prepare(&h->broker, "databases: {main: {%s}}\n", redis_address(&h->redis));
}

static void check_works_after_all(struct host *h) {
        broker_launch(&h->broker);
        check_serves(&h->broker);
        host_end(h);
}

TEST(lifecycle, a_second_broker_of_an_instance_is_refused_and_disturbs_nothing) {
        struct host h;

        host_start(&h, "max_connections: 2");
        struct broker second = h.broker;
        second.log = sandbox_path("second.log");
        check_refused(&second, broker_launch_refused(&second, NULL, NULL), second.instance);
        second.socket = sandbox_path("second.sock");
        check_refused(&second, broker_launch_refused(&second, NULL, NULL), second.instance);
        check(access(second.socket, F_OK) < 0);
        check_serves(&h.broker);
        free(second.log);
        free(second.socket);
        host_end(&h);
}

TEST(lifecycle, another_instance_does_not_take_a_living_brokers_socket) {
        struct host h;
        struct broker other;

        host_start(&h, "max_connections: 2");
        broker_prepare(&other, "databases: {main: {%s}}\n", redis_address(&h.redis));
        free(other.socket);
        other.socket = strdup(h.broker.socket);
        check_refused(&other, broker_launch_refused(&other, NULL, NULL), h.broker.socket);
        check_serves(&h.broker);
        broker_free(&other);
        host_end(&h);
}

TEST(lifecycle, the_socket_and_the_segment_of_a_killed_broker_are_taken_over) {
        struct lessor_status status = {0};
        struct host h;

        host_start(&h, "max_connections: 2");
        check_serves(&h.broker);
        check_eq(lessor_status_open(h.broker.instance, &status), 0);
        uint64_t first = status.constants.instance;
        broker_kill(&h.broker);
        check(access(h.broker.socket, F_OK) == 0);
        check(!lessor_status_replaced(&status));
        broker_launch(&h.broker);
        check(lessor_status_replaced(&status));
        lessor_status_close(&status);
        check_eq(lessor_status_open(h.broker.instance, &status), 0);
        check(status.constants.instance != first);
        check_eq(status.constants.broker_pid, h.broker.pid);
        lessor_status_close(&status);
        check_serves(&h.broker);
        host_end(&h);
}

TEST(lifecycle, a_stop_removes_the_socket_and_the_segment) {
        struct lessor_status status = {0};
        struct host h;

        host_start(&h, "max_connections: 2");
        check_serves(&h.broker);
        broker_stop(&h.broker);
        check(access(h.broker.socket, F_OK) < 0);
        check_eq(lessor_status_open(h.broker.instance, &status), -ENOENT);
        broker_launch(&h.broker);
        check_serves(&h.broker);
        host_end(&h);
}

TEST(lifecycle, a_stop_closes_every_connection_nobody_holds) {
        struct host h;

        host_start(&h, "max_connections: 2");
        check_serves(&h.broker);
        check_eq(redis_connections(&h.redis, NULL), 1);
        broker_stop(&h.broker);
        check_soon(redis_connections(&h.redis, NULL) == 0, SOON_MS);
        broker_free(&h.broker);
        redis_stop(&h.redis);
}

struct storm {
        struct stage connects; /* counted */
        char path[128];
};

static int connect_again_and_again(unsigned index, void *arg) {
        struct storm *storm = arg;
        for (uint64_t deadline = now_ms() + 60000; now_ms() < deadline && access(storm->path, F_OK) == 0;) {
                int fd = raw_connect(storm->path);
                if (fd >= 0)
                        close(fd);
                stage_advance(&storm->connects);
        }
        return 0;
}

/* Who is on his way from the first thread to another one while all of them stop is nobody's session. */
TEST(lifecycle, a_stop_in_a_storm_of_newcomers_is_a_clean_stop) {
        struct storm *storm = shared_memory(sizeof(*storm));
        struct workers w;
        struct broker b;

        broker_prepare(&b, "threads: 3\ndatabases: {main: {unix_socket: /nowhere}}\n");
        for (unsigned round = 0; round < 5; round++) {
                broker_launch(&b);
                snprintf(storm->path, sizeof(storm->path), "%s", b.socket);
                workers_start(&w, 3, connect_again_and_again, storm);
                check(stage_reached(&storm->connects, (round + 1) * 300, SOON_MS));
                broker_stop(&b);
                check_eq(workers_wait(&w, SOON_MS), 3);
        }
        broker_free(&b);
}

TEST(lifecycle, a_symbolic_link_at_the_socket_path_is_refused) {
        struct host h;

        prepare(&h);
        char *target = sandbox_path("target");
        check(symlink(target, h.broker.socket) == 0);
        check_refused(&h.broker, broker_launch_refused(&h.broker, NULL, NULL), "symbolic link");
        check(access(target, F_OK) < 0);
        check(unlink(h.broker.socket) == 0);
        free(target);
        check_works_after_all(&h);
}

TEST(lifecycle, a_file_or_a_directory_at_the_socket_path_is_refused_and_kept) {
        struct host h;

        prepare(&h);
        sandbox_write(h.broker.socket, "precious\n");
        check_refused(&h.broker, broker_launch_refused(&h.broker, NULL, NULL), h.broker.socket);
        char *text = sandbox_read(h.broker.socket, NULL);
        check_str(text, "precious\n");
        free(text);
        check(unlink(h.broker.socket) == 0 && mkdir(h.broker.socket, 0755) == 0);
        check_refused(&h.broker, broker_launch_refused(&h.broker, NULL, NULL), h.broker.socket);
        check(rmdir(h.broker.socket) == 0);
        check_works_after_all(&h);
}

static void leave_stale_socket(const char *path) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        check(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
        close(fd);
}

TEST(lifecycle, a_stale_socket_of_another_user_is_refused) {
        struct host h;

        if (geteuid() != 0)
                test_skip("only root can make a socket of another user");
        prepare(&h);
        leave_stale_socket(h.broker.socket);
        check(chown(h.broker.socket, 65534, 65534) == 0);
        check_refused(&h.broker, broker_launch_refused(&h.broker, NULL, NULL), "another user");
        check(unlink(h.broker.socket) == 0);
        check_works_after_all(&h);
}

TEST(lifecycle, a_missing_directory_for_the_socket_is_said) {
        struct host h;

        prepare(&h);
        char *good = h.broker.socket;
        h.broker.socket = sandbox_path("no/such/directory/broker.sock");
        check_refused(&h.broker, broker_launch_refused(&h.broker, NULL, NULL), h.broker.socket);
        free(h.broker.socket);
        h.broker.socket = good;
        check_works_after_all(&h);
}

/* ---- what may stand where the segment goes ---------------------------------------------------------------------- */

TEST(lifecycle, a_short_file_of_ours_in_the_place_of_the_segment_is_replaced) {
        char path[128];
        struct host h;

        prepare(&h);
        segment_path(&h.broker, path);
        sandbox_write(path, "short");
        check_works_after_all(&h);
}

TEST(lifecycle, a_symbolic_link_in_the_place_of_the_segment_never_touches_its_target) {
        char path[128];
        struct host h;

        prepare(&h);
        segment_path(&h.broker, path);
        char *target = sandbox_path("target");
        sandbox_write(target, "precious\n");
        check(symlink(target, path) == 0);
        check_refused(&h.broker, broker_launch_refused(&h.broker, NULL, NULL), path);
        char *text = sandbox_read(target, NULL);
        check_str(text, "precious\n");
        check(unlink(path) == 0);
        free(text);
        free(target);
        check_works_after_all(&h);
}

TEST(lifecycle, a_segment_of_another_user_is_refused) {
        char path[128];
        struct host h;

        if (geteuid() != 0)
                test_skip("only root can make a file of another user");
        prepare(&h);
        segment_path(&h.broker, path);
        sandbox_write(path, "somebody's");
        check(chown(path, 65534, 65534) == 0);
        check_refused(&h.broker, broker_launch_refused(&h.broker, NULL, NULL), path);
        check(unlink(path) == 0);
        check_works_after_all(&h);
}

/* In the broker's process, before it starts: a /dev/shm of its own with this much room. */
static void with_a_tiny_shm(void *size) {
        if ((unshare(CLONE_NEWNS) < 0 && unshare(CLONE_NEWNS | CLONE_NEWUSER) < 0) ||
            mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("tmpfs", "/dev/shm", "tmpfs", 0, size) < 0)
                fprintf(stderr, "%s", strerror(errno)), _exit(NOT_PERMITTED);
}

TEST(lifecycle, a_full_dev_shm_is_a_refusal_in_words) {
        struct host h;

        prepare(&h);
        int status = broker_launch_refused(&h.broker, with_a_tiny_shm, (char[]){"size=4k"});
        if (status == NOT_PERMITTED)
                test_skip("no mount namespace of our own here: %s", sandbox_read(h.broker.log, NULL));
        check_refused(&h.broker, status, "/dev/shm");
        check(broker_log_has(&h.broker, "full") || broker_log_has(&h.broker, strerror(ENOSPC)));
        check_refused(&h.broker, broker_launch_refused(&h.broker, with_a_tiny_shm, (char[]){"size=64k"}), "/dev/shm");
        check(access(h.broker.socket, F_OK) < 0);
        check_works_after_all(&h);
}

TEST(lifecycle, a_truncated_segment_does_not_kill_the_broker) {
        char path[128];
        struct host h;

        host_start(&h, "max_connections: 2");
        segment_path(&h.broker, path);
        check_serves(&h.broker);
        check(truncate(path, 0) == 0);
        for (unsigned i = 0; i < 5; i++)
                check_serves(&h.broker);
        broker_stop(&h.broker);
        broker_free(&h.broker);
        redis_stop(&h.redis);
}

static void with_few_fds(void *arg) {
        struct rlimit limit = {.rlim_cur = 64, .rlim_max = 64};
        setrlimit(RLIMIT_NOFILE, &limit);
}

TEST(lifecycle, too_few_file_descriptors_are_refused_at_the_start) {
        struct host h;

        prepare(&h);
        check_refused(&h.broker, broker_launch_refused(&h.broker, with_few_fds, NULL), "RLIMIT_NOFILE");
        check_works_after_all(&h);
}

/* ---- the command line ------------------------------------------------------------------------------------------- */

static char *run_broker(int expected, const char *argument, const char *value) {
        char *output;
        int status = program_run((const char *[]){broker_path(), argument, value, NULL}, &output, SOON_MS);
        check_msg(status == expected || (expected < 0 && status > 0 && status < 126), "lessord %s: status %d: %s",
                  argument, status, output);
        return output;
}

TEST(lifecycle, version_and_help_are_answered) {
        char *output = run_broker(0, "--version", NULL);
        check_msg(strstr(output, LESSOR_RELEASE), "%s", output);
        free(output);
        output = run_broker(0, "--help", NULL);
        check(strstr(output, "--instance") && strstr(output, "--socket") && strstr(output, "-c"));
        free(output);
}

TEST(lifecycle, what_the_command_line_or_the_file_gets_wrong_is_said) {
        char *output = run_broker(-1, "--no-such-option", NULL);
        check(strstr(output, "no-such-option"));
        free(output);
        char *path = sandbox_path("wrong.yaml");
        output = run_broker(-1, "-c", path);
        check(strstr(output, path));
        free(output);
        sandbox_write(path, "databases:\n  main:\n    max_conections: 5\n");
        output = run_broker(-1, "-c", path);
        check_msg(strstr(output, "wrong.yaml:3") && strstr(output, "max_connections"), "%s", output);
        free(output);
        free(path);
}

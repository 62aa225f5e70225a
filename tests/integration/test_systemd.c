/* SPDX-License-Identifier: MIT */
/*
 * The test plays systemd: a notify socket, a watchdog, a socket that listens already. And systemd-analyze reads the units.
 */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"
#include "support/raw.h"
#include "support/sandbox.h"

enum { SOON_MS = 10000, SILENCE_MS = 1000, FIRST_FD = 3 };

struct manager {
        struct host host;
        int notify;   /* what the broker says arrives here */
        int listener; /* passed to the broker; -1: none */
        char *path, *watchdog_usec;
};

/* ---- playing systemd ------------------------------------------------------------------------------------------------ */

static int bound(int type, const char *path) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
        check(fd >= 0 && strlen(path) < sizeof(address.sun_path));
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        check_msg(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "%s: %s", path, strerror(errno));
        return fd;
}

/* In the child, before exec: what systemd would put there. */
static void surround(void *userdata) {
        const struct manager *m = userdata;
        char pid[16];
        setenv("NOTIFY_SOCKET", m->path, 1);
        if (m->watchdog_usec)
                setenv("WATCHDOG_USEC", m->watchdog_usec, 1);
        if (m->listener < 0)
                return;
        snprintf(pid, sizeof(pid), "%d", (int)getpid());
        setenv("LISTEN_PID", pid, 1);
        setenv("LISTEN_FDS", "1", 1);
        dup2(m->listener, FIRST_FD); /* dup2() leaves no FD_CLOEXEC */
}

static void launch(struct manager *m) {
        struct broker *b = &m->host.broker;
        const char *set = getenv("LESSOR_TEST_SET");
        const char *const argv[] = {broker_path(), "-c",       b->config, "--instance",
                                    b->instance,   "--socket", b->socket, set ? "--set" : NULL,
                                    set,           NULL};
        b->pid = program_start_prepared(b->log, argv, surround, m);
}

static void prepare(struct manager *m, const char *watchdog_usec) {
#ifndef LESSOR_SYSTEMD
        test_skip("lessord is built without libsystemd");
#endif
        *m = (struct manager){.listener = -1, .watchdog_usec = (char *)(uintptr_t)watchdog_usec};
        redis_start(&m->host.redis, NULL);
        broker_prepare(&m->host.broker, "databases: {main: {%s, max_connections: 2}}\n", redis_address(&m->host.redis));
        m->path = sandbox_path("notify");
        m->notify = bound(SOCK_DGRAM, m->path);
}

/* One message of the broker's; false: none within the time. */
static bool hear(const struct manager *m, unsigned ms, char ret[1024]) {
        struct pollfd readable = {.fd = m->notify, .events = POLLIN};
        ssize_t n;
        if (poll(&readable, 1, (int)ms) <= 0)
                return false;
        n = recv(m->notify, ret, 1023, 0);
        check(n > 0);
        ret[n] = '\0';
        return true;
}

static bool has_line(const char *message, const char *line) {
        const char *at = strstr(message, line);
        char after = at ? at[strlen(line)] : 'x';
        return at && (at == message || at[-1] == '\n') && (after == '\n' || after == '\0');
}

/* Hears until a message has this line. */
static void check_heard(const struct manager *m, const char *line) {
        char message[1024] = "";
        uint64_t end = deadline_in(SOON_MS);
        while (hear(m, SOON_MS * PROCESS_SLOW, message))
                if (has_line(message, line))
                        return;
                else if (!look_again_before(end))
                        break;
        broker_dump_log(&m->host.broker);
        check_msg(false, "the broker does not say `%s`; its last word: `%s`", line, message);
}

static void check_stops(struct manager *m) {
        kill(m->host.broker.pid, SIGTERM);
        check_heard(m, "STOPPING=1");
        check_eq(program_wait(m->host.broker.pid, SOON_MS), 0);
        m->host.broker.pid = 0;
        broker_free(&m->host.broker);
        redis_stop(&m->host.redis);
        close(m->notify);
        free(m->path);
}

/* ---- readiness, status, reload --------------------------------------------------------------------------------------- */

TEST(systemd, the_broker_says_that_it_is_ready_when_a_worker_can_attach) {
        struct manager m;
        prepare(&m, NULL);
        launch(&m);
        check_heard(&m, "READY=1");
        int worker = raw_attach(m.host.broker.socket, 0, NULL);
        check(worker >= 0);
        check_eq(raw_lookup(worker, "main"), 0);
        close(worker);
        check_stops(&m);
}

TEST(systemd, status_follows_the_databases_health) {
        struct manager m;
        prepare(&m, NULL);
        redis_kill(&m.host.redis);
        launch(&m);
        check_heard(&m, "STATUS=1 database, all healthy");
        int worker = raw_attach(m.host.broker.socket, 0, NULL);
        struct lessor_msg_lease lease = raw_lease_message(3, 0, 0);
        check_eq(raw_say(worker, &lease), 0);
        lease = raw_lease_message(4, 0, 60 * UINT64_C(1000000000));
        check_eq(raw_say(worker, &lease), 0);
        check_heard(&m, "STATUS=1 database, 0 degraded, 1 failed (lessor health says why)");
        close(worker);
        check_stops(&m);
}

TEST(systemd, a_reload_begins_with_RELOADING_and_ends_with_READY) {
        struct manager m;
        prepare(&m, NULL);
        launch(&m);
        check_heard(&m, "STATUS=1 database, all healthy");
        kill(m.host.broker.pid, SIGHUP);
        check_heard(&m, "RELOADING=1");
        check_heard(&m, "READY=1");
        check_heard(&m, "STATUS=1 database, all healthy");
        sandbox_write(m.host.broker.config, "databases: {main: {nonsense: 1}}\n");
        kill(m.host.broker.pid, SIGHUP);
        check_heard(&m, "RELOADING=1");
        check_heard(&m, "READY=1");
        check_heard(&m, "STATUS=1 database, all healthy; the last reload was refused (the log says why)");
        check_stops(&m);
}

TEST(systemd, a_manager_that_does_not_listen_does_not_disturb_the_broker) {
        struct manager m;
        prepare(&m, "1000000");
        unlink(m.path);
        launch(&m);
        check_soon(broker_log_has(&m.host.broker, "broker: ready"), SOON_MS);
        m.host.broker.fds = fd_count(m.host.broker.pid);
        int worker = raw_attach(m.host.broker.socket, 0, NULL);
        check(worker >= 0);
        close(worker);
        close(m.notify);
        free(m.path);
        host_end(&m.host);
}

/* ---- the watchdog ---------------------------------------------------------------------------------------------------- */

static pid_t find_data_thread(pid_t pid) {
        char path[64], name[400];
        pid_t found = 0;
        snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
        DIR *tasks = opendir(path);
        check(tasks);
        for (struct dirent *task; !found && (task = readdir(tasks));) {
                snprintf(name, sizeof(name), "%s/%s/comm", path, task->d_name);
                char *comm = sandbox_read(name, NULL);
                if (strncmp(comm, "lessord-data", 12) == 0)
                        found = (pid_t)atoi(task->d_name);
                free(comm);
        }
        closedir(tasks);
        return found;
}

/* One thread alone stands still; the others go on. */
static void stop_thread(pid_t tid) {
        int status;
        if (ptrace(PTRACE_SEIZE, tid, NULL, NULL) < 0 && errno == EPERM)
                test_skip("a thread cannot be stopped here: ptrace is not permitted");
        check_eq(ptrace(PTRACE_INTERRUPT, tid, NULL, NULL), 0);
        check_eq(waitpid(tid, &status, __WALL), tid);
        check(WIFSTOPPED(status));
}

/* Nothing at all is heard for a while. Whoever goes on feeding never leaves such a gap before the deadline. */
static bool falls_silent(const struct manager *m) {
        char message[1024];
        uint64_t end = deadline_in(2 * SOON_MS);
        while (hear(m, SILENCE_MS, message))
                if (!look_again_before(end))
                        return false;
        return true;
}

TEST(systemd, the_watchdog_is_fed_while_every_data_thread_makes_progress_and_no_longer) {
        struct manager m;
        prepare(&m, "300000");
        launch(&m);
        check_heard(&m, "READY=1");
        for (unsigned i = 0; i < 3; i++)
                check_heard(&m, "WATCHDOG=1");
        pid_t thread = find_data_thread(m.host.broker.pid);
        check(thread > 0);
        stop_thread(thread);
        check_msg(falls_silent(&m), "the watchdog is fed though a data thread stands still");
        check_eq(ptrace(PTRACE_DETACH, thread, NULL, NULL), 0);
        check_heard(&m, "WATCHDOG=1");
        check_stops(&m);
}

TEST(systemd, without_a_watchdog_nobody_feeds_it) {
        struct manager m;
        char message[1024];
        prepare(&m, NULL);
        launch(&m);
        check_heard(&m, "STATUS=1 database, all healthy");
        check(broker_figures_now(&m.host.broker, "main").max_connections == 2); /* some turns later */
        while (hear(&m, 0, message))
                check_msg(!has_line(message, "WATCHDOG=1"), "%s", message);
        check_stops(&m);
}

/* ---- activation ------------------------------------------------------------------------------------------------------ */

TEST(systemd, an_activated_broker_serves_the_socket_it_is_given_and_leaves_it_there) {
        struct manager m;
        prepare(&m, NULL);
        m.listener = bound(SOCK_SEQPACKET, m.host.broker.socket);
        check_eq(listen(m.listener, 16), 0);
        int early = raw_connect(m.host.broker.socket); /* who comes before the broker waits in the queue */
        check(early >= 0);
        launch(&m);
        check_heard(&m, "READY=1");
        struct lessor_msg_attach attach = raw_attach_message(0);
        union raw_message answer;
        int pidfd = raw_pidfd(getpid());
        check_eq(raw_send(early, &attach, sizeof(attach), &pidfd, 1), 0);
        check(raw_expect(early, LESSOR_MSG_ATTACHED, &answer));
        close(pidfd);
        close(early);
        char *socket = strdup(m.host.broker.socket);
        int listener = m.listener;
        check_stops(&m);
        int late = raw_connect(socket); /* the manager's socket still listens, for the next broker */
        check_msg(late >= 0, "%s: %s", socket, strerror(-late));
        close(late);
        close(listener);
        free(socket);
}

/* Refused, in words that name what is wrong. */
static void check_not_taken(struct manager *m, const char *words) {
        launch(m);
        int status = program_wait(m->host.broker.pid, SOON_MS);
        m->host.broker.pid = 0;
        if (status != 69)
                broker_dump_log(&m->host.broker);
        check_eq(status, 69);
        check_msg(broker_log_has(&m->host.broker, words), "the log does not say `%s`", words);
        broker_free(&m->host.broker);
        redis_stop(&m->host.redis);
        close(m->notify);
        close(m->listener);
        free(m->path);
}

TEST(systemd, a_socket_at_another_path_than_the_configured_is_refused) {
        struct manager m;
        prepare(&m, NULL);
        char *elsewhere = sandbox_path("elsewhere.sock");
        m.listener = bound(SOCK_SEQPACKET, elsewhere);
        check_eq(listen(m.listener, 16), 0);
        check_not_taken(&m, "not the socket of this configuration");
        free(elsewhere);
}

TEST(systemd, a_socket_of_another_type_is_told_of_and_not_taken) {
        struct manager m;
        prepare(&m, NULL);
        m.listener = bound(SOCK_STREAM, m.host.broker.socket);
        check_eq(listen(m.listener, 16), 0);
        check_not_taken(&m, "no listening Unix socket of type SEQPACKET");
}

/* ---- the units ------------------------------------------------------------------------------------------------------- */

#define UNITS LESSOR_BINARY_DIR "/deploy/systemd/check/"

static void need_analyze(void) {
        const char *const argv[] = {"systemd-analyze", "--version", NULL};
        char *output = NULL;
        int status = program_run(argv, &output, SOON_MS);
        free(output);
        if (status != 0)
                test_skip("no systemd-analyze here");
}

static void check_quiet(const char *const argv[]) {
        char *output = NULL;
        int status = program_run(argv, &output, 6 * SOON_MS);
        check_msg(status == 0 && !strstr(output, "lessor"), "%s", output);
        free(output);
}

TEST_WITH(systemd, systemd_finds_nothing_wrong_with_the_units, .timeout = 120) {
        const char *const argv[] = {"systemd-analyze",
                                    "verify",
                                    "--man=no",
                                    "--recursive-errors=no",
                                    UNITS "lessord.service",
                                    UNITS "lessord.socket",
                                    UNITS "lessor-metrics.service",
                                    NULL};
        need_analyze();
        check_quiet(argv);
}

/*
 * "1.2 OK": the lower the better. Debian 12's redis-server.service has 1.2; ours cannot have PrivateUsers= and RemoveIPC=, which
 * count 0.3 (the unit says why), and has others instead.
 */
static void check_exposure(const char *unit, double most) {
        const char *const argv[] = {"systemd-analyze", "security", "--offline=true", "--no-pager", unit, NULL};
        char *output = NULL, *line;
        check(program_run(argv, &output, 6 * SOON_MS) == 0);
        line = strstr(output, "Overall exposure level");
        check_msg(line && (line = strchr(line, ':')), "%s", output);
        check_msg(strtod(line + 1, NULL) <= most, "%s: exposure%s", unit, line);
        free(output);
}

TEST_WITH(systemd, the_units_are_hardened, .timeout = 120) {
        need_analyze();
        check_exposure(UNITS "lessord.service", 1.3);
        check_exposure(UNITS "lessor-metrics.service", 1.2);
}

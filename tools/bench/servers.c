/* SPDX-License-Identifier: MIT */
/*
 * Three generations. The supervisor (the process the user started) forks the runner and then only waits; the runner
 * measures, and starts the servers and workers, which ask the kernel for SIGKILL at the runner's death. So the end of
 * the runner, however it comes, is the end of all, and the supervisor, to whom as subreaper all orphans come, knows
 * when the last is gone and the directory can be removed. A supervisor killed by SIGKILL takes the others along and
 * leaves the directory.
 */
#include "servers.h"

#include <dirent.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <base/cleanup.h>
#include <base/clock.h>

#include "cli.h"
#include "sample.h"

#define START_DEADLINE_NS (10 * NS_PER_S)

int servers_fail(struct servers *s, int error, const char *fmt, ...) {
        va_list args;
        va_start(args, fmt);
        vsnprintf(s->error, sizeof(s->error), fmt, args);
        va_end(args);
        return error < 0 ? error : -EIO;
}

static void pause_ms(unsigned ms) { nanosleep(&(struct timespec){.tv_nsec = (long)(ms * NS_PER_MS)}, NULL); }

/* ---- processes ------------------------------------------------------------------------------------------------- */

pid_t servers_fork(void) {
        pid_t parent = getpid(), pid = fork();
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (getppid() != parent) /* it died before we asked */
                        _exit(1);
        }
        return pid;
}

void servers_raise_files(void) {
        struct rlimit limit;
        if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
                limit.rlim_cur = limit.rlim_max;
                setrlimit(RLIMIT_NOFILE, &limit);
        }
}

static void bind_threads(pid_t pid, const cpu_set_t *set) {
        char path[48];
        struct dirent *entry;
        DIR *tasks;

        snprintf(path, sizeof(path), "/proc/%d/task", pid ? (int)pid : (int)getpid());
        tasks = opendir(path);
        while (tasks && (entry = readdir(tasks)))
                if (entry->d_name[0] != '.')
                        sched_setaffinity(atoi(entry->d_name), sizeof(*set), set);
        if (tasks)
                closedir(tasks);
}

void servers_pin(pid_t pid, int cpu) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((unsigned)cpu, &set);
        bind_threads(pid, &set);
}

/* The kernel leaves out those that are not there, or that our cpuset forbids. */
void servers_unpin(pid_t pid) {
        cpu_set_t set;
        memset(&set, 0xff, sizeof(set));
        bind_threads(pid, &set);
}

static void choose_cpus(struct servers *s) {
        cpu_set_t set;
        CPU_ZERO(&set);
        sched_getaffinity(0, sizeof(set), &set);
        s->cpu_client = s->cpu_server = -1;
        for (int cpu = 0; cpu < CPU_SETSIZE && s->cpu_server < 0; cpu++) {
                if (!CPU_ISSET((unsigned)cpu, &set))
                        continue;
                if (s->cpu_client < 0)
                        s->cpu_client = cpu;
                else
                        s->cpu_server = cpu;
        }
        if (s->cpu_client < 0)
                s->cpu_client = 0;
        if (s->cpu_server < 0)
                s->cpu_server = s->cpu_client;
}

/* Starts argv[0], its output to `log` in the directory. */
static pid_t start(struct servers *s, const char *log, char *const *argv) {
        pid_t pid = servers_fork();
        if (pid == 0) {
                char path[96];
                snprintf(path, sizeof(path), "%s/%s", s->directory, log);
                int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600),
                    null = open("/dev/null", O_RDONLY);
                servers_raise_files();
                servers_pin(0, s->cpu_server);
                if (fd < 0 || null < 0 || dup2(null, 0) < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
                        _exit(126);
                execvp(argv[0], argv);
                dprintf(2, "%s: %s\n", argv[0], strerror(errno));
                _exit(127);
        }
        return pid;
}

static void stop(pid_t *pid) {
        uint64_t deadline = clock_now() + 3 * NS_PER_S;
        if (*pid <= 0)
                return;
        kill(*pid, SIGTERM);
        while (waitpid(*pid, NULL, WNOHANG) == 0) {
                if (clock_now() > deadline)
                        kill(*pid, SIGKILL);
                pause_ms(2);
        }
        *pid = 0;
}

void servers_stop_broker(struct servers *s) { stop(&s->broker); }

void servers_kill_broker(struct servers *s) {
        if (s->broker > 0)
                kill(s->broker, SIGKILL);
        stop(&s->broker);
}

void servers_stop(struct servers *s) {
        stop(&s->proxy);
        stop(&s->broker);
        stop(&s->redis);
}

/* The last line of a server's log: why it did not start. */
static void last_line(const struct servers *s, const char *log, char *ret, size_t size) {
        char path[96], line[384];
        FILE *in;

        snprintf(path, sizeof(path), "%s/%s", s->directory, log);
        snprintf(ret, size, "it said nothing");
        in = fopen(path, "re");
        while (in && fgets(line, sizeof(line), in)) {
                line[strcspn(line, "\n")] = '\0';
                if (line[0])
                        snprintf(ret, size, "%s", line);
        }
        if (in)
                fclose(in);
}

void servers_last_words(const struct servers *s, char *ret, size_t size) {
        ret[0] = '\0';
        if (s->broker > 0)
                last_line(s, "lessord.log", ret, size);
}

/* Until `ready`, the process's end or the deadline. A start takes 10 to 50 ms: a look each 2 ms is precise enough. */
static int wait_ready(struct servers *s, pid_t *pid, const char *name, const char *log,
                      bool (*ready)(struct servers *)) {
        uint64_t deadline = clock_now() + START_DEADLINE_NS;
        char why[384];

        if (*pid < 0)
                return servers_fail(s, -errno, "cannot fork: %s", strerror(errno));
        while (!ready(s)) {
                if (waitpid(*pid, NULL, WNOHANG) != 0) {
                        *pid = 0;
                        last_line(s, log, why, sizeof(why));
                        return servers_fail(s, -ECHILD, "%s did not start: %s", name, why);
                }
                if (clock_now() > deadline) {
                        last_line(s, log, why, sizeof(why));
                        return servers_fail(s, -ETIMEDOUT, "%s is not ready after 10 s: %s", name, why);
                }
                pause_ms(2);
        }
        return 0;
}

/* ---- redis-server ---------------------------------------------------------------------------------------------- */

redisContext *servers_connect(struct servers *s) {
        redisContext *c = redisConnectUnix(s->redis_socket);
        if (c && !c->err)
                return c;
        servers_fail(s, -EIO, "cannot connect to the private redis-server: %s", c ? c->errstr : "out of memory");
        redisFree(c);
        return NULL;
}

static bool redis_ready(struct servers *s) {
        redisContext *c = servers_connect(s);
        redisReply *reply = c ? redisCommand(c, "PING") : NULL;
        bool ready = reply && reply->type == REDIS_REPLY_STATUS;
        freeReplyObject(reply);
        if (c)
                redisFree(c);
        return ready;
}

/* One that nobody listens on: the kernel's choice, given back. */
static unsigned free_port(void) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t size = sizeof(address);
        _cleanup_(fd_closep) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 ||
            getsockname(fd, (struct sockaddr *)&address, &size) < 0)
                return 0;
        return ntohs(address.sin_port);
}

int servers_start_redis(struct servers *s) {
        char program[] = "redis-server", port[] = "--port", number[12], sock[] = "--unixsocket", save[] = "--save",
             nothing[] = "", dir[] = "--dir", clients[] = "--maxclients", many[] = "10000";
        /* hiredis connects without blocking: a Unix socket whose backlog is full refuses it. */
        char backlog[] = "--tcp-backlog", long_one[] = "4096";
        char bind_to[] = "--bind", loopback[] = "127.0.0.1";
        char *argv[] = {program, port, number,       bind_to, loopback, sock,    s->redis_socket, save,
                        nothing, dir,  s->directory, clients, many,     backlog, long_one,        NULL};

        s->redis_port = free_port();
        snprintf(number, sizeof(number), "%u", s->redis_port);
        s->redis = start(s, "redis.log", argv);
        return wait_ready(s, &s->redis, "redis-server", "redis.log", redis_ready);
}

static double info(redisContext *c, const char *section, const char *field) {
        redisReply *reply = redisCommand(c, "INFO %s", section);
        const char *at = reply && reply->type == REDIS_REPLY_STRING ? strstr(reply->str, field) : NULL;
        double value = at && at[strlen(field)] == ':' ? strtod(at + strlen(field) + 1, NULL) : 0;
        freeReplyObject(reply);
        return value;
}

double servers_redis_cpu_us(redisContext *c) {
        redisReply *reply = redisCommand(c, "INFO cpu");
        const char *system = reply && reply->str ? strstr(reply->str, "used_cpu_sys:") : NULL;
        const char *user = reply && reply->str ? strstr(reply->str, "used_cpu_user:") : NULL;
        double us = system && user ? 1e6 * (strtod(system + 13, NULL) + strtod(user + 14, NULL)) : 0;
        freeReplyObject(reply);
        return us;
}

double servers_redis_cpu_of_asking_us(redisContext *c) {
        struct sample differences = {0};
        double before = servers_redis_cpu_us(c), median;
        for (int i = 0; i < 101; i++) {
                double now = servers_redis_cpu_us(c);
                sample_add(&differences, now - before);
                before = now;
        }
        median = sample_median(&differences);
        sample_deinit(&differences);
        return median;
}

double servers_redis_connections(redisContext *c) { return info(c, "stats", "total_connections_received"); }

/* ---- lessord --------------------------------------------------------------------------------------------------- */

/* $LESSORD; beside us in the build tree or once installed; in $PATH. */
static void find_lessord(char *ret, size_t size) {
        static const char *const beside[] = {"../broker/lessord", "../sbin/lessord", "lessord"};
        char self[3072];
        ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
        const char *named = getenv("LESSORD");

        snprintf(ret, size, "%s", named && *named ? named : "lessord");
        if ((named && *named) || n <= 0)
                return;
        self[n] = '\0';
        *strrchr(self, '/') = '\0';
        for (size_t i = 0; i < ARRAY_SIZE(beside); i++) {
                char path[4096];
                snprintf(path, sizeof(path), "%s/%s", self, beside[i]);
                if (access(path, X_OK) == 0) {
                        snprintf(ret, size, "%s", path);
                        return;
                }
        }
}

static bool broker_ready(struct servers *s) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        _cleanup_(fd_closep) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        struct lessor_status status;

        snprintf(address.sun_path, sizeof(address.sun_path), "%s", s->broker_socket);
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
                return false;
        if (lessor_status_open(s->instance, &status) < 0)
                return false;
        lessor_status_close(&status);
        return true;
}

int servers_start_broker(struct servers *s, const char *config) {
        char program[4096], file[96];
        char c[] = "-c", instance[] = "--instance", sock[] = "--socket";
        char *argv[] = {program, c, file, instance, s->instance, sock, s->broker_socket, NULL};
        FILE *out;

        find_lessord(program, sizeof(program));
        snprintf(file, sizeof(file), "%s/lessor.yaml", s->directory);
        out = fopen(file, "we");
        if (!out || fputs(config, out) < 0 || fclose(out) != 0)
                return servers_fail(s, -errno, "%s: %s", file, strerror(errno));
        s->broker = start(s, "lessord.log", argv);
        return wait_ready(s, &s->broker, "lessord", "lessord.log", broker_ready);
}

int servers_wait_status(struct servers *s, bool (*done)(const struct lessor_status *, void *), void *argument) {
        uint64_t deadline = clock_now() + START_DEADLINE_NS;
        struct lessor_status status;
        bool is_done;
        int r = lessor_status_open(s->instance, &status);

        if (r < 0)
                return servers_fail(s, r, "cannot read the broker's status segment: %s", strerror(-r));
        while (!(is_done = done(&status, argument)) && clock_now() < deadline)
                pause_ms(2);
        lessor_status_close(&status);
        return is_done ? 0 : servers_fail(s, -ETIMEDOUT, "the broker's figures are not what they should be after 10 s");
}

/* ---- twemproxy ------------------------------------------------------------------------------------------------- */

/* Debian has it in a directory that is not in everybody's $PATH. */
static bool find_nutcracker(char *ret, size_t size) {
        char path[4096];
        const char *directories = getenv("PATH");

        snprintf(path, sizeof(path), "%s:/usr/sbin", directories ? directories : "");
        for (char *rest = path, *directory; (directory = strsep(&rest, ":"));) {
                snprintf(ret, size, "%s/nutcracker", directory);
                if (*directory && access(ret, X_OK) == 0)
                        return true;
        }
        return false;
}

static bool proxy_ready(struct servers *s) {
        redisContext *c = redisConnectUnix(s->proxy_socket);
        redisReply *reply = c && !c->err ? redisCommand(c, "GET lessor:bench:proxy") : NULL;
        bool ready = reply && reply->type == REDIS_REPLY_NIL;
        freeReplyObject(reply);
        if (c)
                redisFree(c);
        return ready;
}

int servers_start_proxy(struct servers *s) {
        char program[4096], file[96], log[96], pid[96], port[12];
        char c[] = "-c", o[] = "-o", p[] = "-p", statistics[] = "-s", address[] = "-a", loopback[] = "127.0.0.1";
        char *argv[] = {program, c, file, o, log, p, pid, statistics, port, address, loopback, NULL};
        FILE *out;

        if (!find_nutcracker(program, sizeof(program)))
                return servers_fail(s, -ENOENT, "nutcracker is not installed: tools/setup --bench");
        snprintf(file, sizeof(file), "%s/proxy.yaml", s->directory);
        snprintf(log, sizeof(log), "%s/proxy.log", s->directory);
        snprintf(pid, sizeof(pid), "%s/proxy.pid", s->directory);
        snprintf(port, sizeof(port), "%u", free_port());
        out = fopen(file, "we");
        if (!out ||
            fprintf(out,
                    "bench:\n  listen: %s 0600\n  backlog: 4096\n  redis: true\n  preconnect: true\n"
                    "  server_connections: 1\n  servers:\n    - %s:1\n",
                    s->proxy_socket, s->redis_socket) < 0 ||
            fclose(out) != 0)
                return servers_fail(s, -errno, "%s: %s", file, strerror(errno));
        s->proxy = start(s, "proxy.out", argv);
        return wait_ready(s, &s->proxy, "nutcracker", "proxy.out", proxy_ready);
}

/* ---- supervision ----------------------------------------------------------------------------------------------- */

static void name_all(struct servers *s) {
        snprintf(s->instance, sizeof(s->instance), "bench-%d", (int)getpid());
        snprintf(s->redis_socket, sizeof(s->redis_socket), "%s/redis.sock", s->directory);
        snprintf(s->broker_socket, sizeof(s->broker_socket), "%s/lessor.sock", s->directory);
        snprintf(s->proxy_socket, sizeof(s->proxy_socket), "%s/proxy.sock", s->directory);
}

/* In $TMPDIR, unless that is too long for the path of a socket. */
static int make_directory(struct servers *s) {
        const char *base = getenv("TMPDIR");
        if (!base || !*base || strlen(base) > 20)
                base = "/tmp";
        snprintf(s->directory, sizeof(s->directory), "%s/lessor-bench.XXXXXX", base);
        return mkdtemp(s->directory) ? 0 : -errno;
}

static void remove_all(const struct servers *s) {
        char name[64];
        DIR *directory = opendir(s->directory);
        struct dirent *entry;

        while (directory && (entry = readdir(directory)))
                if (entry->d_name[0] != '.')
                        unlinkat(dirfd(directory), entry->d_name, 0);
        if (directory)
                closedir(directory);
        rmdir(s->directory);
        snprintf(name, sizeof(name), "/lessor.%s", s->instance);
        shm_unlink(name);
        snprintf(name, sizeof(name), "/lessor.%s.lock", s->instance);
        shm_unlink(name);
}

/* Until nobody is left. Returns how the runner ended; a signal to us is passed on to it. */
static int wait_all(pid_t runner, const sigset_t *signals) {
        int status, result = 1;
        for (;;) {
                pid_t pid = waitpid(-1, &status, WNOHANG);
                if (pid < 0)
                        return result;
                if (pid == runner)
                        result = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
                if (pid == 0 && sigwaitinfo(signals, NULL) != SIGCHLD)
                        kill(runner, SIGTERM);
        }
}

int servers_supervised(int (*run)(struct servers *, void *), void *argument) {
        struct servers s = {0};
        sigset_t signals, before;
        pid_t runner;
        int r = make_directory(&s);

        if (r < 0) {
                fprintf(stderr, "lessor bench: %s: %s\n", s.directory, strerror(-r));
                return EXIT_TROUBLE;
        }
        name_all(&s);
        sigemptyset(&signals);
        for (size_t i = 0; i < 4; i++)
                sigaddset(&signals, (const int[]){SIGCHLD, SIGINT, SIGTERM, SIGHUP}[i]);
        sigprocmask(SIG_BLOCK, &signals, &before);
        prctl(PR_SET_CHILD_SUBREAPER, 1);
        fflush(NULL);
        runner = servers_fork();
        if (runner == 0) {
                sigprocmask(SIG_SETMASK, &before, NULL);
                signal(SIGPIPE, SIG_IGN);
                choose_cpus(&s);
                r = run(&s, argument);
                servers_stop(&s);
                fflush(NULL);
                _exit(r);
        }
        r = runner < 0 ? EXIT_TROUBLE : wait_all(runner, &signals);
        remove_all(&s);
        prctl(PR_SET_CHILD_SUBREAPER, 0);
        sigprocmask(SIG_SETMASK, &before, NULL);
        return r;
}

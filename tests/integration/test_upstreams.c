/* SPDX-License-Identifier: MIT */
/* Every kind of server the broker can be told to reach, and each way in which one can be out of reach. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"
#include "support/raw.h"
#include "support/sandbox.h"

enum { WAIT_MS = 20000 };

/* A round trip, in the right database and under the right name. */
static void check_reaches(struct broker *b, const char *database, const char *db) {
        char number[32], name[300];
        lessor *l = client_open(b);
        lessor_db *handle = client_database(l, database);

        snprintf(number, sizeof(number), " db=%s ", db);
        snprintf(name, sizeof(name), " name=%s ", broker_client_name(b, database));
        freeReplyObject(client_command(handle, "SET where %s", database));
        client_check_string(handle, "where", database);
        redisReply *info = client_command(handle, "CLIENT INFO");
        check_msg(strstr(info->str, number) && strstr(info->str, name), "%s", info->str);
        freeReplyObject(info);
        lessor_close(l);
}

/* What one command comes to, when it cannot be carried out. */
static lessor_error refusal(struct broker *b, int wait_ms) {
        const char *ping = "PING";
        lessor_error e = {0};
        lessor *l = client_open(b);
        redisReply *reply = lessor_command_argv(client_database(l, NULL), wait_ms, 1, &ping, NULL, &e);
        check_msg(!reply, "answered: %s", reply ? reply->str : "");
        check(!e.may_have_run);
        lessor_close(l);
        return e;
}

static void end(struct broker *b, struct redis *r) {
        check_settled(b, r);
        broker_free(b);
        redis_stop(r);
}

TEST(upstreams, tcp) {
        struct redis r;
        struct broker b;

        redis_start(&r, &(struct redis_options){.tcp = true});
        broker_start(&b, "databases: {main: {%s, db: 3}}\n", redis_address(&r));
        check_reaches(&b, "main", "3");
        end(&b, &r);
}

TEST(upstreams, tcp_by_a_host_name_that_is_looked_up) {
        struct addrinfo *found = NULL;
        struct redis r;
        struct broker b;

        if (getaddrinfo("localhost", NULL, NULL, &found) != 0)
                test_skip("this machine does not know the name localhost");
        freeaddrinfo(found);
        redis_start(&r, &(struct redis_options){.tcp = true});
        broker_start(&b, "databases: {main: {host: localhost, port: %u}}\n", r.port);
        check_reaches(&b, "main", "0");
        broker_stop(&b); /* a resolver may keep an fd of its own: the count of fds is not asked here */
        broker_free(&b);
        redis_stop(&r);
}

static bool ipv6_works(void) {
        struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
        int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool works = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
        if (fd >= 0)
                close(fd);
        return works;
}

TEST(upstreams, ipv6) {
        struct redis r;
        struct broker b;

        if (!ipv6_works())
                test_skip("no IPv6 loopback address here: %s", strerror(errno));
        redis_start(&r, &(struct redis_options){.ipv6 = true});
        broker_start(&b, "databases: {main: {%s}}\n", redis_address(&r));
        check_reaches(&b, "main", "0");
        end(&b, &r);
}

TEST(upstreams, unix_socket_with_several_databases) {
        struct redis r;
        struct broker b;

        redis_start(&r, NULL);
        broker_start(&b, "databases:\n  main: {%s}\n", redis_address(&r));
        check_reaches(&b, "main", "0");
        end(&b, &r);
        struct host h;
        host_start_many(&h, "max_connections: 3");
        for (unsigned i = 0; i < HOST_DATABASES; i++) {
                char number[8];
                snprintf(number, sizeof(number), "%u", i < 12 ? i : 11);
                check_reaches(&h.broker, host_databases[i], number);
        }
        host_end(&h);
}

TEST(upstreams, a_tcp_connection_is_kept_alive_and_unacknowledged_data_is_noticed) {
        struct redis r;
        struct broker b;
        lessor_error e = {0};

        redis_start(&r, &(struct redis_options){.tcp = true});
        broker_start(&b, "databases: {main: {%s}}\n", redis_address(&r));
        lessor *l = client_open(&b);
        lessor_lease *lease = lessor_acquire(client_database(l, NULL), WAIT_MS, &e);
        check_msg(lease, "%s", e.text);
        static const struct {
                int level, option, value;
        } expected[] = {{SOL_SOCKET, SO_KEEPALIVE, 1},          {IPPROTO_TCP, TCP_KEEPIDLE, 600},
                        {IPPROTO_TCP, TCP_KEEPINTVL, 60},       {IPPROTO_TCP, TCP_KEEPCNT, 5},
                        {IPPROTO_TCP, TCP_USER_TIMEOUT, 10000}, {IPPROTO_TCP, TCP_NODELAY, 1}};
        for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
                int value = -1;
                socklen_t size = sizeof(value);
                check(getsockopt(lessor_context(lease)->fd, expected[i].level, expected[i].option, &value, &size) == 0);
                check_msg(value == expected[i].value, "option %d is %d, expected %d", expected[i].option, value,
                          expected[i].value);
        }
        lessor_release(lease);
        lessor_close(l);
        end(&b, &r);
}

/* ---- credentials -------------------------------------------------------------------------------------------------- */

#define SECRET "correct-horse-battery-staple"

TEST(upstreams, a_password) {
        struct redis r;
        struct broker b;

        redis_start(&r, &(struct redis_options){.password = SECRET});
        broker_start(&b, "databases: {main: {%s, password: %s, db: 2}}\n", redis_address(&r), SECRET);
        check_reaches(&b, "main", "2");
        end(&b, &r);
}

TEST(upstreams, a_password_from_a_file) {
        struct redis r;
        struct broker b;
        char *path = sandbox_path("password");

        sandbox_write(path, SECRET "\n");
        check(chmod(path, 0600) == 0);
        redis_start(&r, &(struct redis_options){.password = SECRET});
        broker_start(&b, "databases: {main: {%s, password_file: %s}}\n", redis_address(&r), path);
        check_reaches(&b, "main", "0");
        free(path);
        end(&b, &r);
}

TEST(upstreams, an_acl_user) {
        struct redis r;
        struct broker b;

        redis_start(&r, &(struct redis_options){.config = "user worker on >" SECRET " ~* &* +@all"});
        broker_start(&b, "databases: {main: {%s, username: worker, password: %s}}\n", redis_address(&r), SECRET);
        check_reaches(&b, "main", "0");
        lessor *l = client_open(&b);
        redisReply *who = client_command(client_database(l, NULL), "ACL WHOAMI");
        check_str(who->str, "worker");
        freeReplyObject(who);
        lessor_close(l);
        end(&b, &r);
}

static void check_credentials_refused(const struct redis_options *options, const char *keys) {
        struct redis r;
        struct broker b;

        redis_start(&r, options);
        broker_start(&b, "databases: {main: {%s, %s, retry_base: 50ms, retry_max: 50ms}}\n", redis_address(&r), keys);
        redis_say(&r, "CONFIG RESETSTAT");
        for (unsigned i = 0; i < 5; i++) {
                uint64_t began = now_ms();
                lessor_error e = refusal(&b, WAIT_MS);
                check_msg(e.code == LESSOR_E_CREDENTIALS, "%d: %s", e.code, e.text);
                check_msg(now_ms() - began < WAIT_MS / 2, "told after %llu ms", (unsigned long long)(now_ms() - began));
                check(!strstr(e.text, "wrong-password"));
        }
        long long dials = redis_info(&r, "total_connections_received");
        check_msg(dials >= 1 && dials <= 5, "%lld connections for five calls: retried hot", dials);
        check(!broker_log_has(&b, "wrong-password"));
        end(&b, &r);
}

TEST(upstreams, a_wrong_password_is_said_and_not_tried_again_and_again) {
        check_credentials_refused(&(struct redis_options){.password = SECRET}, "password: wrong-password");
}

TEST(upstreams, a_missing_password_is_said) {
        check_credentials_refused(&(struct redis_options){.password = SECRET}, "db: 0");
}

TEST(upstreams, a_password_that_the_server_has_not_is_said) {
        check_credentials_refused(NULL, "username: nobody, password: wrong-password");
}

TEST(upstreams, a_database_number_that_the_server_has_not_is_said) { check_credentials_refused(NULL, "db: 4000"); }

/* Does the file hold the text? Files that cannot be read (holes of /proc, say) do not. */
static bool file_holds(const char *path, const char *text) {
        size_t size;
        char *all = sandbox_read(path, &size);
        bool found = memmem(all, size, text, strlen(text)) != NULL;
        free(all);
        return found;
}

static bool directory_holds(const char *directory, const char *prefix, const char *text, char *ret, size_t ret_size) {
        DIR *d = opendir(directory);
        bool found = false;
        for (struct dirent *entry; d && !found && (entry = readdir(d));) {
                if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
                        continue;
                snprintf(ret, ret_size, "%s/%s", directory, entry->d_name);
                found = file_holds(ret, text);
        }
        if (d)
                closedir(d);
        return found;
}

/* The whole memory of this process, a worker: every readable mapping but those of the test's own text and heap. */
static unsigned shared_mappings_with(const char *text, unsigned *ret_searched) {
        FILE *maps = fopen("/proc/self/maps", "re");
        int memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
        unsigned long from, to;
        unsigned found = 0;
        char line[512], mode[8];

        check(maps && memory >= 0);
        *ret_searched = 0;
        while (fgets(line, sizeof(line), maps)) {
                if (sscanf(line, "%lx-%lx %7s", &from, &to, mode) != 3 || mode[3] != 's' || mode[0] != 'r')
                        continue;
                char *copy = malloc(to - from);
                ssize_t n = pread(memory, copy, to - from, (off_t)from);
                if (n > 0) {
                        *ret_searched += strstr(line, "memfd:") != NULL;
                        found += memmem(copy, (size_t)n, text, strlen(text)) != NULL;
                }
                free(copy);
        }
        close(memory);
        fclose(maps);
        return found;
}

TEST(upstreams, a_password_is_in_no_shared_memory_no_log_and_no_command_line) {
        struct redis r;
        struct broker b;
        char path[PATH_MAX], name[128];
        unsigned searched;
        lessor_error e = {0};

        redis_start(&r, &(struct redis_options){.password = SECRET});
        broker_start(&b, "log_level: debug\ndatabases: {main: {%s, password: %s}, bad: {%s, password: x%sx}}\n",
                     redis_address(&r), SECRET, redis_address(&r), SECRET);
        lessor *l = client_open(&b);
        freeReplyObject(client_command(client_database(l, NULL), "PING"));
        check(!lessor_command(client_database(l, "bad"), &e, "PING"));
        check(!strstr(e.text, SECRET));
        snprintf(name, sizeof(name), "lessor.%s", b.instance);
        check_msg(!directory_holds("/dev/shm", name, SECRET, path, sizeof(path)), "the password is in %s", path);
        check_eq(shared_mappings_with(SECRET, &searched), 0);
        check(searched >= 2); /* control page and session segment */
        check(!broker_log_has(&b, SECRET));
        snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)b.pid);
        check(!file_holds(path, SECRET));
        lessor_close(l);
        broker_stop(&b);
        check(!broker_log_has(&b, SECRET));
        broker_free(&b);
        redis_stop(&r);
}

/* ---- out of reach ------------------------------------------------------------------------------------------------- */

/* A loopback port where nobody listens: bound by us, not listening, so that nobody else takes it. */
static int deaf_port(unsigned *ret) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t size = sizeof(address);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        check(fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0 &&
              getsockname(fd, (struct sockaddr *)&address, &size) == 0);
        *ret = ntohs(address.sin_port);
        return fd;
}

/* Processor time the process has used so far, in clock ticks. */
static unsigned long ticks_of(pid_t pid) {
        char path[64];
        unsigned long user = 0, kernel = 0;
        snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
        char *text = sandbox_read(path, NULL), *at = strrchr(text, ')');
        check(at && sscanf(at, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel) == 2);
        free(text);
        return user + kernel;
}

/* A server that dies with a command unread resets its connections: an error, not an end, is what epoll reports first. */
static void check_a_reset_is_seen(const struct redis_options *options) {
        struct redis r;
        struct broker b;
        struct lessor_msg_grant grant;

        redis_start(&r, options);
        broker_start(&b, "databases: {main: {%s, max_connections: 1}}\n", redis_address(&r));
        int fd = raw_attach(b.socket, 0, NULL), lease = raw_lease(fd, 0, UINT64_C(20000000000), &grant);
        check(lease >= 0);
        redis_pause(&r);
        check_eq(send(lease, "PING\r\n", 6, MSG_NOSIGNAL), 6);
        redis_kill(&r);
        unsigned long before = ticks_of(b.pid);
        uint64_t began = now_ms();
        check_soon(now_ms() - began > 1000, 5000);
        unsigned long used = ticks_of(b.pid) - before;
        check_msg(used < (unsigned long)sysconf(_SC_CLK_TCK) / 4, "%lu ticks in a second of nothing to do", used);
        struct lessor_msg_return giveback = raw_return_message(&grant, LESSOR_RETURN_CLEAN);
        check_eq(raw_say(fd, &giveback), 0);
        check_figure_soon(&b, "main", discards_lost, 1, 5000);
        close(lease), close(fd);
        broker_free(&b);
        redis_restart(&r);
        redis_stop(&r);
}

TEST(upstreams, a_reset_of_a_leased_unix_socket_is_seen_once) { check_a_reset_is_seen(NULL); }

TEST(upstreams, a_reset_of_a_leased_tcp_connection_is_seen_once) {
        check_a_reset_is_seen(&(struct redis_options){.tcp = true});
}

/* SO_LINGER and unsent data are left to the broker, whose close() would wait until TCP_USER_TIMEOUT has passed. */
TEST(upstreams, a_connection_made_to_linger_holds_up_nobody) {
        static char data[65536];
        struct linger linger = {.l_onoff = 1, .l_linger = 30};
        struct lessor_msg_grant grant;
        struct redis r;
        struct broker b;

        redis_start(&r, &(struct redis_options){.tcp = true});
        broker_start(&b, "databases: {main: {%s, max_connections: 1}}\n", redis_address(&r));
        int fd = raw_attach(b.socket, 0, NULL), lease = raw_lease(fd, 0, UINT64_C(20000000000), &grant);
        check(lease >= 0);
        redis_pause(&r);
        while (send(lease, data, sizeof(data), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
                ;
        check(setsockopt(lease, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
        close(lease);
        struct lessor_msg_return giveback = raw_return_message(&grant, 0);
        check_eq(raw_say(fd, &giveback), 0);
        uint64_t began = now_ms();
        check_figure_soon(&b, "main", closing_connections, 1, 5000);
        check_figure_soon(&b, "main", closing_connections, 0, 20000);
        check_msg(now_ms() - began < 8000, "held up for %llu ms", (unsigned long long)(now_ms() - began));
        redis_resume(&r);
        close(fd);
        broker_free(&b);
        redis_stop(&r);
}

TEST(upstreams, a_port_where_nobody_listens_gives_the_dials_own_error) {
        struct broker b;
        unsigned port;
        int fd = deaf_port(&port);

        broker_start(&b, "databases: {main: {host: 127.0.0.1, port: %u}}\n", port);
        uint64_t began = now_ms();
        lessor_error e = refusal(&b, 1000);
        check_msg(now_ms() - began < 5000 * PROCESS_SLOW, "told after %llu ms", (unsigned long long)(now_ms() - began));
        check_msg(e.code == LESSOR_E_UPSTREAM || e.code == LESSOR_E_BREAKER_OPEN, "%d: %s", e.code, e.text);
        check_msg(strstr(e.text, "refused"), "%s", e.text);
        check(broker_figures_now(&b, "main").failed_connections >= 1);
        check(strstr(broker_figures_now(&b, "main").last_error, "refused"));
        check_settled(&b, NULL);
        broker_free(&b);
        close(fd);
}

TEST(upstreams, a_unix_socket_that_is_not_there_gives_the_dials_own_error) {
        struct broker b;
        char *path = sandbox_path("nowhere.sock");

        broker_start(&b, "databases: {main: {unix_socket: %s}}\n", path);
        lessor_error e = refusal(&b, 1000);
        check_msg(e.code == LESSOR_E_UPSTREAM, "%d: %s", e.code, e.text);
        check_msg(strstr(e.text, strerror(ENOENT)), "%s", e.text);
        check_settled(&b, NULL);
        broker_free(&b);
        free(path);
}

TEST(upstreams, a_name_that_does_not_resolve_gives_its_own_error_and_blocks_nobody) {
        struct redis r;
        struct broker b;
        lessor_error e = {0};

        redis_start(&r, NULL);
        broker_start(&b, "databases: {main: {host: no-such-host.invalid}, good: {%s}}\n", redis_address(&r));
        lessor *l = client_open(&b);
        lessor_db *main_db = client_database(l, NULL), *good = client_database(l, "good");
        check(!lessor_acquire(main_db, 100, &e));
        freeReplyObject(client_command(good, "PING"));
        check_msg(e.code == LESSOR_E_UPSTREAM || e.code == LESSOR_E_TIMEOUT, "%d: %s", e.code, e.text);
        lessor_close(l);
        broker_stop(&b);
        broker_free(&b);
        redis_stop(&r);
}

TEST(upstreams, a_server_that_accepts_and_says_nothing_is_given_up_after_the_connect_timeout) {
        struct broker b;
        unsigned port;
        int fd = deaf_port(&port);

        check(listen(fd, 16) == 0);
        broker_start(&b, "databases: {main: {host: 127.0.0.1, port: %u, socket_connect_timeout: 200ms}}\n", port);
        lessor_error e = refusal(&b, 2000);
        check_msg(e.code == LESSOR_E_UPSTREAM, "%d: %s", e.code, e.text);
        check(broker_figures_now(&b, "main").failed_connections >= 1);
        check_settled(&b, NULL);
        broker_free(&b);
        close(fd);
}

TEST(upstreams, a_server_that_starts_later_serves_who_waits) {
        struct redis r;
        struct broker b;
        lessor_error e = {0};

        redis_start(&r, NULL);
        redis_kill(&r);
        broker_start(&b,
                     "databases: {main: {%s, retry_base: 50ms, retry_max: 100ms, retry_attempts: 1000, "
                     "breaker_failures: 100000}}\n",
                     redis_address(&r));
        lessor *l = client_open(&b);
        lessor_db *db = client_database(l, NULL);
        check(!lessor_acquire(db, 300, &e));
        check_msg(e.code == LESSOR_E_UPSTREAM, "%d: %s", e.code, e.text);
        redis_restart(&r);
        lessor_lease *lease = lessor_acquire(db, WAIT_MS, &e);
        check_msg(lease, "%s", e.text);
        lessor_release(lease);
        lessor_close(l);
        check(broker_figures_now(&b, "main").retry_attempts >= 1);
        end(&b, &r);
}

TEST(upstreams, a_restarted_server_is_dialled_again) {
        struct host h;

        host_start(&h, "max_connections: 4, retry_base: 50ms, retry_max: 100ms");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        freeReplyObject(client_command(db, "PING"));
        redis_restart(&h.redis);
        freeReplyObject(client_command(db, "PING"));
        check(broker_figures_now(&h.broker, "main").reconnections >= 1);
        lessor_close(l);
        host_end(&h);
}

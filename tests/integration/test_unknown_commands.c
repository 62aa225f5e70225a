/* SPDX-License-Identifier: MIT */
/* Commands that our own table does not know: the broker asks the server about them, once, and the library believes it. */
#include <errno.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"
#include "support/sandbox.h"

#define LIST                                                                                                           \
        "*2\r\n"                                                                                                       \
        "*7\r\n+mod.read\r\n:2\r\n*2\r\n+readonly\r\n+module\r\n:1\r\n:1\r\n:1\r\n*1\r\n+@read\r\n"                    \
        "*7\r\n+mod.wait\r\n:2\r\n*2\r\n+write\r\n+blocking\r\n:1\r\n:1\r\n:1\r\n*1\r\n+@blocking\r\n"

enum { WAIT_MS = 20000 };

/* A server with a module. */
struct server {
        const char *list; /* the answer to COMMAND; NULL: none at all */
        _Atomic unsigned asked;
        char *path;
        pid_t pid;
};

static const char *answer(struct server *s, const char *name) {
        if (strcmp(name, "COMMAND") == 0) {
                atomic_fetch_add(&s->asked, 1);
                return s->list ? s->list : "";
        }
        return strcmp(name, "CLIENT") == 0 ? "+OK\r\n" : strcmp(name, "PING") == 0 ? "+PONG\r\n" : "$5\r\nvalue\r\n";
}

/* The name of the request at `at`, of which all is there: each of ours is written whole. The next one. */
static const char *request(const char *at, char name[32]) {
        unsigned n = 0;
        name[0] = 0;
        if (sscanf(at, "*%u\r\n", &n) != 1)
                return NULL;
        at = strchr(at, '\n') + 1;
        for (unsigned i = 0; i < n; i++) {
                unsigned size = 0;
                sscanf(at, "$%u\r\n", &size);
                at = strchr(at, '\n') + 1;
                if (i == 0)
                        snprintf(name, 32, "%.*s", (int)size, at);
                at += size + 2;
        }
        return at;
}

static void serve(struct server *s, int fd) {
        char buffer[4096], name[32];
        ssize_t n;
        while ((n = recv(fd, buffer, sizeof(buffer) - 1, 0)) > 0) {
                buffer[n] = 0;
                for (const char *at = buffer; *at && (at = request(at, name));) {
                        const char *reply = answer(s, name);
                        if (strcmp(name, "CLIENT") == 0 && strstr(at - 20, "ID\r\n") == at - 4)
                                reply = ":7\r\n";
                        if (send(fd, reply, strlen(reply), MSG_NOSIGNAL) < 0)
                                return;
                }
        }
}

static struct server *server_start(const char *list) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        struct server *s = shared_memory(sizeof(*s));
        s->list = list;
        s->path = sandbox_path("fake.sock");
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", s->path);
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        check(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 64) == 0);
        pid_t pid = fork(); /* not into what is shared: there it would be the child's 0, too */
        check(pid >= 0);
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (;;) {
                        int accepted = accept(fd, NULL, NULL);
                        if (accepted < 0)
                                _exit(errno);
                        serve(s, accepted);
                        close(accepted);
                }
        }
        close(fd);
        s->pid = pid;
        return s;
}

static void server_end(struct server *s) {
        program_end(s->pid, SIGKILL, 5000);
        unlink(s->path);
        free(s->path);
}

static void scene_start(struct server *s, struct broker *b, lessor **l, lessor_db **db) {
        broker_start(b,
                     "databases: {main: {unix_socket: %s, max_connections: 1, wait_timeout: 20s, retry_base: 50ms, "
                     "socket_connect_timeout: 1s}}\n",
                     s->path);
        *l = client_open(b);
        *db = client_database(*l, NULL);
}

static void use(lessor_db *db, const char *command) { freeReplyObject(client_command(db, command)); }

TEST(unknown_commands, what_the_server_says_is_harmless_costs_one_connection_and_then_none) {
        struct server *s = server_start(LIST);
        struct broker b;
        lessor *l;
        lessor_db *db;

        scene_start(s, &b, &l, &db);
        use(db, "GET k");
        check_eq(atomic_load(&s->asked), 0); /* who uses none never pays */
        use(db, "MOD.READ k");
        for (int i = 0; i < 5; i++)
                use(db, i % 2 ? "MOD.READ k" : "mod.read k");
        struct lessor_status_database d = broker_figures_now(&b, "main");
        check_eq(d.created_connections, 2);
        check_eq(d.discards_dirty, 1);
        check_eq(atomic_load(&s->asked), 1);
        /* The server says itself that this one is of another kind. */
        use(db, "MOD.WAIT k");
        use(db, "MOD.WAIT k");
        use(db, "GET k");
        check_figure(&b, "main", discards_dirty, 3);
        check_eq(atomic_load(&s->asked), 1);
        lessor_close(l);
        server_end(s);
        broker_free(&b);
}

TEST(unknown_commands, a_server_that_does_not_tell_is_asked_once) {
        struct server *s = server_start("-NOPERM this user has no permissions to run the 'command' command\r\n");
        struct broker b;
        lessor *l;
        lessor_db *db;

        scene_start(s, &b, &l, &db);
        for (int i = 0; i < 4; i++)
                use(db, "MOD.READ k");
        use(db, "GET k");
        check_figure(&b, "main", discards_dirty, 4);
        check_figure(&b, "main", failed_connections, 0);
        check_eq(atomic_load(&s->asked), 1);
        lessor_close(l);
        server_end(s);
        broker_free(&b);
}

TEST(unknown_commands, a_list_that_never_comes_delays_one_dial) {
        struct server *s = server_start(NULL);
        struct broker b;
        lessor *l;
        lessor_db *db;

        scene_start(s, &b, &l, &db);
        for (int i = 0; i < 3; i++)
                use(db, "MOD.READ k");
        check_figure(&b, "main", failed_connections, 1);
        check_eq(atomic_load(&s->asked), 1);
        lessor_close(l);
        server_end(s);
        broker_free(&b);
}

TEST(unknown_commands, replies_after_the_list_that_nobody_asked_for_are_no_connection) {
        struct server *s = server_start(LIST "+STRAY\r\n");
        struct broker b;
        lessor *l;
        lessor_db *db;

        scene_start(s, &b, &l, &db);
        for (int i = 0; i < 3; i++) {
                redisReply *reply = client_command(db, "MOD.READ k");
                check_str(reply->str, "value");
                freeReplyObject(reply);
        }
        check_figure(&b, "main", failed_connections, 1);
        lessor_close(l);
        server_end(s);
        broker_free(&b);
}

TEST(unknown_commands, the_list_of_a_real_redis_is_understood) {
        struct host h;

        host_start(&h, "max_connections: 1");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        for (int i = 0; i < 3; i++)
                freeReplyObject(lessor_command(db, NULL, "NO.SUCH k")); /* an error, of which nothing is known */
        use(db, "GET k");
        check(!broker_log_has(&h.broker, "list of commands cannot be had"));
        check_figure(&h.broker, "main", discards_dirty, 3);
        check_figure(&h.broker, "main", failed_connections, 0);
        lessor_close(l);
        host_end(&h);
}

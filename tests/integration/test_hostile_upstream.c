/* SPDX-License-Identifier: MIT */
/* Servers that are no Redis, or a broken one: the broker says what is wrong, stays up, and recovers by itself. */
#include <errno.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "support/check.h"
#include "support/host.h"
#include "support/process.h"
#include "support/raw.h"
#include "support/sandbox.h"

#define GOOD "+OK\r\n:7\r\n+PONG\r\n"

/* What the server does with each connection, once it has read something (or at once, when it does not listen). */
struct manner {
        const char *answer;
        bool byte_by_byte;
        bool endless;      /* the answer again and again */
        bool at_once;      /* without waiting to be asked */
        bool close_after;  /* then close; otherwise hold the connection until the other end closes */
        const char *later; /* sent unasked when `when` has reached 1, which then reaches 2 */
        struct stage *when;
};

static bool send_all(int fd, const char *data, size_t size, bool byte_by_byte) {
        while (size > 0) {
                ssize_t n = send(fd, data, byte_by_byte ? 1 : size, MSG_NOSIGNAL);
                if (n <= 0)
                        return false;
                data += n;
                size -= (size_t)n;
        }
        return true;
}

static void serve_one(int fd, const struct manner *m) {
        char buffer[4096];
        if (!m->at_once && recv(fd, buffer, sizeof(buffer), 0) <= 0)
                return;
        bool sent = send_all(fd, m->answer, strlen(m->answer), m->byte_by_byte);
        while (sent && m->endless)
                sent = send_all(fd, m->answer, strlen(m->answer), false);
        if (sent && m->later && stage_reached(m->when, 1, 30000)) {
                sent = send_all(fd, m->later, strlen(m->later), false);
                stage_advance(m->when);
        }
        while (sent && !m->close_after && recv(fd, buffer, sizeof(buffer), 0) > 0)
                ;
}

static char *listen_path;

/* A server on a Unix socket, one connection after the other; dies with the test. */
static pid_t fake_start(const struct manner *m) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        listen_path = sandbox_path("fake.sock");
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", listen_path);
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        check(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 64) == 0);
        pid_t pid = fork();
        check(pid >= 0);
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (;;) {
                        int accepted = accept(fd, NULL, NULL);
                        if (accepted < 0)
                                _exit(errno);
                        serve_one(accepted, m);
                        close(accepted);
                }
        }
        close(fd);
        return pid;
}

static void fake_end(pid_t pid) {
        program_end(pid, SIGKILL, 5000);
        unlink(listen_path);
}

static void check_named(const struct broker *b, enum lessor_trouble trouble) {
        const char *const argv[] = {tool_path(), "health", "--instance", b->instance, NULL};
        char *text, word[64];
        snprintf(word, sizeof(word), "(%s)", lessor_trouble_word((uint64_t)trouble));
        check_eq(program_run(argv, &text, 20000), 2);
        check_msg(strstr(text, word), "`%s` does not say `%s`", text, word);
        free(text);
}

/* The worker is told `says` for the server's manner, `lessor health` calls it `trouble`; the broker is as well as before. */
static void check_told(const struct manner *m, int outcome, enum lessor_trouble trouble, const char *says) {
        struct broker b;
        lessor_error e = {0};
        pid_t fake = fake_start(m);

        broker_start(&b, "databases: {main: {unix_socket: %s, wait_timeout: 600ms, socket_connect_timeout: 300ms}}\n",
                     listen_path);
        lessor *l = client_open(&b);
        redisReply *reply = lessor_command(client_database(l, NULL), &e, "PING");
        check_msg(!reply, "answered");
        check_msg(e.code == outcome, "%d: %s", e.code, e.text);
        check_msg(strstr(e.text, says), "`%s` does not say `%s`", e.text, says);
        check(!e.may_have_run);
        check_figure(&b, "main", trouble, trouble);
        check_named(&b, trouble);
        check(broker_figures_now(&b, "main").failed_connections > 0);
        check_figure(&b, "main", created_connections, 0);
        lessor_close(l);
        fake_end(fake);
        broker_free(&b);
}

TEST(hostile_upstream, a_reply_that_nobody_asked_for_does_not_end_the_broker) {
        check_told(&(struct manner){.answer = GOOD "+PONG\r\n"}, LESSOR_E_UPSTREAM, LESSOR_TROUBLE_NOT_REDIS,
                   "nobody asked for");
}

TEST(hostile_upstream, what_is_no_redis_is_called_so) {
        check_told(&(struct manner){.answer = "HTTP/1.1 400 Bad Request\r\n\r\n"}, LESSOR_E_UPSTREAM,
                   LESSOR_TROUBLE_NOT_REDIS, "does not answer like a Redis");
}

TEST(hostile_upstream, arrays_in_arrays_without_end_are_refused) {
        check_told(
                &(struct manner){.answer = "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n"},
                LESSOR_E_UPSTREAM, LESSOR_TROUBLE_NOT_REDIS, "does not answer like a Redis");
}

TEST(hostile_upstream, an_answer_without_end_is_cut_off) {
        check_told(&(struct manner){.answer = "$500000000\r\n0123456789abcdef0123456789abcdef0123456789abcdef",
                                    .endless = true},
                   LESSOR_E_UPSTREAM, LESSOR_TROUBLE_NOT_REDIS, "no end");
}

TEST(hostile_upstream, one_that_closes_during_the_handshake_is_said) {
        check_told(&(struct manner){.answer = "+OK\r\n", .close_after = true}, LESSOR_E_UPSTREAM, LESSOR_TROUBLE_SILENT,
                   "closed the connection");
}

TEST(hostile_upstream, one_that_stops_half_way_is_given_up_in_time) {
        check_told(&(struct manner){.answer = "+OK\r\n:7\r\n+PO"}, LESSOR_E_UPSTREAM, LESSOR_TROUBLE_SILENT, "in time");
}

TEST(hostile_upstream, a_full_server_is_quoted) {
        check_told(&(struct manner){.answer = "-ERR max number of clients reached\r\n",
                                    .at_once = true,
                                    .close_after = true},
                   LESSOR_E_UPSTREAM, LESSOR_TROUBLE_MAXCLIENTS, "max number of clients");
}

TEST(hostile_upstream, one_in_protected_mode_is_called_so) {
        check_told(&(struct manner){.answer = "-DENIED Redis is running in protected mode because protected mode is "
                                              "enabled and no password is set for the default user.\r\n",
                                    .at_once = true,
                                    .close_after = true},
                   LESSOR_E_CREDENTIALS, LESSOR_TROUBLE_PROTECTED_MODE, "protected mode");
}

TEST(hostile_upstream, an_answer_byte_by_byte_is_an_answer) {
        struct broker b;
        pid_t fake = fake_start(&(struct manner){.answer = GOOD, .byte_by_byte = true});
        broker_start(&b, "databases: {main: {unix_socket: %s}}\n", listen_path);
        lessor *l = client_open(&b);
        lessor_error e = {0};
        lessor_lease *lease = lessor_acquire(client_database(l, NULL), 20000, &e);
        check_msg(lease, "%s", e.text);
        check_eq(broker_connection_held(&b).client_id, 7);
        lessor_release(lease);
        lessor_close(l);
        fake_end(fake);
        broker_free(&b);
}

/* A push lies unread on a free connection: it must be found before the connection is handed over. */
TEST(hostile_upstream, bytes_on_a_free_connection_are_found_before_it_is_leased) {
        struct broker b;
        struct manner m = {.answer = GOOD, .later = "+STRAY\r\n", .when = shared_memory(sizeof(struct stage))};
        pid_t fake = fake_start(&m);
        broker_start(&b, "databases: {main: {unix_socket: %s}}\n", listen_path);
        /* By messages alone: a lease with a word would be parked with the worker. */
        struct lessor_msg_attached attached;
        struct lessor_msg_grant grant;
        int worker = raw_attach(b.socket, 0, &attached);
        fd_close(raw_lease(worker, 0, UINT64_C(20000000000), &grant));
        struct lessor_msg_return back = raw_return_message(&grant, LESSOR_RETURN_CLEAN);
        check_eq(raw_say(worker, &back), 0);
        check_figure_soon(&b, "main", available_connections, 1, 5000);
        stage_advance(m.when);
        check(stage_reached(m.when, 2, 20000));
        fd_close(raw_lease(worker, 0, 500000000, &grant)); /* another, or none: this server pushes at once by now */
        check_figure(&b, "main", discards_stray, 1);
        fd_close(worker);
        fake_end(fake);
        broker_free(&b);
}

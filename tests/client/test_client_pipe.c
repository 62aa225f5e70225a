/* SPDX-License-Identifier: MIT */
/* Pipes: every reply in its place, whatever its size, and what MULTI/EXEC can come to. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <lessor.h>

#include "base/clock.h"
#include "base/resp.h"
#include "client/fake.h"
#include "client/helpers.h"
#include "support/check.h"

/* One lease: Redis says `reply` when it has read `expect`. */
struct dialogue {
        const char *expect, *reply;
        bool closes;    /* instead of going on */
        unsigned clean; /* flags of RETURN */
};

static void play_dialogue(struct fake *f, void *data) {
        const struct dialogue *d = data;
        union wire_message m;
        int redis;

        need(f, fake_attach(f));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        redis = fake_grant(f, &m);
        need(f, fake_expect(redis, d->expect) && fake_say(redis, d->reply));
        if (d->closes) {
                shutdown(redis, SHUT_RDWR);
                need(f, fake_receive(f, LESSOR_MSG_REPORT, &m));
        }
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &m));
        need(f, m.giveback.flags == d->clean);
        need(f, fake_gone(f));
        close(redis);
}

#define SET_K "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"
#define INCR_K "*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n"
#define MULTI "*1\r\n$5\r\nMULTI\r\n"
#define EXEC "*1\r\n$4\r\nEXEC\r\n"

/* SET k v and INCR k in one pipe. */
static int run_two(const struct dialogue *d, unsigned flags, redisReply ***ret, size_t *n, lessor_error *e) {
        struct dialogue copy = *d;
        lessor_pipe *pipe;
        struct fake f;
        lessor *l;
        int r;

        fake_start(&f, play_dialogue, &copy);
        l = client_open(&f);
        pipe = lessor_pipe_new(client_db(l, NULL), flags);
        check(pipe);
        check_eq(lessor_pipe_add(pipe, "SET %s %s", "k", "v"), 0);
        check_eq(lessor_pipe_add_argv(pipe, 2, (const char *[]){"INCR", "k"}, NULL), 0);
        r = lessor_pipe_run(pipe, 5000, ret, n, e);
        lessor_pipe_free(pipe);
        lessor_close(l);
        fake_stop(&f);
        return r;
}

TEST(client_pipe, replies_come_in_order_with_errors_in_their_place) {
        struct dialogue d = {SET_K INCR_K, "+OK\r\n-ERR value is not an integer\r\n", false, LESSOR_RETURN_CLEAN};
        redisReply **replies;
        lessor_error e;
        size_t n;

        check_msg(run_two(&d, 0, &replies, &n, &e) == 0, "%s", e.text);
        check_eq(n, 2);
        check_str(replies[0]->str, "OK");
        check_eq(replies[1]->type, REDIS_REPLY_ERROR);
        lessor_pipe_replies_free(replies, n);
}

TEST(client_pipe, an_atomic_pipe_gives_the_replies_of_exec) {
        struct dialogue d = {MULTI SET_K INCR_K EXEC, "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n:2\r\n", false,
                             LESSOR_RETURN_CLEAN};
        redisReply **replies;
        lessor_error e;
        size_t n;

        check_msg(run_two(&d, LESSOR_ATOMIC, &replies, &n, &e) == 0, "%s", e.text);
        check_eq(n, 2);
        check_str(replies[0]->str, "OK");
        check_eq(replies[1]->integer, 2);
        lessor_pipe_replies_free(replies, n);
}

TEST(client_pipe, a_command_refused_while_queueing_aborts_the_rest) {
        struct dialogue d = {MULTI SET_K INCR_K EXEC,
                             "+OK\r\n+QUEUED\r\n-ERR unknown command\r\n-EXECABORT discarded\r\n", false,
                             LESSOR_RETURN_RESETTABLE};
        redisReply **replies;
        lessor_error e;
        size_t n;

        check_msg(run_two(&d, LESSOR_ATOMIC, &replies, &n, &e) == 0, "%s", e.text);
        check_eq(n, 2);
        check_eq(replies[0]->type, REDIS_REPLY_ERROR);
        check_str(replies[0]->str, LESSOR_PIPE_ABORTED);
        check_str(replies[1]->str, "ERR unknown command");
        lessor_pipe_replies_free(replies, n);
}

TEST(client_pipe, without_multi_nothing_is_called_atomic) {
        struct dialogue ran = {MULTI SET_K INCR_K EXEC, "-NOPERM no multi\r\n+OK\r\n:2\r\n-ERR EXEC without MULTI\r\n",
                               false, LESSOR_RETURN_RESETTABLE};
        struct dialogue refused = {MULTI SET_K INCR_K EXEC, "-LOADING a\r\n-LOADING b\r\n-LOADING c\r\n-LOADING d\r\n",
                                   true, LESSOR_RETURN_RESETTABLE};
        redisReply **replies;
        lessor_error e;
        size_t n;

        check_eq(run_two(&ran, LESSOR_ATOMIC, &replies, &n, &e), LESSOR_E_UPSTREAM);
        check(e.may_have_run && strstr(e.text, "NOPERM"));
        check_msg(run_two(&refused, LESSOR_ATOMIC, &replies, &n, &e) == 0, "%s", e.text);
        check_str(replies[0]->str, "LOADING b");
        check_str(replies[1]->str, "LOADING c");
        lessor_pipe_replies_free(replies, n);
}

TEST(client_pipe, a_pipe_cut_half_way_may_have_run_and_gives_no_replies) {
        struct dialogue d = {SET_K, "+OK\r\n", true, 0};
        redisReply **replies = NULL;
        lessor_error e;
        size_t n = 77;

        check_eq(run_two(&d, 0, &replies, &n, &e), LESSOR_E_CONNECTION);
        check(e.may_have_run);
        check(!replies && n == 77);
}

TEST(client_pipe, what_does_not_answer_once_is_refused) {
        lessor_pipe *plain, *atomic;
        redisReply **replies;
        struct fake f;
        lessor_error e;
        lessor_db *db;
        lessor *l;
        size_t n;

        fake_start(&f, fake_serve, NULL);
        l = client_open(&f);
        db = client_db(l, NULL);
        check(!lessor_pipe_new(NULL, 0) && !lessor_pipe_new(db, 8));
        plain = lessor_pipe_new(db, 0);
        atomic = lessor_pipe_new(db, LESSOR_ATOMIC);
        check_eq(lessor_pipe_add(plain, "subscribe c"), LESSOR_E_INVALID);
        check_eq(lessor_pipe_add(plain, "MONITOR"), LESSOR_E_INVALID);
        check_eq(lessor_pipe_add(plain, ""), LESSOR_E_INVALID);
        check_eq(lessor_pipe_add(plain, NULL), LESSOR_E_INVALID);
        check_eq(lessor_pipe_add(NULL, "PING"), LESSOR_E_INVALID);
        check_eq(lessor_pipe_add_argv(plain, 0, NULL, NULL), LESSOR_E_INVALID);
        check_eq(lessor_pipe_add(atomic, "EXEC"), LESSOR_E_INVALID);
        check_eq(lessor_pipe_add(atomic, "WATCH k"), LESSOR_E_INVALID);
        check_eq(lessor_pipe_run(plain, 0, &replies, &n, &e), 0); /* empty: no connection is asked for */
        check(!replies && n == 0);
        check_eq(lessor_pipe_run(atomic, 0, &replies, &n, &e), 0);
        check_eq(lessor_pipe_run(atomic, -5, &replies, &n, &e), LESSOR_E_INVALID);
        check_eq(lessor_pipe_run(NULL, 0, &replies, &n, &e), LESSOR_E_INVALID);
        check_eq(lessor_pipe_run(plain, 0, NULL, &n, &e), LESSOR_E_INVALID);
        lessor_pipe_free(plain);
        lessor_pipe_free(atomic);
        lessor_pipe_free(NULL);
        lessor_pipe_replies_free(NULL, 0);
        lessor_close(l);
        fake_stop(&f);
        check_eq(f.leases, 0);
}

/* ---- more than the buffers between us hold ---- */

enum { COMMANDS = 400, PAYLOAD = 50000 };

/* Reads a command, answers it, blocking: who only writes would wait for it for ever, and it for him. */
static void echoes(struct fake *f, void *unused) {
        size_t size = 2 * PAYLOAD, have = 0, used;
        char *buffer = malloc(size);
        union wire_message m;
        int redis;

        need(f, buffer && fake_attach(f));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        redis = fake_grant(f, &m);
        for (int i = 0; i < COMMANDS; i++) {
                while ((used = resp_command_size(buffer, have)) == 0) {
                        ssize_t n = recv(redis, buffer + have, size - have, 0);
                        need(f, n > 0);
                        have += (size_t)n;
                }
                /* The second bulk string of *2 $4 ECHO, header included, is the reply. */
                need(f, send(redis, buffer + 14, used - 14, MSG_NOSIGNAL) == (ssize_t)(used - 14));
                memmove(buffer, buffer + used, have - used);
                have -= used;
        }
        free(buffer);
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &m));
        need(f, m.giveback.flags == LESSOR_RETURN_CLEAN);
        need(f, m.giveback.requests == COMMANDS && m.giveback.replies == COMMANDS);
        need(f, fake_gone(f));
        close(redis);
}

TEST(client_pipe, a_pipe_larger_than_all_buffers_does_not_stop_itself) {
        static char payload[PAYLOAD];
        redisReply **replies;
        lessor_pipe *pipe;
        struct fake f;
        lessor_error e;
        lessor *l;
        size_t n;

        fake_init(&f);
        f.control->database[0].socket_timeout_ns = 20 * NS_PER_S;
        fake_run(&f, echoes, NULL);
        l = client_open(&f);
        pipe = lessor_pipe_new(client_db(l, NULL), 0);
        memset(payload, 'x', sizeof(payload));
        for (int i = 0; i < COMMANDS; i++) {
                memcpy(payload, &i, sizeof(i));
                check_eq(lessor_pipe_add(pipe, "ECHO %b", payload, sizeof(payload)), 0);
        }
        check_msg(lessor_pipe_run(pipe, 5000, &replies, &n, &e) == 0, "%s", e.text);
        check_eq(n, COMMANDS);
        for (int i = 0; i < COMMANDS; i++) {
                memcpy(payload, &i, sizeof(i));
                check(replies[i]->len == PAYLOAD && memcmp(replies[i]->str, payload, PAYLOAD) == 0);
        }
        lessor_pipe_replies_free(replies, n);
        check_eq(lessor_pipe_run(pipe, 0, &replies, &n, &e), 0); /* it is empty again */
        check_eq(n, 0);
        lessor_pipe_free(pipe);
        lessor_close(l);
        fake_stop(&f);
}

/* SPDX-License-Identifier: MIT */
/* A lease: its I/O and deadlines, what is told about it, and when it counts as clean. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <lessor.h>

#include "base/clock.h"
#include "client/fake.h"
#include "client/helpers.h"
#include "support/check.h"

/* A script for the connection of one lease, and what the broker must be told about it. */
struct play {
        void (*redis)(struct fake *f, int fd);
        unsigned clean;          /* flags of RETURN */
        enum lessor_report kind; /* 0: none */
        int error;
        pthread_barrier_t *acquired; /* NULL: none */
};

static void play_lease(struct fake *f, void *data) {
        const struct play *p = data;
        union wire_message m;
        int redis;

        need(f, fake_attach(f));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        redis = fake_grant(f, &m);
        need(f, redis >= 0);
        p->redis(f, redis);
        if (f->failure[0])
                return;
        if (p->kind != 0) {
                need(f, fake_receive(f, LESSOR_MSG_REPORT, &m));
                need(f, m.report.kind == p->kind && m.report.error == p->error && m.report.lease == 1);
        }
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &m));
        need(f, m.giveback.flags == p->clean);
        need(f, fake_gone(f));
        close(redis);
}

#define PING "*1\r\n$4\r\nPING\r\n"

static redisReply *ping(lessor_lease *lease, lessor_error *e) { return lessor_lease_command(lease, e, "PING"); }

/* ---- reading ---- */

static void byte_by_byte(struct fake *f, int redis) {
        static const char reply[] = "*4\r\n$5\r\nhello\r\n:42\r\n$-1\r\n*1\r\n+OK\r\n";

        need(f, fake_expect(redis, PING));
        for (const char *c = reply; *c; c++)
                need(f, send(redis, c, 1, MSG_NOSIGNAL) == 1);
}

TEST(client_lease, a_reply_may_come_byte_by_byte) {
        struct play p = {.redis = byte_by_byte, .clean = LESSOR_RETURN_CLEAN};
        lessor_lease *lease;
        struct fake f;
        lessor_error e;
        redisReply *r;
        lessor *l;

        fake_start(&f, play_lease, &p);
        l = client_open(&f);
        lease = client_lease(l);
        r = ping(lease, &e);
        check_msg(r, "%s", e.text);
        check_eq(r->elements, 4);
        check_str(r->element[0]->str, "hello");
        check_eq(r->element[1]->integer, 42);
        check_eq(r->element[2]->type, REDIS_REPLY_NIL);
        check_str(r->element[3]->element[0]->str, "OK");
        lessor_release(lease);
        lessor_close(l);
        check_str(r->element[0]->str, "hello"); /* replies own their memory */
        freeReplyObject(r);
        fake_stop(&f);
}

enum { LARGE = 64 * 1024 * 1024 };

static void large_reply(struct fake *f, int redis) {
        char *chunk = calloc(1, 1 << 20);
        size_t sent = 0;

        need(f, chunk && fake_expect(redis, PING) && fake_say(redis, "$67108864\r\n"));
        while (sent < LARGE) {
                ssize_t n = send(redis, chunk, 1 << 20, MSG_NOSIGNAL);
                need(f, n > 0);
                sent += (size_t)n;
        }
        free(chunk);
        need(f, sent == LARGE && fake_say(redis, "\r\n"));
}

TEST(client_lease, a_large_reply_comes_whole) {
        struct play p = {.redis = large_reply, .clean = LESSOR_RETURN_CLEAN};
        lessor_lease *lease;
        struct fake f;
        lessor_error e;
        redisReply *r;
        lessor *l;

        fake_start(&f, play_lease, &p);
        l = client_open(&f);
        lease = client_lease(l);
        lessor_lease_set_timeout(lease, 30000);
        r = ping(lease, &e);
        check_msg(r, "%s", e.text);
        check_eq(r->len, LARGE);
        freeReplyObject(r);
        lessor_release(lease);
        lessor_close(l);
        fake_stop(&f);
}

/* ---- trouble ---- */

struct trouble {
        struct play play;
        int code;
        bool may_have_run;
};

static void meet_trouble(const struct trouble *t) {
        struct trouble copy = *t;
        lessor_lease *lease;
        struct fake f;
        lessor_error e;
        lessor *l;

        fake_init(&f);
        f.control->database[0].socket_timeout_ns = NS_PER_S / 4;
        fake_run(&f, play_lease, &copy.play);
        l = client_open(&f);
        lease = client_lease(l);
        if (t->play.acquired)
                pthread_barrier_wait(t->play.acquired);
        check(!ping(lease, &e));
        check_msg(e.code == t->code, "%d %s", e.code, e.text);
        check_eq(e.may_have_run, t->may_have_run);
        check(strstr(e.text, "`main`") && strstr(e.text, f.path));
        check(!ping(lease, &e)); /* broken for good */
        check_eq(e.code, LESSOR_E_CONNECTION);
        check(!e.may_have_run);
        check(!lessor_context(lease));
        lessor_release(lease);
        check_eq(f.segment->magic, LESSOR_SEGMENT_MAGIC);
        lessor_close(l);
        fake_stop(&f);
}

static void silent(struct fake *f, int redis) { need(f, fake_expect(redis, PING)); }

TEST(client_lease, a_reply_has_a_deadline) {
        meet_trouble(&(struct trouble){{.redis = silent, .kind = LESSOR_REPORT_TIMEOUT}, LESSOR_E_REPLY_TIMEOUT, true});
}

/* Never whole, never silent: SO_RCVTIMEO would wait for ever. Stops when the worker has gone. */
static void dribble(struct fake *f, int redis) {
        need(f, fake_expect(redis, PING) && fake_say(redis, "$1000000000\r\n"));
        while (send(redis, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1 || errno == EAGAIN)
                usleep(1000);
}

TEST(client_lease, a_reply_that_dribbles_has_the_same_deadline) {
        struct play p = {.redis = dribble, .kind = LESSOR_REPORT_TIMEOUT};
        meet_trouble(&(struct trouble){p, LESSOR_E_REPLY_TIMEOUT, true});
}

static void closes(struct fake *f, int redis) {
        need(f, fake_expect(redis, PING) && fake_say(redis, "$5\r\nhel"));
        shutdown(redis, SHUT_RDWR);
}

TEST(client_lease, a_connection_closed_while_the_reply_is_due_may_have_run) {
        meet_trouble(&(struct trouble){{.redis = closes, .kind = LESSOR_REPORT_CONNECTION}, LESSOR_E_CONNECTION, true});
}

static pthread_barrier_t cut;

static void closed_before(struct fake *f, int redis) {
        shutdown(redis, SHUT_RDWR);
        pthread_barrier_wait(&cut);
}

TEST(client_lease, a_connection_cut_before_the_command_raises_no_signal_and_has_not_run) {
        struct play p = {.redis = closed_before, .kind = LESSOR_REPORT_CONNECTION, .error = EPIPE, .acquired = &cut};

        pthread_barrier_init(&cut, NULL, 2);
        meet_trouble(&(struct trouble){p, LESSOR_E_CONNECTION, false});
}

static void babbles(struct fake *f, int redis) {
        need(f, fake_expect(redis, PING) && fake_say(redis, "HTTP/1.1 400 Bad Request\r\n\r\n"));
}

TEST(client_lease, what_is_not_resp_is_a_protocol_error) {
        meet_trouble(&(struct trouble){{.redis = babbles, .kind = LESSOR_REPORT_PROTOCOL}, LESSOR_E_PROTOCOL, true});
}

/* ---- a lease in steady use ---- */

enum { STEADY = 10 };

static void steady(struct fake *f, int redis) {
        for (int i = 0; i < STEADY; i++)
                need(f, fake_expect(redis, PING) && fake_say(redis, "+PONG\r\n"));
}

static void steady_then_silent(struct fake *f, int redis) {
        steady(f, redis);
        need(f, fake_expect(redis, PING));
}

static void steady_then_dribble(struct fake *f, int redis) {
        steady(f, redis);
        dribble(f, redis);
}

static void alarmed(int signal) {}

/* After STEADY commands: `ping` fails by its deadline, though signals keep interrupting it. */
static void meet_silence_when_steady(void (*redis)(struct fake *, int), int timeout_ms) {
        struct itimerval often = {{0, 10000}, {0, 10000}}, never = {0};
        struct play p = {.redis = redis, .kind = timeout_ms >= 2000 ? LESSOR_REPORT_TIMEOUT : 0};
        struct sigaction action = {.sa_handler = alarmed, .sa_flags = SA_RESTART};
        lessor_lease *lease;
        struct fake f;
        lessor_error e;
        uint64_t start;
        lessor *l;

        fake_start(&f, play_lease, &p);
        l = client_open(&f);
        lease = client_lease(l);
        for (int i = 0; i < STEADY; i++) {
                redisReply *r = ping(lease, &e);
                check_msg(r, "%s", e.text);
                freeReplyObject(r);
        }
        lessor_lease_set_timeout(lease, timeout_ms);
        check_eq(sigaction(SIGALRM, &action, NULL), 0);
        check_eq(setitimer(ITIMER_REAL, &often, NULL), 0);
        start = clock_now();
        check(!ping(lease, &e));
        check_eq(setitimer(ITIMER_REAL, &never, NULL), 0);
        check_msg(e.code == LESSOR_E_REPLY_TIMEOUT && e.may_have_run, "%d %s", e.code, e.text);
        check(clock_now() - start >= (uint64_t)timeout_ms * NS_PER_MS);
        check(clock_now() - start < (uint64_t)(timeout_ms + 5000) * NS_PER_MS);
        lessor_release(lease);
        lessor_close(l);
        fake_stop(&f);
}

TEST(client_lease, deadlines_hold_in_steady_use_and_under_signals) {
        meet_silence_when_steady(steady_then_silent, 2000);
        meet_silence_when_steady(steady_then_silent, 300);
        meet_silence_when_steady(steady_then_dribble, 300);
}

/* A former holder may still have a copy of the socket, and its flags are everybody's. */
static void flags_change(struct fake *f, void *unused) {
        union wire_message m;
        int pair[2];

        need(f, fake_attach(f));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        need(f, socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        need(f, fake_grant_fd(f, &m, pair[1]));
        for (int i = 0; i < STEADY; i++) {
                int flags = fcntl(pair[1], F_GETFL);
                need(f, fcntl(pair[1], F_SETFL, flags ^ O_NONBLOCK) == 0);
                need(f, fake_expect(pair[0], PING) && fake_say(pair[0], "+PO"));
                need(f, fake_say(pair[0], "NG\r\n"));
        }
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &m));
        need(f, m.giveback.flags == LESSOR_RETURN_CLEAN);
        need(f, fake_gone(f));
        close(pair[0]);
        close(pair[1]);
}

TEST(client_lease, changes_of_the_sockets_flags_by_others_do_no_harm) {
        lessor_lease *lease;
        struct fake f;
        lessor_error e;
        lessor *l;

        fake_start(&f, flags_change, NULL);
        l = client_open(&f);
        lease = client_lease(l);
        for (int i = 0; i < STEADY; i++) {
                redisReply *r = ping(lease, &e);
                check_msg(r && strcmp(r->str, "PONG") == 0, "%s", e.text);
                freeReplyObject(r);
        }
        lessor_release(lease);
        lessor_close(l);
        fake_stop(&f);
}

/* ---- errors of Redis ---- */

struct answer {
        const char *reply;
        enum lessor_report kind;
};
static const char *answer_text;

static void answers(struct fake *f, int redis) { need(f, fake_expect(redis, PING) && fake_say(redis, answer_text)); }

TEST(client_lease, errors_of_redis_are_replies_and_some_are_reported) {
        static const struct answer table[] = {
                {"-ERR unknown command\r\n", 0},
                {"-READONLY You can't write against a read only replica.\r\n", LESSOR_REPORT_READONLY},
                {"-MOVED 3999 127.0.0.1:6381\r\n", LESSOR_REPORT_MOVED},
                {"-ASK 3999 127.0.0.1:6381\r\n", LESSOR_REPORT_MOVED},
                {"-LOADING Redis is loading the dataset in memory\r\n", LESSOR_REPORT_LOADING},
        };
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
                struct play p = {.redis = answers, .clean = LESSOR_RETURN_CLEAN, .kind = table[i].kind};
                lessor_lease *lease;
                struct fake f;
                lessor_error e;
                redisReply *r;
                lessor *l;

                answer_text = table[i].reply;
                fake_start(&f, play_lease, &p);
                l = client_open(&f);
                lease = client_lease(l);
                r = ping(lease, &e);
                check_msg(r, "%s", e.text);
                check_eq(r->type, REDIS_REPLY_ERROR);
                freeReplyObject(r);
                lessor_release(lease);
                check_eq(f.segment->magic, LESSOR_SEGMENT_MAGIC);
                lessor_close(l);
                fake_stop(&f);
        }
}

/* ---- clean or not ---- */

struct conversation {
        const char *commands[4];
        const char *replies[4];
        unsigned flags; /* of RETURN */
};
static const struct conversation *talk;

static void talks(struct fake *f, int redis) {
        char buffer[1024];

        for (int i = 0; i < 4 && talk->commands[i]; i++) {
                need(f, recv(redis, buffer, sizeof(buffer), 0) > 0);
                need(f, fake_say(redis, talk->replies[i]));
        }
}

TEST(client_lease, a_lease_is_clean_or_resettable_only_with_proof) {
        static const struct conversation table[] = {
                {{"GET k"}, {"$1\r\nv\r\n"}, LESSOR_RETURN_CLEAN},
                {{"SELECT 3"}, {"+OK\r\n"}, LESSOR_RETURN_RESETTABLE},
                {{"MULTI"}, {"+OK\r\n"}, LESSOR_RETURN_RESETTABLE},
                {{"MULTI", "GET k", "EXEC"}, {"+OK\r\n", "+QUEUED\r\n", "*1\r\n$-1\r\n"}, LESSOR_RETURN_CLEAN},
                {{"MULTI", "DISCARD"}, {"+OK\r\n", "+OK\r\n"}, LESSOR_RETURN_CLEAN},
                {{"MULTI", "DISCARD"}, {"+OK\r\n", "-NOPERM no\r\n"}, LESSOR_RETURN_RESETTABLE},
                {{"WATCH k"}, {"+OK\r\n"}, LESSOR_RETURN_RESETTABLE},
                {{"WATCH k", "UNWATCH"}, {"+OK\r\n", "+OK\r\n"}, LESSOR_RETURN_CLEAN},
                {{"WATCH k", "MULTI", "EXEC"}, {"+OK\r\n", "+OK\r\n", "*0\r\n"}, LESSOR_RETURN_CLEAN},
                {{"SUBSCRIBE c"}, {"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"}, LESSOR_RETURN_RESETTABLE},
                {{"CLIENT NO-EVICT ON"}, {"+OK\r\n"}, 0},
                {{"SELECT 3", "CLIENT ID"}, {"+OK\r\n", ":5\r\n"}, 0},
                {{"MONITOR"}, {"+OK\r\n"}, 0},
                {{"SELECT 3"}, {"+OK\r\n+OK\r\n"}, 0},
                {{"SOME.MODULE x"}, {"+OK\r\n"}, LESSOR_RETURN_UNKNOWN},
                {{"GET k"}, {"$1\r\nv\r\n+"}, 0},       /* a byte too many */
                {{"GET k"}, {"$1\r\nv\r\n+OK\r\n"}, 0}, /* a reply too many */
        };
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
                struct play p = {.redis = talks, .clean = table[i].flags};
                lessor_lease *lease;
                struct fake f;
                lessor *l;

                talk = &table[i];
                fake_start(&f, play_lease, &p);
                l = client_open(&f);
                lease = client_lease(l);
                for (int j = 0; j < 4 && table[i].commands[j]; j++) {
                        char words[64], *save = NULL;
                        const char *argv[4];
                        lessor_error e;
                        redisReply *r;
                        int argc = 0;
                        snprintf(words, sizeof(words), "%s", table[i].commands[j]);
                        for (char *w = strtok_r(words, " ", &save); w; w = strtok_r(NULL, " ", &save))
                                argv[argc++] = w;
                        r = lessor_lease_command_argv(lease, argc, argv, NULL, &e);
                        check_msg(r, "%s", e.text);
                        freeReplyObject(r);
                }
                lessor_release(lease);
                lessor_close(l);
                fake_stop(&f);
        }
}

static void nothing(struct fake *f, int redis) {}

TEST(client_lease, an_unused_lease_is_clean) {
        struct play p = {.redis = nothing, .clean = LESSOR_RETURN_CLEAN};
        struct fake f;
        lessor *l;

        fake_start(&f, play_lease, &p);
        l = client_open(&f);
        {
                lessor_error e;
                LESSOR_SCOPED lessor_lease *lease = lessor_acquire(client_db(l, NULL), 1000, &e);
                check_msg(lease, "%s", e.text);
        }
        lessor_close(l);
        fake_stop(&f);
}

TEST(client_lease, closing_the_handle_with_a_lease_held_is_safe) {
        struct play p = {.redis = answers, .clean = LESSOR_RETURN_CLEAN};
        lessor_lease *lease;
        struct fake f;
        lessor_error e;
        redisReply *r;
        lessor *l;

        answer_text = "+PONG\r\n";
        fake_start(&f, play_lease, &p);
        l = client_open(&f);
        lease = client_lease(l);
        lessor_close(l);
        r = ping(lease, &e);
        check_msg(r, "%s", e.text);
        freeReplyObject(r);
        lessor_release(lease);
        fake_stop(&f);
}

/* ---- messages, and the raw context ---- */

#define MESSAGE "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n"

static void publishes(struct fake *f, int redis) {
        char buffer[64];

        need(f, recv(redis, buffer, sizeof(buffer), 0) > 0);
        need(f, fake_say(redis, "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n" MESSAGE "*3\r\n$7\r\nmess"));
        need(f, recv(redis, buffer, 1, 0) == 1); /* whatever comes: it has seen the timeout */
        need(f, fake_say(redis, "age\r\n$1\r\nc\r\n$2\r\nho\r\n" MESSAGE));
        need(f, fake_ended(redis));
}

TEST(client_lease, messages_are_read_without_asking_and_a_timeout_loses_none) {
        struct play p = {.redis = publishes};
        redisReply *r;
        lessor_lease *lease;
        redisContext *c;
        struct fake f;
        lessor_error e;
        lessor *l;

        fake_start(&f, play_lease, &p);
        l = client_open(&f);
        lease = client_lease(l);
        freeReplyObject(lessor_lease_command(lease, &e, "SUBSCRIBE c"));
        r = lessor_lease_read(lease, &e);
        check_msg(r, "%s", e.text);
        check_str(r->element[2]->str, "hi");
        freeReplyObject(r);
        lessor_lease_set_timeout(lease, 50);
        check(!lessor_lease_read(lease, &e));
        check_eq(e.code, LESSOR_E_REPLY_TIMEOUT);
        c = lessor_context(lease); /* half a message is in the buffer: it goes along */
        check(c && lessor_context(lease) == c);
        check(lessor_lease_of(c) == lease && !lessor_lease_of(NULL));
        lessor_lease_set_timeout(lease, 5000);
        check_eq(send(c->fd, "x", 1, MSG_NOSIGNAL), 1);
        check_eq(redisGetReply(c, (void **)&r), REDIS_OK);
        check_str(r->element[2]->str, "ho");
        freeReplyObject(r);
        r = lessor_lease_read(lease, &e); /* and back */
        check_msg(r, "%s", e.text);
        check_str(r->element[2]->str, "hi");
        freeReplyObject(r);
        lessor_release(lease);
        lessor_close(l);
        fake_stop(&f);
}

TEST(client_lease, raw_use_is_never_clean) {
        struct play p = {.redis = answers};
        lessor_lease *lease;
        redisContext *c;
        struct fake f;
        redisReply *r;
        lessor *l;

        answer_text = "+PONG\r\n";
        fake_start(&f, play_lease, &p);
        l = client_open(&f);
        lease = client_lease(l);
        c = lessor_context(lease);
        r = redisCommand(c, "PING");
        check(r);
        check_str(r->str, "PONG");
        freeReplyObject(r);
        lessor_release(lease);
        lessor_close(l);
        fake_stop(&f);
}

/* ---- statistics ---- */

static void three_answers(struct fake *f, int redis) {
        need(f, fake_expect(redis, PING) && fake_say(redis, "+PONG\r\n"));
        need(f, fake_expect(redis, PING) && fake_say(redis, "-ERR no\r\n"));
        need(f, fake_expect(redis, PING));
}

TEST(client_lease, operations_are_counted_in_the_session_segment) {
        struct play p = {.redis = three_answers, .kind = LESSOR_REPORT_TIMEOUT};
        const struct lessor_segment_database *counts;
        uint64_t calls = 0;
        lessor_lease *lease;
        struct fake f;
        lessor_error e;
        lessor *l;

        fake_init(&f);
        f.control->database[0].socket_timeout_ns = NS_PER_S / 10;
        fake_run(&f, play_lease, &p);
        l = client_open(&f);
        lease = client_lease(l);
        for (int i = 0; i < 3; i++)
                freeReplyObject(ping(lease, &e));
        lessor_release(lease);
        lessor_close(l);
        counts = (const void *)((const char *)f.segment + f.segment->database_offset);
        for (unsigned i = 0; i < LESSOR_CALL_BUCKETS; i++)
                calls += counts->call_time[i];
        check_eq(counts->operations_ok, 1);
        check_eq(counts->operations_failed, 2);
        check_eq(counts->timeouts, 1);
        check_eq(calls, 2);
        check(counts->last_success_ns > 0);
        fake_stop(&f);
}

/* ---- the caller's mistakes ---- */

TEST(client_lease, invalid_arguments_are_named) {
        const char *argv[] = {"GET", NULL};
        struct fake f;
        lessor_error e;
        lessor_db *db;
        lessor *l;

        fake_start(&f, fake_serve, NULL);
        l = client_open(&f);
        db = client_db(l, NULL);
        check(!lessor_command(NULL, &e, "PING") && e.code == LESSOR_E_INVALID && strstr(e.text, "`db`"));
        check(!lessor_command(db, &e, "") && e.code == LESSOR_E_INVALID && strstr(e.text, "`fmt`"));
        check(!lessor_command(db, &e, "GET %!", 1) && e.code == LESSOR_E_INVALID && strstr(e.text, "`fmt`"));
        check(!lessor_command_argv(db, -2, 1, argv, NULL, &e) && strstr(e.text, "`wait_ms`"));
        check(!lessor_command_argv(db, 0, 0, argv, NULL, &e) && strstr(e.text, "`argc`"));
        check(!lessor_command_argv(db, 0, 1, NULL, NULL, &e) && strstr(e.text, "`argv`"));
        check(!lessor_command_argv(db, 0, 2, argv, NULL, &e) && strstr(e.text, "`argv`"));
        check(!lessor_acquire(NULL, 0, &e) && strstr(e.text, "`db`"));
        check(!lessor_acquire(db, -7, &e) && strstr(e.text, "`wait_ms`"));
        check(!lessor_lease_command(NULL, &e, "PING") && strstr(e.text, "`lease`"));
        check(!lessor_lease_read(NULL, &e) && e.code == LESSOR_E_INVALID);
        check(!lessor_context(NULL) && !lessor_lease_of(NULL));
        check(!lessor_command(NULL, NULL, "PING"));
        lessor_lease_set_timeout(NULL, 1);
        lessor_release(NULL);
        lessor_close(l);
        fake_stop(&f);
}

/* SPDX-License-Identifier: MIT */
/*
 * What a worker leaves behind: his place comes back when he dies, and nobody after him meets what he did to his
 * connection.
 */
#include <errno.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "base/pidfd.h"
#include "support/check.h"
#include "support/host.h"
#include "support/process.h"
#include "support/raw.h"

enum { WAIT_MS = 30000, RECLAIM_MS = 1000 };

struct scene {
        const char *socket;
        struct stage holding, end;
};

static lessor_lease *hold(struct scene *s) {
        lessor *l;
        lessor_db *db;
        lessor_error e;
        child_check(lessor_open(s->socket, &l) == 0);
        child_check(lessor_database(l, NULL, &db, &e) == 0);
        lessor_lease *lease = lessor_acquire(db, WAIT_MS, &e);
        child_check(lease);
        return lease;
}

static int hold_until_killed(unsigned index, void *arg) {
        struct scene *s = arg;
        hold(s);
        stage_advance(&s->holding);
        stage_reached(&s->end, 1, 2 * WAIT_MS);
        return 0;
}

static int hold_with_a_child_until_killed(unsigned index, void *arg) {
        struct scene *s = arg;
        hold(s);
        if (fork() == 0) {
                stage_advance(&s->holding);
                stage_reached(&s->end, 1, 2 * WAIT_MS);
                stage_advance(&s->end);
                _exit(0);
        }
        stage_reached(&s->end, 1, 2 * WAIT_MS);
        return 0;
}

/* Without the library, which closes its fds in a child: the child's copies hide the death from whoever watches the socket. */
static int hold_raw_with_a_child_until_killed(unsigned index, void *arg) {
        struct scene *s = arg;
        struct lessor_msg_attach attach = raw_attach_message(0);
        struct lessor_msg_grant grant;
        union raw_message answer;
        int fd = raw_connect(s->socket), number;
        child_check(raw_say(fd, &attach) == 0 && raw_expect(fd, LESSOR_MSG_ATTACHED, &answer));
        child_check((number = raw_lookup(fd, "main")) >= 0);
        child_check(raw_lease(fd, (uint32_t)number, LESSOR_WAIT_DEFAULT, &grant) >= 0);
        if (fork() == 0) {
                stage_advance(&s->holding);
                stage_reached(&s->end, 1, 2 * WAIT_MS);
                _exit(0);
        }
        stage_reached(&s->end, 1, 2 * WAIT_MS);
        return 0;
}

static int leave_a_half_read_reply_until_killed(unsigned index, void *arg) {
        struct scene *s = arg;
        redisContext *c = lessor_context(hold(s));
        char bytes[100];
        int done = 0;
        redisAppendCommand(c, "GET big");
        while (!done)
                child_check(redisBufferWrite(c, &done) == REDIS_OK);
        child_check(recv(c->fd, bytes, sizeof(bytes), 0) > 0);
        stage_advance(&s->holding);
        stage_reached(&s->end, 1, 2 * WAIT_MS);
        return 0;
}

/* The next in line is served in time, and reads replies to his own commands. */
static void check_next_is_served(struct host *h, unsigned ms) {
        lessor_error e = {0};
        lessor *l = client_open(&h->broker);
        lessor_db *db = client_database(l, NULL);
        lessor_lease *lease = lessor_acquire(db, (int)ms * PROCESS_SLOW, &e);
        check_msg(lease, "not within %u ms: %s", ms, e.text);
        redisReply *reply = lessor_lease_command(lease, &e, "ECHO %s", "mine");
        check_msg(reply, "%s", e.text);
        check_str(reply->str, "mine");
        freeReplyObject(reply);
        lessor_release(lease);
        lessor_close(l);
}

static void check_reclaimed(worker_function *holder) {
        struct scene *s = shared_memory(sizeof(*s));
        struct workers w;
        struct host h;

        host_start(&h, "max_connections: 1");
        freeReplyObject(redis_ask(&h.redis, "SETRANGE big 5000000 x"));
        s->socket = h.broker.socket;
        workers_start(&w, 1, holder, s);
        check(stage_reached(&s->holding, 1, WAIT_MS));
        check_figure_soon(&h.broker, "main", in_use_connections, 1, 5000);
        workers_kill(&w, 0);
        check_next_is_served(&h, RECLAIM_MS);
        check_figure_soon(&h.broker, "main", reclaims, 1, 5000);
        check_figure_soon(&h.broker, "main", discards_holder, 1, 5000);
        check_figure(&h.broker, "main", peak_connections, 1);
        stage_advance(&s->end);
        host_end(&h);
}

TEST(reclaim, a_lease_is_reclaimed_when_its_holder_is_killed) { check_reclaimed(hold_until_killed); }

TEST(reclaim, a_forked_child_of_the_holder_does_not_keep_its_lease) { check_reclaimed(hold_with_a_child_until_killed); }

TEST(reclaim, a_worker_that_sends_no_pidfd_is_reclaimed_though_a_forked_child_keeps_its_socket) {
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        bool known = pidfd_of_peers_known(fd);
        close(fd);
        if (!known)
                test_skip("this kernel has no SO_PEERPIDFD");
        check_reclaimed(hold_raw_with_a_child_until_killed);
}

TEST(reclaim, a_reply_half_read_by_a_killed_holder_is_never_handed_on) {
        check_reclaimed(leave_a_half_read_reply_until_killed);
}

TEST(reclaim, the_leases_of_many_killed_holders_all_come_back) {
        enum { HOLDERS = 10 };
        struct scene *s = shared_memory(sizeof(*s));
        struct workers w;
        struct host h;

        host_start(&h, "max_connections: 10");
        s->socket = h.broker.socket;
        workers_start(&w, HOLDERS, hold_until_killed, s);
        check(stage_reached(&s->holding, HOLDERS, WAIT_MS));
        check_figure_soon(&h.broker, "main", in_use_connections, HOLDERS, 5000);
        for (unsigned i = 0; i < HOLDERS; i++)
                workers_kill(&w, i);
        check_figure_soon(&h.broker, "main", in_use_connections, 0, RECLAIM_MS);
        check_figure_soon(&h.broker, "main", reclaims, HOLDERS, 5000);
        check_next_is_served(&h, RECLAIM_MS);
        host_end(&h);
}

TEST(reclaim, a_process_that_exits_without_releasing_gives_back_everything) {
        struct scene *s = shared_memory(sizeof(*s));
        struct host h;

        host_start(&h, "max_connections: 1");
        s->socket = h.broker.socket;
        stage_advance(&s->end);
        check_eq(workers_run(1, hold_until_killed, s, WAIT_MS), 1);
        check_next_is_served(&h, RECLAIM_MS);
        host_end(&h);
}

TEST(reclaim, a_holder_who_says_nothing_for_long_keeps_his_session_and_his_lease) {
        enum { LONG_MS = 7000 }; /* longer than any time limit before ATTACH */
        struct host h;
        lessor_error e = {0};

        host_start(&h, "max_connections: 1, socket_timeout: 20s");
        lessor *l = client_open(&h.broker);
        lessor_lease *lease = lessor_acquire(client_database(l, NULL), WAIT_MS, &e);
        check_msg(lease, "%s", e.text);
        redisReply *reply = lessor_lease_command(lease, &e, "BLPOP nothing %d", LONG_MS / 1000);
        check_msg(reply && reply->type == REDIS_REPLY_NIL, "%s", e.text);
        freeReplyObject(reply);
        check_eq(broker_sessions_now(&h.broker), 1);
        check_figure(&h.broker, "main", in_use_connections, 1);
        check_figure(&h.broker, "main", reclaims, 0);
        lessor_release(lease);
        lessor_close(l);
        host_end(&h);
}

/* ---- what a release leaves behind ------------------------------------------------------------------------------- */

typedef void mess(lessor_lease *);

static void run(lessor_lease *lease, const char *command) {
        lessor_error e = {0};
        redisReply *reply = lessor_lease_command(lease, &e, command); /* NOLINT: constant texts of this file */
        check_msg(reply && reply->type != REDIS_REPLY_ERROR, "%s: %s", command, reply ? reply->str : e.text);
        freeReplyObject(reply);
}

static void write_raw(lessor_lease *lease, const char *bytes) {
        redisContext *c = lessor_context(lease);
        check(c != NULL);
        check_eq(send(c->fd, bytes, strlen(bytes), MSG_NOSIGNAL), (ssize_t)strlen(bytes));
}

static void leave_multi(lessor_lease *lease) { run(lease, "MULTI"), run(lease, "SET probe stolen"); }
static void leave_select(lessor_lease *lease) { run(lease, "SELECT 5"); }
static void leave_watch(lessor_lease *lease) { run(lease, "WATCH probe"); }
static void leave_subscribe(lessor_lease *lease) { run(lease, "SUBSCRIBE news"); }
static void leave_name(lessor_lease *lease) { run(lease, "CLIENT SETNAME somebody"); }
static void leave_no_evict(lessor_lease *lease) { run(lease, "CLIENT NO-EVICT on"); }
static void leave_unsubscribed(lessor_lease *lease) { run(lease, "SUBSCRIBE a"), run(lease, "UNSUBSCRIBE a"); }
static void leave_monitor(lessor_lease *lease) { run(lease, "MONITOR"); }
static void leave_reply_off(lessor_lease *lease) { write_raw(lease, "CLIENT REPLY OFF\r\n"); }
static void leave_unread_reply(lessor_lease *lease) { write_raw(lease, "PING\r\n"); }
static void leave_half_a_request(lessor_lease *lease) {
        write_raw(lease, "*3\r\n$3\r\nSET\r\n$5\r\nprobe\r\n$6\r\nst");
}
static void leave_a_forged_reset(lessor_lease *lease) { write_raw(lease, "EVAL \"return {ok='RESET'}\" 0\r\n"); }
static void leave_a_closed_connection(lessor_lease *lease) { write_raw(lease, "QUIT\r\n"); }
static void leave_a_late_reply(lessor_lease *lease) {
        lessor_error e = {0};
        lessor_lease_set_timeout(lease, 50);
        check(!lessor_lease_command(lease, &e, "BLPOP nothing 1"));
        check_eq(e.code, LESSOR_E_REPLY_TIMEOUT);
        check(e.may_have_run);
}
static void leave_bytes_in_hiredis(lessor_lease *lease) {
        redisContext *c = lessor_context(lease);
        redisReply *reply;
        redisAppendCommand(c, "PING");
        redisAppendCommand(c, "ECHO %s", "not yours");
        check_eq(redisGetReply(c, (void **)&reply), REDIS_OK);
        freeReplyObject(reply);
}
static void leave_half_a_reply(lessor_lease *lease) {
        char bytes[100];
        write_raw(lease, "COMMAND\r\n"); /* a reply of some 200 KB */
        check_eq(recv(lessor_context(lease)->fd, bytes, sizeof(bytes), MSG_WAITALL), (ssize_t)sizeof(bytes));
}
static void leave_a_shut_down_socket(lessor_lease *lease) { shutdown(lessor_context(lease)->fd, SHUT_RDWR); }
static void leave_short_time_limits(lessor_lease *lease) {
        struct timeval short_limit = {.tv_usec = 1000};
        redisContext *c = lessor_context(lease);
        check_eq(redisSetTimeout(c, short_limit), REDIS_OK);
}

static const struct {
        const char *name;
        mess *make;
} messes[] = {
        {"MULTI left open", leave_multi},
        {"another database selected", leave_select},
        {"a key watched", leave_watch},
        {"a channel subscribed to", leave_subscribe},
        {"another name", leave_name},
        {"CLIENT NO-EVICT", leave_no_evict},
        {"subscribed and unsubscribed", leave_unsubscribed},
        {"MONITOR", leave_monitor},
        {"CLIENT REPLY OFF", leave_reply_off},
        {"an unread reply", leave_unread_reply},
        {"half a request", leave_half_a_request},
        {"a forged reply to RESET", leave_a_forged_reset},
        {"QUIT", leave_a_closed_connection},
        {"a reply that comes after its time", leave_a_late_reply},
        {"a reply in hiredis' buffer", leave_bytes_in_hiredis},
        {"half a reply", leave_half_a_reply},
        {"a socket shut down", leave_a_shut_down_socket},
        {"socket timeouts of its own", leave_short_time_limits},
};

/* The connection is as new: the commands' own replies, database 0, our name, no transaction, no subscription. */
static void check_clean(struct host *h, lessor_db *db, const char *after) {
        lessor_error e = {0};
        char name[300];
        lessor_lease *lease = lessor_acquire(db, WAIT_MS, &e);
        check_msg(lease, "after %s: %s", after, e.text);
        redisReply *reply = lessor_lease_command(lease, &e, "SET probe %s", "mine");
        check_msg(reply && reply->type == REDIS_REPLY_STATUS && strcmp(reply->str, "OK") == 0, "after %s: SET: %s",
                  after, reply ? reply->str : e.text);
        freeReplyObject(reply);
        reply = lessor_lease_command(lease, &e, "CLIENT INFO");
        check_msg(reply && reply->type == REDIS_REPLY_STRING, "after %s: %s", after, reply ? reply->str : e.text);
        snprintf(name, sizeof(name), " name=%s ", broker_client_name(&h->broker, "main"));
        check_msg(strstr(reply->str, " db=0 ") && strstr(reply->str, " sub=0 ") && strstr(reply->str, " multi=-1 ") &&
                          (strstr(reply->str, " flags=N ") || strstr(reply->str, " flags=U ")) &&
                          strstr(reply->str, name),
                  "after %s: %s", after, reply->str);
        freeReplyObject(reply);
        lessor_release(lease);
        redis_check_string(&h->redis, "probe", "mine");
}

TEST_WITH(reclaim, the_next_holder_never_meets_what_the_last_one_left_behind, .timeout = 120) {
        struct host h;

        host_start(&h, "max_connections: 1, socket_timeout: 10s");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        for (size_t i = 0; i < sizeof(messes) / sizeof(messes[0]); i++) {
                lessor_error e = {0};
                lessor_lease *lease = lessor_acquire(db, WAIT_MS, &e);
                check_msg(lease, "before %s: %s", messes[i].name, e.text);
                messes[i].make(lease);
                lessor_release(lease);
                check_clean(&h, db, messes[i].name);
        }
        check_figure(&h.broker, "main", peak_connections, 1);
        lessor_close(l);
        host_end(&h);
}

TEST(reclaim, harmless_commands_on_a_lease_keep_its_connection) {
        struct host h;

        host_start(&h, "max_connections: 1");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        for (unsigned i = 0; i < 10; i++) {
                lessor_error e = {0};
                lessor_lease *lease = lessor_acquire(db, WAIT_MS, &e);
                check_msg(lease, "%s", e.text);
                run(lease, "SET a 1"), run(lease, "GET a"), run(lease, "INCR a"), run(lease, "DEL a");
                run(lease, "MULTI"), run(lease, "INCR b"), run(lease, "EXEC");
                lessor_release(lease);
        }
        check_figure_soon(&h.broker, "main", warm_leases, 9, 5000);
        check_figure(&h.broker, "main", leases, 1);
        check_figure(&h.broker, "main", created_connections, 1);
        check_figure(&h.broker, "main", discards_dirty, 0);
        lessor_close(l);
        host_end(&h);
}

TEST(reclaim, a_connection_that_redis_closed_while_idle_is_replaced) {
        struct host h;

        host_start(&h, "max_connections: 1");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        freeReplyObject(client_command(db, "PING"));
        check_eq(redis_integer(&h.redis, "CLIENT KILL TYPE normal SKIPME yes"), 1);
        freeReplyObject(client_command(db, "PING"));
        check_figure_soon(&h.broker, "main", created_connections, 2, 5000);
        check_figure_soon(&h.broker, "main", discards_lost, 1, 5000);
        check_figure_soon(&h.broker, "main", reconnections, 1, 5000);
        lessor_close(l);
        host_end(&h);
}

TEST(reclaim, a_connection_that_breaks_under_its_holder_is_an_error_of_that_call_alone) {
        struct host h;
        lessor_error e = {0};

        host_start(&h, "max_connections: 1");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_lease *lease = lessor_acquire(db, WAIT_MS, &e);
        check_msg(lease, "%s", e.text);
        check_eq(redis_integer(&h.redis, "CLIENT KILL TYPE normal SKIPME yes"), 1);
        check(!lessor_lease_command(lease, &e, "INCR n"));
        check_msg(e.code == LESSOR_E_CONNECTION, "%d: %s", e.code, e.text);
        check(!lessor_lease_command(lease, &e, "PING")); /* broken for good */
        lessor_release(lease);
        freeReplyObject(client_command(db, "PING"));
        lessor_close(l);
        host_end(&h);
}

/* SPDX-License-Identifier: MIT */
/*
 * Holders who lie about what they give back, leave it half-way, keep a dup of it, or change what dups share: nobody after
 * them reads a reply that is not his own, no password goes over what they touched, and the broker never waits for them.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "support/check.h"
#include "support/host.h"
#include "support/process.h"
#include "support/raw.h"

#define WAIT_NS UINT64_C(30000000000)
#define SET_REQUEST "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$9\r\nsome text\r\n"
#define GET_REQUEST "*2\r\n$3\r\nGET\r\n$5\r\nlarge\r\n"
#define GET_REPLY "$26\r\nabcdefghijklmnopqrstuvwxyz\r\n"
#define SELECT_REQUEST "*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n"

struct scene {
        struct host h;
        int session; /* the liar's */
        lessor *l;   /* everybody else's */
        lessor_db *db;
};

static void scene_start(struct scene *s, const char *keys) {
        host_start(&s->h, keys);
        s->session = raw_attach(s->h.broker.socket, 0, NULL);
        check(s->session >= 0);
        s->l = client_open(&s->h.broker);
        s->db = client_database(s->l, NULL);
        redis_say(&s->h.redis, "SET large abcdefghijklmnopqrstuvwxyz");
}

static void scene_end(struct scene *s) {
        close(s->session);
        lessor_close(s->l);
        host_end(&s->h);
}

static int lease(struct scene *s, struct lessor_msg_grant *ret) {
        int fd = raw_lease(s->session, 0, WAIT_NS, ret);
        check_msg(fd >= 0, "no lease: %d", fd);
        return fd;
}

static void put(int fd, const char *bytes, size_t size) {
        check_eq(send(fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT), (ssize_t)size);
}

static void take(int fd, size_t size) {
        char byte;
        struct pollfd readable = {.fd = fd, .events = POLLIN};
        for (size_t i = 0; i < size; i++) {
                check_eq(poll(&readable, 1, RAW_MS), 1);
                check_eq(recv(fd, &byte, 1, MSG_DONTWAIT), 1);
        }
}

static size_t waiting_bytes(int fd) {
        int n = 0;
        check_eq(ioctl(fd, FIONREAD, &n), 0);
        return (size_t)n;
}

static void give_back(struct scene *s, const struct lessor_msg_grant *grant, uint32_t flags, uint64_t requests,
                      uint64_t replies) {
        struct lessor_msg_return m = raw_return_message(grant, flags);
        m.requests = requests;
        m.replies = replies;
        check_eq(raw_say(s->session, &m), 0);
}

/* The next holder's replies are his own. */
static void check_next(struct scene *s, size_t offset) {
        char mine[32];
        snprintf(mine, sizeof(mine), "mine-%zu", offset);
        redisReply *reply = client_command(s->db, "ECHO %s", mine);
        check_eq(reply->type, REDIS_REPLY_STRING);
        check_msg(strcmp(reply->str, mine) == 0, "at byte %zu: `%s`", offset, reply->str);
        freeReplyObject(reply);
        reply = client_command(s->db, "GET large");
        check_str(reply->str, "abcdefghijklmnopqrstuvwxyz");
        freeReplyObject(reply);
}

/* Said resettable, which is a lie. Our RESET becomes part of his request; its answer is not what was asked for, or none. */
TEST_WITH(handover_hostile, a_request_left_at_any_byte_is_nobodys_trouble, .timeout = 120) {
        struct scene s;
        struct lessor_msg_grant grant;

        scene_start(&s, "max_connections: 1, wait_timeout: 30s, socket_connect_timeout: 200ms");
        for (size_t at = 1; at < sizeof(SET_REQUEST) - 1; at++) {
                int fd = lease(&s, &grant);
                put(fd, SET_REQUEST, at);
                close(fd);
                give_back(&s, &grant, LESSOR_RETURN_RESETTABLE, 0, 0);
                check_next(&s, at);
        }
        struct lessor_status_database d = broker_figures_now(&s.h.broker, "main");
        /* Redis ends the connection on what is no request: that may be seen first. */
        check_eq(d.discards_reset + d.discards_lost, sizeof(SET_REQUEST) - 2);
        check_eq(d.resets, 0);
        scene_end(&s);
}

TEST(handover_hostile, who_admits_a_request_without_a_reply_is_closed_unasked) {
        struct scene s;
        struct lessor_msg_grant grant;

        scene_start(&s, "max_connections: 1, wait_timeout: 30s");
        for (size_t at = 0; at < sizeof(SET_REQUEST); at++) {
                int fd = lease(&s, &grant);
                put(fd, SET_REQUEST, at);
                close(fd);
                give_back(&s, &grant, LESSOR_RETURN_RESETTABLE, 1, 0);
                check_next(&s, at);
        }
        check_figure(&s.h.broker, "main", discards_dirty, sizeof(SET_REQUEST));
        check_figure(&s.h.broker, "main", discards_reset, 0);
        scene_end(&s);
}

static void leave_reply_at(struct scene *s, size_t at, uint32_t flags) {
        struct lessor_msg_grant grant;
        int fd = lease(s, &grant);
        put(fd, GET_REQUEST, sizeof(GET_REQUEST) - 1);
        take(fd, at);
        check_soon(waiting_bytes(fd) == sizeof(GET_REPLY) - 1 - at, RAW_MS);
        close(fd);
        give_back(s, &grant, flags, 1, 1);
        check_next(s, at);
}

TEST_WITH(handover_hostile, a_reply_left_at_any_byte_is_nobody_elses_reply, .timeout = 120) {
        struct scene s;

        scene_start(&s, "max_connections: 1, wait_timeout: 30s");
        for (size_t at = 0; at < sizeof(GET_REPLY); at++)
                leave_reply_at(&s, at, LESSOR_RETURN_RESETTABLE);
        check_figure(&s.h.broker, "main", resets, sizeof(GET_REPLY)); /* drained, and proved */
        for (size_t at = 0; at < sizeof(GET_REPLY); at++)
                leave_reply_at(&s, at, LESSOR_RETURN_CLEAN);
        check_figure(&s.h.broker, "main", discards_stray, sizeof(GET_REPLY) - 1); /* all but the one read whole */
        scene_end(&s);
}

TEST(handover_hostile, a_forged_reset_is_found_out_by_the_nonce) {
        static const char forged[] = "*3\r\n$4\r\nEVAL\r\n$21\r\nreturn {ok = 'RESET'}\r\n$1\r\n0\r\n";
        /* Our RESET is its last argument, and it answers +RESET. */
        static const char swallows[] = "*4\r\n$4\r\nEVAL\r\n$21\r\nreturn {ok = 'RESET'}\r\n$1\r\n0\r\n$13\r\n";
        struct scene s;
        struct lessor_msg_grant grant;

        scene_start(&s, "max_connections: 1, wait_timeout: 30s, socket_connect_timeout: 500ms");
        for (unsigned i = 0; i < 100; i++) {
                int fd = lease(&s, &grant);
                put(fd, SELECT_REQUEST, sizeof(SELECT_REQUEST) - 1);
                take(fd, 5);
                put(fd, i % 2 ? forged : swallows, i % 2 ? sizeof(forged) - 1 : sizeof(swallows) - 1);
                close(fd);
                give_back(&s, &grant, LESSOR_RETURN_RESETTABLE, 2, 2);
                check_next(&s, i); /* in database 0, too */
        }
        scene_end(&s);
}

TEST(handover_hostile, what_reset_does_not_undo_is_seen_though_the_holder_lies) {
        static const struct {
                const char *request, *reply;
        } lies[] = {{"CLIENT NO-EVICT ON\r\n", "+OK\r\n"},
                    {"CLIENT NO-EVICT ON\r\nSELECT 3\r\nCLIENT SETNAME x\r\n", "+OK\r\n+OK\r\n+OK\r\n"}};
        struct scene s;
        struct lessor_msg_grant grant, again;

        scene_start(&s, "max_connections: 1, wait_timeout: 30s");
        for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
                int fd = lease(&s, &grant);
                put(fd, lies[i].request, strlen(lies[i].request));
                take(fd, strlen(lies[i].reply));
                close(fd);
                give_back(&s, &grant, LESSOR_RETURN_RESETTABLE, 1, 1);
                fd = lease(&s, &again);
                check(again.client_id != grant.client_id);
                close(fd);
                give_back(&s, &again, LESSOR_RETURN_CLEAN, 0, 0);
        }
        check_figure(&s.h.broker, "main", discards_reset, ARRAY_SIZE(lies));
        scene_end(&s);
}

TEST(handover_hostile, messages_of_a_subscription_that_nobody_read_are_gone) {
        struct scene s;
        struct lessor_msg_grant grant;

        scene_start(&s, "max_connections: 1, wait_timeout: 30s");
        int fd = lease(&s, &grant);
        put(fd, "SUBSCRIBE c\r\n", 13);
        take(fd, strlen("*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"));
        redis_say(&s.h.redis, "PUBLISH c news");
        check_soon(waiting_bytes(fd) > 0, RAW_MS);
        give_back(&s, &grant, LESSOR_RETURN_RESETTABLE, 1, 1);
        close(fd);
        check_next(&s, 0);
        check_figure(&s.h.broker, "main", resets, 1);
        scene_end(&s);
}

TEST(handover_hostile, messages_that_pile_up_beyond_a_bound_are_not_read) {
        struct scene s;
        struct lessor_msg_grant grant;
        char *large = malloc(100001);
        check(large);
        memset(large, 'x', 100000);
        large[100000] = 0;

        scene_start(&s, "max_connections: 1, wait_timeout: 30s");
        int fd = lease(&s, &grant);
        put(fd, "SUBSCRIBE c\r\n", 13);
        take(fd, strlen("*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"));
        redis_say(&s.h.redis, "PUBLISH c %s", large);
        check_soon(waiting_bytes(fd) > 65536, RAW_MS);
        give_back(&s, &grant, LESSOR_RETURN_RESETTABLE, 1, 1);
        close(fd);
        check_next(&s, 0);
        check_figure(&s.h.broker, "main", discards_reset, 1);
        free(large);
        scene_end(&s);
}

/* ---- a broker that is not to wait ------------------------------------------------------------------------------------ */

static void make_blocking(int fd) { check_eq(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK), 0); }

TEST(handover_hostile, a_reset_that_hangs_is_a_close_in_time_and_blocks_nobody) {
        struct scene s;
        struct lessor_msg_grant grant;

        scene_start(&s, "max_connections: 1, wait_timeout: 30s, socket_connect_timeout: 1s");
        int fd = lease(&s, &grant);
        put(fd, SELECT_REQUEST, sizeof(SELECT_REQUEST) - 1);
        take(fd, 5);
        redis_pause(&s.h.redis);
        make_blocking(fd);
        close(fd);
        give_back(&s, &grant, LESSOR_RETURN_RESETTABLE, 1, 1);
        check_figure_soon(&s.h.broker, "main", resetting_connections, 1, 5000);
        /* The thread that resets answers: he who does not wait hears so while the reset hangs. */
        check_eq(raw_lease(s.session, 0, 0, &grant), -LESSOR_E_EXHAUSTED);
        check_figure_soon(&s.h.broker, "main", discards_reset, 1, 10000);
        check_figure(&s.h.broker, "main", resets, 0);
        check(broker_figures_now(&s.h.broker, "main").peak_connections <= 1);
        redis_resume(&s.h.redis);
        check_next(&s, 0);
        scene_end(&s);
}

TEST(handover_hostile, a_cleared_nonblock_does_not_block_the_broker) {
        struct scene s;
        struct lessor_msg_grant grant;

        scene_start(&s, "max_connections: 1, wait_timeout: 30s");
        for (unsigned i = 0; i < 20; i++) {
                int fd = lease(&s, &grant);
                put(fd, SELECT_REQUEST, sizeof(SELECT_REQUEST) - 1);
                take(fd, 5);
                make_blocking(fd);
                close(fd);
                give_back(&s, &grant, LESSOR_RETURN_RESETTABLE, 1, 1);
                check_next(&s, i);
        }
        check_figure(&s.h.broker, "main", resets, 20);
        check_figure(&s.h.broker, "main", created_connections, 1);
        scene_end(&s);
}

TEST(handover_hostile, redis_dying_during_a_reset_is_a_close) {
        struct scene s;
        struct lessor_msg_grant grant;

        scene_start(&s, "max_connections: 1, wait_timeout: 30s, retry_base: 100ms, retry_max: 200ms");
        int fd = lease(&s, &grant);
        put(fd, SELECT_REQUEST, sizeof(SELECT_REQUEST) - 1);
        take(fd, 5);
        redis_pause(&s.h.redis);
        close(fd);
        give_back(&s, &grant, LESSOR_RETURN_RESETTABLE, 1, 1);
        check_figure_soon(&s.h.broker, "main", resetting_connections, 1, 5000);
        redis_kill(&s.h.redis);
        check_figure_soon(&s.h.broker, "main", open_connections, 0, 10000);
        struct lessor_status_database d = broker_figures_now(&s.h.broker, "main");
        check_eq(d.discards_lost + d.discards_reset, 1);
        redis_restart(&s.h.redis);
        freeReplyObject(client_command(s.db, "PING"));
        scene_end(&s);
}

/* ---- those who keep a dup -------------------------------------------------------------------------------------------- */

#define SECRET "hunter2-is-the-word"

struct thief {
        int fd; /* the dup */
        _Atomic bool end;
        char loot[1 << 20];
        size_t size;
};

/* Reads whatever comes, and writes what would make Redis show what follows it. */
static void *steal(void *arg) {
        static const char echo[] = "*2\r\n$4\r\nECHO\r\n$60\r\n";
        struct thief *t = arg;
        while (!atomic_load(&t->end)) {
                struct pollfd readable = {.fd = t->fd, .events = POLLIN};
                (void)send(t->fd, echo, sizeof(echo) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (poll(&readable, 1, 1) <= 0 || t->size == sizeof(t->loot))
                        continue;
                ssize_t n = recv(t->fd, t->loot + t->size, sizeof(t->loot) - t->size, MSG_DONTWAIT);
                t->size += n > 0 ? (size_t)n : 0;
        }
        return NULL;
}

static void check_no_key_holds_it(struct redis *r) {
        for (int db = 0; db < 16; db++) {
                redis_say(r, "SELECT %d", db);
                redisReply *keys = redis_ask(r, "KEYS *");
                for (size_t i = 0; i < keys->elements; i++) {
                        redisReply *value = redis_ask(r, "GET %s", keys->element[i]->str);
                        check(!strstr(keys->element[i]->str, SECRET));
                        check(!value->str || !memmem(value->str, value->len, SECRET, strlen(SECRET)));
                        freeReplyObject(value);
                }
                freeReplyObject(keys);
        }
        redis_say(r, "SELECT 0");
}

struct monitor {
        redisContext *context;
        struct thief seen;
};

static void *listen_to(void *arg) {
        struct monitor *m = arg;
        while (!atomic_load(&m->seen.end)) {
                struct pollfd readable = {.fd = m->context->fd, .events = POLLIN};
                if (poll(&readable, 1, 10) <= 0 || m->seen.size == sizeof(m->seen.loot))
                        continue;
                ssize_t n = recv(m->context->fd, m->seen.loot + m->seen.size, sizeof(m->seen.loot) - m->seen.size,
                                 MSG_DONTWAIT);
                m->seen.size += n > 0 ? (size_t)n : 0;
        }
        return NULL;
}

static void monitor_start(struct monitor *m, struct redis *r, pthread_t *ret) {
        m->context = redisConnectUnix(r->socket);
        check(m->context && !m->context->err);
        freeReplyObject(redisCommand(m->context, "AUTH " SECRET));
        freeReplyObject(redisCommand(m->context, "MONITOR"));
        check_eq(pthread_create(ret, NULL, listen_to, m), 0);
}

/* One round: state left on it, half a request that would take what follows for its value, a dup in a thief's hands. */
static void rob(struct broker *b, lessor_db *db, struct thief *t, unsigned round, bool contained) {
        static const char half[] = "*3\r\n$3\r\nSET\r\n$5\r\nstole\r\n$60\r\n";
        struct lessor_msg_grant grant;
        pthread_t thread;
        lessor_error e = {0};
        int session = raw_attach(b->socket, 0, NULL), fd = raw_lease(session, 0, WAIT_NS, &grant);
        check(fd >= 0);
        put(fd, SELECT_REQUEST, sizeof(SELECT_REQUEST) - 1);
        take(fd, 5);
        if (round % 2)
                put(fd, half, sizeof(half) - 1);
        t->fd = fd;
        atomic_store(&t->end, false);
        check_eq(pthread_create(&thread, NULL, steal, t), 0);
        struct lessor_msg_return m = raw_return_message(&grant, LESSOR_RETURN_RESETTABLE);
        m.requests = m.replies = 1;
        check_eq(raw_say(session, &m), 0);
        redisReply *reply = lessor_command(db, &e, "ECHO %u", round);
        if (contained) {
                check_msg(reply && reply->type == REDIS_REPLY_STRING, "%s", e.text);
                check_eq((unsigned)atoi(reply->str), round);
        }
        freeReplyObject(reply);
        atomic_store(&t->end, true);
        pthread_join(thread, NULL);
        close(fd);
        close(session);
}

static void check_secret_kept(const char *handover) {
        struct redis_options options = {.password = SECRET};
        struct redis r;
        struct broker b;
        struct thief *t = calloc(1, sizeof(*t));
        struct monitor *m = calloc(1, sizeof(*m));
        pthread_t listener;

        check(t && m);
        redis_start(&r, &options);
        broker_start(&b, "databases: {main: {%s, password: %s, max_connections: 1, wait_timeout: 30s, handover: %s}}\n",
                     redis_address(&r), SECRET, handover);
        monitor_start(m, &r, &listener);
        lessor *l = client_open(&b);
        lessor_db *db = client_database(l, NULL);
        for (unsigned round = 0; round < 40; round++)
                rob(&b, db, t, round, true);
        lessor_close(l);
        atomic_store(&m->seen.end, true);
        pthread_join(listener, NULL);
        redisFree(m->context);
        check(!memmem(t->loot, t->size, SECRET, strlen(SECRET)));
        check(m->seen.size > 0 && !memmem(m->seen.loot, m->seen.size, SECRET, strlen(SECRET)));
        check_no_key_holds_it(&r);
        check_figure(&b, "main", resets, 0);
        check_figure(&b, "main", discards_reset, 0); /* not even begun */
        check_eq(broker_log_has(&b, "with a password would send it"), strcmp(handover, "reset") == 0);
        check_settled(&b, &r);
        broker_free(&b);
        redis_stop(&r);
        free(t);
        free(m);
}

TEST(handover_hostile, no_password_goes_over_a_socket_that_somebody_kept) { check_secret_kept("auto"); }

TEST(handover_hostile, asking_for_resets_does_not_send_the_password_either) { check_secret_kept("reset"); }

/*
 * Without a password a pool's users share its sockets, and who keeps a dup can disturb whoever comes after him. The broker
 * he cannot disturb: it answers, keeps the cap, and all is well when he has gone.
 */
TEST_WITH(handover_hostile, a_thief_at_a_reset_disturbs_no_books, .timeout = 120) {
        struct scene s;
        struct thief *t = calloc(1, sizeof(*t));

        check(t);
        scene_start(&s, "max_connections: 1, wait_timeout: 30s, socket_connect_timeout: 100ms, socket_timeout: 200ms");
        for (unsigned round = 0; round < 40; round++)
                rob(&s.h.broker, s.db, t, round, false);
        check(broker_figures_now(&s.h.broker, "main").peak_connections <= 1);
        freeReplyObject(lessor_command(s.db, NULL, "PING")); /* on what he may have spoilt: it goes with this */
        check_next(&s, 0);
        free(t);
        scene_end(&s);
}

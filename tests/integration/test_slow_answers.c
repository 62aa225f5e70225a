/* SPDX-License-Identifier: MIT */
/*
 * Answers that come a byte at a time. As long as they are whole in time they are answers, in every exchange there is; when
 * they are not, no byte that comes buys any more time: each wait has one deadline, whatever arrives meanwhile.
 */
#include <poll.h>
#include <sys/socket.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"
#include "support/raw.h"
#include "support/relay.h"

#define LONG_VALUE "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

/* So slow that no answer below is whole within 300 ms, so fast that bytes never stop coming. */
enum { WAIT_MS = 50000, FAST_US = 200, SLOW_US = 60000 };

struct slow {
        struct redis redis;
        struct relay relay;
        struct broker broker;
        lessor *l;
        lessor_db *db;
};

/* On a busy machine a byte may take its time. */
#define PATIENT "socket_connect_timeout: 100s, socket_timeout: 100s"

static void start(struct slow *s, const char *keys) {
        redis_start(&s->redis, NULL);
        relay_start(&s->relay, s->redis.socket);
        broker_start(&s->broker, "databases: {main: {unix_socket: %s, %s}}\n", s->relay.path, keys);
        s->l = client_open(&s->broker);
        s->db = client_database(s->l, NULL);
}

static void pace(struct slow *s, unsigned us) { atomic_store(&s->relay.manner->pace_us, us); }

static void end(struct slow *s) {
        lessor_close(s->l);
        broker_free(&s->broker);
        relay_end(&s->relay);
        redis_stop(&s->redis);
}

static struct lessor_status_database figures(struct slow *s) { return broker_figures_now(&s->broker, "main"); }

/* A worker without words: what he gives back is the broker's again, and not parked with him. */
static void lease_and_return(struct slow *s, const char *request, size_t answer, uint32_t flags) {
        struct lessor_msg_grant grant;
        char data[256];
        int fd = raw_attach(s->broker.socket, 0, NULL), lease = raw_lease(fd, 0, UINT64_C(20000000000), &grant);
        check(fd >= 0 && lease >= 0);
        check_eq(send(lease, request, strlen(request), MSG_NOSIGNAL), strlen(request));
        while (answer > 0) {
                struct pollfd p = {.fd = lease, .events = POLLIN};
                check(poll(&p, 1, WAIT_MS) == 1);
                ssize_t n = recv(lease, data, answer < sizeof(data) ? answer : sizeof(data), MSG_DONTWAIT);
                check(n > 0);
                answer -= (size_t)n;
        }
        struct lessor_msg_return back = raw_return_message(&grant, flags);
        back.requests = back.replies = request[0] != '\0';
        check_eq(raw_say(fd, &back), 0);
        close(lease);
        check_figure_soon(&s->broker, "main", in_use_connections, 0, WAIT_MS);
        close(fd);
}

static void report_readonly(struct slow *s) {
        struct lessor_msg_grant grant;
        int fd = raw_attach(s->broker.socket, 0, NULL), lease = raw_lease(fd, 0, UINT64_C(20000000000), &grant);
        check(fd >= 0 && lease >= 0);
        struct lessor_msg_report report = {.header = {.type = LESSOR_MSG_REPORT, .size = sizeof(report)},
                                           .database = grant.database,
                                           .slot = grant.slot,
                                           .generation = grant.generation,
                                           .lease = grant.lease,
                                           .kind = LESSOR_REPORT_READONLY};
        check_eq(raw_say(fd, &report), 0);
        check_figure_soon(&s->broker, "main", reports, 1, WAIT_MS);
        close(lease);
        close(fd);
}

/* ---- whole in time -------------------------------------------------------------------------------------------------- */

TEST_WITH(slow_answers, byte_by_byte_a_handshake_and_a_held_lease_work, .timeout = 120) {
        struct slow s;
        start(&s, PATIENT ", health_check_interval: 0");
        pace(&s, FAST_US);
        freeReplyObject(client_command(s.db, "SET key " LONG_VALUE));
        client_check_string(s.db, "key", LONG_VALUE);
        check_eq(figures(&s).failed_connections, 0);
        end(&s);
}

TEST_WITH(slow_answers, byte_by_byte_health_checks_are_answered, .timeout = 120) {
        struct slow s;
        start(&s, PATIENT ", health_check_interval: 50ms, min_idle: 2");
        pace(&s, FAST_US);
        check_soon(broker_figures(&s.broker, "main").health_checks > 5, WAIT_MS);
        check_eq(figures(&s).health_checks_failed, 0);
        check_eq(figures(&s).discards_check, 0);
        end(&s);
}

TEST_WITH(slow_answers, byte_by_byte_a_demoted_server_is_found_out, .timeout = 120) {
        struct slow s;
        start(&s, PATIENT ", health_check_interval: 0, min_idle: 2, idle_check_interval: 1h");
        check_figure_soon(&s.broker, "main", available_connections, 2, WAIT_MS);
        redis_say(&s.redis, "REPLICAOF 127.0.0.1 1");
        pace(&s, FAST_US);
        report_readonly(&s);
        check_soon(broker_figures(&s.broker, "main").discards_outdated >= 1, WAIT_MS);
        check_figure(&s.broker, "main", health, LESSOR_HEALTH_DEGRADED);
        check_eq(figures(&s).health_checks_failed, 0);
        end(&s);
}

TEST_WITH(slow_answers, byte_by_byte_a_reset_proves_the_connection_clean, .timeout = 120) {
        struct slow s;
        start(&s, PATIENT ", health_check_interval: 0");
        pace(&s, FAST_US);
        lease_and_return(&s, "SELECT 3\r\n", 5, LESSOR_RETURN_RESETTABLE);
        check_figure_soon(&s.broker, "main", resets, 1, WAIT_MS);
        check_eq(figures(&s).discards_reset, 0);
        end(&s);
}

/* ---- not whole in time ------------------------------------------------------------------------------------------------ */

#define TIMES "socket_connect_timeout: 300ms, breaker_failures: 100000, retry_base: 20ms, retry_max: 50ms"

static void check_bounded(struct slow *s, uint64_t began_ms, uint64_t bytes_before) {
        check_msg(now_ms() - began_ms < 5000 * PROCESS_SLOW, "%llu ms", (unsigned long long)(now_ms() - began_ms));
        check(atomic_load(&s->relay.manner->bytes_out) > bytes_before); /* it did send, all the while */
}

TEST_WITH(slow_answers, a_handshake_that_drips_is_given_up_in_time, .timeout = 120) {
        struct slow s;
        lessor_error e = {0};
        start(&s, TIMES ", health_check_interval: 0");
        pace(&s, SLOW_US);
        uint64_t began = now_ms();
        check(!lessor_acquire(s.db, 1000, &e));
        check_msg(e.code == LESSOR_E_UPSTREAM && strstr(e.text, "in time"), "%d: %s", e.code, e.text);
        check_bounded(&s, began, 0);
        check_figure(&s.broker, "main", trouble, LESSOR_TROUBLE_SILENT);
        pace(&s, 0);
        freeReplyObject(client_command(s.db, "PING"));
        end(&s);
}

/* Held, and parked: the connection is there from before. */
static void check_drips(struct slow *s, redisReply *(*ask)(struct slow *, lessor_error *)) {
        lessor_error e = {0};
        freeReplyObject(client_command(s->db, "SET key " LONG_VALUE));
        uint64_t bytes = atomic_load(&s->relay.manner->bytes_out), began = now_ms();
        redisReply *reply = ask(s, &e);
        check(!reply);
        check_msg(e.code == LESSOR_E_REPLY_TIMEOUT, "%d: %s", e.code, e.text);
        check(e.may_have_run);
        check_bounded(s, began, bytes);
        pace(s, 0);
        client_check_string(s->db, "key", LONG_VALUE);
}

static redisReply *ask_held(struct slow *s, lessor_error *e) {
        lessor_lease *lease = lessor_acquire(s->db, WAIT_MS, e);
        check(lease);
        pace(s, SLOW_US);
        redisReply *reply = lessor_lease_command(lease, e, "GET key");
        lessor_release(lease);
        return reply;
}

static redisReply *ask_parked(struct slow *s, lessor_error *e) {
        check_figure_soon(&s->broker, "main", parked_connections, 1, WAIT_MS);
        pace(s, SLOW_US);
        return lessor_command(s->db, e, "GET key");
}

static redisReply *ask_pinned(struct slow *s, lessor_error *e) {
        lessor_lease *lease = lessor_acquire_pinned(s->db, WAIT_MS, e);
        check(lease);
        pace(s, SLOW_US);
        redisReply *reply = lessor_lease_command(lease, e, "GET key");
        lessor_release(lease);
        return reply;
}

static void check_lease_drips(redisReply *(*ask)(struct slow *, lessor_error *)) {
        struct slow s;
        start(&s, TIMES ", socket_timeout: 300ms, health_check_interval: 0");
        check_drips(&s, ask);
        end(&s);
}

TEST(slow_answers, a_held_lease_whose_answer_drips_times_out_in_time) { check_lease_drips(ask_held); }
TEST(slow_answers, a_parked_connection_whose_answer_drips_times_out_in_time) { check_lease_drips(ask_parked); }
TEST(slow_answers, a_pinned_lease_whose_answer_drips_times_out_in_time) { check_lease_drips(ask_pinned); }

TEST_WITH(slow_answers, a_health_check_whose_answer_drips_fails_in_time, .timeout = 120) {
        struct slow s;
        start(&s, TIMES ", health_check_interval: 50ms, min_idle: 1");
        check_soon(broker_figures(&s.broker, "main").health_checks > 1, WAIT_MS);
        uint64_t bytes = atomic_load(&s.relay.manner->bytes_out), began = now_ms();
        pace(&s, SLOW_US);
        check_soon(broker_figures(&s.broker, "main").discards_check >= 1, WAIT_MS);
        check_bounded(&s, began, bytes);
        check_figure(&s.broker, "main", trouble, LESSOR_TROUBLE_SILENT);
        pace(&s, 0);
        check_figure_soon(&s.broker, "main", trouble, LESSOR_TROUBLE_NONE, WAIT_MS);
        end(&s);
}

TEST_WITH(slow_answers, a_role_that_drips_fails_the_check_in_time, .timeout = 120) {
        struct slow s;
        start(&s, TIMES ", health_check_interval: 0, min_idle: 2");
        check_figure_soon(&s.broker, "main", available_connections, 2, WAIT_MS);
        uint64_t bytes = atomic_load(&s.relay.manner->bytes_out), began = now_ms();
        pace(&s, SLOW_US);
        report_readonly(&s);
        check_soon(broker_figures(&s.broker, "main").discards_check >= 1, WAIT_MS);
        check_bounded(&s, began, bytes);
        end(&s);
}

TEST_WITH(slow_answers, a_reset_whose_answer_drips_is_a_close_in_time, .timeout = 120) {
        struct slow s;
        start(&s, TIMES ", health_check_interval: 0, max_connections: 1");
        struct lessor_msg_grant grant;
        int fd = raw_attach(s.broker.socket, 0, NULL), lease = raw_lease(fd, 0, UINT64_C(20000000000), &grant);
        check(fd >= 0 && lease >= 0);
        uint64_t bytes = atomic_load(&s.relay.manner->bytes_out), began = now_ms();
        pace(&s, SLOW_US);
        struct lessor_msg_return back = raw_return_message(&grant, LESSOR_RETURN_RESETTABLE);
        check_eq(raw_say(fd, &back), 0);
        close(lease);
        check_soon(broker_figures(&s.broker, "main").discards_reset == 1, WAIT_MS);
        check_bounded(&s, began, bytes);
        check_eq(figures(&s).resets, 0);
        close(fd);
        pace(&s, 0);
        freeReplyObject(client_command(s.db, "PING"));
        end(&s);
}

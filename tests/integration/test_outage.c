/* SPDX-License-Identifier: MIT */
/* Servers that die, hang, come back and load: what callers are told, how soon, and that all recovers by itself. */
#include <errno.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"
#include "support/raw.h"
#include "support/sandbox.h"

#define QUICK "retry_base: 20ms, retry_max: 50ms, socket_connect_timeout: 200ms, breaker_failures: 3"

enum { WAIT_MS = 20000 };

static int outcome_of(lessor_db *db, int wait_ms, lessor_error *e) {
        lessor_lease *lease = lessor_acquire(db, wait_ms, e);
        if (!lease)
                return e->code;
        lessor_release(lease);
        return 0;
}

/* With min_idle there are connections from the start: their fds are not told apart from the broker's own. */
static void end_with_min_idle(struct host *h) {
        broker_stop(&h->broker);
        broker_free(&h->broker);
        redis_stop(&h->redis);
}

static void check_recovers(struct host *h, lessor_db *db) {
        check_figure_soon(&h->broker, "main", breaker_state, LESSOR_BREAKER_CLOSED, WAIT_MS);
        freeReplyObject(client_command(db, "PING"));
        check_figure_soon(&h->broker, "main", health, LESSOR_HEALTH_HEALTHY, WAIT_MS);
}

TEST(outage, a_killed_server_opens_the_breaker_and_a_restarted_one_closes_it_without_help) {
        struct host h;
        lessor_error e = {0};

        host_start(&h, QUICK);
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        freeReplyObject(client_command(db, "PING"));
        redis_kill(&h.redis);
        check_soon(outcome_of(db, WAIT_MS, &e) == LESSOR_E_BREAKER_OPEN, WAIT_MS);
        check_figure_soon(&h.broker, "main", health, LESSOR_HEALTH_FAILED, WAIT_MS); /* and degraded while it probes */
        struct lessor_status_database d = broker_figures_now(&h.broker, "main");
        check(strstr(d.reason, "breaker") && strstr(d.reason, strerror(ECONNREFUSED)));
        check_eq(d.breaker_trips, 1);
        check(d.breaker_opened_at > d.last_success_time);
        uint64_t began = now_ms();
        for (unsigned i = 0; i < 1000; i++) {
                check_eq(outcome_of(db, WAIT_MS, &e), LESSOR_E_BREAKER_OPEN);
                check(e.retry_ms > 0 && !e.may_have_run);
                check_msg(strstr(e.text, strerror(ECONNREFUSED)), "%s", e.text);
        }
        check_msg(now_ms() - began < 1000 * PROCESS_SLOW, "%llu ms", (unsigned long long)(now_ms() - began));
        redis_restart(&h.redis);
        check_recovers(&h, db);
        check_figure(&h.broker, "main", breaker_trips, 1);
        check_figure(&h.broker, "main", breaker_opened_at, 0);
        lessor_close(l);
        host_end(&h);
}

static int told_at_once(unsigned index, void *arg) {
        struct broker *b = arg;
        lessor_error e = {0};
        lessor *l = client_open(b);
        lessor_db *db = client_database(l, NULL);
        int code = outcome_of(db, 600000, &e);
        lessor_close(l);
        return code == LESSOR_E_BREAKER_OPEN ? 0 : 1;
}

TEST(outage, all_who_wait_are_told_when_the_breaker_opens) {
        struct host h;

        host_start(&h, QUICK ", retry_attempts: 1000");
        redis_kill(&h.redis);
        check_eq(workers_run(20, told_at_once, &h.broker, WAIT_MS), 20);
        redis_restart(&h.redis);
        check_figure_soon(&h.broker, "main", breaker_state, LESSOR_BREAKER_CLOSED, WAIT_MS);
        host_end(&h);
}

TEST(outage, a_hung_server_is_noticed_by_health_checks_though_nobody_asks) {
        struct host h;
        lessor_error e = {0};

        host_start(&h, QUICK ", health_check_interval: 50ms, min_idle: 2");
        check_figure_soon(&h.broker, "main", available_connections, 2, WAIT_MS);
        check_soon(broker_figures(&h.broker, "main").health_checks > 3, WAIT_MS);
        check_figure(&h.broker, "main", health_checks_failed, 0);
        redis_pause(&h.redis);
        check_soon(broker_figures(&h.broker, "main").breaker_trips == 1, WAIT_MS);
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        check_eq(outcome_of(db, WAIT_MS, &e), LESSOR_E_BREAKER_OPEN);
        redis_resume(&h.redis);
        check_recovers(&h, db);
        check_soon(broker_figures(&h.broker, "main").available_connections >= 2, WAIT_MS); /* and what we have parked */
        lessor_close(l);
        end_with_min_idle(&h);
}

static void check_held_leases_fail_in_time(struct host *h, lessor_db *db) {
        lessor_error e = {0};
        lessor_lease *lease = lessor_acquire(db, WAIT_MS, &e);
        check_msg(lease, "%s", e.text);
        redis_pause(&h->redis);
        uint64_t began = now_ms();
        check(!lessor_lease_command(lease, &e, "PING"));
        check_eq(e.code, LESSOR_E_REPLY_TIMEOUT);
        check(e.may_have_run);
        check(now_ms() - began < 5000 * PROCESS_SLOW);
        lessor_release(lease);
}

TEST(outage, a_hung_server_is_noticed_by_what_workers_report) {
        struct host h;

        host_start(&h, QUICK ", socket_timeout: 200ms, health_check_interval: 0");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        check_held_leases_fail_in_time(&h, db);
        check_soon(broker_figures(&h.broker, "main").breaker_trips == 1, WAIT_MS); /* nobody asks for anything */
        redis_resume(&h.redis);
        check_recovers(&h, db);
        lessor_close(l);
        host_end(&h);
}

struct asker {
        struct broker *broker;
        struct stage asking;
        bool idempotent;
};

static int asks_a_hung_server(unsigned index, void *arg) {
        const char *get[] = {"GET", "key"};
        struct asker *a = arg;
        lessor_error e = {0};
        lessor *l = client_open(a->broker);
        lessor_db *db = client_database(l, NULL);
        redisReply *reply = lessor_command(db, &e, "SET key value");
        child_check(reply);
        freeReplyObject(reply);
        stage_advance(&a->asking);
        child_check(stage_reached(&a->asking, 2, WAIT_MS));
        reply = a->idempotent ? lessor_command_idempotent(db, WAIT_MS, 2, get, NULL, &e)
                              : lessor_command_argv(db, WAIT_MS, 2, get, NULL, &e);
        if (a->idempotent)
                child_check(reply && reply->type == REDIS_REPLY_STRING && strcmp(reply->str, "value") == 0);
        else
                child_check(!reply && e.code == LESSOR_E_REPLY_TIMEOUT && e.may_have_run);
        freeReplyObject(reply);
        lessor_close(l);
        return 0;
}

static void check_asked_of_a_hung_server(bool idempotent) {
        struct asker *a = shared_memory(sizeof(*a));
        struct workers workers;
        struct host h;
        host_start(&h, "socket_timeout: 200ms, breaker_failures: 100000, retry_base: 20ms, retry_max: 50ms");
        a->broker = &h.broker;
        a->idempotent = idempotent;
        workers_start(&workers, 1, asks_a_hung_server, a);
        check(stage_reached(&a->asking, 1, WAIT_MS));
        redis_pause(&h.redis);
        stage_advance(&a->asking);
        check_figure_soon(&h.broker, "main", timeouts, 1, WAIT_MS);
        redis_resume(&h.redis);
        check_eq(workers_wait(&workers, WAIT_MS), 1);
        check_figure_soon(&h.broker, "main", health, LESSOR_HEALTH_HEALTHY, WAIT_MS);
        host_end(&h);
}

TEST(outage, what_may_have_run_is_not_sent_again) { check_asked_of_a_hung_server(false); }
TEST(outage, what_the_caller_calls_idempotent_is) { check_asked_of_a_hung_server(true); }

TEST(outage, ten_thousand_forged_reports_neither_trip_nor_drain) {
        enum { REPORTS = 10000 };
        struct host h;
        struct lessor_msg_grant grant;

        host_start(&h, "breaker_failures: 1, max_connections: 3, health_check_interval: 0");
        int fd = raw_attach(h.broker.socket, 0, NULL);
        int lease = raw_lease(fd, 0, UINT64_C(20000000000), &grant);
        check(fd >= 0 && lease >= 0);
        uint64_t began = now_ms();
        for (unsigned i = 0; i < REPORTS; i++) {
                struct lessor_msg_report report = {
                        .header = {.type = LESSOR_MSG_REPORT, .size = sizeof(report)},
                        .database = grant.database,
                        .slot = grant.slot,
                        .generation = grant.generation,
                        .lease = grant.lease,
                        .kind = 1 + i % LESSOR_REPORT_LOADING,
                        .error = ECONNRESET,
                };
                check_eq(raw_say(fd, &report), 0);
        }
        check_figure_soon(&h.broker, "main", reports, REPORTS, WAIT_MS);
        struct lessor_status_database d = broker_figures_now(&h.broker, "main");
        uint64_t seconds = (now_ms() - began) / 1000 + 2;
        check_eq(d.breaker_trips, 0);
        check_eq(d.breaker_failures, 0);
        check_msg(d.health_checks + d.created_connections <= 1 + seconds, "%llu looks",
                  (unsigned long long)(d.health_checks + d.created_connections));
        check_eq(d.discards_outdated + d.discards_check + d.discards_lost, 0);
        check_eq(d.in_use_connections, 1);
        close(lease);
        close(fd);
        check_figure_soon(&h.broker, "main", in_use_connections, 0, WAIT_MS);
        host_end(&h);
}

/* ---- a server that is not what it should be: see test_refusals, too ------------------------------------------------------ */

TEST(outage, a_demoted_server_is_asked_and_its_connections_are_replaced) {
        struct redis master;
        struct host h;
        lessor_error e = {0};

        redis_start(&master, &(struct redis_options){.tcp = true});
        host_start(&h, "idle_check_interval: 100ms, retry_base: 100ms, retry_max: 500ms");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        freeReplyObject(client_command(db, "SET k v"));
        redis_say(&h.redis, "REPLICAOF 127.0.0.1 %u", master.port);
        redisReply *reply = lessor_command(db, &e, "SET k v");
        check(reply && reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "READONLY", 8) == 0);
        freeReplyObject(reply);
        check_soon(broker_figures(&h.broker, "main").discards_outdated >= 1, WAIT_MS);
        check_figure_soon(&h.broker, "main", health, LESSOR_HEALTH_DEGRADED, WAIT_MS);
        check(strstr(broker_figures_now(&h.broker, "main").reason, "replica"));
        redis_say(&h.redis, "REPLICAOF NO ONE");
        check_figure_soon(&h.broker, "main", health, LESSOR_HEALTH_HEALTHY, WAIT_MS);
        check(broker_figures_now(&h.broker, "main").discards_outdated <
              20); /* replaced, not replaced again and again */
        lessor_close(l);
        host_end(&h);
        redis_stop(&master);
}

/* ---- a restart ------------------------------------------------------------------------------------------------------ */

enum { WORKERS = 200, DIALS_PER_100_MS = 100 };

struct restart {
        struct broker *broker;
        struct stage working, over;
};

static int works_through_a_restart(unsigned index, void *arg) {
        struct restart *r = arg;
        lessor_error e = {0};
        lessor *l = client_open(r->broker);
        lessor_db *db = client_database(l, NULL);
        unsigned after = 0;
        bool told = false;

        while (after < 3) {
                bool over = atomic_load(&r->over.count) > 0;
                redisReply *reply = lessor_command(db, &e, "INCR calls");
                /* What was under way when it died may break; nobody who waited is sent away. */
                if (!reply && e.code != LESSOR_E_CONNECTION) {
                        fprintf(stderr, "worker %u: %d %s\n", index, e.code, e.text);
                        return 1;
                }
                if (reply && !told)
                        stage_advance(&r->working);
                told = told || reply;
                after += reply && over;
                freeReplyObject(reply);
        }
        lessor_close(l);
        return 0;
}

/* In the whole run no more attempts to connect are begun in any 100 ms than the limit. */
static void check_restart(unsigned max_connections) {
        char keys[128];
        struct host h;
        struct workers workers;
        struct restart *r = shared_memory(sizeof(*r));

        /* The time a caller waits by default. */
        snprintf(keys, sizeof(keys), "max_connections: %u, wait_timeout: %us, socket_timeout: %us", max_connections,
                 5 * PROCESS_SLOW, 5 * PROCESS_SLOW);
        host_start(&h, keys);
        r->broker = &h.broker;
        workers_start(&workers, WORKERS, works_through_a_restart, r);
        check(stage_reached(&r->working, WORKERS, WAIT_MS));
        redis_restart(&h.redis);
        stage_advance(&r->over);
        check_eq(workers_wait(&workers, 60000), WORKERS);
        struct lessor_status_database d = broker_figures_now(&h.broker, "main");
        check_eq(d.breaker_trips, 0);
        check(d.peak_connections <= d.max_connections);
        check_msg(d.peak_dial_rate >= 1 && d.peak_dial_rate <= DIALS_PER_100_MS, "%llu dials within 100 ms",
                  (unsigned long long)d.peak_dial_rate);
        host_end(&h);
}

TEST_WITH(outage, a_restart_under_two_hundred_workers_trips_nothing_and_fails_nobody_who_waits, .timeout = 120) {
        check_restart(20);
}

/* With a place for each of them all dial at once, as soon as the first has found that the server is there again. */
TEST_WITH(outage, a_restart_under_two_hundred_workers_with_a_place_each_is_no_storm_of_dials, .timeout = 120) {
        check_restart(250);
}

/* ---- idleness and age ----------------------------------------------------------------------------------------------- */

TEST(outage, idle_connections_are_closed_down_to_min_idle) {
        enum { LEASES = 4 };
        struct host h;
        lessor_lease *leases[LEASES];
        lessor_error e = {0};

        host_start(&h, "idle_timeout: 200ms, idle_check_interval: 100ms, min_idle: 1");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        for (unsigned i = 0; i < LEASES; i++)
                check((leases[i] = lessor_acquire(db, WAIT_MS, &e)));
        for (unsigned i = 0; i < LEASES; i++)
                lessor_release(leases[i]);
        lessor_close(l); /* what a worker keeps to itself is not idle */
        check_figure_soon(&h.broker, "main", discards_idle, LEASES, WAIT_MS);
        check_figure_soon(&h.broker, "main", open_connections, 1, WAIT_MS);
        struct lessor_status_database d = broker_figures_now(&h.broker, "main");
        check(d.last_cleanup > 0);
        check_eq(d.health, LESSOR_HEALTH_HEALTHY);
        end_with_min_idle(&h);
}

TEST(outage, an_old_connection_is_replaced_when_it_is_not_in_use) {
        struct host h;

        host_start(&h, "max_lifetime: 300ms, min_idle: 2, max_connections: 4");
        check_figure_soon(&h.broker, "main", available_connections, 2, WAIT_MS);
        check_soon(broker_figures(&h.broker, "main").discards_age >= 4, WAIT_MS);
        check_soon(broker_figures(&h.broker, "main").reconnections >= 4, WAIT_MS);
        check_figure(&h.broker, "main", breaker_failures, 0);
        end_with_min_idle(&h);
}

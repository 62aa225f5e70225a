/* SPDX-License-Identifier: MIT */
/* What an operator orders, happens: each command of `lessor`, the broker and a redis-server as they are. */
#include <jansson.h>

#include "support/check.h"
#include "support/host.h"
#include "support/orders.h"
#include "support/process.h"
#include "support/sandbox.h"

enum { WAIT_MS = 20000 };

struct scene {
        struct host h;
        lessor *l;
        lessor_db *db;
};

static void begin(struct scene *s, const char *keys) {
        host_start(&s->h, keys);
        s->l = client_open(&s->h.broker);
        s->db = client_database(s->l, NULL);
}

static void end(struct scene *s) {
        lessor_close(s->l);
        host_end(&s->h);
}

static lessor_lease *acquire(struct scene *s) {
        lessor_error e = {0};
        lessor_lease *lease = lessor_acquire(s->db, WAIT_MS, &e);
        check_msg(lease, "%s", e.text);
        return lease;
}

static int waits_and_is_served(unsigned index, void *arg) {
        struct scene *s = arg;
        lessor_error e = {0};
        lessor *l = client_open(&s->h.broker);
        lessor_lease *lease = lessor_acquire(client_database(l, NULL), WAIT_MS, &e);
        if (!lease)
                fprintf(stderr, "worker %u: %s\n", index, e.text);
        lessor_release(lease);
        lessor_close(l);
        return lease ? 0 : 1;
}

/* ---- pause, resume ------------------------------------------------------------------------------------------------- */

TEST(admin, a_pause_lets_holders_go_on_and_those_who_wait_wait_until_it_ends) {
        struct workers workers;
        struct scene s;
        lessor_error e = {0};
        begin(&s, "max_connections: 3");
        lessor_lease *held = acquire(&s);
        check_order(&s.h.broker, 0, "`main` is paused: 1 lease", "pause", "main", "--why", "a new Redis", NULL);
        freeReplyObject(lessor_lease_command(held, &e, "PING"));
        check_msg(e.code == 0, "%s", e.text);
        workers_start(&workers, 4, waits_and_is_served, &s);
        check_figure_soon(&s.h.broker, "main", waiting, 4, WAIT_MS);
        lessor_release(held);
        check_figure_soon(&s.h.broker, "main", available_connections, 1, WAIT_MS);
        check_figure(&s.h.broker, "main", waiting, 4); /* though one is free */
        check_figure(&s.h.broker, "main", paused, LESSOR_PAUSED_PAUSED);
        check(broker_figures(&s.h.broker, "main").paused_at != 0);
        check_order(&s.h.broker, 1, "a new Redis", "health", NULL);
        check_order(&s.h.broker, 0, "`main` serves again", "resume", "main", NULL);
        check_eq(workers_wait(&workers, WAIT_MS), 4);
        check_figure_soon(&s.h.broker, "main", health, LESSOR_HEALTH_HEALTHY, WAIT_MS);
        check_figure(&s.h.broker, "main", paused, LESSOR_PAUSED_NOT);
        check_order(&s.h.broker, 0, "was not paused", "resume", "main", NULL);
        end(&s);
}

TEST(admin, who_waits_in_a_pause_is_told_so_at_his_deadline) {
        struct scene s;
        lessor_error e = {0};
        begin(&s, "max_connections: 3");
        lessor_release(acquire(&s)); /* a parked connection is none to be had either */
        check_eq(order(&s.h.broker, NULL, "pause", "main", "--why", "upgrade", NULL), 0);
        check(!lessor_acquire(s.db, 200, &e));
        check_eq(e.code, LESSOR_E_TIMEOUT);
        check_msg(strstr(e.text, "paused by uid ") && strstr(e.text, "upgrade"), "%s", e.text);
        check(!lessor_acquire(s.db, 0, &e));
        check_eq(e.code, LESSOR_E_EXHAUSTED);
        check_msg(strstr(e.text, "paused by uid "), "%s", e.text);
        check_eq(order(&s.h.broker, NULL, "resume", "main", NULL), 0);
        freeReplyObject(client_command(s.db, "PING"));
        end(&s);
}

TEST(admin, redis_may_be_restarted_in_a_pause_and_nobody_fails) {
        struct workers workers;
        struct scene s;
        begin(&s, "max_connections: 3, breaker_failures: 1");
        freeReplyObject(client_command(s.db, "PING"));
        check_eq(order(&s.h.broker, NULL, "pause", "main", NULL), 0);
        workers_start(&workers, 8, waits_and_is_served, &s);
        check_figure_soon(&s.h.broker, "main", waiting, 8, WAIT_MS);
        redis_kill(&s.h.redis);
        check_figure_soon(&s.h.broker, "main", open_connections, 0, WAIT_MS);
        redis_restart(&s.h.redis);
        check_eq(order(&s.h.broker, NULL, "resume", "main", NULL), 0);
        check_eq(workers_wait(&workers, WAIT_MS), 8);
        check_figure(&s.h.broker, "main", breaker_trips, 0);
        check_figure(&s.h.broker, "main", failed_connections, 0);
        end(&s);
}

/* ---- drain, reconnect ---------------------------------------------------------------------------------------------- */

TEST(admin, a_drain_closes_each_connection_as_it_comes_back_and_stays_closed) {
        struct workers worker;
        struct scene s;
        begin(&s, "max_connections: 3");
        lessor_lease *one = acquire(&s), *two = acquire(&s);
        lessor_release(one); /* parked */
        check_order(&s.h.broker, 0, "`main` is drained: of 2 connections 1 is closed now, 1 as it comes back", "drain",
                    "main", NULL);
        check_figure_soon(&s.h.broker, "main", open_connections, 1, WAIT_MS);
        check_figure(&s.h.broker, "main", paused, LESSOR_PAUSED_DRAINING);
        workers_start(&worker, 1, waits_and_is_served, &s);
        lessor_release(two);
        check_figure_soon(&s.h.broker, "main", paused, LESSOR_PAUSED_DRAINED, WAIT_MS);
        check_figure_soon(&s.h.broker, "main", waiting, 1, WAIT_MS);
        check_figure(&s.h.broker, "main", open_connections, 0);
        check_eq(redis_connections(&s.h.redis, broker_client_name(&s.h.broker, "main")), 0);
        check_eq(order(&s.h.broker, NULL, "resume", "main", NULL), 0);
        check_eq(workers_wait(&worker, WAIT_MS), 1);
        check_figure(&s.h.broker, "main", discards_outdated, 2);
        end(&s);
}

TEST(admin, a_reconnect_replaces_every_connection_and_disturbs_no_holder) {
        struct scene s;
        lessor_error e = {0};
        begin(&s, "max_connections: 3");
        lessor_lease *one = acquire(&s), *two = acquire(&s);
        lessor_release(one);
        check_order(&s.h.broker, 0, "of `main`'s 2 connections 1 is replaced now, 1 as it comes back", "reconnect",
                    "main", NULL);
        check_figure_soon(&s.h.broker, "main", discards_outdated, 1, WAIT_MS);
        freeReplyObject(lessor_lease_command(two, &e, "PING"));
        check_msg(e.code == 0, "%s", e.text);
        lessor_release(two);
        check_figure_soon(&s.h.broker, "main", discards_outdated, 2, WAIT_MS);
        freeReplyObject(client_command(s.db, "PING"));
        end(&s);
}

/* ---- the breaker --------------------------------------------------------------------------------------------------- */

TEST(admin, a_breaker_opened_by_hand_refuses_until_it_is_closed_by_hand) {
        struct scene s;
        lessor_error e = {0};
        begin(&s, "max_connections: 3, health_check_interval: 100ms");
        lessor_lease *held = acquire(&s);
        check_order(&s.h.broker, 0, "is open until", "breaker", "open", "main", "--why", "not today", NULL);
        freeReplyObject(lessor_lease_command(held, &e, "PING"));
        check_msg(e.code == 0, "%s", e.text);
        lessor_release(held);
        uint64_t calls = 0;
        for (uint64_t until = now_ms() + 500; now_ms() < until; calls++) {
                check(!lessor_acquire(s.db, WAIT_MS, &e));
                check_eq(e.code, LESSOR_E_BREAKER_OPEN);
                check_msg(strstr(e.text, "not today"), "%s", e.text);
        }
        check_figure(&s.h.broker, "main", breaker_state, 1);
        check_figure(&s.h.broker, "main", breaker_trips, 0);
        check_order(&s.h.broker, 2, "not today", "health", NULL);
        check_order(&s.h.broker, 0, "is closed (it was open", "breaker", "close", "main", NULL);
        freeReplyObject(client_command(s.db, "PING"));
        check_figure_soon(&s.h.broker, "main", health, LESSOR_HEALTH_HEALTHY, WAIT_MS);
        end(&s);
}

static bool fails_by_breaker(lessor_db *db) {
        lessor_error e = {0};
        lessor_lease *lease = lessor_acquire(db, 1000, &e);
        lessor_release(lease);
        return !lease && e.code == LESSOR_E_BREAKER_OPEN;
}

TEST(admin, a_reset_of_the_breaker_lets_the_next_request_dial_at_once) {
        struct scene s;
        begin(&s, "max_connections: 3, breaker_failures: 1, retry_base: 1h, retry_max: 1h, breaker_open_time: 1h, "
                  "breaker_early_probe: no");
        freeReplyObject(client_command(s.db, "PING"));
        redis_kill(&s.h.redis);
        check_soon(fails_by_breaker(s.db), WAIT_MS);
        redis_restart(&s.h.redis);
        check(fails_by_breaker(s.db));
        check_order(&s.h.broker, 0, "forgotten", "breaker", "reset", "main", NULL);
        freeReplyObject(client_command(s.db, "PING"));
        check_figure_soon(&s.h.broker, "main", breaker_state, 0, WAIT_MS);
        end(&s);
}

/* ---- kill ---------------------------------------------------------------------------------------------------------- */

static char *number_text(uint64_t n) {
        char *text;
        check(asprintf(&text, "%llu", (unsigned long long)n) > 0);
        return text;
}

static void check_is_cut(lessor_lease *held) {
        lessor_error e = {0};
        redisReply *reply = lessor_lease_command(held, &e, "PING");
        check_msg(!reply && e.code == LESSOR_E_CONNECTION, "%d %s", e.code, e.text);
        lessor_release(held);
}

TEST(admin, a_lease_is_cut_off_by_its_number_and_its_holder_is_named) {
        struct scene s;
        char pid[32];
        begin(&s, "max_connections: 1");
        lessor_lease *held = acquire(&s);
        char *lease = number_text(broker_connection_held(&s.h.broker).lease);
        snprintf(pid, sizeof(pid), "pid=%d", (int)getpid());
        check_order(&s.h.broker, 0, pid, "kill", "lease", "main", lease, NULL);
        check_is_cut(held);
        check_figure_soon(&s.h.broker, "main", revocations, 1, WAIT_MS);
        check_order(&s.h.broker, 1, "any more", "kill", "lease", "main", lease, NULL);
        freeReplyObject(client_command(s.db, "PING"));
        free(lease);
        end(&s);
}

TEST(admin, a_lease_is_cut_off_by_its_short_number_or_its_address) {
        struct redis r;
        struct broker b;
        redis_start(&r, &(struct redis_options){.tcp = true});
        broker_start(&b, "databases: {main: {%s}}\n", redis_address(&r));
        lessor *l = client_open(&b);
        struct scene s = {.l = l, .db = client_database(l, NULL)};
        lessor_lease *held = acquire(&s);
        check_order(&b, 0, "was cut off", "kill", "lease", "main", "1", NULL);
        check_is_cut(held);
        held = acquire(&s);
        struct lessor_status_connection c = broker_connection_held(&b);
        check_order(&b, 0, "was cut off", "kill", "lease", "--addr", c.local, NULL);
        check_is_cut(held);
        check_order(&b, 1, "lessor kill: ", "kill", "lease", "--addr", c.local, NULL);
        lessor_close(l);
        check_settled(&b, &r);
        broker_free(&b);
        redis_stop(&r);
}

TEST(admin, a_parked_lease_that_is_killed_harms_nobody) {
        struct scene s;
        begin(&s, "max_connections: 1");
        lessor_lease *held = acquire(&s);
        char *lease = number_text(broker_connection_held(&s.h.broker).lease);
        lessor_release(held);
        check_order(&s.h.broker, 0, "was parked", "kill", "lease", "main", lease, NULL);
        free(lease);
        freeReplyObject(client_command(s.db, "PING"));
        check_figure(&s.h.broker, "main", revocations, 0);
        check_figure(&s.h.broker, "main", created_connections, 1);
        end(&s);
}

TEST(admin, a_session_is_ended_by_its_number_and_its_worker_attaches_again) {
        struct scene s;
        begin(&s, "max_connections: 1");
        lessor_lease *held = acquire(&s);
        char *session = number_text(broker_connection_held(&s.h.broker).session);
        check_order(&s.h.broker, 0, "was ended", "kill", "session", session, NULL);
        check_figure_soon(&s.h.broker, "main", reclaims, 1, WAIT_MS);
        check_is_cut(held);
        check_order(&s.h.broker, 1, "any more", "kill", "session", session, NULL);
        free(session);
        freeReplyObject(client_command(s.db, "PING"));
        end(&s);
}

TEST(admin, all_sessions_of_a_process_are_ended_by_its_pid) {
        struct scene s;
        char *pid = number_text((uint64_t)getpid());
        begin(&s, "max_connections: 4");
        lessor *more[3];
        for (unsigned i = 0; i < 3; i++) {
                more[i] = client_open(&s.h.broker);
                freeReplyObject(client_command(client_database(more[i], NULL), "PING"));
        }
        freeReplyObject(client_command(s.db, "PING"));
        check_order(&s.h.broker, 0, "4 sessions of pid", "kill", "session", "--pid", pid, NULL);
        check_soon(broker_sessions(&s.h.broker) == 0, WAIT_MS);
        for (unsigned i = 0; i < 3; i++)
                lessor_close(more[i]);
        free(pid);
        end(&s);
}

/* ---- the broker ---------------------------------------------------------------------------------------------------- */

TEST(admin, a_refused_reload_says_what_is_wrong_and_where) {
        struct scene s;
        begin(&s, "max_connections: 1");
        sandbox_write(s.h.broker.config, "databases: {main: {db: 0, max_conections: 3}}\n");
        check_order(&s.h.broker, 1, "did you mean `max_connections`?", "reload", NULL);
        check_order(&s.h.broker, 1, ".yaml:1:", "reload", NULL);
        end(&s);
}

TEST(admin, the_log_level_is_set_until_the_next_reload) {
        struct scene s;
        begin(&s, "max_connections: 1");
        check(!broker_log_has(&s.h.broker, " debug "));
        check_order(&s.h.broker, 0, "the log level is debug (it was info)", "log-level", "debug", NULL);
        freeReplyObject(client_command(s.db, "PING"));
        check_soon(broker_log_has(&s.h.broker, " debug upstream: connected"), WAIT_MS);
        check_order(&s.h.broker, 0, "reloaded", "reload", NULL);
        check_order(&s.h.broker, 0, "the log level is warn (it was info)", "log-level", "warning", NULL);
        end(&s);
}

TEST(admin, an_answer_as_json_has_its_outcome_its_text_and_its_numbers) {
        struct scene s;
        char *said;
        begin(&s, "max_connections: 3");
        lessor_lease *held = acquire(&s);
        check_eq(order(&s.h.broker, &said, "pause", "main", "--json", NULL), 0);
        json_t *o = json_loads(said, 0, NULL);
        check_msg(o, "%s", said);
        check_str(json_string_value(json_object_get(o, "command")), "pause");
        check_str(json_string_value(json_object_get(o, "outcome")), "done");
        check_str(json_string_value(json_object_get(o, "database")), "main");
        check(json_is_true(json_object_get(o, "done")));
        check_eq(json_integer_value(json_object_get(o, "in_use")), 1);
        check_eq(json_integer_value(json_object_get(o, "open")), 1);
        json_decref(o);
        free(said);
        check_eq(order(&s.h.broker, &said, "resume", "mian", "--json", NULL), 1);
        o = json_loads(said, 0, NULL);
        check_msg(o && json_is_false(json_object_get(o, "done")), "%s", said);
        check_str(json_string_value(json_object_get(o, "outcome")), "no_such");
        check(strstr(json_string_value(json_object_get(o, "text")), "known are `main`"));
        json_decref(o);
        free(said);
        check_eq(order(&s.h.broker, NULL, "resume", "main", NULL), 0);
        lessor_release(held);
        end(&s);
}

TEST(admin, mistakes_are_told_and_change_nothing) {
        struct broker b;
        broker_prepare(&b, "databases: {main: {db: 0}}\n");
        check_order(&b, 64, "DATABASE is missing", "pause", NULL);
        check_order(&b, 64, "one word too many", "drain", "main", "now", NULL);
        check_order(&b, 64, "open, close or reset", "breaker", "opne", "main", NULL);
        check_order(&b, 64, "a lease or a session", "kill", "worker", NULL);
        check_order(&b, 64, "no number", "kill", "session", "0", NULL);
        check_order(&b, 64, "no number", "kill", "session", "12x", NULL);
        check_order(&b, 64, "info, warn or error", "log-level", "loud", NULL);
        check_order(&b, 2, "no broker of instance", "pause", "main", NULL);
        check_order(&b, 2, "no broker of instance", "reload", NULL);
        check_order(&b, 2, "no broker of instance", "kill", "lease", "main", "1", NULL);
        broker_free(&b);
}

/* SPDX-License-Identifier: MIT */
/*
 * A server that is there, and then the network swallows all that is sent: no refusal, no reset, no answer. In a network
 * namespace of the test's own, where the server's address leads to itself, or, when it is taken away, to nobody.
 */
#include <errno.h>
#include <sched.h>
#include <stdarg.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"

#define SERVER "10.97.9.2"

enum { WAIT_MS = 30000 };

static bool ip(const char *first, const char *second, ...) {
        const char *argv[16] = {"ip", first, second};
        unsigned n = 3;
        char *said;
        va_list args;
        va_start(args, second);
        while (n < 15 && (argv[n] = va_arg(args, const char *)))
                n++;
        va_end(args);
        bool well = program_run(argv, &said, WAIT_MS) == 0;
        free(said);
        return well;
}

/* What is not for SERVER itself goes into a cable of which nobody holds the other end. */
static void dig(void) {
        if (unshare(CLONE_NEWNET) < 0)
                test_skip("no network namespace of our own here: %s", strerror(errno));
        if (!ip("link", "set", "lo", "up", NULL) ||
            !ip("link", "add", "hole0", "type", "veth", "peer", "name", "hole1", NULL) ||
            !ip("addr", "add", "10.97.9.1/24", "dev", "hole0", NULL) || !ip("link", "set", "hole0", "up", NULL) ||
            !ip("link", "set", "hole1", "up", NULL) ||
            !ip("neigh", "add", SERVER, "lladdr", "02:00:00:00:00:02", "dev", "hole0", NULL))
                test_skip("`ip` cannot make a veth pair here");
}

static void open_hole(void) { check(ip("addr", "del", SERVER "/32", "dev", "lo", NULL)); }
static void close_hole(void) { check(ip("addr", "add", SERVER "/32", "dev", "lo", NULL)); }

static void start(struct host *h, const char *keys) {
        dig();
        close_hole();
        redis_start(&h->redis, &(struct redis_options){.tcp = true, .config = "bind " SERVER "\nprotected-mode no"});
        broker_start(&h->broker, "databases: {main: {host: " SERVER ", port: %u, socket_connect_timeout: 200ms, %s}}\n",
                     h->redis.port, keys);
}

static int outcome_of(lessor_db *db, int wait_ms, lessor_error *e) {
        lessor_lease *lease = lessor_acquire(db, wait_ms, e);
        if (!lease)
                return e->code;
        lessor_release(lease);
        return 0;
}

static void check_times_out(lessor_lease *lease) {
        lessor_error e = {0};
        uint64_t began = now_ms();
        check(!lessor_lease_command(lease, &e, "PING"));
        check_eq(e.code, LESSOR_E_REPLY_TIMEOUT);
        check(e.may_have_run);
        check_msg(now_ms() - began < 5000 * PROCESS_SLOW, "%llu ms", (unsigned long long)(now_ms() - began));
}

/* Held and parked leases time out; the broker finds out, says so at once to all who ask, and sees the end of it by itself. */
TEST_WITH(black_hole, what_is_held_times_out_and_the_breaker_opens_and_closes_by_itself, .timeout = 120) {
        struct host h;
        lessor_error e = {0};

        start(&h, "socket_timeout: 300ms, retry_base: 50ms, retry_max: 200ms, breaker_failures: 3, "
                  "health_check_interval: 0");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_lease *held = lessor_acquire(db, WAIT_MS, &e), *other = lessor_acquire(db, WAIT_MS, &e);
        check(held && other);
        lessor_release(other); /* parked */
        open_hole();
        check_times_out(held);
        lessor_release(held);
        check_soon(broker_figures(&h.broker, "main").breaker_trips == 1, WAIT_MS);
        uint64_t began = now_ms();
        for (unsigned i = 0; i < 1000; i++)
                check_eq(outcome_of(db, WAIT_MS, &e), LESSOR_E_BREAKER_OPEN);
        check_msg(now_ms() - began < 1000 * PROCESS_SLOW, "%llu ms", (unsigned long long)(now_ms() - began));
        check_figure(&h.broker, "main", trouble, LESSOR_TROUBLE_UNREACHABLE);
        check(broker_figures_now(&h.broker, "main").health != LESSOR_HEALTH_HEALTHY);
        close_hole();
        check_figure_soon(&h.broker, "main", breaker_state, LESSOR_BREAKER_CLOSED, WAIT_MS);
        freeReplyObject(client_command(db, "PING"));
        check_figure_soon(&h.broker, "main", health, LESSOR_HEALTH_HEALTHY, WAIT_MS);
        check_figure(&h.broker, "main", breaker_trips, 1);
        lessor_close(l);
        broker_free(&h.broker);
        redis_stop(&h.redis);
}

TEST_WITH(black_hole, idle_connections_are_found_out_by_their_checks_though_nobody_asks, .timeout = 120) {
        struct host h;

        start(&h, "health_check_interval: 50ms, min_idle: 2, retry_base: 50ms, retry_max: 200ms, breaker_failures: 3");
        check_figure_soon(&h.broker, "main", available_connections, 2, WAIT_MS);
        open_hole();
        check_soon(broker_figures(&h.broker, "main").breaker_trips == 1, WAIT_MS);
        check(broker_figures_now(&h.broker, "main").health_checks_failed >= 1);
        close_hole();
        check_figure_soon(&h.broker, "main", health, LESSOR_HEALTH_HEALTHY, WAIT_MS);
        check_figure_soon(&h.broker, "main", available_connections, 2, WAIT_MS);
        broker_free(&h.broker);
        redis_stop(&h.redis);
}

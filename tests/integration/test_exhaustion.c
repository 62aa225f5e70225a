/* SPDX-License-Identifier: MIT */
/* Near exhaustion, as `lessor health` says it: a pool that is only busy is well, one that has nothing to give is not. */
#include "support/check.h"
#include "support/host.h"
#include "support/process.h"

enum { WAIT_MS = 30000, WORKERS = 24, TURNS = 400 };

static int takes_turns(unsigned index, void *arg) {
        lessor *l = client_open(arg);
        lessor_db *db = client_database(l, NULL);
        lessor_error e = {0};
        for (unsigned i = 0; i < TURNS; i++) {
                lessor_lease *lease = lessor_acquire(db, 2 * WAIT_MS, &e);
                child_check(lease);
                redisReply *reply = lessor_lease_command(lease, &e, "PING");
                child_check(reply);
                freeReplyObject(reply);
                lessor_release(lease);
        }
        lessor_close(l);
        return 0;
}

TEST_WITH(exhaustion, a_pool_whose_connections_change_hands_is_well_however_many_wait, .timeout = 120) {
        struct workers workers;
        struct host h;
        unsigned waited = 0, unwell = 0;
        uint64_t leases = 0;

        host_start(&h, "max_connections: 2, wait_timeout: 60s");
        workers_start(&workers, WORKERS, takes_turns, &h.broker);
        while (!workers_ended(&workers)) {
                struct lessor_status_database d = broker_figures_now(&h.broker, "main");
                waited += d.waiting > 0;
                /* Unless the machine stood still a moment ago, and nothing changed hands. */
                unwell = d.health == LESSOR_HEALTH_DEGRADED && d.leases > leases ? unwell + 1 : 0;
                leases = d.leases;
                check_msg(unwell < 30, "%s", d.reason);
        }
        check_eq(workers_wait(&workers, WAIT_MS), WORKERS);
        check(waited > 0);
        host_end(&h);
}

static void check_says(const struct broker *b, const char *says) {
        const char *const argv[] = {tool_path(), "health", "--instance", b->instance, NULL};
        char *text;
        check_figure_soon(b, "main", health, LESSOR_HEALTH_DEGRADED, WAIT_MS);
        check_eq(program_run(argv, &text, WAIT_MS), 1);
        check_msg(strstr(text, "near exhaustion") && strstr(text, says), "%s", text);
        free(text);
}

/* ask: one more asks, and does not wait. Then all is given back, and it is well again. */
static void check_exhausted(const char *says, bool ask) {
        lessor_lease *leases[2];
        lessor_error e = {0};
        struct host h;

        host_start(&h, "max_connections: 2, wait_timeout: 60s");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        for (unsigned i = 0; i < 2; i++)
                check((leases[i] = lessor_acquire(db, WAIT_MS, &e)));
        check_figure(&h.broker, "main", health, LESSOR_HEALTH_HEALTHY);
        if (ask)
                check(!lessor_acquire(db, 0, &e) && e.code == LESSOR_E_EXHAUSTED);
        check_says(&h.broker, says);
        for (unsigned i = 0; i < 2; i++)
                lessor_release(leases[i]);
        check_figure_soon(&h.broker, "main", health, LESSOR_HEALTH_HEALTHY, WAIT_MS);
        lessor_close(l);
        host_end(&h);
}

TEST(exhaustion, a_refused_request_is_remembered_for_some_seconds) { check_exhausted("1 requests were refused", true); }
TEST(exhaustion, connections_that_nobody_gives_back_are_told_though_nobody_waits) {
        check_exhausted("all 2 connections are held", false);
}

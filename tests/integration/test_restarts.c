/* SPDX-License-Identifier: MIT */
/* The broker killed and stopped again and again under load: no lease that is held ever fails. */
#include "support/check.h"
#include "support/host.h"
#include "support/process.h"

enum { WAIT_MS = 60000, WORKERS = 12, TIMES = 20, COMMANDS = 20 };

struct load {
        struct broker *broker;
        struct stage round[WORKERS]; /* leases used to their end */
        struct stage over;
};

/* An answer to a question of one's own, and to no other. */
static bool is_answered(lessor_lease *lease, unsigned index, uint64_t number, lessor_error *e) {
        char mine[64];
        snprintf(mine, sizeof(mine), "worker %u, question %llu", index, (unsigned long long)number);
        redisReply *reply = lessor_lease_command(lease, e, "ECHO %s", mine);
        bool right = reply && reply->type == REDIS_REPLY_STRING && strcmp(reply->str, mine) == 0;
        if (!right)
                fprintf(stderr, "%s: %s\n", mine, reply ? reply->str : e->text);
        freeReplyObject(reply);
        return right;
}

/* Deadlines are long: on a busy machine everything may stand still for seconds. */

/* Who asks while there is no broker is told so; what he holds works. */
static int works(unsigned index, void *arg) {
        struct load *load = arg;
        lessor_error e = {0};
        lessor *l;
        lessor_db *db;
        uint64_t number = 0;
        child_check(lessor_open(load->broker->socket, &l) == 0);
        child_check(wait_until(lessor_database(l, NULL, &db, &e) == 0, WAIT_MS));
        while (!atomic_load(&load->over.count)) {
                lessor_lease *lease = lessor_acquire(db, WAIT_MS, &e);
                if (!lease && e.code != LESSOR_E_UNAVAILABLE) {
                        fprintf(stderr, "worker %u: %d %s\n", index, e.code, e.text);
                        return 1;
                }
                for (unsigned i = 0; lease && i < COMMANDS; i++)
                        if (!is_answered(lease, index, ++number, &e))
                                return 1;
                if (lease)
                        stage_advance(&load->round[index]);
                lessor_release(lease);
        }
        lessor_close(l);
        return 0;
}

static bool all_work(struct load *load) {
        for (unsigned i = 0; i < WORKERS; i++) {
                uint32_t so_far = atomic_load(&load->round[i].count);
                if (!stage_reached(&load->round[i], so_far + 3, WAIT_MS))
                        return false;
        }
        return true;
}

static void check_survived(void (*end)(struct broker *)) {
        struct load *load = shared_memory(sizeof(*load));
        struct workers workers;
        struct host h;

        host_start(&h, "max_connections: 16, socket_timeout: 60s");
        load->broker = &h.broker;
        workers_start(&workers, WORKERS, works, load);
        for (unsigned i = 0; i < TIMES; i++) {
                check_msg(all_work(load), "before restart %u", i);
                end(&h.broker);
                broker_relaunch(&h.broker);
        }
        check(all_work(load));
        stage_advance(&load->over);
        check_eq(workers_wait(&workers, WAIT_MS), WORKERS);
        host_end(&h);
}

TEST_WITH(restarts, twenty_kills_of_the_broker_fail_no_held_lease, .timeout = 240) { check_survived(broker_kill); }
TEST_WITH(restarts, twenty_stops_of_the_broker_fail_no_held_lease, .timeout = 240) { check_survived(broker_stop); }

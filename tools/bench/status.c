/* SPDX-License-Identifier: MIT */
/*
 * status: what it costs to look. The figures of thirteen databases, without histograms, read from the status segment of a
 * broker that publishes ten times a second; each record consistent in itself. The reference is a bar of 5 us.
 */
#include <base/clock.h>

#include "bench.h"
#include "syscalls.h"

enum { DATABASES = 13, SLICES = 40, READS = 200, TRACED = 1000 };
#define BAR_US 5.0

struct look {
        struct lessor_status status;
        struct lessor_status_database databases[DATABASES];
};

static bool look_once(struct look *l) {
        for (unsigned i = 0; i < DATABASES; i++)
                if (lessor_status_read_database(&l->status, i, LESSOR_STATUS_NO_HISTOGRAMS, &l->databases[i]) < 0)
                        return false;
        return true;
}

static int run_round(struct servers *s, struct look *l, struct sample *rounds) {
        struct sample slices = {0};
        int r = 0;
        for (int i = 0; i < SLICES && r == 0; i++) {
                uint64_t start = clock_now();
                for (int k = 0; k < READS; k++)
                        if (!look_once(l))
                                r = servers_fail(s, -EAGAIN, "a record was not to be had");
                sample_add(&slices, (double)(clock_now() - start) / READS / (double)NS_PER_US);
        }
        sample_add(rounds, sample_median(&slices));
        sample_deinit(&slices);
        return r;
}

static void traced_work(void *argument) {
        struct look *l = argument;
        syscalls_mark();
        for (int i = 0; i < TRACED; i++)
                if (!look_once(l))
                        _exit(1);
        syscalls_mark();
}

static int start(struct servers *s, struct look *l) {
        char config[2048];
        int n = snprintf(config, sizeof(config), "databases:\n"), r;
        for (int i = 0; i < DATABASES && n > 0; i++)
                n += snprintf(config + n, sizeof(config) - (size_t)n, "  d%d: {unix_socket: %s, db: %d}\n", i,
                              s->redis_socket, i);
        r = servers_start_redis(s);
        if (r == 0)
                r = servers_start_broker(s, config);
        if (r == 0 && (r = lessor_status_open(s->instance, &l->status)) < 0)
                servers_fail(s, r, "cannot open the status segment: %s", strerror(-r));
        return r;
}

static int run(const struct bench_options *o, struct servers *s, struct bench_result *ret) {
        static struct look l;
        struct sample rounds = {0};
        int r = start(s, &l);

        servers_pin(0, s->cpu_client);
        for (unsigned i = 0; i < o->rounds && r == 0; i++)
                r = run_round(s, &l, &rounds);
        if (r == 0) {
                int64_t n = syscalls_count(traced_work, &l);
                ret->value = sample_median(&rounds);
                ret->reference = BAR_US;
                bench_put(ret->extra, "us", bench_spread(&rounds));
                bench_put(ret->extra, "bytes",
                          json_integer(DATABASES * offsetof(struct lessor_status_database, wait_time)));
                bench_put(ret->extra, "syscalls", n < 0 ? json_null() : json_real((double)n / TRACED));
                bench_put(ret->extra, "syscalls_met", n < 0 ? json_null() : json_boolean(n == 0));
        }
        lessor_status_close(&l.status);
        servers_stop(s);
        sample_deinit(&rounds);
        return r;
}

const struct bench bench_status = {.name = "status",
                                   .unit = "us",
                                   .summary = "a snapshot of 13 databases, against a bar of 5 us",
                                   .at_most = true,
                                   .bar = 1,
                                   .own_broker = true,
                                   .run = run};

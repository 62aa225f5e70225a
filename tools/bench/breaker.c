/* SPDX-License-Identifier: MIT */
/*
 * open-breaker: how soon a worker knows that a server is away. Acquire on a database whose breaker is open, which fails;
 * the reference is a warm acquire with its release on one that is well, in the same process. Slices of some milliseconds
 * in turn, ABBA.
 */
#include <base/clock.h>
#include <lessor.h>

#include "bench.h"
#include "syscalls.h"

enum { SLICES = 40, BATCH = 64, SLICE_MS = 5, TRACED = 1000 };

struct breaker {
        struct servers *servers;
        lessor_db *well, *away;
        struct sample subject, reference, ratio, subject_round, reference_round, ratio_round;
        lessor_error error;
};

static bool subject_once(struct breaker *b) {
        lessor_lease *lease = lessor_acquire(b->away, 5000, &b->error);
        lessor_release(lease);
        return !lease && b->error.code == LESSOR_E_BREAKER_OPEN && b->error.text[0];
}

static bool reference_once(struct breaker *b) {
        lessor_lease *lease = lessor_acquire(b->well, 5000, &b->error);
        lessor_release(lease);
        return lease != NULL;
}

static int slice(struct breaker *b, bool (*once)(struct breaker *), double *ret) {
        uint64_t start = clock_now(), now = start, n = 0;
        while (now < start + SLICE_MS * NS_PER_MS) {
                for (int i = 0; i < BATCH; i++)
                        if (!once(b))
                                return servers_fail(b->servers, -EIO, "not as expected: %d %s", b->error.code,
                                                    b->error.text);
                n += BATCH;
                now = clock_now();
        }
        *ret = (double)(now - start) / (double)n;
        return 0;
}

static int both(struct breaker *b, bool subject_first) {
        double subject = 0, reference = 0;
        int r = 0;
        for (int i = 0; i < 2 && r == 0; i++)
                r = subject_first == (i == 0) ? slice(b, subject_once, &subject) : slice(b, reference_once, &reference);
        if (r == 0) {
                sample_add(&b->subject, subject);
                sample_add(&b->reference, reference);
                sample_add(&b->ratio, subject / reference);
        }
        return r;
}

static int run_round(struct breaker *b) {
        int r = 0;
        for (int i = 0; i < SLICES && r == 0; i++)
                r = both(b, i & 1);
        sample_add(&b->subject_round, sample_median(&b->subject));
        sample_add(&b->reference_round, sample_median(&b->reference));
        sample_add(&b->ratio_round, sample_median(&b->ratio));
        sample_clear(&b->subject);
        sample_clear(&b->reference);
        sample_clear(&b->ratio);
        return r;
}

static void traced_work(void *argument) {
        struct breaker *b = argument;
        for (int i = 0; i < 2 * TRACED; i++) { /* the child attaches at the first */
                if (i == TRACED)
                        syscalls_mark();
                if (!subject_once(b))
                        _exit(1);
        }
        syscalls_mark();
}

static void tell(struct breaker *b, struct bench_result *ret) {
        int64_t n = syscalls_count(traced_work, b);
        ret->reference = sample_median(&b->reference_round);
        ret->value = ret->reference * sample_median(&b->ratio_round);
        bench_put(ret->extra, "ns", bench_spread(&b->subject_round));
        bench_put(ret->extra, "warm_pair_ns", bench_spread(&b->reference_round));
        bench_put(ret->extra, "syscalls", n < 0 ? json_null() : json_real((double)n / TRACED));
        bench_put(ret->extra, "syscalls_met", n < 0 ? json_null() : json_boolean(n == 0));
}

/* A server that is away: its socket is not there. The first dial opens the breaker. */
static int start(struct breaker *b, lessor **ret) {
        char config[512];
        int r = servers_start_redis(b->servers);
        snprintf(config, sizeof(config),
                 "databases:\n  main: {db: 0, unix_socket: %s}\n"
                 "  away: {unix_socket: %s/away.sock, breaker_failures: 1, breaker_early_probe: no}\n",
                 b->servers->redis_socket, b->servers->directory);
        if (r == 0)
                r = servers_start_broker(b->servers, config);
        if (r == 0 && (r = lessor_open(b->servers->broker_socket, ret)) < 0)
                return servers_fail(b->servers, r, "cannot open a handle");
        if (r == 0 && (lessor_database(*ret, NULL, &b->well, &b->error) != 0 ||
                       lessor_database(*ret, "away", &b->away, &b->error) != 0))
                r = servers_fail(b->servers, -EIO, "%s", b->error.text);
        if (r == 0 && !subject_once(b))
                r = servers_fail(b->servers, -EIO, "the breaker did not open: %d %s", b->error.code, b->error.text);
        return r;
}

static int run(const struct bench_options *o, struct servers *s, struct bench_result *ret) {
        struct breaker b = {.servers = s};
        lessor *handle = NULL;
        int r = start(&b, &handle);

        servers_pin(0, s->cpu_client);
        for (unsigned i = 0; i < o->rounds && r == 0; i++)
                r = run_round(&b);
        if (r == 0)
                tell(&b, ret);
        lessor_close(handle);
        servers_stop(s);
        struct sample *all[] = {&b.subject,       &b.reference,       &b.ratio,
                                &b.subject_round, &b.reference_round, &b.ratio_round};
        for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
                sample_deinit(all[i]);
        return r;
}

const struct bench bench_open_breaker = {
        .name = "open-breaker",
        .unit = "ns",
        .summary = "acquire while the breaker is open, against a warm acquire and release",
        .at_most = true,
        .bar = 2,
        .own_broker = true,
        .run = run};

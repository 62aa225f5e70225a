/* SPDX-License-Identifier: MIT */
/*
 * cold: the first lease of a fresh session, which has attached already, of a connection that is open and free in the
 * broker; against the least that can do it, one byte there and one byte with one fd back, blocking, over
 * SOCK_SEQPACKET.
 *
 * In batches: SESSIONS handles attach; then each leases once and keeps it, and after (or before, in turn) each lease
 * comes one raw round trip; then all give back and close, and the broker's figures are waited for, so that no tidying
 * up falls into a measured span. Redis must not have seen a new connection meanwhile: else it was no lease of an open
 * one.
 *
 * Two placements, each the same for both sides: worker, broker and raw server on one CPU (what a wake-up costs least
 * and the broker's own work shows most: the ratio told), and worker on one, broker and raw server on another (in
 * extra).
 */
#include <string.h>
#include <sys/socket.h>

#include <base/cleanup.h>
#include <base/clock.h>
#include <lessor.h>

#include "bench.h"
#include "syscalls.h"

enum { SESSIONS = 100, BATCHES = 10 };

struct placement {
        const char *name;
        int cpu;
        struct sample subject, reference;               /* nanoseconds, of the round */
        struct sample subject_p50, reference_p50;       /* of the rounds */
        struct sample subject_p99, reference_p99, pair; /* pair: the rounds' ratios */
};

struct cold {
        struct servers *servers;
        const char *socket;
        int raw;
        pid_t raw_server;
        lessor *handles[SESSIONS];
        lessor_db *databases[SESSIONS];
        lessor_lease *leases[SESSIONS];
        struct sample attach;
};

/* ---- the reference --------------------------------------------------------------------------------------------- */

union control {
        char buffer[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
};

static bool send_fd(int socket, int fd) {
        union control control = {0};
        char byte = 'f';
        struct iovec data = {&byte, 1};
        struct msghdr message = {
                .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);

        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &fd, sizeof(fd));
        return sendmsg(socket, &message, MSG_NOSIGNAL) == 1;
}

static int receive_fd(int socket) {
        union control control;
        char byte;
        int fd = -1;
        struct iovec data = {&byte, 1};
        struct msghdr message = {
                .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
        struct cmsghdr *header;

        if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1)
                return -1;
        header = CMSG_FIRSTHDR(&message);
        if (header && header->cmsg_type == SCM_RIGHTS)
                memcpy(&fd, CMSG_DATA(header), sizeof(fd));
        return fd;
}

/* A connection to Redis is what is passed, as in a lease: the kernel's work depends on the kind of file. */
static void serve_raw(int socket, int fd) {
        char byte;
        while (recv(socket, &byte, 1, 0) == 1 && send_fd(socket, fd))
                ;
        _exit(0);
}

static int start_raw(struct cold *c, int fd) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return servers_fail(c->servers, -errno, "socketpair: %s", strerror(errno));
        c->raw_server = servers_fork();
        if (c->raw_server == 0) {
                close(pair[0]);
                serve_raw(pair[1], fd);
        }
        close(pair[1]);
        c->raw = pair[0];
        return c->raw_server < 0 ? servers_fail(c->servers, -errno, "fork: %s", strerror(errno)) : 0;
}

static int raw_round_trip(struct cold *c, struct sample *times) {
        uint64_t start = clock_now();
        int fd = send(c->raw, "r", 1, MSG_NOSIGNAL) == 1 ? receive_fd(c->raw) : -1;
        sample_add(times, (double)(clock_now() - start));
        if (fd < 0)
                return servers_fail(c->servers, -EIO, "the raw round trip broke");
        close(fd);
        return 0;
}

/* ---- the subject ----------------------------------------------------------------------------------------------- */

static int attach_all(struct cold *c) {
        lessor_error e;
        for (int i = 0; i < SESSIONS; i++) {
                uint64_t start = clock_now();
                if (lessor_open(c->socket, &c->handles[i]) < 0)
                        return servers_fail(c->servers, -ENOMEM, "out of memory");
                if (lessor_database(c->handles[i], NULL, &c->databases[i], &e) != 0)
                        return servers_fail(c->servers, e.code, "cannot attach: %s", e.text);
                sample_add(&c->attach, (double)(clock_now() - start) / 1000);
        }
        return 0;
}

static int lease(struct cold *c, int i, struct sample *times) {
        lessor_error e;
        uint64_t start = clock_now();
        c->leases[i] = lessor_acquire(c->databases[i], 5000, &e);
        sample_add(times, (double)(clock_now() - start));
        return c->leases[i] ? 0 : servers_fail(c->servers, e.code, "cannot lease: %s", e.text);
}

/* Each lease is used once, after the measurement, so that we know it was one. */
static int use_all(struct cold *c) {
        lessor_error e;
        for (int i = 0; i < SESSIONS; i++) {
                redisReply *reply = lessor_lease_command(c->leases[i], &e, "PING");
                bool ok = reply && reply->type == REDIS_REPLY_STATUS;
                freeReplyObject(reply);
                if (!ok)
                        return servers_fail(c->servers, -EIO, "a lease was not usable: %s", e.text);
        }
        return 0;
}

static void give_back_all(struct cold *c) {
        for (int i = 0; i < SESSIONS; i++) {
                lessor_release(c->leases[i]);
                c->leases[i] = NULL;
        }
        for (int i = 0; i < SESSIONS; i++) {
                lessor_close(c->handles[i]);
                c->handles[i] = NULL;
        }
}

static bool all_free(const struct lessor_status *status, void *argument) {
        struct lessor_status_database d;
        return lessor_status_read_database(status, 0, LESSOR_STATUS_NO_HISTOGRAMS, &d) == 0 &&
               lessor_status_word(&status->header->sessions) == 0 && d.available_connections >= SESSIONS &&
               d.in_use_connections == 0;
}

static int batch(struct cold *c, struct sample *subject, struct sample *reference) {
        int r = attach_all(c);
        for (int i = 0; i < SESSIONS && r == 0; i++) {
                if (i & 1)
                        r = raw_round_trip(c, reference);
                if (r == 0)
                        r = lease(c, i, subject);
                if (r == 0 && !(i & 1))
                        r = raw_round_trip(c, reference);
        }
        if (r == 0)
                r = use_all(c);
        give_back_all(c);
        return r < 0 ? r : servers_wait_status(c->servers, all_free, NULL);
}

/* ---------------------------------------------------------------------------------------------------------------- */

static int run_round(struct cold *c, struct placement *p) {
        int r = 0;
        servers_pin(0, c->servers->cpu_client);
        servers_pin(c->servers->broker, p->cpu);
        servers_pin(c->raw_server, p->cpu);
        sample_clear(&p->subject);
        sample_clear(&p->reference);
        for (int i = 0; i < BATCHES && r == 0; i++)
                r = batch(c, &p->subject, &p->reference);
        sample_add(&p->subject_p50, sample_median(&p->subject) / 1000);
        sample_add(&p->reference_p50, sample_median(&p->reference) / 1000);
        sample_add(&p->subject_p99, sample_quantile(&p->subject, 0.99) / 1000);
        sample_add(&p->reference_p99, sample_quantile(&p->reference, 0.99) / 1000);
        sample_add(&p->pair, sample_median(&p->subject) / sample_median(&p->reference));
        return r;
}

/* One first lease, in a traced child. */
static void traced_lease(void *argument) {
        lessor *l;
        lessor_db *db;
        if (lessor_open(argument, &l) < 0 || lessor_database(l, NULL, &db, NULL) != 0)
                _exit(1);
        syscalls_mark();
        if (!lessor_acquire(db, 5000, NULL))
                _exit(1);
        syscalls_mark();
}

static json_t *syscalls_per_lease(const char *socket) {
        char path[80];
        int64_t n;
        snprintf(path, sizeof(path), "%s", socket);
        n = syscalls_count(traced_lease, path);
        return n < 0 ? json_null() : json_integer(n);
}

static json_t *tell_placement(struct placement *p) {
        json_t *o = json_object();
        bench_put(o, "p50_us", bench_spread(&p->subject_p50));
        bench_put(o, "raw_p50_us", bench_spread(&p->reference_p50));
        bench_put(o, "ratio", bench_spread(&p->pair));
        bench_put(o, "p99_us", json_real(sample_median(&p->subject_p99)));
        bench_put(o, "raw_p99_us", json_real(sample_median(&p->reference_p99)));
        return o;
}

static void placement_deinit(struct placement *p) {
        sample_deinit(&p->subject);
        sample_deinit(&p->reference);
        sample_deinit(&p->subject_p50);
        sample_deinit(&p->reference_p50);
        sample_deinit(&p->subject_p99);
        sample_deinit(&p->reference_p99);
        sample_deinit(&p->pair);
}

static int measure(const struct bench_options *o, struct cold *c, redisContext *redis, struct bench_result *ret) {
        struct placement together = {.name = "one_cpu", .cpu = c->servers->cpu_client};
        struct placement apart = {.name = "two_cpus", .cpu = c->servers->cpu_server};
        struct sample ignored = {0};
        int r = batch(c, &ignored, &ignored); /* dials: what follows finds open connections */
        double connections = servers_redis_connections(redis);

        sample_clear(&c->attach);
        for (unsigned i = 0; i < o->rounds && r == 0; i++) {
                r = run_round(c, &together);
                if (r == 0 && apart.cpu != together.cpu)
                        r = run_round(c, &apart);
        }
        if (r == 0 && servers_redis_connections(redis) != connections)
                r = servers_fail(c->servers, -EIO, "the broker opened new connections to Redis during the measurement");
        if (r == 0) {
                /* The two sides of a round meet the same machine, two rounds do not: hence the ratio of the rounds. */
                ret->reference = sample_median(&together.reference_p50);
                ret->value = ret->reference * sample_median(&together.pair);
                bench_put(ret->extra, "placement", json_string("worker, broker and raw server on one CPU"));
                bench_put(ret->extra, together.name, tell_placement(&together));
                bench_put(ret->extra, apart.name, apart.cpu == together.cpu ? json_null() : tell_placement(&apart));
                bench_put(ret->extra, "attach_p50_us", json_real(sample_median(&c->attach)));
                bench_put(ret->extra, "attach_p99_us", json_real(sample_quantile(&c->attach, 0.99)));
                bench_put(ret->extra, "redis_connections", json_real(connections));
                bench_put(ret->extra, "syscalls_per_op", syscalls_per_lease(c->socket));
                bench_put(ret->extra, "leases_per_round", json_integer(SESSIONS * BATCHES));
        }
        placement_deinit(&together);
        placement_deinit(&apart);
        sample_deinit(&ignored);
        return r;
}

static int run(const struct bench_options *o, struct servers *s, struct bench_result *ret) {
        struct cold c = {.servers = s, .raw = -1};
        redisContext *redis;
        int r;

        c.socket = bench_broker(o, s, SESSIONS + 28);
        redis = c.socket ? servers_connect(s) : NULL;
        if (!redis)
                return -EIO;
        r = start_raw(&c, redis->fd);
        if (r == 0)
                r = measure(o, &c, redis, ret);
        give_back_all(&c);
        fd_close(c.raw);
        redisFree(redis);
        sample_deinit(&c.attach);
        return r;
}

const struct bench bench_cold = {
        .name = "cold",
        .own_arm = "one_cpu",
        .unit = "us",
        .summary = "a fresh session's first lease of an open connection, against a raw SCM_RIGHTS round trip; p50",
        .at_most = true,
        .bar = 1.6,
        .own_broker = true, /* it is pinned, and must have nothing else to do */
        .run = run,
};

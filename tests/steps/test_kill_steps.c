/* SPDX-License-Identifier: MIT */
/* A worker is killed at every step on a lease's way: whichever it was, nothing is lost. */
#include "steps/kill.h"

enum { CAP = 2, BIG = 8 * 1024 * 1024 };

static const char *const steps[] = {
        "ATTACH sent",   "lease asked", "granted, not accepted", "granted at the ticket", "accepted",
        "before park",   "parked",      "not parked, wanted",    "before retake",         "retaken",
        "before RETURN", "RETURN sent", "request half written",  "reply half read",       "fd replaced",
        "fd forgotten",
};
enum { STEPS = sizeof(steps) / sizeof(steps[0]) };

struct scene {
        const char *socket;
        struct stage ready;
        _Atomic bool end;
};

static void use(lessor_lease *lease, unsigned i) {
        lessor_error e = {0};
        char value[32];
        snprintf(value, sizeof(value), "%d-%u", (int)getpid(), i);
        redisReply *reply = lessor_lease_command(lease, &e, "ECHO %s", value);
        if (!reply && e.code == LESSOR_E_CONNECTION)
                return; /* dirty leases are replaced, and Redis may be told to cut */
        child_check(reply && reply->str && strcmp(reply->str, value) == 0);
        freeReplyObject(reply);
}

static void command(lessor_lease *lease, const char *name, const void *data, size_t size) {
        const char *argv[] = {name, "big", data};
        size_t lengths[] = {strlen(name), 3, size};
        lessor_error e = {0};
        redisReply *reply = lessor_lease_command_argv(lease, data ? 3 : 2, argv, lengths, &e);
        if (reply)
                freeReplyObject(reply);
}

/* Comes past every step again and again: cold and warm, recalled, clean and not, small and large. */
static void live(const char *socket, _Atomic bool *end) {
        char *big = calloc(1, BIG);
        lessor *l;
        lessor_db *db = open_in_child(socket, &l);
        for (unsigned i = 0; !atomic_load(end); i++) {
                lessor_error e = {0};
                lessor_lease *one = lessor_acquire(db, WAIT_MS, &e), *two = lessor_acquire(db, (int)(i % 7) * 10, &e);
                child_check(one);
                use(one, i);
                if (two)
                        use(two, i);
                if (i % 5 == 0) {
                        command(one, "SET", big, BIG);
                        command(one, "GET", NULL, 0);
                }
                if (two && i % 3 == 0)
                        command(two, "SELECT", NULL, 0), command(two, "MULTI", NULL, 0);
                lessor_release(one);
                lessor_release(two);
                lessor_release(lessor_acquire(db, WAIT_MS, &e)); /* warm, unless another wants it */
        }
        lessor_close(l);
        free(big);
}

static int compete(unsigned index, void *arg) {
        struct scene *s = arg;
        stage_advance(&s->ready);
        live(s->socket, &s->end);
        return 0;
}

static int die_at(unsigned index, void *arg) {
        static _Atomic bool never;
        struct scene *s = arg;
        live(s->socket, &never);
        return 0;
}

/* All places are there within a second, and each gives the replies it should. */
static uint64_t check_nothing_is_lost(struct host *h, const char *step, unsigned after) {
        lessor_lease *lease[CAP];
        lessor_error e = {0};
        lessor *l = client_open(&h->broker);
        lessor_db *db = client_database(l, NULL);
        uint64_t began = now_ms();
        for (unsigned i = 0; i < CAP; i++) {
                lease[i] = lessor_acquire(db, 1000 * PROCESS_SLOW, &e);
                check_msg(lease[i], "killed at `%s` (%u): lease %u of %d: %s", step, after, i + 1, CAP, e.text);
        }
        uint64_t took = now_ms() - began;
        for (unsigned i = 0; i < CAP; i++) {
                redisReply *reply = lessor_lease_command(lease[i], &e, "ECHO %u", i);
                check_msg(reply && reply->str && strtoul(reply->str, NULL, 10) == i, "killed at `%s`: %s", step,
                          reply ? reply->str : e.text);
                freeReplyObject(reply);
                lessor_release(lease[i]);
        }
        lessor_close(l);
        return took;
}

static uint64_t kill_at(struct host *h, struct scene *s, const char *step, unsigned after) {
        struct workers others;
        s->end = false;
        atomic_store(&s->ready.count, 0);
        workers_start(&others, 1, compete, s);
        check(stage_reached(&s->ready, 1, WAIT_MS));
        check_killed_at(step, after, die_at, s);
        atomic_store(&s->end, true);
        check_eq(workers_wait(&others, WAIT_MS), 1);
        return check_nothing_is_lost(h, step, after);
}

TEST_WITH(kill_steps, whatever_a_worker_was_about_when_it_died_nothing_is_lost, .timeout = 280) {
        struct scene *s = shared_memory(sizeof(*s));
        uint64_t longest = 0;
        struct host h;

        redis_start(&h.redis, NULL);
        broker_start(&h.broker, "fd_cache: 0\ndatabases: {main: {%s, max_connections: %d, wait_timeout: 30s}}\n",
                     redis_address(&h.redis), CAP);
        s->socket = h.broker.socket;
        for (unsigned i = 0; i < STEPS; i++) {
                for (unsigned after = 0; after < (i == 0 ? 1 : 2); after++) {
                        uint64_t took = kill_at(&h, s, steps[i], after);
                        longest = took > longest ? took : longest;
                }
        }
        fprintf(stderr, "killed at %d steps: all %d places were there again after at most %llu ms\n", STEPS, CAP,
                (unsigned long long)longest);
        check(broker_figures_now(&h.broker, "main").peak_connections <= CAP);
        host_end(&h);
}

/* SPDX-License-Identifier: MIT */
/*
 * The broker killed and stopped again and again under load: no lease that is held ever fails, every call by lane is accounted
 * for, and Redis never sees more connections than two brokers may have: the living one's, and those of the last one, which
 * go as its workers move over.
 */
#include "support/check.h"
#include "support/host.h"
#include "support/process.h"

/*
 * ACQUIRE_S: the defaults of wait_timeout and socket_timeout, and nobody may miss them, unless a plain client of Redis, who
 * watches meanwhile, was kept waiting for half of that, too: then it is the machine that stood still. WAIT_MS only ends a
 * test that has failed.
 */
enum { WAIT_MS = 60000, ACQUIRE_S = 5 * PROCESS_SLOW, WORKERS = 12, CALLERS = 4, MAX = 16, TIMES = 20, COMMANDS = 20 };

struct load {
        struct broker *broker;
        struct stage round[WORKERS]; /* leases used to their end */
        struct stage over, watching;
        char redis[256], name[128];
        _Atomic unsigned peak;                          /* connections of that name, as Redis counts them */
        _Atomic unsigned late;                          /* deadlines missed */
        _Atomic uint64_t stood_ms;                      /* the longest that the plain client was away */
        _Atomic uint64_t done[CALLERS], maybe[CALLERS]; /* calls answered; those that may have run */
};

/* What this process has of brokers, living and dead: fds, and mappings of their memory. */
struct remains {
        unsigned fds, mappings;
};

static struct remains count_remains(void) {
        struct remains r = {.fds = fd_count(getpid())};
        char line[512];
        FILE *maps = fopen("/proc/self/maps", "r");
        child_check(maps);
        while (fgets(line, sizeof(line), maps))
                r.mappings += strstr(line, "/memfd:lessor-") != NULL;
        fclose(maps);
        return r;
}

/* Twenty sessions later: one session's socket and doorbells, what is parked and kept, and one more of each just replaced. */
static void check_remains(struct remains before) {
        enum { FDS = 16, MAPPINGS = 6 };
        struct remains now = count_remains();
        if (now.fds > before.fds + FDS || now.mappings > before.mappings + MAPPINGS)
                fprintf(stderr, "%u fds and %u mappings became %u and %u\n", before.fds, before.mappings, now.fds,
                        now.mappings);
        child_check(now.fds <= before.fds + FDS && now.mappings <= before.mappings + MAPPINGS);
}

/* An answer to a question of one's own, and to no other; late: none in time. */
static bool is_answered(lessor_lease *lease, unsigned index, uint64_t number, lessor_error *e, bool *late) {
        char mine[64];
        snprintf(mine, sizeof(mine), "worker %u, question %llu", index, (unsigned long long)number);
        redisReply *reply = lessor_lease_command(lease, e, "ECHO %s", mine);
        bool right = reply && reply->type == REDIS_REPLY_STRING && strcmp(reply->str, mine) == 0;
        *late = !reply && e->code == LESSOR_E_REPLY_TIMEOUT;
        if (!right)
                fprintf(stderr, "%s: %s\n", mine, reply ? reply->str : e->text);
        freeReplyObject(reply);
        return right;
}

/* Who asks while there is no broker is told so; what he holds works. */
static int works(unsigned index, void *arg) {
        struct load *load = arg;
        lessor_error e = {0};
        lessor *l;
        lessor_db *db;
        uint64_t number = 0;
        struct remains before = count_remains();
        child_check(lessor_open(load->broker->socket, &l) == 0);
        child_check(wait_until(lessor_database(l, NULL, &db, &e) == 0, WAIT_MS));
        while (!atomic_load(&load->over.count)) {
                lessor_lease *lease = lessor_acquire(db, ACQUIRE_S * 1000, &e);
                bool late = !lease && (e.code == LESSOR_E_TIMEOUT || e.code == LESSOR_E_EXHAUSTED);
                if (!lease && !late && e.code != LESSOR_E_UNAVAILABLE) {
                        fprintf(stderr, "worker %u: %d %s\n", index, e.code, e.text);
                        return 1;
                }
                for (unsigned i = 0; lease && !late && i < COMMANDS; i++)
                        if (!is_answered(lease, index, ++number, &e, &late) && !late)
                                return 1;
                atomic_fetch_add(&load->late, late);
                if (lease)
                        stage_advance(&load->round[index]);
                else /* twelve who ask in a circle would leave no time for a broker to start in */
                        (void)look_again_before(UINT64_MAX);
                lessor_release(lease);
        }
        check_remains(before);
        lessor_close(l);
        return 0;
}

/* By lane: each call is answered, or may have run, or was never sent. Redis' own count says whether that was true. */
static int calls(unsigned index, void *arg) {
        struct load *load = arg;
        lessor_error e = {0};
        lessor *l;
        lessor_db *db;
        struct remains before = count_remains();
        child_check(lessor_open(load->broker->socket, &l) == 0);
        child_check(wait_until(lessor_database(l, NULL, &db, &e) == 0, WAIT_MS));
        while (!atomic_load(&load->over.count)) {
                redisReply *reply = lessor_command(db, &e, "INCR calls:%u", index);
                child_check(!reply || reply->type == REDIS_REPLY_INTEGER);
                if (reply)
                        atomic_fetch_add(&load->done[index], 1);
                else if (e.may_have_run)
                        atomic_fetch_add(&load->maybe[index], 1);
                else
                        (void)look_again_before(UINT64_MAX);
                freeReplyObject(reply);
        }
        check_remains(before);
        lessor_close(l);
        return 0;
}

static void check_calls(struct load *load) {
        redisContext *c = redisConnectUnix(load->redis);
        check(c && !c->err);
        for (unsigned i = 0; i < CALLERS; i++) {
                redisReply *reply = redisCommand(c, "GET calls:%u", i);
                uint64_t ran = reply && reply->str ? strtoull(reply->str, NULL, 10) : 0;
                uint64_t done = atomic_load(&load->done[i]), maybe = atomic_load(&load->maybe[i]);
                check_msg(done > 0 && done <= ran && ran <= done + maybe,
                          "caller %u: %llu ran, %llu were answered, %llu may have run", i, (unsigned long long)ran,
                          (unsigned long long)done, (unsigned long long)maybe);
                freeReplyObject(reply);
        }
        redisFree(c);
}

static unsigned count(redisContext *c, const char *name) {
        redisReply *list = redisCommand(c, "CLIENT LIST");
        unsigned n = 0;
        child_check(list && list->type == REDIS_REPLY_STRING);
        for (const char *at = list->str; (at = strstr(at, name)); at++)
                n++;
        freeReplyObject(list);
        return n;
}

/* Counts all the time. */
static int watches(unsigned index, void *arg) {
        struct load *load = arg;
        redisContext *c = redisConnectUnix(load->redis);
        child_check(c && !c->err);
        for (uint64_t last = now_ms(); !atomic_load(&load->over.count) && look_again_before(UINT64_MAX);) {
                unsigned n = count(c, load->name);
                uint64_t now = now_ms();
                if (now - last > atomic_load(&load->stood_ms))
                        atomic_store(&load->stood_ms, now - last);
                last = now;
                if (n > atomic_load(&load->peak))
                        atomic_store(&load->peak, n);
                if (n > 0 && !atomic_load(&load->watching.count))
                        stage_advance(&load->watching);
        }
        redisFree(c);
        return 0;
}

/* All have a session with the living broker. */
static bool all_have_moved(struct load *load) {
        return wait_until(broker_sessions(load->broker) == WORKERS + CALLERS, WAIT_MS);
}

static bool all_work(struct load *load) {
        for (unsigned i = 0; i < WORKERS; i++) {
                uint32_t so_far = atomic_load(&load->round[i].count);
                if (!stage_reached(&load->round[i], so_far + 3, WAIT_MS))
                        return false;
        }
        return true;
}

/* Others take no lease. */
static bool all_call(struct load *load) {
        for (unsigned i = 0; i < CALLERS; i++) {
                uint64_t so_far = atomic_load(&load->done[i]);
                if (!wait_until(atomic_load(&load->done[i]) >= so_far + 100, WAIT_MS))
                        return false;
        }
        return wait_until(broker_figures_now(load->broker, "main").lane_calls > 0, WAIT_MS);
}

static void check_survived(void (*end)(struct broker *)) {
        struct load *load = shared_memory(sizeof(*load));
        struct workers workers, watcher, callers;
        struct host h;
        char keys[128];

        snprintf(keys, sizeof(keys), "path: lane, max_connections: %u, socket_timeout: %us", MAX, ACQUIRE_S);
        host_start(&h, keys);
        load->broker = &h.broker;
        snprintf(load->redis, sizeof(load->redis), "%s", h.redis.socket);
        snprintf(load->name, sizeof(load->name), " name=%s ", broker_client_name(&h.broker, "main"));
        workers_start(&watcher, 1, watches, load);
        workers_start(&workers, WORKERS, works, load);
        workers_start(&callers, CALLERS, calls, load);
        for (unsigned i = 0; i < TIMES; i++) {
                check_msg(all_have_moved(load) && all_work(load) && all_call(load), "before restart %u", i);
                end(&h.broker);
                broker_relaunch(&h.broker);
        }
        check(all_work(load) && all_call(load));
        stage_advance(&load->over);
        check_eq(workers_wait(&workers, WAIT_MS), WORKERS);
        check_eq(workers_wait(&callers, WAIT_MS), CALLERS);
        check_calls(load);
        check_eq(workers_wait(&watcher, WAIT_MS), 1);
        check(stage_reached(&load->watching, 1, 0));
        unsigned long long stood = atomic_load(&load->stood_ms);
        check_msg(!atomic_load(&load->late) || stood > ACQUIRE_S * 1000 / 2,
                  "%u deadlines missed, and the machine stood still for no more than %llu ms", atomic_load(&load->late),
                  stood);
        if (atomic_load(&load->late))
                fprintf(stderr, "the machine stood still for %llu ms: %u deadlines missed\n", stood,
                        atomic_load(&load->late));
        check_msg(atomic_load(&load->peak) <= 2 * MAX, "%u connections at once", atomic_load(&load->peak));
        fprintf(stderr, "at most %u connections at once, max_connections is %u\n", atomic_load(&load->peak), MAX);
        host_end(&h);
}

TEST_WITH(restarts, twenty_kills_of_the_broker_fail_no_held_lease_and_lose_no_call, .timeout = 500) {
        check_survived(broker_kill);
}
TEST_WITH(restarts, twenty_stops_of_the_broker_fail_no_held_lease_and_lose_no_call, .timeout = 500) {
        check_survived(broker_stop);
}

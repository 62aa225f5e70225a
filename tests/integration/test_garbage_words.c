/* SPDX-License-Identifier: MIT */
/*
 * A worker who fills his segment with garbage, again and again, while he holds, parks and returns: he harms himself. An
 * honest neighbour on the same broker, on the same database even, gets right replies and is served in time; the figures
 * stay sane; the broker goes on; nothing is lost.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"
#include "support/words.h"

enum { WAIT_MS = 30000, GARBAGE_MS = 60000, MAX = 4, SESSIONS = 100, FILLINGS = 300, TURNS = 500 };
#define MS UINT64_C(1000000)

struct scene {
        const char *socket;
        const char *neighbours_database;
        _Atomic bool end;
        _Atomic uint64_t sessions, grants, fillings, replies;
        _Atomic uint64_t longest_ms;
};

static uint64_t state;
static uint64_t roll(uint64_t n) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (state >> 20) % n;
}

static uint64_t random64(void) { return roll(UINT64_C(1) << 32) << 32 | roll(UINT64_C(1) << 32); }

/* ---- the vandal ------------------------------------------------------------------------------------------------------- */

struct holding {
        struct lessor_msg_grant grant;
        int fd;
};

static void fill(struct scene *s, const struct words *w, uint32_t word) {
        uint64_t *at = (uint64_t *)(void *)w->segment;
        size_t n = w->size / sizeof(uint64_t);
        switch (roll(4)) {
        case 0: /* everything */
                for (size_t i = 0; i < n; i++)
                        __atomic_store_n(&at[i], random64(), __ATOMIC_RELAXED);
                break;
        case 1: /* every state with every generation but the right one, WANTED or not */
                words_store(w, word, (words_load(w, word) ^ roll(8)) + ((1 + roll(1000)) << 3));
                break;
        case 2: /* the counters */
                __atomic_store_n(&words_slot(w, word)->retakes, random64(), __ATOMIC_RELAXED);
                __atomic_store_n(&words_slot(w, word)->held_ns, random64(), __ATOMIC_RELAXED);
                __atomic_store_n(&words_slot(w, word)->site, (uint32_t)random64(), __ATOMIC_RELAXED);
                break;
        default: /* the right word in a wrong state */
                words_store(w, word, (words_load(w, word) & ~UINT64_C(7)) | roll(8));
                break;
        }
        atomic_fetch_add(&s->fillings, 1);
}

static void maltreat(int fd) {
        struct linger linger = {.l_onoff = 1, .l_linger = 60};
        struct timeval moment = {.tv_usec = 1000};
        int flags = fcntl(fd, F_GETFL);
        fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &moment, sizeof(moment));
}

static void report(const struct words *w, const struct lessor_msg_grant *g, uint32_t kind) {
        struct lessor_msg_report m = {.header = {.type = LESSOR_MSG_REPORT, .size = sizeof(m)},
                                      .database = g->database,
                                      .slot = g->slot,
                                      .generation = g->generation,
                                      .lease = g->lease,
                                      .kind = kind,
                                      .error = (int32_t)(kind == LESSOR_REPORT_CONNECTION ? ECONNRESET : 0)};
        raw_send(w->socket, &m, sizeof(m), NULL, 0);
}

static bool take(struct scene *s, const struct words *w, struct holding *h, int known[64]) {
        h->fd = words_lease(w, 20 * MS, &h->grant);
        if (h->fd == WORDS_FD_KEPT)
                h->fd = h->grant.word < 64 ? known[h->grant.word] : -1;
        else if (h->fd >= 0 && h->grant.word < 64) {
                if (known[h->grant.word] >= 0)
                        close(known[h->grant.word]);
                known[h->grant.word] = h->fd;
        }
        if (h->fd < 0)
                return false;
        atomic_fetch_add(&s->grants, 1);
        return true;
}

/* One session, until the broker has had enough of it. What it sends to Redis is whole, and answered whole. */
static void one_session(struct scene *s, const char *database) {
        int known[64];
        struct words w;
        struct holding h = {0};

        for (unsigned i = 0; i < 64; i++)
                known[i] = -1;
        if (!words_attach(&w, s->socket, database))
                return;
        atomic_fetch_add(&s->sessions, 1);
        for (unsigned i = 0; i < 30 && !atomic_load(&s->end) && take(s, &w, &h, known); i++) {
                if (roll(2))
                        words_ping(h.fd);
                if (roll(2))
                        maltreat(h.fd);
                for (uint64_t n = roll(4) == 0 ? 1000 : 0; n > 0; n--)
                        report(&w, &h.grant, 1 + (uint32_t)roll(6));
                if (roll(3))
                        fill(s, &w, h.grant.word);
                switch (roll(3)) {
                case 0:
                        words_return(&w, &h.grant, LESSOR_RETURN_CLEAN | LESSOR_RETURN_KEPT);
                        break;
                case 1:
                        words_park(&w, h.grant.word);
                        break;
                default: /* keeps it */
                        break;
                }
                if (roll(3) == 0)
                        fill(s, &w, h.grant.word);
        }
        for (unsigned i = 0; i < 64; i++)
                if (known[i] >= 0)
                        close(known[i]);
        words_detach(&w);
}

static int spoil(unsigned index, void *arg) {
        struct scene *s = arg;
        state = 42 + index;
        while (!atomic_load(&s->end))
                one_session(s, "garbage");
        return 0;
}

/* ---- the neighbour ----------------------------------------------------------------------------------------------------- */

static int live_beside_him(unsigned index, void *arg) {
        struct scene *s = arg;
        lessor *l;
        lessor_db *db;
        lessor_error e = {0};
        char key[32], value[64];

        child_check(lessor_open(s->socket, &l) == 0 && lessor_database(l, s->neighbours_database, &db, &e) == 0);
        snprintf(key, sizeof(key), "neighbour%u", index);
        for (uint64_t i = 0; !atomic_load(&s->end); i++) {
                uint64_t began = now_ms();
                lessor_lease *lease = lessor_acquire(db, WAIT_MS, &e);
                if (!lease)
                        fprintf(stderr, "acquire: %s\n", e.text);
                child_check(lease);
                uint64_t took = now_ms() - began;
                if (took > atomic_load(&s->longest_ms))
                        atomic_store(&s->longest_ms, took);
                snprintf(value, sizeof(value), "%u-%llu", index, (unsigned long long)i);
                redisReply *reply = lessor_lease_command(lease, &e, "SET %s %s", key, value);
                child_check(reply && reply->type == REDIS_REPLY_STATUS);
                freeReplyObject(reply);
                reply = lessor_lease_command(lease, &e, "GET %s", key);
                child_check(reply && reply->type == REDIS_REPLY_STRING && strcmp(reply->str, value) == 0);
                freeReplyObject(reply);
                lessor_release(lease);
                atomic_fetch_add(&s->replies, 1);
        }
        lessor_close(l);
        return 0;
}

/* Counters only grow, and by no more than can have happened. */
static void check_sane(const struct lessor_status_database *before, const struct lessor_status_database *now) {
        check(now->leases >= before->leases && now->leases - before->leases < 10000000);
        check(now->warm_leases >= before->warm_leases);
        check_msg(now->warm_leases - before->warm_leases < UINT64_C(1) << 40, "warm leases leapt by %llu",
                  (unsigned long long)(now->warm_leases - before->warm_leases));
        check(now->recalls >= before->recalls && now->reclaims >= before->reclaims);
        check(now->operations_ok >= before->operations_ok &&
              now->operations_ok - before->operations_ok < UINT64_C(1) << 40);
        check(now->operations_failed >= before->operations_failed);
        check(now->open_connections <= MAX && now->peak_connections <= MAX);
        check(now->in_use_connections <= MAX && now->parked_connections <= now->available_connections);
        check(now->in_use_connections + now->available_connections <= now->open_connections);
}

static void check_the_broker_goes_on(const struct broker *b) {
        struct lessor_status status = {0};
        check_eq(lessor_status_open(b->instance, &status), 0);
        uint64_t age = lessor_status_heartbeat_age(&status);
        lessor_status_close(&status);
        check_msg(age < LESSOR_STATUS_STALE_NS * PROCESS_SLOW, "no heartbeat for %llu ms",
                  (unsigned long long)(age / MS));
}

/* Until enough has happened, however long this machine takes for it. */
static bool is_enough(const struct scene *s) {
        return s->sessions >= SESSIONS && s->fillings >= FILLINGS && s->replies >= TURNS;
}

static void watch(const struct scene *s, const struct broker *b, const char *neighbours) {
        struct lessor_status_database garbage = broker_figures(b, "garbage"), honest = broker_figures(b, neighbours);
        uint64_t deadline = deadline_in(GARBAGE_MS);
        while (!is_enough(s) && look_again_before(deadline)) {
                struct lessor_status_database g = broker_figures(b, "garbage"), h = broker_figures(b, neighbours);
                check_sane(&garbage, &g);
                check_sane(&honest, &h);
                garbage = g;
                honest = h;
                check_the_broker_goes_on(b);
        }
}

static void check_harmless(const char *neighbours_database, unsigned longest_ms) {
        struct scene *s = shared_memory(sizeof(*s));
        struct workers vandals, neighbours;
        struct host h;

        redis_start(&h.redis, &(struct redis_options){.tcp = true}); /* SO_LINGER means something */
        broker_start(&h.broker,
                     "max_connections: %d\nsocket_timeout: 30s\nlease_timeout: 500ms\ndatabases:\n  garbage: {%s}\n"
                     "  honest: {%s}\n",
                     MAX, redis_address(&h.redis), redis_address(&h.redis));
        *s = (struct scene){.socket = h.broker.socket, .neighbours_database = neighbours_database};
        workers_start(&vandals, 3, spoil, s);
        workers_start(&neighbours, 2, live_beside_him, s);
        watch(s, &h.broker, neighbours_database);
        atomic_store(&s->end, true);
        check_eq(workers_wait(&neighbours, WAIT_MS), 2);
        check_eq(workers_wait(&vandals, WAIT_MS), 3);
        fprintf(stderr,
                "%llu sessions ended, %llu grants, %llu fillings; the neighbours: %llu turns, longest wait %llu ms\n",
                (unsigned long long)s->sessions, (unsigned long long)s->grants, (unsigned long long)s->fillings,
                (unsigned long long)s->replies, (unsigned long long)s->longest_ms);
        check(is_enough(s));
        check_msg(s->longest_ms <= longest_ms * PROCESS_SLOW, "a neighbour waited for %llu ms",
                  (unsigned long long)s->longest_ms);
        host_end(&h);
}

TEST_WITH(garbage_words, a_neighbour_on_another_database_suffers_nothing, .timeout = 120) {
        check_harmless("honest", 3000);
}

TEST_WITH(garbage_words, a_neighbour_on_the_same_database_waits_for_his_turn_and_no_longer, .timeout = 120) {
        check_harmless("garbage", 10000);
}

/* Written while it is vacant, that is evidence enough. */
TEST(garbage_words, whoever_writes_to_a_word_that_is_not_his_is_shown_out) {
        struct lessor_msg_grant g, again;
        struct words w;
        struct host h;

        host_start(&h, "max_connections: 2");
        check(words_attach(&w, h.broker.socket, "main"));
        int fd = words_lease(&w, 1000 * MS, &g);
        check(fd >= 0);
        check_eq(words_return(&w, &g, LESSOR_RETURN_CLEAN | LESSOR_RETURN_KEPT), 0);
        check_soon((words_load(&w, g.word) & 7) == 0, 5000);
        words_store(&w, g.word, words_load(&w, g.word) | 1);
        check(words_lease(&w, 1000 * MS, &again) < 0); /* no fd, whether or not a grant was on its way */
        check(raw_ended(w.socket, NULL));
        close(fd);
        words_detach(&w);
        host_end(&h);
}

/* He holds it all, wanted or not, says that he does not, and is believed in nothing. */
TEST(garbage_words, whoever_parks_what_he_goes_on_using_uses_it_for_nobody_else) {
        struct lessor_msg_grant g;
        struct words w;
        struct host h;

        host_start(&h, "max_connections: 1");
        check(words_attach(&w, h.broker.socket, "main"));
        int fd = words_lease(&w, 1000 * MS, &g);
        check(fd >= 0 && words_ping(fd));
        check(send(fd, "PING\r\nPING\r\nPING\r\n", 18, MSG_NOSIGNAL) == 18); /* and does not read */
        struct pollfd readable = {.fd = fd, .events = POLLIN};
        check(poll(&readable, 1, WAIT_MS) == 1);
        check(words_park(&w, g.word));
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        redisReply *reply = client_command(db, "ECHO mine");
        check_str(reply->str, "mine");
        freeReplyObject(reply);
        check_figure(&h.broker, "main", discards_stray, 1);
        close(fd);
        words_detach(&w);
        lessor_close(l);
        host_end(&h);
}

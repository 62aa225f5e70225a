/* SPDX-License-Identifier: MIT */
/*
 * A crowd of workers makes calls of every kind by lane, and by lease what only a lease can take, while workers are killed,
 * Redis is killed and started again, and stands still until deadlines pass. Every reply belongs to its call; every call
 * is accounted for: done, never sent, or may have run; nothing is stuck; the cap holds; no fd is left over.
 *
 * 40,000 calls; a million, by 200 workers, in a run of tools/check --release ($LESSOR_RELEASE) or --torture N, which are N
 * millions ($LESSOR_TORTURE=N, N > 1).
 */
#include <poll.h>
#include <stdatomic.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"

enum { WORKERS = PROCESS_SLOW > 1 ? 40 : 200, CAP = 20, WAIT_MS = 60000, STUCK_MS = 30000, KEYS = 4, LARGE = 200000 };
enum { QUICK = PROCESS_SLOW > 1 ? 8000 : 40000, QUICK_EVENTS = 30 };

/* ---- what is known of a worker, by all his incarnations --------------------------------------------------------------- */

struct ledger {
        _Alignas(64) _Atomic uint64_t begun, done, never_sent, may_have_run;
        _Atomic uint64_t wrong, longest_ms;
        _Atomic uint64_t incarnation;
};

struct scene {
        const char *socket;
        _Atomic bool end;
        _Atomic uint64_t epoch; /* moves on whenever Redis may have lost its data */
        struct ledger ledgers[WORKERS];
};

struct key {
        unsigned version; /* a new one whenever a call that writes it may still run */
        bool set;
        uint64_t sequence, epoch; /* of its value; when it was set */
        size_t size;
};

struct worker {
        struct scene *scene;
        struct ledger *ledger;
        lessor_db *db;
        unsigned index;
        uint64_t random, sequence, counter, counter_epoch;
        unsigned counter_version;
        struct key keys[KEYS];
        char *expected;
        uint64_t began;
        lessor_error error;
};

static unsigned roll(uint64_t *state, unsigned n) {
        *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (unsigned)(*state >> 33) % n;
}

/* ---- one call: begun, and then exactly one of three -------------------------------------------------------------------- */

static void begin(struct worker *w) {
        w->error = (lessor_error){0};
        w->began = now_ms();
        atomic_fetch_add(&w->ledger->begun, 1);
}

static void end(struct worker *w, bool answered) {
        uint64_t took = now_ms() - w->began;
        if (took > atomic_load(&w->ledger->longest_ms))
                atomic_store(&w->ledger->longest_ms, took);
        if (answered)
                atomic_fetch_add(&w->ledger->done, 1);
        else if (w->error.may_have_run)
                atomic_fetch_add(&w->ledger->may_have_run, 1);
        else
                atomic_fetch_add(&w->ledger->never_sent, 1);
        if (!answered) /* who is refused at once does not try again at once */
                poll(NULL, 0, 2);
}

static redisReply *call(struct worker *w, int argc, const char **argv, const size_t *lengths) {
        begin(w);
        redisReply *reply = lessor_command_argv(w->db, LESSOR_WAIT_CONFIGURED, argc, argv, lengths, &w->error);
        end(w, reply);
        return reply;
}

static void wrong(struct worker *w, const char *what, const redisReply *reply) {
        fprintf(stderr, "worker %u.%llu: %s: a reply of type %d, %lld, `%.100s`\n", w->index,
                (unsigned long long)w->ledger->incarnation, what, reply ? reply->type : 0, reply ? reply->integer : 0,
                reply && reply->str ? reply->str : "");
        atomic_fetch_add(&w->ledger->wrong, 1);
}

static void expect_text(struct worker *w, const char *what, const redisReply *reply, const char *text, size_t size) {
        if (!reply->str || (size_t)reply->len != size || memcmp(reply->str, text, size) != 0)
                wrong(w, what, reply);
}

/* ---- keys and values --------------------------------------------------------------------------------------------------- */

/* Nobody but this incarnation ever writes it. */
static void name_key(const struct worker *w, unsigned k, char name[64]) {
        snprintf(name, 64, "w%u.%llu:%u.%u", w->index, (unsigned long long)w->ledger->incarnation, k,
                 w->keys[k].version);
}

/* A value says whose it is, and which; all of its bytes follow from that. */
static void make_value(char *ret, const char *key, uint64_t sequence, size_t size) {
        char head[96];
        size_t n = (size_t)snprintf(head, sizeof(head), "%s=%llu,", key, (unsigned long long)sequence);
        for (size_t i = 0; i < size; i++)
                ret[i] = i < n ? head[i] : (char)(sequence * 7 + i * i % 251);
}

static void expect_value(struct worker *w, unsigned k, const redisReply *reply) {
        const struct key *key = &w->keys[k];
        char name[64];
        name_key(w, k, name);
        if (reply->type == REDIS_REPLY_NIL && (!key->set || key->epoch != atomic_load(&w->scene->epoch)))
                return;
        make_value(w->expected, name, key->sequence, key->size);
        if (!key->set)
                wrong(w, "a key that was never set", reply);
        else
                expect_text(w, name, reply, w->expected, key->size);
}

/* What was never sent has changed nothing; what a write that may have run leaves behind, now or later, nobody looks at. */
static void note_failure(struct worker *w, unsigned k) {
        if (w->error.may_have_run)
                w->keys[k] = (struct key){.version = w->keys[k].version + 1};
}

static void note_set(struct worker *w, unsigned k, uint64_t epoch, size_t size) {
        struct key *key = &w->keys[k];
        *key = (struct key){
                .version = key->version, .set = true, .sequence = w->sequence, .epoch = epoch, .size = size};
}

static void set(struct worker *w, unsigned k, size_t size) {
        uint64_t epoch = atomic_load(&w->scene->epoch);
        char name[64];
        name_key(w, k, name);
        make_value(w->expected, name, ++w->sequence, size);
        const char *argv[] = {"SET", name, w->expected};
        redisReply *reply = call(w, 3, argv, (size_t[]){3, strlen(name), size});
        if (!reply) {
                note_failure(w, k);
                return;
        }
        expect_text(w, "SET", reply, "OK", 2);
        note_set(w, k, epoch, size);
        freeReplyObject(reply);
}

static void get(struct worker *w, unsigned k) {
        char name[64];
        name_key(w, k, name);
        const char *argv[] = {"GET", name};
        redisReply *reply = call(w, 2, argv, NULL);
        if (!reply)
                return;
        expect_value(w, k, reply);
        freeReplyObject(reply);
}

/* ---- kinds of calls ---------------------------------------------------------------------------------------------------- */

static void set_and_get(struct worker *w, size_t size) {
        unsigned k = roll(&w->random, KEYS);
        set(w, k, size);
        get(w, k);
}

static void make_token(struct worker *w, char token[64]) {
        snprintf(token, 64, "w%u.%llu,%llu", w->index, (unsigned long long)w->ledger->incarnation,
                 (unsigned long long)++w->sequence);
}

static void echo(struct worker *w) {
        char token[64];
        make_token(w, token);
        const char *argv[] = {"ECHO", token};
        redisReply *reply = call(w, 2, argv, NULL);
        if (reply)
                expect_text(w, "ECHO", reply, token, strlen(token));
        freeReplyObject(reply);
}

/* Its caller leaves soon: the answer that comes late must not be the next one's. */
static void echo_in_haste(struct worker *w) {
        char token[64];
        make_token(w, token);
        const char *argv[] = {"ECHO", token};
        begin(w);
        redisReply *reply = lessor_command_idempotent(w->db, (int)roll(&w->random, 4), 2, argv, NULL, &w->error);
        end(w, reply);
        if (reply)
                expect_text(w, "ECHO in haste", reply, token, strlen(token));
        freeReplyObject(reply);
}

static void count(struct worker *w) {
        uint64_t epoch = atomic_load(&w->scene->epoch);
        char name[64];
        snprintf(name, sizeof(name), "w%u.%llu:n.%u", w->index, (unsigned long long)w->ledger->incarnation,
                 w->counter_version);
        const char *argv[] = {"INCR", name};
        redisReply *reply = call(w, 2, argv, NULL);
        if (!reply && w->error.may_have_run) { /* or may still run */
                w->counter_version++;
                w->counter = 0;
        }
        if (!reply)
                return;
        bool afresh = reply->integer == 1 && w->counter_epoch != atomic_load(&w->scene->epoch);
        if (reply->type != REDIS_REPLY_INTEGER || ((uint64_t)reply->integer != w->counter + 1 && !afresh))
                wrong(w, "INCR", reply);
        w->counter = (uint64_t)reply->integer;
        w->counter_epoch = epoch;
        freeReplyObject(reply);
}

static void get_all(struct worker *w) {
        char names[KEYS][64];
        const char *argv[1 + KEYS] = {"MGET"};
        for (unsigned k = 0; k < KEYS; k++) {
                name_key(w, k, names[k]);
                argv[1 + k] = names[k];
        }
        redisReply *reply = call(w, 1 + KEYS, argv, NULL);
        if (!reply)
                return;
        if (reply->type != REDIS_REPLY_ARRAY || reply->elements != KEYS)
                wrong(w, "MGET", reply);
        else
                for (unsigned k = 0; k < KEYS; k++)
                        expect_value(w, k, reply->element[k]);
        freeReplyObject(reply);
}

/* SET, GET, and ECHOs after them: one unit, in order. */
static void run_pipe(struct worker *w, unsigned flags) {
        unsigned echoes = roll(&w->random, 6), k = roll(&w->random, KEYS);
        uint64_t epoch = atomic_load(&w->scene->epoch);
        char name[64], value[128];
        redisReply **replies = NULL;
        size_t n = 0;
        lessor_pipe *p = lessor_pipe_new(w->db, flags);
        child_check(p);
        name_key(w, k, name);
        make_value(value, name, ++w->sequence, sizeof(value));
        child_check(lessor_pipe_add(p, "SET %s %b", name, value, sizeof(value)) == 0);
        child_check(lessor_pipe_add(p, "GET %s", name) == 0);
        for (unsigned i = 0; i < echoes; i++)
                child_check(lessor_pipe_add(p, "ECHO %s:%u", name, i) == 0);
        begin(w);
        end(w, lessor_pipe_run(p, LESSOR_WAIT_CONFIGURED, &replies, &n, &w->error) == 0);
        if (n == 0)
                note_failure(w, k);
        else if (n != 2 + echoes)
                wrong(w, "a pipe with another number of replies", replies[0]);
        else {
                expect_text(w, "SET in a pipe", replies[0], "OK", 2);
                expect_text(w, "GET in a pipe", replies[1], value, sizeof(value));
                note_set(w, k, epoch, sizeof(value));
        }
        for (unsigned i = 2; i < n; i++) {
                snprintf(value, sizeof(value), "%s:%u", name, i - 2);
                expect_text(w, "ECHO in a pipe", replies[i], value, strlen(value));
        }
        lessor_pipe_replies_free(replies, n);
        lessor_pipe_free(p);
}

/* What only a lease can take. */
static void need_a_lease(struct worker *w) {
        bool blocks = roll(&w->random, 2);
        const char *name[] = {"CLIENT", "GETNAME"}, *pop[] = {"BLPOP", "nobody:pushes", "0.01"};
        redisReply *reply = blocks ? call(w, 3, pop, NULL) : call(w, 2, name, NULL);
        if (!reply)
                return;
        if (blocks ? reply->type != REDIS_REPLY_NIL : !reply->str || strncmp(reply->str, "lessor:", 7) != 0)
                wrong(w, blocks ? "BLPOP" : "CLIENT GETNAME", reply);
        freeReplyObject(reply);
}

static void any_call(struct worker *w) {
        unsigned kind = roll(&w->random, 100);
        if (kind < 30)
                set_and_get(w, 40 + roll(&w->random, 40));
        else if (kind < 45)
                set_and_get(w, 100 + roll(&w->random, 3000));
        else if (kind < 47)
                set_and_get(w, 3000 + roll(&w->random, LARGE - 3000));
        else if (kind < 65)
                echo(w);
        else if (kind < 72)
                echo_in_haste(w);
        else if (kind < 80)
                count(w);
        else if (kind < 88)
                get_all(w);
        else if (kind < 97)
                run_pipe(w, kind < 96 ? 0 : LESSOR_ATOMIC);
        else
                need_a_lease(w);
}

static int be_a_worker(unsigned index, void *arg) {
        struct scene *s = arg;
        struct worker w = {.scene = s, .ledger = &s->ledgers[index], .index = index};
        lessor *l;
        w.random = (uint64_t)getpid() << 20 | index;
        w.expected = malloc(LARGE);
        child_check(w.expected && lessor_open(s->socket, &l) == 0);
        child_check(wait_until(lessor_database(l, NULL, &w.db, &w.error) == 0, WAIT_MS));
        while (!atomic_load(&s->end))
                any_call(&w);
        child_check(fd_count(getpid()) < 64);
        lessor_close(l);
        free(w.expected);
        return 0;
}

/* ---- what happens to them ---------------------------------------------------------------------------------------------- */

struct show {
        struct host host;
        struct scene *scene;
        struct workers workers[WORKERS];
        uint64_t random, cut; /* calls in which a worker was killed */
        unsigned kills, restarts, pauses;
};

#define sum(scene, field)                                                                                              \
        __extension__({                                                                                                \
                uint64_t sum_ = 0;                                                                                     \
                for (unsigned sum_i_ = 0; sum_i_ < WORKERS; sum_i_++)                                                  \
                        sum_ += atomic_load(&(scene)->ledgers[sum_i_].field);                                          \
                sum_;                                                                                                  \
        })

static uint64_t open_calls(struct ledger *l) { return l->begun - l->done - l->never_sent - l->may_have_run; }

static unsigned next_index; /* of the worker that is forked next */

static int be_the_next_worker(unsigned index, void *arg) { return be_a_worker(next_index, arg); }

static void start_worker(struct show *show, unsigned index) {
        next_index = index;
        workers_start(&show->workers[index], 1, be_the_next_worker, show->scene);
}

static void kill_one(struct show *show) {
        unsigned n = roll(&show->random, WORKERS);
        struct ledger *l = &show->scene->ledgers[n];
        workers_kill(&show->workers[n], 0);
        uint64_t cut = open_calls(l);
        check_msg(cut <= 1, "a killed worker had %llu calls open", (unsigned long long)cut);
        show->cut += cut;
        atomic_fetch_add(&l->never_sent, cut); /* his books are closed; counted apart */
        atomic_fetch_add(&l->incarnation, 1);
        start_worker(show, n);
        show->kills++;
}

static void check_cap(struct show *show) {
        unsigned n = redis_connections(&show->host.redis, NULL);
        check_msg(n <= CAP, "%u connections", n);
        check_eq(redis_info(&show->host.redis, "rejected_connections"), 0);
}

/* From now on Redis refuses one connection too many, and says so. */
static void guard_cap(struct show *show) {
        redis_say(&show->host.redis, "CONFIG SET maxclients %d", CAP + 1);
        redis_say(&show->host.redis, "CONFIG RESETSTAT");
}

static void restart_redis(struct show *show) {
        check_cap(show);
        atomic_fetch_add(&show->scene->epoch, 1);
        redis_kill(&show->host.redis);
        uint64_t failed = sum(show->scene, never_sent) + sum(show->scene, may_have_run);
        check_soon(sum(show->scene, never_sent) + sum(show->scene, may_have_run) > failed, WAIT_MS);
        redis_restart(&show->host.redis);
        atomic_fetch_add(&show->scene->epoch, 1);
        guard_cap(show);
        show->restarts++;
}

/*
 * A Redis that stood still for longer than a closed connection lingers (broker/README.md, "A close lingers") accepts, when it
 * wakes, dials that were given up and their successors before it reads that the older ones have ended: that is let pass.
 */
static void settle(struct show *show) {
        check_soon(redis_connections(&show->host.redis, NULL) <= CAP, WAIT_MS);
        redis_say(&show->host.redis, "CONFIG RESETSTAT");
}

/* Until a deadline has passed over every command that was sent; or over many that were not, if the breaker was open by then. */
static void pause_redis(struct show *show) {
        uint64_t sent = sum(show->scene, may_have_run), unsent = sum(show->scene, never_sent);
        redis_pause(&show->host.redis);
        check_soon(sum(show->scene, may_have_run) > sent + WORKERS ||
                           sum(show->scene, never_sent) > unsent + 5 * WORKERS,
                   WAIT_MS);
        redis_resume(&show->host.redis);
        settle(show);
        show->pauses++;
}

static void disturb(struct show *show, unsigned event) {
        if (event % 10 == 4)
                restart_redis(show);
        else if (event % 10 == 9)
                pause_redis(show);
        else
                kill_one(show);
        check_cap(show);
}

static void run(struct show *show, uint64_t calls, unsigned events) {
        for (unsigned i = 0; i < events; i++) {
                uint64_t mark = calls * (i + 1) / (events + 1), before;
                while ((before = sum(show->scene, done)) < mark)
                        check_soon(sum(show->scene, done) >= mark || sum(show->scene, done) > before + WORKERS,
                                   WAIT_MS);
                disturb(show, i);
        }
        check_soon(sum(show->scene, done) >= calls, 600000);
}

static void check_accounts(struct show *show) {
        struct scene *s = show->scene;
        uint64_t longest = 0;
        for (unsigned i = 0; i < WORKERS; i++) {
                check_eq(open_calls(&s->ledgers[i]), 0);
                longest = s->ledgers[i].longest_ms > longest ? s->ledgers[i].longest_ms : longest;
        }
        fprintf(stderr,
                "%d workers, %llu calls: %llu done, %llu never sent, %llu may have run, %llu cut by %u kills; %u "
                "restarts and "
                "%u standstills of Redis; the longest call %llu ms\n",
                WORKERS, (unsigned long long)sum(s, begun), (unsigned long long)sum(s, done),
                (unsigned long long)(sum(s, never_sent) - show->cut), (unsigned long long)sum(s, may_have_run),
                (unsigned long long)show->cut, show->kills, show->restarts, show->pauses, (unsigned long long)longest);
        check_eq(sum(s, wrong), 0);
        check_msg(longest < STUCK_MS * PROCESS_SLOW, "a call took %llu ms", (unsigned long long)longest);
}

static void finish(struct show *show) {
        unsigned good = 0;
        atomic_store(&show->scene->end, true);
        for (unsigned i = 0; i < WORKERS; i++)
                good += workers_wait(&show->workers[i], WAIT_MS);
        check_accounts(show);
        check_eq(good, WORKERS);
        struct lessor_status_database figures = broker_figures_now(&show->host.broker, "main");
        check(figures.peak_connections <= CAP);
        check_msg(figures.lane_calls > sum(show->scene, done) / 2, "%llu by lane",
                  (unsigned long long)figures.lane_calls);
        host_end(&show->host);
}

static unsigned millions(void) {
        const char *torture = getenv("LESSOR_TORTURE");
        unsigned n = torture ? (unsigned)strtoul(torture, NULL, 10) : 1;
        return n > 1 ? n : getenv("LESSOR_RELEASE") ? 1 : 0;
}

TEST_WITH(million, every_call_of_a_crowd_gets_its_own_reply_or_is_said_to_have_failed, .timeout = 3600) {
        struct show *show = calloc(1, sizeof(*show));
        check(show);
        show->scene = shared_memory(sizeof(*show->scene));
        show->random = (uint64_t)getpid();
        host_start(&show->host,
                   "path: lane, max_connections: 20, wait_timeout: 5s, socket_timeout: 1s, retry_base: 50ms, "
                   "retry_max: 200ms, breaker_open_time: 1s");
        guard_cap(show);
        show->scene->socket = show->host.broker.socket;
        for (unsigned i = 0; i < WORKERS; i++)
                start_worker(show, i);
        if (millions())
                run(show, millions() * UINT64_C(1000000), 300);
        else
                run(show, QUICK, QUICK_EVENTS);
        finish(show);
        free(show);
}

/* SPDX-License-Identifier: MIT */
/*
 * Lanes in the hands of those who mean no good: what a lane may not carry is refused, or ends the session; garbage in the
 * rings, a worker who never reads his replies, one who is killed in mid-traffic harm nobody else.
 */
#include <stdatomic.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "support/check.h"
#include "support/host.h"
#include "support/lanes.h"
#include "support/process.h"

enum { WAIT_MS = 30000 };

static void attach(struct lanes *l, const struct host *h) {
        check_msg(lanes_attach(l, h->broker.socket, "main"), "no lane");
}

static void check_served(struct lanes *l, unsigned n) {
        for (unsigned i = 0; i < n; i++) {
                char command[64], reply[96];
                snprintf(command, sizeof(command), "ECHO served-%04u", i);
                snprintf(reply, sizeof(reply), "$11\r\nserved-%04u\r\n", i);
                check_soon(lanes_say(l, i + 1, command) == LANE_SUBMIT_DONE,
                           WAIT_MS); /* it may be full of what was cancelled */
                check(lanes_expect(l, i + 1, reply));
        }
}

static void small_lanes(struct host *h) {
        redis_start(&h->redis, NULL);
        broker_start(&h->broker, "lane_size: 4KiB\ndatabases: {main: {%s, max_connections: 4}}\n",
                     redis_address(&h->redis));
}

/* ---- what does not belong there ----------------------------------------------------------------------------------------- */

TEST(garbage_lanes, a_submission_is_answered_under_its_tag_many_at_a_time) {
        struct lanes l;
        struct host h;
        host_start(&h, "max_connections: 2");
        attach(&l, &h);
        check_served(&l, 300);
        for (uint64_t round = 0; round < 20; round++) {
                for (uint64_t i = 0; i < 50; i++)
                        check_eq(lanes_say(&l, UINT64_MAX - i, "PING"), LANE_SUBMIT_DONE);
                for (uint64_t i = 0; i < 50; i++)
                        check(lanes_expect(&l, UINT64_MAX - i, "+PONG\r\n"));
        }
        lanes_detach(&l);
        host_end(&h);
}

static long long calls_of(struct redis *r, const char *command) {
        char field[64], *at;
        redisReply *reply = redis_ask(r, "INFO commandstats");
        snprintf(field, sizeof(field), "cmdstat_%s:calls=", command);
        at = strstr(reply->str, field);
        long long n = at ? strtoll(at + strlen(field), NULL, 10) : 0;
        freeReplyObject(reply);
        return n;
}

TEST(garbage_lanes, what_blocks_or_changes_the_connection_is_refused_and_never_sent) {
        static const char *const commands[] = {"BLPOP k 0",
                                               "MULTI",
                                               "EXEC",
                                               "WATCH k",
                                               "SUBSCRIBE c",
                                               "MONITOR",
                                               "SELECT 1",
                                               "CLIENT REPLY OFF",
                                               "QUIT",
                                               "RESET",
                                               "HELLO 3",
                                               "AUTH x y",
                                               "WAIT 1 0",
                                               "SHUTDOWN",
                                               "XREAD BLOCK 0 STREAMS s $",
                                               "DEBUG SLEEP 100",
                                               "blmove a b left right 0",
                                               "NOSUCHCOMMAND"};
        static const char *const never[] = {"blpop", "multi", "monitor", "subscribe", "client|reply", "shutdown"};
        enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };
        struct lane_answer answer;
        struct lanes l;
        struct host h;
        host_start(&h, "max_connections: 2");
        attach(&l, &h);
        check_served(&l, 10); /* the server has been asked what its commands are */
        for (unsigned i = 0; i < COMMANDS; i++) {
                check_eq(lanes_say(&l, 1000 + i, commands[i]), LANE_SUBMIT_DONE);
                check_msg(lanes_reap(&l, &answer), "%s", commands[i]);
                check_msg(answer.tag == 1000 + i && answer.outcome == LESSOR_E_NEEDS_LEASE &&
                                  !(answer.flags & LANE_MAY_HAVE_RUN) && answer.length > 0,
                          "%s: outcome %d", commands[i], answer.outcome);
                lane_release(&l.worker);
        }
        check_served(&l, 10);
        for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++)
                check_msg(calls_of(&h.redis, never[i]) == 0, "%s was sent", never[i]);
        check_figure(&h.broker, "main", lane_refused, COMMANDS);
        lanes_detach(&l);
        host_end(&h);
}

static int outcome_of(struct lanes *l, uint64_t tag) {
        struct lane_answer answer;
        check(lanes_reap(l, &answer) && answer.tag == tag);
        lane_release(&l->worker);
        return answer.outcome;
}

TEST(garbage_lanes, what_is_linked_to_a_refused_command_is_refused_with_it) {
        static const struct {
                const char *command;
                uint32_t flags;
                int outcome;
        } said[] = {
                {"PING", LANE_LINKED, 0}, /* to nothing */
                {"PING", 0, 0},
                {"PING", LANE_LINKED, 0},
                {"BLPOP k 0", LANE_LINKED, LESSOR_E_NEEDS_LEASE},
                {"PING", LANE_LINKED, LESSOR_E_NEEDS_LEASE},
                {"PING", LANE_LINKED | 8, LESSOR_E_NEEDS_LEASE},
                {"PING", 8, 0},
                {"PING", LANE_LINKED, 0},
        };
        struct lanes l;
        struct host h;
        host_start(&h, "max_connections: 2");
        attach(&l, &h);
        for (unsigned i = 0; i < ARRAY_SIZE(said); i++) {
                l.flags = said[i].flags;
                check_eq(lanes_say(&l, 50 + i, said[i].command), LANE_SUBMIT_DONE);
                check_eq(outcome_of(&l, 50 + i), said[i].outcome);
        }
        lanes_detach(&l);
        host_end(&h);
}

TEST_WITH(garbage_lanes, what_is_not_exactly_one_command_ends_the_session_and_no_other, .timeout = 120) {
        static const struct {
                const char *data;
                size_t size;
        } bad[] = {
#define BAD(text) {text, sizeof(text) - 1}
                BAD("PING\r\n"),
                BAD("*1\r\n$4\r\nPIN"),
                BAD("*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n"),
                BAD("*1\r\n$4\r\nPING\r\n\r\n"),
                BAD("*0\r\n"),
                BAD("*-1\r\n"),
                BAD("*2\r\n$4\r\nPING\r\n"),
                BAD("*1\r\n$-1\r\n"),
                BAD("*1\r\n$999999999\r\nPING\r\n"),
                BAD("*99999999999999999999\r\n$4\r\nPING\r\n"),
                BAD("*1\r\n$4\r\nPINGxx"),
                BAD("*1\r\n:4\r\nPING\r\n"),
                BAD("\0\0\0\0\0\0\0\0"),
                BAD("\r\n"),
                BAD("*"),
        };
        struct lanes neighbour;
        struct host h;
        host_start(&h, "max_connections: 2");
        attach(&neighbour, &h);
        check_served(&neighbour, 10);
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct lanes l;
                bool fatal = false;
                attach(&l, &h);
                check_eq(lanes_submit(&l, 1, bad[i].data, bad[i].size), LANE_SUBMIT_DONE);
                check_msg(raw_ended(l.socket, &fatal) && fatal, "the session lives after `%s`", bad[i].data);
                lanes_detach(&l);
                check_served(&neighbour, 5);
        }
        lanes_detach(&neighbour);
        host_end(&h);
}

TEST(garbage_lanes, a_database_that_is_not_there_is_said_not_to_be) {
        struct lane_answer answer;
        struct lanes l;
        struct host h;
        host_start(&h, "max_connections: 2");
        attach(&l, &h);
        uint32_t right = l.database;
        for (unsigned i = 0; i < 3; i++) {
                l.database = (uint32_t[]){1, LESSOR_DATABASES_MAX, UINT32_MAX}[i];
                check_eq(lanes_say(&l, 5, "PING"), LANE_SUBMIT_DONE);
                check(lanes_reap(&l, &answer));
                check_eq(answer.outcome, LESSOR_E_UNKNOWN_DATABASE);
                lane_release(&l.worker);
        }
        l.database = right;
        check_served(&l, 5);
        lanes_detach(&l);
        host_end(&h);
}

static bool is_shown_out(const struct host *h, uint32_t thread, unsigned times) {
        struct lessor_msg_lane m = {.header = {.type = LESSOR_MSG_LANE, .size = sizeof(m), .request = 9}};
        struct lanes l;
        bool fatal = false;
        attach(&l, h);
        m.thread = thread;
        for (unsigned i = 0; i < times; i++)
                raw_say(l.socket, &m);
        bool ended = raw_ended(l.socket, &fatal);
        lanes_detach(&l);
        return ended && fatal;
}

TEST(garbage_lanes, a_second_lane_to_a_thread_or_one_to_none_ends_the_session) {
        struct host h;
        host_start(&h, "max_connections: 2");
        check(is_shown_out(&h, 0, 2));
        check(is_shown_out(&h, LESSOR_THREADS_MAX, 1));
        check(is_shown_out(&h, UINT32_MAX, 1));
        host_end(&h);
}

/* ---- what was taken back ------------------------------------------------------------------------------------------------ */

TEST(garbage_lanes, what_was_cancelled_before_it_was_taken_is_not_sent) {
        struct lane_request request = {.tag = 77, .deadline_ns = UINT64_MAX};
        static const char incr[] = "*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n";
        unsigned cancelled = 0;
        uint64_t position;
        struct lanes l;
        struct host h;
        host_start(&h, "max_connections: 2");
        attach(&l, &h);
        check_served(&l, 5);
        request.database = l.database;
        request.length = sizeof(incr) - 1;
        for (unsigned i = 0; i < 200; i++) {
                check_soon(lane_submit(&l.worker, &request, incr, &position) == LANE_SUBMIT_DONE, WAIT_MS);
                if (lane_cancel(&l.worker, position))
                        cancelled++;
                else {
                        struct lane_answer answer;
                        check(lanes_reap(&l, &answer) && answer.tag == 77 && answer.outcome == 0);
                        lane_release(&l.worker);
                }
                lanes_ring(&l);
        }
        check_served(&l, 5);
        check_eq(redis_integer(&h.redis, "INCRBY n 0"), 200 - cancelled);
        lanes_detach(&l);
        host_end(&h);
}

/* ---- a reader who never reaps ------------------------------------------------------------------------------------------- */

static unsigned fill_up(struct lanes *l) {
        unsigned n = 0;
        uint64_t deadline = deadline_in(2000);
        /* Until nothing more is taken for a while: what the broker has not taken stays in the ring. */
        while (n < 100000) {
                if (lanes_say(l, n + 1, "GET large") == LANE_SUBMIT_DONE) {
                        n++;
                        deadline = deadline_in(500);
                } else if (!look_again_before(deadline))
                        break;
        }
        return n;
}

static void check_all_arrive(struct lanes *l, unsigned n, const char *reply) {
        for (unsigned i = 0; i < n; i++)
                check_msg(lanes_expect(l, i + 1, reply), "reply %u of %u", i, n);
}

TEST_WITH(garbage_lanes, who_never_reads_his_replies_harms_nobody_and_finds_them_all_when_he_does, .timeout = 120) {
        enum { HOARDERS = 8, SIZE = 3000 };
        struct lanes hoarders[HOARDERS], neighbour;
        unsigned n[HOARDERS];
        char value[SIZE + 1], reply[SIZE + 16];
        struct host h;
        small_lanes(&h);
        memset(value, 'v', SIZE);
        value[SIZE] = '\0';
        snprintf(reply, sizeof(reply), "$%d\r\n%s\r\n", SIZE, value);
        redis_say(&h.redis, "SET large %s", value);
        attach(&neighbour, &h);
        for (unsigned i = 0; i < HOARDERS; i++) {
                attach(&hoarders[i], &h);
                n[i] = fill_up(&hoarders[i]);
                check(n[i] > 1);
                check_served(&neighbour, 20);
        }
        check_served(&neighbour, 200);
        for (unsigned i = 0; i < HOARDERS / 2; i++)
                check_all_arrive(&hoarders[i], n[i], reply);
        for (unsigned i = 0; i < HOARDERS; i++) /* half of them with everything still unread */
                lanes_detach(&hoarders[i]);
        check_served(&neighbour, 20);
        lanes_detach(&neighbour);
        host_end(&h);
}

/* What the broker has allocated, in KiB: its lanes' shared memory is counted elsewhere. */
static long broker_heap(const struct broker *b) {
        char path[64], line[128];
        long kib = -1;
        snprintf(path, sizeof(path), "/proc/%d/status", (int)b->pid);
        FILE *f = fopen(path, "re");
        while (f && fgets(line, sizeof(line), f))
                sscanf(line, "RssAnon: %ld", &kib);
        if (f)
                fclose(f);
        check(kib > 0);
        return kib;
}

/* How many of the replies that were asked for came; of the others it is said that they did not. */
static unsigned reap_all(struct lanes *l, unsigned n, size_t size) {
        struct lane_answer answer;
        unsigned whole = 0;
        for (unsigned i = 0; i < n; i++) {
                check_msg(lanes_reap(l, &answer), "reply %u of %u", i, n);
                if (answer.outcome == 0)
                        check(answer.length > size && ++whole);
                else
                        check(answer.outcome == LESSOR_E_LIMIT && answer.flags & LANE_MAY_HAVE_RUN);
                if (lane_release(&l->worker))
                        lanes_ring(l);
        }
        return whole;
}

/* Each has 3.5 MiB of replies under way of which hardly any fit into his lane: together 55 MiB, where 4 are allowed. */
TEST_WITH(garbage_lanes, those_who_never_read_have_one_budget_together, .timeout = 120) {
        enum { HOARDERS = 16, CALLS = 60, SIZE = 60000, BUDGET_KIB = 4096, SLACK_KIB = 4096 };
        static char value[SIZE + 1];
        struct lanes hoarders[HOARDERS], neighbour;
        unsigned whole = 0;
        struct host h;
        redis_start(&h.redis, NULL);
        broker_start(&h.broker,
                     "reply_budget: %dKiB\ndatabases: {main: {%s, max_connections: 8, socket_timeout: 50s}}\n",
                     BUDGET_KIB, redis_address(&h.redis));
        memset(value, 'v', SIZE);
        redis_say(&h.redis, "SET large %s", value);
        attach(&neighbour, &h);
        check_served(&neighbour, 50);
        for (unsigned i = 0; i < HOARDERS; i++)
                attach(&hoarders[i], &h);
        uint64_t before = broker_figures_now(&h.broker, "main").lane_calls;
        redis_pause(&h.redis); /* all of it is to be under way before anything comes back */
        for (unsigned i = 0; i < HOARDERS; i++)
                for (unsigned k = 0; k < CALLS; k++)
                        check_eq(lanes_say(&hoarders[i], k + 1, "GET large"), LANE_SUBMIT_DONE);
        check_figure_soon(&h.broker, "main", lane_calls, before + HOARDERS * CALLS, WAIT_MS);
        long heap = broker_heap(&h.broker);
        redis_resume(&h.redis);
        check_served(&neighbour, 50); /* behind all of them */
        long grown = broker_heap(&h.broker) - heap;
        /* A sanitizer's shadow of it grows, too, and what is freed is kept for a while. */
        check_msg(PROCESS_SLOW > 1 || grown < BUDGET_KIB + SLACK_KIB, "%ld KiB, of which %d are allowed", grown,
                  BUDGET_KIB);
        for (unsigned i = 0; i < HOARDERS / 2; i++)
                whole += reap_all(&hoarders[i], CALLS, SIZE);
        check_msg(whole >= HOARDERS / 2, "%u", whole);
        for (unsigned i = 0; i < HOARDERS; i++) /* half of them with everything still unread */
                lanes_detach(&hoarders[i]);
        check_soon(broker_sessions(&h.broker) == 1, WAIT_MS);
        attach(&hoarders[0], &h); /* and there is room again */
        for (unsigned k = 0; k < 20; k++)
                check_eq(lanes_say(&hoarders[0], k + 1, "GET large"), LANE_SUBMIT_DONE);
        check_served(&neighbour, 50);
        check_eq(reap_all(&hoarders[0], 20, SIZE), 20);
        lanes_detach(&hoarders[0]);
        lanes_detach(&neighbour);
        host_end(&h);
}

/* ---- killed in mid-traffic ---------------------------------------------------------------------------------------------- */

struct scene {
        const char *socket;
        _Atomic bool end;
        _Atomic uint64_t submitted, served, sessions;
};

static int submit_for_ever(unsigned index, void *arg) {
        struct scene *s = arg;
        struct lane_answer answer;
        struct lanes l;
        child_check(lanes_attach(&l, s->socket, "main"));
        for (uint64_t tag = 1;; tag++) {
                if (lanes_say(&l, tag, "ECHO unread") == LANE_SUBMIT_DONE)
                        atomic_fetch_add(&s->submitted, 1);
                else
                        while (lane_reap(&l.worker, &answer) == LANE_REAP_DONE)
                                if (lane_release(&l.worker))
                                        lanes_ring(&l);
        }
}

static int be_served(unsigned index, void *arg) {
        struct scene *s = arg;
        struct lanes l;
        char command[64], reply[96];
        child_check(lanes_attach(&l, s->socket, "main"));
        for (uint64_t i = 1; !atomic_load(&s->end); i++) {
                snprintf(command, sizeof(command), "ECHO %u-%014llu", index, (unsigned long long)i);
                snprintf(reply, sizeof(reply), "$16\r\n%s\r\n", command + 5);
                child_check(lanes_say(&l, i, command) == LANE_SUBMIT_DONE && lanes_expect(&l, i, reply));
                atomic_fetch_add(&s->served, 1);
        }
        lanes_detach(&l);
        return 0;
}

TEST_WITH(garbage_lanes, a_worker_killed_in_mid_traffic_disturbs_no_other_lane, .timeout = 120) {
        enum { KILLS = 30 };
        struct scene *s = shared_memory(sizeof(*s));
        struct workers victim, others;
        struct host h;
        host_start(&h, "max_connections: 2");
        s->socket = h.broker.socket;
        workers_start(&others, 3, be_served, s);
        for (unsigned i = 0; i < KILLS; i++) {
                uint64_t submitted = s->submitted, served = s->served;
                workers_start(&victim, 1, submit_for_ever, s);
                check_soon(s->submitted > submitted + 100 + 37 * i, WAIT_MS);
                workers_kill(&victim, 0);
                check_soon(s->served > served + 10, WAIT_MS);
        }
        atomic_store(&s->end, true);
        check_eq(workers_wait(&others, WAIT_MS), 3);
        host_end(&h);
}

TEST(garbage_lanes, replies_to_one_who_is_gone_are_thrown_away) {
        enum { CALLS = 5 };
        struct lanes l, neighbour;
        struct host h;
        host_start(&h, "max_connections: 2, socket_timeout: 50s");
        attach(&neighbour, &h);
        check_served(&neighbour, 5);
        attach(&l, &h);
        uint64_t before = broker_figures_now(&h.broker, "main").lane_calls;
        redis_pause(&h.redis);
        for (uint64_t tag = 1; tag <= CALLS; tag++)
                check_eq(lanes_say(&l, tag, "ECHO unread"), LANE_SUBMIT_DONE);
        check_figure_soon(&h.broker, "main", lane_calls, before + CALLS, WAIT_MS);
        lanes_detach(&l);
        check_soon(broker_sessions(&h.broker) == 1, WAIT_MS);
        redis_resume(&h.redis);
        check_served(&neighbour, 20);
        check_figure(&h.broker, "main", lane_discarded, CALLS);
        lanes_detach(&neighbour);
        host_end(&h);
}

/* ---- garbage ------------------------------------------------------------------------------------------------------------ */

static uint64_t state;
static uint64_t roll(uint64_t n) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (state >> 20) % n;
}
static uint64_t random64(void) { return roll(UINT64_C(1) << 32) << 32 | roll(UINT64_C(1) << 32); }

static void store_word(struct lanes *l, size_t offset, uint64_t value) {
        __atomic_store_n((uint64_t *)(void *)(l->memory + offset / 8 * 8), value, __ATOMIC_RELAXED);
}

/* What the header says by now may be nonsense; where the rings are was read before. */
static void spoil(struct lanes *l) {
        size_t rings = (size_t)((char *)l->worker.submissions - l->memory);
        struct lessor_submission *s = &l->worker.submissions[roll(l->worker.entries)];
        switch (roll(6)) {
        case 0: /* everything */
                for (size_t i = 0; i < l->size; i += 8)
                        store_word(l, i, random64());
                break;
        case 1: /* the header */
                store_word(l, roll(sizeof(struct lessor_lane)), random64());
                break;
        case 2: /* near values, where far ones are seen through at once */
                store_word(l, 64 + roll(128), l->worker.next + roll(600) - 300);
                break;
        case 3: /* entries, as if they were next */
                atomic_store(&s->state, (l->worker.next + roll(3)) << LANE_STATE_BITS | roll(4));
                atomic_store(&s->offset, (uint32_t)random64());
                atomic_store(&s->length, (uint32_t)roll(UINT64_C(1) << roll(33)));
                break;
        case 4: /* completions */
                store_word(l, rings + roll(l->size - rings), random64());
                break;
        default: /* requests, while they are read */
                for (uint32_t i = 0; i < l->worker.area.size; i++)
                        l->worker.requests[i] = (char)random64();
                break;
        }
}

static void one_vandal(struct scene *s) {
        struct lanes l;
        if (!lanes_attach(&l, s->socket, "main"))
                return;
        atomic_fetch_add(&s->sessions, 1);
        for (unsigned i = 0; i < 50 && !atomic_load(&s->end); i++) {
                for (uint64_t n = roll(40); n > 0; n--)
                        lanes_say(&l, random64(), "ECHO x");
                if (roll(3) == 0)
                        spoil(&l);
                for (uint64_t n = roll(10) ? 1 : 2000; n > 0; n--)
                        lanes_ring(&l);
        }
        lanes_detach(&l);
}

static int vandalise(unsigned index, void *arg) {
        struct scene *s = arg;
        state = 4711 + index;
        while (!atomic_load(&s->end))
                one_vandal(s);
        return 0;
}

TEST_WITH(garbage_lanes, garbage_in_the_rings_is_the_trouble_of_who_wrote_it, .timeout = 120) {
        struct scene *s = shared_memory(sizeof(*s));
        struct workers vandals, others;
        struct host h;
        small_lanes(&h);
        s->socket = h.broker.socket;
        workers_start(&others, 2, be_served, s);
        workers_start(&vandals, 2, vandalise, s);
        bool enough = wait_until(s->sessions > 300 && s->served > 1000, 60000);
        atomic_store(&s->end, true);
        check_eq(workers_wait(&vandals, WAIT_MS), 2);
        check_eq(workers_wait(&others, WAIT_MS), 2);
        fprintf(stderr, "%llu sessions of vandals; the neighbours: %llu calls\n", (unsigned long long)s->sessions,
                (unsigned long long)s->served);
        check(enough);
        host_end(&h);
}

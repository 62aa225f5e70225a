/* SPDX-License-Identifier: MIT */
/*
 * Servers that answer, and say no: each kind has its error, its word in `lessor health` and its number in the status segment;
 * none trips the breaker, none is dialled hot, and each is over by itself when the server has changed its mind.
 */
#include "support/check.h"
#include "support/host.h"
#include "support/process.h"

enum { WAIT_MS = 20000 };

static int outcome_of(lessor_db *db, int wait_ms, lessor_error *e) {
        lessor_lease *lease = lessor_acquire(db, wait_ms, e);
        if (!lease)
                return e->code;
        lessor_release(lease);
        return 0;
}

/* What `lessor health` says. */
static void check_named(const struct broker *b, int status, enum lessor_trouble trouble, const char *says) {
        const char *const argv[] = {tool_path(), "health", "--instance", b->instance, NULL};
        const char *const json[] = {tool_path(), "health", "--json", "--instance", b->instance, NULL};
        char *text, word[64];

        check_figure(b, "main", trouble, trouble);
        snprintf(word, sizeof(word), "(%s)", lessor_trouble_word((uint64_t)trouble));
        check_eq(program_run(argv, &text, WAIT_MS), status);
        check_msg(strstr(text, says) && strstr(text, word), "`%s` does not say `%s`, `%s`", text, says, word);
        free(text);
        snprintf(word, sizeof(word), "\"trouble\":\"%s\"", lessor_trouble_word((uint64_t)trouble));
        check_eq(program_run(json, &text, WAIT_MS), status);
        check_msg(strstr(text, word), "`%s` does not say `%s`", text, word);
        free(text);
}

/* Twenty callers, one after the other, are told the same; few dials are made for them. */
static void check_classified(struct redis *r, const char *keys, int outcome, enum lessor_trouble trouble,
                             const char *says) {
        struct broker b;
        lessor_error e = {0};

        broker_start(&b, "databases: {main: {%s, %s, breaker_failures: 1}}\n", redis_address(r), keys);
        lessor *l = client_open(&b);
        lessor_db *db = client_database(l, NULL);
        for (unsigned i = 0; i < 20; i++)
                check_msg(outcome_of(db, 300, &e) == outcome, "%d: %s", e.code, e.text);
        check_msg(strstr(e.text, says), "`%s` does not say `%s`", e.text, says);
        check_figure(&b, "main", breaker_trips, 0);
        check_figure(&b, "main", health, LESSOR_HEALTH_FAILED);
        check(broker_figures_now(&b, "main").failed_connections <= 10);
        check_named(&b, 2, trouble, says);
        lessor_close(l);
        broker_free(&b);
}

TEST(refusals, each_is_named_and_trips_nothing) {
        struct redis r;
        redis_start(&r, &(struct redis_options){
                                .tcp = true,
                                .password = "secret",
                                .config = "user nobody on >nothing ~* &* -@all +auth +ping\nuser off off >nothing"});
        check_classified(&r, "db: 0", LESSOR_E_CREDENTIALS, LESSOR_TROUBLE_NOAUTH, "NOAUTH");
        check_classified(&r, "password: wrong", LESSOR_E_CREDENTIALS, LESSOR_TROUBLE_WRONGPASS, "WRONGPASS");
        check_classified(&r, "username: off, password: nothing", LESSOR_E_CREDENTIALS, LESSOR_TROUBLE_WRONGPASS,
                         "WRONGPASS");
        check_classified(&r, "username: nobody, password: nothing, db: 1", LESSOR_E_CREDENTIALS, LESSOR_TROUBLE_NOPERM,
                         "NOPERM");
        check_classified(&r, "password: secret, db: 99", LESSOR_E_CREDENTIALS, LESSOR_TROUBLE_WRONG_DB, "out of range");
        redis_say(&r, "CONFIG SET maxclients 1");
        check_classified(&r, "password: secret", LESSOR_E_UPSTREAM, LESSOR_TROUBLE_MAXCLIENTS, "max number of clients");
        redis_stop(&r);
}

TEST(refusals, a_password_mended_on_the_server_is_found_out_without_help) {
        struct broker b;
        struct redis r;
        lessor_error e = {0};

        redis_start(&r, &(struct redis_options){.config = "user worker on >before ~* &* +@all"});
        broker_start(&b,
                     "databases: {main: {%s, username: worker, password: after, retry_base: 50ms, retry_max: 100ms}}\n",
                     redis_address(&r));
        lessor *l = client_open(&b);
        lessor_db *db = client_database(l, NULL);
        check_eq(outcome_of(db, WAIT_MS, &e), LESSOR_E_CREDENTIALS);
        redis_say(&r, "ACL SETUSER worker >after");
        check_soon(outcome_of(db, WAIT_MS, &e) == 0, WAIT_MS);
        check_figure_soon(&b, "main", trouble, LESSOR_TROUBLE_NONE, WAIT_MS);
        check_figure(&b, "main", health, LESSOR_HEALTH_HEALTHY);
        lessor_close(l);
        check_settled(&b, &r);
        broker_free(&b);
        redis_stop(&r);
}

/* ---- a server that will be ready by itself ---------------------------------------------------------------------------- */

static int waits(unsigned index, void *arg) {
        lessor_error e = {0};
        lessor *l = client_open(arg);
        lessor_lease *lease = lessor_acquire(client_database(l, NULL), 2 * WAIT_MS, &e);
        if (!lease)
                fprintf(stderr, "waiter %u: %d %s\n", index, e.code, e.text);
        lessor_release(lease);
        lessor_close(l);
        return lease ? 0 : 1;
}

/* While it lasts: one who does not wait for long is told, those who wait wait, it is polled once a second and trips nothing. */
static void check_waited_for(struct host *h, enum lessor_trouble trouble, const char *says,
                             void (*end)(struct redis *)) {
        struct workers workers;
        lessor_error e = {0};
        lessor *l = client_open(&h->broker);
        lessor_db *db = client_database(l, NULL);

        check_soon(outcome_of(db, 200, &e) == LESSOR_E_LOADING,
                   WAIT_MS); /* who leaves before the dial's end is not told */
        check_msg(strstr(e.text, says), "`%s` does not say `%s`", e.text, says);
        check_named(&h->broker, 2, trouble, says);
        workers_start(&workers, 8, waits, &h->broker);
        check_figure_soon(&h->broker, "main", waiting, 8, WAIT_MS);
        uint64_t before = broker_figures_now(&h->broker, "main").retry_attempts, began = now_ms();
        check_soon(broker_figures(&h->broker, "main").retry_attempts >= before + 2, WAIT_MS);
        uint64_t polled = broker_figures(&h->broker, "main").retry_attempts - before;
        check_msg(polled <= (now_ms() - began) / 1000 + 2, "%llu dials", (unsigned long long)polled);
        check_eq(outcome_of(db, 200, &e), LESSOR_E_LOADING);
        end(&h->redis);
        check_eq(workers_wait(&workers, WAIT_MS), 8);
        struct lessor_status_database d = broker_figures_now(&h->broker, "main");
        check_eq(d.failed_connections, 0);
        check_eq(d.breaker_trips, 0);
        check_eq(d.breaker_failures, 0);
        check_eq(d.trouble, LESSOR_TROUBLE_NONE);
        check_eq(d.health, LESSOR_HEALTH_HEALTHY);
        lessor_close(l);
}

static void load_faster(struct redis *r) { redis_say(r, "CONFIG SET key-load-delay 0"); }

/* A real Redis that reads its snapshot back, a millisecond a key, until it is told to hurry. */
TEST(refusals, a_server_that_loads_its_data_is_waited_for) {
        struct host h;
        const char *const keys = "breaker_failures: 1";

        redis_start(&h.redis, &(struct redis_options){.config = "loading-process-events-interval-bytes 1024\n"
                                                                "dbfilename loading.rdb"});
        redis_say(&h.redis, "DEBUG POPULATE 60000 key 100");
        redis_say(&h.redis, "SAVE");
        redis_restart_loading(&h.redis, "key-load-delay 1000");
        broker_start(&h.broker, "databases: {main: {%s, %s}}\n", redis_address(&h.redis), keys);
        check_waited_for(&h, LESSOR_TROUBLE_LOADING, "LOADING", load_faster);
        host_end(&h);
}

static void kill_script(struct redis *r) { redis_say(r, "SCRIPT KILL"); }

TEST(refusals, a_server_that_is_busy_with_a_script_is_waited_for) {
        struct host h;

        redis_start(&h.redis, &(struct redis_options){.config = "busy-reply-threshold 10"});
        redisContext *c = redisConnectUnix(h.redis.socket);
        check(c && !c->err);
        check(redisAppendCommand(c, "EVAL %s 0", "while true do end") == REDIS_OK);
        int done = 0;
        while (!done)
                check(redisBufferWrite(c, &done) == REDIS_OK);
        check_soon(redis_is_busy(&h.redis), WAIT_MS);
        broker_start(&h.broker, "databases: {main: {%s, breaker_failures: 1}}\n", redis_address(&h.redis));
        check_waited_for(&h, LESSOR_TROUBLE_BUSY, "BUSY", kill_script);
        redisFree(c);
        host_end(&h);
}

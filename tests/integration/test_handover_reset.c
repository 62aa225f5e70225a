/* SPDX-License-Identifier: MIT */
/*
 * A connection comes back with state on it: it is reset and proved, or closed, and whoever has it next meets nothing of
 * it. What is compared of CLIENT INFO: name, flags, db, sub, psub, ssub, multi, user, redir, resp, and whatever else
 * newer servers say (watch, lib-name ...); not compared: what differs between two fresh connections, see `volatiles`.
 */
#include <errno.h>

#include "base/cleanup.h"
#include "support/check.h"
#include "support/host.h"
#include "support/process.h"
#include "support/sandbox.h"

enum { WAIT_MS = 30000 };

static const char *const volatiles[] = {"id",   "addr",      "laddr",    "fd",     "age", "idle",
                                        "qbuf", "qbuf-free", "argv-mem", "rbs",    "rbp", "obl",
                                        "oll",  "omem",      "tot-mem",  "events", "cmd"};

static bool is_volatile(const char *field, size_t len) {
        for (size_t i = 0; i < ARRAY_SIZE(volatiles); i++)
                if (strlen(volatiles[i]) == len && memcmp(volatiles[i], field, len) == 0)
                        return true;
        return false;
}

/* CLIENT INFO without the volatile fields. */
static void lasting(const char *info, char ret[1024]) {
        size_t size = 0;
        ret[0] = 0;
        for (const char *field = info; *field; field += strspn(field, " \r\n")) {
                size_t len = strcspn(field, " \r\n");
                const char *equals = memchr(field, '=', len);
                if (!is_volatile(field, equals ? (size_t)(equals - field) : len))
                        size += (size_t)snprintf(ret + size, 1024 - size, "%.*s ", (int)len, field);
                field += len;
        }
}

struct look {
        char state[1024];
        long long id; /* CLIENT ID */
};

static lessor_lease *acquire(lessor_db *db) {
        lessor_error e = {0};
        lessor_lease *lease = lessor_acquire(db, WAIT_MS, &e);
        check_msg(lease, "%s", e.text);
        return lease;
}

static redisReply *ask(lessor_lease *lease, const char *command) {
        lessor_error e = {0};
        redisReply *reply = lessor_lease_command(lease, &e, command);
        check_msg(reply && reply->type != REDIS_REPLY_ERROR, "%s: %s", command, reply ? reply->str : e.text);
        return reply;
}

/* What the next holder meets. CLIENT leaves its connection to be closed: each look costs one. */
static struct look look(lessor_db *db, const char *after) {
        struct look seen = {0};
        lessor_lease *lease = acquire(db);
        lessor_error e = {0};
        redisReply *reply = lessor_lease_command(lease, &e, "ECHO %s", after);
        check_msg(reply, "after %s: %s", after, e.text);
        check_str(reply->str, after);
        freeReplyObject(reply);
        reply = ask(lease, "CLIENT ID");
        seen.id = reply->integer;
        freeReplyObject(reply);
        reply = ask(lease, "CLIENT INFO");
        lasting(reply->str, seen.state);
        freeReplyObject(reply);
        lessor_release(lease);
        return seen;
}

enum fate { RESET, CLOSED };

struct dirt {
        const char *commands[3];
        bool unread;    /* is not answered, or not in RESP2 */
        enum fate fate; /* when the library has sent it */
};

static const struct dirt dirts[] = {
        {{"SELECT 5"}, false, RESET},
        {{"MULTI"}, false, RESET},
        {{"MULTI", "SET queued 1"}, false, RESET},
        {{"WATCH watched"}, false, RESET},
        {{"WATCH watched", "MULTI"}, false, RESET},
        {{"SUBSCRIBE channel"}, false, RESET},
        {{"PSUBSCRIBE chan*"}, false, RESET},
        {{"SSUBSCRIBE shard"}, false, RESET},
        {{"AUTH bob word"}, false, RESET},
        {{"READONLY"}, false, RESET}, /* refused, outside a cluster */
        {{"ASKING"}, false, RESET},
        {{"HELLO 2 AUTH bob word SETNAME me"}, false, RESET},
        {{"RESET"}, false, RESET},
        {{"HELLO 3"}, true, CLOSED}, /* its answer is not RESP2 */
        {{"MONITOR"}, false, CLOSED},
        {{"CLIENT TRACKING ON"}, false, CLOSED},
        {{"CLIENT TRACKING ON BCAST NOLOOP"}, false, CLOSED},
        {{"CLIENT NO-EVICT ON"}, false, CLOSED},
        {{"CLIENT SETNAME mine"}, false, CLOSED},
        {{"CLIENT REPLY OFF"}, true, CLOSED},
        {{"CLIENT REPLY SKIP"}, true, CLOSED},
        {{"SCRIPT DEBUG YES"}, false, CLOSED},
        {{"REPLCONF listening-port 1"}, false, CLOSED},
        {{"SELECT 5", "NO.SUCH.COMMAND"}, false, CLOSED},
};

static void scene_start(struct host *h, const char *keys) {
        host_start(h, keys);
        redis_say(&h->redis, "ACL SETUSER bob on >word ~* &* +@all");
}

static void dirty_by_library(lessor_lease *lease, const struct dirt *d) {
        lessor_error e = {0};
        if (d->unread)
                lessor_lease_set_timeout(lease, 50);
        for (unsigned i = 0; i < 3 && d->commands[i]; i++) {
                redisReply *reply = lessor_lease_command(lease, &e, d->commands[i]);
                check_msg(reply || d->unread, "%s: %s", d->commands[i], e.text);
                freeReplyObject(reply);
        }
}

TEST_WITH(handover_reset, whatever_state_is_left_the_next_holder_meets_a_fresh_connection, .timeout = 120) {
        struct host h;
        uint64_t resets = 0;

        scene_start(&h, "max_connections: 1, wait_timeout: 30s");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        struct look fresh = look(db, "nothing");
        for (size_t i = 0; i < ARRAY_SIZE(dirts); i++) {
                const struct dirt *d = &dirts[i];
                lessor_lease *lease = acquire(db);
                redisReply *reply = ask(lease, "ECHO first");
                freeReplyObject(reply);
                long long id = (long long)broker_connection_held(&h.broker).client_id;
                dirty_by_library(lease, d);
                redis_say(&h.redis, "SET watched %d", (int)i);
                lessor_release(lease);
                struct look seen = look(db, d->commands[0]);
                check_msg(strcmp(seen.state, fresh.state) == 0, "%s: %s, fresh: %s", d->commands[0], seen.state,
                          fresh.state);
                check_msg((seen.id == id) == (d->fate == RESET), "%s: %s", d->commands[0],
                          seen.id == id ? "was kept" : "was replaced");
                resets += d->fate == RESET;
        }
        lessor_close(l);
        check_figure(&h.broker, "main", resets, resets);
        check_figure(&h.broker, "main", discards_reset, 0);
        check_eq(redis_integer(&h.redis, "EXISTS queued"), 0);
        host_end(&h);
}

static void dirty_raw(lessor_lease *lease, const struct dirt *d) {
        redisContext *c = lessor_context(lease);
        check(c);
        for (unsigned i = 0; i < 3 && d->commands[i]; i++) {
                int done = 0;
                if (!d->unread) {
                        freeReplyObject(redisCommand(c, d->commands[i]));
                        continue;
                }
                redisAppendCommand(c, d->commands[i]);
                while (!done)
                        check_eq(redisBufferWrite(c, &done), REDIS_OK);
        }
}

TEST_WITH(handover_reset, after_raw_use_the_next_holder_has_another_connection, .timeout = 120) {
        struct host h;

        scene_start(&h, "max_connections: 1, wait_timeout: 30s");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        struct look fresh = look(db, "nothing");
        for (size_t i = 0; i < ARRAY_SIZE(dirts); i++) {
                lessor_lease *lease = acquire(db);
                long long id = (long long)broker_connection_held(&h.broker).client_id;
                dirty_raw(lease, &dirts[i]);
                lessor_release(lease);
                struct look seen = look(db, dirts[i].commands[0]);
                check_msg(strcmp(seen.state, fresh.state) == 0, "%s: %s, fresh: %s", dirts[i].commands[0], seen.state,
                          fresh.state);
                check(seen.id != id);
        }
        lessor_close(l);
        check_figure(&h.broker, "main", resets, 0);
        host_end(&h);
}

TEST(handover_reset, another_database_number_and_our_name_are_restored) {
        struct redis r;
        struct broker b;

        redis_start(&r, NULL);
        broker_start(&b, "databases: {main: {%s, db: 7, max_connections: 1}}\n", redis_address(&r));
        lessor *l = client_open(&b);
        lessor_db *db = client_database(l, NULL);
        lessor_lease *lease = acquire(db);
        freeReplyObject(ask(lease, "SELECT 2"));
        lessor_release(lease);
        freeReplyObject(client_command(db, "SET here 1"));
        lessor_close(l);
        check_figure(&b, "main", resets, 1);
        check_figure(&b, "main", created_connections, 1);
        redis_say(&r, "SELECT 7");
        check_eq(redis_integer(&r, "EXISTS here"), 1);
        redis_say(&r, "SELECT 0");
        check_settled(&b, &r);
        broker_free(&b);
        redis_stop(&r);
}

TEST(handover_reset, handover_close_resets_nothing) {
        struct host h;

        host_start(&h, "max_connections: 1, handover: close");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_lease *lease = acquire(db);
        freeReplyObject(ask(lease, "SELECT 2"));
        lessor_release(lease);
        freeReplyObject(client_command(db, "PING"));
        lessor_close(l);
        check_figure(&h.broker, "main", resets, 0);
        check_figure(&h.broker, "main", discards_dirty, 1);
        host_end(&h);
}

/* Redis before 6.2, and those who may not RESET. */
TEST(handover_reset, a_server_without_reset_has_its_connections_replaced) {
        struct redis_options options = {.config = "rename-command RESET \"\"\n"};
        struct redis r;
        struct broker b;

        redis_start(&r, &options);
        broker_start(&b, "databases: {main: {%s, max_connections: 1}}\n", redis_address(&r));
        lessor *l = client_open(&b);
        lessor_db *db = client_database(l, NULL);
        for (int i = 0; i < 3; i++) {
                lessor_lease *lease = acquire(db);
                freeReplyObject(ask(lease, "SELECT 2"));
                lessor_release(lease);
                redisReply *reply = client_command(db, "ECHO mine");
                check_str(reply->str, "mine");
                freeReplyObject(reply);
        }
        lessor_close(l);
        check_figure(&b, "main", discards_reset, 3);
        check_figure(&b, "main", resets, 0);
        check_settled(&b, &r);
        broker_free(&b);
        redis_stop(&r);
}

struct crowd {
        const char *socket;
};

static int dirty_again_and_again(unsigned index, void *arg) {
        struct crowd *crowd = arg;
        lessor *l;
        lessor_db *db;
        lessor_error e;
        child_check(lessor_open(crowd->socket, &l) == 0 && lessor_database(l, NULL, &db, &e) == 0);
        for (unsigned i = 0; i < 50; i++) {
                lessor_lease *lease = lessor_acquire(db, WAIT_MS, &e);
                child_check(lease);
                redisReply *reply = lessor_lease_command(lease, &e, "ECHO %u.%u", index, i);
                char mine[32];
                snprintf(mine, sizeof(mine), "%u.%u", index, i);
                child_check(reply && reply->str && strcmp(reply->str, mine) == 0);
                freeReplyObject(reply);
                freeReplyObject(lessor_lease_command(lease, &e, i % 3 ? "SELECT 3" : i % 2 ? "MULTI" : "GET k"));
                lessor_release(lease);
        }
        lessor_close(l);
        return 0;
}

TEST_WITH(handover_reset, many_who_leave_state_never_exceed_the_cap_and_need_no_dial, .timeout = 120) {
        struct host h;

        host_start(&h, "max_connections: 3, wait_timeout: 30s");
        struct crowd crowd = {.socket = h.broker.socket};
        check_eq(workers_run(12, dirty_again_and_again, &crowd, 60000), 12);
        struct lessor_status_database d = broker_figures_now(&h.broker, "main");
        check(d.resets > 0);
        check_eq(d.discards_dirty + d.discards_reset + d.discards_stray, 0);
        check(d.created_connections <= 3);
        check(d.peak_connections <= 3);
        host_end(&h);
}

/* SPDX-License-Identifier: MIT */
/*
 * A lease as a redisAsyncContext: ready when it comes, given back in whatever way it ends, clean for the next holder, and
 * neither lost nor called back twice when Redis or the broker dies while it is out.
 */
#include <fcntl.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "support/check.h"
#include "support/host.h"
#include "support/loops.h"
#include "support/process.h"

enum { WAIT_MS = 30000, COMMANDS_MOST = 4 };
#define ONE "max_connections: 1, wait_timeout: 30s"

/* One context from its beginning to its end. */
struct visit {
        const char *const *commands;
        void (*end)(redisAsyncContext *); /* said in the callback of the last reply; NULL: never */
        redisAsyncContext *ac;            /* NULL: there is none yet, or not any more */
        unsigned sent, answered, lost, disconnected;
        int status; /* as the disconnect callback has it */
        lessor_error error;
};

static void visit_disconnected(const redisAsyncContext *ac, int status) {
        struct visit *v = ac->data;
        v->disconnected++;
        v->status = status;
        v->ac = NULL;
        lessor_async_release((redisAsyncContext *)(uintptr_t)ac); /* too late, and no harm */
}

static void visit_reply(redisAsyncContext *ac, void *reply, void *data) {
        struct visit *v = data;

        if (!reply) {
                v->lost++;
                return;
        }
        v->answered++;
        if (v->answered == v->sent && v->end)
                v->end(ac);
}

static void visit_lease(lessor_async_db *db, redisAsyncContext *ac, const lessor_error *error, void *data) {
        struct visit *v = data;

        v->error = *error;
        if (!ac)
                return;
        v->ac = ac;
        ac->data = v;
        check(!ac->err && ac->c.fd >= 0);
        check(fcntl(ac->c.fd, F_GETFL) & O_NONBLOCK);
        check(!lessor_lease_of(&ac->c)); /* it is not to be released behind our back */
        redisAsyncSetDisconnectCallback(ac, visit_disconnected);
        for (; v->sent < COMMANDS_MOST && v->commands[v->sent]; v->sent++)
                check_eq(redisAsyncCommand(ac, visit_reply, v, v->commands[v->sent]), REDIS_OK);
}

static const char *const no_commands[COMMANDS_MOST] = {NULL};

static bool visit_try(struct loop *loop, struct visit *v, const char *const *commands) {
        *v = (struct visit){.commands = commands, .end = v->end};
        check_eq(lessor_async_acquire(loop->db, WAIT_MS, visit_lease, v), 0);
        while (!v->ac && v->error.code == 0)
                loop_turn(loop);
        return v->ac;
}

static void visit_begin(struct loop *loop, struct visit *v, const char *const *commands) {
        check_msg(visit_try(loop, v, commands), "%s", v->error.text);
}

static void visit_answered(struct loop *loop, struct visit *v) {
        while (v->answered < v->sent && v->disconnected == 0)
                loop_turn(loop);
}

/* What was said is on its way. */
static void visit_written(struct loop *loop, const struct visit *v) {
        while (v->ac && v->ac->c.obuf[0])
                loop_turn(loop);
}

/* ---- clean, reset or closed --------------------------------------------------------------------------------------------- */

enum fate { CLEAN, RESET, CLOSED };

struct use {
        const char *commands[COMMANDS_MOST];
        enum fate fate;
};

static const struct use uses[] = {
        {{NULL}, CLEAN},
        {{"SET key value", "GET key"}, CLEAN},
        {{"SET key"}, CLEAN}, /* refused, and leaves nothing all the same */
        {{"BLPOP nothing 0.01"}, CLEAN},
        {{"WATCH key", "MULTI", "INCR n", "EXEC"}, CLEAN},
        {{"MULTI", "SET key", "EXEC"}, RESET}, /* an EXEC that was refused: did it end the transaction? */
        {{"MULTI"}, RESET},
        {{"MULTI", "SET key value"}, RESET},
        {{"WATCH key"}, RESET},
        {{"SELECT 5"}, RESET},
        {{"SELECT 5", "GET key"}, RESET},
        {{"CLIENT NO-EVICT ON"}, CLOSED},
        {{"SELECT 5", "CLIENT SETNAME mine"}, CLOSED},
        {{"SUBSCRIBE channel"}, CLOSED},
        {{"PSUBSCRIBE chan*"}, CLOSED},
        {{"NO.SUCH.COMMAND"}, CLOSED},
};

/* As the broker has counted it; what comes after is served either way. */
static void check_fate(struct host *h, enum fate fate, struct lessor_status_database *before, const char *what) {
        struct lessor_status_database now = {0};

        check_msg(wait_until((now = broker_figures_now(&h->broker, "main"),
                              now.in_use_connections == 0 && now.resets == before->resets + (fate == RESET) &&
                                      now.discards_dirty == before->discards_dirty + (fate == CLOSED)),
                             5000),
                  "after `%s`: %llu in use, %llu resets, %llu discards", what,
                  (unsigned long long)now.in_use_connections, (unsigned long long)(now.resets - before->resets),
                  (unsigned long long)(now.discards_dirty - before->discards_dirty));
        *before = now;
}

static void check_uses(const struct loop_kind *kind, void (*end)(redisAsyncContext *), bool in_callback) {
        struct lessor_status_database figures;
        struct loop loop;
        struct host h;

        host_start(&h, ONE);
        lessor *l = client_open(&h.broker);
        loop_start(&loop, kind, l);
        figures = broker_figures_now(&h.broker, "main");
        for (size_t i = 0; i < ARRAY_SIZE(uses); i++) {
                struct visit v = {.end = in_callback ? end : NULL};
                if (in_callback && !uses[i].commands[0])
                        continue;
                visit_begin(&loop, &v, uses[i].commands);
                visit_answered(&loop, &v);
                check_eq(v.answered, v.sent);
                if (!in_callback)
                        end(v.ac);
                check_eq(v.disconnected, 1);
                check_eq(v.status, REDIS_OK);
                loop_run(&loop); /* there is nothing left in it */
                check_fate(&h, uses[i].fate, &figures, uses[i].commands[0]);
        }
        loop_end(&loop);
        lessor_close(l);
        host_end(&h);
}

static void what_was_done_decides_how_it_is_handed_on(const struct loop_kind *kind) {
        check_uses(kind, lessor_async_release, false);
}
TEST_LOOPS(async_contexts, what_was_done_decides_how_it_is_handed_on)

static void likewise_from_within_a_callback(const struct loop_kind *kind) {
        check_uses(kind, lessor_async_release, true);
}
TEST_LOOPS(async_contexts, likewise_from_within_a_callback)

static void release_twice(redisAsyncContext *ac) {
        lessor_async_release(ac);
        lessor_async_release(ac);
        redisAsyncFree(ac);
}

static void a_second_release_within_a_callback_is_none(const struct loop_kind *kind) {
        check_uses(kind, release_twice, true);
}
TEST_LOOPS(async_contexts, a_second_release_within_a_callback_is_none)

/* As a hiredis program would end it. */
static void a_clean_disconnect_is_a_release(const struct loop_kind *kind) {
        static const char *const commands[COMMANDS_MOST] = {"SET key value", "GET key"};
        struct lessor_status_database figures;
        struct loop loop;
        struct host h;

        host_start(&h, ONE);
        lessor *l = client_open(&h.broker);
        loop_start(&loop, kind, l);
        figures = broker_figures_now(&h.broker, "main");
        for (unsigned in_callback = 0; in_callback < 2; in_callback++) {
                struct visit v = {.end = in_callback ? redisAsyncDisconnect : NULL};
                visit_begin(&loop, &v, commands);
                if (!in_callback)
                        redisAsyncDisconnect(v.ac); /* when all is answered */
                loop_run(&loop);
                check_eq(v.answered, 2);
                check_eq(v.disconnected, 1);
                check_fate(&h, CLEAN, &figures, "GET, in order");
        }
        for (unsigned in_callback = 0; in_callback < 2; in_callback++) {
                struct visit v = {.end = in_callback ? redisAsyncFree : NULL};
                visit_begin(&loop, &v, commands);
                if (!in_callback)
                        redisAsyncFree(v.ac); /* now, whatever is under way */
                loop_run(&loop);
                check_eq(v.answered + v.lost, 2);
                check_eq(v.disconnected, 1);
                check_fate(&h, CLOSED, &figures, "GET, freed");
        }
        loop_end(&loop);
        lessor_close(l);
        host_end(&h);
}
TEST_LOOPS(async_contexts, a_clean_disconnect_is_a_release)

static void what_is_under_way_ends_with_the_release(const struct loop_kind *kind) {
        static const char *const blocking[COMMANDS_MOST] = {"BLPOP nothing 0"};
        static const char *const unsent[COMMANDS_MOST] = {"INCR n", "INCR n"};
        struct lessor_status_database figures;
        struct visit v = {0};
        struct loop loop;
        struct host h;

        host_start(&h, ONE);
        lessor *l = client_open(&h.broker);
        loop_start(&loop, kind, l);
        figures = broker_figures_now(&h.broker, "main");
        visit_begin(&loop, &v, blocking);
        visit_written(&loop, &v);
        check_soon(redis_info(&h.redis, "blocked_clients") == 1, WAIT_MS);
        lessor_async_release(v.ac);
        check_eq(v.lost, 1);
        check_eq(v.disconnected, 1);
        loop_run(&loop);
        check_fate(&h, CLOSED, &figures, "BLPOP");
        check_soon(redis_info(&h.redis, "blocked_clients") == 0, WAIT_MS);

        visit_begin(&loop, &v, unsent);
        lessor_async_release(v.ac);
        check_eq(v.answered + v.lost, 2);
        loop_run(&loop);
        check_eq(v.answered + v.lost, 2);
        check_fate(&h, CLOSED, &figures, "INCR, not sent");
        loop_end(&loop);
        lessor_close(l);
        host_end(&h);
}
TEST_LOOPS(async_contexts, what_is_under_way_ends_with_the_release)

static void what_a_subscriber_leaves_reaches_nobody_else(const struct loop_kind *kind) {
        static const char *const subscribe[COMMANDS_MOST] = {"SUBSCRIBE channel"};
        static const char *const get[COMMANDS_MOST] = {"ECHO mine"};
        struct visit v = {0};
        struct loop loop;
        struct host h;

        host_start(&h, ONE);
        lessor *l = client_open(&h.broker);
        loop_start(&loop, kind, l);
        for (unsigned i = 0; i < 10; i++) {
                visit_begin(&loop, &v, subscribe);
                visit_answered(&loop, &v);
                check_eq(v.answered, 1);
                redis_say(&h.redis, "PUBLISH channel hello");
                while (v.answered < 2)
                        loop_turn(&loop);
                redis_say(&h.redis, "PUBLISH channel late"); /* on its way when it is given back */
                lessor_async_release(v.ac);
                check_eq(v.lost, 1);
                visit_begin(&loop, &v, get);
                visit_answered(&loop, &v);
                check_eq(v.answered, 1);
                check_eq(v.lost, 0);
                lessor_async_release(v.ac);
        }
        loop_end(&loop);
        lessor_close(l);
        host_end(&h);
}
TEST_LOOPS(async_contexts, what_a_subscriber_leaves_reaches_nobody_else)

/* The flags of the socket are those of whoever has it. */
static void a_connection_goes_between_waiting_and_not(const struct loop_kind *kind) {
        static const char *const commands[COMMANDS_MOST] = {"GET key"};
        struct visit v = {0};
        struct loop loop;
        struct host h;

        host_start(&h, ONE);
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        loop_start(&loop, kind, l);
        for (unsigned i = 0; i < 3; i++) {
                lessor_lease *lease = lessor_acquire(db, WAIT_MS, NULL);
                check(lease);
                for (unsigned k = 0; k < 10; k++) /* in steady use it blocks in recv() */
                        freeReplyObject(lessor_lease_command(lease, NULL, "INCR n"));
                lessor_release(lease);
                visit_begin(&loop, &v, commands);
                visit_answered(&loop, &v);
                lessor_async_release(v.ac);
                loop_run(&loop);
                check((lease = lessor_acquire(db, WAIT_MS, NULL)));
                redisContext *c = lessor_context(lease);
                check(c && !(fcntl(c->fd, F_GETFL) & O_NONBLOCK));
                redisReply *reply =
                        redisCommand(c, "BLPOP nothing 0.05"); /* which a socket that does not block cannot */
                check_msg(reply && reply->type == REDIS_REPLY_NIL, "%s", c->errstr);
                freeReplyObject(reply);
                lessor_release(lease);
                visit_begin(&loop, &v, commands);
                visit_answered(&loop, &v);
                check_eq(v.answered, 1);
                lessor_async_release(v.ac);
        }
        loop_end(&loop);
        lessor_close(l);
        host_end(&h);
}
TEST_LOOPS(async_contexts, a_connection_goes_between_waiting_and_not)

TEST(async_contexts, what_is_no_context_of_ours_is_left_alone) {
        struct host h;
        host_start(&h, ONE);
        lessor_async_release(NULL);
        redisAsyncContext *own = redisAsyncConnectUnix(h.redis.socket);
        check(own && !own->err);
        lessor_async_release(own);
        check(own->c.fd >= 0);
        redisAsyncFree(own);
        host_end(&h);
}

TEST(async_contexts, a_lease_names_the_line_that_asked_for_it) {
        struct visit v = {.commands = no_commands};
        char site[64];
        struct loop loop;
        struct host h;

        host_start(&h, ONE);
        lessor *l = client_open(&h.broker);
        loop_start(&loop, &loop_libevent, l);
        snprintf(site, sizeof(site), "test_async_contexts.c:%d", __LINE__ + 1);
        check_eq(lessor_async_acquire(loop.db, WAIT_MS, visit_lease, &v), 0);
        while (!v.ac)
                loop_turn(&loop);
        check_str(broker_connection_held(&h.broker).site, site);
        lessor_async_release(v.ac);
        loop_end(&loop);
        lessor_close(l);
        host_end(&h);
}

/* Who says that he will block leaves connections to those who do not. */
static void those_who_block_are_limited(const struct loop_kind *kind) {
        struct visit plain = {0};
        struct loop loop;
        struct host h;

        host_start(&h, "max_connections: 3, max_pinned: 1, wait_timeout: 30s, path: lease");
        lessor *l = client_open(&h.broker);
        loop_start(&loop, kind, l);
        struct visit pinned[2] = {{.commands = no_commands}, {.commands = no_commands}};
        check_eq(lessor_async_acquire_pinned(loop.db, WAIT_MS, visit_lease, &pinned[0]), 0);
        while (!pinned[0].ac)
                loop_turn(&loop);
        check_eq(lessor_async_acquire_pinned(loop.db, 50, visit_lease, &pinned[1]), 0);
        while (pinned[1].error.code == 0)
                loop_turn(&loop);
        check_msg(pinned[1].error.code == LESSOR_E_TIMEOUT, "%s", pinned[1].error.text);
        visit_begin(&loop, &plain, no_commands);
        lessor_async_release(pinned[0].ac);
        lessor_async_release(plain.ac);
        loop_end(&loop);
        lessor_close(l);
        host_end(&h);
}
TEST_LOOPS(async_contexts, those_who_block_are_limited)

/* ---- a loop that does not want it --------------------------------------------------------------------------------------- */

static int refuse_context(void *data, redisAsyncContext *ac) { return REDIS_ERR; }

TEST(async_contexts, a_loop_that_refuses_a_context_gives_the_lease_back) {
        const struct lessor_async_adapter adapter = {.attach = refuse_context};
        struct answers a = {0};
        lessor_async_db *db;
        lessor_async *async;
        struct host h;

        host_start(&h, ONE);
        lessor *l = client_open(&h.broker);
        check_eq(lessor_async_new(l, &async), 0);
        check_eq(lessor_async_database(async, NULL, &db), 0);
        check_eq(lessor_async_acquire(db, WAIT_MS, answer_lease, &a), LESSOR_E_INVALID); /* no adapter */
        check_eq(lessor_async_set_adapter(async, &adapter), 0);
        for (unsigned i = 0; i < 3; i++) {
                check_eq(lessor_async_acquire(db, WAIT_MS, answer_lease, &a), 0);
                check_soon((lessor_async_dispatch(async), a.errors == i + 1), WAIT_MS);
                check_eq(a.last.code, -EIO);
        }
        check_figure_soon(&h.broker, "main", in_use_connections, 0, WAIT_MS);
        lessor_async_free(async);
        lessor_close(l);
        host_end(&h);
}

/* ---- its connection dies ------------------------------------------------------------------------------------------------ */

static void a_connection_that_dies_is_told_once(const struct loop_kind *kind) {
        static const char *const blocking[COMMANDS_MOST] = {"BLPOP nothing 0", "GET key"};
        static const char *const subscribe[COMMANDS_MOST] = {"SUBSCRIBE channel"};
        struct visit idle = {0}, waiting = {0}, subscribed = {0}, after = {0};
        struct loop loop;
        struct host h;

        host_start(&h, "max_connections: 3, wait_timeout: 30s");
        lessor *l = client_open(&h.broker);
        loop_start(&loop, kind, l);
        visit_begin(&loop, &idle, no_commands);
        visit_begin(&loop, &waiting, blocking);
        visit_begin(&loop, &subscribed, subscribe);
        visit_answered(&loop, &subscribed);
        redis_kill(&h.redis);
        loop_run(&loop); /* nothing is left in it */
        check_eq(idle.disconnected, 1);
        check_eq(idle.status, REDIS_ERR);
        check_eq(waiting.disconnected, 1);
        check_eq(waiting.lost, 2);
        check_eq(subscribed.disconnected, 1);
        check_eq(subscribed.lost, 1);
        redis_restart(&h.redis);
        check_figure_soon(&h.broker, "main", in_use_connections, 0, WAIT_MS);
        check_soon(visit_try(&loop, &after, no_commands), WAIT_MS);
        lessor_async_release(after.ac);
        loop_end(&loop);
        lessor_close(l);
        host_end(&h);
}
TEST_LOOPS(async_contexts, a_connection_that_dies_is_told_once)

/* ---- the broker dies, the handle goes -------------------------------------------------------------------------------------- */

static void check_alive(struct loop *loop, struct visit *v) {
        unsigned answered = v->answered;
        check_eq(redisAsyncCommand(v->ac, visit_reply, v, "INCR n"), REDIS_OK);
        while (v->answered == answered && v->disconnected == 0)
                loop_turn(loop);
        check_eq(v->disconnected, 0);
}

static void contexts_survive_their_broker(const struct loop_kind *kind) {
        struct visit before = {0}, after = {0};
        struct loop loop;
        struct host h;

        host_start(&h, "max_connections: 2, wait_timeout: 30s");
        lessor *l = client_open(&h.broker);
        loop_start(&loop, kind, l);
        visit_begin(&loop, &before, no_commands);
        check_alive(&loop, &before);
        broker_kill(&h.broker);
        check_alive(&loop, &before);
        broker_launch(&h.broker);
        visit_begin(&loop, &after, no_commands); /* of the new one */
        check_alive(&loop, &before);
        check_alive(&loop, &after);
        lessor_async_release(before.ac);
        lessor_async_release(after.ac);
        loop_run(&loop);
        check_soon(redis_connections(&h.redis, NULL) == 1, WAIT_MS);
        loop_end(&loop);
        lessor_close(l);
        host_end(&h);
}
TEST_LOOPS(async_contexts, contexts_survive_their_broker)

/* More than the socket takes; the loop has nothing else to do, and does not wait. */
static void what_a_stopped_broker_does_not_take_is_given_back_later(const struct loop_kind *kind) {
        static const char *const commands[COMMANDS_MOST] = {"SELECT 5"};
        enum { CONTEXTS = 320 };
        struct visit *visits = calloc(CONTEXTS, sizeof(*visits));
        struct loop loop;
        struct host h;

        host_start(&h, "max_connections: 320, wait_timeout: 60s");
        lessor *l = client_open(&h.broker);
        loop_start(&loop, kind, l);
        for (unsigned i = 0; i < CONTEXTS; i++) {
                visit_begin(&loop, &visits[i], commands);
                visit_answered(&loop, &visits[i]);
        }
        broker_pause(&h.broker);
        uint64_t began = now_ms();
        for (unsigned i = 0; i < CONTEXTS; i++)
                lessor_async_release(visits[i].ac);
        check(now_ms() - began < 1000 * PROCESS_SLOW);
        broker_resume(&h.broker);
        loop_run(&loop);
        check_figure_soon(&h.broker, "main", in_use_connections, 0, WAIT_MS);
        check_figure_soon(&h.broker, "main", resets, CONTEXTS, WAIT_MS);
        loop_end(&loop);
        lessor_close(l);
        free(visits);
        host_end(&h);
}
TEST_LOOPS(async_contexts, what_a_stopped_broker_does_not_take_is_given_back_later)

static void contexts_survive_the_lessor_async_and_the_handle(const struct loop_kind *kind) {
        struct visit first = {0}, second = {0}, third = {0};
        struct loop loop;
        struct host h;

        host_start(&h, "max_connections: 4, wait_timeout: 30s");
        lessor *l = client_open(&h.broker);
        loop_start(&loop, kind, l);
        visit_begin(&loop, &first, no_commands);
        visit_begin(&loop, &second, no_commands);
        visit_begin(&loop, &third, no_commands);
        loop_free_async(&loop);
        check_alive(&loop, &first);
        lessor_async_release(first.ac);
        lessor_close(l);
        check_alive(&loop, &second);
        lessor_async_release(second.ac);
        check_soon(broker_figures(&h.broker, "main").in_use_connections == 1, WAIT_MS);
        redis_say(&h.redis, "CLIENT KILL TYPE normal SKIPME yes");
        loop_run(&loop);
        check_eq(third.disconnected, 1);
        loop_end(&loop);
        host_end(&h);
}
TEST_LOOPS(async_contexts, contexts_survive_the_lessor_async_and_the_handle)

/* ---- fork ----------------------------------------------------------------------------------------------------------------- */

static void a_context_stays_its_parents(const struct loop_kind *kind) {
        static const char *const blocking[COMMANDS_MOST] = {"BLPOP wake 0"};
        static const char *const subscribe[COMMANDS_MOST] = {"SUBSCRIBE channel"};
        struct visit v = {0}, subscribed = {0};
        struct loop loop;
        struct host h;
        int status;

        host_start(&h, "max_connections: 3, wait_timeout: 30s");
        lessor *l = client_open(&h.broker);
        loop_start(&loop, kind, l);
        visit_begin(&loop, &subscribed, subscribe);
        visit_answered(&loop, &subscribed);
        visit_begin(&loop, &v, blocking);
        visit_written(&loop, &v);
        check_soon(redis_info(&h.redis, "blocked_clients") == 1, WAIT_MS);
        pid_t child = fork();
        if (child == 0) {
                child_check(v.ac->c.fd == -1);
                lessor_async_release(v.ac);
                child_check(v.lost == 0 && v.disconnected == 0);
                lessor_async_free(loop.async);
                child_check(subscribed.ac->c.fd == -1);
                lessor_async_release(subscribed.ac); /* after that, too */
                child_check(subscribed.lost == 0 && subscribed.disconnected == 0);
                lessor_close(l);
                _exit(0);
        }
        check_eq(waitpid(child, &status, 0), child);
        check_eq(status, 0);
        redis_say(&h.redis, "RPUSH wake up");
        visit_answered(&loop, &v);
        check_eq(v.answered, 1);
        check_alive(&loop, &v);
        redis_say(&h.redis, "PUBLISH channel hello");
        while (subscribed.answered < 2)
                loop_turn(&loop);
        lessor_async_release(v.ac);
        lessor_async_release(subscribed.ac);
        loop_end(&loop);
        lessor_close(l);
        host_end(&h);
}
TEST_LOOPS(async_contexts, a_context_stays_its_parents)

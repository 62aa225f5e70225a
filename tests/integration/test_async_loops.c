/* SPDX-License-Identifier: MIT */
/*
 * lessor/async.h on libevent, libev and libuv: what the original fails at. A hundred at once on twenty connections give a hundred
 * results; a second loop works as the first did; so do several at once, children's, and those beside threads that wait.
 */
#include <pthread.h>
#include <sys/wait.h>

#include "support/check.h"
#include "support/host.h"
#include "support/loops.h"
#include "support/process.h"

enum { AT_ONCE = 100, WAIT_MS = 30000 };
#define HOST_KEYS "max_connections: 20, wait_timeout: 30s"

static void submit_commands(struct loop *loop, unsigned n, struct answers *a) {
        for (unsigned i = 0; i < n; i++)
                check_eq(lessor_async_command(loop->db, answer_command, a, "INCR count"), 0);
}

static void submit_leases(struct loop *loop, unsigned n, struct answers *a) {
        for (unsigned i = 0; i < n; i++)
                check_eq(lessor_async_acquire(loop->db, LESSOR_WAIT_CONFIGURED, answer_lease, a), 0);
}

static void check_all_answered(const struct answers *a, unsigned n) {
        check_msg(a->errors == 0, "%u errors, the last: %s", a->errors, a->last.text);
        check_eq(a->refused, 0);
        check_eq(a->replies, n);
}

/* ---- a hundred at once ------------------------------------------------------------------------------------------------ */

static void a_hundred_leases_at_once_on_twenty_connections(const struct loop_kind *kind) {
        struct answers a = {0};
        struct loop loop;
        struct host h;

        host_start(&h, HOST_KEYS);
        lessor *l = client_open(&h.broker);
        loop_start(&loop, kind, l);
        submit_leases(&loop, AT_ONCE, &a);
        check_eq(answers_total(&a), 0); /* never from within the call */
        loop_run(&loop);
        check_all_answered(&a, AT_ONCE);
        check_eq(redis_integer(&h.redis, "GET leased"), AT_ONCE);
        check(broker_figures_now(&h.broker, "main").open_connections <= 20);
        check_eq(lessor_async_in_flight(loop.async), 0);
        loop_end(&loop);
        lessor_close(l);
        host_end(&h);
}
TEST_LOOPS(async_loops, a_hundred_leases_at_once_on_twenty_connections)

static void hundred_commands(const struct loop_kind *kind, const char *keys) {
        struct answers a = {0};
        struct loop loop;
        struct host h;

        host_start(&h, keys);
        lessor *l = client_open(&h.broker);
        loop_start(&loop, kind, l);
        submit_commands(&loop, AT_ONCE, &a);
        check_eq(answers_total(&a), 0);
        loop_run(&loop);
        check_all_answered(&a, AT_ONCE);
        check_eq(redis_integer(&h.redis, "GET count"), AT_ONCE);
        loop_end(&loop);
        lessor_close(l);
        host_end(&h);
}

static void a_hundred_commands_at_once_by_lane(const struct loop_kind *kind) {
        hundred_commands(kind, HOST_KEYS ", path: lane");
}
TEST_LOOPS(async_loops, a_hundred_commands_at_once_by_lane)

static void a_hundred_commands_at_once_by_lease(const struct loop_kind *kind) {
        hundred_commands(kind, HOST_KEYS ", path: lease");
}
TEST_LOOPS(async_loops, a_hundred_commands_at_once_by_lease)

static void leases_and_commands_at_once(const struct loop_kind *kind) {
        struct answers commands = {0}, leases = {0};
        struct loop loop;
        struct host h;

        host_start(&h, "max_connections: 3, wait_timeout: 30s");
        lessor *l = client_open(&h.broker);
        loop_start(&loop, kind, l);
        for (unsigned i = 0; i < AT_ONCE; i++) {
                submit_commands(&loop, 1, &commands);
                submit_leases(&loop, 1, &leases);
        }
        loop_run(&loop);
        check_all_answered(&commands, AT_ONCE);
        check_all_answered(&leases, AT_ONCE);
        loop_end(&loop);
        lessor_close(l);
        host_end(&h);
}
TEST_LOOPS(async_loops, leases_and_commands_at_once)

/* Asked for before anybody has said what is configured. */
static void the_configured_deadline_counts_from_the_first_call(const struct loop_kind *kind) {
        struct answers first = {0}, others = {0};
        struct loop loop;
        struct host h;

        host_start(&h, "max_connections: 1, wait_timeout: 300ms");
        lessor *l = client_open(&h.broker), *holder = client_open(&h.broker);
        lessor_lease *lease = lessor_acquire(client_database(holder, NULL), WAIT_MS, NULL);
        check(lease);
        loop_start(&loop, kind, l);
        uint64_t began = now_ms();
        submit_commands(&loop, 1, &first);
        submit_commands(&loop, 3, &others);
        submit_leases(&loop, 1, &others);
        loop_run(&loop);
        check(now_ms() - began < 3000); /* and not the 5 s that are the default */
        check_eq(first.last.code, LESSOR_E_TIMEOUT);
        check_eq(others.errors, 4);
        check_eq(others.last.code, LESSOR_E_TIMEOUT);
        lessor_release(lease);
        loop_end(&loop);
        lessor_close(holder);
        lessor_close(l);
        host_end(&h);
}
TEST_LOOPS(async_loops, the_configured_deadline_counts_from_the_first_call)

/* ---- the loop lives as long as there is something to do ------------------------------------------------------------------ */

static void release_it(lessor_async_db *db, redisReply *reply, const lessor_error *error, void *ac) {
        lessor_async_release(ac);
}

static void keep_until_answered(lessor_async_db *db, redisAsyncContext *ac, const lessor_error *error, void *data) {
        if (ac && lessor_async_command(db, release_it, ac, "PING") != 0)
                lessor_async_release(ac);
        *(bool *)data = ac;
}

static void a_loop_with_nothing_under_way_ends(const struct loop_kind *kind) {
        bool had_one = false;
        struct loop loop;
        struct host h;

        host_start(&h, HOST_KEYS);
        lessor *l = client_open(&h.broker);
        loop_start(&loop, kind, l);
        loop_run(&loop);
        for (unsigned i = 0; i < 3; i++) {
                struct answers a = {0};
                submit_commands(&loop, 1, &a);
                loop_run(&loop);
                check_all_answered(&a, 1);
        }
        /* Not as long as a context is out, though nothing is done on it. */
        check_eq(lessor_async_acquire(loop.db, WAIT_MS, keep_until_answered, &had_one), 0);
        loop_run(&loop);
        check(had_one);
        check_figure_soon(&h.broker, "main", in_use_connections, 0, WAIT_MS);
        loop_end(&loop);
        lessor_close(l);
        host_end(&h);
}
TEST_LOOPS(async_loops, a_loop_with_nothing_under_way_ends)

/* ---- several ---------------------------------------------------------------------------------------------------------- */

static void loops_one_after_the_other(const struct loop_kind *kind) {
        enum { LOOPS = 10 };
        unsigned fds = 0;
        struct host h;

        host_start(&h, HOST_KEYS);
        lessor *l = client_open(&h.broker);
        for (unsigned i = 0; i < LOOPS; i++) {
                struct answers commands = {0}, leases = {0};
                struct loop loop;
                loop_start(&loop, kind, l);
                submit_commands(&loop, AT_ONCE, &commands);
                submit_leases(&loop, 5, &leases);
                loop_run(&loop);
                check_all_answered(&commands, AT_ONCE);
                check_all_answered(&leases, 5);
                loop_end(&loop);
                if (i == 1) /* the connections that stay are here by now */
                        fds = fd_count(getpid());
                check(i < 1 || fd_count(getpid()) <= fds);
        }
        lessor_close(l);
        host_end(&h);
}
TEST_LOOPS(async_loops, loops_one_after_the_other)

struct looper {
        const struct loop_kind *kind;
        lessor *l;
        pthread_t thread;
        struct answers commands, leases;
        bool good;
};

static void *loop_in_thread(void *arg) {
        struct looper *looper = arg;
        struct loop loop;

        looper->good = loop_try_start(&loop, looper->kind, looper->l);
        for (unsigned i = 0; looper->good && i < AT_ONCE; i++) {
                looper->good =
                        lessor_async_command(loop.db, answer_command, &looper->commands, "INCR count") == 0 &&
                        lessor_async_acquire(loop.db, LESSOR_WAIT_CONFIGURED, answer_lease, &looper->leases) == 0;
        }
        loop_run(&loop);
        loop_end(&loop);
        return NULL;
}

TEST_WITH(async_loops, several_loops_in_threads_on_one_handle, .timeout = 120) {
        static const struct loop_kind *const kinds[] = {&loop_libevent, &loop_libev, &loop_libuv};
        enum { THREADS = 6 };
        struct looper loopers[THREADS] = {0};
        struct host h;

        host_start(&h, "max_connections: 5, wait_timeout: 60s");
        lessor *l = client_open(&h.broker);
        for (unsigned i = 0; i < THREADS; i++) {
                loopers[i].kind = kinds[i % 3];
                loopers[i].l = l;
                check_eq(pthread_create(&loopers[i].thread, NULL, loop_in_thread, &loopers[i]), 0);
        }
        for (unsigned i = 0; i < THREADS; i++)
                pthread_join(loopers[i].thread, NULL);
        for (unsigned i = 0; i < THREADS; i++) {
                check(loopers[i].good);
                check_all_answered(&loopers[i].commands, AT_ONCE);
                check_all_answered(&loopers[i].leases, AT_ONCE);
        }
        check_eq(redis_integer(&h.redis, "GET count"), THREADS * AT_ONCE);
        lessor_close(l);
        host_end(&h);
}

/* ---- beside threads that wait --------------------------------------------------------------------------------------------- */

struct waiting_thread {
        lessor_db *db;
        pthread_t thread;
        unsigned good;
};

static void *use_and_wait(void *arg) {
        struct waiting_thread *t = arg;

        for (unsigned i = 0; i < AT_ONCE; i++) {
                redisReply *reply = lessor_command(t->db, NULL, "INCR count");
                lessor_lease *lease = lessor_acquire(t->db, WAIT_MS, NULL);
                redisReply *leased = lease ? lessor_lease_command(lease, NULL, "INCR leased") : NULL;
                t->good += reply && leased;
                freeReplyObject(reply);
                freeReplyObject(leased);
                lessor_release(lease);
        }
        return NULL;
}

static void a_loop_beside_threads_that_wait(const struct loop_kind *kind) {
        enum { THREADS = 4 };
        struct waiting_thread threads[THREADS] = {0};
        struct answers commands = {0}, leases = {0};
        struct loop loop;
        struct host h;

        host_start(&h, "max_connections: 3, wait_timeout: 60s");
        lessor *l = client_open(&h.broker);
        for (unsigned i = 0; i < THREADS; i++) {
                threads[i].db = client_database(l, NULL);
                check_eq(pthread_create(&threads[i].thread, NULL, use_and_wait, &threads[i]), 0);
        }
        loop_start(&loop, kind, l);
        for (unsigned i = 0; i < 10; i++) {
                submit_commands(&loop, AT_ONCE / 10, &commands);
                submit_leases(&loop, AT_ONCE / 10, &leases);
                loop_run(&loop);
        }
        for (unsigned i = 0; i < THREADS; i++) {
                pthread_join(threads[i].thread, NULL);
                check_eq(threads[i].good, AT_ONCE);
        }
        check_all_answered(&commands, AT_ONCE);
        check_all_answered(&leases, AT_ONCE);
        check_eq(redis_integer(&h.redis, "GET leased"), (THREADS + 1) * AT_ONCE);
        loop_end(&loop);
        lessor_close(l);
        host_end(&h);
}
TEST_LOOPS(async_loops, a_loop_beside_threads_that_wait)

/* ---- fork ------------------------------------------------------------------------------------------------------------- */

struct family {
        const struct loop_kind *kind;
        lessor *l;
        struct loop *parents; /* NULL: there is none */
        struct answers *parents_answers;
};

/* What is the parent's is refused here, and called back to nobody; what is made here works. */
static int loop_in_child(unsigned index, void *arg) {
        struct family *f = arg;
        struct answers commands = {0}, leases = {0};
        struct loop loop;

        if (f->parents) {
                unsigned before = answers_total(f->parents_answers);
                child_check(lessor_async_command(f->parents->db, answer_command, &commands, "PING") == LESSOR_E_FORKED);
                child_check(lessor_async_acquire(f->parents->db, 0, answer_lease, &leases) == LESSOR_E_FORKED);
                child_check(lessor_async_fd(f->parents->async) == -1);
                lessor_async_free(f->parents->async);
                child_check(answers_total(f->parents_answers) == before);
        }
        child_check(loop_try_start(&loop, f->kind, f->l));
        for (unsigned i = 0; i < AT_ONCE; i++)
                child_check(lessor_async_command(loop.db, answer_command, &commands, "INCR count") == 0);
        for (unsigned i = 0; i < 5; i++)
                child_check(lessor_async_acquire(loop.db, WAIT_MS, answer_lease, &leases) == 0);
        loop_run(&loop);
        child_check(commands.replies == AT_ONCE);
        child_check(leases.replies == 5);
        loop_end(&loop);
        lessor_close(f->l);
        return 0;
}

static void a_master_opens_once_and_each_child_has_its_own_loop(const struct loop_kind *kind) {
        enum { CHILDREN = 8 };
        struct family f = {.kind = kind};
        struct host h;

        host_start(&h, "max_connections: 5, wait_timeout: 30s");
        f.l = client_open(&h.broker);
        check_eq(workers_run(CHILDREN, loop_in_child, &f, WAIT_MS), CHILDREN);
        check_eq(redis_integer(&h.redis, "GET count"), CHILDREN * AT_ONCE);
        lessor_close(f.l);
        host_end(&h);
}
TEST_LOOPS(async_loops, a_master_opens_once_and_each_child_has_its_own_loop)

static void a_fork_in_mid_traffic_disturbs_neither(const struct loop_kind *kind) {
        enum { CHILDREN = 4 };
        struct answers commands = {0}, leases = {0};
        struct workers children;
        struct loop loop;
        struct host h;

        host_start(&h, "max_connections: 5, wait_timeout: 30s");
        struct family f = {.kind = kind, .l = client_open(&h.broker), .parents = &loop, .parents_answers = &commands};
        loop_start(&loop, kind, f.l);
        submit_commands(&loop, AT_ONCE, &commands);
        submit_leases(&loop, AT_ONCE, &leases);
        while (answers_total(&commands) + answers_total(&leases) < AT_ONCE / 2)
                loop_turn(&loop);
        workers_start(&children, CHILDREN, loop_in_child, &f);
        loop_run(&loop);
        check_eq(workers_wait(&children, WAIT_MS), CHILDREN);
        check_all_answered(&commands, AT_ONCE);
        check_all_answered(&leases, AT_ONCE);
        check_eq(redis_integer(&h.redis, "GET count"), (CHILDREN + 1) * AT_ONCE);
        loop_end(&loop);
        lessor_close(f.l);
        host_end(&h);
}
TEST_LOOPS(async_loops, a_fork_in_mid_traffic_disturbs_neither)

/* SPDX-License-Identifier: MIT */
/* A master opens once and forks: each child uses the same handle, and what the parent holds stays the parent's. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"

enum { WAIT_MS = 30000, CHILDREN = 20 };

struct scene {
        lessor *l;
        lessor_db *db;
        lessor_lease *lease;
        struct stage stage;
};

/* "<pid>" comes back to the one who sent it. */
static int set_and_get(unsigned index, void *arg) {
        struct scene *s = arg;
        lessor_error e = {0};
        char mine[32];

        snprintf(mine, sizeof(mine), "%d", (int)getpid());
        for (unsigned i = 0; i < 20; i++) {
                redisReply *reply = lessor_command(s->db, &e, "SET key:%s %s", mine, mine);
                child_check(reply && reply->type == REDIS_REPLY_STATUS);
                freeReplyObject(reply);
                reply = lessor_command(s->db, &e, "GET key:%s", mine);
                child_check(reply && reply->type == REDIS_REPLY_STRING && strcmp(reply->str, mine) == 0);
                freeReplyObject(reply);
        }
        lessor_close(s->l);
        return 0;
}

TEST(fork, a_handle_opened_once_serves_every_child) {
        struct scene s = {0};
        struct host h;

        host_start(&h, "max_connections: 5, wait_timeout: 30s");
        s.l = client_open(&h.broker);
        s.db = client_database(s.l, NULL); /* the parent is attached already */
        freeReplyObject(client_command(s.db, "SET parent yes"));
        check_eq(workers_run(CHILDREN, set_and_get, &s, WAIT_MS), CHILDREN);
        client_check_string(s.db, "parent", "yes");
        check_soon(broker_sessions_now(&h.broker) == 1, WAIT_MS);
        lessor_close(s.l);
        host_end(&h);
}

static int look_up_and_use(unsigned index, void *arg) {
        struct scene *s = arg;
        lessor_error e = {0};
        child_check(lessor_database(s->l, NULL, &s->db, &e) == 0);
        return set_and_get(index, s);
}

TEST(fork, a_handle_that_was_never_used_serves_every_child) {
        struct scene s = {0};
        struct host h;

        host_start(&h, "max_connections: 5, wait_timeout: 30s");
        s.l = client_open(&h.broker);
        check_eq(workers_run(CHILDREN, look_up_and_use, &s, WAIT_MS), CHILDREN);
        check_soon(broker_sessions_now(&h.broker) == 0, WAIT_MS);
        lessor_close(s.l);
        host_end(&h);
}

static int use_the_parents_lease(unsigned index, void *arg) {
        struct scene *s = arg;
        lessor_error e = {0};

        child_check(!lessor_lease_command(s->lease, &e, "INCR n"));
        child_check(e.code == LESSOR_E_FORKED && !e.may_have_run);
        child_check(lessor_context(s->lease) == NULL);
        lessor_release(s->lease);
        return set_and_get(index, s);
}

TEST(fork, a_lease_held_across_a_fork_stays_the_parents) {
        struct scene s = {0};
        struct host h;
        lessor_error e = {0};

        host_start(&h, "max_connections: 2, wait_timeout: 30s");
        s.l = client_open(&h.broker);
        s.db = client_database(s.l, NULL);
        s.lease = lessor_acquire(s.db, WAIT_MS, &e);
        check_msg(s.lease, "%s", e.text);
        check_eq(workers_run(4, use_the_parents_lease, &s, WAIT_MS), 4);
        redisReply *reply = lessor_lease_command(s.lease, &e, "INCR n");
        check_msg(reply, "%s", e.text);
        check_eq(reply->integer, 1);
        freeReplyObject(reply);
        check_figure_soon(&h.broker, "main", in_use_connections, 1, WAIT_MS);
        lessor_release(s.lease);
        lessor_close(s.l);
        host_end(&h);
}

static int use_the_parents_context(unsigned index, void *arg) {
        struct scene *s = arg;
        redisContext *c = lessor_context(s->lease);
        child_check(c == NULL);
        return 0;
}

TEST(fork, a_context_taken_before_the_fork_is_dead_in_the_child) {
        struct scene s = {0};
        struct host h;
        lessor_error e = {0};

        host_start(&h, "max_connections: 2");
        s.l = client_open(&h.broker);
        s.lease = lessor_acquire(client_database(s.l, NULL), WAIT_MS, &e);
        redisContext *c = lessor_context(s.lease);
        check(c != NULL);
        check_eq(workers_run(2, use_the_parents_context, &s, WAIT_MS), 2);
        redisReply *reply = redisCommand(c, "PING");
        check_msg(reply, "%s", c->errstr);
        freeReplyObject(reply);
        lessor_release(s.lease);
        lessor_close(s.l);
        host_end(&h);
}

/* fork without its handlers: what a library that calls clone() itself does. */
TEST(fork, a_raw_clone_is_a_fork_all_the_same) {
        struct scene s = {0};
        struct host h;
        lessor_error e = {0};
        int status;

        host_start(&h, "max_connections: 2, wait_timeout: 30s");
        s.l = client_open(&h.broker);
        s.db = client_database(s.l, NULL);
        s.lease = lessor_acquire(s.db, WAIT_MS, &e);
        pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
        if (pid == 0)
                _exit(use_the_parents_lease(0, &s));
        check(pid > 0 && waitpid(pid, &status, 0) == pid);
        check_eq(status, 0);
        freeReplyObject(lessor_lease_command(s.lease, &e, "PING"));
        lessor_release(s.lease);
        lessor_close(s.l);
        host_end(&h);
}

static int fork_on(unsigned index, void *arg) {
        struct scene *s = arg;
        int status;
        set_and_get(index, &(struct scene){.db = s->db, .l = NULL});
        pid_t pid = fork();
        child_check(pid >= 0);
        if (pid == 0)
                _exit(set_and_get(index, s));
        child_check(waitpid(pid, &status, 0) == pid && status == 0);
        return set_and_get(index, s);
}

TEST(fork, grandchildren_are_served_too) {
        struct scene s = {0};
        struct host h;

        host_start(&h, "max_connections: 3, wait_timeout: 30s");
        s.l = client_open(&h.broker);
        s.db = client_database(s.l, NULL);
        check_eq(workers_run(4, fork_on, &s, WAIT_MS), 4);
        lessor_close(s.l);
        host_end(&h);
}

struct traffic {
        lessor_db *db;
        _Atomic bool end;
        _Atomic unsigned done;
};

static void *keep_asking(void *arg) {
        struct traffic *t = arg;
        while (!atomic_load(&t->end)) {
                lessor_error e = {0};
                redisReply *reply = lessor_command(t->db, &e, "INCR traffic");
                if (reply && reply->type == REDIS_REPLY_INTEGER)
                        atomic_fetch_add(&t->done, 1);
                if (reply)
                        freeReplyObject(reply);
        }
        return NULL;
}

TEST(fork, a_fork_in_the_middle_of_other_threads_calls_hangs_nobody) {
#ifdef __SANITIZE_ADDRESS__ /* seen in gdb: GetFromAllocator() <- realloc() <- redisReaderFeed(), in the child's only thread */
        test_skip("AddressSanitizer's allocator keeps a lock across fork that another thread held: the child waits for "
                  "it");
#endif
        struct scene s = {0};
        struct traffic t = {0};
        pthread_t threads[4];
        struct host h;

        host_start(&h, "max_connections: 4, wait_timeout: 30s");
        s.l = client_open(&h.broker);
        t.db = s.db = client_database(s.l, NULL);
        for (unsigned i = 0; i < 4; i++)
                check(pthread_create(&threads[i], NULL, keep_asking, &t) == 0);
        check_soon(atomic_load(&t.done) > 10, WAIT_MS);
        for (unsigned i = 0; i < 10; i++)
                check_eq(workers_run(1, set_and_get, &s, WAIT_MS), 1);
        unsigned before = atomic_load(&t.done);
        check_soon(atomic_load(&t.done) > before, WAIT_MS);
        atomic_store(&t.end, true);
        for (unsigned i = 0; i < 4; i++)
                check(pthread_join(threads[i], NULL) == 0);
        lessor_close(s.l);
        host_end(&h);
}

/* How many fds a program started now is given. */
static unsigned fds_passed_on(void) {
        char *output;
        unsigned n = 0;
        check_eq(program_run((const char *[]){"ls", "-l", "/proc/self/fd", NULL}, &output, WAIT_MS), 0);
        for (const char *p = output; (p = strstr(p, " -> ")); p++)
                n++;
        free(output);
        return n;
}

TEST(fork, a_child_that_execs_is_passed_nothing) {
        struct scene s = {0};
        struct host h;
        lessor_error e = {0};

        host_start(&h, "max_connections: 2");
        unsigned before = fds_passed_on();
        s.l = client_open(&h.broker);
        s.lease = lessor_acquire(client_database(s.l, NULL), WAIT_MS, &e);
        check(s.lease);
        check_eq(fds_passed_on(), before);
        lessor_release(s.lease);
        lessor_close(s.l);
        host_end(&h);
}

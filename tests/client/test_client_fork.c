/* SPDX-License-Identifier: MIT */
/* Fork: children use the handle as their own, and can do nothing to what is their parent's. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <lessor.h>

#include "base/clock.h"
#include "client/fake.h"
#include "client/helpers.h"
#include "support/check.h"

static bool lease_pings(lessor_lease *lease) {
        lessor_error e;
        redisReply *r = lessor_lease_command(lease, &e, "PING");
        bool good = r && strcmp(r->str, "PONG") == 0;
        freeReplyObject(r);
        return good;
}

/* fork() runs the fork handlers; the bare system call runs none. */
static pid_t fork_raw(void) { return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); }

struct family {
        struct fake f;
        lessor *l;
        lessor_db *db;
        lessor_lease *lease, *raw;
        redisContext *context;
};

static void family_start(struct family *y) {
        fake_start(&y->f, fake_serve, NULL);
        y->l = client_open(&y->f);
        y->db = client_db(y->l, NULL);
        y->lease = client_lease(y->l);
        y->raw = client_lease(y->l);
        y->context = lessor_context(y->raw);
        check(y->context);
}

static void family_child(struct family *y) {
        lessor_error e = {0};
        redisReply *r;

        child_check(!lessor_lease_command(y->lease, &e, "PING"));
        child_check(e.code == LESSOR_E_FORKED && !e.may_have_run && strstr(e.text, "parent"));
        child_check(!lessor_lease_read(y->lease, &e) && e.code == LESSOR_E_FORKED);
        child_check(y->context->fd == -1);
        child_check(!lessor_context(y->raw) && !lessor_lease_of(y->context));
        r = redisCommand(y->context, "PING");
        child_check(!r);
        lessor_lease_set_timeout(y->raw, 10);
        lessor_release(y->lease);
        child_check(client_pings(y->db));
        child_check(client_db(y->l, "main") == y->db);
        lessor_release(y->raw);
        child_check(client_pings(y->db));
        lessor_close(y->l);
        _exit(0);
}

static void family_parent(struct family *y, pid_t child) {
        child_ends_well(child);
        check(lease_pings(y->lease));
        check(lessor_lease_of(y->context) == y->raw);
        freeReplyObject(redisCommand(y->context, "PING"));
        check_eq(y->context->err, 0);
        check(client_pings(y->db));
        lessor_release(y->lease);
        lessor_release(y->raw);
        lessor_close(y->l);
        fake_stop(&y->f);
        check_eq(y->f.sessions, 2);
        check_eq(y->f.returned, 5);
        check_eq(y->f.returned_clean, 4); /* all but the raw one */
}

TEST(client_fork, a_child_attaches_anew_and_cannot_touch_its_parents_leases) {
        struct family y;
        pid_t child;

        family_start(&y);
        child = fork();
        if (child == 0)
                family_child(&y);
        family_parent(&y, child);
}

TEST(client_fork, a_raw_clone_is_seen_at_the_childs_first_call) {
        struct family y;
        pid_t child;

        family_start(&y);
        child = fork_raw();
        if (child == 0)
                family_child(&y);
        family_parent(&y, child);
}

TEST(client_fork, a_child_has_none_of_the_librarys_fds) {
        unsigned before;
        struct family y;
        pid_t child;

        family_start(&y);
        before = count_fds(); /* with the script's, who lives in this process */
        child = fork();
        if (child == 0) {
                child_check(count_fds() == before - 3); /* a session and two leases */
                _exit(0);
        }
        child_ends_well(child);
        lessor_release(y.lease);
        lessor_release(y.raw);
        lessor_close(y.l);
        fake_stop(&y.f);
}

TEST(client_fork, generations_of_children_share_one_handle) {
        struct fake f;
        lessor_db *db;
        lessor *l;

        fake_start(&f, fake_serve, NULL);
        l = client_open(&f);
        db = client_db(l, "jobs");
        for (int i = 0; i < 3; i++) {
                pid_t child = fork();
                if (child == 0) {
                        pid_t grandchild;
                        int status;
                        child_check(client_pings(db));
                        grandchild = fork_raw();
                        if (grandchild == 0) {
                                child_check(client_pings(db));
                                _exit(0);
                        }
                        child_check(waitpid(grandchild, &status, 0) == grandchild && status == 0);
                        child_check(client_pings(db));
                        _exit(0);
                }
                child_ends_well(child);
                check(client_pings(db));
        }
        lessor_close(l);
        fake_stop(&f);
        check_eq(f.sessions, 1 + 3 * 2);
}

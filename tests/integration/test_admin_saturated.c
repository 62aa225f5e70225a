/* SPDX-License-Identifier: MIT */
/* Orders to a broker at its limits: full queues, no fds, a data thread that hangs, a stop under way, clients of any kind. */
#include <errno.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <dirent.h>

#include "support/check.h"
#include "support/host.h"
#include "support/orders.h"
#include "support/process.h"
#include "support/raw.h"
#include "support/sandbox.h"

enum { WAIT_MS = 20000 };

/* ---- full queues, no fds ------------------------------------------------------------------------------------------- */

/* 200 requests that wait, of four sessions, behind one lease. */
struct crowd {
        lessor *l;
        lessor_lease *held;
        int sockets[4];
};

enum { EACH = 50, CROWD = 4 * EACH };

static void crowd_begin(struct crowd *c, const struct host *h) {
        lessor_error e = {0};
        c->l = client_open(&h->broker);
        check((c->held = lessor_acquire(client_database(c->l, NULL), WAIT_MS, &e)));
        for (unsigned i = 0; i < 4; i++) {
                struct lessor_msg_attached attached;
                c->sockets[i] = raw_attach(h->broker.socket, 0, &attached);
                check(c->sockets[i] >= 0);
                int database = raw_lookup(c->sockets[i], "main");
                check(database >= 0);
                for (unsigned n = 0; n < EACH; n++) {
                        struct lessor_msg_lease m =
                                raw_lease_message(100 + n, (uint32_t)database, UINT64_C(600000000000));
                        check_eq(raw_say(c->sockets[i], &m), 0);
                }
        }
        check_figure_soon(&h->broker, "main", waiting, CROWD, WAIT_MS);
}

static void crowd_end(struct crowd *c) {
        for (unsigned i = 0; i < 4; i++)
                close(c->sockets[i]);
        lessor_release(c->held);
        lessor_close(c->l);
}

/* As many fds as it has now, and not one more. */
static void allow_no_more_fds(const struct broker *b) {
        struct rlimit limit;
        check_eq(prlimit(b->pid, RLIMIT_NOFILE, NULL, &limit), 0);
        limit.rlim_cur = 0; /* numbers that are in use stay; no new one is below it */
        check_eq(prlimit(b->pid, RLIMIT_NOFILE, &limit, NULL), 0);
}

static void allow_fds_again(const struct broker *b) {
        struct rlimit limit;
        check_eq(prlimit(b->pid, RLIMIT_NOFILE, NULL, &limit), 0);
        limit.rlim_cur = limit.rlim_max;
        check_eq(prlimit(b->pid, RLIMIT_NOFILE, &limit, NULL), 0);
}

TEST(admin_saturated, every_order_is_obeyed_with_a_full_queue_and_no_fd_left) {
        struct crowd crowd;
        struct host h;
        host_start(&h, "max_connections: 1");
        crowd_begin(&crowd, &h);
        allow_no_more_fds(&h.broker);
        check_order(&h.broker, 0, "200 requests wait", "pause", "main", NULL);
        check_order(&h.broker, 0, "200 requests were waiting", "resume", "main", NULL);
        check_order(&h.broker, 0, "1 as it comes back", "reconnect", "main", NULL);
        check_order(&h.broker, 0, "log level is debug", "log-level", "debug", NULL);
        check_order(&h.broker, 0, "was cut off", "kill", "lease", "main", "1", NULL);
        check_order(&h.broker, 0, "200 requests were refused", "breaker", "open", "main", NULL);
        check_order(&h.broker, 0, "is closed", "breaker", "close", "main", NULL);
        check_figure_soon(&h.broker, "main", waiting, 0, WAIT_MS);
        allow_fds_again(&h.broker);
        crowd_end(&crowd);
        host_end(&h);
}

TEST(admin_saturated, a_broker_without_fds_is_stopped_by_an_order) {
        struct crowd crowd;
        struct host h;
        host_start(&h, "max_connections: 1");
        crowd_begin(&crowd, &h);
        allow_no_more_fds(&h.broker);
        check_order(&h.broker, 0, "stopping", "shutdown", NULL);
#ifdef __SANITIZE_ADDRESS__ /* its search for leaks needs a descriptor, and the status is that it had none */
        check(program_wait(h.broker.pid, WAIT_MS) >= 0);
#else
        check_eq(program_wait(h.broker.pid, WAIT_MS), 0);
#endif
        h.broker.pid = 0;
        crowd_end(&crowd);
        broker_free(&h.broker);
        redis_stop(&h.redis);
}

/* ---- clients of any kind ------------------------------------------------------------------------------------------- */

static void send_garbage(int socket, unsigned i) {
        struct lessor_admin_request r = orders_request((enum lessor_admin_command)(i % 14), "main");
        unsigned char bytes[512];
        memset(bytes, (int)i, sizeof(bytes));
        r.version = 1 + i % 2;
        r.flags = i % 5;
        memset(r.why, i % 3 ? 'x' : 0, sizeof(r.why));
        if (r.command == LESSOR_ADMIN_SHUTDOWN && r.version == 1)
                r.flags = ~0U;
        if (i % 3 == 0)
                (void)send(socket, bytes, i % sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL);
        else
                (void)send(socket, &r, i % 3 == 1 ? sizeof(r) : i % sizeof(r), MSG_DONTWAIT | MSG_NOSIGNAL);
}

TEST(admin_saturated, garbage_from_many_that_never_read_an_answer_hinders_nobody) {
        enum { CLIENTS = 64 };
        int sockets[CLIENTS];
        char name[16];
        struct host h;
        host_start(&h, "max_connections: 2");
        for (unsigned i = 0; i < CLIENTS; i++) {
                snprintf(name, sizeof(name), "c%u", i);
                check((sockets[i] = orders_open(&h.broker, name)) >= 0);
        }
        for (unsigned i = 0; i < 200 * CLIENTS; i++)
                send_garbage(sockets[i % CLIENTS], i);
        lessor *l = client_open(&h.broker);
        check_order(&h.broker, 0, "", "resume", "main", NULL);
        check_order(&h.broker, 0, "", "breaker", "close", "main", NULL);
        check_order(&h.broker, 0, "reloaded", "reload", NULL);
        freeReplyObject(client_command(client_database(l, NULL), "PING"));
        for (unsigned i = 0; i < CLIENTS; i++)
                close(sockets[i]);
        lessor_close(l);
        host_end(&h);
}

TEST(admin_saturated, fds_that_are_sent_along_are_not_kept) {
        struct lessor_admin_answer answer;
        struct host h;
        host_start(&h, "max_connections: 2");
        int s = orders_open(&h.broker, "fds"), fds[4] = {0, 1, 2, 0};
        check(s >= 0);
        struct lessor_admin_request r = orders_request(LESSOR_ADMIN_RESUME, "main");
        for (unsigned i = 0; i < 50; i++) {
                check_eq(raw_send(s, &r, sizeof(r), fds, 4), 0);
                check_eq(orders_wait(s, &answer), LESSOR_ADMIN_DONE);
        }
        check_eq(fd_count(h.broker.pid), h.broker.fds);
        close(s);
        host_end(&h);
}

TEST(admin_saturated, what_is_no_request_is_answered_so) {
        struct lessor_admin_answer answer;
        struct host h;
        host_start(&h, "max_connections: 2");
        int s = orders_open(&h.broker, "wrong");
        check(s >= 0);
        struct lessor_admin_request r = orders_request(LESSOR_ADMIN_RESUME, "main");
        r.version = 9;
        check_eq(orders_ask(s, &r, &answer), LESSOR_ADMIN_VERSION_UNKNOWN);
        check_eq(answer.tag, r.tag);
        check(strstr(answer.text, "version"));
        r = orders_request((enum lessor_admin_command)99, "main");
        check_eq(orders_ask(s, &r, &answer), LESSOR_ADMIN_INVALID);
        check_eq(send(s, "?", 1, 0), 1);
        check_eq(orders_wait(s, &answer), LESSOR_ADMIN_INVALID);
        close(s);
        host_end(&h);
}

/* ---- somebody else -------------------------------------------------------------------------------------------------- */

static int asks_as_nobody(unsigned index, void *arg) {
        struct broker *b = arg;
        struct lessor_admin_answer answer;
        child_check(setgid(65534) == 0 && setuid(65534) == 0);
        struct lessor_admin_request r = orders_request(LESSOR_ADMIN_PAUSE, "main");
        int s = orders_open(b, index ? "nobody1" : "nobody0");
        if (index == 0) { /* as it is: the file's mode keeps him out */
                child_check(s == -EACCES);
                return 0;
        }
        child_check(s >= 0);
        child_check(orders_ask(s, &r, &answer) == LESSOR_ADMIN_DENIED);
        child_check(strstr(answer.text, "uid 65534 may not"));
        return 0;
}

TEST(admin_saturated, another_uid_is_refused_by_the_files_mode_and_by_his_credentials) {
        struct host h;
        char path[sizeof(LESSOR_ADMIN_PATH) + LESSOR_NAME_SIZE];
        struct workers workers;
        if (geteuid() != 0)
                test_skip("only root can become another user");
        host_start(&h, "max_connections: 2");
        check_eq(workers_run(1, asks_as_nobody, &h.broker, WAIT_MS), 1);
        snprintf(path, sizeof(path), LESSOR_ADMIN_PATH, h.broker.instance);
        check_eq(chmod(path, 0666), 0); /* somebody has meant it too well */
        workers_start(&workers, 2, asks_as_nobody, &h.broker);
        check_eq(workers_wait(&workers, WAIT_MS), 1); /* the first one's door is open now */
        check_figure(&h.broker, "main", paused, LESSOR_PAUSED_NOT);
        host_end(&h);
}

/* ---- a thread that hangs, a stop under way -------------------------------------------------------------------------- */

/* The broker's data thread stands still, and the others go on. Its tid; -1: this machine does not let us. */
static pid_t stop_data_thread(const struct broker *b) {
        char path[64], name[128];
        pid_t tid = -1;
        snprintf(path, sizeof(path), "/proc/%d/task", (int)b->pid);
        DIR *tasks = opendir(path);
        check(tasks != NULL);
        for (struct dirent *entry; (entry = readdir(tasks));) {
                snprintf(name, sizeof(name), "%s/%.16s/comm", path, entry->d_name);
                char *comm = entry->d_name[0] == '.' ? NULL : sandbox_read(name, NULL);
                pid_t found = comm && strncmp(comm, "lessord-data", 12) == 0 ? (pid_t)atoi(entry->d_name) : -1;
                if (found > 0 && (tid < 0 || found < tid)) /* the first one has the first database */
                        tid = found;
                free(comm);
        }
        closedir(tasks);
        check(tid > 0);
        if (ptrace(PTRACE_SEIZE, tid, NULL, NULL) < 0)
                return -1;
        check_eq(ptrace(PTRACE_INTERRUPT, tid, NULL, NULL), 0);
        check_eq(waitpid(tid, NULL, __WALL), tid);
        return tid;
}

static void let_go_on(pid_t tid) { check_eq(ptrace(PTRACE_DETACH, tid, NULL, NULL), 0); }

TEST(admin_saturated, a_data_thread_that_hangs_makes_an_order_late_and_no_other_order) {
        struct lessor_admin_answer answer;
        struct host h;
        host_start(&h, "max_connections: 2");
        pid_t tid = stop_data_thread(&h.broker);
        if (tid < 0) {
                host_end(&h);
                test_skip("no ptrace here");
        }
        int s = orders_open(&h.broker, "late");
        check(s >= 0);
        struct lessor_admin_request r = orders_request(LESSOR_ADMIN_PAUSE, "main");
        check(send(s, &r, sizeof(r), 0) == sizeof(r));
        check_order(&h.broker, 0, "log level is debug", "log-level", "debug", NULL); /* meanwhile */
        check_eq(orders_wait(s, &answer), LESSOR_ADMIN_LATE);
        let_go_on(tid);
        check_figure_soon(&h.broker, "main", paused, LESSOR_PAUSED_PAUSED, WAIT_MS); /* done, late */
        close(s);
        check_eq(order(&h.broker, NULL, "resume", "main", NULL), 0);
        host_end(&h);
}

TEST(admin_saturated, no_more_than_a_bounded_number_of_orders_is_under_way) {
        struct lessor_admin_answer answer;
        struct host h;
        unsigned busy = 0, late = 0;
        host_start(&h, "max_connections: 2");
        pid_t tid = stop_data_thread(&h.broker);
        if (tid < 0) {
                host_end(&h);
                test_skip("no ptrace here");
        }
        int s = orders_open(&h.broker, "many");
        check(s >= 0);
        struct lessor_admin_request r = orders_request(LESSOR_ADMIN_RESUME, "main");
        /* One after the other: our own socket has room for a few answers only. */
        for (unsigned i = 0; i < LESSOR_ADMIN_CALLS; i++)
                check(send(s, &r, sizeof(r), 0) == sizeof(r));
        int t = orders_open(&h.broker, "more");
        check(t >= 0);
        busy += orders_ask(t, &r, &answer) == LESSOR_ADMIN_BUSY;
        check_eq(busy, 1);
        late += orders_wait(s, &answer) == LESSOR_ADMIN_LATE;
        check_eq(late, 1);
        check_eq(orders_ask(t, &r, &answer), LESSOR_ADMIN_BUSY); /* who was told is under way still */
        let_go_on(tid);
        check_soon(orders_ask(t, &r, &answer) == LESSOR_ADMIN_DONE, WAIT_MS);
        close(s);
        close(t);
        host_end(&h);
}

TEST(admin_saturated, a_stop_that_hangs_takes_orders_and_can_be_made_a_cut) {
        struct lessor_admin_answer answer;
        struct host h;
        lessor_error e = {0};
        host_start(&h, "max_connections: 2");
        lessor *l = client_open(&h.broker);
        lessor_lease *held = lessor_acquire(client_database(l, NULL), WAIT_MS, &e);
        check(held);
        pid_t tid = stop_data_thread(&h.broker);
        if (tid < 0) {
                lessor_release(held);
                lessor_close(l);
                host_end(&h);
                test_skip("no ptrace here");
        }
        int s = orders_open(&h.broker, "stop");
        check(s >= 0);
        struct lessor_admin_request r = orders_request(LESSOR_ADMIN_SHUTDOWN, NULL);
        check_eq(orders_ask(s, &r, &answer), LESSOR_ADMIN_DONE);
        check_msg(strstr(answer.text, "held leases go on"), "%s", answer.text);
        check_order(&h.broker, 2, "stopping", "pause", "main", NULL);
        check_order(&h.broker, 2, "stopping", "reload", NULL);
        r.flags = LESSOR_ADMIN_CUT;
        check_eq(orders_ask(s, &r, &answer), LESSOR_ADMIN_DONE);
        check_msg(strstr(answer.text, "stopping already; held leases are cut"), "%s", answer.text);
        let_go_on(tid);
        check_eq(program_wait(h.broker.pid, WAIT_MS), 0);
        h.broker.pid = 0;
        redisReply *reply = lessor_lease_command(held, &e, "PING");
        check_msg(!reply && e.code == LESSOR_E_CONNECTION, "%d %s", e.code, e.text);
        lessor_release(held);
        lessor_close(l);
        close(s);
        broker_free(&h.broker);
        redis_stop(&h.redis);
}

TEST(admin_saturated, orders_behind_an_order_to_stop_are_answered_too) {
        enum { MORE = 8 };
        struct lessor_admin_answer answer;
        int sockets[MORE + 1];
        char name[16];
        struct host h;
        host_start(&h, "max_connections: 2");
        broker_pause(&h.broker);
        for (unsigned i = 0; i <= MORE; i++) {
                struct lessor_admin_request r =
                        orders_request(i ? LESSOR_ADMIN_PAUSE : LESSOR_ADMIN_SHUTDOWN, i ? "main" : NULL);
                snprintf(name, sizeof(name), "o%u", i);
                check((sockets[i] = orders_open(&h.broker, name)) >= 0);
                check(send(sockets[i], &r, sizeof(r), 0) == sizeof(r));
        }
        broker_resume(&h.broker);
        check_eq(orders_wait(sockets[0], &answer), LESSOR_ADMIN_DONE);
        for (unsigned i = 1; i <= MORE; i++) {
                int r = orders_wait(sockets[i], &answer);
                check_msg(r == LESSOR_ADMIN_STOPPING || r == LESSOR_ADMIN_DONE, "%d", r);
        }
        check_eq(program_wait(h.broker.pid, WAIT_MS), 0);
        h.broker.pid = 0;
        for (unsigned i = 0; i <= MORE; i++)
                close(sockets[i]);
        broker_free(&h.broker);
        redis_stop(&h.redis);
}

/* ---- its own name --------------------------------------------------------------------------------------------------- */

TEST(admin_saturated, a_dead_brokers_socket_is_taken_over_and_a_foreign_file_is_not) {
        struct broker b;
        char path[sizeof(LESSOR_ADMIN_PATH) + LESSOR_NAME_SIZE];
        broker_start(&b, "databases: {main: {unix_socket: /nowhere}}\n");
        snprintf(path, sizeof(path), LESSOR_ADMIN_PATH, b.instance);
        broker_kill(&b);
        check_order(&b, 2, "dead", "pause", "main", NULL);
        broker_launch(&b);
        check_order(&b, 0, "is paused", "pause", "main", NULL);
        broker_stop(&b);
        check(access(path, F_OK) < 0);
        sandbox_write(path, "mine\n");
        broker_launch(&b); /* it serves all the same */
        check(broker_log_has(&b, "it is not a socket of ours"));
        check_order(&b, 2, "takes no orders", "pause", "main", NULL);
        broker_stop(&b);
        check(access(path, F_OK) == 0);
        unlink(path);
        broker_free(&b);
}

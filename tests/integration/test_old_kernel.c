/* SPDX-License-Identifier: MIT */
/*
 * Kernels before 6.5 make no pidfd of a socket's peer (SO_PEERPIDFD): Debian 12's own does not. A seccomp filter gives this
 * process, its broker and its workers such a kernel's answer. There is no way back out of it: this file is a program of
 * its own.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/pidfd.h"
#include "support/check.h"
#include "support/host.h"
#include "support/process.h"
#include "support/raw.h"

enum { WAIT_MS = 20000 };

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define UNLESS(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, (skip))

/* Little-endian machines: an argument's lower half comes first. */
static void go_back_in_time(void) {
        struct sock_filter filter[] = {
                LOAD(nr),
                UNLESS(__NR_getsockopt, 5),
                LOAD(args[1]),
                UNLESS(SOL_SOCKET, 3),
                LOAD(args[2]),
                UNLESS(SO_PEERPIDFD, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOPROTOOPT),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = {.len = sizeof(filter) / sizeof(filter[0]), .filter = filter};
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

        check_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        check_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
        check(fd >= 0 && !pidfd_of_peers_known(fd));
        close(fd);
}

struct scene {
        const struct broker *broker;
        struct stage holding, end;
};

static int hold_until_killed(unsigned index, void *arg) {
        struct scene *s = arg;
        lessor_error e = {0};
        lessor *l = client_open(s->broker);
        lessor_db *db;
        child_check(lessor_database(l, NULL, &db, &e) == 0 && lessor_acquire(db, WAIT_MS, &e));
        stage_advance(&s->holding);
        stage_reached(&s->end, 1, 2 * WAIT_MS);
        return 0;
}

TEST(old_kernel, a_worker_sends_its_own_pidfd_and_is_reclaimed_when_it_is_killed) {
        struct scene *s = shared_memory(sizeof(*s));
        struct workers w;
        struct host h;

        go_back_in_time();
        host_start(&h, "max_connections: 1");
        s->broker = &h.broker;
        workers_start(&w, 1, hold_until_killed, s);
        check(stage_reached(&s->holding, 1, WAIT_MS));
        workers_kill(&w, 0);
        lessor *l = client_open(&h.broker);
        freeReplyObject(client_command(client_database(l, NULL), "PING"));
        lessor_close(l);
        host_end(&h);
}

TEST(old_kernel, an_attach_without_a_pidfd_is_refused_and_told_why) {
        struct host h;
        struct lessor_msg_attach attach = raw_attach_message(0);
        union raw_message answer;

        go_back_in_time();
        host_start(&h, "max_connections: 1");
        int fd = raw_connect(h.broker.socket);
        check_eq(raw_say(fd, &attach), 0);
        check(raw_expect(fd, LESSOR_MSG_ERROR, &answer));
        check_eq(answer.error.outcome, LESSOR_E_PROTOCOL);
        check_msg(strstr(answer.error.text, "pidfd"), "%s", answer.error.text);
        check(raw_ended(fd, NULL));
        close(fd);
        host_end(&h);
}

/* SPDX-License-Identifier: MIT */
/*
 * ptrace(2), not seccomp or a tracepoint: needs no privilege for one's own child. It slows the child down, not its
 * number of system calls. The mark is a call that nobody else makes.
 */
#include "syscalls.h"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "servers.h"

#include <linux/ptrace.h>

#define MARK SYS_getppid

void syscalls_mark(void) { syscall(MARK); }

/* The call a stopped child is about to make; -1: it is coming back from one. */
static int64_t call_entered(pid_t child) {
        struct __ptrace_syscall_info info;
        long size = ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof(info), &info);
        return size > 0 && info.op == PTRACE_SYSCALL_INFO_ENTRY ? (int64_t)info.entry.nr : -1;
}

static int64_t follow(pid_t child) {
        int64_t count = 0;
        int status, pass_on = 0, marks = 0;

        for (;;) {
                if (ptrace(PTRACE_SYSCALL, child, 0, pass_on) < 0 || waitpid(child, &status, 0) != child)
                        return -1;
                if (!WIFSTOPPED(status))
                        return marks >= 2 && WIFEXITED(status) && WEXITSTATUS(status) == 0 ? count : -1;
                pass_on = 0;
                if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
                        int64_t call = call_entered(child);
                        marks += call == MARK;
                        count += call >= 0 && call != MARK && marks == 1;
                } else
                        pass_on = WSTOPSIG(status);
        }
}

int64_t syscalls_count(void (*work)(void *), void *argument) {
        pid_t child = servers_fork();
        int64_t count = -1;
        int status;

        if (child == 0) {
                if (ptrace(PTRACE_TRACEME, 0, 0, 0) < 0)
                        _exit(1);
                raise(SIGSTOP);
                work(argument);
                _exit(0);
        }
        if (child < 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
                return -1;
        if (ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL) == 0)
                count = follow(child);
        if (count < 0 && waitpid(child, &status, WNOHANG) == 0) {
                kill(child, SIGKILL);
                waitpid(child, &status, 0);
        }
        return count;
}

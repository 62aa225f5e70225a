/* SPDX-License-Identifier: MIT */
#include "process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "check.h"
#include "sandbox.h"

static uint64_t now_ns(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

uint64_t now_ms(void) { return now_ns() / 1000000; }
uint64_t deadline_in(unsigned ms) { return now_ns() + (uint64_t)ms * PROCESS_SLOW * 1000000; }

bool look_again_before(uint64_t deadline) {
        if (now_ns() >= deadline)
                return false;
        poll(NULL, 0, 2);
        return true;
}

void *shared_memory(size_t size) {
        void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        check_msg(memory != MAP_FAILED, "mmap: %s", strerror(errno));
        return memory;
}

void stage_advance(struct stage *s) {
        atomic_fetch_add(&s->count, 1);
        syscall(SYS_futex, &s->count, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

bool stage_reached(struct stage *s, uint32_t count, unsigned ms) {
        uint64_t deadline = deadline_in(ms), now;
        for (uint32_t seen; (seen = atomic_load(&s->count)) < count;) {
                if ((now = now_ns()) >= deadline)
                        return false;
                struct timespec left = {.tv_sec = (time_t)((deadline - now) / 1000000000),
                                        .tv_nsec = (long)((deadline - now) % 1000000000)};
                syscall(SYS_futex, &s->count, FUTEX_WAIT, seen, &left, NULL, 0);
        }
        return true;
}

/* In the child: dies with the test. */
static void die_with(pid_t parent) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
                _exit(125);
}

pid_t program_start_prepared(const char *output, const char *const argv[], void (*prepare)(void *), void *arg) {
        int fd = output ? open(output, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
        pid_t parent = getpid(), pid;

        check_msg(!output || fd >= 0, "%s: %s", output, strerror(errno));
        pid = fork();
        check_msg(pid >= 0, "fork: %s", strerror(errno));
        if (pid == 0) {
                die_with(parent);
                /* A library of ours may be opening something in another thread that is not CLOEXEC yet (hiredis' sockets are not). */
                close_range(STDERR_FILENO + 1, UINT_MAX, CLOSE_RANGE_CLOEXEC);
                if (fd >= 0) {
                        dup2(fd, STDOUT_FILENO);
                        dup2(fd, STDERR_FILENO);
                }
                if (prepare)
                        prepare(arg);
                execvp(argv[0], (char *const *)(uintptr_t)argv);
                fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
                _exit(127);
        }
        if (fd >= 0)
                close(fd);
        return pid;
}

pid_t program_start(const char *output, const char *const argv[]) {
        return program_start_prepared(output, argv, NULL, NULL);
}

static int status_of(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

/* Waits by pidfd: woken by the end itself. */
int program_wait(pid_t pid, unsigned ms) {
        struct pollfd end = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
        int status, ready;

        if (end.fd < 0)
                return -1;
        ready = poll(&end, 1, (int)ms * PROCESS_SLOW);
        close(end.fd);
        if (ready <= 0 || waitpid(pid, &status, 0) != pid)
                return -1;
        return status_of(status);
}

int program_end(pid_t pid, int signal, unsigned ms) {
        kill(pid, signal);
        return program_wait(pid, ms);
}

int program_run(const char *const argv[], char **ret_output, unsigned ms) {
        static unsigned n;
        char name[32];
        snprintf(name, sizeof(name), "output-%u", n++);
        char *path = sandbox_path(name);
        pid_t pid = program_start(path, argv);
        int status = program_wait(pid, ms);

        if (status < 0)
                program_end(pid, SIGKILL, 10000);
        if (ret_output)
                *ret_output = sandbox_read(path, NULL);
        unlink(path);
        free(path);
        return status;
}

void workers_start(struct workers *w, unsigned n, worker_function *work, void *arg) {
        pid_t parent = getpid();

        check(n <= WORKERS_MAX);
        *w = (struct workers){.n = n};
        fflush(NULL);
        for (unsigned i = 0; i < n; i++) {
                w->pid[i] = fork();
                check_msg(w->pid[i] >= 0, "fork: %s", strerror(errno));
                if (w->pid[i] == 0) {
                        die_with(parent);
                        int status = work(i, arg);
                        fflush(NULL);
                        _exit(status);
                }
        }
}

unsigned workers_wait(struct workers *w, unsigned ms) {
        uint64_t deadline = now_ms() + ms;
        unsigned good = 0;

        for (unsigned i = 0; i < w->n; i++) {
                if (w->pid[i] == 0)
                        continue;
                uint64_t now = now_ms();
                int status = program_wait(w->pid[i], deadline > now ? (unsigned)(deadline - now) : 0);
                check_msg(status >= 0, "worker %u of %u has not ended within %u ms", i, w->n, ms);
                if (status != 0)
                        fprintf(stderr, "worker %u ended with status %d\n", i, status);
                w->pid[i] = 0;
                good += status == 0;
        }
        return good;
}

bool workers_ended(struct workers *w) {
        siginfo_t info;
        for (unsigned i = 0; i < w->n; i++) {
                info.si_pid = 0;
                if (w->pid[i] > 0 &&
                    (waitid(P_PID, (id_t)w->pid[i], &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0))
                        return false;
        }
        return true;
}

void workers_kill(struct workers *w, unsigned index) {
        check_eq(program_end(w->pid[index], SIGKILL, 10000), 128 + SIGKILL);
        w->pid[index] = 0;
}

unsigned workers_run(unsigned n, worker_function *work, void *arg, unsigned ms) {
        struct workers w;
        workers_start(&w, n, work, arg);
        return workers_wait(&w, ms);
}

unsigned fd_count(pid_t pid) {
        char path[32];
        unsigned n = 0;
        DIR *fds;

        snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
        if (!(fds = opendir(path)))
                return 0;
        for (struct dirent *entry; (entry = readdir(fds));)
                n += entry->d_name[0] != '.';
        closedir(fds);
        return n;
}

/* SPDX-License-Identifier: MIT */
/* The workers: forked, minded, now and then killed without warning, and replaced. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <base/clock.h>

#include "demo.h"
#include "format.h"

static int start_one(struct demo *d, unsigned number) {
        struct demo_member *m = &d->crew[number];
        pid_t pid = servers_fork();

        if (pid == 0) {
                signal(SIGINT, SIG_IGN);
                signal(SIGTERM, SIG_DFL);
                demo_work(d->handle, d->board, &d->board->tally[number], number, number + m->lives * d->o.workers);
                lessor_close(d->handle);
                _exit(0);
        }
        if (pid < 0)
                return servers_fail(d->servers, -errno, "cannot fork worker %u: %s", number, strerror(errno));
        m->pid = pid;
        m->lives++;
        return 0;
}

int demo_crew_start(struct demo *d) {
        int r = 0;
        fflush(NULL);
        for (unsigned i = 0; r == 0 && i < d->o.workers; i++)
                r = start_one(d, i);
        return r;
}

static struct demo_member *member(struct demo *d, pid_t pid) {
        for (unsigned i = 0; i < d->o.workers; i++)
                if (d->crew[i].pid == pid)
                        return &d->crew[i];
        return NULL;
}

/* Reaps this worker if he has ended. One who ended otherwise than by our -9 is an error of his. */
static bool has_ended(struct demo *d, unsigned number) {
        struct demo_member *m = &d->crew[number];
        int status;
        if (m->pid <= 0 || waitpid(m->pid, &status, WNOHANG) != m->pid)
                return m->pid <= 0;
        m->pid = 0;
        if (!(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) && status != 0) {
                atomic_fetch_add(&d->board->tally[number].errors, 1);
                if (!(atomic_fetch_or(&d->board->said, 1U) & 1U))
                        snprintf(d->board->first_error, DEMO_TEXT, "worker %u ended by himself: wait status %#x",
                                 number, (unsigned)status);
        }
        return true;
}

void demo_crew_mind(struct demo *d) {
        for (unsigned i = 0; i < d->o.workers; i++)
                if (has_ended(d, i) && !atomic_load(&d->board->end))
                        (void)start_one(d, i);
}

/* A connection that is held just now by one of ours; false if there is none. */
static bool find_holder(struct demo *d, struct lessor_status_connection *ret) {
        unsigned n = lessor_status_connections(&d->status), from = n ? (unsigned)rand() % n : 0;
        for (unsigned i = 0; i < n; i++)
                if (lessor_status_read_connection(&d->status, (from + i) % n, ret) == 0 &&
                    ret->state == LESSOR_CONNECTION_LEASED && member(d, ret->holder_pid))
                        return true;
        return false;
}

void demo_crew_kill_one(struct demo *d) {
        struct lessor_status_connection c = {0};
        bool holding = find_holder(d, &c);
        pid_t pid = holding ? c.holder_pid : d->crew[(unsigned)rand() % d->o.workers].pid;

        if (pid <= 0 || kill(pid, SIGKILL) < 0)
                return;
        d->killed++;
        d->killed_holding += holding;
        if (holding)
                snprintf(d->last_killed, sizeof(d->last_killed), "held a connection to %s, taken at %s",
                         c.database < DEMO_DATABASES ? demo_databases[c.database] : "?", format_clean(c.site));
        else
                snprintf(d->last_killed, sizeof(d->last_killed), "%s", "was between two uses");
}

void demo_crew_end(struct demo *d) {
        uint64_t deadline = clock_now() + 40 * NS_PER_S;
        unsigned left;

        atomic_store(&d->board->end, true);
        do {
                left = 0;
                for (unsigned i = 0; i < d->o.workers; i++) {
                        left += !has_ended(d, i);
                        if (clock_now() > deadline && d->crew[i].pid > 0)
                                kill(d->crew[i].pid, SIGKILL);
                }
                nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        } while (left > 0);
}

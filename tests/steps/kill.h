/* SPDX-License-Identifier: MIT */
#pragma once
/* Killing a worker at a named step of liblessor, which is built for these tests with its steps (libclient/step.h). */
#include <signal.h>
#include <stdatomic.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"

enum { WAIT_MS = 30000 };

/* In the one to be killed: at which step, and after how many times of coming past it. */
static const char *fatal_step;
static unsigned fatal_after;

void lessor_step(const char *name);
void lessor_step(const char *name) {
        if (fatal_step && strcmp(name, fatal_step) == 0 && fatal_after-- == 0)
                kill(getpid(), SIGKILL);
}

static inline lessor_db *open_in_child(const char *socket, lessor **ret) {
        lessor_error e = {0};
        lessor_db *db;
        child_check(lessor_open(socket, ret) == 0 && wait_until(lessor_database(*ret, NULL, &db, &e) == 0, WAIT_MS));
        return db;
}

/* A worker who does `body` for ever is killed there, and has died of nothing else. */
static inline void check_killed_at(const char *step, unsigned after, worker_function *body, void *arg) {
        struct workers victim;
        fatal_step = step;
        fatal_after = after;
        workers_start(&victim, 1, body, arg);
        fatal_step = NULL;
        int status = program_wait(victim.pid[0], WAIT_MS);
        check_msg(status == 128 + SIGKILL, "never came to `%s` (%u), or otherwise: status %d", step, after, status);
}

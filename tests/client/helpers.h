/* SPDX-License-Identifier: MIT */
#pragma once
/* What the client's tests begin with. */
#include <dirent.h>
#include <sys/wait.h>

#include <lessor.h>

#include "client/fake.h"
#include "support/check.h"

static inline lessor *client_open(struct fake *f) {
        lessor *l;
        check_eq(lessor_open(f->path, &l), 0);
        return l;
}

static inline lessor_db *client_db(lessor *l, const char *name) {
        lessor_error e;
        lessor_db *db;
        check_msg(lessor_database(l, name, &db, &e) == 0, "%s", e.text);
        return db;
}

static inline lessor_lease *client_lease(lessor *l) {
        lessor_error e;
        lessor_lease *lease = lessor_acquire(client_db(l, "main"), 5000, &e);
        check_msg(lease, "%s", e.text);
        return lease;
}

static inline unsigned count_fds(void) {
        DIR *d = opendir("/proc/self/fd");
        unsigned n = 0;
        while (readdir(d))
                n++;
        closedir(d);
        return n;
}

static inline void child_ends_well(pid_t child) {
        int status;
        check_eq(waitpid(child, &status, 0), child);
        check_msg(status == 0, "the child ended with status %x", status);
}

/* In children too: no check macros. */
static inline bool client_pings(lessor_db *db) {
        lessor_error e;
        redisReply *r = lessor_command(db, &e, "PING");
        bool good = r && r->type == REDIS_REPLY_STATUS && strcmp(r->str, "PONG") == 0;
        if (!r)
                fprintf(stderr, "%s\n", e.text);
        freeReplyObject(r);
        return good;
}

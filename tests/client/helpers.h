/* SPDX-License-Identifier: MIT */
#pragma once
/* What the client's tests begin with. */
#include <dirent.h>

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

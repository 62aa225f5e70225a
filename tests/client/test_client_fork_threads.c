/* SPDX-License-Identifier: MIT */
/* Fork while other threads are in the library. */
#include <pthread.h>
#include <stdatomic.h>

#include <lessor.h>

#include "base/clock.h"
#include "client/fake.h"
#include "client/helpers.h"
#include "support/check.h"

struct busy {
        lessor_db *db;
        atomic_bool stop;
};

static void *keep_busy(void *data) {
        struct busy *b = data;
        while (!atomic_load(&b->stop))
                check(client_pings(b->db));
        return NULL;
}

/* Whatever lock the others held, whatever list they were changing: the child waits for none of them. */
TEST_WITH(client_fork, a_child_works_whatever_the_other_threads_were_doing, .timeout = 120) {
        enum { BUSY = 4, FORKS = 60 };
        pthread_t threads[BUSY];
        struct busy b = {0};
        struct fake f;
        lessor *l;

#ifdef LESSOR_PLAIN_TESTS
        test_skip("ThreadSanitizer locks each atomic in use, and a fork keeps what another thread had locked");
#endif
        fake_init(&f);
        f.control->database[0].wait_timeout_ns = f.control->database[0].socket_timeout_ns = 30 * NS_PER_S;
        fake_run(&f, fake_serve, NULL);
        l = client_open(&f);
        b.db = client_db(l, NULL);
        for (int i = 0; i < BUSY; i++)
                check_eq(pthread_create(&threads[i], NULL, keep_busy, &b), 0);
        for (int i = 0; i < FORKS; i++) {
                pid_t child = fork();
                if (child == 0) {
                        alarm(60);
                        child_check(client_pings(b.db) && client_pings(b.db));
                        lessor_close(l);
                        _exit(0);
                }
                child_ends_well(child);
        }
        atomic_store(&b.stop, true);
        for (int i = 0; i < BUSY; i++)
                pthread_join(threads[i], NULL);
        lessor_close(l);
        fake_stop(&f);
        check_eq(f.sessions, 1 + FORKS);
        check_eq(f.returned, f.returned_clean);
}

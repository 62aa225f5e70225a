/* SPDX-License-Identifier: MIT */
/* Opening, attaching, looking databases up. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <lessor.h>

#include "base/clock.h"
#include "client/fake.h"
#include "client/helpers.h"
#include "support/check.h"

static int attach_code(struct fake *f, lessor_error *e) {
        lessor *l = client_open(f);
        lessor_db *db;
        int r = lessor_database(l, "main", &db, e);
        lessor_close(l);
        return r;
}

TEST(client_attach, opening_does_no_io) {
        char long_path[200];
        lessor *l;

        check_eq(lessor_open("/nonexistent/lessor.sock", &l), 0);
        lessor_close(l);
        memset(long_path, 'x', sizeof(long_path) - 1);
        long_path[sizeof(long_path) - 1] = '\0';
        check_eq(lessor_open(long_path, &l), -EINVAL);
        lessor_close(NULL);
}

TEST(client_attach, the_socket_comes_from_the_environment) {
        struct fake f;
        lessor *l;

        fake_start(&f, fake_serve, NULL);
        setenv("LESSOR_SOCKET", f.path, 1);
        check_eq(lessor_open(NULL, &l), 0);
        client_db(l, NULL);
        lessor_close(l);
        fake_stop(&f);
}

TEST(client_attach, without_a_broker_the_error_says_where_it_was_looked_for) {
        lessor_error e;
        lessor_db *db;
        lessor *l;

        check_eq(lessor_open("/nonexistent/lessor.sock", &l), 0);
        check_eq(lessor_database(l, NULL, &db, &e), LESSOR_E_UNAVAILABLE);
        check_eq(e.code, LESSOR_E_UNAVAILABLE);
        check(strstr(e.text, "/nonexistent/lessor.sock") && strstr(e.text, "lessord"));
        check_eq(lessor_database(l, NULL, &db, NULL), LESSOR_E_UNAVAILABLE);
        lessor_close(l);
}

static void knows_its_worker(struct fake *f, void *unused) {
        char path[64], line[128];
        int pid = 0;
        FILE *info;

        need(f, fake_accept(f));
        snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", f->pidfd);
        info = fopen(path, "r");
        while (info && fgets(line, sizeof(line), info))
                sscanf(line, "Pid: %d", &pid);
        if (info)
                fclose(info);
        need(f, pid == getpid());
        need(f, fake_attached(f));
        need(f, fake_gone(f));
}

TEST(client_attach, the_broker_gets_the_workers_own_pidfd) {
        struct fake f;
        lessor_error e;

        fake_start(&f, knows_its_worker, NULL);
        check_msg(attach_code(&f, &e) == 0, "%s", e.text);
        fake_stop(&f);
}

TEST(client_attach, databases_are_looked_up_by_name) {
        lessor_db *main_db, *again, *cache;
        struct fake f;
        lessor_error e;
        lessor *l;

        fake_start(&f, fake_serve, NULL);
        l = client_open(&f);
        main_db = client_db(l, NULL);
        again = client_db(l, "main");
        cache = client_db(l, "cache");
        check(main_db == again && main_db != cache);
        check_eq(lessor_database(l, "cahce", &cache, &e), LESSOR_E_UNKNOWN_DATABASE);
        check(strstr(e.text, "`cahce`") && strstr(e.text, "main, cache, jobs"));
        check_eq(lessor_database(l, "", &cache, &e), LESSOR_E_INVALID);
        check(strstr(e.text, "`name`"));
        check_eq(lessor_database(NULL, "main", &cache, &e), LESSOR_E_INVALID);
        check_eq(lessor_database(l, "main", NULL, &e), LESSOR_E_INVALID);
        lessor_close(l);
        fake_stop(&f);
}

TEST(client_attach, a_database_that_was_removed_is_unknown) {
        struct fake f;
        lessor_error e;
        lessor_db *db;
        lessor *l;

        fake_start(&f, fake_serve, NULL);
        l = client_open(&f);
        db = client_db(l, "jobs");
        lessor_release(lessor_acquire(db, 1000, &e));
        __atomic_store_n(&f.control->database[2].state, LESSOR_CONTROL_ABSENT, __ATOMIC_RELEASE);
        check(!lessor_acquire(db, 1000, &e));
        check_eq(e.code, LESSOR_E_UNKNOWN_DATABASE);
        lessor_close(l);
        fake_stop(&f);
}

/* ---- refused, or answered with nonsense ---- */

static void refuses(struct fake *f, void *unused) {
        need(f, fake_accept(f));
        need(f, fake_refuse(f, 1, LESSOR_E_DENIED, LESSOR_FATAL, "uid 1000 is not allowed here"));
        need(f, fake_gone(f));
}

TEST(client_attach, a_refusal_is_told_as_the_broker_says_it) {
        struct fake f;
        lessor_error e;

        fake_start(&f, refuses, NULL);
        check_eq(attach_code(&f, &e), LESSOR_E_DENIED);
        check(strstr(e.text, "uid 1000"));
        fake_stop(&f);
}

/* A broker that is full says so and closes without reading: a reset, with the reason behind it. */
static void refuses_unheard(struct fake *f, void *unused) {
        int fd = accept(f->listener, NULL, NULL);

        need(f, fd >= 0);
        f->session = fd;
        need(f, fake_refuse(f, 0, LESSOR_E_LIMIT, LESSOR_FATAL, "too many sessions"));
        fake_hang_up(f);
}

TEST(client_attach, a_refusal_before_attach_was_read_is_told_too) {
        for (int i = 0; i < 20; i++) { /* the two sides race */
                struct fake f;
                lessor_error e;

                fake_start(&f, refuses_unheard, NULL);
                check_msg(attach_code(&f, &e) == LESSOR_E_LIMIT, "%d %s", e.code, e.text);
                check(strstr(e.text, "too many sessions"));
                fake_stop(&f);
        }
}

enum nonsense {
        NONSENSE_NOTHING,
        NONSENSE_GRANT,
        NONSENSE_NO_SEGMENT,
        NONSENSE_VERSION,
        NONSENSE_OTHER_REQUEST,
        NONSENSE_NO_FDS,
        NONSENSE_CONTROL_TOO_LARGE,
        NONSENSE_CONTROL_TOO_SMALL,
        NONSENSE_SEGMENT_TOO_LARGE,
        NONSENSE_UNSEALED,
        NONSENSE_NOT_MEMORY,
        NONSENSE_MAGIC,
        NONSENSE_CONTROL_VERSION,
        NONSENSE_STRIDE,
        NONSENSE_INSTANCE,
        NONSENSE_SEGMENT_MAGIC,
        NONSENSE_SEGMENT_OFFSET,
        NONSENSE_SEGMENT_STRIDE,
        NONSENSE_SESSION,
        NONSENSES,
};

static void nonsense(struct fake *f, void *data) {
        struct lessor_msg_attached m;
        int fds[2] = {f->control_fd, f->segment_fd};
        unsigned n = 2;

        need(f, fake_accept(f));
        m = f->attached;
        switch (*(enum nonsense *)data) {
        case NONSENSE_NOTHING:
                fake_hang_up(f);
                return;
        case NONSENSE_GRANT:
                m.header.type = LESSOR_MSG_GRANT;
                break;
        case NONSENSE_NO_SEGMENT:
                m.features = m.control_size = m.segment_size = n = 0;
                break;
        case NONSENSE_VERSION:
                m.version = 77;
                break;
        case NONSENSE_OTHER_REQUEST:
                m.header.request = 77;
                break;
        case NONSENSE_NO_FDS:
                n = 0;
                break;
        case NONSENSE_CONTROL_TOO_LARGE:
                m.control_size = 1 << 30;
                break;
        case NONSENSE_CONTROL_TOO_SMALL:
                m.control_size = 8;
                break;
        case NONSENSE_SEGMENT_TOO_LARGE:
                m.segment_size = UINT64_MAX;
                break;
        case NONSENSE_UNSEALED:
                fds[0] = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
                need(f, ftruncate(fds[0], sizeof(struct lessor_control)) == 0);
                break;
        case NONSENSE_NOT_MEMORY:
                fds[0] = f->session;
                break;
        case NONSENSE_MAGIC:
                f->control->magic = 0;
                break;
        case NONSENSE_CONTROL_VERSION:
                f->control->version = 9;
                break;
        case NONSENSE_STRIDE:
                f->control->database_size = 0;
                break;
        case NONSENSE_INSTANCE:
                f->control->instance = 9;
                break;
        case NONSENSE_SEGMENT_MAGIC:
                f->segment->magic = 0;
                break;
        case NONSENSE_SEGMENT_OFFSET:
                f->segment->database_offset = 4;
                break;
        case NONSENSE_SEGMENT_STRIDE:
                f->segment->database_size = 8;
                break;
        case NONSENSE_SESSION:
                f->segment->session = 9;
                break;
        case NONSENSES:
                break;
        }
        need(f, fake_send(f, &m, sizeof(m), fds, n));
        if (fds[0] != f->control_fd && fds[0] != f->session)
                close(fds[0]);
        need(f, fake_gone(f));
}

TEST(client_attach, nonsense_is_refused_and_nothing_leaks) {
        unsigned fds = count_fds();

        for (enum nonsense which = 0; which < NONSENSES; which++) {
                int expected = which == NONSENSE_NOTHING ? LESSOR_E_UNAVAILABLE : LESSOR_E_PROTOCOL;
                struct fake f;
                lessor_error e;

                fake_start(&f, nonsense, &which);
                check_msg(attach_code(&f, &e) == expected, "%d: %d %s", which, e.code, e.text);
                fake_stop(&f);
        }
        check_eq(count_fds(), fds);
}

/* Memory whose tables promise more than is there is used as far as it goes. */
static void promises_too_much(struct fake *f, void *unused) {
        f->control->databases = UINT32_MAX;
        f->segment->databases = UINT32_MAX;
        f->attached.requests_max = 0;
        fake_serve(f, NULL);
}

TEST(client_attach, tables_that_promise_too_much_are_cut_to_what_is_there) {
        struct fake f;
        lessor_error e;
        lessor_db *db;
        redisReply *r;
        lessor *l;

        fake_start(&f, promises_too_much, NULL);
        l = client_open(&f);
        r = lessor_command(client_db(l, "jobs"), &e, "PING");
        check_msg(r, "%s", e.text);
        freeReplyObject(r);
        check_eq(lessor_database(l, "none", &db, &e), LESSOR_E_UNKNOWN_DATABASE);
        lessor_close(l);
        fake_stop(&f);
}

static void says_nothing(struct fake *f, void *unused) {
        need(f, fake_accept(f));
        need(f, fake_gone(f));
}

TEST(client_attach, attaching_has_a_deadline) {
        uint64_t start = clock_now();
        struct fake f;
        lessor_error e;
        lessor_db *db;
        lessor *l;

        fake_start(&f, says_nothing, NULL);
        l = client_open(&f);
        check_eq(lessor_database(l, "main", &db, &e), LESSOR_E_UNAVAILABLE);
        check(clock_now() - start >= 3 * NS_PER_S);
        check(strstr(e.text, "does not answer"));
        lessor_close(l);
        fake_stop(&f);
}

TEST(client_attach, every_outcome_has_a_text) {
        for (int code = 0; code <= LESSOR_E_NEEDS_LEASE; code++)
                check(strcmp(lessor_outcome_text(code), "unknown outcome") != 0);
        check_str(lessor_outcome_text(LESSOR_E_NEEDS_LEASE + 1), "unknown outcome");
        check_str(lessor_outcome_text(-ENOMEM), "Cannot allocate memory");
        check(lessor_release_version()[0]);
}

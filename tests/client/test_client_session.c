/* SPDX-License-Identifier: MIT */
/* The session: attaching, asking, being answered, and every way a broker can fail us. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <lessor.h>

#include "base/clock.h"
#include "client/fake.h"
#include "support/check.h"

static lessor *client_open(struct fake *f) {
        lessor *l;
        check_eq(lessor_open(f->path, &l), 0);
        return l;
}

static lessor_db *client_db(lessor *l, const char *name) {
        lessor_error e;
        lessor_db *db;
        check_msg(lessor_database(l, name, &db, &e) == 0, "%s", e.text);
        return db;
}

static void one_command(struct fake *f, void *unused) {
        union wire_message m, r;
        int redis;

        need(f, fake_attach(f));
        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        need(f, m.lease.database == 1 && m.lease.tid > 0 && m.lease.wait_ns == LESSOR_WAIT_DEFAULT);
        redis = fake_grant(f, &m);
        need(f, fake_expect(redis, "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"));
        need(f, fake_say(redis, "$5\r\nvalue\r\n"));
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &r));
        need(f,
             r.giveback.database == 1 && r.giveback.slot == 3 && r.giveback.generation == 5 && r.giveback.lease == 1);
        need(f, r.giveback.flags == LESSOR_RETURN_CLEAN && r.giveback.requests == 1 && r.giveback.replies == 1);
        need(f, fake_ended(redis));
        close(redis);
        need(f, fake_gone(f));
}

TEST(client_session, a_command_borrows_a_connection_and_gives_it_back_clean) {
        struct fake f;
        lessor_error e;
        redisReply *r;
        lessor *l;

        fake_start(&f, one_command, NULL);
        l = client_open(&f);
        r = lessor_command(client_db(l, "cache"), &e, "GET %s", "k");
        check_msg(r, "%s", e.text);
        check_eq(e.code, 0);
        check_str(r->str, "value");
        freeReplyObject(r);
        lessor_close(l);
        fake_stop(&f);
}

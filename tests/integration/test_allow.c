/* SPDX-License-Identifier: MIT */
/* Who may use which database: decided by the kernel's word on who is at the other end of the socket. */
#include <grp.h>
#include <sys/stat.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"
#include "support/sandbox.h"

enum { STRANGER = 65534, WAIT_MS = 20000 };

struct scene {
        struct redis redis;
        struct broker broker;
};

static void scene_start(struct scene *s) {
        unsigned uid = geteuid(), gid = getegid();

        redis_start(&s->redis, NULL);
        broker_start(&s->broker,
                     "socket_mode: 0666\ndatabases:\n"
                     "  main: {unix_socket: %s}\n"
                     "  mine: {unix_socket: %s, allow: {users: [%u]}}\n"
                     "  ours: {unix_socket: %s, allow: {groups: [%u]}}\n"
                     "  theirs: {unix_socket: %s, allow: {users: [4242], groups: [4242]}}\n"
                     "  strangers: {unix_socket: %s, allow: {users: [%d]}}\n",
                     s->redis.socket, s->redis.socket, uid, s->redis.socket, gid, s->redis.socket, s->redis.socket,
                     STRANGER);
}

static void scene_end(struct scene *s) {
        check_settled(&s->broker, &s->redis);
        broker_free(&s->broker);
        redis_stop(&s->redis);
}

/* 0 when a command is carried out, else the outcome. */
static int outcome_of(const char *socket, const char *database) {
        lessor *l;
        lessor_db *db;
        lessor_error e = {0};
        if (lessor_open(socket, &l) != 0)
                return -1;
        int r = lessor_database(l, database, &db, &e);
        redisReply *reply = r == 0 ? lessor_command(db, &e, "PING") : NULL;
        int outcome = reply ? 0 : e.code ? e.code : r;
        if (reply)
                freeReplyObject(reply);
        lessor_close(l);
        return outcome;
}

TEST(allow, who_is_named_is_let_in_and_who_is_not_is_denied) {
        struct scene s;

        scene_start(&s);
        check_eq(outcome_of(s.broker.socket, "main"), 0);
        check_eq(outcome_of(s.broker.socket, "mine"), 0);
        check_eq(outcome_of(s.broker.socket, "ours"), 0);
        check_eq(outcome_of(s.broker.socket, "theirs"), LESSOR_E_DENIED);
        check_eq(outcome_of(s.broker.socket, "strangers"), geteuid() == STRANGER ? 0 : LESSOR_E_DENIED);
        check_figure_soon(&s.broker, "theirs", denied, 1, WAIT_MS);
        check_figure(&s.broker, "theirs", created_connections, 0);
        scene_end(&s);
}

static int ask_as_stranger(unsigned index, void *arg) {
        static const struct {
                const char *database;
                int expected;
        } cases[] = {{"main", 0},
                     {"strangers", 0},
                     {"mine", LESSOR_E_DENIED},
                     {"ours", LESSOR_E_DENIED},
                     {"theirs", LESSOR_E_DENIED}};
        child_check(setgroups(0, NULL) == 0 && setgid(STRANGER) == 0 && setuid(STRANGER) == 0);
        for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                int outcome = outcome_of(arg, cases[i].database);
                if (outcome != cases[i].expected)
                        fprintf(stderr, "%s: %d, expected %d\n", cases[i].database, outcome, cases[i].expected);
                child_check(outcome == cases[i].expected);
        }
        return 0;
}

static int ask_as_member_of_group(unsigned index, void *arg) {
        gid_t groups[] = {4242};
        child_check(setgroups(1, groups) == 0 && setgid(STRANGER) == 0 && setuid(STRANGER) == 0);
        child_check(outcome_of(arg, "theirs") == 0);
        return 0;
}

TEST(allow, another_user_meets_his_own_limits) {
        struct scene s;

        if (geteuid() != 0)
                test_skip("only root can become another user");
        scene_start(&s);
        check_eq(workers_run(1, ask_as_stranger, s.broker.socket, WAIT_MS), 1);
        scene_end(&s);
}

TEST(allow, a_supplementary_group_counts) {
        struct scene s;

        if (geteuid() != 0)
                test_skip("only root can become another user");
        scene_start(&s);
        check_eq(workers_run(1, ask_as_member_of_group, s.broker.socket, WAIT_MS), 1);
        scene_end(&s);
}

static int connect_as_stranger(unsigned index, void *arg) {
        child_check(setgroups(0, NULL) == 0 && setgid(STRANGER) == 0 && setuid(STRANGER) == 0);
        child_check(outcome_of(arg, "main") != 0);
        return 0;
}

TEST(allow, the_sockets_mode_keeps_others_out_altogether) {
        struct stat st;
        struct host h;

        if (geteuid() != 0)
                test_skip("only root can become another user");
        host_start(&h, "max_connections: 2");
        check(stat(h.broker.socket, &st) == 0);
        check_eq(st.st_mode & 0777, 0660);
        check_eq(workers_run(1, connect_as_stranger, h.broker.socket, WAIT_MS), 1);
        host_end(&h);
}

/* SPDX-License-Identifier: MIT */
#pragma once
/* What the tests of plain calls by lane begin with: a client, and a broker who offers it a lane and follows a script. */
#include <lessor.h>

#include "client/fake.h"
#include "client/helpers.h"
#include "client/lanes.h"
#include "support/check.h"

#define GET_K "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
#define SET_K "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"
#define INCR_K "*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n"

static struct fake_lane lane; /* of the script: large, and one is enough */

struct client {
        struct fake f;
        lessor *l;
        lessor_db *db;
        lessor_error e;
};

static inline void client_prepare(struct client *c) {
        fake_init(&c->f);
        fake_offer_lanes(&c->f);
}

/* What the broker says is prepared; `data` is the script's. */
static inline void client_run(struct client *c, fake_script script, void *data) {
        fake_run(&c->f, script, data);
        c->l = client_open(&c->f);
        c->db = client_db(c->l, "main");
}

static inline void client_start(struct client *c, fake_script script) {
        client_prepare(c);
        client_run(c, script, NULL);
}

static inline void client_end(struct client *c) {
        lessor_close(c->l);
        fake_stop(&c->f);
}

static inline redisReply *get(struct client *c, int wait_ms) {
        return lessor_command_argv(c->db, wait_ms, 2, (const char *[]){"GET", "k"}, NULL, &c->e);
}

/* Of a call: it is this string. Frees it. */
static inline void check_reply(struct client *c, redisReply *reply, const char *expected) {
        check_msg(reply, "%s", c->e.text);
        check_str(reply->str, expected);
        freeReplyObject(reply);
}

static inline bool script_begins(struct fake *f) { return fake_attach(f) && fake_lane_open(f, &lane); }

static inline void script_ends(struct fake *f) {
        need(f, fake_gone(f));
        fake_lane_close(&lane);
}

/* One lease, for one command. */
static inline void lease_for(struct fake *f, const char *command, const char *reply) {
        union wire_message m;
        int redis;

        need(f, fake_receive(f, LESSOR_MSG_LEASE, &m));
        redis = fake_grant(f, &m);
        need(f, fake_expect(redis, command) && fake_say(redis, reply));
        need(f, fake_receive(f, LESSOR_MSG_RETURN, &m));
        close(redis);
}

static inline void lease_once(struct fake *f, const char *command) { lease_for(f, command, "+leased\r\n"); }

/* SPDX-License-Identifier: MIT */
#pragma once
/* A lease from the inside: the connection, and what we know about how clean it is. */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <lessor.h>
#include <lessor/protocol.h>

#include "base/command.h"
#include "client.h"
#include "fork.h"
#include "io.h"
#include "session.h"

/*
 * Names of commands that were looked up and found harmless, so that a lease in steady use does not walk through the
 * table, whose cache lines Redis and the kernel have pushed out meanwhile. As written: upper and lower case are two.
 */
struct harmless {
        struct {
                uint8_t len; /* 0: free */
                char name[15];
        } recent[4];
};

struct lessor_lease {
        struct session *session; /* a reference */
        struct guard *guard;     /* the fd */
        struct stream stream;
        struct command_trail trail;
        struct harmless harmless;
        redisContext *context; /* the lease was used raw: its reader is the stream's */
        uint64_t timeout_ns;   /* for each reply */
        uint64_t socket_timeout_ns;
        struct lessor_msg_grant grant;
        uint32_t epoch; /* the process it belongs to */
        int broken;     /* 0, or the code of the error after which replies can no longer be told apart */
        char database[LESSOR_NAME_SIZE];
};

/* In place: 0, or the code of *error, which is not NULL. */
int lease_init(struct lessor_lease *l, struct lessor_db *db, int wait_ms, const char *site, lessor_error *error);
/* Gives the connection back, said clean only with proof. Keeps errno. */
void lease_deinit(struct lessor_lease *l);

/* 0 when the lease may be used here and now, else the code of *error. `function` is for the text. */
int lease_check(const struct lessor_lease *l, const char *function, lessor_error *error);

/*
 * The exchange on the lease's connection, with everything that depends on how it went: the trail, the statistics, the
 * reports, the error's text. x->replies are the caller's even after an error.
 */
int lease_exchange(struct lessor_lease *l, struct exchange *x, lessor_error *error);
/* One formatted command, one reply; NULL: see *error. */
redisReply *lease_command(struct lessor_lease *l, const char *data, size_t size, lessor_error *error);

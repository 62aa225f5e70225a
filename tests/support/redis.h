/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A private redis-server: in the test's directory, on a Unix socket and, if asked, on a free loopback port. It keeps
 * nothing on disk and dies with the test. Whoever asks it something does so on one connection of the test's own, which
 * is no client of ours: redis_connections() counts those by name.
 */
#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <sys/types.h>

struct redis_options {
        bool tcp, ipv6;       /* also 127.0.0.1, or [::1] */
        const char *password; /* of the default user */
        const char *config;   /* further lines for redis.conf */
};

struct redis {
        pid_t pid;
        char *socket, *config, *log;
        const char *password;
        unsigned port; /* 0: no TCP */
        bool ipv6;
        redisContext *control;
};

void redis_start(struct redis *, const struct redis_options *); /* options NULL: a Unix socket, no password */
void redis_stop(struct redis *);                                /* and frees */
void redis_kill(struct redis *);                                /* -9; the struct stays, for redis_restart() */
void redis_restart(struct redis *);                             /* same socket, port and configuration, no data */
void redis_restart_loading(struct redis *, const char *config); /* likewise with these lines more: answers LOADING */
bool redis_is_busy(struct redis *);                             /* with a script: answers BUSY */
void redis_pause(struct redis *);                               /* SIGSTOP: connections stay, nothing answers */
void redis_resume(struct redis *);

/* Fail the test when the server does not answer. */
redisReply *redis_ask(struct redis *, const char *fmt, ...);
long long redis_integer(struct redis *, const char *fmt, ...);
void redis_say(struct redis *, const char *fmt, ...); /* the reply must be no error */

void redis_check_string(struct redis *, const char *key, const char *value); /* GET key, in database 0 */

/* Clients whose CLIENT SETNAME is `name`; NULL: all but the test's own. */
unsigned redis_connections(struct redis *, const char *name);
long long redis_info(struct redis *, const char *field); /* a number of INFO */

/* The address for a configuration: "unix_socket: /path" or "host: 127.0.0.1, port: 1234". Static. */
const char *redis_address(const struct redis *);

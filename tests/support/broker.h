/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A private lessord ($LESSORD, else the build's own), with an instance name and a socket of the test's own. Its log goes
 * to a file; a sanitizer's report in it fails the test.
 */
#include <stdbool.h>
#include <sys/types.h>

#include <lessor.h>
#include <lessor/status.h>

#include "redis.h"

struct broker {
        pid_t pid;
        char instance[LESSOR_NAME_SIZE];
        char *socket, *config, *log;
        unsigned fds; /* right after the start: neither session nor connection */
};

/* Names and a configuration file, no process yet. `fmt` makes the YAML; it may end without a newline. */
void broker_prepare(struct broker *, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void broker_launch(struct broker *);   /* and waits until it is ready */
void broker_relaunch(struct broker *); /* the same, while workers wait for it */
/* For a start that should fail: the exit status, -1 if it has not ended (killed then). What it said is in the log. */
int broker_launch_refused(struct broker *, void (*prepare)(void *), void *arg);

void broker_start(struct broker *, const char *fmt, ...) __attribute__((format(printf, 2, 3))); /* both of the first */
void broker_stop(struct broker *);                                                              /* SIGTERM; status 0 */
void broker_kill(struct broker *);                                                              /* -9 */
void broker_free(struct broker *); /* stops a running one */

const char *broker_path(void);
const char *tool_path(void); /* `lessor` */
bool broker_log_has(const struct broker *, const char *text);
void broker_dump_log(const struct broker *); /* to standard error */

/* "lessor:<instance>:<database>", as in CLIENT LIST. Static. */
const char *broker_client_name(const struct broker *, const char *database);

/* One record of the status segment, as last published. Fails the test when it cannot be read. */
struct lessor_status_database broker_figures(const struct broker *, const char *database);
/* The same, published after this call began: what is over by now is in it. */
struct lessor_status_database broker_figures_now(const struct broker *, const char *database);
/* The record of a connection held by this process, published after this call began; fails the test if there is none. */
struct lessor_status_connection broker_connection_held(const struct broker *);
uint64_t broker_sessions(const struct broker *);     /* as last published */
uint64_t broker_sessions_now(const struct broker *); /* published after this call began */
void broker_pause(struct broker *);                  /* SIGSTOP, and waits until it stands still */
void broker_resume(struct broker *);

/* The value of one field as soon as it is `value`; fails the test when it is not in time. */
#define check_figure_soon(b, database, field, value, ms)                                                               \
        check_msg(wait_until(broker_figures(b, database).field == (uint64_t)(value), ms),                              \
                  "%s of %s is %llu after %u ms, expected %s = %llu", #field, database,                                \
                  (unsigned long long)broker_figures(b, database).field, (unsigned)(ms), #value,                       \
                  (unsigned long long)(value))

/* The value of one field, now. */
#define check_figure(b, database, field, value) check_eq(broker_figures_now(b, database).field, value)

/*
 * The books balance once every client has gone: no session, no lease, no waiter; each database's open connections are
 * available ones or the lanes', as many as Redis has clients of that name, and the broker holds an fd for each and no other.
 */
void check_settled(const struct broker *, struct redis *);

/* A handle on the broker's socket, and a database of it. */
lessor *client_open(const struct broker *);
lessor_db *client_database(lessor *, const char *name);
/* One command whose reply is no error, for freeReplyObject(); fails the test otherwise. */
#define client_command(db, ...) client_reply(lessor_command((db), client_error_clear(), __VA_ARGS__), #__VA_ARGS__)
redisReply *client_reply(redisReply *, const char *what);
lessor_error *client_error_clear(void);
void client_check_string(lessor_db *, const char *key, const char *value); /* GET key */

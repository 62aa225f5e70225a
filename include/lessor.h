/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * liblessor: Redis connections leased from this host's broker, lessord.
 *
 *      lessor *l;
 *      lessor_db *db;
 *      lessor_error e;
 *      lessor_open(NULL, &l);                                     // no I/O yet
 *      if (lessor_database(l, NULL, &db, &e))                     // "main"
 *              die("%s", e.text);
 *      redisReply *r = lessor_command(db, &e, "GET %s", key);     // borrowed, used and given back in one call
 *      if (!r)
 *              warn("%s (may have run: %d)", e.text, e.may_have_run);
 *      freeReplyObject(r);
 *
 * THREADS. Every function may be called from any thread; one lease and one pipe belong to one thread at a time. No
 * function is a cancellation point.
 * FORK. A handle may be opened once and used by every forked child: a process attaches at its first use. A lease stays
 * its parent's; in the child its use is LESSOR_E_FORKED and lessor_release() frees memory only.
 * THE LIBRARY never aborts, prints, starts a thread, installs a signal handler or raises SIGPIPE. (Raw use of
 * lessor_context() is hiredis' own I/O: ignore SIGPIPE for that.)
 * REPLIES are the caller's, freed by freeReplyObject(); they own their memory and outlive lease, handle and thread.
 * LEASES live until lessor_release(): one that a thread forgets is held until its process ends. lessor_close() with
 * leases still held is safe: they go on working and free what they keep alive when they are released.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <hiredis/hiredis.h>

#include <lessor/outcome.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default) /* the library itself is built with everything else hidden */

typedef struct lessor lessor;
typedef struct lessor_db lessor_db;
typedef struct lessor_lease lessor_lease;
typedef struct lessor_pipe lessor_pipe;

#define LESSOR_ERROR_TEXT 488
#define LESSOR_WAIT_CONFIGURED (-1) /* wait_ms: the database's own wait_timeout (5 s unless configured) */

typedef struct lessor_error {
        int code;          /* 0, an lessor_outcome, or a negative errno */
        bool may_have_run; /* the command may have been carried out, now or still later: sending it again is your decision */
        int retry_ms;      /* no use trying before; 0: unknown */
        char text[LESSOR_ERROR_TEXT];
} lessor_error;

/*
 * A handle on the broker at `socket`; NULL: $LESSOR_SOCKET, else /run/lessor/default.sock. Does no I/O.
 * 0; -ENOMEM; -EINVAL (path too long for a Unix socket). *ret is the caller's, for lessor_close().
 */
int lessor_open(const char *socket, lessor **ret);
void lessor_close(lessor *); /* NULL ok; no other call on it, or on its databases, may be running */

/*
 * The database `name`, NULL for "main"; attaches if need be. 0, or the error's code (error may be NULL):
 * LESSOR_E_UNKNOWN_DATABASE (the text lists those known), LESSOR_E_UNAVAILABLE, LESSOR_E_VERSION, LESSOR_E_LIMIT,
 * -errno. *ret is the handle's, valid until lessor_close(), in forked children too; the same name gives the same
 * pointer.
 */
int lessor_database(lessor *, const char *name, lessor_db **ret, lessor_error *error);

/*
 * One command, on a connection borrowed for it, or by lane: handed to the broker, which sends the commands of many workers
 * over few connections. Which of them is better the broker knows, and says so as the load changes; what may not share a connection
 * (SELECT, BLPOP, MULTI ...) always borrows one. For the caller there is no difference but in speed. NULL is an error of ours, told in *error (which may be NULL); an
 * error of Redis is a reply of type REDIS_REPLY_ERROR. fmt as in redisCommand(): %s, %b with a size_t.
 */
redisReply *lessor_command(lessor_db *, lessor_error *error, const char *fmt, ...);
redisReply *lessor_command_argv(lessor_db *, int wait_ms, int argc, const char **argv, const size_t *argv_len,
                                lessor_error *error); /* argv_len NULL: strings */

/*
 * The library by itself sends again only what surely never left. This is for a command that may run twice (GET, SET, DEL;
 * not INCR, LPUSH): an attempt whose connection broke, or that was not answered, is made again on another one, until
 * Redis answers, whatever it says, or wait_ms have passed since the call; within them everything happens, waiting for a
 * reply too. may_have_run tells of all attempts.
 */
redisReply *lessor_command_idempotent(lessor_db *, int wait_ms, int argc, const char **argv, const size_t *argv_len,
                                      lessor_error *error);

/*
 * Several commands in one write, by lane or by lease as a whole. lessor_pipe_run() gives one reply for each command added, in order, errors of
 * Redis in their place. Once run the pipe is empty again, whatever came of it; a failed run gives no replies at
 * all, and may_have_run as soon as one command went out whole. A pipe takes no command that does not answer exactly
 * once (SUBSCRIBE, MONITOR, QUIT ...): those need a lease.
 *
 * LESSOR_ATOMIC wraps them in MULTI/EXEC on one connection: replies are EXEC's elements; a command refused while
 * queueing gives its error in its place and an error LESSOR_PIPE_ABORTED for the rest. If Redis refuses MULTI but
 * ran commands, the run fails with LESSOR_E_UPSTREAM. Commands that open or end transactions (MULTI, EXEC, DISCARD,
 * WATCH, UNWATCH) are not taken.
 */
#define LESSOR_ATOMIC 1U
#define LESSOR_PIPE_ABORTED "EXECABORT not run: another command of the transaction was refused"
lessor_pipe *lessor_pipe_new(lessor_db *, unsigned flags); /* NULL: out of memory, or an unknown flag */
int lessor_pipe_add(lessor_pipe *, const char *fmt, ...);  /* 0; -ENOMEM; LESSOR_E_INVALID: nothing was added */
int lessor_pipe_add_argv(lessor_pipe *, int argc, const char **argv, const size_t *argv_len);
int lessor_pipe_run(lessor_pipe *, int wait_ms, redisReply ***ret_replies, size_t *ret_n, lessor_error *error);
void lessor_pipe_replies_free(redisReply **replies, size_t n);
void lessor_pipe_free(lessor_pipe *);

/*
 * One connection, exclusively, for any command at all (MULTI, WATCH, BLPOP, SUBSCRIBE ...). Waits its turn for at
 * most wait_ms (0: not at all; LESSOR_WAIT_CONFIGURED). NULL: see *error. The macro records the call site for
 * `lessor leases`; `file` must live as long as the process does, like __FILE__.
 */
lessor_lease *lessor_acquire_at(lessor_db *, int wait_ms, const char *file, int line, lessor_error *error);
#define lessor_acquire(db, wait_ms, error) lessor_acquire_at((db), (wait_ms), __FILE__, __LINE__, (error))

/*
 * Likewise, for a lease that will block for long (BLPOP, SUBSCRIBE, MONITOR): counts against the database's `max_pinned`,
 * if that is configured, so that those who block leave connections for those who do not. lessor_command() sees by
 * itself that a command blocks.
 */
lessor_lease *lessor_acquire_pinned_at(lessor_db *, int wait_ms, const char *file, int line, lessor_error *error);
#define lessor_acquire_pinned(db, wait_ms, error) lessor_acquire_pinned_at((db), (wait_ms), __FILE__, __LINE__, (error))

/* As lessor_command(), on this connection. After an error the lease is broken: release it. */
redisReply *lessor_lease_command(lessor_lease *, lessor_error *error, const char *fmt, ...);
redisReply *lessor_lease_command_argv(lessor_lease *, int argc, const char **argv, const size_t *argv_len,
                                      lessor_error *error);

/*
 * How long commands on this lease wait for their reply, the database's socket_timeout unless set: for BLPOP and the
 * like, whose own timeout may be longer. -1: for ever.
 */
void lessor_lease_set_timeout(lessor_lease *, int reply_ms);

/*
 * Waits for a further reply without sending anything: messages of SUBSCRIBE, MONITOR. As lessor_lease_command(),
 * but a LESSOR_E_REPLY_TIMEOUT breaks nothing: read on.
 */
redisReply *lessor_lease_read(lessor_lease *, lessor_error *error);

/*
 * The connection as a blocking hiredis context, for code that wants one. Borrowed: valid until lessor_release(),
 * never redisFree() it. What is done through it is beyond our proof that the connection is clean: the broker will
 * replace or reset the connection after the release. Replies that were read ahead go along. Its timeout is
 * lessor_lease_set_timeout()'s. NULL: out of memory, a broken lease, or in a forked child (where a context had
 * before has lost its fd).
 */
redisContext *lessor_context(lessor_lease *);
lessor_lease *lessor_lease_of(const redisContext *); /* the lease whose lessor_context() it is, else NULL */

void lessor_release(lessor_lease *); /* any state; NULL ok; in a forked child frees memory only; keeps errno */

/* Released at the end of the scope: LESSOR_SCOPED lessor_lease *lease = lessor_acquire(...); (GCC and Clang) */
static inline void lessor_release_scoped(lessor_lease **lease) { lessor_release(*lease); }
#define LESSOR_SCOPED __attribute__((cleanup(lessor_release_scoped)))

const char *lessor_outcome_text(int code); /* "exhausted": a static string for an outcome or a negative errno */
const char *lessor_release_version(void);  /* "0.1.0": of the library that is loaded */

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

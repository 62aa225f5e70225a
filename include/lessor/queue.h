/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Many commands under way from one thread: the base of event loops. Submitted commands go by lane, many in one write, and
 * their results are taken when they are there:
 *
 *      lessor_queue_new(l, &queue);
 *      while (!lessor_submit(queue, db, 1000, argc, argv, NULL, userdata, &e))
 *              ;                                          // until LESSOR_E_EXHAUSTED, or there is nothing more to say
 *      while (lessor_reap(queue, -1, &result) == 1)       // one result for each command submitted
 *              use(result.userdata, result.reply);        // and freeReplyObject(result.reply)
 *
 * With a loop of one's own: watch lessor_queue_fd() for reading; when it is readable, lessor_reap(queue, 0, ...) until it says
 * 0. That arms the fd for the next time.
 *
 * ORDER. One thread's commands to one database run in the order in which they are submitted. lessor_command(), a pipe or
 * lessor_acquire() of the same thread comes after them: what goes by lease waits until they are done, within its own wait_ms.
 * A command that "may have run" may still run later.
 * THREADS. A queue belongs to one thread at a time; a thread may have several.
 * FORK. A queue is its process' own: in a child its use is LESSOR_E_FORKED, and lessor_queue_free() frees memory only.
 */
#include <lessor.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

typedef struct lessor_queue lessor_queue;

#define LESSOR_QUEUE_MAX 4096 /* commands of one queue that are submitted and not reaped yet */

/* 0; -ENOMEM, -EMFILE, other -errno. Free it before lessor_close(). */
int lessor_queue_new(lessor *, lessor_queue **ret);
/* What is under way is given up, and may run still. NULL ok. */
void lessor_queue_free(lessor_queue *);

/*
 * 0: one result with this userdata will come. Else nothing was submitted, and *error (NULL ok) says why:
 * LESSOR_E_EXHAUSTED: too much is under way, reap first. LESSOR_E_NEEDS_LEASE: this command, or for now this database, goes by
 * lease alone: lessor_command() or lessor_acquire(). As for lessor_command(): LESSOR_E_BREAKER_OPEN, LESSOR_E_UNAVAILABLE ...
 * wait_ms (LESSOR_WAIT_CONFIGURED): until when it may wait to be sent; then its result is an error. The arguments are
 * copied. The process' first use of a database, and the first after a restart of the broker, waits for the broker's answer.
 */
int lessor_submit(lessor_queue *, lessor_db *, int wait_ms, int argc, const char **argv, const size_t *argv_len,
                  void *userdata, lessor_error *error);

typedef struct lessor_result {
        void *userdata;
        redisReply *reply;  /* the caller's; NULL: see `error` */
        lessor_error error; /* error.code is 0 with a reply */
} lessor_result;

/*
 * 1: a result. 0: none within wait_ms (0: at once; -1: for ever), or nothing is under way; the fd is armed. Else
 * LESSOR_E_INVALID, LESSOR_E_FORKED, or a negative errno.
 */
int lessor_reap(lessor_queue *, int wait_ms, lessor_result *ret);

/*
 * Takes back what was submitted with this userdata and has no result yet; how many that were. Each gives a result LESSOR_E_CANCELLED
 * all the same, which says whether it may have run.
 */
unsigned lessor_queue_cancel(lessor_queue *, const void *userdata);

unsigned lessor_queue_in_flight(const lessor_queue *); /* submitted, and not reaped */

/* Readable when there may be something to reap, once it is armed. The queue's: watch it, no more. -1 in a forked child. */
int lessor_queue_fd(const lessor_queue *);
/* For who has not reaped until there was nothing. 0: armed; 1: there is something to reap. Else as lessor_reap(). */
int lessor_queue_arm(lessor_queue *);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

/* SPDX-License-Identifier: MIT */
/*
 * A prefork server on libevent: the master opens once, which does no I/O, and forks; each worker makes a loop of its own and
 * attaches by itself. Here a worker's "requests" are timers, each of which needs a command by lane and a transaction.
 *
 *      prefork [WORKERS [REQUESTS]]
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <event2/event.h>
#include <lessor.h>
#include <lessor/adapters/libevent.h>

struct worker {
        struct event_base *base;
        lessor_async *async;
        lessor_async_db *db;
        struct event *request;
        unsigned left;
        int status;
};

static void next_request(struct worker *w) {
        if (w->left-- > 0)
                event_active(w->request, EV_TIMEOUT, 0);
}

static void failed(struct worker *w, const char *why) {
        fprintf(stderr, "worker %d: %s\n", (int)getpid(), why);
        w->status = 1;
}

static void paid(redisAsyncContext *ac, void *reply, void *data) {
        struct worker *w = data;

        if (!reply || ((redisReply *)reply)->type != REDIS_REPLY_ARRAY)
                failed(w, "the transaction was not carried out");
        lessor_async_release(ac); /* all is answered and nothing left open: the next worker gets it as it is */
        next_request(w);
}

static void pay(lessor_async_db *db, redisAsyncContext *ac, const lessor_error *error, void *data) {
        struct worker *w = data;

        (void)db;
        if (!ac) {
                failed(w, error->text);
                return;
        }
        redisAsyncCommand(ac, NULL, NULL, "MULTI");
        redisAsyncCommand(ac, NULL, NULL, "DECR example:prefork:stock");
        redisAsyncCommand(ac, NULL, NULL, "INCR example:prefork:sold");
        redisAsyncCommand(ac, paid, w, "EXEC");
}

static void counted(lessor_async_db *db, redisReply *reply, const lessor_error *error, void *data) {
        if (!reply)
                failed(data, error->text);
        else if (lessor_async_acquire(db, LESSOR_WAIT_CONFIGURED, pay, data) != 0)
                failed(data, "too much is under way");
}

static void handle(evutil_socket_t fd, short what, void *data) {
        struct worker *w = data;

        (void)fd;
        (void)what;
        if (lessor_async_command(w->db, counted, w, "INCR example:prefork:requests") != 0)
                failed(w, "too much is under way");
}

static int work(lessor *l, unsigned requests) {
        struct worker w = {.base = event_base_new(), .left = requests};

        signal(SIGPIPE, SIG_IGN);
        w.request = event_new(w.base, -1, 0, handle, &w);
        if (lessor_async_new(l, &w.async) != 0 || lessor_libevent_attach(w.async, w.base) != 0 ||
            lessor_async_database(w.async, NULL, &w.db) != 0)
                return 1;
        next_request(&w);
        event_base_dispatch(w.base);
        lessor_async_free(w.async);
        event_free(w.request);
        event_base_free(w.base);
        lessor_close(l);
        return w.status;
}

int main(int argc, char **argv) {
        unsigned workers = argc > 1 ? (unsigned)atoi(argv[1]) : 4, requests = argc > 2 ? (unsigned)atoi(argv[2]) : 100;
        int bad = 0, status;
        lessor *l;

        if (lessor_open(NULL, &l) != 0)
                return 1;
        for (unsigned i = 0; i < workers; i++)
                if (fork() == 0)
                        _exit(work(l, requests));
        while (wait(&status) > 0)
                bad += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
        printf("%u workers, %u requests each, %d failed\n", workers, requests, bad);
        lessor_close(l);
        return bad > 0;
}

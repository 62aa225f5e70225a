/* SPDX-License-Identifier: MIT */
/*
 * A pub/sub listener on libevent. It has a connection to itself, for SUBSCRIBE, and takes another when that breaks; what it
 * counts goes by lane from the same loop.
 *
 *      listener CHANNEL        prints what is published there; "quit" ends it
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <event2/event.h>
#include <lessor.h>
#include <lessor/adapters/libevent.h>

static const char *channel;
static struct event_base *base;
static bool quit;

static void listen_on(lessor_async_db *db);

static void again(evutil_socket_t fd, short what, void *db) {
        (void)fd;
        (void)what;
        listen_on(db);
}

static void later(lessor_async_db *db, int ms) {
        event_base_once(base, -1, EV_TIMEOUT, again, db,
                        &(struct timeval){.tv_usec = (ms > 0 ? ms % 1000 : 100) * 1000});
}

static void counted(lessor_async_db *db, redisReply *reply, const lessor_error *error, void *data) {
        (void)db;
        (void)data;
        if (!reply)
                fprintf(stderr, "not counted: %s\n", error->text);
}

static void heard(redisAsyncContext *ac, void *data, void *db) {
        redisReply *reply = data;

        if (!reply) /* the connection has ended: see ended() */
                return;
        if (strcmp(reply->element[0]->str, "subscribe") == 0) {
                printf("listening on %s\n", channel);
        } else if (strcmp(reply->element[2]->str, "quit") == 0) {
                quit = true;
                lessor_async_release(ac);
        } else {
                printf("%s\n", reply->element[2]->str);
                lessor_async_command(db, counted, NULL, "INCR example:heard:%s", channel);
        }
        fflush(stdout);
}

/* hiredis frees the context after this, and the broker gets its connection back. */
static void ended(const redisAsyncContext *ac, int status) {
        if (quit)
                return;
        printf("lost: %s\n", status == REDIS_OK ? "closed" : ac->errstr);
        fflush(stdout);
        later(ac->data, 0);
}

static void acquired(lessor_async_db *db, redisAsyncContext *ac, const lessor_error *error, void *data) {
        (void)data;
        if (!ac) {
                fprintf(stderr, "%s\n", error->text);
                later(db, error->retry_ms);
                return;
        }
        ac->data = db;
        redisAsyncSetDisconnectCallback(ac, ended);
        redisAsyncCommand(ac, heard, db, "SUBSCRIBE %s", channel);
}

static void listen_on(lessor_async_db *db) {
        if (lessor_async_acquire_pinned(db, LESSOR_WAIT_CONFIGURED, acquired, NULL) != 0)
                later(db, 0);
}

int main(int argc, char **argv) {
        lessor *l;
        lessor_async *async;
        lessor_async_db *db;

        if (argc != 2)
                return fprintf(stderr, "usage: listener CHANNEL\n"), 64;
        channel = argv[1];
        signal(SIGPIPE, SIG_IGN); /* hiredis writes to a leased connection */
        base = event_base_new();
        if (!base || lessor_open(NULL, &l) != 0 || lessor_async_new(l, &async) != 0 ||
            lessor_libevent_attach(async, base) != 0 || lessor_async_database(async, NULL, &db) != 0)
                return fprintf(stderr, "out of memory\n"), 1;
        listen_on(db);
        event_base_dispatch(base); /* ends when nothing is under way */
        lessor_async_free(async);
        lessor_close(l);
        event_base_free(base);
        return 0;
}

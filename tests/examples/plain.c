/* SPDX-License-Identifier: MIT */
/*
 * A plain hiredis program, and the same moved over to Lessor: nothing but what stands for redisConnect() and redisFree() is
 * replaced. It is built both ways, and says the same.
 *
 *      plain HOST PORT         the original
 *      plain_lessor HOST PORT  (which it does not need: the broker knows)
 */
#include <stdio.h>
#include <stdlib.h>

#include <hiredis/hiredis.h>

#ifndef WITH_LESSOR

static redisContext *connect_to(const char *host, int port) { return redisConnect(host, port); }
static void disconnect(redisContext *c) { redisFree(c); }

#else
#include <lessor.h>

static lessor *lessor_handle; /* one for the whole program, and for all it forks */

static redisContext *connect_to(const char *host, int port) {
        lessor_db *db;
        lessor_error e;

        (void)host;
        (void)port;
        if (!lessor_handle && lessor_open(NULL, &lessor_handle) != 0)
                return NULL;
        if (lessor_database(lessor_handle, NULL, &db, &e) == 0) {
                lessor_lease *lease = lessor_acquire(db, LESSOR_WAIT_CONFIGURED, &e);
                if (lease)
                        return lessor_context(lease);
        }
        fprintf(stderr, "%s\n", e.text);
        return NULL;
}

static void disconnect(redisContext *c) { lessor_release(lessor_lease_of(c)); }

#endif

static void *must(void *reply, const redisContext *c) {
        if (reply)
                return reply;
        fprintf(stderr, "redis: %s\n", c->errstr);
        exit(1);
}

int main(int argc, char **argv) {
        redisContext *c = connect_to(argc > 1 ? argv[1] : "127.0.0.1", argc > 2 ? atoi(argv[2]) : 6379);
        redisReply *reply;

        if (!c || c->err) {
                fprintf(stderr, "cannot connect: %s\n", c ? c->errstr : "no context");
                return 1;
        }
        reply = must(redisCommand(c, "DEL example:list"), c);
        freeReplyObject(reply);
        for (int i = 0; i < 3; i++)
                redisAppendCommand(c, "RPUSH example:list item-%d", i);
        for (int i = 0; i < 3; i++) {
                if (redisGetReply(c, (void **)&reply) != REDIS_OK)
                        must(NULL, c);
                printf("%lld\n", reply->integer);
                freeReplyObject(reply);
        }
        reply = must(redisCommand(c, "LRANGE example:list 0 -1"), c);
        for (size_t i = 0; i < reply->elements; i++)
                printf("%s\n", reply->element[i]->str);
        freeReplyObject(reply);
        disconnect(c);
        return 0;
}

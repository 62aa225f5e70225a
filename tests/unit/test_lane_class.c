/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <hiredis/hiredis.h>

#include "base/cleanup.h"
#include "lane/class.h"
#include "support/check.h"

/* Replies to COMMAND as servers write them, but for arity and keys, which nobody looks at. */
static const char redis7[] =
        "*8\r\n"
        "*10\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n*3\r\n+@read\r\n+@string\r\n+@"
        "fast\r\n*0\r\n*0\r\n*0\r\n"
        "*10\r\n$5\r\nblpop\r\n:-3\r\n*2\r\n+write\r\n+blocking\r\n:1\r\n:1\r\n:1\r\n*1\r\n+@list\r\n*0\r\n*0\r\n*0\r\n"
        "*10\r\n$7\r\npublish\r\n:3\r\n*2\r\n+pubsub\r\n+fast\r\n:0\r\n:0\r\n:0\r\n*1\r\n+@pubsub\r\n*0\r\n*0\r\n*0\r\n"
        "*10\r\n$8\r\njson.get\r\n:-2\r\n*2\r\n+readonly\r\n+module\r\n:1\r\n:1\r\n:1\r\n*0\r\n*0\r\n*0\r\n*0\r\n"
        "*10\r\n$8\r\nmod.wait\r\n:-2\r\n*2\r\n+blocking\r\n+module\r\n:1\r\n:1\r\n:1\r\n*0\r\n*0\r\n*0\r\n*0\r\n"
        "*10\r\n$4\r\nping\r\n:-1\r\n*1\r\n+fast\r\n:0\r\n:0\r\n:0\r\n*1\r\n+@connection\r\n*0\r\n*0\r\n*0\r\n"
        "*10\r\n$6\r\nconfig\r\n:-2\r\n*0\r\n:0\r\n:0\r\n:0\r\n*1\r\n+@slow\r\n*0\r\n*0\r\n*1\r\n"
        "*10\r\n$10\r\nconfig|get\r\n:-3\r\n*1\r\n+admin\r\n:0\r\n:0\r\n:0\r\n*1\r\n+@admin\r\n*0\r\n*0\r\n*0\r\n"
        "*10\r\n$6\r\nscript\r\n:-2\r\n*0\r\n:0\r\n:0\r\n:0\r\n*1\r\n+@slow\r\n*0\r\n*0\r\n*3\r\n"
        "*10\r\n$11\r\nscript|load\r\n:3\r\n*1\r\n+noscript\r\n:0\r\n:0\r\n:0\r\n*1\r\n+@scripting\r\n*0\r\n*0\r\n*"
        "0\r\n"
        "*10\r\n$12\r\nscript|debug\r\n:3\r\n*1\r\n+noscript\r\n:0\r\n:0\r\n:0\r\n*1\r\n+@scripting\r\n*0\r\n*0\r\n*"
        "0\r\n"
        "*10\r\n$11\r\nscript|wait\r\n:3\r\n*0\r\n:0\r\n:0\r\n:0\r\n*1\r\n+@blocking\r\n*0\r\n*0\r\n*0\r\n";
static const char redis6[] =
        "*6\r\n"
        "*7\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n*1\r\n+@read\r\n"
        "*7\r\n$6\r\nselect\r\n:2\r\n*2\r\n+loading\r\n+fast\r\n:0\r\n:0\r\n:0\r\n*1\r\n+@keyspace\r\n"
        "*7\r\n$4\r\nwait\r\n:3\r\n*1\r\n+noscript\r\n:0\r\n:0\r\n:0\r\n*1\r\n+@keyspace\r\n"
        "*7\r\n$8\r\nmod.wait\r\n:-2\r\n*1\r\n+module\r\n:1\r\n:1\r\n:1\r\n*0\r\n"
        "*7\r\n$7\r\nfuture1\r\n:-2\r\n*1\r\n+write\r\n:1\r\n:1\r\n:1\r\n*1\r\n+@blocking\r\n"
        "*7\r\n$6\r\nscript\r\n:-2\r\n*1\r\n+noscript\r\n:0\r\n:0\r\n:0\r\n*1\r\n+@scripting\r\n";
static const char redis4[] = "*4\r\n"
                             "*6\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n"
                             "*6\r\n$5\r\nblpop\r\n:-3\r\n*2\r\n+write\r\n+noscript\r\n:1\r\n:-2\r\n:1\r\n"
                             "*6\r\n$5\r\nmulti\r\n:1\r\n*2\r\n+noscript\r\n+fast\r\n:0\r\n:0\r\n:0\r\n"
                             "*6\r\n$8\r\njson.get\r\n:2\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n";

static redisReply *parse(const char *text) {
        redisReader *reader = redisReaderCreate();
        void *reply = NULL;
        redisReaderFeed(reader, text, strlen(text));
        check(redisReaderGetReply(reader, &reply) == REDIS_OK && reply);
        redisReaderFree(reader);
        return reply;
}

static struct lane_classes *classes_from(const char *text) {
        redisReply *reply = parse(text);
        struct lane_classes *classes = NULL;
        check_eq(lane_classes_new(reply, &classes), 0);
        freeReplyObject(reply);
        return classes;
}

static enum lane_class of(const struct lane_classes *classes, const char *name, const char *sub) {
        return lane_class_of(classes, name, strlen(name), sub, sub ? strlen(sub) : 0);
}

TEST(lane_class, of_redis_7_flags_and_categories_decide_and_of_containers_the_subcommand) {
        struct lane_classes *c = classes_from(redis7);
        check_eq(of(c, "GET", "key"), LANE_CLASS_SAFE);
        check_eq(of(c, "gEt", NULL), LANE_CLASS_SAFE);
        check_eq(of(c, "GET", "a|b\r\n and more than a name of a command may ever be long, by far: it is a key"),
                 LANE_CLASS_SAFE);
        check_eq(of(c, "BLPOP", "k"), LANE_CLASS_BLOCKING);
        check_eq(of(c, "publish", "channel"), LANE_CLASS_SAFE);
        check_eq(of(c, "ping", NULL), LANE_CLASS_SAFE);
        check_eq(of(c, "JSON.GET", "k"), LANE_CLASS_SAFE);
        check_eq(of(c, "mod.wait", "k"), LANE_CLASS_BLOCKING);
        check_eq(of(c, "CONFIG", "GET"), LANE_CLASS_MONITOR);
        check_eq(of(c, "CONFIG", "new"), LANE_CLASS_MONITOR);
        check_eq(of(c, "script", "LOAD"), LANE_CLASS_SAFE);
        check_eq(of(c, "SCRIPT", "wait"), LANE_CLASS_BLOCKING);
        check_eq(of(c, "SCRIPT", "debug"), LANE_CLASS_CONNECTION);
        check_eq(of(c, "SCRIPT", "KILL"), LANE_CLASS_MONITOR);
        check_eq(of(c, "SCRIPT", "new"), LANE_CLASS_UNKNOWN);
        check_eq(of(c, "SCRIPT", ""), LANE_CLASS_UNKNOWN);
        check_eq(of(c, "SCRIPT", "LOAD "), LANE_CLASS_UNKNOWN);
        check_eq(of(c, "SCRIPT|LOAD", NULL), LANE_CLASS_UNKNOWN);
        check_eq(of(c, "SET", "k"), LANE_CLASS_UNKNOWN); /* this server has none */
        check_eq(of(c, "FCALL", "f"), LANE_CLASS_UNKNOWN);
        check_eq(lane_classes_count(c), 12);
        lane_classes_free(c);
}

TEST(lane_class, what_redis_6_does_not_say_is_built_in_and_its_modules_are_not_trusted) {
        struct lane_classes *c = classes_from(redis6);
        check_eq(of(c, "GET", "k"), LANE_CLASS_SAFE);
        check_eq(of(c, "SELECT", "1"), LANE_CLASS_CONNECTION);
        check_eq(of(c, "WAIT", "1"), LANE_CLASS_BLOCKING);
        check_eq(of(c, "MOD.WAIT", "k"), LANE_CLASS_UNKNOWN);
        check_eq(of(c, "FUTURE1", "k"), LANE_CLASS_BLOCKING);
        check_eq(of(c, "SCRIPT", "LOAD"), LANE_CLASS_UNKNOWN);
        lane_classes_free(c);
        c = classes_from(redis4);
        check_eq(of(c, "GET", "k"), LANE_CLASS_SAFE);
        check_eq(of(c, "BLPOP", "k"), LANE_CLASS_BLOCKING);
        check_eq(of(c, "MULTI", NULL), LANE_CLASS_TRANSACTION);
        check_eq(of(c, "JSON.GET", "k"), LANE_CLASS_UNKNOWN);
        lane_classes_free(c);
}

TEST(lane_class, before_the_server_is_asked_only_the_well_known_is_safe) {
        static const struct {
                const char *name, *sub;
                enum lane_class class;
        } known[] = {
                {"GET", "k", LANE_CLASS_SAFE},
                {"set", "k", LANE_CLASS_SAFE},
                {"EVAL", "return 1", LANE_CLASS_SAFE},
                {"FCALL", "f", LANE_CLASS_SAFE},
                {"PING", NULL, LANE_CLASS_SAFE},
                {"ECHO", "x", LANE_CLASS_SAFE},
                {"PUBLISH", "c", LANE_CLASS_SAFE},
                {"SPUBLISH", "c", LANE_CLASS_SAFE},
                {"BLMPOP", "1", LANE_CLASS_BLOCKING},
                {"BRPOPLPUSH", "k", LANE_CLASS_BLOCKING},
                {"XREAD", "BLOCK", LANE_CLASS_BLOCKING},
                {"XREADGROUP", "GROUP", LANE_CLASS_BLOCKING},
                {"WAITAOF", "1", LANE_CLASS_BLOCKING},
                {"SELECT", "1", LANE_CLASS_CONNECTION},
                {"AUTH", "x", LANE_CLASS_CONNECTION},
                {"HELLO", "3", LANE_CLASS_CONNECTION},
                {"CLIENT", "REPLY", LANE_CLASS_CONNECTION},
                {"RESET", NULL, LANE_CLASS_CONNECTION},
                {"QUIT", NULL, LANE_CLASS_CONNECTION},
                {"HOST:", "x", LANE_CLASS_CONNECTION},
                {"WATCH", "k", LANE_CLASS_TRANSACTION},
                {"EXEC", NULL, LANE_CLASS_TRANSACTION},
                {"SUBSCRIBE", "c", LANE_CLASS_PUBSUB},
                {"SUNSUBSCRIBE", NULL, LANE_CLASS_PUBSUB},
                {"MONITOR", NULL, LANE_CLASS_MONITOR},
                {"PSYNC", "?", LANE_CLASS_MONITOR},
                {"DEBUG", "SLEEP", LANE_CLASS_MONITOR},
                {"SHUTDOWN", NULL, LANE_CLASS_MONITOR},
                {"FUNCTION", "KILL", LANE_CLASS_MONITOR},
                {"SCRIPT", "DEBUG", LANE_CLASS_CONNECTION},
                {"JSON.GET", "k", LANE_CLASS_UNKNOWN},
                {"", NULL, LANE_CLASS_UNKNOWN},
        };
        for (size_t i = 0; i < ARRAY_SIZE(known); i++)
                check_msg(of(NULL, known[i].name, known[i].sub) == known[i].class, "%s", known[i].name);
        check_eq(lane_class_of(NULL, "GET\0", 4, NULL, 0), LANE_CLASS_UNKNOWN);
        check_eq(lane_class_of(NULL, "GET ", 4, NULL, 0), LANE_CLASS_UNKNOWN);
}

TEST(lane_class, what_is_no_reply_to_command_is_refused_and_malformed_entries_are_left_out) {
        static const char *const wrong[] = {
                "-ERR unknown command\r\n",
                "*0\r\n",
                "$-1\r\n",
                ":1\r\n",
                "*1\r\n:1\r\n",
                "*1\r\n*0\r\n",
                "*1\r\n*3\r\n:1\r\n:2\r\n*0\r\n",
                "*1\r\n*2\r\n$3\r\nget\r\n:2\r\n",
                "*1\r\n*3\r\n$0\r\n\r\n:2\r\n*0\r\n",
                "*1\r\n*3\r\n$4\r\na\r\nb\r\n:2\r\n*0\r\n",
                "*1\r\n*3\r\n$3\r\na|b\r\n:2\r\n*0\r\n",
        };
        struct lane_classes *classes = (void *)&classes;
        for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
                redisReply *reply = parse(wrong[i]);
                check_msg(lane_classes_new(reply, &classes) == -EPROTO, "%s", wrong[i]);
                freeReplyObject(reply);
        }
        check_eq(lane_classes_new(NULL, &classes), -EPROTO);
        check(classes == (void *)&classes);
        classes = classes_from("*3\r\n*0\r\n:1\r\n*6\r\n$3\r\nget\r\n:2\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n");
        check_eq(of(classes, "GET", "k"), LANE_CLASS_SAFE);
        lane_classes_free(classes);
}

TEST(lane_class, of_two_opinions_the_stricter_counts) {
        struct lane_classes *c = classes_from("*3\r\n*6\r\n$3\r\nget\r\n:2\r\n*0\r\n:1\r\n:1\r\n:1\r\n"
                                              "*7\r\n$3\r\nGET\r\n:2\r\n*0\r\n:1\r\n:1\r\n:1\r\n*1\r\n+@blocking\r\n"
                                              "*6\r\n$3\r\nGet\r\n:2\r\n*0\r\n:1\r\n:1\r\n:1\r\n");
        check_eq(of(c, "GET", "k"), LANE_CLASS_BLOCKING);
        check_eq(lane_classes_count(c), 1);
        lane_classes_free(c);
}

TEST(lane_class, a_server_with_more_commands_than_can_be_is_read_as_far_as_there_is_room) {
        size_t n = 20000, at;
        char *text = malloc(n * 64), name[16];
        struct lane_classes *c;
        at = (size_t)sprintf(text, "*%zu\r\n", n);
        for (size_t i = 0; i < n; i++)
                at += (size_t)sprintf(
                        text + at, "*10\r\n$8\r\nx%07zu\r\n:2\r\n*0\r\n:1\r\n:1\r\n:1\r\n*0\r\n*0\r\n*0\r\n*0\r\n", i);
        c = classes_from(text);
        check(lane_classes_count(c) >= 8192 && lane_classes_count(c) < n);
        check_eq(of(c, "x0000000", NULL), LANE_CLASS_SAFE);
        snprintf(name, sizeof(name), "x%07zu", n - 1);
        check_eq(of(c, name, NULL), LANE_CLASS_UNKNOWN);
        lane_classes_free(c);
        free(text);
}

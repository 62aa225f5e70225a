/* SPDX-License-Identifier: MIT */
/* Which commands may share a connection: what a real server says of its own, and what it does when it gets them. */
#include <hiredis/hiredis.h>
#include <strings.h>

#include "lane/class.h"
#include "support/check.h"
#include "support/redis.h"

static enum lane_class of(const struct lane_classes *classes, const redisReply *name) {
        const char *bar = strchr(name->str, '|');
        size_t len = bar ? (size_t)(bar - name->str) : name->len;
        return lane_class_of(classes, name->str, len, bar ? bar + 1 : NULL, bar ? name->len - len - 1 : 0);
}

static bool says(const redisReply *command, size_t list, const char *word) {
        for (size_t i = 0; i < command->element[list]->elements; i++)
                if (strcmp(command->element[list]->element[i]->str, word) == 0)
                        return true;
        return false;
}

/* Calls each(command) for commands and subcommands alike. */
static void for_each(const redisReply *commands, void (*each)(const redisReply *command, void *data), void *data) {
        for (size_t i = 0; i < commands->elements; i++) {
                const redisReply *command = commands->element[i];
                each(command, data);
                if (command->elements > 9)
                        for_each(command->element[9], each, data);
        }
}

struct count {
        const struct lane_classes *classes;
        unsigned safe, built_in, not_safe;
};

static void check_opinions(const redisReply *command, void *data) {
        struct count *n = data;
        const redisReply *name = command->element[0];
        bool safe = of(n->classes, name) == LANE_CLASS_SAFE, built_in = of(NULL, name) == LANE_CLASS_SAFE;
        check_msg(safe || !built_in, "%s is built in as safe, and the server does not think so", name->str);
        check_msg(!safe || !(says(command, 2, "blocking") || says(command, 2, "admin") ||
                             says(command, 6, "@blocking") || says(command, 6, "@transaction")),
                  "%s", name->str);
        check_msg(of(n->classes, name) != LANE_CLASS_UNKNOWN || command->element[9]->elements > 0, "%s", name->str);
        n->safe += safe;
        n->built_in += built_in;
        n->not_safe += !safe;
}

TEST(lane_commands, what_is_built_in_as_safe_is_so_for_the_server_and_all_its_commands_have_a_class) {
        struct redis r;
        struct lane_classes *classes = NULL;
        struct count n = {0};
        redisReply *commands;
        redis_start(&r, NULL);
        commands = redis_ask(&r, "COMMAND");
        check_eq(lane_classes_new(commands, &classes), 0);
        n.classes = classes;
        for_each(commands, check_opinions, &n);
        check_msg(n.safe > 200 && n.built_in > 150 && n.not_safe > 80, "%u %u %u", n.safe, n.built_in, n.not_safe);
        lane_classes_free(classes);
        freeReplyObject(commands);
        redis_stop(&r);
}

struct trial {
        const struct lane_classes *classes;
        redisContext *c;
        unsigned tried;
};

/* "NAME [SUB] 1 1 ...": as many arguments as the command needs, then ECHO: two replies, and the second is ECHO's. */
static void try_command(const redisReply *command, void *data) {
        struct trial *t = data;
        const char *name = command->element[0]->str, *bar = strchr(name, '|'), *argv[32];
        long long needed = llabs(command->element[1]->integer);
        char first[64], marker[32];
        redisReply *reply = NULL;
        int argc = 0;
        if (of(t->classes, command->element[0]) != LANE_CLASS_SAFE)
                return;
        snprintf(first, sizeof(first), "%.*s", bar ? (int)(bar - name) : (int)strlen(name), name);
        argv[argc++] = first;
        if (bar)
                argv[argc++] = bar + 1;
        while (argc < needed && argc < 32)
                argv[argc++] = "1";
        redisAppendCommandArgv(t->c, argc, argv, NULL);
        snprintf(marker, sizeof(marker), "marker-%u", ++t->tried);
        redisAppendCommand(t->c, "ECHO %s", marker);
        check_msg(redisGetReply(t->c, (void **)&reply) == REDIS_OK, "%s: %s", name, t->c->errstr);
        freeReplyObject(reply);
        check_msg(redisGetReply(t->c, (void **)&reply) == REDIS_OK, "%s: %s", name, t->c->errstr);
        check_msg(reply->type == REDIS_REPLY_STRING && strcmp(reply->str, marker) == 0, "%s", name);
        freeReplyObject(reply);
}

TEST(lane_commands, every_safe_command_is_answered_once_and_leaves_the_connection_as_it_was) {
        struct redis r;
        struct lane_classes *classes = NULL;
        struct trial t = {0};
        redisReply *commands, *info;
        redis_start(&r, NULL);
        commands = redis_ask(&r, "COMMAND");
        check_eq(lane_classes_new(commands, &classes), 0);
        t.classes = classes;
        t.c = redisConnectUnix(r.socket);
        check(t.c && !t.c->err);
        redisSetTimeout(t.c, (struct timeval){.tv_sec = 20});
        freeReplyObject(redisCommand(t.c, "CLIENT SETNAME before"));
        for_each(commands, try_command, &t);
        check(t.tried > 200);
        info = redisCommand(t.c, "CLIENT INFO");
        check(info && info->type == REDIS_REPLY_STRING);
        check_msg(strstr(info->str, " name=before ") && strstr(info->str, " flags=U ") && strstr(info->str, " db=0 ") &&
                          strstr(info->str, " sub=0 ") && strstr(info->str, " multi=-1 ") &&
                          strstr(info->str, " resp=2"),
                  "%s", info->str);
        freeReplyObject(info);
        redisFree(t.c);
        lane_classes_free(classes);
        freeReplyObject(commands);
        redis_stop(&r);
}

/* SPDX-License-Identifier: MIT */
/* A server's list of commands: only what is surely about data, and about nothing else, is harmless. */
#include "upstream/vocabulary.h"

#include "support/check.h"

static char names[256];
static size_t size;

static bool derive_from(const char *wire, size_t room) {
        redisReader *reader = redisReaderCreate();
        void *reply = NULL;
        check_eq(redisReaderFeed(reader, wire, strlen(wire)), REDIS_OK);
        check_eq(redisReaderGetReply(reader, &reply), REDIS_OK);
        check(reply);
        memset(names, 0, sizeof(names));
        size = 999;
        bool derived = vocabulary_derive(reply, names, room, &size);
        freeReplyObject(reply);
        redisReaderFree(reader);
        return derived;
}

#define FIXED ":1\r\n:1\r\n:1\r\n"
#define OF_6_0(name, flags, categories) "*7\r\n+" name "\r\n:2\r\n" flags FIXED categories
#define OF_7_0(name, flags, categories, subcommands)                                                                   \
        "*10\r\n+" name "\r\n:2\r\n" flags FIXED categories "*0\r\n*0\r\n" subcommands

TEST(vocabulary, what_reads_or_writes_data_and_no_more_is_harmless) {
        check(derive_from(
                "*3\r\n" OF_7_0("json.get", "*2\r\n+readonly\r\n+module\r\n", "*1\r\n+@read\r\n", "*0\r\n")
                        OF_6_0("ts.add", "*2\r\n+write\r\n+module\r\n",
                               "*2\r\n+@write\r\n+@slow\r\n") "*6\r\n$6\r\nbf.add\r\n:2\r\n*1\r\n+write\r\n" FIXED,
                sizeof(names)));
        check_eq(size, sizeof("JSON.GET\0TS.ADD\0BF.ADD"));
        check(memcmp(names, "JSON.GET\0TS.ADD\0BF.ADD", size) == 0);
}

TEST(vocabulary, a_word_of_connection_waiting_or_administration_rules_it_out) {
        static const char *const flags[] = {"admin", "pubsub", "noscript", "blocking", "no_multi", "no_auth", "asking"};
        static const char *const categories[] = {"@admin",  "@blocking",  "@connection", "@dangerous",
                                                 "@pubsub", "@scripting", "@transaction"};
        char wire[512];
        for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
                snprintf(wire, sizeof(wire), "*1\r\n" OF_6_0("m.x", "*2\r\n+readonly\r\n+%s\r\n", "*1\r\n+@read\r\n"),
                         flags[i]);
                check(derive_from(wire, sizeof(names)));
                check_msg(size == 0, "%s", flags[i]);
                snprintf(wire, sizeof(wire), "*1\r\n" OF_6_0("m.x", "*1\r\n+write\r\n", "*2\r\n+@write\r\n+%s\r\n"),
                         categories[i]);
                check(derive_from(wire, sizeof(names)));
                check_msg(size == 0, "%s", categories[i]);
        }
        check(derive_from("*1\r\n" OF_6_0("m.x", "*1\r\n+fast\r\n", "*1\r\n+@read\r\n"), sizeof(names)));
        check_eq(size, 0); /* says nothing of data */
        check(derive_from("*1\r\n" OF_7_0("m.x", "*1\r\n+readonly\r\n", "*0\r\n", "*1\r\n*0\r\n"), sizeof(names)));
        check_eq(size, 0); /* each subcommand is another */
}

/* The server's word is asked for what our table does not know, never against it. */
TEST(vocabulary, commands_of_our_own_table_are_not_listed) {
        check(derive_from("*2\r\n" OF_6_0("get", "*1\r\n+readonly\r\n", "*0\r\n")
                                  OF_6_0("select", "*1\r\n+readonly\r\n", "*0\r\n"),
                          sizeof(names)));
        check_eq(size, 0);
}

TEST(vocabulary, names_that_do_not_fit_or_cannot_be_sent_are_left_out) {
        check(derive_from("*3\r\n" OF_6_0("a.long", "*1\r\n+write\r\n", "*0\r\n") OF_6_0(
                                  "b.longer", "*1\r\n+write\r\n", "*0\r\n") OF_6_0("c", "*1\r\n+write\r\n", "*0\r\n"),
                          9));
        check_eq(size, 9);
        check(memcmp(names, "A.LONG\0C", 9) == 0);
        check(derive_from("*3\r\n" OF_6_0("", "*1\r\n+write\r\n", "*0\r\n") OF_6_0("a b", "*1\r\n+write\r\n", "*0\r\n")
                                  OF_6_0("abcdefghijklmnopqrstuvwxyz.abcdef", "*1\r\n+write\r\n", "*0\r\n"),
                          sizeof(names)));
        check_eq(size, 0);
}

TEST(vocabulary, what_is_no_list_of_commands_is_refused) {
        static const char *const wires[] = {"-NOPERM no\r\n",
                                            "+OK\r\n",
                                            "*0\r\n",
                                            "*1\r\n:1\r\n",
                                            "*1\r\n*1\r\n+get\r\n",
                                            ("*1\r\n*6\r\n:1\r\n:2\r\n*0\r\n" FIXED),
                                            "*-1\r\n"};
        for (size_t i = 0; i < sizeof(wires) / sizeof(wires[0]); i++)
                check_msg(!derive_from(wires[i], sizeof(names)), "%s", wires[i]);
        check(derive_from("*1\r\n*6\r\n+m.x\r\n:2\r\n:7\r\n" FIXED, sizeof(names))); /* flags that are none */
        check_eq(size, 0);
}

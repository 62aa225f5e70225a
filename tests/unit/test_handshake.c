/* SPDX-License-Identifier: MIT */
/* The handshake: what is sent, and what each answer of Redis means. */
#include "upstream/handshake.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "support/check.h"

static const struct upstream_target plain = {.host = "127.0.0.1", .port = 6379, .client_name = "lessor:test:main"};

static char *request_of(const struct upstream_target *target) {
        struct handshake h;
        char *data = NULL, *text;
        size_t size = 0;
        check_eq(handshake_start(&h, target, &data, &size), 0);
        text = strndup(data, size);
        free(data);
        return text;
}

static bool starts(const char *text, const char *prefix) { return strncmp(text, prefix, strlen(prefix)) == 0; }

/* Feeds answers, as Redis would send them, until the handshake is decided. */
static int answer(const struct upstream_target *target, const char *wire, struct handshake *h) {
        char *data = NULL;
        size_t size = 0;
        int r = HANDSHAKE_CONTINUE;
        check_eq(handshake_start(h, target, &data, &size), 0);
        free(data);
        redisReader *reader = redisReaderCreate();
        redisReaderFeed(reader, wire, strlen(wire));
        while (r == HANDSHAKE_CONTINUE) {
                void *reply = NULL;
                check_eq(redisReaderGetReply(reader, &reply), REDIS_OK);
                if (!reply)
                        break;
                r = handshake_reply(h, reply);
                freeReplyObject(reply);
        }
        redisReaderFree(reader);
        return r;
}

TEST(handshake, sends_what_the_target_needs_and_no_more) {
        struct upstream_target target = plain;
        _cleanup_(freep) char *bare = request_of(&target);
        check_str(bare,
                  "*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$16\r\nlessor:test:main\r\n*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n"
                  "*1\r\n$4\r\nPING\r\n");
        target.db = 7;
        target.password = "secret word";
        _cleanup_(freep) char *with_password = request_of(&target);
        check(starts(with_password, "*2\r\n$4\r\nAUTH\r\n$11\r\nsecret word\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n7\r\n"));
        target.username = "worker";
        _cleanup_(freep) char *with_user = request_of(&target);
        check(starts(with_user, "*3\r\n$4\r\nAUTH\r\n$6\r\nworker\r\n$11\r\nsecret word\r\n"));
}

TEST(handshake, a_good_server_is_ready_and_its_client_id_is_known) {
        struct handshake h;
        check_eq(answer(&plain, "+OK\r\n:42\r\n+PONG\r\n", &h), LESSOR_OK);
        check_eq(h.client_id, 42);
}

TEST(handshake, what_is_not_answered_yet_is_waited_for) {
        struct handshake h;
        check_eq(answer(&plain, "+OK\r\n:42\r\n", &h), HANDSHAKE_CONTINUE);
}

struct judgement {
        const char *wire;
        int outcome;
        enum lessor_trouble trouble;
        const char *says;
};

TEST(handshake, every_refusal_has_its_class) {
        static const struct judgement judgements[] = {
                {"-LOADING Redis is loading the dataset in memory\r\n", LESSOR_E_LOADING, LESSOR_TROUBLE_LOADING,
                 "loading"},
                {"+OK\r\n:1\r\n-LOADING Redis is loading the dataset in memory\r\n", LESSOR_E_LOADING,
                 LESSOR_TROUBLE_LOADING, "loading"},
                {"-NOAUTH Authentication required.\r\n", LESSOR_E_CREDENTIALS, LESSOR_TROUBLE_NOAUTH,
                 "wants a password"},
                {"-WRONGPASS invalid username-password pair or user is disabled.\r\n", LESSOR_E_CREDENTIALS,
                 LESSOR_TROUBLE_WRONGPASS, "refuses the configured"},
                {"-ERR max number of clients reached\r\n", LESSOR_E_EXHAUSTED, LESSOR_TROUBLE_MAXCLIENTS,
                 "refuses the connection"},
                {"-DENIED Redis is running in protected mode\r\n", LESSOR_E_CREDENTIALS, LESSOR_TROUBLE_PROTECTED_MODE,
                 "protected mode"},
                {"+HELLO\r\n", LESSOR_E_UPSTREAM, LESSOR_TROUBLE_NOT_REDIS, "does not answer like a Redis"},
                {":1\r\n", LESSOR_E_UPSTREAM, LESSOR_TROUBLE_NOT_REDIS, "does not answer like a Redis"},
                {"*0\r\n", LESSOR_E_UPSTREAM, LESSOR_TROUBLE_NOT_REDIS, "does not answer like a Redis"},
                {"+OK\r\n+OK\r\n", LESSOR_E_UPSTREAM, LESSOR_TROUBLE_NOT_REDIS, "does not answer like a Redis"},
                {"+OK\r\n:1\r\n+OK\r\n", LESSOR_E_UPSTREAM, LESSOR_TROUBLE_NOT_REDIS, "does not answer like a Redis"},
                {"+OK\r\n:1\r\n-BUSY Redis is busy running a script\r\n", LESSOR_E_LOADING, LESSOR_TROUBLE_BUSY,
                 "BUSY"},
                {"+OK\r\n:1\r\n-ERR out of sorts\r\n", LESSOR_E_UPSTREAM, LESSOR_TROUBLE_REFUSED,
                 "PING: ERR out of sorts"},
        };
        for (size_t i = 0; i < ARRAY_SIZE(judgements); i++) {
                struct handshake h;
                check_eq(answer(&plain, judgements[i].wire, &h), judgements[i].outcome);
                check_eq(h.trouble, judgements[i].trouble);
                check_msg(strstr(h.text, judgements[i].says), "`%s` does not say `%s`", h.text, judgements[i].says);
        }
}

TEST(handshake, auth_and_select_must_succeed) {
        struct upstream_target target = plain;
        struct handshake h;
        target.password = "x";
        target.db = 99;
        check_eq(answer(&target, "-ERR AUTH <password> called without any password configured\r\n", &h),
                 LESSOR_E_CREDENTIALS);
        check_eq(h.trouble, LESSOR_TROUBLE_WRONGPASS);
        check_eq(answer(&target, "+OK\r\n-NOPERM this user has no permissions\r\n", &h), LESSOR_E_CREDENTIALS);
        check_eq(h.trouble, LESSOR_TROUBLE_NOPERM);
        check_eq(answer(&target, "+OK\r\n-ERR DB index is out of range\r\n", &h), LESSOR_E_CREDENTIALS);
        check(strstr(h.text, "check db"));
        check_eq(h.trouble, LESSOR_TROUBLE_WRONG_DB);
        check_eq(answer(&target, "+OK\r\n+OK\r\n+OK\r\n:3\r\n+PONG\r\n", &h), LESSOR_OK);
}

TEST(handshake, conveniences_may_be_refused) {
        struct handshake h;
        check_eq(answer(&plain, "-ERR unknown command `CLIENT`\r\n-ERR unknown command `CLIENT`\r\n+PONG\r\n", &h),
                 LESSOR_OK);
        check_eq(h.client_id, 0);
        check_eq(answer(&plain, "-NOPERM no\r\n-NOPERM no\r\n-NOPERM no\r\n", &h), LESSOR_OK);
        check_eq(answer(&plain, "+OK\r\n:5\r\n-MASTERDOWN Link with MASTER is down\r\n", &h), LESSOR_OK);
        check_eq(answer(&plain, "+OK\r\n:5\r\n-MISCONF Redis is configured to save RDB snapshots\r\n", &h), LESSOR_OK);
}

TEST(handshake, no_text_holds_the_password) {
        struct upstream_target target = plain;
        struct handshake h;
        target.password = "hunter2";
        check_eq(answer(&target, "-WRONGPASS invalid\r\n", &h), LESSOR_E_CREDENTIALS);
        check(!strstr(h.text, "hunter2"));
}

/* SPDX-License-Identifier: MIT */
#include <hiredis/hiredis.h>

#include "base/cleanup.h"
#include "base/scan.h"
#include "support/check.h"

struct sample {
        const char *text;
        char type;
};

static const struct sample resp2[] = {
        {"+OK\r\n", '+'},
        {"+\r\n", '+'},
        {"+a\rb\nc\r\r\n", '+'},
        {"-ERR unknown command 'x'\r\n", '-'},
        {":0\r\n", ':'},
        {":-1\r\n", ':'},
        {":9223372036854775807\r\n", ':'},
        {":-9223372036854775808\r\n", ':'},
        {"$0\r\n\r\n", '$'},
        {"$-1\r\n", '$'},
        {"$5\r\na\r\n:b\r\n", '$'},
        {"$10\r\n0123456789\r\n", '$'},
        {"*0\r\n", '*'},
        {"*-1\r\n", '*'},
        {"*1\r\n$4\r\nPING\r\n", '*'},
        {"*3\r\n*2\r\n:1\r\n*1\r\n*0\r\n$-1\r\n*2\r\n-x\r\n+y\r\n", '*'},
        {"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*-1\r\n", '*'},
};

static const struct sample resp3[] = {
        {"_\r\n", '_'},
        {"#t\r\n", '#'},
        {"#f\r\n", '#'},
        {",1.5e-10\r\n", ','},
        {",inf\r\n", ','},
        {",-inf\r\n", ','},
        {",nan\r\n", ','},
        {"(-3492890328409238509324850943850943825024385\r\n", '('},
        {"!21\r\nSYNTAX invalid syntax\r\n", '!'},
        {"=15\r\ntxt:Some string\r\n", '='},
        {"%2\r\n+a\r\n:1\r\n+b\r\n%0\r\n", '%'},
        {"~3\r\n:1\r\n_\r\n~1\r\n#t\r\n", '~'},
        {">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n", '>'},
        {"|1\r\n+ttl\r\n*2\r\n:1\r\n:2\r\n:7\r\n", ':'},
        {"|0\r\n$2\r\nab\r\n", '$'},
        {"*2\r\n|1\r\n+a\r\n+b\r\n:1\r\n|2\r\n:1\r\n:2\r\n:3\r\n:4\r\n%1\r\n+k\r\n,1\r\n", '*'},
};

/* Whole in `parts` pieces that end at the given places, none of which ends the reply but the last. */
static void check_pieces(const struct sample *sample, bool is_resp3, const size_t *ends, size_t parts) {
        struct scan s;
        size_t at = 0, used;
        scan_init(&s, is_resp3);
        for (size_t i = 0; i < parts; i++) {
                enum scan_result what = scan_feed(&s, sample->text + at, ends[i] - at, &used);
                bool last = ends[i] == strlen(sample->text);
                check_msg(what == (last ? SCAN_REPLY : SCAN_MORE), "`%s`: %d after %zu bytes", sample->text, what,
                          ends[i]);
                check_eq(used, ends[i] - at);
                check(last || scan_expects(&s) <= strlen(sample->text) - ends[i]);
                check(last || ends[i] == 0 || (scan_is_inside(&s) && scan_expects(&s) > 0));
                at = ends[i];
        }
        check(!scan_is_inside(&s));
        check_eq(scan_expects(&s), 0);
        check_eq(s.type, sample->type);
        check_eq(s.size, strlen(sample->text));
}

static void check_every_split(const struct sample *sample, bool is_resp3) {
        size_t n = strlen(sample->text);
        for (size_t i = 0; i <= n; i++)
                for (size_t j = i; j < n; j++) {
                        size_t ends[] = {i, j, n};
                        if (i < n)
                                check_pieces(sample, is_resp3, ends, 3);
                }
        for (size_t length = 1; length <= n; length++) {
                size_t ends[128], parts = 0;
                for (size_t end = 0; end < n; parts++)
                        ends[parts] = end = end + length < n ? end + length : n;
                check_pieces(sample, is_resp3, ends, parts);
        }
}

TEST(scan, a_reply_ends_where_it_ends_however_it_is_split) {
        for (size_t i = 0; i < ARRAY_SIZE(resp2); i++) {
                check_every_split(&resp2[i], false);
                check_every_split(&resp2[i], true);
        }
        for (size_t i = 0; i < ARRAY_SIZE(resp3); i++)
                check_every_split(&resp3[i], true);
}

TEST(scan, replies_of_one_stream_are_told_apart_one_at_a_time) {
        char stream[4096] = "";
        struct scan s;
        size_t at = 0, used;
        for (size_t i = 0; i < ARRAY_SIZE(resp2); i++)
                strcat(stream, resp2[i].text);
        for (size_t i = 0; i < ARRAY_SIZE(resp3); i++)
                strcat(stream, resp3[i].text);
        scan_init(&s, true);
        for (size_t i = 0; i < ARRAY_SIZE(resp2) + ARRAY_SIZE(resp3); i++, at += used) {
                const struct sample *sample = i < ARRAY_SIZE(resp2) ? &resp2[i] : &resp3[i - ARRAY_SIZE(resp2)];
                check_eq(scan_feed(&s, stream + at, strlen(stream) - at, &used), SCAN_REPLY);
                check_eq(used, strlen(sample->text));
                check_eq(s.type, sample->type);
        }
        check_eq(at, strlen(stream));
        check_eq(scan_feed(&s, NULL, 0, &used), SCAN_MORE);
        check_eq(used, 0);
}

TEST(scan, what_no_redis_writes_is_bad_at_every_split_and_for_ever) {
        static const char *const wrong[] = {
                "OK\r\n",
                "\r\n",
                "$\r\n",
                "$+1\r\na\r\n",
                "$01\r\na\r\n",
                "$-2\r\n",
                "$-0\r\n",
                "$1\na\n",
                "$1\r\nab\r\n",
                "$1\r\na\n",
                "$1\r\na\r\r",
                "$0\r\nx",
                "$ 1\r\na\r\n",
                "$1 \r\na\r\n",
                "$536870913\r\n",
                "*\r\n",
                "*-2\r\n",
                "*2147483648\r\n",
                "*1\r\nx",
                "*1\r\n\r\n",
                ":\r\n",
                ":-\r\n",
                ":--1\r\n",
                ":1a\r\n",
                ":1\r1",
                ":9223372036854775808\r\n",
                ":-9223372036854775809\r\n",
                ":10000000000000000000\r\n",
                "$99999999999999999999999\r\n",
                "_x\r\n",
                "#\r\n",
                "#x\r\n",
                "#tt\r\n",
                ",\r\n",
                ",1,5\r\n",
                "(\r\n",
                "(1.5\r\n",
                "=3\r\ntxt\r\n",
                "=-1\r\n",
                "!-1\r\n",
                "%-1\r\n",
                "~-1\r\n",
                ">-1\r\n",
                "|-1\r\n",
                "$?\r\n",
                "*?\r\n",
                ";4\r\n",
                ".\r\n",
                "%2147483648\r\n",
        };
        for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
                for (size_t cut = 0; cut <= strlen(wrong[i]); cut++) {
                        struct scan s;
                        size_t used, n = strlen(wrong[i]);
                        enum scan_result what;
                        scan_init(&s, true);
                        what = scan_feed(&s, wrong[i], cut, &used);
                        check(what != SCAN_REPLY);
                        if (what == SCAN_MORE)
                                what = scan_feed(&s, wrong[i] + cut, n - cut, &used);
                        check_msg(what == SCAN_BAD, "`%s` cut at %zu: %d", wrong[i], cut, what);
                        check_eq(scan_feed(&s, "+OK\r\n", 5, &used), SCAN_BAD);
                        check_eq(used, 0);
                        check_eq(scan_expects(&s), 0);
                }
}

TEST(scan, what_is_new_in_resp3_is_bad_in_resp2) {
        for (size_t i = 0; i < ARRAY_SIZE(resp3); i++) {
                struct scan s;
                size_t used;
                scan_init(&s, false);
                if (strcspn(resp3[i].text, "_#,(!=%~>|") < strlen(resp3[i].text))
                        check_eq(scan_feed(&s, resp3[i].text, strlen(resp3[i].text), &used), SCAN_BAD);
        }
}

/* Payloads are skipped: a stream of 512 MB takes no time to speak of, and its bytes are not read. */
TEST(scan, the_largest_payload_is_skipped_in_large_pieces) {
        static char piece[1 << 16];
        struct scan s;
        size_t used, left = SCAN_BULK_MAX;
        scan_init(&s, false);
        check_eq(scan_feed(&s, "$536870912\r\n", 12, &used), SCAN_MORE);
        check_eq(scan_expects(&s), SCAN_BULK_MAX + 2ULL);
        for (; left > 0; left -= used) {
                check_eq(scan_feed(&s, piece, left < sizeof(piece) ? left : sizeof(piece), &used), SCAN_MORE);
                check(used > 0);
        }
        check_eq(scan_feed(&s, "\r\n+", 3, &used), SCAN_REPLY);
        check_eq(used, 2);
        check_eq(s.size, 12 + SCAN_BULK_MAX + 2ULL);
}

TEST(scan, a_line_without_an_end_is_bad_at_last) {
        static char piece[1 << 20];
        struct scan s;
        size_t used, n = 0;
        memset(piece, 'x', sizeof(piece));
        scan_init(&s, false);
        check_eq(scan_feed(&s, "+", 1, &used), SCAN_MORE);
        while (scan_feed(&s, piece, sizeof(piece), &used) == SCAN_MORE)
                n += used;
        check_eq(n, SCAN_LINE_MAX);
}

/* Each array announces as many as can be: what is missing is summed up without wrapping, and refused before it could. */
TEST(scan, arrays_that_announce_more_than_can_ever_come_do_not_wrap) {
        struct scan s;
        size_t used;
        scan_init(&s, true);
        for (unsigned i = 0; i < 100000; i++)
                check_eq(scan_feed(&s, "%2147483647\r\n", 13, &used), SCAN_MORE);
        check_eq(s.missing, 1 + 100000 * (2 * 2147483647ULL - 1));
        s.missing = UINT64_C(1) << 57;
        check_eq(scan_feed(&s, "%2147483647\r\n", 13, &used), SCAN_BAD);
}

/* What hiredis makes of the same bytes. */
TEST(scan, hiredis_finds_the_same_ends) {
        for (size_t i = 0; i < ARRAY_SIZE(resp2) - 1; i++) { /* but for the last, which is too deep for it */
                redisReader *reader = redisReaderCreate();
                void *reply = NULL;
                size_t n = strlen(resp2[i].text);
                check_eq(redisReaderFeed(reader, resp2[i].text, n - 1), REDIS_OK);
                check(redisReaderGetReply(reader, &reply) == REDIS_OK && !reply);
                check_eq(redisReaderFeed(reader, resp2[i].text + n - 1, 1), REDIS_OK);
                check_msg(redisReaderGetReply(reader, &reply) == REDIS_OK && reply, "`%s`", resp2[i].text);
                freeReplyObject(reply);
                redisReaderFree(reader);
        }
}

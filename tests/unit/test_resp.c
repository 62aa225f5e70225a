/* SPDX-License-Identifier: MIT */
#include <hiredis/hiredis.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/resp.h"
#include "support/check.h"

static size_t size_of(const char *text) { return resp_command_size(text, strlen(text)); }

static bool name_is(const char *data, size_t size, const char *expected) {
        const char *name = NULL;
        size_t len = 0;
        return resp_command_name(data, size, &name, &len) && len == strlen(expected) &&
               memcmp(name, expected, len) == 0 && name >= data && name + len <= data + size;
}

TEST(resp, what_hiredis_formats_is_read_back) {
        char *request = NULL;
        int size = redisFormatCommand(&request, "SET %s %b", "key", "a\r\n\0b", (size_t)5);
        check(size > 0);
        check_eq(resp_command_size(request, (size_t)size), size);
        check(name_is(request, (size_t)size, "SET"));
        redisFreeCommand(request);
}

/* 1 to 12 arguments of 0 to 120 bytes: lengths of one, two and three digits. */
TEST(resp, requests_of_many_shapes_are_read_back) {
        char value[121];
        memset(value, '\n', sizeof(value));
        for (int argc = 1; argc <= 12; argc++)
                for (size_t len = 0; len <= sizeof(value) - 1; len++) {
                        const char *argv[12];
                        size_t lens[12];
                        char *request = NULL;
                        int size;
                        for (int i = 0; i < argc; i++) {
                                argv[i] = i == 0 ? "get" : value;
                                lens[i] = i == 0 ? 3 : len;
                        }
                        size = redisFormatCommandArgv(&request, argc, argv, lens);
                        check(size > 0 && resp_command_size(request, (size_t)size) == (size_t)size);
                        check(name_is(request, (size_t)size, "get"));
                        redisFreeCommand(request);
                }
}

TEST(resp, of_several_requests_the_first_is_measured) {
        check_eq(size_of("*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n"), 14);
        check_eq(size_of("*1\r\n$4\r\nPING\r\ngarbage"), 14);
        check(name_is("*1\r\n$4\r\nPING\r\n*1\r\n$3\r\nGET\r\n", 27, "PING"));
}

/* The part ends where the mapping ends: a byte read too many is a crash. */
TEST(resp, no_part_of_a_request_is_one_and_nothing_beyond_it_is_read) {
        static const char *const requests[] = {
                "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$12\r\n0123456789ab\r\n",
                "*2\r\n$0\r\n\r\n$0\r\n\r\n",
                ("*10\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n$1\r\ne\r\n"
                 "$1\r\nf\r\n$1\r\ng\r\n$1\r\nh\r\n$1\r\ni\r\n$1\r\nj\r\n"),
        };
        long page = sysconf(_SC_PAGESIZE);
        char *map = mmap(NULL, (size_t)page * 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        check(map != MAP_FAILED);
        check_eq(mprotect(map + page, (size_t)page, PROT_NONE), 0);
        for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
                size_t whole = strlen(requests[i]);
                for (size_t size = 0; size <= whole; size++) {
                        char *part = map + page - size;
                        const char *name = "untouched";
                        size_t len = 77;
                        memcpy(part, requests[i], size);
                        check_eq(resp_command_size(part, size), size == whole ? whole : 0);
                        check_eq(resp_command_name(part, size, &name, &len), size == whole);
                        check(size == whole || (strcmp(name, "untouched") == 0 && len == 77));
                }
        }
        check_eq(resp_command_size(map + page - 2, 2), 0);
        memcpy(map + page - 2, "*0", 2);
        check_eq(resp_command_size(map + page - 2, 2), 0);
        munmap(map, (size_t)page * 2);
}

TEST(resp, an_empty_name_is_a_request) {
        check_eq(size_of("*1\r\n$0\r\n\r\n"), 10);
        check(name_is("*1\r\n$0\r\n\r\n", 10, ""));
        check_eq(resp_command_size(NULL, 0), 0);
}

TEST(resp, what_is_not_a_request_is_refused) {
        static const char *const wrong[] = {
                "PING\r\n",                 /* inline */
                "\r\n*1\r\n$4\r\nPING\r\n", /* something before it */
                "*0\r\n",                   /* Redis answers nothing to it */
                "*-1\r\n",                  /* likewise */
                "*\r\n$4\r\nPING\r\n",      /* no number */
                "*01\r\n$4\r\nPING\r\n",    /* Redis: invalid multibulk length */
                "*00\r\n",                  //
                "*+1\r\n$4\r\nPING\r\n",    //
                "* 1\r\n$4\r\nPING\r\n",    //
                "*1 \r\n$4\r\nPING\r\n",    //
                "*1x\r\n$4\r\nPING\r\n",    //
                "*1\n$4\nPING\n",           /* LF alone */
                "*1\r$4\rPING\r",           /* CR alone */
                "*1\r\n$04\r\nPING\r\n",    /* Redis: invalid bulk length */
                "*1\r\n$-1\r\n",            /* a null */
                "*1\r\n$\r\n\r\n",
                "*1\r\n$\r\nPING\r\n",               //
                "*1\r\n+PING\r\n",                   /* another type */
                "*1\r\n:4\r\n",                      //
                "*1\r\n*1\r\n$4\r\nPING\r\n",        /* nested */
                "*1\r\n$3\r\nPING\r\n",              /* the name is longer than it says */
                "*1\r\n$5\r\nPING\r\n",              /* and shorter */
                "*1\r\n$4\r\nPINGxx",                /* no end */
                "*1\r\n$4\r\nPING\rx",               //
                "*2\r\n$4\r\nPING\r\n",              /* an argument is missing */
                "*2\r\n$4\r\nPING\r\n$1\r\n",        //
                "*2\r\n$4\r\nPING\r\n$1\r\nxyz\r\n", //
                "*99999999999\r\n$4\r\nPING\r\n",    //
                "$4\r\nPING\r\n",                    //
        };
        for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
                const char *name = NULL;
                size_t len = 0;
                check_msg(size_of(wrong[i]) == 0, "number %zu: `%s`", i, wrong[i]);
                check_msg(!resp_command_name(wrong[i], strlen(wrong[i]), &name, &len), "number %zu: `%s`", i, wrong[i]);
        }
}

/* Lengths around 2^31, 2^32, 2^63, 2^64 and beyond: those that would wrap to 4, too. */
TEST(resp, lengths_beyond_all_memory_do_not_wrap) {
        static const char *const lengths[] = {
                "2147483647",           "2147483648",
                "4294967295",           "4294967296",
                "4294967300",           "9223372036854775807",
                "9223372036854775808",  "18446744073709551613",
                "18446744073709551614", "18446744073709551615",
                "18446744073709551616", "18446744073709551620",
                "99999999999999999999", "184467440737095516164",
        };
        for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
                char request[128];
                snprintf(request, sizeof(request), "*1\r\n$%s\r\nPING\r\n", lengths[i]);
                check_eq(size_of(request), 0);
                snprintf(request, sizeof(request), "*%s\r\n$4\r\nPING\r\n", lengths[i]);
                check_eq(size_of(request), 0);
        }
        check_eq(size_of("*18446744073709551617\r\n$4\r\nPING\r\n"), 0); /* 2^64 + 1 */
}

/* Each byte of a request replaced by each other byte: only the payload may change freely. */
TEST(resp, every_byte_of_the_framing_matters) {
        static const char request[] = "*2\r\n$3\r\nGET\r\n$2\r\nkk\r\n";
        size_t size = sizeof(request) - 1;
        for (size_t at = 0; at < size; at++)
                for (unsigned byte = 0; byte < 256; byte++) {
                        char changed[sizeof(request)];
                        bool payload = (at >= 8 && at < 11) || (at >= 17 && at < 19), shorter = at == 1 && byte == '1';
                        memcpy(changed, request, sizeof(request));
                        changed[at] = (char)byte;
                        if (changed[at] == request[at] || payload)
                                check_eq(resp_command_size(changed, size), size);
                        else
                                check_eq(resp_command_size(changed, size), shorter ? 13 : 0);
                }
}

static bool read_request(const char *text, struct resp_request *ret) {
        return resp_request_read(text, strlen(text), ret);
}

TEST(resp, a_request_is_read_with_the_name_of_its_command_and_what_may_be_that_of_a_subcommand) {
        struct resp_request r = {0};
        check(read_request("*3\r\n$6\r\nconfig\r\n$3\r\nGET\r\n$1\r\n*\r\n", &r));
        check_eq(r.arguments, 3);
        check(r.name_len == 6 && memcmp(r.name, "config", 6) == 0);
        check(r.sub_len == 3 && memcmp(r.sub, "GET", 3) == 0);
        check(read_request("*1\r\n$4\r\nPING\r\n", &r));
        check(r.arguments == 1 && r.name_len == 4 && !r.sub && r.sub_len == 0);
        check(read_request("*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", &r));
        check(r.sub && r.sub_len == 0);
}

TEST(resp, what_is_less_or_more_than_one_request_is_none) {
        static const char *const wrong[] = {
                "",
                "*0\r\n",
                "PING\r\n",
                "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n", /* two replies would come */
                "*1\r\n$4\r\nPING\r\n\r\n",
                "*1\r\n$4\r\nPING\r\nx",
                "*2\r\n$4\r\nPING\r\n", /* none would come */
                "*1\r\n$5\r\nPING\r\n",
                "*1\r\n$3\r\nPING\r\n",
                "*1048577\r\n$4\r\nPING\r\n",
                "*1\r\n$536870913\r\nPING\r\n",
                "*1\r\n:1\r\n",
                "*1\r\n*1\r\n$4\r\nPING\r\n",
        };
        struct resp_request r = {.arguments = 77};
        for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
                check_msg(!read_request(wrong[i], &r) && r.arguments == 77, "`%s`", wrong[i]);
        check(!resp_request_read(NULL, 0, &r));
}

/* Before 7.0 Redis closes a connection on more arguments than this, and with it everybody's lane. */
TEST(resp, a_request_has_as_many_arguments_as_every_redis_reads) {
        struct resp_request r = {0};
        size_t size = 12 + RESP_ARGUMENTS_MAX * 6UL + 64, at;
        char *data = malloc(size);
        for (unsigned n = RESP_ARGUMENTS_MAX; n <= RESP_ARGUMENTS_MAX + 1; n++) {
                at = (size_t)snprintf(data, size, "*%u\r\n", n);
                for (unsigned i = 0; i < n; i++, at += 6)
                        memcpy(data + at, "$0\r\n\r\n", 6);
                check_eq(resp_request_read(data, at, &r), n == RESP_ARGUMENTS_MAX);
                check_eq(resp_command_size(data, at), at);
        }
        free(data);
}

/* As hiredis writes it, byte for byte; and no byte more than was said. */
TEST(resp, requests_are_written_as_hiredis_writes_them) {
        const char *argv[12];
        size_t lens[12];
        static char value[100001];
        memset(value, '\r', sizeof(value) - 1);
        for (int argc = 1; argc <= 12; argc++)
                for (size_t len = 0; len < sizeof(value); len = len < 120 ? len + 1 : len * 9) {
                        char *expected = NULL, *written;
                        const char *name = NULL;
                        size_t size;
                        for (int i = 0; i < argc; i++) {
                                argv[i] = i == 0 ? "get" : value;
                                lens[i] = i == 0 ? 3 : len;
                        }
                        size = resp_request_size(argc, argv, lens);
                        check_eq(redisFormatCommandArgv(&expected, argc, argv, lens), size);
                        written = malloc(size);
                        check(written != NULL);
                        resp_request_write(written, argc, argv, lens, &name);
                        check(memcmp(written, expected, size) == 0);
                        check(name_is(written, size, "get") && memcmp(name, "get", 3) == 0);
                        free(written);
                        redisFreeCommand(expected);
                }
}

TEST(resp, strings_and_nothing_at_all_are_arguments) {
        char written[64] = "";
        const char *name, *argv[] = {"GET", NULL, "key"};
        check_eq(resp_request_size(3, argv, NULL), strlen("*3\r\n$3\r\nGET\r\n$0\r\n\r\n$3\r\nkey\r\n"));
        resp_request_write(written, 3, argv, NULL, &name);
        check_str(written, "*3\r\n$3\r\nGET\r\n$0\r\n\r\n$3\r\nkey\r\n");
}

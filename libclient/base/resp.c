/* SPDX-License-Identifier: MIT */
/*
 * Requests, read back at least as strictly as redis-server reads them: lengths are plain decimals without sign, spaces
 * or leading zeros. What Redis would take in another form (inline commands, an empty array) is not a request here: nobody
 * counts replies to what he cannot read.
 */
#include "resp.h"

#include <stdint.h>
#include <string.h>

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static size_t resp_digits(size_t value) {
        size_t n = 1;
        for (; value > 9; value /= 10)
                n++;
        return n;
}

static size_t resp_length(const char **argv, const size_t *argv_len, int i) {
        if (argv_len)
                return argv_len[i];
        return argv[i] ? strlen(argv[i]) : 0;
}

size_t resp_request_size(int argc, const char **argv, const size_t *argv_len) {
        size_t size = 3 + resp_digits((size_t)argc);
        for (int i = 0; i < argc; i++) {
                size_t len = resp_length(argv, argv_len, i);
                size += 5 + resp_digits(len) + len;
        }
        return size;
}

/* `mark`, a number, CR LF. */
static char *resp_write_number(char *to, char mark, size_t value) {
        size_t digits = resp_digits(value);
        char *end = to + 1 + digits;

        *to = mark;
        for (char *at = end; digits-- > 0; value /= 10)
                *--at = (char)('0' + value % 10);
        memcpy(end, "\r\n", 2);
        return end + 2;
}

void resp_request_write(char *to, int argc, const char **argv, const size_t *argv_len, const char **ret_name) {
        to = resp_write_number(to, '*', (size_t)argc);
        for (int i = 0; i < argc; i++) {
                size_t len = resp_length(argv, argv_len, i);
                to = resp_write_number(to, '$', len);
                if (i == 0)
                        *ret_name = to;
                if (len > 0)
                        memcpy(to, argv[i], len);
                memcpy(to + len, "\r\n", 2);
                to += len + 2;
        }
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

struct resp_reader {
        const char *at, *end;
};

/* `mark`, a number, CR LF. */
static bool resp_number(struct resp_reader *r, char mark, size_t *ret) {
        size_t value = 0;
        const char *at = r->at;

        if (at == r->end || *at++ != mark)
                return false;
        if (at == r->end || *at < '0' || *at > '9' || (*at == '0' && at + 1 < r->end && at[1] != '\r'))
                return false;
        for (; at < r->end && *at >= '0' && *at <= '9'; at++) {
                if (value > (SIZE_MAX - 9) / 10)
                        return false;
                value = value * 10 + (size_t)(*at - '0');
        }
        if (r->end - at < 2 || at[0] != '\r' || at[1] != '\n')
                return false;
        r->at = at + 2;
        *ret = value;
        return true;
}

static bool resp_bulk(struct resp_reader *r, const char **ret, size_t *ret_len) {
        size_t len, left;
        if (!resp_number(r, '$', &len))
                return false;
        left = (size_t)(r->end - r->at);
        if (left < 2 || len > left - 2 || r->at[len] != '\r' || r->at[len + 1] != '\n')
                return false;
        *ret = r->at;
        *ret_len = len;
        r->at += len + 2;
        return true;
}

/* The bytes of the request, or 0. */
static size_t resp_command(const char *data, size_t size, const char **ret_name, size_t *ret_len) {
        struct resp_reader r = {.at = data, .end = size > 0 ? data + size : data}; /* NULL + 0 is undefined */
        const char *argument;
        size_t n, len;

        if (!resp_number(&r, '*', &n) || n == 0 || !resp_bulk(&r, ret_name, ret_len))
                return 0;
        for (size_t i = 1; i < n; i++)
                if (!resp_bulk(&r, &argument, &len))
                        return 0;
        return (size_t)(r.at - data);
}

bool resp_command_name(const char *data, size_t size, const char **ret_name, size_t *ret_len) {
        const char *name;
        size_t len;
        if (resp_command(data, size, &name, &len) == 0)
                return false;
        *ret_name = name;
        *ret_len = len;
        return true;
}

size_t resp_command_size(const char *data, size_t size) {
        const char *name;
        size_t len;
        return resp_command(data, size, &name, &len);
}

bool resp_request_read(const char *data, size_t size, struct resp_request *ret) {
        struct resp_reader r = {.at = data, .end = size > 0 ? data + size : data};
        struct resp_request request = {0};
        const char *argument;
        size_t len;

        if (!resp_number(&r, '*', &request.arguments) || request.arguments == 0 ||
            request.arguments > RESP_ARGUMENTS_MAX)
                return false;
        for (size_t i = 0; i < request.arguments; i++) {
                if (!resp_bulk(&r, &argument, &len) || len > RESP_BULK_MAX)
                        return false;
                if (i == 0) {
                        request.name = argument;
                        request.name_len = len;
                } else if (i == 1) {
                        request.sub = argument;
                        request.sub_len = len;
                }
        }
        if (r.at != r.end)
                return false;
        *ret = request;
        return true;
}

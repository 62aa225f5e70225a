/* SPDX-License-Identifier: MIT */
/*
 * The scanner against a parser that sees everything at once and recurses, in RESP3 and RESP2, and against hiredis in RESP2:
 * whole, byte by byte, and split at every place. hiredis does not look at what follows a payload, and gives up on deep
 * arrays: what it says counts where the reference is of the same opinion.
 */
#include <hiredis/hiredis.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void promise(int kept) {
        if (!kept)
                abort();
}

/* ---- the reference ----------------------------------------------------------------------------------------------- */

struct reference {
        const char *at, *end;
        bool resp3;
};

/* The line that starts here, without its CR LF; SCAN_MORE: its end is not there. */
static enum scan_result reference_line(struct reference *r, const char **ret, size_t *ret_len) {
        const char *crlf = r->at < r->end ? memmem(r->at, (size_t)(r->end - r->at), "\r\n", 2) : NULL;
        if (!crlf)
                return SCAN_MORE;
        *ret = r->at;
        *ret_len = (size_t)(crlf - r->at);
        r->at = crlf + 2;
        return SCAN_REPLY;
}

static bool is_number(const char *text, size_t len, long long *ret) {
        char copy[24], again[24], *end;
        if (len == 0 || len > 20)
                return false;
        memcpy(copy, text, len);
        copy[len] = 0;
        *ret = strtoll(copy, &end, 10);
        snprintf(again, sizeof(again), "%lld", *ret);
        return strlen(copy) == len && strcmp(copy, again) == 0;
}

static bool is_line_of(char mark, const char *text, size_t len) {
        static const char *const alphabets[] = {"_", "#tf", ",0123456789+-.eEinfa", "(0123456789+-"};
        for (size_t i = 0; i < 4; i++) {
                if (alphabets[i][0] != mark)
                        continue;
                for (size_t c = 0; c < len; c++)
                        if (text[c] == 0 || !strchr(alphabets[i] + 1, text[c]))
                                return false;
                return i == 0 ? len == 0 : i == 1 ? len == 1 : len > 0;
        }
        return true;
}

static enum scan_result reference_value(struct reference *r);

static enum scan_result reference_values(struct reference *r, uint64_t n) {
        enum scan_result what = SCAN_REPLY;
        for (uint64_t i = 0; i < n && what == SCAN_REPLY; i++)
                what = reference_value(r);
        return what;
}

static enum scan_result reference_payload(struct reference *r, char mark, uint64_t len) {
        if (len > SCAN_BULK_MAX || (mark == '=' && len < 4))
                return SCAN_BAD;
        if ((uint64_t)(r->end - r->at) < len + 2)
                return SCAN_MORE;
        if (memcmp(r->at + len, "\r\n", 2) != 0)
                return SCAN_BAD;
        r->at += len + 2;
        return SCAN_REPLY;
}

static enum scan_result reference_aggregate(struct reference *r, char mark, uint64_t n) {
        enum scan_result what;
        if (n > SCAN_ELEMENTS_MAX)
                return SCAN_BAD;
        what = reference_values(r, mark == '%' || mark == '|' ? 2 * n : n);
        return mark == '|' && what == SCAN_REPLY ? reference_value(r) : what;
}

static enum scan_result reference_value(struct reference *r) {
        const char *line, *marks = r->resp3 ? "+-:$*_#,(!=%~|>" : "+-:$*";
        long long number;
        size_t len;
        char mark;
        if (r->at == r->end)
                return SCAN_MORE;
        mark = *r->at++;
        if (mark == 0 || !strchr(marks, mark))
                return SCAN_BAD;
        if (reference_line(r, &line, &len) == SCAN_MORE)
                return SCAN_MORE;
        if (strchr("+-_#,(", mark))
                return is_line_of(mark, line, len) ? SCAN_REPLY : SCAN_BAD;
        if (!is_number(line, len, &number))
                return SCAN_BAD;
        if (mark == ':' || (number == -1 && (mark == '$' || mark == '*')))
                return SCAN_REPLY;
        if (number < 0)
                return SCAN_BAD;
        return strchr("$!=", mark) ? reference_payload(r, mark, (uint64_t)number)
                                   : reference_aggregate(r, mark, (uint64_t)number);
}

/* ---- the scanner, in pieces -------------------------------------------------------------------------------------- */

struct outcome {
        enum scan_result what;
        size_t size;
};

/* Each piece in memory of its own, so that a byte read too many is seen. */
static enum scan_result feed(struct scan *s, const char *data, size_t size, size_t *ret_used) {
        char *piece = malloc(size ? size : 1);
        enum scan_result what;
        promise(piece != NULL);
        if (size)
                memcpy(piece, data, size);
        what = scan_feed(s, piece, size, ret_used);
        free(piece);
        promise(*ret_used <= size && (what != SCAN_MORE || *ret_used == size));
        return what;
}

static struct outcome scan_whole(const char *data, size_t size, bool resp3) {
        struct scan s;
        struct outcome o;
        scan_init(&s, resp3);
        o.what = feed(&s, data, size, &o.size);
        promise(s.size == o.size && (o.what != SCAN_REPLY || (!scan_is_inside(&s) && s.type != 0)));
        return o;
}

static void check_pieces(const char *data, size_t size, bool resp3, size_t first, size_t then,
                         struct outcome expected) {
        struct scan s;
        size_t at = 0, used, n = first;
        enum scan_result what = SCAN_MORE;
        scan_init(&s, resp3);
        for (; what == SCAN_MORE && at < size; n = then) {
                what = feed(&s, data + at, n < size - at ? n : size - at, &used);
                at += used;
                promise(expected.what != SCAN_REPLY || scan_expects(&s) <= expected.size - at);
        }
        promise(what == expected.what && (at == expected.size || what == SCAN_BAD));
}

static void check_resp(const char *data, size_t size, bool resp3) {
        struct reference r = {.at = data, .end = data + size, .resp3 = resp3};
        struct outcome o = scan_whole(data, size, resp3);
        enum scan_result what = reference_value(&r);
        /* The reference sees a fault no earlier than at the end of the line, and in a payload only when all is there. */
        promise(what == SCAN_MORE ? o.what != SCAN_REPLY : o.what == what);
        promise(what != SCAN_REPLY || (size_t)(r.at - data) == o.size);
        for (size_t cut = 1; cut < size && cut < 512; cut++)
                check_pieces(data, size, resp3, cut, size, o);
        check_pieces(data, size, resp3, 1, 1, o);
        check_pieces(data, size, resp3, 3, 7, o);
}

static void check_hiredis(const char *data, size_t size) {
        struct scan s;
        size_t used;
        void *reply = NULL;
        redisReader *reader;
        int result;
        scan_init(&s, false);
        /* It makes room for all that an array announces, and goes on where we have stopped: not for every input. */
        if (scan_feed(&s, data, size, &used) == SCAN_BAD || s.missing > 1000)
                return;
        reader = redisReaderCreate();
        promise(reader && redisReaderFeed(reader, data, size) == REDIS_OK);
        result = redisReaderGetReply(reader, &reply);
        promise(result == REDIS_OK || strstr(reader->errstr, "depth"));
        if (result == REDIS_OK && s.missing == 0)
                promise(reply && size - (reader->len - reader->pos) == used);
        promise(s.missing == 0 || !reply);
        if (reply)
                freeReplyObject(reply);
        redisReaderFree(reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        if (size == 0 || size > 4096)
                return 0;
        check_resp((const char *)data, size, true);
        check_resp((const char *)data, size, false);
        check_hiredis((const char *)data, size);
        return 0;
}

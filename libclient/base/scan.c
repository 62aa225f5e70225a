/* SPDX-License-Identifier: MIT */
/*
 * A value is a mark, and then one of three things: a line ("+OK", ",1.5"), a number (":7"), or a number that says how
 * many bytes ("$3") or values ("*2") follow. Every value read takes one from `missing`, an aggregate adds its own.
 * An attribute of RESP3 stands before a value and is none itself.
 */
#include "scan.h"

#include <string.h>

/* Where in a value we are. A number, a line and a token each end with CR LF. */
enum scan_state { AT_MARK, AT_NUMBER, AT_NUMBER_LF, AT_LINE, AT_LINE_LF, AT_PAYLOAD, AT_PAYLOAD_CR, AT_PAYLOAD_LF };

#define MISSING_MAX (UINT64_C(1) << 56) /* never reached by what fits into a lifetime; keeps the sum from wrapping */
#define DIGITS_MAX 19U                  /* of 2^63 */

/* What may stand in the lines of RESP3 that are no text; NULL: anything. */
static const char *alphabet(char mark) {
        switch (mark) {
        case '_':
                return "";
        case '#':
                return "tf";
        case ',':
                return "0123456789+-.eEinfa";
        case '(':
                return "0123456789+-";
        default:
                return NULL;
        }
}

static bool length_of_line_is_right(const struct scan *s) {
        if (s->mark == '_')
                return s->value == 0;
        if (s->mark == '#')
                return s->value == 1;
        return s->value > 0 || s->mark == '+' || s->mark == '-';
}

/* One value is read. True: with it, the reply. */
static bool value_ends(struct scan *s) {
        s->state = AT_MARK;
        return --s->missing == 0;
}

static bool begin_value(struct scan *s, char mark) {
        static const char resp2[] = "+-:$*", numbers[] = ":$*!=%~|>";
        if (mark == 0 || !strchr(s->resp3 ? "+-:$*_#,(!=%~|>" : resp2, mark))
                return false;
        if (s->type == 0 && s->missing == 1 && mark != '|') /* more are missing: inside an attribute */
                s->type = mark;
        s->mark = mark;
        s->value = 0;
        s->digits = 0;
        s->negative = false;
        s->state = strchr(numbers, mark) ? AT_NUMBER : AT_LINE;
        return true;
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

/* As Redis writes them: no plus, no leading zero, no minus zero; within 64 bits with sign. */
static bool number_goes_on(struct scan *s, char c) {
        uint64_t digit = (uint64_t)(c - '0');
        if (c == '-' && s->digits == 0 && !s->negative) {
                s->negative = true;
                return true;
        }
        if (c < '0' || c > '9' || s->digits == DIGITS_MAX || (s->digits > 0 && s->value == 0) ||
            (s->negative && s->digits == 0 && digit == 0))
                return false;
        s->value = s->value * 10 + digit; /* 19 digits fit */
        s->digits++;
        return s->value <= (uint64_t)INT64_MAX + s->negative;
}

/* Elements, or pairs, are to come. False: too many. *ret_end: it was an empty or a null one, and the reply's last. */
static bool aggregate_begins(struct scan *s, bool *ret_end) {
        uint64_t values = s->mark == '%' || s->mark == '|' ? s->value * 2 : s->value;
        if (s->value > SCAN_ELEMENTS_MAX || s->missing > MISSING_MAX)
                return false;
        s->missing += values;
        if (s->mark != '|')
                *ret_end = value_ends(s);
        else
                s->state = AT_MARK; /* the value that it is about is still to come */
        return true;
}

static bool string_begins(struct scan *s) {
        if (s->value > SCAN_BULK_MAX || (s->mark == '=' && s->value < 4)) /* "txt:" */
                return false;
        s->state = s->value > 0 ? AT_PAYLOAD : AT_PAYLOAD_CR;
        return true;
}

static bool number_ends(struct scan *s, bool *ret_end) {
        if (s->mark == ':') {
                *ret_end = value_ends(s);
                return true;
        }
        if (s->negative) { /* "$-1", "*-1": null */
                if (s->value != 1 || (s->mark != '$' && s->mark != '*'))
                        return false;
                *ret_end = value_ends(s);
                return true;
        }
        return strchr("$!=", s->mark) ? string_begins(s) : aggregate_begins(s, ret_end);
}

/* ---- lines ------------------------------------------------------------------------------------------------------- */

/* Up to the next CR. A CR that no LF follows is text, as for hiredis. */
static bool line_goes_on(struct scan *s, const char *at, const char *end, const char **ret_at) {
        const char *cr = memchr(at, '\r', (size_t)(end - at)), *stop = cr ? cr : end, *allowed = alphabet(s->mark);
        for (const char *c = at; allowed && c < stop; c++)
                if (*c == 0 || !strchr(allowed, *c))
                        return false;
        s->value += (uint64_t)(stop - at);
        if (cr)
                s->state = AT_LINE_LF;
        *ret_at = cr ? cr + 1 : end;
        return s->value <= SCAN_LINE_MAX;
}

/* After a CR. */
static bool line_ends(struct scan *s, char c, bool *ret_end) {
        if (c == '\n') {
                *ret_end = value_ends(s);
                return length_of_line_is_right(s);
        }
        s->value += c == '\r' ? 1 : 2;
        s->state = c == '\r' ? AT_LINE_LF : AT_LINE;
        return !alphabet(s->mark) && s->value <= SCAN_LINE_MAX;
}

/* ---- the stream -------------------------------------------------------------------------------------------------- */

static bool expect(struct scan *s, char c, char expected, enum scan_state next) {
        s->state = (uint8_t)next;
        return c == expected;
}

/* One byte that is not part of a line or a payload. */
static bool step(struct scan *s, char c, bool *ret_end) {
        switch ((enum scan_state)s->state) {
        case AT_MARK:
                return begin_value(s, c);
        case AT_NUMBER:
                return c == '\r' && s->digits > 0 ? expect(s, c, '\r', AT_NUMBER_LF) : number_goes_on(s, c);
        case AT_NUMBER_LF:
                return c == '\n' && number_ends(s, ret_end);
        case AT_LINE_LF:
                return line_ends(s, c, ret_end);
        case AT_PAYLOAD_CR:
                return expect(s, c, '\r', AT_PAYLOAD_LF);
        case AT_PAYLOAD_LF:
                *ret_end = value_ends(s);
                return c == '\n';
        case AT_LINE:
        case AT_PAYLOAD:
                break;
        }
        return false;
}

static const char *skip_payload(struct scan *s, const char *at, const char *end) {
        size_t n = (size_t)(end - at);
        if (n > s->value)
                n = (size_t)s->value;
        s->value -= n;
        if (s->value == 0)
                s->state = AT_PAYLOAD_CR;
        return at + n;
}

void scan_init(struct scan *s, bool resp3) { *s = (struct scan){.resp3 = resp3}; }

enum scan_result scan_feed(struct scan *s, const char *data, size_t size, size_t *ret_used) {
        const char *at = data, *end = size > 0 ? data + size : data; /* NULL + 0 is undefined */
        bool ended = false, good = !s->bad;

        if (size > 0 && good && s->missing == 0) {
                s->missing = 1;
                s->size = 0;
                s->type = 0;
        }
        while (at < end && good && !ended) {
                if (s->state == AT_PAYLOAD)
                        at = skip_payload(s, at, end);
                else if (s->state == AT_LINE)
                        good = line_goes_on(s, at, end, &at);
                else
                        good = step(s, *at++, &ended);
        }
        *ret_used = (size_t)(at - data);
        s->size += *ret_used;
        s->bad = !good;
        return !good ? SCAN_BAD : ended ? SCAN_REPLY : SCAN_MORE;
}

uint64_t scan_expects(const struct scan *s) {
        static const uint8_t rest[] = {
                [AT_MARK] = 3,    [AT_NUMBER] = 2,  [AT_NUMBER_LF] = 1,  [AT_LINE] = 2,
                [AT_LINE_LF] = 1, [AT_PAYLOAD] = 2, [AT_PAYLOAD_CR] = 2, [AT_PAYLOAD_LF] = 1,
        };
        if (s->missing == 0 || s->bad)
                return 0;
        return (s->missing - 1) * 3 + rest[s->state] +
               (s->state == AT_PAYLOAD ? s->value : 0); /* "+\r\n" is the shortest */
}

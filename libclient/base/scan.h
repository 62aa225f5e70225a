/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Where does a reply end? Finds the boundaries of Redis' replies (RESP2, RESP3) in a stream that comes in pieces of any
 * size, without keeping, copying or understanding them. Pure; no allocation; the state is this struct, whatever the
 * reply: of nested arrays it knows how many values are still to come, not where they belong, and so any depth will do.
 *
 *      while (size > 0 && (what = scan_feed(&s, data, size, &used)) == SCAN_REPLY) { reply of `used` more bytes; ... }
 *
 * A payload is skipped, not looked at. As strict as Redis is in what it writes: a stream that is not RESP, or a length
 * beyond the limits below, is SCAN_BAD for ever: nobody knows where the next reply begins. Streamed strings and aggregates
 * of RESP3 ("$?") are bad, too: no Redis sends them.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SCAN_BULK_MAX (UINT32_C(512) * 1024 * 1024) /* bytes of a string: Redis' own default limit */
#define SCAN_ELEMENTS_MAX UINT32_C(0x7fffffff)      /* of an array, or pairs of a map */
#define SCAN_LINE_MAX (UINT32_C(64) * 1024 * 1024)  /* bytes of a simple string or an error */

struct scan {
        uint64_t missing; /* values the reply still lacks, the one being read included; 0: between replies */
        uint64_t value;   /* of the number being read; bytes of the line or of the payload to come */
        uint64_t size;    /* bytes of this reply so far */
        char type;        /* of this reply: its first byte, but for attributes before it; 0: not yet known */
        char mark;        /* of the value being read */
        uint8_t state, digits;
        bool negative, resp3, bad;
};

enum scan_result {
        SCAN_MORE,  /* all was used, and the reply goes on */
        SCAN_REPLY, /* it ends with the last byte used; `type` and `size` are its own until the next call */
        SCAN_BAD,   /* and so from now on */
};

void scan_init(struct scan *s, bool resp3);
/* Reads on, to the end of the reply if it is there. *ret_used: so many bytes, counted from data. */
enum scan_result scan_feed(struct scan *s, const char *data, size_t size, size_t *ret_used);
/* In the middle of a reply? */
static inline bool scan_is_inside(const struct scan *s) { return s->missing > 0; }
/* Bytes that must still come before this reply can end: at least so many, for room to be made in time. 0: between replies. */
uint64_t scan_expects(const struct scan *s);

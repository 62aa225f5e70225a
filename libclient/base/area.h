/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A piece of memory from which contiguous pieces are taken and given back in the same order. Knows offsets alone, and
 * keeps what it knows with its owner, not in the memory. Starts again from its beginning whenever it is empty: little
 * use touches little memory.
 */
#include <stdbool.h>
#include <stdint.h>

#define AREA_ALIGN 8U

struct area {
        uint32_t size;       /* a multiple of AREA_ALIGN */
        uint32_t head, tail; /* the next piece's beginning; the oldest one's */
        uint32_t pieces;
};

/* *ret_end is for area_give(). False: no room now. Length 0 is a piece, too. */
static inline bool area_take(struct area *a, uint32_t length, uint32_t *ret_offset, uint32_t *ret_end) {
        uint32_t n;
        if (length > a->size)
                return false;
        n = (length + AREA_ALIGN - 1) / AREA_ALIGN * AREA_ALIGN;
        if (a->pieces == 0)
                a->head = a->tail = 0;
        if (a->head >= a->tail && n > a->size - a->head) { /* not at the end: at the beginning, if anywhere */
                if (n >= a->tail)
                        return false;
                a->head = 0;
        } else if (a->head < a->tail && n >= a->tail - a->head) { /* head == tail would look like nothing taken */
                return false;
        }
        *ret_offset = a->head;
        *ret_end = a->head += n;
        a->pieces++;
        return true;
}

/* The oldest piece. */
static inline void area_give(struct area *a, uint32_t end) {
        a->tail = end;
        a->pieces--;
}

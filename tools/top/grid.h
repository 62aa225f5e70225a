/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A screen in memory: cells with a character and an attribute. Pages are drawn into it, a terminal (curses.c) or a
 * stream shows it, and a test reads it. What lies outside is cut off; text is made fit for a terminal. Pure.
 */
#include <stdint.h>
#include <stdio.h>

enum grid_attribute { GRID_PLAIN, GRID_BOLD, GRID_DIM, GRID_GOOD, GRID_WARN, GRID_BAD, GRID_TITLE, GRID_SELECTED };

struct grid_cell {
        uint32_t character; /* Unicode */
        uint8_t attribute;
};

struct grid {
        unsigned rows, columns;
        struct grid_cell *cells;
};

void grid_init(struct grid *g, unsigned rows, unsigned columns); /* blank */
void grid_deinit(struct grid *g);

/* printf from column `at`; returns the column behind it. */
unsigned grid_print(struct grid *g, unsigned row, unsigned at, enum grid_attribute a, const char *fmt, ...)
        __attribute__((format(printf, 5, 6)));
/* `text` in `width` columns, right-aligned or left, `~` where it is cut. */
void grid_field(struct grid *g, unsigned row, unsigned at, int width, enum grid_attribute a, const char *text);
void grid_put(struct grid *g, unsigned row, unsigned column, enum grid_attribute a, uint32_t character);
void grid_attribute(struct grid *g, unsigned row, enum grid_attribute a); /* of a whole row */
/* Rows `from`.. of `page` into rows `to`..`end` - 1. */
void grid_window(struct grid *g, unsigned to, unsigned end, const struct grid *page, unsigned from);
unsigned grid_used(const struct grid *g); /* rows up to the last that is not blank */

/* A row as UTF-8, without blanks at its end. The string is the caller's. */
char *grid_row(const struct grid *g, unsigned row);
void grid_write(const struct grid *g, FILE *out); /* all used rows */

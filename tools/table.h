/* SPDX-License-Identifier: MIT */
#pragma once
/* Text in aligned columns, as wide as their contents, cut where a line would be longer than `width`. */
#include <stddef.h>
#include <stdio.h>

enum table_kind {
        TABLE_LEFT,
        TABLE_RIGHT,
        TABLE_ELASTIC,     /* left; gives way first when the line is too long, losing its end */
        TABLE_ELASTIC_TAIL /* likewise, losing its beginning */
};

struct table_column {
        const char *title;
        enum table_kind kind;
};

struct table {
        const struct table_column *columns; /* the caller's */
        size_t n_columns, n_cells, room;
        char **cells;
};

void table_init(struct table *t, const struct table_column *columns, size_t n_columns);
/* The next cell, row by row; made fit for a terminal. */
void table_cell(struct table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void table_print(const struct table *t, FILE *out, size_t width);
void table_deinit(struct table *t);

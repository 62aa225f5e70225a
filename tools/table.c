/* SPDX-License-Identifier: MIT */
#include "table.h"

#include <assert.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "format.h"

enum { GAP = 2, ELASTIC_LEAST = 6, COLUMNS_MAX = 16 };

void table_init(struct table *t, const struct table_column *columns, size_t n_columns) {
        *t = (struct table){.columns = columns, .n_columns = n_columns < COLUMNS_MAX ? n_columns : COLUMNS_MAX};
}

void table_cell(struct table *t, const char *fmt, ...) {
        va_list args;
        if (t->n_cells == t->room) {
                size_t room = t->room ? 2 * t->room : 64;
                char **cells = realloc(t->cells, room * sizeof(*cells));
                if (!cells)
                        out_of_memory();
                t->cells = cells;
                t->room = room;
        }
        va_start(args, fmt);
        if (vasprintf(&t->cells[t->n_cells], fmt, args) < 0)
                out_of_memory();
        va_end(args);
        format_clean(t->cells[t->n_cells++]);
}

void table_deinit(struct table *t) {
        for (size_t i = 0; i < t->n_cells; i++)
                free(t->cells[i]);
        free(t->cells);
        *t = (struct table){0};
}

static bool elastic(const struct table_column *c) { return c->kind == TABLE_ELASTIC || c->kind == TABLE_ELASTIC_TAIL; }

static void measure(const struct table *t, size_t *widths) {
        assert(t->n_columns > 0);
        for (size_t c = 0; c < t->n_columns; c++)
                widths[c] = strlen(t->columns[c].title);
        for (size_t i = 0; i < t->n_cells; i++) {
                size_t n = strlen(t->cells[i]);
                if (n > widths[i % t->n_columns])
                        widths[i % t->n_columns] = n;
        }
}

/* The widest elastic column gives way, letter by letter, until the line fits or all are at their least. */
static void squeeze(const struct table *t, size_t *widths, size_t width) {
        size_t line = GAP * (t->n_columns - 1);
        for (size_t c = 0; c < t->n_columns; c++)
                line += widths[c];
        for (; line > width; line--) {
                size_t widest = t->n_columns;
                for (size_t c = 0; c < t->n_columns; c++)
                        if (elastic(&t->columns[c]) && widths[c] > ELASTIC_LEAST &&
                            (widest == t->n_columns || widths[c] > widths[widest]))
                                widest = c;
                if (widest == t->n_columns)
                        return;
                widths[widest]--;
        }
}

static void print_cell(FILE *out, const struct table_column *column, const char *text, size_t width, bool last) {
        size_t n = strlen(text);
        int w = (int)width;
        if (n > width && column->kind == TABLE_ELASTIC_TAIL)
                fprintf(out, "~%s", text + n - (width - 1));
        else if (n > width)
                fprintf(out, "%.*s~", w - 1, text);
        else if (column->kind == TABLE_RIGHT)
                fprintf(out, "%*s", w, text);
        else
                fprintf(out, "%-*s", last ? 0 : w, text);
        fputs(last ? "\n" : "  ", out);
}

void table_print(const struct table *t, FILE *out, size_t width) {
        size_t widths[COLUMNS_MAX];
        assert(t->n_columns > 0);
        measure(t, widths);
        squeeze(t, widths, width);
        for (size_t c = 0; c < t->n_columns; c++)
                print_cell(out, &t->columns[c], t->columns[c].title, widths[c], c + 1 == t->n_columns);
        for (size_t i = 0; i < t->n_cells; i++) {
                size_t c = i % t->n_columns;
                print_cell(out, &t->columns[c], t->cells[i], widths[c], c + 1 == t->n_columns);
        }
}

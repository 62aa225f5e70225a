/* SPDX-License-Identifier: MIT */
#include "grid.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "format.h"

void grid_init(struct grid *g, unsigned rows, unsigned columns) {
        *g = (struct grid){.rows = rows, .columns = columns};
        g->cells = calloc((size_t)rows * columns + 1, sizeof(*g->cells));
        if (!g->cells)
                out_of_memory();
        for (size_t i = 0; i < (size_t)rows * columns; i++)
                g->cells[i].character = ' ';
}

void grid_deinit(struct grid *g) {
        free(g->cells);
        *g = (struct grid){0};
}

void grid_put(struct grid *g, unsigned row, unsigned column, enum grid_attribute a, uint32_t character) {
        if (row < g->rows && column < g->columns)
                g->cells[(size_t)row * g->columns + column] =
                        (struct grid_cell){.character = character, .attribute = (uint8_t)a};
}

unsigned grid_print(struct grid *g, unsigned row, unsigned at, enum grid_attribute a, const char *fmt, ...) {
        char text[512];
        va_list args;

        va_start(args, fmt);
        vsnprintf(text, sizeof(text), fmt, args);
        va_end(args);
        for (const char *p = format_clean(text); *p; p++)
                grid_put(g, row, at++, a, (unsigned char)*p);
        return at;
}

void grid_field(struct grid *g, unsigned row, unsigned at, int width, enum grid_attribute a, const char *text) {
        unsigned w = (unsigned)abs(width);
        size_t n = strlen(text);

        if (n > w && w > 0)
                grid_print(g, row, at, a, "%.*s~", (int)w - 1, text);
        else
                grid_print(g, row, at, a, width < 0 ? "%-*s" : "%*s", (int)w, text);
}

void grid_attribute(struct grid *g, unsigned row, enum grid_attribute a) {
        for (unsigned c = 0; c < g->columns && row < g->rows; c++)
                g->cells[(size_t)row * g->columns + c].attribute = (uint8_t)a;
}

void grid_window(struct grid *g, unsigned to, unsigned end, const struct grid *page, unsigned from) {
        for (; to < end && to < g->rows && from < page->rows; to++, from++)
                for (unsigned c = 0; c < g->columns && c < page->columns; c++)
                        g->cells[(size_t)to * g->columns + c] = page->cells[(size_t)from * page->columns + c];
}

static unsigned row_length(const struct grid *g, unsigned row) {
        unsigned n = g->columns;
        while (n > 0 && g->cells[(size_t)row * g->columns + n - 1].character == ' ')
                n--;
        return n;
}

unsigned grid_used(const struct grid *g) {
        unsigned n = g->rows;
        while (n > 0 && row_length(g, n - 1) == 0)
                n--;
        return n;
}

/* Up to U+FFFF: we draw nothing beyond. */
static char *put_utf8(char *p, uint32_t c) {
        if (c < 0x80)
                *p++ = (char)c;
        else {
                if (c < 0x800)
                        *p++ = (char)(0xc0 | c >> 6);
                else {
                        *p++ = (char)(0xe0 | c >> 12);
                        *p++ = (char)(0x80 | (c >> 6 & 0x3f));
                }
                *p++ = (char)(0x80 | (c & 0x3f));
        }
        return p;
}

char *grid_row(const struct grid *g, unsigned row) {
        unsigned n = row < g->rows ? row_length(g, row) : 0;
        char *text = malloc(3 * (size_t)n + 1), *p = text;

        if (!text)
                out_of_memory();
        for (unsigned c = 0; c < n; c++)
                p = put_utf8(p, g->cells[(size_t)row * g->columns + c].character);
        *p = '\0';
        return text;
}

void grid_write(const struct grid *g, FILE *out) {
        for (unsigned r = 0; r < grid_used(g); r++) {
                char *text = grid_row(g, r);
                fprintf(out, "%s\n", text);
                free(text);
        }
}

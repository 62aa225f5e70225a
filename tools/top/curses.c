/* SPDX-License-Identifier: MIT */
/*
 * ncurses sends only the cells that differ: nothing flickers, and a slow line is enough.
 */
#include <locale.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define NCURSES_WIDECHAR 1
#include <curses.h>

#include "curses.h"
#include "terminfo.h"
#include "top.h"

static SCREEN *screen;
static bool coloured;

bool curses_begin(void) {
        const char *no_color = getenv("NO_COLOR");
        if (!terminfo_places_cursor())
                return false;
        screen = newterm(NULL, stdout, stdin);
        if (!screen)
                return false;
        cbreak();
        noecho();
        nonl();
        keypad(stdscr, TRUE);
        set_escdelay(50);
        curs_set(0);
        coloured = !(no_color && *no_color) && has_colors() && start_color() == OK;
        if (coloured) {
                use_default_colors();
                init_pair(GRID_GOOD, COLOR_GREEN, -1);
                init_pair(GRID_WARN, COLOR_YELLOW, -1);
                init_pair(GRID_BAD, COLOR_RED, -1);
        }
        return true;
}

void curses_end(void) {
        if (!screen)
                return;
        endwin();
        delscreen(screen);
        screen = NULL;
}

void curses_grid(struct grid *g) {
        int rows, columns;
        getmaxyx(stdscr, rows, columns);
        grid_init(g, rows > 0 ? (unsigned)rows : 1, columns > 0 ? (unsigned)columns : 1);
}

/* Without colour what is bad must stand out nevertheless. */
static attr_t attributes(unsigned a, short *ret_pair) {
        bool pair = coloured && (a == GRID_GOOD || a == GRID_WARN || a == GRID_BAD);
        *ret_pair = pair ? (short)a : 0;
        switch (a) {
        case GRID_BOLD:
        case GRID_WARN:
                return A_BOLD;
        case GRID_DIM:
                return coloured ? A_DIM : A_NORMAL;
        case GRID_BAD:
                return pair ? A_BOLD : A_BOLD | A_STANDOUT;
        case GRID_TITLE:
        case GRID_SELECTED:
                return A_REVERSE;
        default:
                return A_NORMAL;
        }
}

void curses_show(const struct grid *g) {
        for (unsigned r = 0; r < g->rows; r++)
                for (unsigned c = 0; c < g->columns; c++) {
                        const struct grid_cell *cell = &g->cells[(size_t)r * g->columns + c];
                        wchar_t text[2] = {(wchar_t)cell->character, 0};
                        cchar_t complex_character;
                        short pair;
                        attr_t a = attributes(cell->attribute, &pair);
                        if (setcchar(&complex_character, text, a, pair, NULL) == OK)
                                mvadd_wch((int)r, (int)c, &complex_character);
                }
        refresh();
}

int curses_key(int ms) {
        int key;
        timeout(ms);
        key = getch();
        switch (key) {
        case KEY_UP:
                return TOP_UP;
        case KEY_DOWN:
                return TOP_DOWN;
        case KEY_LEFT:
                return TOP_LEFT;
        case KEY_RIGHT:
                return TOP_RIGHT;
        case KEY_PPAGE:
                return TOP_PAGE_UP;
        case KEY_NPAGE:
                return TOP_PAGE_DOWN;
        case KEY_HOME:
                return TOP_HOME;
        case KEY_ENTER:
        case '\r':
        case '\n':
                return TOP_ENTER;
        case 27:
                return TOP_BACK;
        case KEY_BACKSPACE:
        case 0x7f:
        case '\b':
                return TOP_ERASE;
        case 12: /* ctrl-l: paint everything anew */
                clearok(stdscr, TRUE);
                return -1;
        default:
                return key > 0 && key < 0x7f ? key : -1;
        }
}

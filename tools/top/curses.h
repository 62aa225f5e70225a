/* SPDX-License-Identifier: MIT */
#pragma once
/* The terminal of `lessor top`, by ncurses. Colours unless NO_COLOR is set or the terminal has none. */
#include "grid.h"

/* False: this terminal cannot place a cursor (TERM=dumb), or is not known; nothing has been changed then. */
bool curses_begin(void);
void curses_end(void);
/* A blank grid of the terminal's present size. */
void curses_grid(struct grid *g);
void curses_show(const struct grid *g);
/* A key (top.h) within `ms`; -1: none, or the terminal's size has changed. */
int curses_key(int ms);

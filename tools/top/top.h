/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * `lessor top`: what is on the screen, which keys change it, and how it is drawn. Everything here is pure: readings and
 * keys come in, a grid (grid.h) comes out. The terminal is curses.c, the loop ../top.c.
 */
#include "grid.h"
#include "history.h"

enum top_page { TOP_OVERVIEW, TOP_DATABASE, TOP_HOLDERS, TOP_HELP };
enum top_sort {
        TOP_BY_NAME,
        TOP_BY_USE,
        TOP_BY_QUEUE,
        TOP_BY_LEASES,
        TOP_BY_ERRORS,
        TOP_BY_WAIT,
        TOP_BY_CALL,
        TOP_SORTS
};

/* Keys that are no characters. */
enum top_key {
        TOP_UP = 256,
        TOP_DOWN,
        TOP_LEFT,
        TOP_RIGHT,
        TOP_PAGE_UP,
        TOP_PAGE_DOWN,
        TOP_HOME,
        TOP_ENTER,
        TOP_BACK,
        TOP_ERASE
};

struct top {
        enum top_page page, before_help;
        enum top_sort sort;
        bool reverse, paused, typing; /* typing: a filter */
        bool times;                   /* where not all columns fit: those of times */
        bool ascii;                   /* no characters beyond */
        bool quit;
        char filter[32]; /* a part of the name */
        char selected[LESSOR_NAME_SIZE];
        unsigned scroll; /* of all pages but the overview */
};

/* What is known at this moment; m may be NULL, `absent` says why then. */
struct top_scene {
        const struct top *top;
        const struct model *m;
        const struct history *history;
        const char *absent;
};

void top_key(struct top *t, const struct model *m, const struct history *h, int key); /* m NULL: no databases */
void top_draw(const struct top_scene *s, struct grid *g);

/* Databases in their order on the screen, after the filter: their number; indices of m->databases in ret, which has
 * room for all. */
unsigned top_order(const struct top *t, const struct model *m, const struct history *h, unsigned *ret);
/* The selected one, else the first. NULL: there is none. */
const struct lessor_status_database *top_selected(const struct top *t, const struct model *m, const struct history *h);
const char *top_sort_text(enum top_sort sort);
bool top_passes(const struct top *t, const char *name); /* the filter */

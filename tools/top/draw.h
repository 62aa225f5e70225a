/* SPDX-License-Identifier: MIT */
#pragma once
/* The parts of the pages of `lessor top`. Pure. */
#include "format.h"
#include "top.h"

/* The glyphs of a bar, from what is in use to what is not open. */
void draw_bar(struct grid *g, unsigned row, unsigned at, unsigned width, const struct lessor_status_database *d,
              bool ascii);
void draw_spark(struct grid *g, unsigned row, unsigned at, unsigned width, const struct history_row *r, bool ascii);
/* Upright bars, one for each power of two from 1 us to 206 s, and their axis; returns the row behind it. */
unsigned draw_histogram(struct grid *g, unsigned row, const char *name, const struct lessor_status_histogram *h,
                        bool ascii);
/* "open 12s" while the breaker is; else the health. */
struct text draw_state_text(const struct model *m, const struct lessor_status_database *d);
enum grid_attribute draw_state_attribute(const struct lessor_status_database *d);
struct text draw_rate(double per_second);                                           /* "-" when not known */
struct text draw_percentile(const struct lessor_status_histogram *h, double share); /* "-" of none */

void draw_overview(const struct top_scene *s, struct grid *g);
/* Pages that may be longer than the screen: onto g, whose rows are plenty. */
void draw_database_page(const struct top_scene *s, struct grid *g);
void draw_holders_page(const struct top_scene *s, struct grid *g);
void draw_help_page(struct grid *g);

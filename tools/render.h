/* SPDX-License-Identifier: MIT */
#pragma once
/* The model as text for people, at most `width` columns wide (100 fit everything but long names). */
#include <stdio.h>

#include "figures.h"
#include "model.h"

#define RENDER_WIDTH 100

size_t render_width(int fd); /* of the terminal, at least RENDER_WIDTH; RENDER_WIDTH when it is none */

/* before: an earlier reading, which gives operations per second; NULL: none. */
void render_all(FILE *out, const struct model *m, const struct model *before, size_t width);
void render_database(FILE *out, const struct model *m, const struct lessor_status_database *d, size_t width);
/* A line for each chosen figure: name, exact value, rate, meaning. False: nothing was. only NULL: of all databases. */
bool render_chosen(FILE *out, const struct model *m, const struct model *before, const struct choice *choice,
                   const struct lessor_status_database *only, size_t width);
void render_health(FILE *out, const struct model *m);
/* As json_leases(). */
void render_leases(FILE *out, const struct model *m, const char *database, const char *address, size_t width);
/* "main, cache, audit": for an error about a name that is none of them. */
void render_names(FILE *out, const struct model *m);

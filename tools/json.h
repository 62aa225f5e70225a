/* SPDX-License-Identifier: MIT */
#pragma once
/* The model as JSON; names are those of lessor/status_fields.h. Every value returned is the caller's, never NULL. */
#include <jansson.h>

#include "figures.h"
#include "model.h"

json_t *json_all(const struct model *m, const struct lessor_status_database *only); /* only: one database; NULL: all */
/* {instance, figures: {"main.leases": 12, ...}, rates: {...}}: what is chosen, of one database or all. */
json_t *json_chosen(const struct model *m, const struct model *before, const struct choice *choice,
                    const struct lessor_status_database *only);
json_t *json_health(const struct model *m);
/* Held connections; with an address, that one in whatever state. NULL: of all databases. */
json_t *json_leases(const struct model *m, const char *database, const char *address);

json_t *json_text(const char *s); /* a JSON string, whatever bytes stand in s */
/* One line. 0, or -EIO, -EPIPE ... when it could not be written. */
int json_print(FILE *out, const json_t *value);

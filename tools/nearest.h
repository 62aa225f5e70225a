/* SPDX-License-Identifier: MIT */
#pragma once
/* "Did you mean": the name among those known that is the fewest slips of the fingers away. Pure. */
#include <stddef.h>

unsigned nearest_distance(const char *a,
                          const char *b); /* letters added, left out, changed, or swapped with their neighbour */
const char *nearest(const char *word, const char *const *names, size_t n); /* NULL when none is near */

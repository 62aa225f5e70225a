/* SPDX-License-Identifier: MIT */
#include "nearest.h"

#include <string.h>

enum { LONGEST = 64 }; /* of what is compared: the rest is no slip of the fingers any more */

static unsigned least(unsigned a, unsigned b, unsigned c) {
        unsigned m = a < b ? a : b;
        return m < c ? m : c;
}

/* Optimal string alignment: three rows of the table are enough. */
unsigned nearest_distance(const char *a, const char *b) {
        unsigned rows[3][LONGEST + 1], *before = rows[0], *above = rows[1], *row = rows[2];
        size_t n = strnlen(a, LONGEST), m = strnlen(b, LONGEST);

        for (unsigned j = 0; j <= m; j++)
                above[j] = j;
        for (size_t i = 1; i <= n; i++) {
                row[0] = (unsigned)i;
                for (size_t j = 1; j <= m; j++) {
                        row[j] = least(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1]));
                        if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                                row[j] = least(row[j], before[j - 2] + 1, row[j]);
                }
                unsigned *oldest = before;
                before = above;
                above = row;
                row = oldest;
        }
        return above[m];
}

const char *nearest(const char *word, const char *const *names, size_t n) {
        const char *best = NULL;
        unsigned least_far = (unsigned)strnlen(word, LONGEST) / 2;
        if (least_far > 3)
                least_far = 3;
        for (size_t i = 0; i < n; i++) {
                unsigned far = nearest_distance(word, names[i]);
                if (far < least_far + (best == NULL)) {
                        best = names[i];
                        least_far = far;
                }
        }
        return best;
}

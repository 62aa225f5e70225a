/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The schema of the statistics (lessor/status_fields.h) as a table, for whoever wants all of its fields, or one that
 * this release may not have yet: what LESSOR_STATUS_FIELD declares appears here by itself. Pure.
 */
#include <stddef.h>

#include <lessor/status.h>

enum field_kind { FIELD_LIMIT, FIELD_GAUGE, FIELD_COUNTER, FIELD_TIME };
enum field_unit { FIELD_ONE, FIELD_NS, FIELD_ENUM };

struct field {
        const char *name;
        enum field_kind kind;
        enum field_unit unit;
        const char *help;
        size_t offset; /* in struct lessor_status_database */
};

struct field_histogram {
        const char *name, *help;
        size_t offset;
};

extern const struct field fields[];
extern const size_t n_fields;
extern const struct field_histogram field_histograms[];
extern const size_t n_field_histograms;

const struct field *field_find(const char *name); /* NULL: no such */
uint64_t field_value(const struct field *f, const struct lessor_status_database *d);
const struct lessor_status_histogram *field_histogram_value(const struct field_histogram *h,
                                                            const struct lessor_status_database *d);

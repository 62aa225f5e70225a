/* SPDX-License-Identifier: MIT */
#include "fields.h"

#define LIMIT FIELD_LIMIT
#define GAUGE FIELD_GAUGE
#define COUNTER FIELD_COUNTER
#define TIME FIELD_TIME
#define ONE FIELD_ONE
#define NS FIELD_NS
#define ENUM FIELD_ENUM

const struct field fields[] = {
#define LESSOR_STATUS_FIELD(name, kind, unit, help)                                                                    \
        {#name, kind, unit, help, offsetof(struct lessor_status_database, name)},
#include <lessor/status_fields.h>
};
const size_t n_fields = sizeof(fields) / sizeof(fields[0]);

const struct field_histogram field_histograms[] = {
#define LESSOR_STATUS_HISTOGRAM(name, help) {#name, help, offsetof(struct lessor_status_database, name)},
#include <lessor/status_fields.h>
};
const size_t n_field_histograms = sizeof(field_histograms) / sizeof(field_histograms[0]);

const struct field *field_find(const char *name) {
        for (size_t i = 0; i < n_fields; i++)
                if (strcmp(fields[i].name, name) == 0)
                        return &fields[i];
        return NULL;
}

uint64_t field_value(const struct field *f, const struct lessor_status_database *d) {
        uint64_t value;
        memcpy(&value, (const char *)d + f->offset, sizeof(value));
        return value;
}

const struct lessor_status_histogram *field_histogram_value(const struct field_histogram *h,
                                                            const struct lessor_status_database *d) {
        return (const struct lessor_status_histogram *)(const void *)((const char *)d + h->offset);
}

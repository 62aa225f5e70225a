/* SPDX-License-Identifier: MIT */
#include "reading.h"

#include <stdio.h>
#include <stdlib.h>

#include "source.h"

int reading_take(const char *instance, struct model *ret) {
        struct lessor_status status;
        int r = source_open(instance, &status);
        if (r < 0)
                return r;
        if (model_read(&status, ret) < 0)
                out_of_memory();
        lessor_status_close(&status); /* a model is a copy */
        return 0;
}

int reading_absent(const struct command *self, int error, const char *instance) {
        char *text = source_explain(error, instance);
        fprintf(stderr, "lessor %s: %s\n", self->name, text);
        free(text);
        return EXIT_ABSENT;
}

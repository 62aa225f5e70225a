/* SPDX-License-Identifier: MIT */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>

int error_set(lessor_error *e, int code, const char *fmt, ...) {
        va_list args;

        if (!e)
                return code;
        error_clear(e);
        e->code = code;
        va_start(args, fmt);
        vsnprintf(e->text, sizeof(e->text), fmt, args);
        va_end(args);
        return code;
}

int error_argument(lessor_error *e, const char *function, const char *argument, const char *why) {
        return error_set(e, LESSOR_E_INVALID, "%s: argument `%s` %s", function, argument, why);
}

void error_may_have_run(lessor_error *e, bool may_have_run) {
        if (e)
                e->may_have_run = may_have_run;
}

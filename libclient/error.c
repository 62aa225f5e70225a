/* SPDX-License-Identifier: MIT */
#include "error.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/clock.h"

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

/* Rounded up: who comes back a fraction of a millisecond too early is refused once more. */
void error_retry(lessor_error *e, uint64_t retry_ns) {
        if (!e)
                return;
        if (retry_ns > (uint64_t)INT_MAX * NS_PER_MS - NS_PER_MS)
                e->retry_ms = INT_MAX;
        else
                e->retry_ms = (int)((retry_ns + NS_PER_MS - 1) / NS_PER_MS);
}

/* SPDX-License-Identifier: MIT */
/* The names of outcomes, and of the library. */
#include <stddef.h>
#include <string.h>

#include <lessor.h>

#include "base/cleanup.h"

static const char *const outcome_texts[] = {
        [LESSOR_OK] = "ok",
        [LESSOR_E_TIMEOUT] = "timeout",
        [LESSOR_E_EXHAUSTED] = "exhausted",
        [LESSOR_E_UNAVAILABLE] = "broker unavailable",
        [LESSOR_E_UPSTREAM] = "upstream unavailable",
        [LESSOR_E_CREDENTIALS] = "credentials refused",
        [LESSOR_E_BREAKER_OPEN] = "breaker open",
        [LESSOR_E_LOADING] = "loading",
        [LESSOR_E_UNKNOWN_DATABASE] = "unknown database",
        [LESSOR_E_DENIED] = "denied",
        [LESSOR_E_CONNECTION] = "connection lost",
        [LESSOR_E_REPLY_TIMEOUT] = "reply timeout",
        [LESSOR_E_PROTOCOL] = "protocol error",
        [LESSOR_E_INVALID] = "invalid argument",
        [LESSOR_E_FORKED] = "lease of a parent process",
        [LESSOR_E_CANCELLED] = "cancelled",
        [LESSOR_E_LIMIT] = "limit reached",
        [LESSOR_E_VERSION] = "no common protocol version",
        [LESSOR_E_NEEDS_LEASE] = "needs a lease",
};

const char *lessor_outcome_text(int code) {
        const char *text = NULL;

        /* strerrordesc_np() has static texts, in no language but C's: strerror() is not thread-safe. */
        if (code < 0)
                text = strerrordesc_np(-code);
        else if ((size_t)code < ARRAY_SIZE(outcome_texts))
                text = outcome_texts[code];
        return text ? text : "unknown outcome";
}

const char *lessor_release_version(void) { return LESSOR_RELEASE; }

/* SPDX-License-Identifier: MIT */
#include "request.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

enum { OF_DATABASE = 1, WITH_NUMBER = 2 };

static const struct {
        const char *name;
        unsigned needs;
        uint32_t flags; /* those that mean something */
} commands[] = {
        [LESSOR_ADMIN_PAUSE] = {"pause", OF_DATABASE, 0},
        [LESSOR_ADMIN_RESUME] = {"resume", OF_DATABASE, 0},
        [LESSOR_ADMIN_DRAIN] = {"drain", OF_DATABASE, 0},
        [LESSOR_ADMIN_RECONNECT] = {"reconnect", OF_DATABASE, 0},
        [LESSOR_ADMIN_BREAKER_OPEN] = {"breaker-open", OF_DATABASE, 0},
        [LESSOR_ADMIN_BREAKER_CLOSE] = {"breaker-close", OF_DATABASE, 0},
        [LESSOR_ADMIN_BREAKER_RESET] = {"breaker-reset", OF_DATABASE, 0},
        [LESSOR_ADMIN_KILL_LEASE] = {"kill-lease", OF_DATABASE | WITH_NUMBER, 0},
        [LESSOR_ADMIN_KILL_SESSION] = {"kill-session", WITH_NUMBER, LESSOR_ADMIN_BY_PID},
        [LESSOR_ADMIN_RELOAD] = {"reload", 0, 0},
        [LESSOR_ADMIN_LOG_LEVEL] = {"log-level", 0, 0},
        [LESSOR_ADMIN_SHUTDOWN] = {"shutdown", 0, LESSOR_ADMIN_CUT},
};

static bool known(uint32_t command) { return command < ARRAY_SIZE(commands) && commands[command].name; }

const char *admin_command_name(uint32_t command) { return known(command) ? commands[command].name : "?"; }

bool admin_is_of_database(uint32_t command) { return known(command) && commands[command].needs & OF_DATABASE; }

/* What is no text to be shown on a terminal, in a log or in an error becomes `?`; bytes after the NUL go. False: no NUL. */
static bool clean(char *text, size_t size) {
        size_t length = strnlen(text, size);
        if (length == size)
                return false;
        for (size_t i = 0; i < length; i++)
                if ((unsigned char)text[i] < 0x20 || (unsigned char)text[i] >= 0x7f)
                        text[i] = '?';
        memset(text + length, 0, size - length);
        return true;
}

static const char *check(struct lessor_admin_request *r) {
        if (!known(r->command))
                return "no command of that number";
        if (r->flags & ~commands[r->command].flags)
                return "a flag that this command does not know";
        if (!clean(r->database, sizeof(r->database)) || !clean(r->why, sizeof(r->why)))
                return "a text without its end";
        if (commands[r->command].needs & OF_DATABASE && !r->database[0])
                return "which database?";
        if (commands[r->command].needs & WITH_NUMBER && !r->number)
                return "which one? The number is 0";
        return NULL;
}

enum lessor_admin_outcome admin_request_read(const void *data, size_t size, struct lessor_admin_request *ret,
                                             char text[LESSOR_ADMIN_TEXT_SIZE]) {
        memset(ret, 0, sizeof(*ret));
        memcpy(ret, data, size < sizeof(*ret) ? size : sizeof(*ret));
        if (size < 2 * sizeof(uint32_t) || ret->magic != LESSOR_ADMIN_MAGIC) {
                memset(ret, 0, sizeof(*ret));
                snprintf(text, LESSOR_ADMIN_TEXT_SIZE, "this is no request of lessor/admin.h");
                return LESSOR_ADMIN_INVALID;
        }
        if (ret->version != LESSOR_ADMIN_VERSION) {
                snprintf(text, LESSOR_ADMIN_TEXT_SIZE,
                         "the broker takes orders of version %u, this one is of version %u: use the `lessor` that was "
                         "installed with it",
                         LESSOR_ADMIN_VERSION, ret->version);
                return LESSOR_ADMIN_VERSION_UNKNOWN;
        }
        const char *wrong = size == sizeof(*ret) ? check(ret) : "a request of the wrong size";
        if (!wrong)
                return LESSOR_ADMIN_DONE;
        snprintf(text, LESSOR_ADMIN_TEXT_SIZE, "%s", wrong);
        return LESSOR_ADMIN_INVALID;
}

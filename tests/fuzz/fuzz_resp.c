/* SPDX-License-Identifier: MIT */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/command.h"
#include "base/resp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void promise(int kept) {
        if (!kept)
                abort();
}

/* Nothing shorter is whole: a part, in memory of its own, so that a byte read too many is seen. */
static void check_part(const char *text, size_t size) {
        const char *name;
        size_t len;
        char *part = malloc(size);
        if (!part)
                return;
        memcpy(part, text, size);
        promise(resp_command_size(part, size) == 0 && !resp_command_name(part, size, &name, &len));
        free(part);
}

/* One request, neither less nor more: with a byte less or more it is none. */
static void check_request(const char *text, size_t whole) {
        struct resp_request r = {0}, other;
        char *longer = malloc(whole + 1);
        promise(longer != NULL);
        memcpy(longer, text, whole);
        longer[whole] = '*';
        promise(resp_request_read(text, whole, &r) && r.arguments > 0);
        promise(r.name > text && r.name + r.name_len + 2 <= text + whole);
        promise(r.arguments > 1 ? r.sub > r.name && r.sub + r.sub_len + 2 <= text + whole : !r.sub);
        promise(!resp_request_read(text, whole - 1, &other) && !resp_request_read(longer, whole + 1, &other));
        free(longer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        const char *text = (const char *)data, *name = NULL;
        struct command_trail trail = {0};
        size_t len = 0, whole = resp_command_size(text, size);
        bool named = resp_command_name(text, size, &name, &len);

        promise(named == (whole > 0) && whole <= size);
        promise(resp_request_read(text, size, &(struct resp_request){0}) == (whole > 0 && whole == size));
        if (!named)
                return 0;
        promise(name > text && len < whole && name + len < text + whole);
        promise(resp_command_size(text, whole) == whole);
        check_request(text, whole);
        check_part(text, whole - 1);
        check_part(text, whole / 2);
        command_trail_add(&trail, name, len);
        promise(command_trail_clean(&trail) || command_effect(name, len) != COMMAND_HARMLESS);
        return 0;
}

/* SPDX-License-Identifier: MIT */
/* An administrator's datagram, from anybody: read whole or refused, its texts ended and printable, nothing read beyond it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "admin/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void promise(int kept) {
        if (!kept)
                abort();
}

static void check_text(const char *text, size_t size) {
        size_t length = strnlen(text, size);
        promise(length < size);
        for (size_t i = 0; i < length; i++)
                promise(text[i] >= 0x20 && text[i] < 0x7f);
        for (size_t i = length; i < size; i++)
                promise(text[i] == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        struct lessor_admin_request request;
        char text[LESSOR_ADMIN_TEXT_SIZE];
        uint8_t *copy = malloc(size ? size : 1); /* of its own size, so that a byte read too many is seen */
        if (!copy)
                return 0;
        memcpy(copy, data, size);
        memset(text, 0, sizeof(text));
        enum lessor_admin_outcome r = admin_request_read(copy, size, &request, text);
        free(copy);
        promise((r == LESSOR_ADMIN_DONE) == (text[0] == 0));
        promise(admin_command_name(request.command) != NULL);
        if (r != LESSOR_ADMIN_DONE)
                return 0;
        promise(size == sizeof(request) && request.version == LESSOR_ADMIN_VERSION);
        promise(request.command >= LESSOR_ADMIN_PAUSE && request.command <= LESSOR_ADMIN_SHUTDOWN);
        promise(!admin_is_of_database(request.command) || request.database[0]);
        check_text(request.database, sizeof(request.database));
        check_text(request.why, sizeof(request.why));
        return 0;
}

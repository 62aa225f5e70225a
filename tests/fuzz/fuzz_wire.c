/* SPDX-License-Identifier: MIT */
/* First byte: the side and the number of fds; the rest: a packet. What is let through must keep what wire.h promises. */
#include <stdlib.h>
#include <string.h>

#include "base/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void promise(int kept) {
        if (!kept)
                abort();
}

static void check_string(const char *string, size_t size) {
        size_t len = strnlen(string, size);
        promise(len < size);
        for (size_t i = len; i < size; i++)
                promise(string[i] == 0);
}

static void check_message(const union wire_message *m, enum wire_side from, unsigned n_fds, size_t size) {
        union wire_message again;

        promise(m->header.size == size && wire_size((enum lessor_message)m->header.type) == size);
        promise(m->header.reserved == 0);
        if (m->header.type == LESSOR_MSG_ATTACH)
                check_string(m->attach.program, sizeof(m->attach.program));
        if (m->header.type == LESSOR_MSG_LOOKUP)
                check_string(m->lookup.name, sizeof(m->lookup.name));
        if (m->header.type == LESSOR_MSG_LEASE)
                check_string(m->lease.site, sizeof(m->lease.site));
        if (m->header.type == LESSOR_MSG_ERROR)
                check_string(m->error.text, sizeof(m->error.text));
        promise(n_fds <= 2);
        promise(wire_decode(from, m, size, n_fds, &again) == NULL && memcmp(m, &again, size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        union wire_message message, untouched;
        enum wire_side from;
        const char *wrong;
        unsigned n_fds;

        if (size == 0)
                return 0;
        from = data[0] & 1 ? WIRE_FROM_BROKER : WIRE_FROM_WORKER;
        n_fds = data[0] >> 1 & 7;
        memset(&message, 0x5a, sizeof(message));
        untouched = message;
        wrong = wire_decode(from, data + 1, size - 1, n_fds, &message);
        if (wrong)
                promise(*wrong && memcmp(&message, &untouched, sizeof(message)) == 0);
        else {
                promise(memcmp(&message, data + 1, size - 1) == 0);
                check_message(&message, from, n_fds, size - 1);
        }
        return 0;
}

/* SPDX-License-Identifier: MIT */
/* What comes back on a dirty connection: anything, in any pieces. Only one conversation is a proof. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "upstream/proof.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void promise(int kept) {
        if (!kept)
                abort();
}

/* The first byte: how far the conversation has come by good answers, and how large the pieces are. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static const struct upstream_target target = {.client_name = "lessor:fuzz:main", .db = 3};
        static const uint8_t nonce[PROOF_NONCE_SIZE] = {1, 2, 3};
        static struct proof p;
        enum proof_result r = PROOF_WAIT;
        if (size < 1)
                return 0;
        unsigned good = data[0] % 3, piece = data[0] / 3 + 1;
        proof_start(&p, &target, 7, nonce);
        if (good > 0)
                promise(proof_take(&p, "+RESET\r\n", 8) == PROOF_SAY);
        if (good > 1) {
                char echo[64];
                int n = snprintf(echo, sizeof(echo), "$32\r\n%s\r\n", p.nonce);
                promise(proof_take(&p, echo, (size_t)n) == PROOF_SAY);
        }
        for (size_t at = 1; at < size && r != PROOF_FAILED && r != PROOF_CLEAN; at += piece) {
                size_t n = size - at < piece ? size - at : piece;
                char *part = malloc(n); /* of its own, so that a byte read too many is seen */
                if (!part)
                        return 0;
                memcpy(part, data + at, n);
                r = proof_take(&p, part, n);
                free(part);
                promise(p.request_size < sizeof(p.request) && p.received <= sizeof(p.reply));
        }
        promise(r != PROOF_CLEAN || (p.step == PROOF_RESTORE && memcmp(p.reply, "+RESET\r\n+OK\r\n+OK\r\n$", 19) == 0));
        promise((r == PROOF_FAILED) == (p.text[0] != 0));
        return 0;
}

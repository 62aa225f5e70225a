/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What is said on a connection that came back dirty, and which answers prove that it is as good as new. Pure: requests
 * out, bytes in.
 *
 *      RESET             -> +RESET, and not a byte more
 *      ECHO <nonce>      -> the nonce, and not a byte more
 *      RESET, [SELECT] CLIENT SETNAME, CLIENT INFO -> RESET, OK, OK, and the state of a connection fresh from the dial
 *
 * One write after the other: +RESET can be forged by what the last holder had sent before (a script that returns it, our
 * own request swallowed as its argument); the nonce cannot, and once it has come alone, no answer to anything earlier is
 * outstanding. The second RESET is then surely the server's, and costs no round trip. CLIENT INFO is the server's own word
 * for what RESET does not undo (CLIENT NO-EVICT, SETINFO) or may not know of.
 */
#include <stddef.h>
#include <stdint.h>

#include "handshake.h"

#define PROOF_NONCE_SIZE 16U

enum proof_step { PROOF_RESET, PROOF_ECHO, PROOF_RESTORE };

struct proof {
        const struct upstream_target *target; /* borrowed; without credentials */
        uint64_t client_id;                   /* of the connection, 0: unknown */
        enum proof_step step;
        char nonce[2 * PROOF_NONCE_SIZE + 1];
        char request[512]; /* to be sent now */
        size_t request_size;
        char reply[4096]; /* to it, as far as it has come; longer ones are refused */
        size_t received;
        char text[LESSOR_STATUS_TEXT_SIZE]; /* what is wrong; never what somebody else's reply says */
};

/* The first request is in `request`. The nonce is chance nobody knows. */
void proof_start(struct proof *p, const struct upstream_target *target, uint64_t client_id,
                 const uint8_t nonce[PROOF_NONCE_SIZE]);

enum proof_result {
        PROOF_WAIT,   /* more bytes are to come */
        PROOF_SAY,    /* `request` is to be sent */
        PROOF_CLEAN,  /* as good as new */
        PROOF_FAILED, /* `text` says why; nothing may be sent any more */
};
enum proof_result proof_take(struct proof *p, const char *data, size_t size);

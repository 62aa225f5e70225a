/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What is said on a new connection before anybody may use it, and what the answers mean. Pure: requests out, replies in.
 * [AUTH] [SELECT] CLIENT SETNAME, CLIENT ID, PING in one write; each answer is judged in its turn.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <hiredis/hiredis.h>
#include <lessor/status.h>

struct upstream_target {
        const char *host; /* a name or an address; unused with unix_socket */
        unsigned port;
        const char *unix_socket; /* NULL: TCP */
        const char *username;    /* NULL: the default user */
        const char *password;    /* NULL: no AUTH */
        unsigned db;
        const char *client_name;
        bool keepalive;
        uint64_t connect_timeout_ns; /* for each address: connect and handshake */
};

enum handshake_step {
        HANDSHAKE_AUTH,
        HANDSHAKE_SELECT,
        HANDSHAKE_SETNAME,
        HANDSHAKE_ID,
        HANDSHAKE_PING,
        HANDSHAKE_STEPS
};

struct handshake {
        enum handshake_step steps[HANDSHAKE_STEPS];
        unsigned n, at;
        uint64_t client_id;
        enum lessor_trouble trouble;        /* likewise: what kind */
        char text[LESSOR_STATUS_TEXT_SIZE]; /* what went wrong */
};

/* The requests as RESP, malloc'd: they hold the password, wipe and free them. 0; -ENOMEM. */
int handshake_start(struct handshake *h, const struct upstream_target *target, char **ret_data, size_t *ret_size);

enum { HANDSHAKE_CONTINUE = -1 };
/*
 * HANDSHAKE_CONTINUE; LESSOR_OK: ready for use; else `text` says why: LESSOR_E_UPSTREAM; _CREDENTIALS: an operator must
 * mend it; _LOADING: it answers, and will be ready by itself; _EXHAUSTED: the server is at its maxclients.
 */
int handshake_reply(struct handshake *h, const redisReply *reply);

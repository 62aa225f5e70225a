/* SPDX-License-Identifier: MIT */
/*
 * What becomes of a connection that comes back: handed on, reset, or closed. The worker's word is evidence. Said clean, it
 * is believed as far as nothing is to be read; said resettable, the server itself must prove it, bit by bit (proof.h);
 * a lie costs its teller's pool a connection.
 *
 * A socket that has left the broker never carries credentials again: a database that has any is never reset.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "database_internal.h"
#include "log.h"

static bool may_reset(const struct database *db) {
        const struct config_database *c = db->o.config;
        return c->handover != CONFIG_HANDOVER_CLOSE && !c->username && !c->password;
}

enum pool_return handover_grade(struct database *db, const struct lessor_msg_return *msg) {
        bool even = msg->requests == msg->replies;
        if (msg->flags & LESSOR_RETURN_UNKNOWN)
                learn_wanted(db);
        if (even && msg->flags & LESSOR_RETURN_CLEAN)
                return POOL_RETURN_CLEAN;
        return even && msg->flags & LESSOR_RETURN_RESETTABLE && may_reset(db) ? POOL_RETURN_RESETTABLE
                                                                              : POOL_RETURN_DIRTY;
}

static void on_reset(void *userdata, const char *why) {
        struct connection *c = userdata;
        struct database *db = c->database;
        uint64_t now = clock_now();

        c->reset = NULL;
        if (!why && link_peek(&c->link) != LINK_QUIET)
                why = "bytes that nobody asked for";
        if (why) {
                log_debug("upstream: cannot be reset, replaced db=%s slot=%u reason=%s", name_of(db), c->conn->slot,
                          LOG_QUOTE(why));
                pool_reset_failed(&db->pool, c->conn, now);
        } else {
                pool_reset_done(&db->pool, c->conn, now);
        }
        database_pump(db, now);
}

void handover_reset(struct database *db, struct pool_conn *conn, uint64_t now) {
        struct connection *c = connection_of(db, conn);
        uint8_t nonce[PROOF_NONCE_SIZE];
        arc4random_buf(nonce, sizeof(nonce));
        if (reset_start(db->o.loop->base, c->link.fd, &db->target, c->client_id, nonce, on_reset, c, &c->reset) < 0)
                pool_reset_failed(&db->pool, conn, now);
}

void handover_cancel(struct connection *c) {
        reset_cancel(c->reset);
        c->reset = NULL;
}

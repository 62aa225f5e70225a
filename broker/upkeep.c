/* SPDX-License-Identifier: MIT */
/*
 * Idle connections are asked whether they still work. Only those that never left are: whoever once held one could answer
 * in Redis' place, or swallow the answer. Of the others it is looked at whether anything lies on them; their age is
 * bounded by idle_timeout and max_lifetime.
 *
 * What a worker reports moves nothing. It makes the pool look for itself, at most once a second.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "database_internal.h"
#include "log.h"

static void checked(struct database *db, struct pool_conn *conn, enum pool_check result, enum lessor_trouble trouble,
                    const char *text, uint64_t now) {
        if (result == POOL_CHECK_FAILED) {
                database_note_error(db, text);
                db->trouble = trouble;
                log_warning("health: a connection did not answer db=%s slot=%u error=%s", name_of(db), conn->slot,
                            LOG_QUOTE(text));
        }
        if (result == POOL_CHECK_ANSWERED && !db->pool.trouble)
                db->trouble = LESSOR_TROUBLE_NONE;
        if (result == POOL_CHECK_ANSWERED)
                db->counters.last_success_time = clock_wall();
        pool_checked(&db->pool, conn, result, now, arc4random());
}

static void learn_role(struct database *db, const struct pool_conn *conn, bool replica, uint64_t now) {
        if (!pool_role(&db->pool, conn, replica, now))
                return;
        db->ask_role = true;
        database_note_error(db, "the server is a replica now: its connections are replaced");
        log_warning("upstream: demoted db=%s endpoint=%s local=%s", name_of(db), db->endpoint,
                    connection_of(db, conn)->local);
}

static void on_checked(void *userdata, const struct check_result *result) {
        static const enum pool_check meaning[] = {[CHECK_ANSWERED] = POOL_CHECK_ANSWERED,
                                                  [CHECK_SILENT] = POOL_CHECK_FAILED,
                                                  [CHECK_WRONG] = POOL_CHECK_FAILED,
                                                  [CHECK_LOST] = POOL_CHECK_LOST};
        struct connection *c = userdata;
        struct database *db = c->database;
        uint64_t now = clock_now();
        c->check = NULL;
        if (result->outcome == CHECK_ANSWERED && result->asked)
                learn_role(db, c->conn, result->replica, now);
        checked(db, c->conn, meaning[result->outcome],
                result->outcome == CHECK_WRONG ? LESSOR_TROUBLE_NOT_REDIS : LESSOR_TROUBLE_SILENT, result->text, now);
        database_pump(db, now);
}

static void peek(struct database *db, struct connection *c, uint64_t now) {
        static const enum pool_check meaning[] = {
                [LINK_QUIET] = POOL_CHECK_QUIET, [LINK_STRAY] = POOL_CHECK_STRAY, [LINK_ENDED] = POOL_CHECK_LOST};
        checked(db, c->conn, meaning[link_peek(&c->link)], LESSOR_TROUBLE_NONE, "", now);
}

void upkeep_check(struct database *db, struct pool_conn *conn, uint64_t now) {
        struct connection *c = connection_of(db, conn);
        struct check_options options = {.base = db->o.loop->base,
                                        .fd = c->link.fd,
                                        .ask_role = db->ask_role || db->pool.replica,
                                        .timeout_ns = db->o.config->socket_connect_timeout_ns,
                                        .done = on_checked,
                                        .userdata = c};
        if (conn->left || link_peek(&c->link) != LINK_QUIET) {
                peek(db, c, now);
                return;
        }
        db->ask_role = false;
        arc4random_buf(options.nonce, sizeof(options.nonce));
        int r = check_start(&options, &c->check);
        if (r < 0)
                checked(db, conn, r == -ENOMEM ? POOL_CHECK_QUIET : POOL_CHECK_FAILED, LESSOR_TROUBLE_SILENT,
                        strerror(-r), now);
}

void upkeep_report(struct database *db, enum lessor_report kind) {
        uint64_t now = clock_now();
        if (!pool_suspect(&db->pool, now))
                return;
        db->ask_role = kind == LESSOR_REPORT_READONLY || kind == LESSOR_REPORT_MOVED;
        database_pump(db, now);
}

void upkeep_parked(struct database *db, struct connection *c, uint64_t now) {
        uint64_t since = c->place->since, idle_ns = db->pool.upkeep.limits.idle_ns;
        if ((!idle_ns || now - since <= idle_ns) && now < c->conn->retire_at)
                return;
        holders_recall(db, c->conn, now);
        if (c->conn->state == CONN_FREE)
                c->conn->idle_since = since;
}

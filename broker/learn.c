/* SPDX-License-Identifier: MIT */
/*
 * What commands leave behind is in a table of our own (libclient/base/command.h). A worker that used one it does not know
 * says so when it returns the connection, which is then replaced. That makes us ask the server itself, once: on the next
 * connection that is dialled, before anybody has touched it. Its list is published in the control page, and the next
 * lease of that command is clean. Who never uses such commands never pays for the list.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "database_internal.h"
#include "log.h"
#include "status/control_page.h"
#include "upstream/census.h"
#include "upstream/vocabulary.h"

struct lesson {
        struct connection *connection;
        struct census *census;
        struct dial_result result; /* of the dial, kept until the list has come; the fd is ours */
};

void learn_wanted(struct database *db) {
        if (db->learning == LEARN_NOTHING)
                db->learning = LEARN_WANTED;
}

static void take_list(struct database *db, const redisReply *reply) {
        char names[LESSOR_COMMANDS_SIZE];
        size_t size = 0;
        if (!vocabulary_derive(reply, names, sizeof(names), &size)) {
                log_info("upstream: its list of commands cannot be had, those not in ours are not trusted db=%s",
                         name_of(db));
                return;
        }
        log_debug("upstream: its list of commands was read db=%s bytes=%zu", name_of(db), size);
        if (size > 0)
                control_page_set_commands(db->o.page, db->o.index, names, size);
}

static void on_list(void *userdata, const redisReply *reply) {
        struct lesson *lesson = userdata;
        struct connection *c = lesson->connection;
        struct dial_result result = lesson->result;

        c->lesson = NULL;
        free(lesson);
        /* Also after a refusal: it would be no other the next time. */
        c->database->learning = LEARN_DONE;
        if (reply) {
                take_list(c->database, reply);
        } else {
                result.fd = fd_close(result.fd);
                result.outcome = LESSOR_E_UPSTREAM;
                result.trouble = LESSOR_TROUBLE_SILENT;
                snprintf(result.text, sizeof(result.text), "no answer to COMMAND");
        }
        dialling_done(c, &result);
}

bool learn_begin(struct connection *c, const struct dial_result *result) {
        struct database *db = c->database;
        struct lesson *lesson;
        if (db->learning != LEARN_WANTED || result->outcome != LESSOR_OK || !(lesson = calloc(1, sizeof(*lesson))))
                return false;
        lesson->connection = c;
        lesson->result = *result;
        if (census_start(db->o.loop->base, result->fd, &db->target, on_list, lesson, &lesson->census) < 0) {
                free(lesson);
                return false;
        }
        db->learning = LEARN_UNDERWAY;
        c->lesson = lesson;
        return true;
}

void learn_from(struct database *db, const redisReply *list) {
        if (db->learning == LEARN_UNDERWAY || db->learning == LEARN_DONE)
                return;
        take_list(db, list);
        db->learning = LEARN_DONE;
}

void learn_cancel(struct connection *c) {
        if (!c->lesson)
                return;
        census_cancel(c->lesson->census);
        fd_close(c->lesson->result.fd);
        free(c->lesson);
        c->lesson = NULL;
        c->database->learning = LEARN_WANTED;
}

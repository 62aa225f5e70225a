/* SPDX-License-Identifier: MIT */
#include "loops.h"

#include <signal.h>

bool loop_try_start(struct loop *loop, const struct loop_kind *kind, lessor *l) {
        signal(SIGPIPE, SIG_IGN); /* contexts are written to by hiredis */
        *loop = (struct loop){.kind = kind, .base = kind->make()};
        return loop->base && lessor_async_new(l, &loop->async) == 0 && kind->attach(loop->base, loop->async) == 0 &&
               lessor_async_database(loop->async, NULL, &loop->db) == 0;
}

void loop_start(struct loop *loop, const struct loop_kind *kind, lessor *l) {
        check_msg(loop_try_start(loop, kind, l), "no loop of %s", kind->name);
}

void loop_run(struct loop *loop) { loop->kind->run(loop->base); }

void loop_turn(struct loop *loop) { loop->kind->turn(loop->base); }

void loop_free_async(struct loop *loop) {
        lessor_async_free(loop->async);
        loop->async = NULL;
        loop->db = NULL;
}

void loop_end(struct loop *loop) {
        loop_free_async(loop);
        loop->kind->destroy(loop->base);
        loop->base = NULL;
}

static void answer_error(struct answers *a, const lessor_error *error) {
        a->errors++;
        a->ran += error->may_have_run;
        a->last = *error;
}

static void answer_reply(struct answers *a, const redisReply *reply) {
        if (reply->type == REDIS_REPLY_ERROR)
                a->refused++;
        else
                a->replies++;
}

void answer_command(lessor_async_db *db, redisReply *reply, const lessor_error *error, void *answers) {
        if (reply)
                answer_reply(answers, reply);
        else
                answer_error(answers, error);
}

static void answer_leased(redisAsyncContext *ac, void *reply, void *answers) {
        static const lessor_error lost = {.code = LESSOR_E_CONNECTION, .may_have_run = true};

        if (reply)
                answer_reply(answers, reply);
        else
                answer_error(answers, &lost);
        if (reply)
                lessor_async_release(ac);
}

void answer_lease(lessor_async_db *db, redisAsyncContext *ac, const lessor_error *error, void *answers) {
        if (!ac)
                answer_error(answers, error);
        else if (redisAsyncCommand(ac, answer_leased, answers, "INCR leased") != REDIS_OK)
                lessor_async_release(ac);
}

/* SPDX-License-Identifier: MIT */
/* What the three examples flood_*.c have in common: 10,000 commands under way at once, and what comes of them. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include <lessor.h>
#include <lessor/async.h>

enum { COMMANDS = 10000 };

struct flood {
        lessor *l;
        lessor_async *async;
        lessor_async_db *db;
        unsigned submitted, answered, failed, most;
};

static void flood_on(struct flood *f);

static void flood_reply(lessor_async_db *db, redisReply *reply, const lessor_error *error, void *data) {
        struct flood *f = data;

        (void)db;
        f->answered += reply && reply->type == REDIS_REPLY_INTEGER;
        f->failed += !reply;
        if (!reply)
                fprintf(stderr, "%s (may have run: %d)\n", error->text, error->may_have_run);
        flood_on(f);
}

/* Until all are submitted, or there is no more room: then on from a callback. */
static void flood_on(struct flood *f) {
        while (f->submitted < COMMANDS &&
               lessor_async_command(f->db, flood_reply, f, "INCR example:flood:%u", f->submitted % 100) == 0) {
                f->submitted++;
                if (lessor_async_in_flight(f->async) > f->most)
                        f->most = lessor_async_in_flight(f->async);
        }
}

static void flood_open(struct flood *f) {
        if (lessor_open(NULL, &f->l) != 0 || lessor_async_new(f->l, &f->async) != 0 ||
            lessor_async_database(f->async, NULL, &f->db) != 0) {
                fprintf(stderr, "out of memory\n");
                exit(1);
        }
}

static int flood_close(struct flood *f) {
        printf("%u answered, %u failed, at most %u under way\n", f->answered, f->failed, f->most);
        lessor_async_free(f->async);
        lessor_close(f->l);
        return f->answered == COMMANDS ? 0 : 1;
}

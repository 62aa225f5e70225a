/* SPDX-License-Identifier: MIT */
/*
 * Replies out of a lane. The broker has found where one ends; whether it is what hiredis understands is seen here, and
 * concerns that call alone: the lane goes on.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "lane.h"
#include "session.h"

int lane_parse(redisReader **reader, const char *data, size_t size, redisReply **ret) {
        void *reply = NULL;
        redisReader *r = *reader;
        int result = 0;

        if (!r)
                r = *reader = redisReaderCreate();
        if (!r)
                return -ENOMEM;
        if (redisReaderFeed(r, data, size) != REDIS_OK || redisReaderGetReply(r, &reply) != REDIS_OK)
                result = r->err == REDIS_ERR_OOM ? -ENOMEM : LESSOR_E_PROTOCOL;
        else if (!reply || r->pos != r->len || r->ridx != -1)
                result = LESSOR_E_PROTOCOL;
        if (result == 0) {
                *ret = reply;
                return 0;
        }
        if (reply)
                freeReplyObject(reply);
        redisReaderFree(r);
        *reader = NULL;
        return result;
}

/* Memory that can shrink under us would be SIGBUS. */
static int map_reply(int fd, uint64_t size, void **ret) {
        struct stat st;
        int seals = fcntl(fd, F_GET_SEALS);

        if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || size == 0 ||
            size > SIZE_MAX / 2 || (uint64_t)st.st_size < size)
                return LESSOR_E_PROTOCOL;
        *ret = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0);
        return *ret == MAP_FAILED ? -errno : 0;
}

int lane_parse_apart(int fd, uint64_t size, redisReply **ret) {
        redisReader *reader = NULL;
        void *map;
        int r = map_reply(fd, size, &map);

        fd_close(fd);
        if (r != 0)
                return r;
        r = lane_parse(&reader, map, (size_t)size, ret);
        munmap(map, (size_t)size);
        if (reader)
                redisReaderFree(reader);
        return r;
}

void lane_call_unfold(struct lane_call *call) {
        int r;

        if (call->outcome != 0 || call->apart_size == 0)
                return;
        r = call->apart_fd < 0 ? -EMFILE : lane_parse_apart(fd_steal(&call->apart_fd), call->apart_size, &call->reply);
        call->outcome = r;
        call->may_have_run = r != 0;
}

struct fetch {
        struct lane_client *lane;
        struct lane_call *call;
};

static bool is_fetched(struct session *s, void *data) {
        struct fetch *f = data;
        bool there;

        (void)s;
        lane_enter(f->lane);
        there = !f->call->fetching;
        pthread_mutex_unlock(&f->lane->lock);
        return there;
}

void lane_fetch(struct lane_client *l, struct lane_call *call, uint64_t deadline) {
        struct fetch f = {.lane = l, .call = call};

        session_read_until(l->session, is_fetched, &f, deadline);
        lane_enter(l);
        if (call->fetching) {
                lane_abandon(l, call);
                call->fetching = false;
                call->outcome = LESSOR_E_REPLY_TIMEOUT;
                call->may_have_run = true;
        }
        lane_leave(l);
}

/* SPDX-License-Identifier: MIT */
#include "lanes.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/futex.h"
#include "process.h"

static void close_all(int *fds, unsigned n) {
        while (n > 0)
                close(fds[--n]);
}

static void *map(int fd, size_t size, int protection) {
        void *memory = mmap(NULL, size, protection, MAP_SHARED, fd, 0);
        return memory == MAP_FAILED ? NULL : memory;
}

/* ATTACHED's fds: the control page, and the segment, of no use here. */
static bool attach(struct lanes *l) {
        struct lessor_msg_attach m = raw_attach_message(LESSOR_FEATURE_SEGMENT | LESSOR_FEATURE_LANES);
        int pidfd = raw_pidfd(getpid()), fds[RAW_FDS];
        union raw_message answer;
        unsigned n;

        if (pidfd < 0 || raw_send(l->socket, &m, sizeof(m), &pidfd, 1) < 0)
                return false;
        close(pidfd);
        bool good = raw_receive(l->socket, &answer, fds, &n) > 0 && answer.header.type == LESSOR_MSG_ATTACHED &&
                    n == 2 && answer.attached.features & LESSOR_FEATURE_LANES;
        if (good) {
                l->control_size = answer.attached.control_size;
                l->control = map(fds[0], l->control_size, PROT_READ);
        }
        close_all(fds, n);
        return good && l->control;
}

static const struct lessor_control *control(const struct lanes *l) { return (const void *)l->control; }

static bool open_lane(struct lanes *l) {
        struct lessor_msg_lane m = {.header = {.type = LESSOR_MSG_LANE, .size = sizeof(m), .request = 7}};
        union raw_message answer;
        int fds[RAW_FDS];
        unsigned n;

        m.thread = l->thread = control(l)->database[l->database].thread;
        if (raw_say(l->socket, &m) < 0 || raw_receive(l->socket, &answer, fds, &n) <= 0)
                return false;
        if (answer.header.type != LESSOR_MSG_LANE_OPENED || n != 2) {
                close_all(fds, n);
                return false;
        }
        l->size = answer.lane_opened.size;
        l->memory = map(fds[0], l->size, PROT_READ | PROT_WRITE);
        l->doorbell = fds[1];
        close(fds[0]);
        return l->memory && lane_worker_init(&l->worker, l->memory, l->size);
}

bool lanes_attach(struct lanes *l, const char *path, const char *database) {
        *l = (struct lanes){.socket = raw_connect(path), .doorbell = -1};
        if (l->socket < 0 || !attach(l))
                return false;
        int number = raw_lookup(l->socket, database);
        l->database = (uint32_t)number;
        return number >= 0 && open_lane(l);
}

void lanes_detach(struct lanes *l) {
        if (l->memory)
                munmap(l->memory, l->size);
        if (l->control)
                munmap((void *)(uintptr_t)l->control, l->control_size);
        if (l->doorbell >= 0)
                close(l->doorbell);
        if (l->socket >= 0)
                close(l->socket);
}

void lanes_ring(const struct lanes *l) {
        uint64_t one = 1;
        while (write(l->doorbell, &one, sizeof(one)) < 0 && errno == EINTR)
                ;
}

static bool must_ring(const struct lanes *l) {
        const struct lessor_control_bell *bells = (const void *)(l->control + control(l)->bells_offset);
        const void *armed = &bells[l->thread].armed;
        return lane_bells(armed, &l->worker.map->quiet) != 0;
}

enum lane_submit lanes_submit(struct lanes *l, uint64_t tag, const char *data, size_t size) {
        struct lane_request request = {.tag = tag,
                                       .deadline_ns = clock_now() + 10 * RAW_MS * NS_PER_MS,
                                       .database = l->database,
                                       .length = (uint32_t)size,
                                       .flags = l->flags};
        uint64_t position;
        enum lane_submit r = lane_submit(&l->worker, &request, data, &position);
        if (r == LANE_SUBMIT_DONE && must_ring(l))
                lanes_ring(l);
        return r;
}

enum lane_submit lanes_say(struct lanes *l, uint64_t tag, const char *command) {
        char words[512], request[1024], *rest = words, *word;
        size_t n = 0, count = 1;

        snprintf(words, sizeof(words), "%s", command);
        for (const char *at = command; (at = strchr(at, ' ')); at++)
                count++;
        n += (size_t)snprintf(request, sizeof(request), "*%zu\r\n", count);
        while ((word = strsep(&rest, " ")))
                n += (size_t)snprintf(request + n, sizeof(request) - n, "$%zu\r\n%s\r\n", strlen(word), word);
        return lanes_submit(l, tag, request, n);
}

bool lanes_reap(struct lanes *l, struct lane_answer *ret) {
        uint64_t deadline = deadline_in(RAW_MS);
        enum lane_reap r;
        uint32_t value;

        while ((r = lane_reap(&l->worker, ret)) == LANE_REAP_NOTHING && clock_now() < deadline) {
                if (!lane_wait(&l->worker, LANE_WAITING_FUTEX, &value))
                        continue;
                futex_wait(lane_futex(&l->worker), value, 100 * NS_PER_MS);
                lane_awake(&l->worker);
        }
        return r == LANE_REAP_DONE;
}

bool lanes_expect(struct lanes *l, uint64_t tag, const char *reply) {
        struct lane_answer answer;

        if (!lanes_reap(l, &answer))
                return false;
        bool good = answer.tag == tag && answer.outcome == 0 && answer.length == strlen(reply) &&
                    memcmp(answer.data, reply, answer.length) == 0;
        if (!good)
                fprintf(stderr, "tag %llu: outcome %d, `%.*s`\n", (unsigned long long)answer.tag, answer.outcome,
                        (int)answer.length, answer.data);
        if (lane_release(&l->worker))
                lanes_ring(l);
        return good;
}

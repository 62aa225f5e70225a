/* SPDX-License-Identifier: MIT */
#include "client/lanes.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fdpass.h"
#include "base/futex.h"
#include "base/resp.h"
#include "support/check.h"

enum { PATIENCE_MS = 10000 };

void fake_advise(struct fake *f, enum lessor_path path) {
        for (unsigned i = 0; i < 3; i++)
                __atomic_store_n(&f->control->database[i].path, path, __ATOMIC_RELAXED);
}

void fake_offer_lanes(struct fake *f) {
        f->attached.features |= LESSOR_FEATURE_LANES;
        f->control->bells_offset = offsetof(struct lessor_control, bells);
        f->control->database[2].thread = 1;
        fake_advise(f, LESSOR_PATH_LANE);
}

static void *lane_memory(size_t size, int *ret_fd) {
        int fd = memfd_create("lane", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        void *map;

        check(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
        map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        check(map != MAP_FAILED);
        check(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
        *ret_fd = fd;
        return map;
}

static void lane_init(struct fake *f, struct fake_lane *lane, uint32_t thread, const struct lane_geometry *geometry) {
        memset(lane, 0, offsetof(struct fake_lane, data));
        lane->f = f;
        lane->thread = thread;
        lane->size = lane_size(geometry);
        lane->memory = lane_memory(lane->size, &lane->memory_fd);
        lane->doorbell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        lane->bell = (lessor_atomic32 *)&f->control->bells[thread].armed;
        lane_broker_init(&lane->broker, lane->memory, geometry);
}

static bool lane_answer(struct fake_lane *lane, uint64_t request) {
        union wire_message m;

        wire_init(&m, LESSOR_MSG_LANE_OPENED, request);
        m.lane_opened.thread = lane->thread;
        m.lane_opened.size = lane->size;
        return fake_send(lane->f, &m, m.header.size, (int[]){lane->memory_fd, lane->doorbell}, 2);
}

bool fake_lane_open_with(struct fake *f, struct fake_lane *lane, const struct lane_geometry *geometry) {
        union wire_message m;

        if (!fake_receive(f, LESSOR_MSG_LANE, &m))
                return false;
        lane_init(f, lane, m.lane.thread, geometry);
        return lane_answer(lane, m.header.request);
}

bool fake_lane_open(struct fake *f, struct fake_lane *lane) {
        return fake_lane_open_with(
                f, lane, &(struct lane_geometry){.entries = 64, .requests_size = 65536, .replies_size = 65536});
}

void fake_lane_close(struct fake_lane *lane) {
        munmap(lane->memory, lane->size);
        close(lane->memory_fd);
        close(lane->doorbell);
}

static lessor_atomic32 *lane_bell(struct fake_lane *lane) {
        return lane->quiet ? &lane->broker.map->quiet : lane->bell;
}

static bool lane_sleep(struct fake_lane *lane) {
        struct pollfd p = {.fd = lane->doorbell, .events = POLLIN};
        uint64_t n;

        lane_arm(lane_bell(lane), ++lane->armed);
        if (!lane_has_submission(&lane->broker)) {
                if (poll(&p, 1, PATIENCE_MS) != 1 || read(lane->doorbell, &n, sizeof(n)) != sizeof(n))
                        return false;
                lane->rings++;
        }
        lane_disarm(lane_bell(lane));
        return true;
}

bool fake_lane_take(struct fake_lane *lane) {
        for (;;) {
                switch (lane_take(&lane->broker, lane->data, sizeof(lane->data) - 1, &lane->request)) {
                case LANE_TAKE_DONE:
                        lane->data[lane->request.length] = 0;
                        return true;
                case LANE_TAKE_SKIPPED:
                        break;
                case LANE_TAKE_NOTHING:
                        if (!lane_sleep(lane))
                                return false;
                        break;
                case LANE_TAKE_NO_ROOM:
                case LANE_TAKE_BAD:
                        return false;
                }
        }
}

bool fake_lane_take_command(struct fake_lane *lane, const char *command) {
        bool good = fake_lane_take(lane) && strcmp(lane->data, command) == 0;
        if (!good)
                fprintf(stderr, "taken: %s, expected: %s\n", lane->data, command);
        return good;
}

bool fake_lane_has(struct fake_lane *lane) { return lane_has_submission(&lane->broker); }

bool fake_lane_wake(struct fake_lane *lane) {
        union wire_message m;

        switch (lane_wake(&lane->broker)) {
        case LANE_WAITING_NOT:
                return true;
        case LANE_WAITING_FUTEX:
                futex_wake(&lane->broker.map->done);
                return true;
        case LANE_WAITING_MESSAGE:
                wire_init(&m, LESSOR_MSG_LANE_WAKE, 0);
                m.lane_wake.thread = lane->thread;
                return fake_send(lane->f, &m, m.header.size, NULL, 0);
        }
        return false;
}

bool fake_lane_complete(struct fake_lane *lane, const struct lane_answer *answer) {
        struct pollfd p = {.fd = lane->doorbell, .events = POLLIN};
        uint64_t n;
        enum lane_complete r = lane_complete(&lane->broker, answer);

        while (r == LANE_COMPLETE_STARVED) {
                fake_lane_wake(lane);
                if (poll(&p, 1, PATIENCE_MS) != 1 || read(lane->doorbell, &n, sizeof(n)) != sizeof(n))
                        return false;
                r = lane_complete(&lane->broker, answer);
        }
        return r == LANE_COMPLETE_DONE;
}

bool fake_lane_refuse(struct fake_lane *lane, uint64_t tag, int outcome, uint32_t flags, const char *text) {
        struct lane_answer a = {
                .tag = tag, .outcome = outcome, .flags = flags, .data = text, .length = text ? strlen(text) : 0};
        return fake_lane_complete(lane, &a) && fake_lane_wake(lane);
}

bool fake_lane_reply(struct fake_lane *lane, uint64_t tag, const char *reply) {
        return fake_lane_refuse(lane, tag, 0, 0, reply);
}

bool fake_lane_send_apart(struct fake_lane *lane, uint64_t tag, const char *reply, size_t size) {
        union wire_message m;
        bool sent;
        int fd;
        void *map = lane_memory(size, &fd);

        memcpy(map, reply, size);
        munmap(map, size);
        wire_init(&m, LESSOR_MSG_LANE_REPLY, 0);
        m.lane_reply.thread = lane->thread;
        m.lane_reply.tag = tag;
        m.lane_reply.size = size;
        sent = fake_send(lane->f, &m, m.header.size, &fd, 1);
        close(fd);
        return sent;
}

bool fake_lane_complete_apart(struct fake_lane *lane, uint64_t tag) {
        return fake_lane_refuse(lane, tag, 0, LANE_REPLY_APART, NULL);
}

/* ---- a broker that serves ---------------------------------------------------------------------------------------- */

/* `*2 $4 ECHO $n text`: the last argument is what the reply is. */
static bool serve_one(struct fake_lane *lane) {
        const char *last = strrchr(lane->data, '$');
        return last &&
               fake_lane_complete(
                       lane, &(struct lane_answer){.tag = lane->request.tag, .data = last, .length = strlen(last)});
}

/* Everything that is there, answered with one wake-up. False: something is wrong. */
static bool serve_all(struct fake_lane *lane, bool *ret_any) {
        for (*ret_any = false;; *ret_any = true) {
                enum lane_take t = lane_take(&lane->broker, lane->data, sizeof(lane->data) - 1, &lane->request);
                if (t == LANE_TAKE_NOTHING)
                        return fake_lane_wake(lane);
                if (t == LANE_TAKE_SKIPPED)
                        continue;
                if (t != LANE_TAKE_DONE)
                        return false;
                lane->data[lane->request.length] = 0;
                if (!serve_one(lane))
                        return false;
        }
}

static struct fake_lane *serve_lane(struct fake *f, struct fake_lane *lanes[2]) {
        struct fake_lane *lane = malloc(sizeof(*lane));
        bool good = lane && fake_lane_open(f, lane);
        if (lane)
                lanes[lane->thread] = lane;
        return good ? lane : NULL;
}

/* One session. True: it is over; false: quit, or a failure. */
static bool serve_session(struct fake *f, struct fake_lane *lanes[2]) {
        for (;;) {
                struct pollfd p[4] = {{.fd = f->quit, .events = POLLIN}, {.fd = f->session, .events = POLLIN}};
                bool any = false, one;
                char c;
                for (unsigned i = 0; i < 2; i++) {
                        p[2 + i] = (struct pollfd){.fd = lanes[i] ? lanes[i]->doorbell : -1, .events = POLLIN};
                        if (!lanes[i])
                                continue;
                        lane_arm(lanes[i]->bell, ++lanes[i]->armed);
                        if (!serve_all(lanes[i], &one))
                                return fake_fail(f, __FILE__, __LINE__, "a lane is bad"), false;
                        any = any || one;
                }
                if (poll(p, 4, any ? 0 : -1) < 0)
                        return false;
                for (unsigned i = 0; i < 2; i++)
                        if (lanes[i] && p[2 + i].revents)
                                (void)!read(lanes[i]->doorbell, &(uint64_t){0}, sizeof(uint64_t));
                if (p[1].revents && recv(f->session, &c, 1, MSG_PEEK | MSG_DONTWAIT) <= 0)
                        return true;
                if (p[1].revents && !serve_lane(f, lanes))
                        return fake_fail(f, __FILE__, __LINE__, "neither a lane asked for nor the end"), false;
                if (p[0].revents)
                        return false;
        }
}

void fake_lane_serve(struct fake *f, void *unused) {
        bool more = true;

        while (more) {
                struct pollfd p[2] = {{.fd = f->quit, .events = POLLIN}, {.fd = f->listener, .events = POLLIN}};
                struct fake_lane *lanes[2] = {NULL, NULL};
                if (poll(p, 2, -1) < 0 || !p[1].revents || !fake_attach(f))
                        return;
                f->sessions++;
                more = serve_session(f, lanes);
                for (unsigned i = 0; i < 2; i++) {
                        if (lanes[i])
                                fake_lane_close(lanes[i]);
                        free(lanes[i]);
                }
        }
}

/* SPDX-License-Identifier: MIT */
#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

struct status_segment {
        int fd;
        char path[LESSOR_NAME_SIZE + 16];
        struct lessor_status_header header; /* as written */
        struct lessor_status_database *databases;
        struct lessor_status_connection *connections;
        struct lessor_status_lane *lanes;
};

/* Between two pwrites: other CPUs see the first before the second. ThreadSanitizer knows no fences; gcc says so. */
static void fence(void) {
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wtsan"
#endif
        atomic_thread_fence(memory_order_seq_cst);
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
}

static int write_at(int fd, const void *data, size_t size, size_t offset) {
        const char *at = data;
        while (size > 0) {
                ssize_t n = pwrite(fd, at, size, (off_t)offset);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                at += n;
                offset += (size_t)n;
                size -= (size_t)n;
        }
        return 0;
}

/* Clears the way for a new segment: a dead broker's own file goes, anything else is refused. */
static int clear_name(const char *path) {
        struct stat st;
        _cleanup_(fd_closep) int fd = shm_open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0);
        if (fd < 0)
                return errno == ENOENT ? 0 : errno == ELOOP || errno == EACCES ? -EEXIST : -errno;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode) || st.st_uid != geteuid())
                return -EEXIST;
        return shm_unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

static void lay_out(struct lessor_status_header *h, const struct status_shape *shape) {
        h->version = LESSOR_STATUS_VERSION;
        h->header_size = sizeof(*h);
        h->database_offset = (uint32_t)round_up(sizeof(*h), 64);
        h->database_size = (uint32_t)round_up(sizeof(struct lessor_status_database), 64);
        h->database_capacity = shape->databases;
        h->connection_offset = (uint32_t)round_up(h->database_offset + (size_t)h->database_size * shape->databases, 64);
        h->connection_size = (uint32_t)round_up(sizeof(struct lessor_status_connection), 64);
        h->connection_capacity = shape->connections;
        h->lane_offset = (uint32_t)round_up(h->connection_offset + (size_t)h->connection_size * shape->connections, 64);
        h->lane_size = (uint32_t)round_up(sizeof(struct lessor_status_lane), 64);
        h->lane_capacity = shape->lanes;
        h->segment_size = round_up(h->lane_offset + (size_t)h->lane_size * shape->lanes, 4096);
        h->instance = shape->generation;
        h->start_time = shape->start_time;
        h->broker_pid = (int32_t)getpid();
        snprintf(h->name, sizeof(h->name), "%s", shape->instance);
        snprintf(h->release, sizeof(h->release), "%s", shape->release);
}

static int create(struct status_segment *s) {
        uint64_t magic = LESSOR_STATUS_MAGIC;
        s->fd = shm_open(s->path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (s->fd < 0)
                return -errno;
        /* All of it now: a full /dev/shm is refused here instead of surprising a reader later. */
        int r = -posix_fallocate(s->fd, 0, (off_t)s->header.segment_size);
        if (r == 0)
                r = write_at(s->fd, &s->header, sizeof(s->header), 0);
        /* Pairs with the acquire load of magic in lessor_status_open(): the layout is complete before it shows. */
        fence();
        if (r == 0)
                r = write_at(s->fd, &magic, sizeof(magic), offsetof(struct lessor_status_header, magic));
        if (r == 0 && fchmod(s->fd, 0644) < 0)
                r = -errno;
        return r;
}

int status_segment_new(const struct status_shape *shape, struct status_segment **ret) {
        struct status_segment *s = calloc(1, sizeof(*s));
        if (!s)
                return -ENOMEM;
        s->fd = -1;
        snprintf(s->path, sizeof(s->path), "/lessor.%s", shape->instance);
        lay_out(&s->header, shape);
        s->databases = calloc(shape->databases, sizeof(*s->databases));
        s->connections = calloc(shape->connections, sizeof(*s->connections));
        s->lanes = calloc(shape->lanes, sizeof(*s->lanes));
        int r = s->databases && s->connections && s->lanes ? clear_name(s->path) : -ENOMEM;
        if (r == 0)
                r = create(s);
        if (r < 0) {
                status_segment_free(s);
                return r;
        }
        *ret = s;
        return 0;
}

void status_segment_free(struct status_segment *s) {
        if (!s)
                return;
        if (s->fd >= 0)
                (void)shm_unlink(s->path);
        fd_close(s->fd);
        free(s->databases);
        free(s->connections);
        free(s->lanes);
        free(s);
}

/*
 * One record under its sequence number. The fences order the writes as other CPUs see them, and pair with the acquire
 * load and fence in lessor_status_copy().
 */
static int write_record(struct status_segment *s, size_t offset, void *shadow, const void *record, size_t size) {
        uint64_t sequence = *(uint64_t *)shadow;
        const size_t head = sizeof(sequence);
        if (memcmp((char *)shadow + head, (const char *)record + head, size - head) == 0 && sequence)
                return 0;
        sequence |= 1;
        int r = write_at(s->fd, &sequence, sizeof(sequence), offset);
        fence();
        if (r == 0)
                r = write_at(s->fd, (const char *)record + head, size - head, offset + head);
        fence();
        if (r < 0)
                return r;
        memcpy((char *)shadow + head, (const char *)record + head, size - head);
        sequence++;
        r = write_at(s->fd, &sequence, sizeof(sequence), offset);
        *(uint64_t *)shadow = sequence;
        return r;
}

int status_segment_write_database(struct status_segment *s, unsigned index,
                                  const struct lessor_status_database *record) {
        if (index >= s->header.database_capacity)
                return -ENOSPC;
        return write_record(s, s->header.database_offset + (size_t)index * s->header.database_size,
                            &s->databases[index], record, sizeof(*record));
}

int status_segment_write_connection(struct status_segment *s, unsigned index,
                                    const struct lessor_status_connection *record) {
        if (index >= s->header.connection_capacity)
                return -ENOSPC;
        return write_record(s, s->header.connection_offset + (size_t)index * s->header.connection_size,
                            &s->connections[index], record, sizeof(*record));
}

int status_segment_write_lane(struct status_segment *s, unsigned index, const struct lessor_status_lane *record) {
        if (index >= s->header.lane_capacity)
                return -ENOSPC;
        return write_record(s, s->header.lane_offset + (size_t)index * s->header.lane_size, &s->lanes[index], record,
                            sizeof(*record));
}

int status_segment_write_live(struct status_segment *s, const struct status_live *live) {
        const uint64_t words[] = {live->heartbeat, live->databases,      live->connections,
                                  live->sessions,  live->sessions_total, live->sessions_refused,
                                  live->reloads,   live->reloads_failed};
        _Static_assert(offsetof(struct lessor_status_header, reloads_failed) + sizeof(uint64_t) -
                                       offsetof(struct lessor_status_header, heartbeat) ==
                               sizeof(words),
                       "the live words stand together");
        return write_at(s->fd, words, sizeof(words), offsetof(struct lessor_status_header, heartbeat));
}

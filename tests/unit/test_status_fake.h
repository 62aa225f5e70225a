/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A status segment without a broker: written as the broker writes it (a pwrite of the odd sequence number, of the body,
 * of the even one), under an instance name of its own. The owner calls fake_remove().
 */
#include <lessor/status.h>

#include <inttypes.h>

#include "support/check.h"

enum { FAKE_DATABASES = 8, FAKE_CONNECTIONS = 32, FAKE_LANES = 4 };

struct fake {
        int fd;
        char instance[48], path[64];
        struct lessor_status_header header; /* what fake_header() writes */
};

static inline void fake_put(const struct fake *f, const void *data, size_t size, uint64_t at) {
        check(pwrite(f->fd, data, size, (off_t)at) == (ssize_t)size);
}

/* Everything but the magic first, as a broker does. */
static inline void fake_header(const struct fake *f) {
        fake_put(f, (const char *)&f->header + 8, sizeof(f->header) - 8, 8);
        fake_put(f, &f->header.magic, 8, 0);
}

static inline void fake_beat(struct fake *f, uint64_t age_ns) {
        f->header.heartbeat = lessor_status_now_ns() - age_ns;
        fake_header(f);
}

/* record[0] is the sequence number; even in the end, as it must be in the beginning. */
static inline void fake_record(const struct fake *f, uint64_t at, uint64_t *record, size_t size) {
        record[0]++;
        fake_put(f, record, 8, at);
        fake_put(f, record + 1, size - 8, at + 8);
        record[0]++;
        fake_put(f, record, 8, at);
}

static inline void fake_database(const struct fake *f, unsigned index, struct lessor_status_database *d) {
        fake_record(f, f->header.database_offset + (uint64_t)index * f->header.database_size, &d->sequence, sizeof(*d));
}

static inline void fake_connection(const struct fake *f, unsigned index, struct lessor_status_connection *c) {
        fake_record(f, f->header.connection_offset + (uint64_t)index * f->header.connection_size, &c->sequence,
                    sizeof(*c));
}

static inline void fake_lane(const struct fake *f, unsigned index, struct lessor_status_lane *l) {
        fake_record(f, f->header.lane_offset + (uint64_t)index * f->header.lane_size, &l->sequence, sizeof(*l));
}

/* Strides larger than the structs, as a newer broker's: nobody may step by sizeof. */
static inline void fake_make(struct fake *f) {
        struct lessor_status_header *h = &f->header;
        struct timespec wall;

        *f = (struct fake){.fd = -1};
        snprintf(f->instance, sizeof(f->instance), "test-%d-%" PRIx64, (int)getpid(), lessor_status_now_ns());
        snprintf(f->path, sizeof(f->path), "/lessor.%s", f->instance);
        f->fd = shm_open(f->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        check(f->fd >= 0);
        clock_gettime(CLOCK_REALTIME, &wall);
        h->magic = LESSOR_STATUS_MAGIC;
        h->version = LESSOR_STATUS_VERSION;
        h->header_size = sizeof(*h) + 64;
        h->database_offset = 4096;
        h->database_size = sizeof(struct lessor_status_database) + 64;
        h->database_capacity = FAKE_DATABASES;
        h->connection_offset = h->database_offset + h->database_size * h->database_capacity;
        h->connection_size = sizeof(struct lessor_status_connection) + 8;
        h->connection_capacity = FAKE_CONNECTIONS;
        h->lane_offset = h->connection_offset + h->connection_size * h->connection_capacity;
        h->lane_size = sizeof(struct lessor_status_lane) + 16;
        h->lane_capacity = FAKE_LANES;
        h->segment_size = h->lane_offset + h->lane_size * h->lane_capacity;
        h->instance = 7;
        h->start_time = (uint64_t)(wall.tv_sec - 60) * 1000000000U;
        h->broker_pid = getpid();
        h->heartbeat = lessor_status_now_ns();
        snprintf(h->name, sizeof(h->name), "%s", f->instance);
        snprintf(h->release, sizeof(h->release), "9.9.9");
        check(ftruncate(f->fd, (off_t)h->segment_size) == 0);
        fake_header(f);
}

static inline void fake_remove(struct fake *f) {
        close(f->fd);
        shm_unlink(f->path);
}

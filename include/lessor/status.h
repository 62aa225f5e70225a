/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Reading the state of every pool from shared memory, without asking the broker. Header-only; needs nothing but libc.
 *
 *      struct lessor_status status;
 *      struct lessor_status_database db;
 *      if (lessor_status_open(NULL, &status) == 0) {
 *              for (unsigned i = 0; i < lessor_status_databases(&status); i++)
 *                      if (lessor_status_read_database(&status, i, LESSOR_STATUS_ALL, &db) == 0)
 *                              printf("%s: %" PRIu64 " in use\n", db.name, db.in_use_connections);
 *              lessor_status_close(&status);
 *      }
 *
 * THE SEGMENT `/lessor.<instance>` (shm_open(3); mode 0644) holds, at the offsets its header names: the header, one
 * record per database, one record per connection slot, and a bounded number of records of sessions with commands under
 * way in lanes. Everything is in the machine's own byte order; the header's
 * magic is written last. Each record starts with a sequence number: odd while the broker writes it. To read one: load
 * the sequence (acquire); if odd, try again; copy the record; fence (acquire); load the sequence again (relaxed); if it
 * changed, try again. Readers never wait and never disturb the writer: after a bounded number of tries they say
 * -EAGAIN.
 *
 * Strides may be larger than these structs: step by the header's, not by sizeof. A broker with another layout version
 * is refused. Strings are NUL-terminated by a sound broker; those of connections (holder, site) and lanes
 * (holder) come from workers: do not send them to a terminal unfiltered.
 *
 * IS IT FRESH? lessor_status_stale(): a heartbeat older than LESSOR_STATUS_STALE_NS means that the broker is dead or
 * hung. A new broker makes a new segment under the same name: open again (lessor_status_replaced() tells).
 *
 * Threads: a struct lessor_status may be read by any number of threads. Fork: stays valid in the child.
 * Compile with POSIX.1-2008 visible: -std=gnu17, or _POSIX_C_SOURCE=200809L or _GNU_SOURCE with -std=c17; C++ has it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <lessor/protocol.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LESSOR_STATUS_MAGIC UINT64_C(0x4c4553534f525354) /* "LESSORST" as a big-endian number */
#define LESSOR_STATUS_VERSION 5U
#define LESSOR_STATUS_STALE_NS UINT64_C(3000000000)
#define LESSOR_STATUS_TEXT_SIZE 192U

/*
 * Histograms of durations have LESSOR_CALL_BUCKETS buckets, log-linear: four to each power of two, from 1024 ns to
 * 206 s. Bucket 0 counts what is below 1024 ns; bucket 1 + 4 * e + m, for e in 0..27 and m in 0..3 (0..1 where e is
 * 27), what is below (5 + m) << (8 + e) ns and not in a bucket before; the last bucket takes all that is longer.
 */
static inline uint64_t lessor_status_bucket_below_ns(unsigned bucket) {
        if (bucket == 0)
                return UINT64_C(1) << 10;
        if (bucket >= LESSOR_CALL_BUCKETS - 1)
                return UINT64_MAX;
        return (uint64_t)(5 + (bucket - 1) % 4) << (8 + (bucket - 1) / 4);
}

struct lessor_status_histogram {
        uint64_t count;
        uint64_t sum_ns;
        uint64_t max_ns;
        uint64_t bucket[LESSOR_CALL_BUCKETS];
};

enum lessor_health {
        LESSOR_HEALTH_UNUSED = 0,
        LESSOR_HEALTH_HEALTHY = 1,
        LESSOR_HEALTH_DEGRADED = 2,
        LESSOR_HEALTH_FAILED = 3,
};

enum lessor_paused {
        LESSOR_PAUSED_NOT = 0,
        LESSOR_PAUSED_PAUSED = 1,
        LESSOR_PAUSED_DRAINING = 2, /* some of its connections are still leased */
        LESSOR_PAUSED_DRAINED = 3,
};

/*
 * What stands between a pool and its server, as a number for programs: the field `trouble`. X(NAME, number, word, help);
 * numbers are never used again for something else.
 */
#define LESSOR_TROUBLES(X)                                                                                             \
        X(NONE, 0, "none", "nothing")                                                                                  \
        X(UNREACHABLE, 1, "unreachable", "no connection: refused, no such name or socket, or not within the time")     \
        X(SILENT, 2, "silent", "it accepts connections, but does not answer in time, or ends them")                    \
        X(NOT_REDIS, 3, "not-redis", "what it answers is no reply of a Redis")                                         \
        X(LOADING, 4, "loading", "Redis is loading its data")                                                          \
        X(BUSY, 5, "busy", "Redis is running a script and answers nothing else")                                       \
        X(MAXCLIENTS, 6, "maxclients", "Redis has as many clients as it takes")                                        \
        X(PROTECTED_MODE, 7, "protected-mode", "Redis is in protected mode and takes no client from here")             \
        X(NOAUTH, 8, "noauth", "Redis wants a password, none is configured")                                           \
        X(WRONGPASS, 9, "wrongpass", "Redis refuses the configured user or password")                                  \
        X(NOPERM, 10, "noperm", "the configured user may not do what is needed")                                       \
        X(WRONG_DB, 11, "wrong-db", "Redis has no database of the configured number")                                  \
        X(REFUSED, 12, "refused", "another error in answer to the handshake")                                          \
        X(BROKER, 13, "broker", "the broker itself is out of fds or memory")

enum lessor_trouble {
#define X(name, number, word, help) LESSOR_TROUBLE_##name = number,
        LESSOR_TROUBLES(X)
#undef X
};

/* "wrongpass"; "unknown" for a number of a later version. */
static inline const char *lessor_trouble_word(uint64_t trouble) {
        switch (trouble) {
#define X(name, number, word, help)                                                                                    \
        case number:                                                                                                   \
                return word;
                LESSOR_TROUBLES(X)
#undef X
        default:
                return "unknown";
        }
}

struct lessor_status_database {
        uint64_t sequence;
        char name[LESSOR_NAME_SIZE];              /* empty: removed by a reload, nothing to see */
        char endpoint[LESSOR_STATUS_TEXT_SIZE];   /* "127.0.0.1:6379/0", "unix:/run/redis.sock/3" */
        char reason[LESSOR_STATUS_TEXT_SIZE];     /* why it is degraded or failed; empty when it is neither */
        char last_error[LESSOR_STATUS_TEXT_SIZE]; /* the last trouble with this upstream */
#define LESSOR_STATUS_FIELD(name, kind, unit, help) uint64_t name;
#include <lessor/status_fields.h>
#define LESSOR_STATUS_HISTOGRAM(name, help) struct lessor_status_histogram name;
#include <lessor/status_fields.h>
};

enum lessor_connection_state {
        LESSOR_CONNECTION_VACANT = 0,    /* a place of the cap that is not used */
        LESSOR_CONNECTION_DIALLING = 1,  /* being established */
        LESSOR_CONNECTION_FREE = 2,      /* ready to be leased */
        LESSOR_CONNECTION_LEASED = 3,    /* held by a worker */
        LESSOR_CONNECTION_RESETTING = 4, /* being cleaned */
        LESSOR_CONNECTION_CLOSING = 5,   /* closed here, Redis has not confirmed yet: still counts against the cap */
        LESSOR_CONNECTION_CHECKING = 6,  /* idle, and being asked whether it still works */
        LESSOR_CONNECTION_LANE = 7,      /* the broker's own, for the commands of all lanes */
        LESSOR_CONNECTION_PARKED = 8,    /* leased, and not in use: its worker retakes it, or the broker recalls it */
};

struct lessor_status_connection {
        uint64_t sequence;
        uint32_t database; /* index of its record */
        uint32_t slot;
        uint32_t state; /* enum lessor_connection_state */
        uint32_t holder_uid;
        uint64_t generation; /* +1 whenever the socket is replaced */
        uint64_t since_ns;   /* CLOCK_MONOTONIC: when it came into this state */
        uint64_t client_id;  /* Redis' CLIENT ID, as in SLOWLOG and CLIENT LIST */
        uint64_t session;    /* the holder's, while leased; likewise all below */
        uint64_t lease;
        int32_t holder_pid;
        int32_t holder_tid;
        char holder[LESSOR_NAME_SIZE]; /* command name */
        char site[LESSOR_SITE_SIZE];   /* "file.c:123" */
        char local[LESSOR_NAME_SIZE];  /* the connection's own address, as Redis sees it: "127.0.0.1:40112" */
};

#define LESSOR_STATUS_NO_SLOT UINT32_C(0xffffffff)

/*
 * A session's commands under way in one database's lane: taken from the lane, and not answered. Each data thread has as many
 * of these records as every other, one after the other; in them stand those that are under way longest, the oldest first. How many
 * there are in all, shown here or not, is told by `lane_sessions` of the databases.
 */
struct lessor_status_lane {
        uint64_t sequence;
        uint32_t database; /* index of its record */
        uint32_t slot;     /* the connection that carries what is sent, or LESSOR_STATUS_NO_SLOT */
        uint64_t session;  /* 0: this record is not in use */
        uint64_t since_ns; /* CLOCK_MONOTONIC: when the oldest of them was sent, or taken from the lane if it waits */
        uint32_t sent;     /* commands sent to Redis */
        uint32_t queued;   /* commands that could not be sent yet */
        int32_t holder_pid;
        uint32_t holder_uid;
        char holder[LESSOR_NAME_SIZE]; /* command name */
};

struct lessor_status_header {
        uint64_t magic; /* written last */
        uint32_t version;
        uint32_t header_size;
        uint64_t segment_size;
        uint32_t database_offset, database_size, database_capacity;
        uint32_t connection_offset, connection_size, connection_capacity;
        uint32_t lane_offset, lane_size, lane_capacity;
        uint32_t reserved0;
        uint64_t instance;   /* generation: differs after a restart */
        uint64_t start_time; /* CLOCK_REALTIME, ns */
        int32_t broker_pid;
        uint32_t reserved;
        char name[LESSOR_NAME_SIZE];    /* the instance's */
        char release[LESSOR_NAME_SIZE]; /* the broker's version */
        /* What follows changes while the broker lives. Single words: no sequence needed. */
        uint64_t heartbeat;   /* CLOCK_MONOTONIC, ns: the last time every data thread proved progress */
        uint64_t databases;   /* records in use */
        uint64_t connections; /* connection records in use */
        uint64_t sessions;    /* attached now */
        uint64_t sessions_total;
        uint64_t sessions_refused;
        uint64_t reloads;        /* configurations taken over */
        uint64_t reloads_failed; /* refused: the log says why */
};

struct lessor_status {
        const struct lessor_status_header
                *header;                       /* mapped: read the words below `heartbeat` with lessor_status_word() */
        struct lessor_status_header constants; /* what never changes, copied and checked once, at opening */
        size_t size;
        uint64_t device, inode;
        char path[96]; /* "/lessor.<instance>" */
};

#define LESSOR_STATUS_ALL 0U
#define LESSOR_STATUS_NO_HISTOGRAMS 1U

static inline uint64_t lessor_status_now_ns(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static inline void lessor_status_close(struct lessor_status *s) {
        if (s->header)
                munmap((void *)(uintptr_t)s->header, s->size);
        s->header = NULL;
}

/* Do the records lie inside the segment, and the segment inside the file of `size` bytes? */
static inline bool lessor_status_valid(const struct lessor_status_header *h, uint64_t size) {
        uint64_t databases = (uint64_t)h->database_size * h->database_capacity;
        uint64_t connections = (uint64_t)h->connection_size * h->connection_capacity;
        uint64_t lanes = (uint64_t)h->lane_size * h->lane_capacity;
        return h->segment_size <= size && h->header_size >= sizeof(*h) && h->database_offset >= h->header_size &&
               h->database_size >= sizeof(struct lessor_status_database) &&
               h->connection_size >= sizeof(struct lessor_status_connection) &&
               h->lane_size >= sizeof(struct lessor_status_lane) && h->database_offset % 8 == 0 &&
               h->database_size % 8 == 0 && h->connection_offset % 8 == 0 && h->connection_size % 8 == 0 &&
               h->lane_offset % 8 == 0 && h->lane_size % 8 == 0 && h->database_offset + databases <= h->segment_size &&
               h->connection_offset >= h->database_offset + databases &&
               h->lane_offset >= h->connection_offset + connections && h->lane_offset + lanes <= h->segment_size;
}

/* Maps `fd` into *s. 0 or -errno; the fd stays the caller's. */
static inline int lessor_status_map(struct lessor_status *s, int fd) {
        struct stat st;
        void *map;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode) || st.st_size < (off_t)sizeof(struct lessor_status_header))
                return -ENODATA;
        map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED)
                return -errno;
        s->header = (const struct lessor_status_header *)map;
        s->size = (size_t)st.st_size;
        s->device = (uint64_t)st.st_dev;
        s->inode = (uint64_t)st.st_ino;
        return 0;
}

/* 0; -ENODATA, -EPROTO as lessor_status_open(). Fills in the constants. */
static inline int lessor_status_check(struct lessor_status *s) {
        /* Pairs with the release store of magic in broker/status/segment.c: the constants before it are complete. */
        if (__atomic_load_n(&s->header->magic, __ATOMIC_ACQUIRE) != LESSOR_STATUS_MAGIC)
                return -ENODATA;
        memcpy(&s->constants, s->header, offsetof(struct lessor_status_header, heartbeat));
        if (s->constants.version != LESSOR_STATUS_VERSION)
                return -EPROTO;
        return lessor_status_valid(&s->constants, s->size) ? 0 : -ENODATA;
}

/* The name of the instance meant: `instance`, else $LESSOR_INSTANCE, else "default". */
static inline const char *lessor_status_instance(const char *instance) {
        if (!instance || !*instance)
                instance = getenv("LESSOR_INSTANCE");
        return instance && *instance ? instance : LESSOR_INSTANCE_DEFAULT;
}

/*
 * instance as above, NULL ok. 0, or -errno: -ENOENT no such instance ever ran here (or it was stopped), -EACCES,
 * -EINVAL not an instance name, -ENODATA not a status segment or not complete yet, -EPROTO a layout version this header
 * does not know. *ret is untouched on failure, and the caller's on success, for lessor_status_close().
 */
static inline int lessor_status_open(const char *instance, struct lessor_status *ret) {
        struct lessor_status s;
        int fd, r;

        memset(&s, 0, sizeof(s));
        instance = lessor_status_instance(instance);
        if (strlen(instance) >= LESSOR_NAME_SIZE || strchr(instance, '/'))
                return -EINVAL;
        snprintf(s.path, sizeof(s.path), "/lessor.%s", instance);
        fd = shm_open(s.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK,
                      0); /* O_NONBLOCK: somebody may have put a FIFO there */
        if (fd < 0)
                return -errno;
        r = lessor_status_map(&s, fd);
        close(fd);
        if (r == 0)
                r = lessor_status_check(&s);
        if (r < 0) {
                lessor_status_close(&s);
                return r;
        }
        *ret = s;
        return 0;
}

/* Has a new broker made a new segment under the name (or a stop removed it)? Two system calls. */
static inline bool lessor_status_replaced(const struct lessor_status *s) {
        struct stat st;
        int fd = shm_open(s->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0), r;
        if (fd < 0)
                return true;
        r = fstat(fd, &st);
        close(fd);
        return r < 0 || (uint64_t)st.st_ino != s->inode || (uint64_t)st.st_dev != s->device;
}

static inline uint64_t lessor_status_word(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }

/* Nanoseconds since every data thread of the broker last proved progress. */
static inline uint64_t lessor_status_heartbeat_age(const struct lessor_status *s) {
        uint64_t beat = lessor_status_word(&s->header->heartbeat), now = lessor_status_now_ns();
        return now > beat ? now - beat : 0;
}

static inline bool lessor_status_stale(const struct lessor_status *s) {
        return lessor_status_heartbeat_age(s) > LESSOR_STATUS_STALE_NS;
}

/* How many records there are, never more than the segment has room for: indices of the two functions below. */
static inline unsigned lessor_status_databases(const struct lessor_status *s) {
        uint64_t n = __atomic_load_n(&s->header->databases, __ATOMIC_ACQUIRE);
        return n < s->constants.database_capacity ? (unsigned)n : s->constants.database_capacity;
}

static inline unsigned lessor_status_connections(const struct lessor_status *s) {
        uint64_t n = __atomic_load_n(&s->header->connections, __ATOMIC_ACQUIRE);
        return n < s->constants.connection_capacity ? (unsigned)n : s->constants.connection_capacity;
}

/*
 * One record under its sequence number: 0, or -EAGAIN when it kept changing (its writer was interrupted, or died,
 * half-way: come back in a millisecond or two). Copies whole words, `size` is a multiple of 8.
 */
static inline int lessor_status_copy(const void *record, void *ret, size_t size) {
        const uint64_t *from = (const uint64_t *)record;
        uint64_t *to = (uint64_t *)ret;
        for (int attempt = 0; attempt < 1000; attempt++) {
                /* Pairs with the fence after the writer's third pwrite: of odd sequence, body, even sequence. */
                uint64_t before = __atomic_load_n(from, __ATOMIC_ACQUIRE);
                if (before & 1)
                        continue;
                /*
                 * Acquire on each word, instead of one fence after them, keeps the last load below where it stands: on
                 * x86 it costs nothing, and ThreadSanitizer does not know fences. Pairs with the fence after the first
                 * pwrite.
                 */
                for (size_t i = 0; i < size / 8; i++)
                        to[i] = __atomic_load_n(from + i, __ATOMIC_ACQUIRE);
                if (__atomic_load_n(from, __ATOMIC_RELAXED) == before)
                        return 0;
        }
        return -EAGAIN;
}

/* 0; -ENOENT no such index; -EAGAIN as above. With LESSOR_STATUS_NO_HISTOGRAMS those of *ret are left as they were. */
static inline int lessor_status_read_database(const struct lessor_status *s, unsigned index, unsigned flags,
                                              struct lessor_status_database *ret) {
        const char *base = (const char *)s->header + s->constants.database_offset;
        size_t size =
                flags & LESSOR_STATUS_NO_HISTOGRAMS ? offsetof(struct lessor_status_database, wait_time) : sizeof(*ret);
        if (index >= lessor_status_databases(s))
                return -ENOENT;
        return lessor_status_copy(base + (size_t)index * s->constants.database_size, ret, size);
}

/*
 * All databases in one. Unused ones count as healthy; one whose record is left half-written counts as failed. Whether
 * the broker lives at all is not asked: see lessor_status_stale().
 */
struct lessor_status_overall {
        bool overall_healthy; /* every database is */
        unsigned total_databases, healthy_databases, degraded_databases, failed_databases;
        uint64_t operations_ok, operations_failed;
        double success_rate; /* of all operations, 0..100; 100 when there were none */
};

static inline void lessor_status_add(struct lessor_status_overall *o, const struct lessor_status_database *d) {
        bool well = d->health == LESSOR_HEALTH_UNUSED || d->health == LESSOR_HEALTH_HEALTHY;
        bool degraded = d->health == LESSOR_HEALTH_DEGRADED;
        double all;
        o->total_databases++;
        o->healthy_databases += well;
        o->degraded_databases += degraded;
        o->failed_databases += !well && !degraded;
        o->operations_ok += d->operations_ok;
        o->operations_failed += d->operations_failed;
        all = (double)o->operations_ok + (double)o->operations_failed;
        o->success_rate = all > 0 ? 100.0 * (double)o->operations_ok / all : 100.0;
        o->overall_healthy = o->healthy_databases == o->total_databases;
}

/* No system call. Needs no histograms, and does not read them. */
static inline void lessor_status_read_overall(const struct lessor_status *s, struct lessor_status_overall *ret) {
        struct lessor_status_overall o;
        struct lessor_status_database d;
        memset(&o, 0, sizeof(o));
        o.overall_healthy = true;
        o.success_rate = 100.0;
        for (unsigned i = 0, n = lessor_status_databases(s); i < n; i++) {
                if (lessor_status_read_database(s, i, LESSOR_STATUS_NO_HISTOGRAMS, &d) < 0) {
                        memset(&d, 0, offsetof(struct lessor_status_database, wait_time));
                        d.health = LESSOR_HEALTH_FAILED;
                } else if (!d.name[0])
                        continue; /* removed by a reload */
                lessor_status_add(&o, &d);
        }
        *ret = o;
}

/* Likewise; records of one database stand together, in the order of their slots. */
static inline int lessor_status_read_connection(const struct lessor_status *s, unsigned index,
                                                struct lessor_status_connection *ret) {
        const char *base = (const char *)s->header + s->constants.connection_offset;
        if (index >= lessor_status_connections(s))
                return -ENOENT;
        return lessor_status_copy(base + (size_t)index * s->constants.connection_size, ret, sizeof(*ret));
}

/* How many records there are of sessions with commands in lanes, in use or not. */
static inline unsigned lessor_status_lanes(const struct lessor_status *s) { return s->constants.lane_capacity; }

/* As for connections; ret->session is 0 when the record is not in use. */
static inline int lessor_status_read_lane(const struct lessor_status *s, unsigned index,
                                          struct lessor_status_lane *ret) {
        const char *base = (const char *)s->header + s->constants.lane_offset;
        if (index >= lessor_status_lanes(s))
                return -ENOENT;
        return lessor_status_copy(base + (size_t)index * s->constants.lane_size, ret, sizeof(*ret));
}

/* The duration below which `share` (0..1) of what the histogram counted lies; 0 when it is empty. */
static inline uint64_t lessor_status_percentile(const struct lessor_status_histogram *h, double share) {
        uint64_t total = 0, seen = 0;
        for (unsigned i = 0; i < LESSOR_CALL_BUCKETS; i++)
                total += h->bucket[i];
        for (unsigned i = 0; i < LESSOR_CALL_BUCKETS; i++) {
                seen += h->bucket[i];
                if (seen > 0 && (double)seen >= share * (double)total) {
                        uint64_t below = lessor_status_bucket_below_ns(i);
                        return below < h->max_ns ? below : h->max_ns;
                }
        }
        return 0;
}

#ifdef __cplusplus
}
#endif

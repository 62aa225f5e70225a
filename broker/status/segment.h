/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Writing the status segment (lessor/status.h). By pwrite() only, never through a mapping: whoever truncates the file
 * (any process of our uid can) makes it grow again instead of killing the broker with SIGBUS. One thread writes.
 *
 * A shadow of what was last written is kept, so that an idle broker writes its heartbeat and nothing else.
 */
#include <lessor/status.h>

struct status_segment;

struct status_shape {
        const char *instance; /* name: the segment is /lessor.<instance> */
        const char *release;
        uint64_t generation;
        uint64_t start_time;
        unsigned databases, connections, lanes; /* capacity: all of it is allocated before use */
};

/*
 * Replaces what a dead broker left under the name; the caller holds the instance's lock. 0; -EEXIST something there is not
 * ours to replace (another owner's, or no regular file); -ENOSPC /dev/shm is full; other -errno.
 */
int status_segment_new(const struct status_shape *shape, struct status_segment **ret);
void status_segment_free(struct status_segment *segment); /* removes the name: readers see that it is over */

/* The records' `sequence` is ignored. 0, or -errno of the write (the next write tries again). */
int status_segment_write_database(struct status_segment *segment, unsigned index,
                                  const struct lessor_status_database *record);
int status_segment_write_connection(struct status_segment *segment, unsigned index,
                                    const struct lessor_status_connection *record);
int status_segment_write_lane(struct status_segment *segment, unsigned index, const struct lessor_status_lane *record);

struct status_live {
        uint64_t heartbeat, databases, connections, sessions, sessions_total, sessions_refused, reloads, reloads_failed;
};
int status_segment_write_live(struct status_segment *segment, const struct status_live *live);

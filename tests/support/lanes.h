/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A raw client (raw.h) with a lane: its memory mapped, its rings in its own hands. Does not fail the test by itself, so that
 * forked children can use it; nothing waits longer than RAW_MS.
 */
#include "base/lane.h"
#include "raw.h"

struct lanes {
        int socket, doorbell;
        uint32_t database; /* number of the one asked for */
        uint32_t thread;   /* whose lane it is */
        uint32_t flags;    /* of what is submitted next */
        char *memory;
        size_t size;
        const char *control; /* the control page */
        size_t control_size;
        struct lane_worker worker;
};

bool lanes_attach(struct lanes *, const char *path, const char *database); /* false: something is wrong */
void lanes_detach(struct lanes *);

/* One request, as it stands, under this tag; rings if need be. The deadline is far away. */
enum lane_submit lanes_submit(struct lanes *, uint64_t tag, const char *data, size_t size);
enum lane_submit lanes_say(struct lanes *, uint64_t tag, const char *command); /* "PING", words by spaces, as RESP */
void lanes_ring(const struct lanes *);                                         /* whether or not it is asked for */
/* The next completion: true, and it stays until lane_release(). False: none came, or nonsense. */
bool lanes_reap(struct lanes *, struct lane_answer *ret);
/* Reaps one, which must be this reply to this tag; releases it. */
bool lanes_expect(struct lanes *, uint64_t tag, const char *reply);

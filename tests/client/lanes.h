/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A lane for the scripted broker (fake.h): its side of base/lane.h, told step by step what to do. Sleeps and is rung as
 * lessord does.
 */
#include "base/lane.h"
#include "client/fake.h"

struct fake_lane {
        struct fake *f;
        struct lane_broker broker;
        void *memory;
        size_t size;
        int memory_fd, doorbell;
        uint32_t thread;
        lessor_atomic32 *bell;
        uint32_t armed;              /* the last number of a bell */
        bool quiet;                  /* rung by the lane's own bell, not by the thread's */
        unsigned rings;              /* of the doorbell, that were noticed */
        struct lane_request request; /* the last one taken, and its bytes, with a NUL behind */
        char data[1024 * 1024 + 1];
};

/* Before fake_run(): lanes are offered, and advised for every database. All on thread 0, but jobs' on 1. */
void fake_offer_lanes(struct fake *f);
void fake_advise(struct fake *f, enum lessor_path path);

/* False when it did not happen in time, or cannot be. */
bool fake_lane_open(struct fake *f, struct fake_lane *lane); /* LANE is asked and answered */
bool fake_lane_open_with(struct fake *f, struct fake_lane *lane, const struct lane_geometry *geometry);
void fake_lane_close(struct fake_lane *lane);
bool fake_lane_take(struct fake_lane *lane);                              /* the next submission */
bool fake_lane_take_command(struct fake_lane *lane, const char *command); /* likewise; and it is this one, in RESP */
bool fake_lane_has(struct fake_lane *lane);                               /* is there one now? */
/* Completes `tag` and wakes whoever waits. */
bool fake_lane_reply(struct fake_lane *lane, uint64_t tag, const char *reply);
bool fake_lane_refuse(struct fake_lane *lane, uint64_t tag, int outcome, uint32_t flags, const char *text);
bool fake_lane_complete(struct fake_lane *lane, const struct lane_answer *answer);
bool fake_lane_wake(struct fake_lane *lane);
/* A reply that comes apart: its message, and its completion. */
bool fake_lane_send_apart(struct fake_lane *lane, uint64_t tag, const char *reply, size_t size);
bool fake_lane_complete_apart(struct fake_lane *lane, uint64_t tag);

/* A script: any number of sessions, one after the other; each command is answered by its last argument. Until fake_stop(). */
void fake_lane_serve(struct fake *f, void *unused);

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A relay between a broker and a private Redis, on a Unix socket of its own, which can be told at any time how the server's
 * answers are to come: at once, a byte at a time, or not at all. What clients send always goes on at once.
 */
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

struct relay_manner {
        _Atomic unsigned pace_us;   /* between two bytes of an answer; 0: as they come */
        _Atomic unsigned mute;      /* no answer at all */
        _Atomic uint64_t bytes_out; /* so many have gone to clients */
};

struct relay {
        pid_t pid;
        char *path;
        struct relay_manner *manner;
};

void relay_start(struct relay *, const char *server_socket); /* dies with the test */
void relay_end(struct relay *);

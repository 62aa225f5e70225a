/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What a worker's program is called, for people. The kernel is asked when somebody is to be shown the name, not for each of a
 * thousand workers who start at once.
 */
#include <stdbool.h>
#include <sys/types.h>

#include <lessor/protocol.h>

struct program {
        pid_t pid;
        bool asked;
        char name[LESSOR_NAME_SIZE]; /* as he calls himself, until the kernel was asked */
};

const char *program_name(struct program *program);

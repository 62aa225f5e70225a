/* SPDX-License-Identifier: MIT */
#pragma once
/* How many system calls a piece of code makes, counted by tracing a child that runs it. */
#include <stdint.h>

/*
 * Runs work(argument) in a forked, traced child; it says syscalls_mark() before and after the part that counts. The
 * number of system calls between the two marks; -1 when a child cannot be traced here, or did not come to its second
 * mark.
 */
int64_t syscalls_count(void (*work)(void *argument), void *argument);
void syscalls_mark(void);

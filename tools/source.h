/* SPDX-License-Identifier: MIT */
#pragma once
/* Opening the status segment, and saying what it means when that fails. */
#include <lessor/status.h>

/*
 * As lessor_status_open(); a segment that is just being made is waited for (a fifth of a second at most). `instance`
 * may be NULL. *ret is the caller's, for lessor_status_close().
 */
int source_open(const char *instance, struct lessor_status *ret);

/* What an error of source_open() means and what to do about it, in whole sentences. The string is the caller's. */
char *source_explain(int error, const char *instance);

/* The status segment of an instance across its broker's restarts. Zeroed before the first use. */
struct source {
        struct lessor_status status;
        bool open;
};

/* Opens, or opens again when a new broker has replaced the segment. 0: s->status is the current one; else as
 * source_open(), and nothing is open. A segment whose broker died stays open. */
int source_follow(struct source *s, const char *instance);
void source_deinit(struct source *s);

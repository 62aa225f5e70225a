/* SPDX-License-Identifier: MIT */
#pragma once
/* One look at the figures of an instance, for a command that shows them and ends. */
#include "cli.h"
#include "model.h"

/* 0, and *ret is the caller's, for model_deinit(); else as source_open(). Out of memory ends the program. */
int reading_take(const char *instance, struct model *ret);
/* Says on standard error, in the command's name, what an error of it (or of source_open()) means. EXIT_ABSENT. */
int reading_absent(const struct command *self, int error, const char *instance);

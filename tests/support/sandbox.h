/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What one test may leave lying about: a private directory and names of its own, swept up when its process ends, however
 * it ends. The sweeping is done by a small process of its own that waits for the test's end.
 */
#include <stddef.h>

/* The test's directory (short enough for Unix sockets inside it); made at first use. Static. */
const char *sandbox(void);

/* "<sandbox>/<name>", of the test's life. */
char *sandbox_path(const char *name);

/* "lessortest-<pid>-<n>", a new one for each call: names of instances, recognised and swept as ours. */
void sandbox_instance(char *ret, size_t size);

void sandbox_write(const char *path, const char *text);
char *sandbox_read(const char *path,
                   size_t *ret_size); /* whole and NUL-terminated, for free(); "" if there is no such file */

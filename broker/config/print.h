/* SPDX-License-Identifier: MIT */
#pragma once
/* The configuration and its schema as text, on a stream of the caller's. Secrets are never written. */
#include <stdio.h>

#include "config.h"

/* --print-config: the effective configuration, as YAML that loads again, each value with its source as a comment. */
void config_write(const struct config *, FILE *);

/* --check-config: one line: databases, host-wide cap, file descriptors. */
void config_write_summary(const struct config *, FILE *);

/* --help-config: every key with type, range, default, unit, environment, reload and help; a blank line between keys. */
void config_write_keys(FILE *);

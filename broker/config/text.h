/* SPDX-License-Identifier: MIT */
#pragma once
/* The bytes of a configuration before anybody parses them, and pieces of them shown in messages. Pure. */
#include <stdbool.h>
#include <stddef.h>

#include "config.h"
#include "report.h"

#define CONFIG_SIZE_MAX ((size_t)1 << 20) /* bytes of a file */

/* 0, or CONFIG_E_INVALID (said): too large, empty, binary, not UTF-8. */
int config_text_check(const char *data, size_t size, const struct config_origin *origin, struct config_report *report);
bool config_utf8_valid(const char *text, size_t length);

/* A text in backticks, escaped, shortened to about 40 signs; returns `buffer`. */
char *config_quote(const char *text, size_t length, char *buffer, size_t size);
#define CONFIG_QUOTE_SIZE 200U

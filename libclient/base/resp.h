/* SPDX-License-Identifier: MIT */
#pragma once
/* Reads a request (an array of bulk strings, as redisFormatCommand() writes it) back. Pure. */
#include <stdbool.h>
#include <stddef.h>

/* The name of the command (its first argument) that starts at data[0]; false when this is not a whole, valid request. */
bool resp_command_name(const char *data, size_t size, const char **ret_name, size_t *ret_len);
/* The bytes of the whole request at data[0], 0 when it is not whole or not valid. */
size_t resp_command_size(const char *data, size_t size);

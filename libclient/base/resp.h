/* SPDX-License-Identifier: MIT */
#pragma once
/* Requests, arrays of bulk strings as redisFormatCommand() writes them: written, and read back. Pure. */
#include <stdbool.h>
#include <stddef.h>

/* A request of these arguments. argv_len NULL: they are strings; an argument NULL: it is empty. argc > 0. */
size_t resp_request_size(int argc, const char **argv, const size_t *argv_len);
/* So many bytes are written. ret_name: where the first argument is in them. */
void resp_request_write(char *to, int argc, const char **argv, const size_t *argv_len, const char **ret_name);

/* The name of the command (its first argument) that starts at data[0]; false when this is not a whole, valid request. */
bool resp_command_name(const char *data, size_t size, const char **ret_name, size_t *ret_len);
/* The bytes of the whole request at data[0], 0 when it is not whole or not valid. */
size_t resp_command_size(const char *data, size_t size);

/* A request as a lane carries it. The names point into the data. */
struct resp_request {
        const char *name, *sub; /* the first and the second argument; sub: NULL when there is one only */
        size_t name_len, sub_len;
        size_t arguments; /* the name included */
};

#define RESP_ARGUMENTS_MAX (1024U * 1024U)   /* beyond that Redis before 7.0 closes the connection */
#define RESP_BULK_MAX (512U * 1024U * 1024U) /* and beyond that any */

/* True: the data are one whole request, not a byte less or more, and none that Redis would answer by closing. */
bool resp_request_read(const char *data, size_t size, struct resp_request *ret);

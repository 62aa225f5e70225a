/* SPDX-License-Identifier: MIT */
#pragma once
/* Formatting commands, with the ways to fail told apart. From a format by hiredis; from arguments by ourselves, for
 * hiredis 0.14 does that with a sprintf() for each. */
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <lessor.h>

struct command {
        char *data; /* command_deinit(); NULL ok */
        size_t size;
        const char *name; /* in the data */
        size_t name_len;
        bool own; /* of malloc(), not of hiredis */
};

/* 0; LESSOR_E_INVALID or -ENOMEM, told in *error (NULL ok) as trouble with an argument of `function`. */
int command_vformat(struct command *c, const char *function, lessor_error *error, const char *fmt, va_list args);
int command_format_argv(struct command *c, const char *function, lessor_error *error, int argc, const char **argv,
                        const size_t *argv_len);
void command_deinit(struct command *c);

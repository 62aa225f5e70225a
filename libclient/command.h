/* SPDX-License-Identifier: MIT */
#pragma once
/* Formatting commands by hiredis, with its ways to fail told apart. */
#include <stdarg.h>
#include <stddef.h>

#include <lessor.h>

struct command {
        char *data; /* redisFreeCommand(); NULL ok */
        size_t size;
};

/* 0; LESSOR_E_INVALID or -ENOMEM, told in *error (NULL ok) as trouble with an argument of `function`. */
int command_vformat(struct command *c, const char *function, lessor_error *error, const char *fmt, va_list args);
int command_format_argv(struct command *c, const char *function, lessor_error *error, int argc, const char **argv,
                        const size_t *argv_len);
void command_deinit(struct command *c);

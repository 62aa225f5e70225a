/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * From texts to the model. No system call: what the host alone knows comes in as functions.
 *
 * PRECEDENCE. Within one scope (a database, or the top level for all of them): command line > environment > file >
 * credential > default. Between scopes: a database's own value, whatever its source, beats one of the top level. So
 * LESSOR_REDIS_HOST replaces the file's top-level `host` and gives way to a database's own; LESSOR_REDIS_MAIN_HOST beats
 * that; `--set main.host=...` beats all.
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "config.h"
#include "report.h"

enum config_secret {                            /* what came of reading a secret, beside 0 and -errno */
                     CONFIG_SECRET_EXPOSED = 1, /* others than owner and group may read or write the file */
                     CONFIG_SECRET_NOT_FILE,
                     CONFIG_SECRET_EMPTY,
                     CONFIG_SECRET_UNFIT, /* too long, more than one line, or a NUL in it */
};

struct config_host {
        int (*user)(const char *name, uint32_t *ret);  /* 0; -ENOENT no such name; -errno */
        int (*group)(const char *name, uint32_t *ret); /* likewise */
        int (*secret)(const char *path, char **ret);   /* 0; enum config_secret; -errno. *ret is malloc()ed */
};

struct config_input {
        const char *name; /* the file's, for messages; NULL: no file: the built-in database */
        const char *data; /* its bytes, not terminated */
        size_t size;
        bool exposed;         /* others than owner and group may read the file */
        const char *instance; /* --instance; NULL: not given */
        const char *socket;   /* --socket; NULL: not given */
        const char *const *sets;
        unsigned n_sets;
        char *const *environment; /* NULL: none */
        uint64_t fd_limit;        /* descriptors the broker may have; 0: not known */
        const struct config_host *host;
};

/* 0; CONFIG_E_INVALID; -ENOMEM. *ret is the caller's, for config_free(); untouched unless 0. */
int config_parse(const struct config_input *input, struct config_report *report, struct config **ret);

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The configuration while it is put together: what was said for each scope and key, last word last. The sources are
 * read in the order of their precedence (parse.c: file; env.c: environment, command line), so that a later one simply
 * replaces; resolve.c makes the model from what stands at the end.
 */
#include "parse.h"
#include "value.h"

struct config_setting {
        bool said;
        bool invalid; /* an error was reported: nothing further is to be concluded from it */
        struct config_origin origin;
        struct config_value value;
};

struct config_scope {
        char name[LESSOR_NAME_SIZE]; /* "": the top level */
        struct config_origin declared;
        struct config_setting settings[CONFIG_KEYS];
};

struct config_draft {
        const struct config_input *input;
        struct config_report *report;
        struct config_reader reader;
        struct config_scope top;
        struct config_scope **databases;
        unsigned n_databases;
        char **strings; /* what the origins' names point to; they go over to the model */
        unsigned n_strings;
};

void config_draft_init(struct config_draft *draft, const struct config_input *input, struct config_report *report);
void config_draft_deinit(struct config_draft *draft); /* wipes */

/* A copy of `text` that lives as long as the draft and its model; NULL: out of memory. */
const char *config_draft_string(struct config_draft *draft, const char *text);

/* All below: 0, also when an error was said; -ENOMEM. */
int config_draft_add(struct config_draft *draft, const char *name, const struct config_origin *declared);
int config_draft_set(struct config_draft *draft, struct config_scope *scope, const struct config_key *key,
                     const struct config_node *node, const struct config_origin *origin);
/* Likewise from a text that is no file's: the environment, the command line. */
int config_draft_set_text(struct config_draft *draft, struct config_scope *scope, const struct config_key *key,
                          const char *text, const struct config_origin *origin);

struct config_scope *config_draft_find(const struct config_draft *draft, const char *name, size_t length);

/* What counts for this database: its own, else the top level's; NULL: the default. */
const struct config_setting *config_draft_effective(const struct config_draft *draft, const struct config_scope *scope,
                                                    enum config_key_id id);

int config_read_environment(struct config_draft *draft);                     /* env.c */
int config_read_command_line(struct config_draft *draft);                    /* env.c */
int config_resolve(struct config_draft *draft, struct config *c);            /* resolve.c */
void config_check(const struct config_draft *draft, const struct config *c); /* check.c: what takes two values to see */

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * One value: from a node of the tree, or a text, to what its key's type wants; and back to text. Pure but for the names
 * of users and groups, which the host's functions look up.
 */
#include "config.h"
#include "keys.h"
#include "parse.h"
#include "report.h"
#include "tree.h"

struct config_value {
        uint64_t number; /* COUNT, BOOL, DURATION, SIZE, MODE, HANDOVER, ROUTE, LOG_LEVEL; GROUP: the gid */
        char *text;      /* NAME, TEXT, HOST, PATH, SECRET, GROUP; NULL: none */
        struct config_allow allow;
};

void config_value_deinit(struct config_value *value); /* wipes */

/* What reading a value needs beside the value. */
struct config_reader {
        const struct config_host *host;
        struct config_report *report;
};

/* 0; CONFIG_E_INVALID (said, with the node's place put into `origin`'s); -ENOMEM. *ret is untouched unless 0. */
int config_value_read(const struct config_reader *reader, const struct config_key *key, const struct config_node *node,
                      const struct config_origin *origin, struct config_value *ret);

/* The texts' own parsers: 0; -EINVAL not of this form; -ERANGE beyond 64 bits. *ret is untouched unless 0. */
int config_parse_count(const char *text, uint64_t *ret);    /* "20" */
int config_parse_duration(const char *text, uint64_t *ret); /* "5s", "250ms", "1.5" (seconds) -> ns */
int config_parse_size(const char *text, uint64_t *ret);     /* "64KiB", "1MB", "4096" (bytes) */
int config_parse_mode(const char *text, uint64_t *ret);     /* "0660" */
int config_parse_bool(const char *text, uint64_t *ret);     /* yes, true, on; no, false, off */

/* Shortest exact text that the parser reads back; all return `buffer`. */
char *config_duration_text(uint64_t ns, char *buffer, size_t size);
char *config_size_text(uint64_t bytes, char *buffer, size_t size);
char *config_number_text(const struct config_key *key, uint64_t number, char *buffer, size_t size);

/* What to write for this key, "a whole number from 1 to 65535". */
char *config_expected(const struct config_key *key, char *buffer, size_t size);

/* [A-Za-z0-9_.-]{1,63}: databases and instances. */
bool config_name_valid(const char *name, size_t length);

/* The part of config_value_read() for `allow` (allow.c). */
int config_allow_read(const struct config_reader *reader, const struct config_node *node,
                      const struct config_origin *origin, struct config_allow *ret);
void config_allow_deinit(struct config_allow *allow);
int config_allow_copy(const struct config_allow *from, struct config_allow *ret); /* 0; -ENOMEM */

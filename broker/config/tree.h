/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * YAML as a tree that knows its places. Aliases share their node, so that no text, however clever, makes more nodes
 * than it has bytes; what a walk over the tree would see is counted all the same, and bounded. Pure.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"
#include "report.h"
#include "text.h"

#define CONFIG_DEPTH_MAX 16U
#define CONFIG_ALIASES_MAX 1000U
#define CONFIG_NODES_MAX 50000U /* counted with aliases written out */

enum config_node_kind { CONFIG_NODE_SCALAR, CONFIG_NODE_LIST, CONFIG_NODE_MAP };

struct config_node {
        enum config_node_kind kind;
        unsigned line, column; /* from 1; 0: not from a file */
        char *text;            /* a scalar's; no NUL but the last */
        size_t length;
        bool quoted;                   /* "~" in quotes is a text */
        struct config_node **children; /* a map's: key, value, key, value ... */
        unsigned n;
        uint32_t weight; /* nodes a walk would see; 0: not complete, it is being read */
        char *anchor;    /* NULL: none */
};

struct config_tree {
        struct config_node *root; /* NULL: nothing but comments */
        struct config_node **nodes;
        unsigned n;
};

/*
 * 0; CONFIG_E_INVALID (said); -ENOMEM. Places are put into `origin` when it is a file's. *ret is untouched unless 0. Of
 * faults of the text (not YAML, not UTF-8 ...) the first ends the reading: what comes after it is guesswork.
 */
int config_tree_read(const char *data, size_t size, const struct config_origin *origin, struct config_report *report,
                     struct config_tree *ret);
void config_tree_deinit(struct config_tree *tree); /* wipes */

/* `origin` at the node's place. */
struct config_origin config_node_origin(const struct config_node *node, const struct config_origin *origin);
bool config_node_null(const struct config_node *node); /* `~`, `null` or nothing at all */

/* What stands there, for a message: "`fifty`", "a list", "nothing"; shortened and escaped; returns `buffer`. */
char *config_found(const struct config_node *node, char *buffer, size_t size);

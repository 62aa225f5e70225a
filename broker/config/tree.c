/* SPDX-License-Identifier: MIT */
/*
 * The tree is built from libyaml's events, with a stack of open collections that is as deep as we allow files to be.
 *
 * An alias adds a pointer to the node it names, not a copy. What could still explode is a walk: so each node carries its
 * weight, the nodes a walk from it would see, and the sum of all that is added is kept below CONFIG_NODES_MAX. A node that
 * is still open has weight 0: an alias to it would make a circle and is refused.
 *
 * Scalars may be passwords: they are wiped here and in libyaml's buffers, as far as those can be reached.
 */
#include "tree.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include <base/cleanup.h>

struct builder {
        yaml_parser_t parser;
        const struct config_origin *origin;
        struct config_report *report;
        const char *data;
        size_t size;
        struct config_tree tree;
        struct config_node *open[CONFIG_DEPTH_MAX];
        unsigned depth;
        uint64_t weight;
        unsigned documents, aliases;
};

struct config_origin config_node_origin(const struct config_node *node, const struct config_origin *origin) {
        struct config_origin o = *origin;
        if (o.source == CONFIG_SOURCE_FILE) {
                o.line = node->line;
                o.column = node->column;
        }
        return o;
}

bool config_node_null(const struct config_node *node) {
        if (node->kind != CONFIG_NODE_SCALAR || node->quoted)
                return false;
        return node->length == 0 || strcmp(node->text, "~") == 0 || strcmp(node->text, "null") == 0 ||
               strcmp(node->text, "Null") == 0 || strcmp(node->text, "NULL") == 0;
}

static void node_free(struct config_node *node) {
        if (node->text)
                explicit_bzero(node->text, node->length);
        free(node->text);
        free(node->children);
        free(node->anchor);
        free(node);
}

void config_tree_deinit(struct config_tree *tree) {
        for (unsigned i = 0; i < tree->n; i++)
                node_free(tree->nodes[i]);
        free(tree->nodes);
        *tree = (struct config_tree){0};
}

/* Appends to an array that grows by doubling at powers of two. 0; -ENOMEM. */
static int push(struct config_node ***array, unsigned *n, struct config_node *node) {
        if ((*n & (*n - 1)) == 0) {
                struct config_node **more = realloc(*array, (*n ? 2 * (size_t)*n : 1) * sizeof(*more));
                if (!more)
                        return -ENOMEM;
                *array = more;
        }
        (*array)[(*n)++] = node;
        return 0;
}

static int refuse(struct builder *b, const yaml_mark_t *mark, const char *text) {
        struct config_origin o = *b->origin;
        if (o.source == CONFIG_SOURCE_FILE) {
                o.line = (unsigned)mark->line + 1;
                o.column = (unsigned)mark->column + 1;
        }
        config_say(b->report, CONFIG_ERROR, &o, "%s", text);
        return CONFIG_E_INVALID;
}

/* Puts a node where the event stands: into the collection that is open, or at the root. */
static int attach(struct builder *b, struct config_node *node, uint64_t weight, const yaml_event_t *event) {
        struct config_node *parent = b->depth ? b->open[b->depth - 1] : NULL;
        b->weight += weight;
        if (b->weight > CONFIG_NODES_MAX)
                return refuse(b, &event->start_mark,
                              event->type == YAML_ALIAS_EVENT
                                      ? "aliases repeat more than 50000 values: write out what is really meant"
                                      : "more than 50000 values: this is not a configuration of lessord");
        if (!parent) {
                b->tree.root = node;
                return 0;
        }
        if (parent->kind == CONFIG_NODE_MAP && parent->n % 2 == 0 && node->kind != CONFIG_NODE_SCALAR)
                return refuse(b, &event->start_mark,
                              node->kind == CONFIG_NODE_MAP
                                      ? "found a map as a key: write a word (a text with braces goes in quotes)"
                                      : "found a list as a key: write a word (a text with brackets goes in quotes)");
        return push(&parent->children, &parent->n, node);
}

/* Owned by the tree from here on, also when what follows fails. */
static int node_new(struct builder *b, enum config_node_kind kind, const yaml_event_t *event, const yaml_char_t *anchor,
                    struct config_node **ret) {
        struct config_node *node = calloc(1, sizeof(*node));
        if (!node || push(&b->tree.nodes, &b->tree.n, node) < 0) {
                free(node);
                return -ENOMEM;
        }
        node->kind = kind;
        node->line = (unsigned)event->start_mark.line + 1;
        node->column = (unsigned)event->start_mark.column + 1;
        if (anchor && !(node->anchor = strdup((const char *)anchor)))
                return -ENOMEM;
        *ret = node;
        return 0;
}

/* `!!str` and its like say what we know; `!vault`, `!ENV` and their like would mean something to somebody else. */
static int tag_check(struct builder *b, const yaml_event_t *event, const yaml_char_t *tag) {
        static const char standard[] = "tag:yaml.org,2002:";
        if (!tag || strcmp((const char *)tag, "!") == 0 ||
            (strncmp((const char *)tag, standard, sizeof(standard) - 1) == 0 && !strchr((const char *)tag, '/')))
                return 0;
        return refuse(
                b, &event->start_mark,
                "found a tag (a word after `!`), which means nothing here: remove it; a text that begins with `!` "
                "goes in quotes");
}

static int add_scalar(struct builder *b, const yaml_event_t *event) {
        struct config_node *node = NULL;
        size_t length = event->data.scalar.length;
        int r = tag_check(b, event, event->data.scalar.tag);
        if (r == 0 && memchr(event->data.scalar.value, '\0', length))
                r = refuse(b, &event->start_mark, "found a NUL in a text: no value of lessord has one");
        if (r == 0)
                r = node_new(b, CONFIG_NODE_SCALAR, event, event->data.scalar.anchor, &node);
        if (r != 0)
                return r;
        node->text = malloc(length + 1);
        if (!node->text)
                return -ENOMEM;
        memcpy(node->text, event->data.scalar.value, length);
        node->text[length] = '\0';
        node->length = length;
        node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
        node->weight = 1;
        return attach(b, node, 1, event);
}

static int open_collection(struct builder *b, enum config_node_kind kind, const yaml_event_t *event,
                           const yaml_char_t *anchor, const yaml_char_t *tag) {
        struct config_node *node = NULL;
        int r = tag_check(b, event, tag);
        if (r == 0 && b->depth == CONFIG_DEPTH_MAX)
                r = refuse(b, &event->start_mark, "nested deeper than 16 levels: no key of lessord needs more than 5");
        if (r == 0)
                r = node_new(b, kind, event, anchor, &node);
        if (r == 0)
                r = attach(b, node, 1, event);
        if (r == 0)
                b->open[b->depth++] = node;
        return r;
}

static void close_collection(struct builder *b) {
        struct config_node *node = b->open[--b->depth];
        uint64_t weight = 1;
        for (unsigned i = 0; i < node->n; i++)
                weight += node->children[i]->weight;
        node->weight = (uint32_t)weight; /* attach() keeps the sum of all below CONFIG_NODES_MAX */
}

static int add_alias(struct builder *b, const yaml_event_t *event) {
        const char *name = (const char *)event->data.alias.anchor;
        char text[256];
        if (b->aliases++ == CONFIG_ALIASES_MAX)
                return refuse(b, &event->start_mark, "more than 1000 aliases: write out what is really meant");
        for (unsigned i = b->tree.n; i-- > 0;) { /* the last one of the name counts */
                struct config_node *node = b->tree.nodes[i];
                if (!node->anchor || strcmp(node->anchor, name) != 0)
                        continue;
                if (node->weight == 0)
                        return refuse(b, &event->start_mark, "found an alias to what it is itself a part of");
                return attach(b, node, node->weight, event);
        }
        snprintf(text, sizeof(text), "found the alias `*%.60s`, but no `&%.60s` before it", name, name);
        return refuse(b, &event->start_mark, text);
}

static int handle(struct builder *b, const yaml_event_t *event) {
        switch (event->type) {
        case YAML_DOCUMENT_START_EVENT:
                if (b->documents++ > 0)
                        return refuse(b, &event->start_mark, "found a second document: put all into one");
                return 0;
        case YAML_SCALAR_EVENT:
                return add_scalar(b, event);
        case YAML_SEQUENCE_START_EVENT:
                return open_collection(b, CONFIG_NODE_LIST, event, event->data.sequence_start.anchor,
                                       event->data.sequence_start.tag);
        case YAML_MAPPING_START_EVENT:
                return open_collection(b, CONFIG_NODE_MAP, event, event->data.mapping_start.anchor,
                                       event->data.mapping_start.tag);
        case YAML_SEQUENCE_END_EVENT:
        case YAML_MAPPING_END_EVENT:
                close_collection(b);
                return 0;
        case YAML_ALIAS_EVENT:
                return add_alias(b, event);
        case YAML_NO_EVENT:
        case YAML_STREAM_START_EVENT:
        case YAML_STREAM_END_EVENT:
        case YAML_DOCUMENT_END_EVENT:
                return 0;
        }
        return 0;
}

/* The first line from `line` back that is indented by a tab: what YAML's own messages never say. */
static bool find_tab(const struct builder *b, size_t line, yaml_mark_t *ret) {
        size_t number = 0;
        bool found = false;
        for (const char *p = b->data, *end = p + b->size; p < end && number <= line; number++) {
                const char *next = memchr(p, '\n', (size_t)(end - p));
                const char *q = p;
                while (q < end && *q == ' ')
                        q++;
                if (q < end && *q == '\t' && number + 1 >= line) {
                        *ret = (yaml_mark_t){.line = number, .column = (size_t)(q - p)};
                        found = true;
                        break;
                }
                p = next ? next + 1 : end;
        }
        return found;
}

static const char *syntax_hint(const char *problem) {
        static const struct {
                const char *problem, *hint;
        } hints[] = {
                {"found character that cannot start any token", "put the text in quotes"},
                {"mapping values are not allowed", "check the indentation; a text with `: ` in it goes in quotes"},
                {"could not find expected ':'", "write `key: value`"},
                {"did not find expected key", "keys of one map stand in one column, and in quotes nothing follows"},
                {"did not find expected ',' or ']'", "close the list by `]`, its items apart by `,`"},
                {"did not find expected ',' or '}'", "close the map by `}`, its keys apart by `,`"},
                {"did not find expected '-' indicator", "items of one list stand in one column, each after `- `"},
                {"found unexpected end of stream", "close the quote"},
                {"found unknown escape character", "in single quotes `\\` is itself"},
                {"did not find expected <document start>", "keys of one map stand in one column"},
                {"block sequence entries are not allowed", "put the list's `- ` on lines of their own"},
        };
        for (size_t i = 0; i < ARRAY_SIZE(hints); i++)
                if (strncmp(problem, hints[i].problem, strlen(hints[i].problem)) == 0)
                        return hints[i].hint;
        return "see the example, lessor.example.yaml";
}

static int syntax_error(struct builder *b) {
        const yaml_parser_t *p = &b->parser;
        char text[512], since[48] = "";
        yaml_mark_t tab;
        if (p->error == YAML_MEMORY_ERROR)
                return -ENOMEM;
        if (find_tab(b, p->problem_mark.line, &tab))
                return refuse(b, &tab, "found a tab in the indentation: YAML indents by spaces only");
        if (p->context && p->context_mark.line != p->problem_mark.line)
                snprintf(since, sizeof(since), " begun in line %zu", p->context_mark.line + 1);
        snprintf(text, sizeof(text), "not YAML: %s%s%s%s: %s", p->context ? p->context : "", since,
                 p->context ? ", " : "", p->problem ? p->problem : "unreadable",
                 syntax_hint(p->problem ? p->problem : ""));
        return refuse(b, &p->problem_mark, text);
}

static void event_delete(yaml_event_t *event) {
        if (event->type == YAML_SCALAR_EVENT)
                explicit_bzero(event->data.scalar.value, event->data.scalar.length);
        yaml_event_delete(event);
}

static int read_events(struct builder *b) {
        bool done = false;
        while (!done) {
                yaml_event_t event;
                if (!yaml_parser_parse(&b->parser, &event))
                        return syntax_error(b);
                int r = handle(b, &event);
                done = event.type == YAML_STREAM_END_EVENT;
                event_delete(&event);
                if (r != 0)
                        return r;
        }
        return 0;
}

static void parser_delete(yaml_parser_t *p) {
        if (p->raw_buffer.start)
                explicit_bzero(p->raw_buffer.start, (size_t)(p->raw_buffer.end - p->raw_buffer.start));
        if (p->buffer.start)
                explicit_bzero(p->buffer.start, (size_t)(p->buffer.end - p->buffer.start));
        yaml_parser_delete(p);
}

int config_tree_read(const char *data, size_t size, const struct config_origin *origin, struct config_report *report,
                     struct config_tree *ret) {
        struct builder b = {.origin = origin, .report = report, .data = data, .size = size};
        int r = config_text_check(data, size, origin, report);
        if (r != 0)
                return r;
        if (!yaml_parser_initialize(&b.parser))
                return -ENOMEM;
        yaml_parser_set_encoding(&b.parser, YAML_UTF8_ENCODING);
        yaml_parser_set_input_string(&b.parser, (const unsigned char *)data, size);
        r = read_events(&b);
        parser_delete(&b.parser);
        if (r != 0)
                config_tree_deinit(&b.tree);
        else
                *ret = b.tree;
        return r;
}

char *config_found(const struct config_node *node, char *buffer, size_t size) {
        if (node->kind == CONFIG_NODE_LIST)
                snprintf(buffer, size, "a list");
        else if (node->kind == CONFIG_NODE_MAP)
                snprintf(buffer, size, "a map");
        else if (config_node_null(node))
                snprintf(buffer, size, "nothing");
        else if (node->length == 0)
                snprintf(buffer, size, "an empty text");
        else
                config_quote(node->text, node->length, buffer, size);
        return buffer;
}

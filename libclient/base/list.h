/* SPDX-License-Identifier: MIT */
#pragma once
/* An intrusive doubly linked list with a sentinel. An unlinked node points at itself, so that list_remove() may be said twice. */
#include <stdbool.h>
#include <stddef.h>

struct list {
        struct list *next, *prev;
};

static inline void list_init(struct list *l) { l->next = l->prev = l; }
static inline bool list_empty(const struct list *l) { return l->next == l; }
static inline struct list *list_first(const struct list *l) { return list_empty(l) ? NULL : l->next; }
static inline struct list *list_last(const struct list *l) { return list_empty(l) ? NULL : l->prev; }

static inline void list_insert_between(struct list *prev, struct list *next, struct list *node) {
        node->prev = prev;
        node->next = next;
        prev->next = node;
        next->prev = node;
}
static inline void list_push_back(struct list *l, struct list *node) { list_insert_between(l->prev, l, node); }
static inline void list_push_front(struct list *l, struct list *node) { list_insert_between(l, l->next, node); }
static inline void list_remove(struct list *node) {
        node->prev->next = node->next;
        node->next->prev = node->prev;
        list_init(node);
}

#define list_for_each(l, it) for (struct list *it = (l)->next; it != (l); it = it->next)
/* The current node may be removed (and freed) in the body. */
#define list_for_each_safe(l, it, tmp)                                                                                 \
        for (struct list *it = (l)->next, *tmp = it->next; it != (l); it = tmp, tmp = it->next)

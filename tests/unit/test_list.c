/* SPDX-License-Identifier: MIT */
#include "base/cleanup.h"
#include "base/list.h"
#include "support/check.h"

struct item {
        int before;
        struct list link;
        char name;
};

static const char *spell(struct list *l) {
        static char text[32];
        char *at = text;
        list_for_each (l, it)
                *at++ = container_of(it, struct item, link)->name;
        *at = 0;
        return text;
}

static const char *spell_back(struct list *l) {
        static char text[32];
        char *at = text;
        for (struct list *it = l->prev; it != l; it = it->prev)
                *at++ = container_of(it, struct item, link)->name;
        *at = 0;
        return text;
}

static void init(struct item *items, size_t n) {
        for (size_t i = 0; i < n; i++) {
                items[i].name = (char)('a' + i);
                list_init(&items[i].link);
        }
}

TEST(list, a_fresh_list_is_empty) {
        struct list l;
        list_init(&l);
        check(list_empty(&l));
        check(list_first(&l) == NULL);
        check(list_last(&l) == NULL);
        check_str(spell(&l), "");
}

TEST(list, what_is_pushed_at_the_back_comes_out_in_order_and_at_the_front_in_reverse) {
        struct item items[4];
        struct list l;
        list_init(&l);
        init(items, 4);
        list_push_back(&l, &items[0].link);
        list_push_back(&l, &items[1].link);
        list_push_front(&l, &items[2].link);
        list_push_front(&l, &items[3].link);
        check_str(spell(&l), "dcab");
        check_str(spell_back(&l), "bacd");
        check(list_first(&l) == &items[3].link);
        check(list_last(&l) == &items[1].link);
}

/* Every subset of five items, removed in every rotation of the order. */
TEST(list, any_items_may_be_removed_in_any_order) {
        for (unsigned subset = 0; subset < 32; subset++)
                for (unsigned turn = 0; turn < 5; turn++) {
                        struct item items[5];
                        char expected[8], backward[8];
                        size_t n = 0;
                        struct list l;
                        list_init(&l);
                        init(items, 5);
                        for (size_t i = 0; i < 5; i++)
                                list_push_back(&l, &items[i].link);
                        for (unsigned i = 0; i < 5; i++)
                                if (subset & 1U << (i + turn) % 5)
                                        list_remove(&items[(i + turn) % 5].link);
                        for (unsigned i = 0; i < 5; i++)
                                if (!(subset & 1U << i))
                                        expected[n++] = (char)('a' + i);
                        expected[n] = backward[n] = 0;
                        for (size_t i = 0; i < n; i++)
                                backward[i] = expected[n - 1 - i];
                        check_str(spell(&l), expected);
                        check_str(spell_back(&l), backward);
                        check_eq(list_empty(&l), n == 0);
                }
}

TEST(list, a_removed_item_may_be_removed_again_and_pushed_again) {
        struct item items[2];
        struct list l;
        list_init(&l);
        init(items, 2);
        list_remove(&items[0].link); /* never was in a list */
        list_push_back(&l, &items[0].link);
        list_push_back(&l, &items[1].link);
        list_remove(&items[0].link);
        check(list_empty(&items[0].link));
        list_remove(&items[0].link);
        check_str(spell(&l), "b");
        list_push_back(&l, &items[0].link);
        check_str(spell(&l), "ba");
}

TEST(list, the_safe_walk_survives_the_removal_of_its_items) {
        for (unsigned subset = 0; subset < 16; subset++) {
                struct item *items[4];
                unsigned seen = 0;
                struct list l;
                list_init(&l);
                for (unsigned i = 0; i < 4; i++) {
                        items[i] = calloc(1, sizeof(*items[i]));
                        check(items[i]);
                        items[i]->name = (char)i;
                        list_push_back(&l, &items[i]->link);
                }
                list_for_each_safe (&l, it, next) {
                        struct item *item = container_of(it, struct item, link);
                        check_eq(item->name, (int)seen);
                        seen++;
                        if (subset & 1U << item->name) {
                                list_remove(it);
                                free(item);
                        }
                }
                check_eq(seen, 4);
                list_for_each_safe (&l, it, next) {
                        struct item *item = container_of(it, struct item, link);
                        check(!(subset & 1U << item->name));
                        list_remove(it);
                        free(item);
                }
                check(list_empty(&l));
        }
}

/* SPDX-License-Identifier: MIT */
#include "top.h"

#include <strings.h>

#include "cli.h"

enum { PAGE_STEP = 10 };

const char *top_sort_text(enum top_sort sort) {
        static const char *const texts[TOP_SORTS] = {"name", "use", "queue", "leases/s", "errors/s", "wait", "call"};
        return texts[sort];
}

bool top_passes(const struct top *t, const char *name) { return !t->filter[0] || strcasestr(name, t->filter); }

/* ---- order ----------------------------------------------------------------------------------------------------- */

struct rank {
        double value;
        const char *name;
        unsigned index;
};

static double value_of(const struct top *t, const struct lessor_status_database *d, const struct history_figures *f) {
        switch (t->sort) {
        case TOP_BY_USE:
                return d->max_connections ? (double)d->in_use_connections / (double)d->max_connections : 0;
        case TOP_BY_QUEUE:
                return (double)d->waiting * 1e12 + (double)d->oldest_wait;
        case TOP_BY_LEASES:
                return f->leases;
        case TOP_BY_ERRORS:
                return f->errors + f->timeouts;
        case TOP_BY_WAIT:
                return (double)lessor_status_percentile(&f->wait, 0.99);
        case TOP_BY_CALL:
                return (double)lessor_status_percentile(&f->call, 0.99);
        case TOP_BY_NAME:
        case TOP_SORTS:
                break;
        }
        return 0;
}

/* Largest first; names break the tie, so that rows do not jump. */
static int compare(const void *a, const void *b) {
        const struct rank *x = a, *y = b;
        if (x->value != y->value)
                return x->value < y->value ? 1 : -1;
        return strcmp(x->name, y->name);
}

unsigned top_order(const struct top *t, const struct model *m, const struct history *h, unsigned *ret) {
        struct rank *ranks = calloc(m->n_databases + 1, sizeof(*ranks));
        unsigned n = 0;

        if (!ranks)
                out_of_memory();
        for (unsigned i = 0; i < m->n_databases; i++) {
                const struct lessor_status_database *d = &m->databases[i];
                struct history_figures f;
                if (!top_passes(t, d->name))
                        continue;
                history_figures(h, m, d, &f);
                ranks[n++] = (struct rank){value_of(t, d, &f), d->name, i};
        }
        qsort(ranks, n, sizeof(*ranks), compare);
        for (unsigned i = 0; i < n; i++)
                ret[i] = ranks[t->reverse ? n - 1 - i : i].index;
        free(ranks);
        return n;
}

/* The selected one's place in the order, 0 when it is not in it. */
static unsigned place_of(const struct top *t, const struct model *m, const unsigned *order, unsigned n) {
        for (unsigned i = 0; i < n; i++)
                if (strcmp(m->databases[order[i]].name, t->selected) == 0)
                        return i;
        return 0;
}

static unsigned *order_of(const struct top *t, const struct model *m, const struct history *h, unsigned *ret_n) {
        unsigned *order = calloc((m ? m->n_databases : 0) + 1, sizeof(*order));
        if (!order)
                out_of_memory();
        *ret_n = m ? top_order(t, m, h, order) : 0;
        return order;
}

const struct lessor_status_database *top_selected(const struct top *t, const struct model *m, const struct history *h) {
        const struct lessor_status_database *d = NULL;
        unsigned n, *order = order_of(t, m, h, &n);
        if (n)
                d = &m->databases[order[place_of(t, m, order, n)]];
        free(order);
        return d;
}

/* ---- keys ------------------------------------------------------------------------------------------------------ */

static void move(struct top *t, const struct model *m, const struct history *h, int by) {
        unsigned n, *order = order_of(t, m, h, &n);
        if (n) {
                int to = (int)place_of(t, m, order, n) + by;
                to = to < 0 ? 0 : to >= (int)n ? (int)n - 1 : to;
                snprintf(t->selected, sizeof(t->selected), "%s", m->databases[order[to]].name);
        }
        free(order);
}

static void scroll(struct top *t, const struct model *m, const struct history *h, int by) {
        if (t->page == TOP_OVERVIEW)
                move(t, m, h, by);
        else
                t->scroll = by < 0 && t->scroll < (unsigned)-by ? 0 : t->scroll + (unsigned)by;
}

static void type(struct top *t, int key) {
        size_t n = strlen(t->filter);
        if (key == TOP_ENTER)
                t->typing = false;
        else if (key == TOP_BACK) {
                t->typing = false;
                t->filter[0] = '\0';
        } else if (key == TOP_ERASE && n)
                t->filter[n - 1] = '\0';
        else if (key > ' ' && key < 0x7f && n + 1 < sizeof(t->filter)) {
                t->filter[n] = (char)key;
                t->filter[n + 1] = '\0';
        }
}

static void go(struct top *t, enum top_page page) {
        if (page == TOP_HELP && t->page != TOP_HELP)
                t->before_help = t->page;
        t->page = page;
        t->scroll = 0;
}

static void back(struct top *t) {
        if (t->page == TOP_OVERVIEW)
                t->filter[0] = '\0';
        else
                go(t, t->page == TOP_HELP ? t->before_help : TOP_OVERVIEW);
}

static void sort_by(struct top *t, int step) {
        t->sort = (enum top_sort)(((int)t->sort + step + TOP_SORTS) % TOP_SORTS);
        t->reverse = false;
}

/* What moves about. False: none of these. */
static bool movement(struct top *t, const struct model *m, const struct history *h, int key) {
        switch (key) {
        case TOP_UP:
        case 'k':
                scroll(t, m, h, -1);
                return true;
        case TOP_DOWN:
        case 'j':
                scroll(t, m, h, 1);
                return true;
        case TOP_PAGE_UP:
                scroll(t, m, h, -PAGE_STEP);
                return true;
        case TOP_PAGE_DOWN:
                scroll(t, m, h, PAGE_STEP);
                return true;
        case TOP_HOME:
                scroll(t, m, h, -10000);
                return true;
        default:
                return false;
        }
}

void top_key(struct top *t, const struct model *m, const struct history *h, int key) {
        if (t->typing) {
                type(t, key);
                return;
        }
        if (movement(t, m, h, key))
                return;
        switch (key) {
        case 'q':
                t->quit = true;
                break;
        case '?':
        case 'h':
                go(t, TOP_HELP);
                break;
        case TOP_ENTER:
                if (t->page == TOP_OVERVIEW && top_selected(t, m, h)) {
                        move(t, m, h, 0); /* fixes the name, whatever the order will be */
                        go(t, TOP_DATABASE);
                }
                break;
        case TOP_BACK:
        case TOP_ERASE:
                back(t);
                break;
        case 'l':
                go(t, t->page == TOP_HOLDERS ? TOP_OVERVIEW : TOP_HOLDERS);
                break;
        case 's':
                sort_by(t, 1);
                break;
        case 'S':
                sort_by(t, -1);
                break;
        case 'r':
                t->reverse = !t->reverse;
                break;
        case '/':
        case 'f':
                t->typing = true;
                break;
        case 'p':
        case ' ':
                t->paused = !t->paused;
                break;
        case 't':
        case TOP_LEFT:
        case TOP_RIGHT:
                t->times = !t->times;
                break;
        default:
                break;
        }
}

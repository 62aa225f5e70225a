/* SPDX-License-Identifier: MIT */
/*
 * A handle outlives its sessions and crosses forks. What belongs to one process stands in its `home`: a lock, and
 * the session. A child does not touch its parent's home, whose lock another thread may have held for ever at the
 * fork; it puts a new one in front. The old ones stay until lessor_close(), so that nobody needs to know who still
 * looks at them.
 *
 * An attempt to attach stands in the home, too: threads that wait take steps of it that wait, one thread at a time; event
 * loops take steps that do not. Whoever is there when it comes to an end tells the others.
 *
 * Databases are named, not numbered: a number belongs to one session's control page and is looked up anew in the
 * next.
 */
#include "client.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "attach.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "error.h"
#include "warm.h"

_Static_assert(sizeof(((struct lessor *)NULL)->socket) == sizeof(((struct sockaddr_un *)NULL)->sun_path), "a path");

struct home {
        uint32_t epoch;
        struct home *older; /* an ancestor process' */
        pthread_mutex_t lock;
        pthread_cond_t attached;
        bool attaching; /* an attempt is under way, whoever takes the next step */
        bool driven;    /* a thread is in the middle of one; the others wait */
        struct attach attach;
        struct list watches; /* struct client_watch */
        unsigned attempts;   /* finished */
        lessor_error last;   /* why the last of them failed */
        struct session *session;
};

static struct home *home_new(struct home *older) {
        struct home *h = calloc(1, sizeof(*h));
        pthread_condattr_t attributes;

        if (!h)
                return NULL;
        h->epoch = fork_epoch();
        h->older = older;
        list_init(&h->watches);
        pthread_mutex_init(&h->lock, NULL);
        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        pthread_cond_init(&h->attached, &attributes);
        pthread_condattr_destroy(&attributes);
        return h;
}

static void home_free(struct home *h) {
        session_unref(h->session);
        session_unref(h->attach.session);
        if (h->epoch == fork_epoch()) {
                pthread_cond_destroy(&h->attached);
                pthread_mutex_destroy(&h->lock);
        }
        free(h);
}

static struct home *client_home(struct lessor *l) {
        struct home *h = atomic_load_explicit(&l->home, memory_order_acquire), *fresh;
        uint32_t epoch = fork_epoch();

        while (h->epoch != epoch) {
                fresh = home_new(h);
                if (!fresh)
                        return NULL;
                /* release: the new home is complete; pairs with the load above. */
                if (atomic_compare_exchange_strong_explicit(&l->home, &h, fresh, memory_order_acq_rel,
                                                            memory_order_acquire))
                        return fresh;
                home_free(fresh);
        }
        return h;
}

int lessor_open(const char *socket, lessor **ret) {
        struct lessor *l;
        struct home *h;

        if (!socket)
                socket = secure_getenv("LESSOR_SOCKET");
        if (!socket || !*socket)
                socket = LESSOR_SOCKET_DEFAULT;
        if (strlen(socket) >= sizeof(l->socket))
                return -EINVAL;
        if (fork_init() < 0)
                return -ENOMEM;
        l = calloc(1, sizeof(*l));
        h = home_new(NULL);
        if (!l || !h) {
                free(l);
                free(h);
                return -ENOMEM;
        }
        snprintf(l->socket, sizeof(l->socket), "%s", socket);
        atomic_init(&l->home, h);
        *ret = l;
        return 0;
}

void lessor_close(lessor *l) {
        NO_CANCEL;

        if (!l)
                return;
        for (struct lessor_db *db = atomic_load(&l->databases), *next; db; db = next) {
                next = db->next;
                for (struct warm_set *set = atomic_load(&db->warm), *older; set; set = older) {
                        older = set->older;
                        warm_set_close(set);
                }
                free(db);
        }
        for (struct home *h = atomic_load(&l->home), *older; h; h = older) {
                older = h->older;
                home_free(h);
        }
        free(l);
}

/* ---- attaching: one attempt at a time, which belongs to nobody. Home lock held ---------------------------------------- */

static void home_tell(struct home *h) {
        pthread_cond_broadcast(&h->attached);
        list_for_each (&h->watches, it) {
                struct client_watch *w = container_of(it, struct client_watch, link);
                w->told(w);
        }
}

static void home_begin(struct home *h, const char *socket, uint64_t deadline) {
        h->session = session_unref(h->session);
        h->attaching = true;
        attach_begin(&h->attach, socket, deadline);
}

/* A step came to `r`. */
static void home_judge(struct home *h, int r, struct session *s, const lessor_error *error) {
        if (r != -EINPROGRESS) {
                h->session = s;
                h->last = *error;
                h->attempts++;
                h->attaching = false;
        }
        home_tell(h);
}

/* Released while it waits: `driven` keeps others away. Whoever leaves before the end leaves it to them. */
static void home_drive(struct home *h, uint64_t until) {
        struct session *s = NULL;
        lessor_error error;
        int r;

        h->driven = true;
        pthread_mutex_unlock(&h->lock);
        error_clear(&error);
        r = attach_step(&h->attach, until, &s, &error);
        pthread_mutex_lock(&h->lock);
        h->driven = false;
        home_judge(h, r, s, &error);
}

/* One attempt: false when the deadline passed before it came to an end. */
static bool home_await(struct home *h, const char *socket, uint64_t deadline) {
        struct timespec t = {.tv_sec = (time_t)(deadline / NS_PER_S), .tv_nsec = (long)(deadline % NS_PER_S)};
        unsigned attempts = h->attempts;
        bool in_time = true;

        if (!h->attaching)
                home_begin(h, socket, deadline);
        while (h->attempts == attempts && in_time) {
                if (h->driven)
                        in_time = pthread_cond_timedwait(&h->attached, &h->lock, &t) == 0;
                else
                        home_drive(h, deadline);
                in_time = in_time && clock_now() < deadline;
        }
        return h->attempts != attempts;
}

static int home_failed(const struct home *h, lessor_error *error) {
        if (error)
                *error = h->last;
        return h->last.code;
}

int client_session(struct lessor *l, uint64_t deadline, struct session **ret, lessor_error *error) {
        struct home *h = client_home(l);
        bool fresh = false;
        int r = 0;

        if (!h)
                return error_set(error, -ENOMEM, "out of memory");
        pthread_mutex_lock(&h->lock);
        if (!h->session || session_over(h->session)) {
                if (!home_await(h, l->socket, deadline))
                        r = error_set(error, LESSOR_E_UNAVAILABLE, "the broker on %s does not answer", l->socket);
                else if (!h->session)
                        r = home_failed(h, error);
                else
                        fresh = true;
        }
        if (r == 0)
                *ret = session_ref(h->session);
        pthread_mutex_unlock(&h->lock);
        if (fresh)
                warm_retire_others(l, *ret);
        return r;
}

/* One step, without waiting. */
static int home_step(struct lessor *l, struct home *h, uint64_t now, struct client_attach *ret, lessor_error *error) {
        struct session *s = NULL;
        lessor_error local;
        int r = -EINPROGRESS;

        *ret = (struct client_attach){.fd = -1, .at = TIME_NEVER};
        if (!h->attaching && !lease_may_attach(l, now)) {
                ret->at = atomic_load_explicit(&l->next_attach, memory_order_relaxed);
                return r;
        }
        if (!h->attaching)
                home_begin(h, l->socket, time_after(now, ATTACH_NS));
        if (h->driven)
                return r;
        error_clear(&local);
        r = attach_step(&h->attach, 0, &s, &local);
        if (r == -EINPROGRESS) {
                *ret = (struct client_attach){.fd = attach_fd(&h->attach), .at = attach_at(&h->attach)};
                return r;
        }
        home_judge(h, r, s, &local);
        if (r != 0)
                lease_attach_later(l, now);
        return r == 0 ? 0 : home_failed(h, error);
}

int client_session_now(struct lessor *l, struct client_watch *w, struct session **ret, struct client_attach *ret_attach,
                       lessor_error *error) {
        struct home *h = client_home(l);
        bool fresh = false;
        int r = 0;

        if (!h)
                return error_set(error, -ENOMEM, "out of memory");
        pthread_mutex_lock(&h->lock);
        if (!h->session || session_over(h->session)) {
                r = home_step(l, h, clock_now(), ret_attach, error);
                fresh = r == 0;
        }
        list_remove(&w->link);
        if (r == -EINPROGRESS)
                list_push_back(&h->watches, &w->link);
        if (r == 0)
                *ret = session_ref(h->session);
        pthread_mutex_unlock(&h->lock);
        if (fresh)
                warm_retire_others(l, *ret);
        return r;
}

void client_unwatch(struct lessor *l, struct client_watch *w) {
        struct home *h = client_home(l);

        if (!h)
                return;
        pthread_mutex_lock(&h->lock);
        list_remove(&w->link);
        home_tell(h); /* it may have been the only one that was at it */
        pthread_mutex_unlock(&h->lock);
}

static int client_unknown(struct session *s, const char *name, lessor_error *error) {
        char known[320];

        control_names(&s->control, known, sizeof(known));
        if (!known[0])
                return error_set(error, LESSOR_E_UNKNOWN_DATABASE, "no database `%s` on %s, which has none at all",
                                 name, s->socket);
        return error_set(error, LESSOR_E_UNKNOWN_DATABASE, "no database `%s` on %.100s, which knows %s", name,
                         s->socket, known);
}

int client_place(struct session *s, struct lessor_db *db, uint32_t *ret_index,
                 const struct lessor_control_database **ret, lessor_error *error) {
        uint64_t place = atomic_load_explicit(&db->place, memory_order_relaxed);
        const struct lessor_control_database *d = NULL;
        uint32_t index = (uint32_t)place;

        if (place >> 32 == s->serial)
                d = control_database(&s->control, index);
        if (!d) {
                d = control_find(&s->control, db->name, &index);
                if (!d)
                        return client_unknown(s, db->name, error);
                atomic_store_explicit(&db->place, (uint64_t)s->serial << 32 | index, memory_order_relaxed);
        }
        *ret_index = index;
        *ret = d;
        return 0;
}

static struct lessor_db *client_known(struct lessor_db *first, const struct lessor_db *end, const char *name) {
        for (struct lessor_db *db = first; db && db != end; db = db->next)
                if (strcmp(db->name, name) == 0)
                        return db;
        return NULL;
}

/* Two threads may come with the same name at once. */
struct lessor_db *client_intern(struct lessor *l, const char *name) {
        struct lessor_db *first = atomic_load_explicit(&l->databases, memory_order_acquire), *db, *other;

        db = client_known(first, NULL, name);
        if (db)
                return db;
        db = calloc(1, sizeof(*db));
        if (!db)
                return NULL;
        db->client = l;
        snprintf(db->name, sizeof(db->name), "%s", name);
        do {
                other = client_known(first, db->next, name);
                if (other) {
                        free(db);
                        return other;
                }
                db->next = first;
                /* release: the entry is complete; pairs with the acquire loads of the list's head. */
        } while (!atomic_compare_exchange_weak_explicit(&l->databases, &first, db, memory_order_acq_rel,
                                                        memory_order_acquire));
        return db;
}

int lessor_database(lessor *l, const char *name, lessor_db **ret, lessor_error *error) {
        NO_CANCEL;
        struct session *s;
        struct lessor_db *db;
        uint32_t index;
        int r;

        error_clear(error);
        if (!l || !ret)
                return error_argument(error, "lessor_database", !l ? "lessor" : "ret", "is NULL");
        if (!name)
                name = "main";
        if (!*name)
                return error_argument(error, "lessor_database", "name", "is empty (NULL means `main`)");
        r = client_session(l, time_after(clock_now(), ATTACH_NS), &s, error);
        if (r != 0)
                return r;
        db = NULL;
        if (strlen(name) >= LESSOR_NAME_SIZE || !control_find(&s->control, name, &index))
                r = client_unknown(s, name, error);
        else
                db = client_intern(l, name);
        session_unref(s);
        if (r == 0 && !db)
                r = error_set(error, -ENOMEM, "out of memory");
        if (r == 0)
                *ret = db;
        return r;
}

/* SPDX-License-Identifier: MIT */
#include "users.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"

struct user {
        struct list link;
        uid_t uid;
        unsigned sessions;
};

void users_init(struct users *users) {
        pthread_mutex_init(&users->lock, NULL);
        list_init(&users->list);
}

void users_deinit(struct users *users) {
        list_for_each_safe (&users->list, it, next)
                free(container_of(it, struct user, link));
        list_init(&users->list);
        pthread_mutex_destroy(&users->lock);
}

/* Lock held. Few: every user of this host who runs workers. */
static struct user *find(struct users *users, uid_t uid) {
        list_for_each (&users->list, it) {
                struct user *user = container_of(it, struct user, link);
                if (user->uid == uid)
                        return user;
        }
        return NULL;
}

static int enter(struct users *users, uid_t uid, unsigned max) {
        struct user *user = find(users, uid);
        if (user && max && user->sessions >= max)
                return -EDQUOT;
        if (!user) {
                if (!(user = calloc(1, sizeof(*user))))
                        return -ENOMEM;
                user->uid = uid;
                list_push_back(&users->list, &user->link);
        }
        user->sessions++;
        return 0;
}

int users_enter(struct users *users, uid_t uid, unsigned max) {
        pthread_mutex_lock(&users->lock);
        int r = enter(users, uid, max);
        pthread_mutex_unlock(&users->lock);
        return r;
}

void users_leave(struct users *users, uid_t uid) {
        pthread_mutex_lock(&users->lock);
        struct user *user = find(users, uid);
        assert(user);
        if (--user->sessions == 0) {
                list_remove(&user->link);
                free(user);
        }
        pthread_mutex_unlock(&users->lock);
}

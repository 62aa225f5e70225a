/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * How many sessions each user (uid) has, over all data threads. Asked once in a session's life, so a lock will do.
 */
#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/list.h"

struct users {
        pthread_mutex_t lock;
        struct list list; /* those with a session */
};

void users_init(struct users *users);
void users_deinit(struct users *users);

/* One more of his, unless he has `max` already (0: no limit). 0; -EDQUOT; -ENOMEM. */
int users_enter(struct users *users, uid_t uid, unsigned max);
void users_leave(struct users *users, uid_t uid); /* one that has entered */

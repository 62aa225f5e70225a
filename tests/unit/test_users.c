/* SPDX-License-Identifier: MIT */
/* Sessions counted by user. */
#include "users.h"

#include <errno.h>

#include "support/check.h"

TEST(users, each_has_his_own_limit) {
        struct users users;
        users_init(&users);
        check_eq(users_enter(&users, 1, 2), 0);
        check_eq(users_enter(&users, 1, 2), 0);
        check_eq(users_enter(&users, 1, 2), -EDQUOT);
        check_eq(users_enter(&users, 2, 2), 0);
        users_leave(&users, 1);
        check_eq(users_enter(&users, 1, 2), 0);
        check_eq(users_enter(&users, 1, 2), -EDQUOT);
        users_deinit(&users);
}

TEST(users, no_limit_is_no_limit_and_who_has_left_leaves_nothing) {
        struct users users;
        users_init(&users);
        for (unsigned i = 0; i < 1000; i++)
                check_eq(users_enter(&users, 7, 0), 0);
        check_eq(users_enter(&users, 7, 1000), -EDQUOT); /* a limit that came later, and counts those there are */
        for (unsigned i = 0; i < 1000; i++)
                users_leave(&users, 7);
        check(list_empty(&users.list));
        users_deinit(&users);
}

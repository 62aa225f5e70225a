/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apart.h"
#include "support/check.h"

#define SMALL 64U

static struct reply_budget budget;

static void add(struct apart *a, const char *text, uint64_t expected) {
        apart_add(a, text, strlen(text), SMALL, expected);
}

static void check_memfd(int fd, const char *text) {
        char buffer[1024];
        check_eq(pread(fd, buffer, sizeof(buffer), 0), (ssize_t)strlen(text));
        check(memcmp(buffer, text, strlen(text)) == 0);
        check_eq(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
        check_eq(pwrite(fd, "x", 1, 0), -1);
}

TEST(apart, pieces_of_a_small_reply_are_put_together_in_memory) {
        struct apart a;
        atomic_init(&budget.limit, 0);
        apart_init(&a, &budget);
        add(&a, "$5\r\nhe", 5);
        add(&a, "llo", 2);
        add(&a, "\r\n", 0);
        check_eq(a.size, 11);
        check(a.fd < 0 && memcmp(a.data, "$5\r\nhello\r\n", 11) == 0);
        apart_clear(&a);
        check_eq(a.size, 0);
        apart_deinit(&a);
}

TEST(apart, a_large_one_moves_into_a_sealed_memfd_whole) {
        struct apart a;
        uint64_t size = 0, reserved = 0;
        const char *half = "0123456789012345678901234567890123456789";
        char whole[128];
        atomic_init(&budget.limit, 1000);
        apart_init(&a, &budget);
        add(&a, half, 0);
        check(a.fd < 0);
        add(&a, half, 0);
        check(a.fd >= 0);
        int fd = apart_seal(&a, &size, &reserved);
        snprintf(whole, sizeof(whole), "%s%s", half, half);
        check_eq(size, strlen(whole));
        check_eq(reserved, size);
        check_eq(atomic_load(&budget.used), size);
        check_memfd(fd, whole);
        close(fd);
        reply_budget_give(&budget, reserved);
        apart_deinit(&a);
        check_eq(atomic_load(&budget.used), 0);
}

TEST(apart, one_alone_may_exceed_the_budget_and_a_second_one_beside_it_is_dropped) {
        struct apart a, b;
        atomic_init(&budget.limit, 100);
        apart_init(&a, &budget);
        apart_init(&b, &budget);
        add(&a, "beginning", 1000);
        check(a.fd >= 0 && !a.dropped);
        add(&b, "beginning", 80);
        check(b.dropped && b.fd < 0);
        add(&b, "the rest is read and thrown away", 0);
        check_eq(b.size, strlen("beginning") + strlen("the rest is read and thrown away"));
        apart_clear(&a);
        apart_clear(&b);
        check_eq(atomic_load(&budget.used), 0);
        add(&b, "beginning", 80);
        check(!b.dropped && b.fd >= 0);
        apart_deinit(&a);
        apart_deinit(&b);
        check_eq(atomic_load(&budget.used), 0);
}

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Tests: Criterion, except under ThreadSanitizer, where Criterion 2.4.1 does not start: there the same tests run one by
 * one, each in a forked child, by the small runner in plain.c. Write tests with these macros only.
 *
 *      TEST(pool, a_return_serves_the_first_in_the_queue) { check(x == 1); check_eq(a, b); check_str(s, "text"); }
 *
 * A test with fixtures or a longer limit than 60 s: TEST_WITH(suite, name, .init = f, .fini = g, .timeout = 120).
 * test_skip("why") is for what the machine cannot do; the reason is always printed.
 * In a child that the test forks itself, do not use check macros: report by exit status (child_check() does).
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef LESSOR_PLAIN_TESTS
struct plain_test {
        const char *suite, *name;
        void (*run)(void);
        void (*init)(void);
        void (*fini)(void);
        double timeout;
        struct plain_test *next;
};
void plain_register(struct plain_test *test);
void plain_fail(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4), noreturn));
void plain_skip(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
#define TEST_WITH(s, n, ...)                                                                                           \
        static void s##_##n(void);                                                                                     \
        static struct plain_test s##_##n##_test = {.suite = #s, .name = #n, .run = s##_##n, __VA_ARGS__};              \
        __attribute__((constructor)) static void s##_##n##_register(void) { plain_register(&s##_##n##_test); }         \
        static void s##_##n(void)
#define check_msg(cond, ...) ((cond) ? (void)0 : plain_fail(__FILE__, __LINE__, __VA_ARGS__))
#define test_skip(...) plain_skip(__VA_ARGS__)
#else
#include <criterion/criterion.h>
#define TEST_WITH(s, n, ...) Test(s, n, __VA_ARGS__)
#define check_msg(cond, ...) cr_assert(cond, __VA_ARGS__)
#define test_skip(...) (fprintf(stderr, "[SKIP] " __VA_ARGS__), fputc('\n', stderr), cr_skip_test(__VA_ARGS__))
#endif

#define TEST(s, n) TEST_WITH(s, n, .timeout = 60)
#define check(cond) check_msg((cond), "%s", #cond)
#define check_eq(a, b)                                                                                                 \
        do {                                                                                                           \
                long long check_a_ = (long long)(a), check_b_ = (long long)(b);                                        \
                check_msg(check_a_ == check_b_, "%s is %lld, expected %s = %lld", #a, check_a_, #b, check_b_);         \
        } while (0)
#define check_str(a, b)                                                                                                \
        do {                                                                                                           \
                const char *check_a_ = (a), *check_b_ = (b);                                                           \
                check_msg(check_a_ &&strcmp(check_a_, check_b_) == 0, "%s is `%s`, expected `%s`", #a,                 \
                          check_a_ ? check_a_ : "(null)", check_b_);                                                   \
        } while (0)

/* In a forked child: says what failed and ends the child with status 1. */
#define child_check(cond)                                                                                              \
        do {                                                                                                           \
                if (!(cond)) {                                                                                         \
                        fprintf(stderr, "%s:%d: child %d: %s\n", __FILE__, __LINE__, (int)getpid(), #cond);            \
                        _exit(1);                                                                                      \
                }                                                                                                      \
        } while (0)

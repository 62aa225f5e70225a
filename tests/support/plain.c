/* SPDX-License-Identifier: MIT */
/* The runner for builds where Criterion cannot start (see check.h): every test in a child, one after the other. */
#ifdef LESSOR_PLAIN_TESTS
#include "check.h"

#include <stdarg.h>
#include <sys/wait.h>

enum { EXIT_SKIPPED = 77 };

static struct plain_test *first, **last = &first;

void plain_register(struct plain_test *test) {
        *last = test;
        last = &test->next;
}

void plain_fail(const char *file, int line, const char *fmt, ...) {
        va_list args;
        va_start(args, fmt);
        fprintf(stderr, "%s:%d: ", file, line);
        vfprintf(stderr, fmt, args);
        fputc('\n', stderr);
        va_end(args);
        exit(1);
}

void plain_skip(const char *fmt, ...) {
        va_list args;
        va_start(args, fmt);
        fputs("[SKIP] ", stderr);
        vfprintf(stderr, fmt, args);
        fputc('\n', stderr);
        va_end(args);
        exit(EXIT_SKIPPED);
}

static int run_one(const struct plain_test *test) {
        fflush(NULL); /* what is buffered must not be printed by each child again */
        pid_t pid = fork();
        int status;
        if (pid == 0) {
                alarm(test->timeout > 0 ? (unsigned)test->timeout : 60);
                if (test->init)
                        test->init();
                test->run();
                if (test->fini)
                        test->fini();
                exit(0);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid)
                return 1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char **argv) {
        unsigned passed = 0, failed = 0, skipped = 0;
        for (const struct plain_test *t = first; t; t = t->next) {
                if (argc > 1 && !strstr(t->name, argv[1]))
                        continue;
                int result = run_one(t);
                passed += result == 0;
                skipped += result == EXIT_SKIPPED;
                failed += result != 0 && result != EXIT_SKIPPED;
                if (result != 0)
                        printf("%s %s::%s (%d)\n", result == EXIT_SKIPPED ? "SKIP" : "FAIL", t->suite, t->name, result);
        }
        printf("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
        return failed != 0 || passed + skipped == 0;
}
#endif

/* SPDX-License-Identifier: MIT */
#include "orders.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "check.h"
#include "process.h"

enum { WORDS_MAX = 12 };

static int run(const struct broker *b, char **ret_said, va_list words) {
        const char *argv[WORDS_MAX + 4] = {tool_path()};
        unsigned n = 1;
        while (n < WORDS_MAX && (argv[n] = va_arg(words, const char *)))
                n++;
        argv[n++] = "--instance";
        argv[n++] = b->instance;
        argv[n] = NULL;
        return program_run(argv, ret_said, ORDER_MS);
}

int order(const struct broker *b, char **ret_said, ...) {
        va_list words;
        char *said = NULL;
        va_start(words, ret_said);
        int r = run(b, &said, words);
        va_end(words);
        if (ret_said)
                *ret_said = said;
        else
                free(said);
        return r;
}

void check_order(const struct broker *b, int status, const char *says, ...) {
        va_list words;
        char *said = NULL;
        va_start(words, says);
        int r = run(b, &said, words);
        va_end(words);
        check_msg(r == status && strstr(said, says), "exit %d, expected %d; said: %s; expected: %s", r, status, said,
                  says);
        free(said);
}

int orders_open(const struct broker *b, const char *name) {
        struct sockaddr_un ours = {.sun_family = AF_UNIX}, broker = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        snprintf(broker.sun_path, sizeof(broker.sun_path), LESSOR_ADMIN_PATH, b->instance);
        snprintf(ours.sun_path, sizeof(ours.sun_path), LESSOR_ADMIN_PATH ".%s", b->instance, name);
        mode_t mask = umask(0);
        int r = fd < 0 || bind(fd, (struct sockaddr *)&ours, sizeof(ours)) < 0 ||
                                connect(fd, (struct sockaddr *)&broker, sizeof(broker)) < 0
                        ? -errno
                        : 0;
        umask(mask);
        if (r == 0)
                return fd;
        close(fd);
        return r;
}

struct lessor_admin_request orders_request(enum lessor_admin_command command, const char *database) {
        struct lessor_admin_request r = {
                .magic = LESSOR_ADMIN_MAGIC, .version = LESSOR_ADMIN_VERSION, .command = command, .tag = 1};
        if (database)
                snprintf(r.database, sizeof(r.database), "%s", database);
        return r;
}

int orders_wait(int socket, struct lessor_admin_answer *ret) {
        struct pollfd in = {.fd = socket, .events = POLLIN};
        if (poll(&in, 1, ORDER_MS * PROCESS_SLOW) <= 0)
                return -ETIMEDOUT;
        ssize_t n = recv(socket, ret, sizeof(*ret), 0);
        return n == (ssize_t)sizeof(*ret) ? (int)ret->outcome : -EPROTO;
}

int orders_ask(int socket, const struct lessor_admin_request *request, struct lessor_admin_answer *ret) {
        if (send(socket, request, sizeof(*request), MSG_NOSIGNAL) < 0)
                return -errno;
        return orders_wait(socket, ret);
}

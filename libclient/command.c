/* SPDX-License-Identifier: MIT */
/* Commands: formatted, on a lease or on one borrowed for a single call. */
#include "command.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/command.h"
#include "base/resp.h"
#include "call.h"
#include "error.h"

#define COMMAND_MAX (INT_MAX - 1024) /* hiredis counts a command's bytes in an int */
#define ARGUMENT_EXTRA 32U           /* "$...\r\n" and "\r\n" around an argument */

void command_deinit(struct command *c) {
        if (c->own)
                free(c->data);
        else if (c->data)
                redisFreeCommand(c->data);
        c->data = NULL;
}

/* `length` as hiredis returns it: what was formatted, or why not. */
static int command_take(struct command *c, char *data, int length, const char *function, lessor_error *error) {
        *c = (struct command){.data = data, .size = (size_t)length};
        if (length == -2)
                return error_argument(error, function, "fmt", "is not a valid format");
        if (length < 0)
                return error_set(error, -ENOMEM, "%s: out of memory", function);
        if (!resp_command_name(data, c->size, &c->name, &c->name_len)) {
                command_deinit(c);
                return error_argument(error, function, "fmt", "has no command in it");
        }
        return 0;
}

int command_vformat(struct command *c, const char *function, lessor_error *error, const char *fmt, va_list args) {
        char *data = NULL;
        int length;

        if (!fmt)
                return error_argument(error, function, "fmt", "is NULL");
        length = redisvFormatCommand(&data, fmt, args);
        return command_take(c, data, length, function, error);
}

static const char *command_check_argv(int argc, const char **argv, const size_t *argv_len) {
        size_t total = 0;

        for (int i = 0; i < argc; i++) {
                size_t length;
                if (!argv[i] && !(argv_len && argv_len[i] == 0))
                        return "has a NULL in it";
                length = argv_len ? argv_len[i] : strlen(argv[i]);
                if (length > COMMAND_MAX || total + length + ARGUMENT_EXTRA > COMMAND_MAX)
                        return "is larger than 2 GiB altogether";
                total += length + ARGUMENT_EXTRA;
        }
        return NULL;
}

int command_format_argv(struct command *c, const char *function, lessor_error *error, int argc, const char **argv,
                        const size_t *argv_len) {
        const char *wrong;

        if (argc < 1)
                return error_argument(error, function, "argc", "is less than 1");
        wrong = argv ? command_check_argv(argc, argv, argv_len) : "is NULL";
        if (wrong)
                return error_argument(error, function, "argv", wrong);
        *c = (struct command){.size = resp_request_size(argc, argv, argv_len), .own = true};
        c->name_len = argv_len ? argv_len[0] : strlen(argv[0]);
        c->data = malloc(c->size);
        if (!c->data)
                return error_set(error, -ENOMEM, "%s: out of memory", function);
        resp_request_write(c->data, argc, argv, argv_len, &c->name);
        return 0;
}

static bool is_blocking(const struct command *c) { return command_blocks(c->name, c->name_len); }

/* Takes the command. */
static redisReply *command_once(lessor_db *db, int wait_ms, struct command *c, lessor_error *error) {
        struct exchange x = {.out = c->data, .size = c->size, .ends = &c->size, .requests = 1, .expected = 1};
        struct request request = {.wait_ms = wait_ms, .site.file = "lessor_command"};
        redisReply *reply = NULL;
        lessor_error local;

        x.replies = &reply;
        request.pinned = is_blocking(c);
        call_exchange_once(db, &request, &x, error ? error : &local);
        command_deinit(c);
        return reply;
}

redisReply *lessor_command(lessor_db *db, lessor_error *error, const char *fmt, ...) {
        NO_CANCEL;
        struct command c;
        va_list args;
        int r;

        error_clear(error);
        if (!db) {
                error_argument(error, "lessor_command", "db", "is NULL");
                return NULL;
        }
        va_start(args, fmt);
        r = command_vformat(&c, "lessor_command", error, fmt, args);
        va_end(args);
        return r == 0 ? command_once(db, LESSOR_WAIT_CONFIGURED, &c, error) : NULL;
}

redisReply *lessor_command_argv(lessor_db *db, int wait_ms, int argc, const char **argv, const size_t *argv_len,
                                lessor_error *error) {
        NO_CANCEL;
        struct command c;

        error_clear(error);
        if (!db || wait_ms < LESSOR_WAIT_CONFIGURED) {
                error_argument(error, "lessor_command_argv", !db ? "db" : "wait_ms", !db ? "is NULL" : "is negative");
                return NULL;
        }
        if (command_format_argv(&c, "lessor_command_argv", error, argc, argv, argv_len) != 0)
                return NULL;
        return command_once(db, wait_ms, &c, error);
}

redisReply *lessor_command_idempotent(lessor_db *db, int wait_ms, int argc, const char **argv, const size_t *argv_len,
                                      lessor_error *error) {
        NO_CANCEL;
        __attribute__((cleanup(command_deinit))) struct command c = {0};
        redisReply *reply = NULL;
        lessor_error local;

        error_clear(error);
        if (!db || wait_ms < 0) {
                error_argument(error, "lessor_command_idempotent", !db ? "db" : "wait_ms",
                               !db ? "is NULL" : "is negative");
                return NULL;
        }
        if (command_format_argv(&c, "lessor_command_idempotent", error, argc, argv, argv_len) != 0)
                return NULL;
        struct exchange x = {
                .out = c.data, .size = c.size, .ends = &c.size, .requests = 1, .replies = &reply, .expected = 1};
        struct request request = {.wait_ms = wait_ms, .site.file = "lessor_command", .pinned = is_blocking(&c)};
        call_exchange_until(db, &request, &x, error ? error : &local);
        return reply;
}

redisReply *lessor_lease_command(lessor_lease *lease, lessor_error *error, const char *fmt, ...) {
        NO_CANCEL;
        __attribute__((cleanup(command_deinit))) struct command c = {0};
        va_list args;
        int r;

        error_clear(error);
        if (lease_check(lease, "lessor_lease_command", error) != 0)
                return NULL;
        va_start(args, fmt);
        r = command_vformat(&c, "lessor_lease_command", error, fmt, args);
        va_end(args);
        return r == 0 ? lease_command(lease, c.data, c.size, error) : NULL;
}

redisReply *lessor_lease_command_argv(lessor_lease *lease, int argc, const char **argv, const size_t *argv_len,
                                      lessor_error *error) {
        NO_CANCEL;
        __attribute__((cleanup(command_deinit))) struct command c = {0};

        error_clear(error);
        if (lease_check(lease, "lessor_lease_command_argv", error) != 0 ||
            command_format_argv(&c, "lessor_lease_command_argv", error, argc, argv, argv_len) != 0)
                return NULL;
        return lease_command(lease, c.data, c.size, error);
}

redisReply *lessor_lease_read(lessor_lease *lease, lessor_error *error) {
        NO_CANCEL;
        redisReply *reply = NULL;
        struct exchange x = {.replies = &reply, .expected = 1};

        error_clear(error);
        if (lease_check(lease, "lessor_lease_read", error) != 0)
                return NULL;
        return lease_exchange(lease, &x, error) == 0 ? reply : NULL;
}

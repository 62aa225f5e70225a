/* SPDX-License-Identifier: MIT */
#include "support/check.h"

#include <errno.h>

#include "config/diff.h"
#include "config/parse.h"

static uint32_t alice = 1000;
static const char *secret = "one";

static int fake_id(const char *name, uint32_t *ret) {
        *ret = alice;
        return 0;
}

static int fake_secret(const char *path, char **ret) {
        *ret = strdup(secret);
        return 0;
}

static struct config *parse(const char *text) {
        static const struct config_host host = {fake_id, fake_id, fake_secret};
        struct config_input input = {.name = "t.yaml", .data = text, .size = strlen(text), .host = &host};
        struct config_report report = {0};
        struct config *c = NULL;
        int r = config_parse(&input, &report, &c);
        check_msg(r == 0, "%s", report.n ? report.messages[0].text : "no message");
        config_report_deinit(&report);
        return c;
}

/* Checks what config_diff_write() says; frees both. */
static bool check_diff(struct config *before, struct config *after, const char *expected) {
        struct config_diff diff;
        char *text;
        size_t size;
        check_eq(config_diff(before, after, &diff), 0);
        FILE *f = open_memstream(&text, &size);
        config_diff_write(&diff, f);
        fclose(f);
        check_str(text, expected);
        bool restart = diff.restart;
        config_diff_deinit(&diff);
        config_free(before);
        config_free(after);
        free(text);
        return restart;
}

TEST(config_diff, two_readings_of_the_same_file_do_not_differ) {
        static const char text[] = "databases: {a: {allow: {users: [x, 5]}, password_file: /p}, b: {unix_socket: /s}}";
        check(!check_diff(parse(text), parse(text), ""));
}

TEST(config_diff, what_is_written_otherwise_and_means_the_same_does_not_differ) {
        check(!check_diff(parse("databases: {a: {socket_timeout: 5s, allow: {users: [1, 2, 2]}}}"),
                          parse("socket_timeout: 5000ms\nredis_databases: {a: {allow: {users: [2, 1]}}}"), ""));
}

TEST(config_diff, databases_come_and_go_and_change) {
        check(!check_diff(parse("databases: {a: {db: 1}, b: {db: 2}, c: {db: 3}}"),
                          parse("databases: {d: {db: 4}, c: {db: 3, max_connections: 5, min_idle: 1}, a: {db: 7}}"),
                          "b: removed (drain)\n"
                          "d: added (live)\n"
                          "c: changed max_connections, min_idle (live)\n"
                          "a: changed db (drain)\n"));
}

TEST(config_diff, a_top_level_value_changes_each_database_without_its_own) {
        check(!check_diff(parse("databases: {a: {}, b: {port: 1}}"), parse("port: 7\ndatabases: {a: {}, b: {port: 1}}"),
                          "a: changed port (drain)\n"));
}

TEST(config_diff, the_path_of_single_commands_changes_while_the_broker_runs) {
        check(!check_diff(parse("databases: {a: {}, b: {path: lane}}"),
                          parse("path: lease\ndatabases: {a: {}, b: {path: lane}}"), "a: changed path (live)\n"));
        check(!check_diff(parse("databases: {a: {}}"), parse("databases: {a: {path: auto}}"), ""));
}

TEST(config_diff, some_keys_of_the_broker_need_a_restart) {
        check(!check_diff(parse("databases: {a: {}}"), parse("log_level: debug\ndatabases: {a: {}}"),
                          "broker: changed log_level (live)\n"));
        check(check_diff(parse("databases: {a: {}}"), parse("threads: 2\nlog_level: debug\ndatabases: {a: {}}"),
                         "broker: changed threads, log_level (restart)\n"));
        check(check_diff(parse("databases: {a: {}}"), parse("instance: x\ndatabases: {a: {}}"),
                         "broker: changed instance, socket (restart)\n"));
}

TEST(config_diff, a_rotated_password_is_seen_and_not_said) {
        static const char text[] = "databases: {a: {password_file: /p}}";
        struct config *before = parse(text);
        secret = "two";
        check(!check_diff(before, parse(text), "a: changed password (drain)\n"));
}

TEST(config_diff, a_user_whose_number_changed_is_seen) {
        static const char text[] = "socket_group: g\ndatabases: {a: {allow: {users: [x]}}}";
        struct config *before = parse(text);
        alice = 1001;
        check(check_diff(before, parse(text), "broker: changed socket_group (restart)\na: changed allow (live)\n"));
}

TEST(config_diff, host_and_port_do_not_matter_on_a_unix_socket) {
        check(!check_diff(parse("unix_socket: /s\ndatabases: {a: {}}"),
                          parse("databases: {a: {unix_socket: /s}}\nport: 5"), ""));
        check(!check_diff(parse("databases: {a: {unix_socket: /s}}"), parse("databases: {a: {port: 5}}"),
                          "a: changed port, unix_socket (drain)\n"));
}

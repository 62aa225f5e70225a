/* SPDX-License-Identifier: MIT */
/* The loader: real files, real names, a real credentials directory. */
#include "support/check.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>

#include <base/cleanup.h>

#include "config/load.h"

static char directory[64];

static void make_directory(void) {
        snprintf(directory, sizeof(directory), "/tmp/lessor-config-XXXXXX");
        check(mkdtemp(directory) != NULL);
}

static void remove_directory(void) {
        char command[128];
        snprintf(command, sizeof(command), "rm -rf %s", directory);
        check_eq(system(command), 0);
}

#define LOAD_TEST(name) TEST_WITH(config_load, name, .init = make_directory, .fini = remove_directory, .timeout = 60)

/* The path of a new file; two alternate, so that one call may name two. */
static const char *file(const char *name, const char *text, mode_t mode) {
        static char paths[4][128];
        static unsigned next;
        char *path = paths[next++ % 4];
        snprintf(path, sizeof(paths[0]), "%s/%s", directory, name);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        check(fd >= 0);
        check_eq(write(fd, text, strlen(text)), strlen(text));
        check_eq(fchmod(fd, mode), 0);
        close(fd);
        return path;
}

/* Loads; the report as text goes to `said`. */
static int load(const struct config_options *options, struct config **ret, char *said, size_t size) {
        struct config_report report = {0};
        memset(said, 0, size);
        int r = config_load(options, &report, ret);
        FILE *f = fmemopen(said, size, "w");
        config_report_write(&report, f);
        fclose(f);
        check_eq(report.out_of_memory, false);
        config_report_deinit(&report);
        return r;
}

static void check_refused(const char *path, const char *expected) {
        struct config *c = NULL;
        char said[2048];
        check_eq(load(&(struct config_options){.file = path}, &c, said, sizeof(said)), CONFIG_E_INVALID);
        check_msg(strstr(said, expected), "%s", said);
        check(c == NULL);
}

LOAD_TEST(a_file_is_found_by_option_before_the_environment) {
        struct config *c = NULL;
        char said[2048], variable[256];
        char *environment[] = {variable, NULL};
        const char *a = file("a.yaml", "databases: {a: {}}", 0644), *b = file("b.yaml", "databases: {b: {}}", 0644);
        snprintf(variable, sizeof(variable), "LESSOR_CONFIG=%s", b);
        check_eq(load(&(struct config_options){.file = a, .environment = environment}, &c, said, sizeof(said)), 0);
        check_str(c->databases[0].name, "a");
        check_str(c->file, a);
        config_free(c);
        check_eq(load(&(struct config_options){.environment = environment}, &c, said, sizeof(said)), 0);
        check_str(c->databases[0].name, "b");
        config_free(c);
}

LOAD_TEST(a_file_that_was_named_must_be_there) {
        struct config *c = NULL;
        char said[2048];
        char *environment[] = {(char[]){"LESSOR_CONFIG=/nowhere/lessor.yaml"}, NULL};
        check_refused("/nowhere/lessor.yaml",
                      "/nowhere/lessor.yaml: error: it cannot be read: No such file or directory");
        check_eq(load(&(struct config_options){.environment = environment}, &c, said, sizeof(said)), CONFIG_E_INVALID);
        check(strstr(said, "(by $LESSOR_CONFIG)"));
}

LOAD_TEST(without_any_file_the_built_in_database_is_used_and_said) {
        struct config *c = NULL;
        char said[2048];
        char *environment[] = {(char[]){"LESSOR_CONFIG="}, NULL};
        if (access(CONFIG_FILE_DEFAULT, F_OK) == 0)
                test_skip("this host has a " CONFIG_FILE_DEFAULT);
        check_eq(load(&(struct config_options){.environment = environment}, &c, said, sizeof(said)), 0);
        check(strstr(said, "note: no /etc/lessor/lessor.yaml"));
        check_str(c->databases[0].name, "main");
        config_free(c);
}

LOAD_TEST(what_is_no_file_is_refused_at_once) {
        char path[128];
        check_refused(directory, "found a directory");
        check_refused("/dev/null", "found a device, a pipe or a socket");
        snprintf(path, sizeof(path), "%s/fifo", directory);
        check_eq(mkfifo(path, 0600), 0);
        check_refused(path, "found a device, a pipe or a socket");
}

LOAD_TEST(an_unreadable_file_is_refused) {
        const char *path = file("a.yaml", "databases: {a: {}}", 0);
        bool root = geteuid() == 0; /* who reads everything */
        check(!root || (chmod(directory, 0755) == 0 && seteuid(65534) == 0));
        check_refused(path, "it cannot be read: Permission denied");
        check(!root || seteuid(0) == 0);
}

LOAD_TEST(an_endless_file_is_not_read_to_its_end) {
        char path[128];
        snprintf(path, sizeof(path), "%s/large.yaml", directory);
        file("large.yaml", "", 0600);
        check_eq(truncate(path, (off_t)1 << 40), 0);
        check_refused(path, "larger than 1048576 bytes");
}

LOAD_TEST(a_password_file_is_read_without_its_line_end) {
        struct config *c = NULL;
        char said[2048], text[512];
        const char *unix_end = file("unix", "hunter2\n", 0640), *dos_end = file("dos", "hunter3\r\n", 0600);
        snprintf(text, sizeof(text), "databases: {a: {password_file: %s}, b: {password_file: %s, db: 1}}", unix_end,
                 dos_end);
        const char *path = file("a.yaml", text, 0644);
        check_eq(load(&(struct config_options){.file = path}, &c, said, sizeof(said)), 0);
        check_str(said, "");
        check_str(c->databases[0].password, "hunter2");
        check_str(c->databases[1].password, "hunter3");
        config_free(c);
}

static void check_secret_refused(const char *content, mode_t mode, const char *expected) {
        char text[512];
        snprintf(text, sizeof(text), "databases: {a: {password_file: %s}}", file("secret", content, mode));
        check_refused(file("a.yaml", text, 0644), expected);
}

LOAD_TEST(a_password_file_must_be_private_and_one_line) {
        char longest[4200];
        check_secret_refused("hunter2", 0604, "others than its owner and group may read or write it");
        check_secret_refused("hunter2", 0602, "others than its owner and group may read or write it");
        check_secret_refused("\n", 0600, "it is empty");
        check_secret_refused("hunter2\nhunter3\n", 0600, "not a password of one line");
        memset(longest, 'x', sizeof(longest) - 1);
        longest[sizeof(longest) - 1] = '\0';
        check_secret_refused(longest, 0600, "at most 4096 bytes");
        longest[4096] = '\0';
        char text[512];
        struct config *c = NULL;
        char said[2048];
        snprintf(text, sizeof(text), "databases: {a: {password_file: %s}}", file("secret", longest, 0600));
        check_eq(load(&(struct config_options){.file = file("a.yaml", text, 0644)}, &c, said, sizeof(said)), 0);
        check_eq(strlen(c->databases[0].password), 4096);
        config_free(c);
}

LOAD_TEST(a_systemd_credential_is_found_by_the_database_s_name) {
        struct config *c = NULL;
        char said[2048], variable[256];
        char *environment[] = {variable, NULL};
        snprintf(variable, sizeof(variable), "CREDENTIALS_DIRECTORY=%s", directory);
        file("audit.password", "for-audit\n", 0400);
        file("password", "for-all\n", 0400);
        const char *path = file("a.yaml", "databases: {main: {}, audit: {db: 1}, own: {db: 2, password: mine}}", 0600);
        check_eq(load(&(struct config_options){.file = path, .environment = environment}, &c, said, sizeof(said)), 0);
        check_str(c->databases[0].password, "for-all");
        check_str(c->databases[1].password, "for-audit");
        check_str(c->databases[2].password, "mine");
        config_free(c);
}

LOAD_TEST(names_are_those_of_this_host) {
        struct config *c = NULL;
        char said[2048], text[512];
        const struct passwd *pw = getpwuid(0);
        const struct group *gr = getgrgid(0);
        if (!pw || !gr)
                test_skip("no user database");
        snprintf(text, sizeof(text), "databases: {a: {allow: {users: [%s, 77], groups: [%s]}}}", pw->pw_name,
                 gr->gr_name);
        check_eq(load(&(struct config_options){.file = file("a.yaml", text, 0644)}, &c, said, sizeof(said)), 0);
        check_eq(c->databases[0].allow.uids.n, 2);
        check_eq(c->databases[0].allow.uids.ids[0], 0);
        check_eq(c->databases[0].allow.uids.ids[1], 77);
        check_eq(c->databases[0].allow.gids.ids[0], 0);
        check(!c->databases[0].allow.everyone);
        config_free(c);
        check_refused(file("b.yaml", "databases: {a: {allow: {users: [no_such_user_here]}}}", 0644),
                      "no such user on this host");
}

LOAD_TEST(a_password_in_a_readable_file_is_warned_of) {
        struct config *c = NULL;
        char said[2048];
        const char *path = file("a.yaml", "databases: {a: {password: hunter2}}", 0644);
        check_eq(load(&(struct config_options){.file = path}, &c, said, sizeof(said)), 0);
        check(strstr(said, "warning: a password in a file that others may read"));
        check(!strstr(said, "hunter2"));
        config_free(c);
        path = file("a.yaml", "databases: {a: {password: hunter2}}", 0640);
        check_eq(load(&(struct config_options){.file = path}, &c, said, sizeof(said)), 0);
        check_str(said, "");
        config_free(c);
}

/* Is there a copy of the text whose bytes these are, each XOR 0x55, in the process's heap? */
static bool in_heap(const char *masked, size_t length) {
        char line[256], name[64] = "";
        bool found = false;
        FILE *maps = fopen("/proc/self/maps", "re");
        check(maps != NULL);
        while (!found && fgets(line, sizeof(line), maps)) {
                unsigned long start, end;
                name[0] = '\0';
                if (sscanf(line, "%lx-%lx %*s %*s %*s %*s %63s", &start, &end, name) < 2 || strcmp(name, "[heap]") != 0)
                        continue;
                for (const char *p = (const char *)start; !found && p + length <= (const char *)end; p++) {
                        size_t same = 0;
                        while (same < length && (p[same] ^ 0x55) == masked[same])
                                same++;
                        found = same == length;
                }
        }
        fclose(maps);
        return found;
}

LOAD_TEST(no_copy_of_a_password_stays_in_memory) {
        /* Long enough that the allocator's own words, written over what is freed, do not hide the rest of it. */
        static const char masked[] = "\x3d\x20\x3b\x21\x30\x27\x67\x61\x3d\x20\x3b\x21\x30\x27\x67\x61";
        enum { LENGTH = sizeof(masked) - 1, TIMES = 8 };
        char said[2048], text[512];
        struct config *c = NULL;
        int fd = open(file("secret", "", 0600), O_WRONLY | O_CLOEXEC);
        check(fd >= 0);
        for (unsigned i = 0; i < LENGTH * TIMES; i++) {
                char letter = (char)(masked[i % LENGTH] ^ 0x55);
                check_eq(write(fd, &letter, 1), 1);
        }
        close(fd);
        snprintf(text, sizeof(text), "databases: {a: {password_file: %s/secret}}", directory);
        check_eq(load(&(struct config_options){.file = file("a.yaml", text, 0644)}, &c, said, sizeof(said)), 0);
        check_eq(strlen(c->databases[0].password), LENGTH * TIMES);
        bool seen = in_heap(masked, LENGTH);
        config_free(c);
        if (!seen)
                test_skip("this allocator's memory is not in [heap]"); /* the sanitizers' */
        check(!in_heap(masked, LENGTH));
}

LOAD_TEST(options_of_the_command_line_beat_everything) {
        struct config *c = NULL;
        char said[2048];
        char *environment[] = {(char[]){"LESSOR_INSTANCE=env"}, (char[]){"LESSOR_REDIS_A_PORT=3"}, NULL};
        const char *sets[] = {"a.port=4", "log_level=error"};
        const char *path = file("a.yaml", "instance: file\nsocket: /run/file.sock\ndatabases: {a: {port: 2}}", 0644);
        struct config_options options = {.file = path,
                                         .instance = "line",
                                         .socket = "/tmp/line.sock",
                                         .sets = sets,
                                         .n_sets = 2,
                                         .environment = environment};
        check_eq(load(&options, &c, said, sizeof(said)), 0);
        check_str(c->instance, "line");
        check_str(c->socket, "/tmp/line.sock");
        check_eq(c->databases[0].port, 4);
        check_eq(c->log_level, CONFIG_LOG_ERROR);
        config_free(c);
        options = (struct config_options){.file = path, .instance = "no/name", .socket = "relative"};
        check_eq(load(&options, &c, said, sizeof(said)), CONFIG_E_INVALID);
        check(strstr(said, "--instance: error: `instance`") && strstr(said, "--socket: error: `socket`"));
}

/* SPDX-License-Identifier: MIT */
/* The configuration as a whole, by the golden files in tests/unit/config (README.md there), and the shipped example. */
#include "support/check.h"

#include <dirent.h>
#include <errno.h>

#include <base/cleanup.h>

#include "config/config.h"
#include "config/load.h"
#include "config/parse.h"
#include "config/print.h"
#include "config/report.h"

#define CORPUS LESSOR_SOURCE_DIR "/tests/unit/config/"

static int fake_user(const char *name, uint32_t *ret) {
        *ret = strcmp(name, "alice") == 0 ? 1000 : 33;
        return strcmp(name, "alice") == 0 || strcmp(name, "www-data") == 0 ? 0 : -ENOENT;
}

static int fake_group(const char *name, uint32_t *ret) {
        *ret = strcmp(name, "redis") == 0 ? 110 : 33;
        return strcmp(name, "redis") == 0 || strcmp(name, "www-data") == 0 ? 0 : -ENOENT;
}

static int fake_secret(const char *path, char **ret) {
        static const struct {
                const char *path, *secret;
                int result;
        } secrets[] = {
                {"/secrets/good", "hunter2-in-a-file", 0},
                {"/secrets/open", NULL, CONFIG_SECRET_EXPOSED},
                {"/secrets/empty", NULL, CONFIG_SECRET_EMPTY},
                {"/secrets", NULL, CONFIG_SECRET_NOT_FILE},
                {"/secrets/denied", NULL, -EACCES},
                {"/secrets/lines", NULL, CONFIG_SECRET_UNFIT},
                {"/credentials/password", "hunter2-for-all", 0},
                {"/credentials/audit.password", "hunter2-for-audit", 0},
                {"/exposed/main.password", NULL, CONFIG_SECRET_EXPOSED},
        };
        for (size_t i = 0; i < ARRAY_SIZE(secrets); i++)
                if (strcmp(secrets[i].path, path) == 0) {
                        if (secrets[i].secret)
                                *ret = strdup(secrets[i].secret);
                        return secrets[i].result;
                }
        return -ENOENT;
}

static const struct config_host fake_host = {fake_user, fake_group, fake_secret};

/* NULL: no such file. One byte more than the file, which is NUL. */
static char *slurp(const char *directory, const char *name, const char *suffix, size_t *ret_size) {
        char path[4096];
        snprintf(path, sizeof(path), "%s%s%s", directory, name, suffix);
        FILE *f = fopen(path, "re");
        if (!f)
                return NULL;
        char *data = calloc(1, (size_t)2 << 20);
        *ret_size = fread(data, 1, ((size_t)2 << 20) - 1, f);
        fclose(f);
        return data;
}

/* Cuts a text into its lines, in place; the list ends by NULL. */
static char **lines(char *text, unsigned *ret_n) {
        char **list = calloc(64, sizeof(*list));
        unsigned n = 0;
        for (char *line = text ? strtok(text, "\n") : NULL; line && n < 63; line = strtok(NULL, "\n"))
                list[n++] = line;
        *ret_n = n;
        return list;
}

/* What is said of the file, as in NAME.expected; *ret_r is what config_parse() returned. */
static char *said_of(const char *directory, const char *name, int *ret_r) {
        size_t size, output_size, unused;
        unsigned n_environment, n_sets;
        char *output, file[300];
        char *data = slurp(directory, name, ".yaml", &size);
        char *environment_text = slurp(directory, name, ".env", &unused);
        char *set_text = slurp(directory, name, ".set", &unused);
        char **environment = lines(environment_text, &n_environment), **sets = lines(set_text, &n_sets);
        struct config_report report = {0};
        struct config *c = NULL;
        snprintf(file, sizeof(file), "%s.yaml", name);
        struct config_input input = {.name = file,
                                     .data = data,
                                     .size = size,
                                     .environment = environment,
                                     .sets = (const char *const *)sets,
                                     .n_sets = n_sets,
                                     .fd_limit = 20000,
                                     .host = &fake_host};
        *ret_r = config_parse(&input, &report, &c);
        FILE *f = open_memstream(&output, &output_size);
        config_report_write(&report, f);
        if (c)
                config_write(c, f);
        fclose(f);
        config_free(c);
        config_report_deinit(&report);
        free(environment);
        free(sets);
        free(environment_text);
        free(set_text);
        free(data);
        return output;
}

static bool rewriting(void) {
        const char *golden = getenv("LESSOR_GOLDEN");
        return golden && strcmp(golden, "write") == 0;
}

static void rewrite(const char *directory, const char *name, const char *text) {
        char path[4096];
        snprintf(path, sizeof(path), "%s%s.expected", directory, name);
        FILE *f = fopen(path, "we");
        check(f != NULL);
        fputs(text, f);
        fclose(f);
}

static bool as_expected(const char *directory, const char *name, int expected_r) {
        int r;
        size_t size;
        char *said = said_of(directory, name, &r);
        if (rewriting())
                rewrite(directory, name, said);
        char *expected = slurp(directory, name, ".expected", &size);
        bool same = expected && strcmp(said, expected) == 0 && r == expected_r;
        if (!same)
                fprintf(stderr, "%s%s.yaml: result %d; found:\n%s---- expected result %d:\n%s----\n", directory, name,
                        r, said, expected_r, expected ? expected : "(no such file)\n");
        free(expected);
        free(said);
        return same;
}

static void check_corpus(const char *directory, int expected_r) {
        unsigned n = 0, failed = 0;
        DIR *d = opendir(directory);
        check(d != NULL);
        for (struct dirent *e = readdir(d); e; e = readdir(d)) {
                char *suffix = strstr(e->d_name, ".yaml");
                if (!suffix || suffix[5])
                        continue;
                *suffix = '\0';
                n++;
                failed += !as_expected(directory, e->d_name, expected_r);
        }
        closedir(d);
        check(n > 10);
        check_eq(failed, 0);
}

TEST(config, each_valid_file_of_the_corpus_says_exactly_what_is_expected) { check_corpus(CORPUS "valid/", CONFIG_OK); }

TEST(config, each_invalid_file_of_the_corpus_says_exactly_what_is_expected) {
        check_corpus(CORPUS "invalid/", CONFIG_E_INVALID);
}

static int parse(const char *data, size_t size, struct config_report *report, struct config **ret) {
        struct config_input input = {.name = "test.yaml", .data = data, .size = size, .host = &fake_host};
        return config_parse(&input, report, ret);
}

static int parse_text(const char *text, struct config_report *report, struct config **ret) {
        return parse(text, strlen(text), report, ret);
}

TEST(config, a_secret_is_in_no_message_and_not_in_what_is_printed) {
        static const char *const directories[] = {CORPUS "valid/", CORPUS "invalid/"};
        static const char *const secrets[] = {"hunter2", "s3cret", "on-the-command-line", "from-the-original"};
        for (size_t i = 0; i < ARRAY_SIZE(directories); i++) {
                DIR *d = opendir(directories[i]);
                check(d != NULL);
                for (struct dirent *e = readdir(d); e; e = readdir(d)) {
                        char *suffix = strstr(e->d_name, ".yaml");
                        int r;
                        if (!suffix)
                                continue;
                        *suffix = '\0';
                        char *said = said_of(directories[i], e->d_name, &r);
                        for (size_t j = 0; j < ARRAY_SIZE(secrets); j++)
                                check_msg(!strstr(said, secrets[j]), "%s names %s", e->d_name, secrets[j]);
                        free(said);
                }
                closedir(d);
        }
}

TEST(config, the_shipped_example_says_nothing_but_that_two_names_share_a_number) {
        size_t size;
        struct config_report report = {0};
        struct config *c = NULL;
        char *data = slurp(LESSOR_SOURCE_DIR "/deploy/", "lessor.example", ".yaml", &size);
        check(data != NULL);
        check_eq(parse(data, size, &report, &c), 0);
        check_eq(report.n, 1);
        check_eq(report.messages[0].severity, CONFIG_NOTE);
        check_str(report.messages[0].text,
                  "`analytics` and `codebase` share db 11 of 127.0.0.1:6379: two pools, one set of keys");
        config_report_deinit(&report);
        config_free(c);
        free(data);
}

TEST(config, the_shipped_example_has_the_thirteen_databases_and_255_connections) {
        static const struct {
                const char *name;
                unsigned db;
        } expected[] = {{"main", 0},   {"knowledge", 1},  {"prompts", 2},   {"agents", 3}, {"metrics", 4},
                        {"cache", 5},  {"sessions", 6},   {"workflows", 7}, {"logs", 8},   {"temp", 9},
                        {"audit", 10}, {"analytics", 11}, {"codebase", 11}};
        size_t size;
        struct config_report report = {0};
        struct config *c = NULL;
        char *data = slurp(LESSOR_SOURCE_DIR "/deploy/", "lessor.example", ".yaml", &size);
        check_eq(parse(data, size, &report, &c), 0);
        check_eq(c->n_databases, ARRAY_SIZE(expected));
        for (unsigned i = 0; i < c->n_databases; i++) {
                check_str(c->databases[i].name, expected[i].name);
                check_eq(c->databases[i].db, expected[i].db);
                check_eq(c->databases[i].max_connections, i == 10 ? 15 : 20);
                check_eq(c->databases[i].socket_timeout_ns, CONFIG_S(i == 10 ? 3 : 5));
        }
        check_eq(config_connections(c), 255);
        check(config_fd_need(c) > 255 + c->max_sessions);
        config_report_deinit(&report);
        config_free(c);
        free(data);
}

TEST(config, without_a_file_there_is_main_on_this_host) {
        struct config_input input = {.host = &fake_host, .instance = "here"};
        struct config_report report = {0};
        struct config *c = NULL;
        check_eq(config_parse(&input, &report, &c), 0);
        check_eq(report.n, 0);
        check_eq(c->n_databases, 1);
        check_str(c->databases[0].name, "main");
        check_str(c->databases[0].host, "127.0.0.1");
        check_eq(c->databases[0].port, 6379);
        check_eq(c->databases[0].db, 0);
        check_eq(c->databases[0].max_connections, 20);
        check(c->databases[0].allow.everyone && !c->databases[0].password && !c->databases[0].unix_socket);
        check_str(c->instance, "here");
        check_str(c->socket, "/run/lessor/here.sock");
        check_eq(c->socket_mode, 0660);
        check_eq(c->socket_gid, (gid_t)-1);
        check(c->file == NULL);
        check(config_find(c, "main") == &c->databases[0] && !config_find(c, "Main"));
        config_free(c);
}

TEST(config, a_file_of_more_than_a_mebibyte_is_refused) {
        size_t size = ((size_t)1 << 20) + 1;
        char *data = malloc(size);
        struct config_report report = {0};
        struct config *c = NULL;
        memset(data, '#', size);
        check_eq(parse(data, size, &report, &c), CONFIG_E_INVALID);
        check_eq(report.n, 1);
        check(strstr(report.messages[0].text, "larger than 1048576 bytes"));
        config_report_deinit(&report);
        /* And one that is just not too large is read. */
        check_eq(parse(data, size - 1, &report, &c), CONFIG_E_INVALID);
        check(strstr(report.messages[0].text, "the file is empty"));
        config_report_deinit(&report);
        free(data);
}

TEST(config, a_password_in_a_file_that_others_may_read_is_warned_of) {
        static const char text[] = "redis_databases: {main: {password: hunter2}}";
        struct config_input input = {
                .name = "t.yaml", .data = text, .size = sizeof(text) - 1, .exposed = true, .host = &fake_host};
        struct config_report report = {0};
        struct config *c = NULL;
        check_eq(config_parse(&input, &report, &c), 0);
        check_eq(report.warnings, 1);
        check_str(report.messages[0].where, "t.yaml:1:36");
        check_str(c->databases[0].password, "hunter2");
        config_free(c);
        config_report_deinit(&report);
}

TEST(config, the_order_of_the_top_level_and_the_databases_does_not_matter) {
        struct config_report report = {0};
        struct config *c = NULL;
        check_eq(parse_text("redis_databases: {a: {}, b: {port: 2}}\nport: 1\n", &report, &c), 0);
        check_eq(c->databases[0].port, 1);
        check_eq(c->databases[1].port, 2);
        check_eq(c->databases[0].origin[CONFIG_KEY_port].line, 2);
        check(!c->databases[0].origin[CONFIG_KEY_port].own && c->databases[1].origin[CONFIG_KEY_port].own);
        config_free(c);
}

TEST(config, what_is_printed_loads_again_to_the_same) {
        size_t size, printed_size;
        struct config_report report = {0};
        struct config *c = NULL, *again = NULL;
        char *printed, *twice;
        char *data = slurp(LESSOR_SOURCE_DIR "/deploy/", "lessor.example", ".yaml", &size);
        check_eq(parse(data, size, &report, &c), 0);
        FILE *f = open_memstream(&printed, &printed_size);
        config_write(c, f);
        fclose(f);
        check_eq(parse(printed, printed_size, &report, &again), 0);
        check_eq(again->n_databases, 13);
        f = open_memstream(&twice, &size);
        config_write(again, f);
        fclose(f);
        check(strstr(twice, "    max_connections: 15") && strstr(twice, "    socket_timeout: 3s"));
        config_free(c);
        config_free(again);
        config_report_deinit(&report);
        free(printed);
        free(twice);
        free(data);
}

TEST(config, the_list_of_keys_has_each_with_type_default_and_help) {
        char *text;
        size_t size;
        unsigned keys = 0, helps = 0;
        FILE *f = open_memstream(&text, &size);
        config_write_keys(f);
        fclose(f);
        for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
                keys += strncmp(line, "key: ", 5) == 0;
                helps += strncmp(line, "help: ", 6) == 0 && line[6];
        }
        check_eq(keys, CONFIG_KEYS);
        check_eq(helps, CONFIG_KEYS);
        free(text);
}

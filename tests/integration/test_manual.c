/* SPDX-License-Identifier: MIT */
/*
 * The manual says what there is: every key, option, command, function, figure and message has its place in a page. And what
 * it says of memory and wire is enough: a reader and a client stand on their page alone.
 */
#include <ctype.h>
#include <glob.h>
#include <limits.h>
#include <stddef.h>
#include <sys/wait.h>

#include <lessor/protocol.h>
#include <lessor/status.h>

#include "support/check.h"
#include "support/host.h"
#include "support/lanes.h"
#include "support/process.h"
#include "support/sandbox.h"

#define MANUAL LESSOR_BINARY_DIR "/deploy/man/"
enum { RUN_MS = 25000 };

static char *page(const char *name) {
        char path[PATH_MAX];
        snprintf(path, sizeof(path), MANUAL "%s", name);
        char *text = sandbox_read(path, NULL);
        check_msg(*text, "there is no page %s", path);
        return text;
}

static char *output_of(const char *program, const char *a, const char *b) {
        const char *const argv[] = {program, a, b, NULL};
        char *output = NULL;
        check_eq(program_run(argv, &output, RUN_MS), 0);
        return output;
}

/* ---- keys, options, commands ------------------------------------------------------------------------------------------ */

TEST(manual, lessor_yaml_has_an_entry_for_every_key) {
        char *keys = output_of(broker_path(), "--help-config", NULL), *text = page("lessor.yaml.5");
        char *line, *rest, entry[128];
        unsigned n = 0;

        for (line = strtok_r(keys, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
                if (strncmp(line, "key: ", 5) != 0)
                        continue;
                snprintf(entry, sizeof(entry), "\n.It Sy %s Pq ", line + 5);
                const char *at = strstr(text, entry);
                check_msg(at, "lessor.yaml(5) says nothing of `%s`", line + 5);
                const char *help = strchr(at + 1, '\n');
                check_msg(help && help[1] >= 'A' && help[1] <= 'Z', "lessor.yaml(5) explains nothing about `%s`",
                          line + 5);
                n++;
        }
        check_msg(n > 30, "only %u keys", n);
        free(keys);
        free(text);
}

/* The next "--option" of a help text; NULL: there is none. */
static const char *next_option(const char *text, char ret[64]) {
        while ((text = strstr(text, "--"))) {
                size_t n = strspn(text + 2, "abcdefghijklmnopqrstuvwxyz-");
                if (n > 0 && n < 62) {
                        snprintf(ret, 64, "%.*s", (int)n, text + 2);
                        return text + 2 + n;
                }
                text += 2;
        }
        return NULL;
}

static bool has_word(const char *text, const char *before, const char *word) {
        char wanted[160];
        size_t n = (size_t)snprintf(wanted, sizeof(wanted), "%s%s", before, word);
        for (; (text = strstr(text, wanted)); text += n)
                if (!isalnum((unsigned char)text[n]) && text[n] != '-' && text[n] != '_' && text[n] != '\\')
                        return true;
        return false;
}

TEST(manual, lessord_8_has_every_option) {
        char *help = output_of(broker_path(), "--help", NULL), *text = page("lessord.8"), option[64];
        unsigned n = 0;

        for (const char *at = help; (at = next_option(at, option)); n++)
                check_msg(has_word(text, ".It Fl -", option) || has_word(text, " , -", option),
                          "lessord(8) says nothing of --%s", option);
        check_msg(n >= 9, "only %u options", n);
        free(help);
        free(text);
}

/* The page's part about one command. */
static char *part_of(const char *text, const char *command) {
        char head[96];
        snprintf(head, sizeof(head), "\n.Ss lessor %s\n", command);
        const char *start = strstr(text, head);
        check_msg(start, "lessor(1) says nothing of `lessor %s`", command);
        const char *end = strstr(start + 1, "\n.S");
        check(end);
        return strndup(start, (size_t)(end - start));
}

static void check_options(const char *text, const char *command) {
        char *help = output_of(tool_path(), "help", command), *part = part_of(text, command), option[64];
        char escaped[128];
        for (const char *at = help; (at = next_option(at, option));) {
                size_t n = 0;
                for (const char *c = option; *c; c++)
                        n += (size_t)snprintf(escaped + n, sizeof(escaped) - n, *c == '-' ? "\\-" : "%c", *c);
                check_msg(has_word(part, "\\-\\-", escaped), "lessor(1) says nothing of `lessor %s --%s`", command,
                          option);
        }
        free(help);
        free(part);
}

TEST(manual, lessor_1_has_every_command_with_every_option) {
        char *help = output_of(tool_path(), "help", NULL), *text = page("lessor.1"), *line, *rest, command[64];
        unsigned n = 0;

        for (line = strtok_r(help, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
                if (*line != ' ' || sscanf(line, "  lessor %63s", command) != 1 || strcmp(command, "help") == 0)
                        continue;
                check_options(text, command);
                n++;
        }
        check_msg(n >= 6, "only %u commands", n);
        free(help);
        free(text);
}

/* ---- functions -------------------------------------------------------------------------------------------------------- */

static char *section_3(void) {
        glob_t pages;
        char *all = NULL;
        size_t size = 0;
        FILE *f = open_memstream(&all, &size);
        check(f && glob(MANUAL "*.3", 0, NULL, &pages) == 0);
        for (size_t i = 0; i < pages.gl_pathc; i++) {
                char *text = sandbox_read(pages.gl_pathv[i], NULL);
                fputs(text, f);
                free(text);
        }
        globfree(&pages);
        fclose(f);
        return all;
}

/* With its arguments: without them it is only spoken of. */
static bool has_synopsis(const char *text, const char *function) {
        char with_some[128], with_none[128];
        snprintf(with_some, sizeof(with_some), "\n.Fn %s \"", function);
        snprintf(with_none, sizeof(with_none), "\n.Fn %s void\n", function);
        return strstr(text, with_some) || strstr(text, with_none) || has_word(text, "\n.Fo ", function);
}

static unsigned check_functions(const char *header, const char *text) {
        char *declared = sandbox_read(header, NULL), name[96], line[128];
        unsigned n = 0;
        for (const char *at = declared; (at = strstr(at, "lessor_")); at += strlen(name)) {
                snprintf(name, sizeof(name), "%.*s", (int)strspn(at, "abcdefghijklmnopqrstuvwxyz_0123456789"), at);
                if (at[strlen(name)] != '(')
                        continue;
                if (at - declared >= 13 && strncmp(at - 13, "typedef void ", 13) == 0) /* of callbacks */
                        continue;
                snprintf(line, sizeof(line), "\n.Nm %s", name);
                check_msg(has_word(text, "\n.Nm ", name), "no page of section 3 names %s", name);
                check_msg(has_synopsis(text, name), "no page of section 3 declares %s", name);
                n++;
        }
        free(declared);
        return n;
}

TEST(manual, section_3_has_every_function) {
        static const char *const elsewhere[] = {"protocol.h", "outcome.h", "status_fields.h"};
        char *text = section_3();
        glob_t headers;
        check_msg(check_functions(LESSOR_SOURCE_DIR "/include/lessor.h", text) > 20, "hardly a function");
        check_msg(check_functions(LESSOR_SOURCE_DIR "/include/lessor/status.h", text) > 20, "hardly a function");
        check_eq(glob(LESSOR_SOURCE_DIR "/include/lessor/*.h", 0, NULL, &headers), 0);
        for (size_t i = 0; i < headers.gl_pathc; i++) {
                bool other = false;
                for (size_t k = 0; k < sizeof(elsewhere) / sizeof(*elsewhere); k++)
                        other = other || strcmp(strrchr(headers.gl_pathv[i], '/') + 1, elsewhere[k]) == 0;
                if (!other)
                        check_functions(headers.gl_pathv[i], text);
        }
        globfree(&headers);
        /* Of the adapters one function each is the caller's. */
        check_eq(glob(LESSOR_SOURCE_DIR "/include/lessor/adapters/*.h", 0, NULL, &headers), 0);
        for (size_t i = 0; i < headers.gl_pathc; i++) {
                char name[96];
                const char *loop = strrchr(headers.gl_pathv[i], '/') + 1;
                snprintf(name, sizeof(name), "lessor_%.*s_attach", (int)strcspn(loop, "."), loop);
                check_msg(has_word(text, "\n.Nm ", name) && has_synopsis(text, name), "section 3 has no %s", name);
        }
        globfree(&headers);
        free(text);
}

/* ---- layouts ---------------------------------------------------------------------------------------------------------- */

static void check_size(const char *text, const char *name, size_t size) {
        char head[96], wanted[48];
        snprintf(head, sizeof(head), "\n.Ss struct %s\n", name);
        snprintf(wanted, sizeof(wanted), "Size: %zu bytes.", size);
        const char *at = strstr(text, head), *said = at ? strstr(at, "Size: ") : NULL;
        check_msg(said && strncmp(said, wanted, strlen(wanted)) == 0, "%s: %s, the page says: %.20s", name, wanted,
                  said ? said : "nothing");
}

TEST(manual, lessor_protocol_7_has_every_message_in_its_size) {
        char *text = page("lessor-protocol.7");
#define SIZE(name) check_size(text, #name, sizeof(struct name))
        SIZE(lessor_msg_header);
        SIZE(lessor_msg_attach);
        SIZE(lessor_msg_attached);
        SIZE(lessor_msg_lookup);
        SIZE(lessor_msg_database);
        SIZE(lessor_msg_lease);
        SIZE(lessor_msg_grant);
        SIZE(lessor_msg_error);
        SIZE(lessor_msg_cancel);
        SIZE(lessor_msg_return);
        SIZE(lessor_msg_report);
        SIZE(lessor_control_database);
        SIZE(lessor_control);
        SIZE(lessor_segment_database);
        SIZE(lessor_segment);
        SIZE(lessor_ticket);
        SIZE(lessor_slot_layout);
        SIZE(lessor_msg_lane);
        SIZE(lessor_msg_lane_opened);
        SIZE(lessor_msg_lane_reply);
        SIZE(lessor_msg_lane_wake);
        SIZE(lessor_lane_layout);
        SIZE(lessor_submission_layout);
        SIZE(lessor_completion_layout);
#undef SIZE
        free(text);
}

static void check_field(const char *text, const char *name, size_t offset, const char *type) {
        char row[128];
        snprintf(row, sizeof(row), "\n.It Sy %s Pq %zu , %s\n", name, offset, type);
        check_msg(strstr(text, row), "lessor-status(5) does not say that %s is a %s at %zu", name, type, offset);
}

TEST(manual, lessor_status_5_has_every_figure_at_its_place) {
        char *text = page("lessor-status.5");
#define LESSOR_STATUS_FIELD(name, kind, unit, help)                                                                    \
        check_field(text, #name, offsetof(struct lessor_status_database, name), "uint64");
#define LESSOR_STATUS_HISTOGRAM(name, help)                                                                            \
        check_field(text, #name, offsetof(struct lessor_status_database, name), "struct\\ lessor_status_histogram");
#include <lessor/status_fields.h>
#define TROUBLE(name, number, word, help)                                                                              \
        check_msg(strstr(text, ".It Sy " word " Pq " #number "\n"), "lessor-status(5) says nothing of " word);
        LESSOR_TROUBLES(TROUBLE)
        free(text);
}

/* ---- a reader and a client from the page ------------------------------------------------------------------------------- */

static void need_python(void) {
        const char *const argv[] = {"python3", "-c", "import os; os.pidfd_open", NULL};
        char *output = NULL;
        int status = program_run(argv, &output, RUN_MS);
        free(output);
        if (status != 0)
                test_skip("no python3 (3.9 or later) here");
}

/* A figure as the reader from the page told it. */
static uint64_t told(const char *lines, const char *name) {
        char head[128];
        snprintf(head, sizeof(head), "\n%s ", name);
        const char *at = strstr(lines, head);
        check_msg(at, "the reader says nothing of %s", name);
        return strtoull(at + strlen(head), NULL, 10);
}

/* What does not change between two readings must be what the other reader read in between. */
static void check_told(const char *lines, const char *name, uint64_t before, uint64_t after) {
        uint64_t value = told(lines, name);
        check_msg(before != after || value == before, "%s is %" PRIu64 ", the reader says %" PRIu64, name, before,
                  value);
}

static void check_text(const char *lines, const char *name, const char *text) {
        char line[512];
        snprintf(line, sizeof(line), "\n%s %s\n", name, text);
        check_msg(strstr(lines, line), "the reader does not say `%s %s`", name, text);
}

static void check_same(const char *lines, const struct lessor_status_database *a,
                       const struct lessor_status_database *b) {
        char name[96];
#define LESSOR_STATUS_FIELD(field, kind, unit, help) check_told(lines, #field, a->field, b->field);
#define LESSOR_STATUS_HISTOGRAM(field, help)                                                                           \
        check_told(lines, #field ".count", a->field.count, b->field.count);                                            \
        for (unsigned i = 0; i < LESSOR_CALL_BUCKETS; i++) {                                                           \
                snprintf(name, sizeof(name), #field ".bucket[%u]", i);                                                 \
                check_told(lines, name, a->field.bucket[i], b->field.bucket[i]);                                       \
        }
#include <lessor/status_fields.h>
        check_text(lines, "endpoint", a->endpoint);
        check_text(lines, "last_error", a->last_error);
}

/* What the reader says of `main`, and of all that is no database's. */
static char *read_by_the_page(const struct broker *b) {
        const char *const argv[] = {"python3",
                                    LESSOR_SOURCE_DIR "/tests/integration/status_reader.py",
                                    MANUAL "lessor-status.5",
                                    b->instance,
                                    "main",
                                    NULL};
        char *lines = NULL;
        int status = program_run(argv, &lines, RUN_MS);
        check_msg(status == 0, "%s", lines);
        return lines;
}

TEST(manual, a_reader_made_from_lessor_status_5_reads_what_ours_does) {
        struct host h;
        need_python();
        host_start(&h, "max_connections: 3");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        for (unsigned i = 0; i < 100; i++)
                freeReplyObject(client_command(db, "INCR n"));
        lessor_lease *lease = lessor_acquire_at(db, 1000, "manual.c", 7, NULL);
        check(lease);
        struct lessor_status_connection held = broker_connection_held(&h.broker);
        struct lessor_status_database before = broker_figures_now(&h.broker, "main");
        char *lines = read_by_the_page(&h.broker);
        struct lessor_status_database after = broker_figures(&h.broker, "main");
        check_same(lines, &before, &after);
        check_eq(told(lines, "operations_ok"), 100);
        check_eq(told(lines, "max_connections"), 3);
        check_eq(told(lines, "header.broker_pid"), h.broker.pid);
        check_text(lines, "header.name", h.broker.instance);
        char name[64];
        snprintf(name, sizeof(name), "connection%u.site", held.slot);
        check_text(lines, name, "manual.c:7");
        snprintf(name, sizeof(name), "connection%u.holder_pid", held.slot);
        check_eq(told(lines, name), getpid());
        free(lines);
        lessor_release(lease);
        lessor_close(l);
        host_end(&h);
}

TEST(manual, a_reader_made_from_lessor_status_5_sees_whose_commands_are_under_way_in_lanes) {
        struct lanes lane;
        struct redis r;
        struct broker b;
        need_python();
        redis_start(&r, NULL);
        broker_start(&b, "databases: {main: {%s, max_connections: 4, path: lane, socket_timeout: 50s}}\n",
                     redis_address(&r));
        check(lanes_attach(&lane, b.socket, "main"));
        check(lanes_say(&lane, 1, "PING") == LANE_SUBMIT_DONE && lanes_expect(&lane, 1, "+PONG\r\n"));
        redis_pause(&r);
        check(lanes_say(&lane, 2, "PING") == LANE_SUBMIT_DONE);
        check_figure_soon(&b, "main", lane_under_way, 1, RUN_MS);
        char *lines = read_by_the_page(&b);
        check_eq(told(lines, "lane0.session"), 1);
        check_eq(told(lines, "lane0.sent"), 1);
        check_eq(told(lines, "lane0.holder_pid"), getpid());
        check(told(lines, "lane0.since_ns") > 0);
        check_text(lines, "lane0.holder", "test_manual");
        check_eq(told(lines, "lane1.session"), 0);
        free(lines);
        redis_resume(&r);
        check(lanes_expect(&lane, 2, "+PONG\r\n"));
        lanes_detach(&lane);
        broker_free(&b);
        redis_stop(&r);
}

/* One of the listings of the page, as it is meant. */
static void add_listing(FILE *out, const char *text, unsigned number) {
        const char *at = strstr(text, ".Sh A CLIENT IN PYTHON"), *end;
        for (unsigned i = 0; at && i <= number; i++)
                if ((at = strstr(at, ".Bd -literal\n")))
                        at += strlen(".Bd -literal\n");
        check(at && (end = strstr(at, ".Ed")));
        for (; at < end; at++) /* mdoc's \e is a backslash */
                if (at[0] == '\\' && at[1] == 'e')
                        fputc(*at++, out);
                else
                        fputc(*at, out);
}

/* The program of the page: its first part, and the one that makes a call in this way. */
static char *take_client(unsigned way) {
        char *text = page("lessor-protocol.7"), *path = sandbox_path("client.py");
        FILE *out = fopen(path, "we");
        check(out);
        add_listing(out, text, 0);
        add_listing(out, text, way);
        check(fclose(out) == 0);
        free(text);
        return path;
}

static void tell_socket(void *socket) { setenv("LESSOR_SOCKET", socket, 1); }

/* Twice, one after the other: each says hello. */
static void run_client(const struct host *h, unsigned way) {
        char *path = take_client(way), *log = sandbox_path("client.log");
        const char *const argv[] = {"python3", path, NULL};
        for (unsigned i = 0; i < 2; i++) {
                pid_t pid = program_start_prepared(log, argv, tell_socket, h->broker.socket);
                int status = program_wait(pid, RUN_MS);
                char *said = sandbox_read(log, NULL);
                check_msg(status == 0 && strcmp(said, i ? "hello\nhello\n" : "hello\n") == 0, "%d: %s", status, said);
                free(said);
        }
        free(path);
        free(log);
}

TEST(manual, the_client_in_lessor_protocol_7_leases_a_connection_and_gives_it_back_clean) {
        struct host h;
        need_python();
        host_start(&h, "max_connections: 1");
        run_client(&h, 1);
        check_figure(&h.broker, "main", leases, 2);
        check_figure(&h.broker, "main", created_connections, 1); /* given back clean: the second had the same */
        host_end(&h);
}

TEST(manual, the_client_in_lessor_protocol_7_sends_a_command_by_lane) {
        struct host h;
        need_python();
        host_start(&h, "max_connections: 4");
        run_client(&h, 2);
        check_figure(&h.broker, "main", lane_calls, 2);
        check_figure(&h.broker, "main", leases, 0);
        host_end(&h);
}

/* ---- metrics ----------------------------------------------------------------------------------------------------------- */

/* lessor_NAME[_seconds][_total]: is NAME a figure of lessor-status(5)? */
static bool is_figure(const char *status_page, const char *metric) {
        static const char *const endings[] = {"_total", "_seconds"};
        char name[128], row[160];
        if (strncmp(metric, "lessor_", 7) != 0)
                return false;
        snprintf(name, sizeof(name), "%s", metric + 7);
        for (unsigned i = 0; i < 2; i++) {
                size_t n = strlen(name), e = strlen(endings[i]);
                if (n > e && strcmp(name + n - e, endings[i]) == 0)
                        name[n - e] = '\0';
        }
        snprintf(row, sizeof(row), "\n.It Sy %s Pq ", name);
        return strstr(status_page, row) != NULL;
}

TEST(manual, lessor_1_names_every_metric_that_is_no_figure_of_lessor_status_5) {
        struct host h;
        char *status_page = page("lessor-status.5"), *text = page("lessor.1"), *metrics = NULL, *line, *rest, name[128],
             total[136];
        unsigned n = 0;
        host_start(&h, "max_connections: 1");
        const char *const argv[] = {tool_path(), "metrics", "--instance", h.broker.instance, NULL};
        check_eq(program_run(argv, &metrics, RUN_MS), 0);
        for (line = strtok_r(metrics, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
                if (sscanf(line, "# HELP %127s", name) != 1)
                        continue;
                snprintf(total, sizeof(total), "%s_total",
                         name); /* a counter's family may be told without its ending */
                check_msg(is_figure(status_page, name) || has_word(text, "\n.It Sy ", name) ||
                                  has_word(text, "\n.It Sy ", total),
                          "lessor(1) says nothing of the metric %s", name);
                n++;
        }
        check_msg(n > 50, "only %u metrics", n);
        free(metrics);
        free(status_page);
        free(text);
        host_end(&h);
}

/* ---- their form -------------------------------------------------------------------------------------------------------- */

TEST_WITH(manual, mandoc_finds_nothing_wrong_with_a_page, .timeout = 120) {
        const char *const argv[] = {"sh", "-c", "command -v mandoc && exec mandoc -T lint -W warning " MANUAL "*.[1-8]",
                                    NULL};
        char *output = NULL;
        int status = program_run(argv, &output, RUN_MS);
        if (status != 0 && !*output)
                test_skip("no mandoc here");
        check_msg(status == 0, "%s", output);
        free(output);
}

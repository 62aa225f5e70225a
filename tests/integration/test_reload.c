/* SPDX-License-Identifier: MIT */
/* Reloads under load: unchanged databases notice nothing; each kind of change reaches the workers that are attached. */
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"
#include "support/sandbox.h"

enum { WAIT_MS = 20000 };

/* The text with the server's address for each @. */
static char *text_of(const char *pattern, const char *address) {
        char *text = NULL;
        size_t size;
        FILE *f = open_memstream(&text, &size);
        check(f != NULL);
        for (; *pattern; pattern++)
                if (*pattern == '@')
                        fputs(address, f);
                else
                        fputc(*pattern, f);
        check(fclose(f) == 0);
        return text;
}

/* Rewrites the configuration and asks for it; the tool's exit code. */
static int reload(struct host *h, const char *pattern) {
        char *text = text_of(pattern, redis_address(&h->redis)), *said;
        const char *const argv[] = {tool_path(), "reload", "--instance", h->broker.instance, NULL};
        sandbox_write(h->broker.config, text);
        int r = program_run(argv, &said, WAIT_MS);
        free(text);
        free(said);
        return r;
}

static void start(struct host *h, const char *pattern) {
        redis_start(&h->redis, NULL);
        char *text = text_of(pattern, redis_address(&h->redis));
        broker_start(&h->broker, "%s", text);
        free(text);
}

TEST(reload, a_bad_file_changes_nothing_and_says_why) {
        struct host h;
        start(&h, "databases: {main: {@}}\n");
        lessor *l = client_open(&h.broker);
        freeReplyObject(client_command(client_database(l, NULL), "PING"));
        check_eq(reload(&h, "databases: {main: {@, max_conections: 3}}\n"), 1);
        check(broker_log_has(&h.broker, "max_connections")); /* the nearest known key */
        check(broker_log_has(&h.broker, "nothing has changed"));
        check_figure(&h.broker, "main", max_connections, 20);
        freeReplyObject(client_command(client_database(l, NULL), "PING"));
        check_figure(&h.broker, "main", created_connections, 1);
        lessor_close(l);
        host_end(&h);
}

TEST(reload, an_unchanged_pool_keeps_its_connections_and_live_keys_are_taken_over) {
        struct host h;
        start(&h, "databases: {main: {@}}\n");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        freeReplyObject(client_command(db, "PING"));
        check_eq(reload(&h, "databases: {main: {@, socket_timeout: 7s, wait_timeout: 9s}}\n"), 0);
        check_figure(&h.broker, "main", socket_timeout, UINT64_C(7000000000));
        check_figure(&h.broker, "main", wait_timeout, UINT64_C(9000000000));
        check(broker_log_has(&h.broker, "main: changed socket_timeout, wait_timeout (live)"));
        freeReplyObject(client_command(db, "PING"));
        check_figure(&h.broker, "main", created_connections, 1);
        lessor_close(l);
        host_end(&h);
}

TEST(reload, an_added_database_reaches_workers_that_are_attached_and_a_removed_one_is_unknown) {
        struct host h;
        lessor_error e = {0};
        start(&h, "databases: {main: {@}, old: {@, db: 1}}\n");
        lessor *l = client_open(&h.broker);
        lessor_db *old = client_database(l, "old"), *added;
        check(lessor_database(l, "new", &added, &e) == LESSOR_E_UNKNOWN_DATABASE);
        lessor_lease *held = lessor_acquire(old, WAIT_MS, &e);
        check_msg(held, "%s", e.text);
        check_eq(reload(&h, "databases: {main: {@}, new: {@, db: 2}}\n"), 0);
        check_msg(lessor_database(l, "new", &added, &e) == 0, "%s", e.text);
        freeReplyObject(client_command(added, "SET where new"));
        /* What is held goes on to its end; nothing more is to be had. */
        redisReply *reply = lessor_lease_command(held, &e, "PING");
        check_msg(reply, "%s", e.text);
        freeReplyObject(reply);
        check(!lessor_acquire(old, WAIT_MS, &e));
        check_msg(e.code == LESSOR_E_UNKNOWN_DATABASE && strstr(e.text, "new"), "%d: %s", e.code, e.text);
        lessor_release(held);
        check_soon(redis_connections(&h.redis, broker_client_name(&h.broker, "old")) == 0, WAIT_MS);
        const char *const argv[] = {tool_path(), "stat", "old", "--instance", h.broker.instance, NULL};
        char *said;
        check_soon((program_run(argv, &said, WAIT_MS) == 1 && (free(said), true)) || (free(said), false), WAIT_MS);
        check_figure(&h.broker, "new", leases, 1);
        lessor_close(l);
        broker_stop(&h.broker);
        broker_free(&h.broker);
        redis_stop(&h.redis);
}

static int waits_and_is_told(unsigned index, void *arg) {
        struct host *h = arg;
        lessor_error e = {0};
        lessor *l = client_open(&h->broker);
        lessor_lease *lease = lessor_acquire(client_database(l, "old"), 60000, &e);
        int told = !lease && e.code == LESSOR_E_UNKNOWN_DATABASE ? 0 : 1;
        lessor_release(lease);
        lessor_close(l);
        return told;
}

TEST(reload, who_waits_for_a_removed_database_is_told) {
        struct workers workers;
        struct host h;
        lessor_error e = {0};
        start(&h, "databases: {main: {@}, old: {@, max_connections: 1}}\n");
        lessor *l = client_open(&h.broker);
        lessor_lease *held = lessor_acquire(client_database(l, "old"), WAIT_MS, &e);
        check(held);
        workers_start(&workers, 4, waits_and_is_told, &h);
        check_figure_soon(&h.broker, "old", waiting, 4, WAIT_MS);
        check_eq(reload(&h, "databases: {main: {@}}\n"), 0);
        check_eq(workers_wait(&workers, WAIT_MS), 4);
        lessor_release(held);
        lessor_close(l);
        broker_free(&h.broker);
        redis_stop(&h.redis);
}

enum { MANY = 8, FEW = 3 };

TEST(reload, a_shrunk_pool_drains_and_a_grown_one_serves_more) {
        struct host h;
        lessor_lease *leases[2 * MANY];
        lessor_error e = {0};
        start(&h, "databases: {main: {@, max_connections: 8}}\n");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        for (unsigned i = 0; i < MANY; i++)
                check((leases[i] = lessor_acquire(db, WAIT_MS, &e)));
        check_eq(reload(&h, "databases: {main: {@, max_connections: 3}}\n"), 0);
        check_figure(&h.broker, "main", in_use_connections, MANY); /* nobody is cut off */
        for (unsigned i = 0; i < MANY; i++)
                lessor_release(leases[i]);
        check_figure_soon(&h.broker, "main", open_connections, FEW, WAIT_MS);
        for (unsigned i = 0; i < FEW; i++)
                check((leases[i] = lessor_acquire(db, WAIT_MS, &e)));
        check(!lessor_acquire(db, 0, &e));
        check_eq(reload(&h, "databases: {main: {@, max_connections: 12}}\n"), 0);
        for (unsigned i = FEW; i < 12; i++)
                check_msg((leases[i] = lessor_acquire(db, WAIT_MS, &e)), "%s", e.text);
        check(!lessor_acquire(db, 0, &e));
        for (unsigned i = 0; i < 12; i++)
                lessor_release(leases[i]);
        lessor_close(l);
        host_end(&h);
}

/* Is the text in the memory of the process? All of it that may be written: heap, stacks, data. */
static bool memory_has(pid_t pid, const char *text) {
        char path[64], line[512], mode[8];
        unsigned long from, to;
        bool found = false;
        snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
        FILE *maps = fopen(path, "re");
        snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
        int memory = open(path, O_RDONLY | O_CLOEXEC);
        check(maps && memory >= 0);
        while (fgets(line, sizeof(line), maps)) {
                if (sscanf(line, "%lx-%lx %7s", &from, &to, mode) != 3 || mode[1] != 'w' || mode[3] == 's')
                        continue;
                for (unsigned long at = from; at < to && !found; at += 1 << 20) {
                        static char piece[(1 << 20) + 64];
                        size_t size = to - at < sizeof(piece) ? to - at : sizeof(piece);
                        ssize_t n = pread(memory, piece, size, (off_t)at);
                        found = n > 0 && memmem(piece, (size_t)n, text, strlen(text));
                }
        }
        close(memory);
        fclose(maps);
        return found;
}

TEST(reload, a_password_that_was_rotated_is_not_kept) {
        struct host h;
        if (PROCESS_SLOW > 1)
                test_skip("a sanitizer's shadow memory is too large to be searched");
        redis_start(&h.redis,
                    &(struct redis_options){.config = "user worker on >old-secret-of-before >new-secret ~* &* +@all"});
        char *path = sandbox_path("secret"), pattern[512];
        sandbox_write(path, "old-secret-of-before\n");
        check(chmod(path, 0600) == 0);
        snprintf(pattern, sizeof(pattern), "databases: {main: {@, username: worker, password_file: %s}}\n", path);
        char *text = text_of(pattern, redis_address(&h.redis));
        broker_start(&h.broker, "%s", text);
        free(text);
        lessor *l = client_open(&h.broker);
        freeReplyObject(client_command(client_database(l, NULL), "PING"));
        check(memory_has(h.broker.pid, "old-secret-of-before")); /* where it is looked for it would be found */
        sandbox_write(path, "new-secret\n");
        check_eq(reload(&h, pattern), 0);
        freeReplyObject(client_command(client_database(l, NULL), "PING"));
        check_figure_soon(&h.broker, "main", discards_outdated, 1, WAIT_MS);
        check_soon(!memory_has(h.broker.pid, "old-secret-of-before"), WAIT_MS);
        lessor_close(l);
        free(path);
        host_end(&h);
}

TEST(reload, what_needs_a_restart_is_refused_whole_and_says_how_much_could_be_had) {
        struct host h;
        start(&h, "databases: {main: {@, max_connections: 4}}\n");
        check_eq(reload(&h, "databases: {main: {@, max_connections: 16, wait_timeout: 7s}}\n"), 0);
        check_figure(&h.broker, "main", max_connections, 16);
        check_eq(reload(&h, "databases: {main: {@, max_connections: 17, wait_timeout: 8s}, more: {@}}\n"), 1);
        check(broker_log_has(&h.broker, "max_connections of `main` can grow to 16"));
        check_figure(&h.broker, "main", max_connections, 16);
        check_figure(&h.broker, "main", wait_timeout, UINT64_C(7000000000));
        check_eq(reload(&h, "databases: {main: {@, max_connections: 16}, more: {@, max_connections: 600}}\n"), 1);
        check(broker_log_has(&h.broker, "no room for these databases"));
        check_eq(reload(&h, "databases: {main: {@, max_connections: 16}, more: {@, max_connections: 500}}\n"), 0);
        check_figure(&h.broker, "more", max_connections, 500);
        host_end(&h);
}

TEST(reload, a_password_is_rotated_without_dropping_a_lease) {
        struct host h;
        lessor_error e = {0};
        redis_start(&h.redis, &(struct redis_options){.config = "user worker on >before ~* &* +@all"});
        char *text = text_of("databases: {main: {@, username: worker, password: before}}\n", redis_address(&h.redis));
        broker_start(&h.broker, "%s", text);
        free(text);
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_lease *held = lessor_acquire(db, WAIT_MS, &e);
        check(held);
        redis_say(&h.redis, "ACL SETUSER worker >after");
        check_eq(reload(&h, "databases: {main: {@, username: worker, password: after}}\n"), 0);
        redis_say(&h.redis, "ACL SETUSER worker <before");
        redisReply *reply = lessor_lease_command(held, &e, "PING");
        check_msg(reply && reply->type == REDIS_REPLY_STATUS, "%s", e.text);
        freeReplyObject(reply);
        freeReplyObject(client_command(db, "PING"));
        lessor_release(held);
        check_figure_soon(&h.broker, "main", discards_outdated, 1, WAIT_MS);
        check(!broker_log_has(&h.broker, "WRONGPASS"));
        lessor_close(l);
        host_end(&h);
}

/* ---- under load ---------------------------------------------------------------------------------------------------- */

struct load {
        struct host *host;
        struct stage working, over;
};

static int works(unsigned index, void *arg) {
        struct load *load = arg;
        lessor_error e = {0};
        lessor *l = client_open(&load->host->broker);
        lessor_db *db = client_database(l, NULL);
        unsigned done = 0;
        while (!atomic_load(&load->over.count)) {
                redisReply *reply = lessor_command(db, &e, "INCR calls");
                if (!reply) {
                        fprintf(stderr, "worker %u: %d %s\n", index, e.code, e.text);
                        return 1;
                }
                freeReplyObject(reply);
                if (++done == 10)
                        stage_advance(&load->working);
        }
        lessor_close(l);
        return 0;
}

/* It is about reloads: a machine that stands still for seconds is none of them. */
#define PATIENT "socket_timeout: 40s, wait_timeout: 40s"

TEST_WITH(reload, a_hundred_reloads_good_and_bad_fail_no_command_on_an_unchanged_database, .timeout = 240) {
        enum { WORKERS = 16 };
        static const char *const files[] = {
                "databases: {main: {@, " PATIENT "}, other: {@, db: 1, max_connections: 3}}\n",
                "databases: {main: {@, " PATIENT "}, other: {@, db: 2, max_connections: 5}}\n",
                "databases: {main: {@, " PATIENT "}, other: {unix_socket: 3\n",
                "databases: {main: {@, " PATIENT "}, other: {@, db: 1, max_connections: 5, min_idle: 2}}\n",
        };
        struct load *load = shared_memory(sizeof(*load));
        struct workers workers;
        struct host h;
        start(&h, files[0]);
        load->host = &h;
        workers_start(&workers, WORKERS, works, load);
        check(stage_reached(&load->working, WORKERS, WAIT_MS));
        uint64_t created = broker_figures_now(&h.broker, "main").created_connections;
        for (unsigned i = 0; i < 100; i++)
                check_eq(reload(&h, files[i % 4]), i % 4 == 2 ? 1 : 0);
        check_eq(broker_figures_now(&h.broker, "main").discards_outdated, 0);
        check(broker_figures_now(&h.broker, "main").created_connections <= created + 20);
        stage_advance(&load->over);
        check_eq(workers_wait(&workers, 3 * WAIT_MS), WORKERS);
        broker_stop(&h.broker);
        broker_free(&h.broker);
        redis_stop(&h.redis);
}

/* ---- the end --------------------------------------------------------------------------------------------------------- */

static int shut_down(struct host *h, bool cut) {
        const char *const argv[] = {tool_path(),        "shutdown",           "--instance",
                                    h->broker.instance, cut ? "--cut" : NULL, NULL};
        char *said;
        int r = program_run(argv, &said, WAIT_MS);
        free(said);
        return r;
}

static void check_shutdown(bool cut) {
        struct host h;
        lessor_error e = {0};
        start(&h, "databases: {main: {@}}\n");
        lessor *l = client_open(&h.broker);
        lessor_lease *held = lessor_acquire(client_database(l, NULL), WAIT_MS, &e);
        check(held);
        check_eq(shut_down(&h, cut), 0);
        redisReply *reply = lessor_lease_command(held, &e, "PING");
        check_eq(reply != NULL, !cut);
        check(reply || e.code == LESSOR_E_CONNECTION);
        freeReplyObject(reply);
        lessor_release(held);
        lessor_close(l);
        check_eq(program_wait(h.broker.pid, WAIT_MS), 0);
        h.broker.pid = 0;
        check_eq(shut_down(&h, cut), 2); /* there is none any more */
        broker_free(&h.broker);
        redis_stop(&h.redis);
}

TEST(shutdown, a_held_lease_goes_on) { check_shutdown(false); }
TEST(shutdown, cut_ends_what_is_held) { check_shutdown(true); }

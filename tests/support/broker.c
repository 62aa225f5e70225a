/* SPDX-License-Identifier: MIT */
#include "broker.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>

#include "check.h"
#include "process.h"
#include "sandbox.h"

enum { START_MS = 60000, SETTLE_MS = 60000 }; /* the machine may stand still for long: see README.md */

const char *broker_path(void) {
        const char *path = getenv("LESSORD");
        return path && *path ? path : LESSOR_BINARY_DIR "/broker/lessord";
}

const char *tool_path(void) { return LESSOR_BINARY_DIR "/tools/lessor"; }

/* Its threads run, and so does its socket, when the heartbeat in a segment of its own moves. Nobody has to connect for it. */
static bool is_ready(const struct broker *b) {
        struct lessor_status status;
        if (lessor_status_open(b->instance, &status) != 0)
                return false;
        bool ready = status.constants.broker_pid == b->pid && lessor_status_word(&status.header->heartbeat) != 0;
        lessor_status_close(&status);
        return ready;
}

__attribute__((format(printf, 2, 0))) static void prepare(struct broker *b, const char *fmt, va_list args) {
        char *text, name[LESSOR_NAME_SIZE + 8];

        *b = (struct broker){0};
        sandbox_instance(b->instance, sizeof(b->instance));
        const char *number = strrchr(b->instance, '-') + 1;
        snprintf(name, sizeof(name), "broker%s.sock", number);
        b->socket = sandbox_path(name);
        snprintf(name, sizeof(name), "broker%s.yaml", number);
        b->config = sandbox_path(name);
        snprintf(name, sizeof(name), "broker%s.log", number);
        b->log = sandbox_path(name);
        check(vasprintf(&text, fmt, args) >= 0);
        sandbox_write(b->config, text);
        free(text);
}

void broker_prepare(struct broker *b, const char *fmt, ...) {
        va_list args;
        va_start(args, fmt);
        prepare(b, fmt, args);
        va_end(args);
}

static pid_t launch(const struct broker *b, void (*prepare_child)(void *), void *arg) {
        /* $LESSOR_TEST_SET: the same tests with another setting, such as threads=3. */
        const char *set = getenv("LESSOR_TEST_SET");
        const char *const argv[] = {broker_path(), "-c",       b->config, "--instance",
                                    b->instance,   "--socket", b->socket, set ? "--set" : NULL,
                                    set,           NULL};
        return program_start_prepared(b->log, argv, prepare_child, arg);
}

void broker_relaunch(struct broker *b) {
        uint64_t deadline = deadline_in(START_MS);

        b->pid = launch(b, NULL, NULL);
        while (!is_ready(b)) {
                int status = program_wait(b->pid, 0);
                if (status >= 0 || !look_again_before(deadline)) {
                        broker_dump_log(b);
                        check_msg(false, "%s does not start (status %d)", broker_path(), status);
                }
        }
}

void broker_launch(struct broker *b) {
        broker_relaunch(b);
        check_eq(broker_sessions_now(b), 0);
        b->fds = fd_count(b->pid);
}

int broker_launch_refused(struct broker *b, void (*prepare_child)(void *), void *arg) {
        pid_t pid = launch(b, prepare_child, arg);
        int status = program_wait(pid, START_MS);
        if (status < 0)
                program_end(pid, SIGKILL, START_MS);
        return status;
}

void broker_start(struct broker *b, const char *fmt, ...) {
        va_list args;
        va_start(args, fmt);
        prepare(b, fmt, args);
        va_end(args);
        broker_launch(b);
}

static void check_log(const struct broker *b) {
        if (!broker_log_has(b, "Sanitizer") && !broker_log_has(b, "runtime error:"))
                return;
        broker_dump_log(b);
        check_msg(false, "the broker's sanitizer reports, see above");
}

static void end(struct broker *b, int signal, int expected) {
        int status = program_end(b->pid, signal, START_MS);
        b->pid = 0;
        check_log(b);
        if (status != expected)
                broker_dump_log(b);
        check_msg(status == expected, "the broker ended with status %d", status);
}

void broker_stop(struct broker *b) { end(b, SIGTERM, 0); }
void broker_kill(struct broker *b) { end(b, SIGKILL, 128 + SIGKILL); }

void broker_free(struct broker *b) {
        if (b->pid > 0)
                broker_stop(b);
        free(b->socket);
        free(b->config);
        free(b->log);
        *b = (struct broker){0};
}

bool broker_log_has(const struct broker *b, const char *text) {
        char *log = sandbox_read(b->log, NULL);
        bool found = strstr(log, text) != NULL;
        free(log);
        return found;
}

void broker_dump_log(const struct broker *b) {
        char *log = sandbox_read(b->log, NULL);
        fprintf(stderr, "---- %s\n%s----\n", b->log, log);
        free(log);
}

const char *broker_client_name(const struct broker *b, const char *database) {
        static char name[3 * LESSOR_NAME_SIZE];
        snprintf(name, sizeof(name), "lessor:%s:%s", b->instance, database);
        return name;
}

static void open_status(const struct broker *b, struct lessor_status *ret) {
        int r = lessor_status_open(b->instance, ret);
        check_msg(r == 0, "the status segment of %s: %s", b->instance, strerror(-r));
}

/* A record that is being written, or whose writer was interrupted half-way, is readable soon. */
static int read_soon(const struct lessor_status *s, unsigned i, struct lessor_status_database *ret) {
        int r;
        check_soon((r = lessor_status_read_database(s, i, LESSOR_STATUS_ALL, ret)) != -EAGAIN, SETTLE_MS);
        return r;
}

struct lessor_status_database broker_figures(const struct broker *b, const char *database) {
        struct lessor_status status = {0};
        struct lessor_status_database record;
        int r;

        open_status(b, &status);
        for (unsigned i = 0; (r = read_soon(&status, i, &record)) == 0; i++)
                if (strcmp(record.name, database) == 0)
                        break;
        lessor_status_close(&status);
        check_msg(r == 0, "no figures of %s: %s", database, strerror(-r));
        return record;
}

/* The heartbeat moves when all figures are written; what the one after next says was gathered after the next. */
static void next_edition(const struct lessor_status *s) {
        for (unsigned i = 0; i < 2; i++) {
                uint64_t beat = lessor_status_word(&s->header->heartbeat);
                check_soon(lessor_status_word(&s->header->heartbeat) != beat, SETTLE_MS);
        }
}

struct lessor_status_database broker_figures_now(const struct broker *b, const char *database) {
        struct lessor_status status = {0};
        open_status(b, &status);
        next_edition(&status);
        lessor_status_close(&status);
        return broker_figures(b, database);
}

uint64_t broker_sessions(const struct broker *b) {
        struct lessor_status status = {0};
        open_status(b, &status);
        uint64_t sessions = lessor_status_word(&status.header->sessions);
        lessor_status_close(&status);
        return sessions;
}

uint64_t broker_sessions_now(const struct broker *b) {
        struct lessor_status status = {0};
        open_status(b, &status);
        next_edition(&status);
        lessor_status_close(&status);
        return broker_sessions(b);
}

struct lessor_status_connection broker_connection_held(const struct broker *b) {
        struct lessor_status status = {0};
        struct lessor_status_connection c;
        int r;

        open_status(b, &status);
        next_edition(&status);
        for (unsigned i = 0; (r = lessor_status_read_connection(&status, i, &c)) == 0; i++)
                if (c.state == LESSOR_CONNECTION_LEASED && c.holder_pid == getpid())
                        break;
        lessor_status_close(&status);
        check_msg(r == 0, "no connection is shown as held by this process: %s", strerror(-r));
        return c;
}

static bool stands_still(pid_t pid) {
        char path[64];
        snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
        char *stat = sandbox_read(path, NULL), *state = strstr(stat, ") ");
        bool still = state && state[2] == 'T';
        free(stat);
        return still;
}

void broker_pause(struct broker *b) {
        check(kill(b->pid, SIGSTOP) == 0);
        check_soon(stands_still(b->pid), SETTLE_MS);
}

void broker_resume(struct broker *b) { check(kill(b->pid, SIGCONT) == 0); }

/* One database's books; its open connections. */
static uint64_t check_database_settled(const struct broker *b, struct redis *r,
                                       const struct lessor_status_database *d) {
        check_msg(d->in_use_connections == 0 && d->waiting == 0 && d->closing_connections == 0 &&
                          d->dialling_connections == 0 &&
                          d->open_connections == d->available_connections + d->lane_connections,
                  "%s: open %llu, available %llu, lanes' %llu, in use %llu, dialling %llu, closing %llu, waiting %llu",
                  d->name, (unsigned long long)d->open_connections, (unsigned long long)d->available_connections,
                  (unsigned long long)d->lane_connections, (unsigned long long)d->in_use_connections,
                  (unsigned long long)d->dialling_connections, (unsigned long long)d->closing_connections,
                  (unsigned long long)d->waiting);
        check_msg(d->open_connections <= d->max_connections && d->peak_connections <= d->max_connections,
                  "%s: %llu open, at most %llu, of %llu", d->name, (unsigned long long)d->open_connections,
                  (unsigned long long)d->peak_connections, (unsigned long long)d->max_connections);
        if (r)
                check_eq(redis_connections(r, broker_client_name(b, d->name)), d->open_connections);
        return d->open_connections;
}

static bool is_quiet(const struct lessor_status *s, uint64_t *ret_open) {
        struct lessor_status_database d;
        *ret_open = 0;
        if (lessor_status_word(&s->header->sessions) != 0)
                return false;
        for (unsigned i = 0; i < lessor_status_databases(s); i++) {
                if (lessor_status_read_database(s, i, LESSOR_STATUS_ALL, &d) != 0 ||
                    d.open_connections != d.available_connections + d.lane_connections || d.waiting)
                        return false;
                *ret_open += d.open_connections;
        }
        return true;
}

/* To standard error: what an fd too many is. */
static void dump_fds(pid_t pid) {
        char path[64], name[320], target[256];
        snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
        DIR *directory = opendir(path);
        for (struct dirent *e; directory && (e = readdir(directory));) {
                snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
                ssize_t n = readlink(name, target, sizeof(target));
                if (n > 0)
                        fprintf(stderr, "fd %s: %.*s\n", e->d_name, (int)n, target);
        }
        if (directory)
                closedir(directory);
}

void check_settled(const struct broker *b, struct redis *r) {
        struct lessor_status status = {0};
        struct lessor_status_database d;
        uint64_t open = 0;

        open_status(b, &status);
        next_edition(&status);
        bool settled = wait_until(is_quiet(&status, &open) && fd_count(b->pid) == b->fds + open, SETTLE_MS);
        if (!settled) {
                broker_dump_log(b);
                dump_fds(b->pid);
        }
        for (unsigned i = 0; read_soon(&status, i, &d) == 0; i++)
                check_database_settled(b, r, &d);
        check_eq(lessor_status_word(&status.header->sessions), 0);
        check_msg(settled, "the broker has %u fds, %u at its start and %llu connections", fd_count(b->pid), b->fds,
                  (unsigned long long)open);
        lessor_status_close(&status);
}

lessor *client_open(const struct broker *b) {
        lessor *l;
        check_eq(lessor_open(b->socket, &l), 0);
        return l;
}

lessor_db *client_database(lessor *l, const char *name) {
        lessor_db *db;
        lessor_error e = {0};
        int r = lessor_database(l, name, &db, &e);
        check_msg(r == 0, "database %s: %d %s", name ? name : "(NULL)", r, e.text);
        return db;
}

static lessor_error last_error;

lessor_error *client_error_clear(void) {
        last_error = (lessor_error){0};
        return &last_error;
}

redisReply *client_reply(redisReply *reply, const char *what) {
        check_msg(reply, "%s: %s", what, last_error.text);
        check_msg(reply->type != REDIS_REPLY_ERROR, "%s: %s", what, reply->str);
        return reply;
}

void client_check_string(lessor_db *db, const char *key, const char *value) {
        redisReply *reply = client_command(db, "GET %s", key);
        check_str(reply->str, value);
        freeReplyObject(reply);
}

/* SPDX-License-Identifier: MIT */
#include "redis.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "check.h"
#include "process.h"
#include "sandbox.h"

enum { START_MS = 10000, ANSWER_S = 20, PORT_ATTEMPTS = 5 };

static void control_close(struct redis *r) {
        if (r->control)
                redisFree(r->control);
        r->control = NULL;
}

/* One attempt: a context that has got a PONG, or NULL. */
static redisContext *try_connect(const struct redis *r) {
        struct timeval limit = {.tv_sec = (time_t)ANSWER_S * PROCESS_SLOW};
        redisContext *c = redisConnectUnix(r->socket);
        redisReply *reply = NULL;

        if (c && !c->err && redisSetTimeout(c, limit) == REDIS_OK) {
                if (r->password)
                        freeReplyObject(redisCommand(c, "AUTH %s", r->password));
                reply = redisCommand(c, "PING");
        }
        bool loading = reply && reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "LOADING", 7) == 0;
        bool up = reply && (reply->type == REDIS_REPLY_STATUS || loading);
        if (reply)
                freeReplyObject(reply);
        if (!up && c)
                redisFree(c);
        return up ? c : NULL;
}

static bool ended(const struct redis *r) { return program_wait(r->pid, 0) >= 0; }

/* False: it has ended, the port was taken, say. */
static bool launch(struct redis *r) {
        uint64_t deadline = deadline_in(START_MS);

        r->pid = program_start(r->log, (const char *[]){"redis-server", r->config, NULL});
        while (!(r->control = try_connect(r))) {
                if (ended(r))
                        return false;
                check_msg(look_again_before(deadline), "redis-server does not answer, see %s", r->log);
        }
        return true;
}

/* Free a moment ago. */
static unsigned free_port(bool ipv6) {
        struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
        struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        struct sockaddr *address = ipv6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4;
        socklen_t size = ipv6 ? sizeof(v6) : sizeof(v4);
        int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

        check_msg(fd >= 0 && bind(fd, address, size) == 0 && getsockname(fd, address, &size) == 0,
                  "no loopback port: %s", strerror(errno));
        close(fd);
        return ntohs(ipv6 ? v6.sin6_port : v4.sin_port);
}

static void write_config(const struct redis *r, const struct redis_options *o) {
        char text[4096];
        int n = snprintf(text, sizeof(text),
                         "port %u\nbind %s\nunixsocket %s\nunixsocketperm 777\ndir %s\nsave \"\"\nappendonly no\n"
                         "daemonize no\nenable-debug-command yes\n",
                         r->port, r->ipv6 ? "::1" : "127.0.0.1", r->socket, sandbox());
        if (r->password)
                n += snprintf(text + n, sizeof(text) - (size_t)n, "requirepass %s\n", r->password);
        if (o && o->config)
                n += snprintf(text + n, sizeof(text) - (size_t)n, "%s\n", o->config);
        check((size_t)n < sizeof(text));
        sandbox_write(r->config, text);
}

static char *numbered(unsigned n, const char *suffix) {
        char text[64];
        snprintf(text, sizeof(text), "redis%u.%s", n, suffix);
        return sandbox_path(text);
}

void redis_start(struct redis *r, const struct redis_options *o) {
        static unsigned n;
        *r = (struct redis){.socket = numbered(n, "sock"),
                            .config = numbered(n, "conf"),
                            .log = numbered(n, "log"),
                            .password = o ? o->password : NULL,
                            .ipv6 = o && o->ipv6};
        n++;
        for (int attempt = 0; attempt < PORT_ATTEMPTS; attempt++) {
                if (o && (o->tcp || o->ipv6))
                        r->port = free_port(r->ipv6);
                write_config(r, o);
                if (launch(r))
                        return;
        }
        char *log = sandbox_read(r->log, NULL);
        check_msg(false, "redis-server does not start: %s", log);
}

void redis_kill(struct redis *r) {
        control_close(r);
        if (r->pid > 0)
                check(program_end(r->pid, SIGKILL, 10000) >= 0);
        r->pid = 0;
}

void redis_stop(struct redis *r) {
        redis_kill(r);
        free(r->socket);
        free(r->config);
        free(r->log);
        *r = (struct redis){0};
}

void redis_restart(struct redis *r) {
        if (r->pid > 0)
                redis_kill(r);
        check_msg(launch(r), "redis-server does not start again, see %s", r->log);
}

void redis_restart_loading(struct redis *r, const char *config) {
        char *before = sandbox_read(r->config, NULL), *text = NULL;
        check(asprintf(&text, "%s%s\n", before, config) > 0);
        sandbox_write(r->config, text);
        free(before);
        free(text);
        redis_restart(r);
        check_eq(redis_info(r, "loading"), 1);
}

bool redis_is_busy(struct redis *r) {
        redisReply *reply = redis_ask(r, "PING");
        bool busy = reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "BUSY", 4) == 0;
        freeReplyObject(reply);
        return busy;
}

void redis_pause(struct redis *r) { check(kill(r->pid, SIGSTOP) == 0); }
void redis_resume(struct redis *r) { check(kill(r->pid, SIGCONT) == 0); }

static redisReply *ask(struct redis *r, const char *fmt, va_list args) {
        redisReply *reply = redisvCommand(r->control, fmt, args);
        check_msg(reply, "redis-server: %s: %s", fmt, r->control->errstr);
        return reply;
}

redisReply *redis_ask(struct redis *r, const char *fmt, ...) {
        va_list args;
        va_start(args, fmt);
        redisReply *reply = ask(r, fmt, args);
        va_end(args);
        return reply;
}

long long redis_integer(struct redis *r, const char *fmt, ...) {
        va_list args;
        va_start(args, fmt);
        redisReply *reply = ask(r, fmt, args);
        va_end(args);
        check_msg(reply->type == REDIS_REPLY_INTEGER || reply->type == REDIS_REPLY_STRING, "%s: a reply of type %d: %s",
                  fmt, reply->type, reply->str ? reply->str : "");
        long long value = reply->type == REDIS_REPLY_INTEGER ? reply->integer : strtoll(reply->str, NULL, 10);
        freeReplyObject(reply);
        return value;
}

void redis_say(struct redis *r, const char *fmt, ...) {
        va_list args;
        va_start(args, fmt);
        redisReply *reply = ask(r, fmt, args);
        va_end(args);
        check_msg(reply->type != REDIS_REPLY_ERROR, "%s: %s", fmt, reply->str);
        freeReplyObject(reply);
}

void redis_check_string(struct redis *r, const char *key, const char *value) {
        redisReply *reply = redis_ask(r, "GET %s", key);
        check_str(reply->str, value);
        freeReplyObject(reply);
}

unsigned redis_connections(struct redis *r, const char *name) {
        redisReply *list = redis_ask(r, "CLIENT LIST");
        char wanted[128];
        unsigned n = 0;

        check_eq(list->type, REDIS_REPLY_STRING);
        snprintf(wanted, sizeof(wanted), " name=%s ", name ? name : "");
        for (const char *line = list->str; line && *line; line = strchr(line, '\n')) {
                line += *line == '\n';
                const char *end = strchr(line, '\n'), *hit = name ? strstr(line, wanted) : line;
                n += end && hit && hit < end;
        }
        freeReplyObject(list);
        return name ? n : n - 1;
}

long long redis_info(struct redis *r, const char *field) {
        redisReply *info = redis_ask(r, "INFO");
        char wanted[64];

        snprintf(wanted, sizeof(wanted), "\n%s:", field);
        const char *found = strstr(info->str, wanted);
        check_msg(found, "INFO has no %s", field);
        long long value = strtoll(found + strlen(wanted), NULL, 10);
        freeReplyObject(info);
        return value;
}

const char *redis_address(const struct redis *r) {
        static char text[256];
        if (r->port)
                snprintf(text, sizeof(text), "host: \"%s\", port: %u", r->ipv6 ? "::1" : "127.0.0.1", r->port);
        else
                snprintf(text, sizeof(text), "unix_socket: %s", r->socket);
        return text;
}

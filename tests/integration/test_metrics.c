/* SPDX-License-Identifier: MIT */
/* `lessor metrics`: the text, the pages, and what a client cannot do to them. */
#include <arpa/inet.h>
#include <sys/socket.h>

#include "support/check.h"
#include "support/host.h"
#include "support/metrics.h"
#include "support/process.h"
#include "support/sandbox.h"

enum { WAIT_MS = 20000, CROWD = 40 };

struct server {
        pid_t pid;
        uint16_t port;
};

static uint16_t port_printed(const char *path) {
        unsigned port = 0;
        char *text = sandbox_read(path, NULL);
        if (sscanf(text, "listening on http://127.0.0.1:%u/metrics\n", &port) != 1)
                port = 0;
        free(text);
        return (uint16_t)port;
}

static void server_start(struct server *s, const struct broker *b) {
        const char *path = sandbox_path("metrics.out");
        s->pid = program_start(path, (const char *[]){tool_path(), "metrics", "--instance", b->instance, "--listen",
                                                      "127.0.0.1:0", NULL});
        check_soon((s->port = port_printed(path)) != 0, WAIT_MS);
}

static void server_stop(const struct server *s) { check_eq(program_end(s->pid, SIGTERM, WAIT_MS), 0); }

static int dial(const struct server *s) {
        struct sockaddr_in a = {
                .sin_family = AF_INET, .sin_port = htons(s->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        check(connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){.tv_sec = 60}, sizeof(struct timeval));
        return fd;
}

/* All that comes until the server closes; for free(). */
static char *drain(int fd) {
        char *text = NULL;
        size_t size, n;
        FILE *out = open_memstream(&text, &size);
        char part[4096];
        ssize_t got;
        while ((got = recv(fd, part, sizeof(part), 0)) > 0) {
                n = fwrite(part, 1, (size_t)got, out);
                check_eq(n, got);
        }
        fclose(out);
        close(fd);
        return text;
}

/* The status; the body, for free(), in *ret unless NULL. */
static int get(const struct server *s, const char *path, const char *headers, char **ret) {
        char request[512];
        int fd = dial(s), status = 0;
        snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n", path, headers);
        check(send(fd, request, strlen(request), MSG_NOSIGNAL) == (ssize_t)strlen(request));
        char *all = drain(fd), *body = strstr(all, "\r\n\r\n");
        check_msg(sscanf(all, "HTTP/1.1 %d ", &status) == 1 && body, "%s", all);
        if (ret)
                *ret = strdup(body + 4);
        free(all);
        return status;
}

static double value(const struct server *s, const char *series) {
        char *text;
        struct metrics m;
        check_eq(get(s, "/metrics", "", &text), 200);
        metrics_read(&m, text, false);
        double v = metrics_value(&m, series);
        metrics_free(&m);
        free(text);
        return v;
}

static void use(struct host *h, const char *database) {
        lessor *l = client_open(&h->broker);
        freeReplyObject(client_command(client_database(l, database), "PING"));
        lessor_close(l);
}

/* promtool finds one thing to say: OpenTelemetry's name db.client.connection.count ends like a histogram's. */
static void check_by_promtool(const char *text) {
        static const char known[] = "db_client_connection_count non-histogram and non-summary metrics should not have "
                                    "\"_count\" suffix\n";
        char *said, command[512];
        const char *path = sandbox_path("metrics.txt");
        sandbox_write(path, text);
        snprintf(command, sizeof(command), "promtool check metrics < '%s'", path);
        program_run((const char *[]){"sh", "-c", command, NULL}, &said, WAIT_MS);
        check_str(said, known);
        free(said);
}

static bool have_promtool(void) {
        return program_run((const char *[]){"sh", "-c", "command -v promtool >/dev/null", NULL}, NULL, WAIT_MS) == 0;
}

TEST(metrics, the_page_is_what_was_asked_for_and_promtool_agrees) {
        struct host h;
        struct server s;
        struct metrics m;
        char *text;

        host_start_many(&h, "max_connections: 5");
        use(&h, "cache");
        check_figure_soon(&h.broker, "cache", operations_ok, 1, WAIT_MS);
        server_start(&s, &h.broker);
        check_eq(get(&s, "/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n", &text), 200);
        metrics_read(&m, text, true);
        check(metrics_value(&m, "lessor_operations_ok_total{database=\"cache\"}") == 1);
        check(metrics_value(&m, "db_client_connection_max{db_client_connection_pool_name=\"cache\"}") == 5);
        metrics_free(&m);
        free(text);
        check_eq(get(&s, "/metrics", "", &text), 200);
        metrics_read(&m, text, false);
        metrics_free(&m);
        bool promtool = have_promtool();
        if (promtool)
                check_by_promtool(text);
        free(text);
        server_stop(&s);
        host_end(&h);
        if (!promtool)
                test_skip("promtool is not here (tools/setup --dev installs it): our own parser was content");
}

TEST(metrics, standard_output_is_openmetrics_and_says_when_there_is_no_broker) {
        struct broker b;
        struct metrics m;
        char *text, command[512];

        broker_prepare(&b, "databases: {main: {db: 0}}\n");
        snprintf(command, sizeof(command), "%s metrics --instance %s 2>/dev/null", tool_path(), b.instance);
        check_eq(program_run((const char *[]){"sh", "-c", command, NULL}, &text, WAIT_MS), 2);
        metrics_read(&m, text, true);
        check(metrics_value(&m, "lessor_up") == 0);
        metrics_free(&m);
        free(text);
        broker_launch(&b);
        check_eq(program_run((const char *[]){"sh", "-c", command, NULL}, &text, WAIT_MS), 0);
        metrics_read(&m, text, true);
        check(metrics_value(&m, "lessor_up") == 1);
        metrics_free(&m);
        free(text);
        broker_free(&b);
}

static bool can_lease(lessor_db *db) {
        lessor_lease *lease = lessor_acquire(db, 1000, NULL);
        lessor_release(lease);
        return lease != NULL;
}

TEST(metrics, the_breaker_is_zero_again_after_recovery) {
        struct host h;
        struct server s;

        host_start(&h, "max_connections: 5, retry_base: 50ms, retry_max: 50ms");
        server_start(&s, &h.broker);
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        check(can_lease(db));
        check_eq(get(&s, "/healthz", "", NULL), 200);
        redis_kill(&h.redis);
        check_soon(!can_lease(db), WAIT_MS);
        check_soon(value(&s, "lessor_breaker_state{database=\"main\"}") > 0, WAIT_MS);
        check(value(&s, "lessor_breaker_trips_total{database=\"main\"}") == 1);
        check_eq(get(&s, "/healthz", "", NULL), 503);
        redis_restart(&h.redis);
        check_soon(can_lease(db), WAIT_MS);
        check_soon(value(&s, "lessor_breaker_state{database=\"main\"}") == 0, WAIT_MS);
        check(value(&s, "lessor_breaker_retry_at_seconds{database=\"main\"}") == 0);
        check_soon(get(&s, "/healthz", "", NULL) == 200, WAIT_MS);
        lessor_close(l);
        server_stop(&s);
        host_end(&h);
}

TEST(metrics, the_pages_outlive_the_broker_and_follow_the_next_one) {
        struct host h;
        struct server s;
        char *text;

        host_start(&h, "max_connections: 7");
        server_start(&s, &h.broker);
        check(value(&s, "lessor_up") == 1);
        broker_kill(&h.broker);
        check_soon(value(&s, "lessor_up") == 0, WAIT_MS);
        check(value(&s, "lessor_max_connections{database=\"main\"}") == 7);
        check(value(&s, "lessor_heartbeat_age_seconds") > 3);
        check_eq(get(&s, "/healthz", "", &text), 503);
        check_msg(strstr(text, "STALE"), "%s", text);
        free(text);
        broker_launch(&h.broker);
        check_soon(value(&s, "lessor_up") == 1, WAIT_MS);
        check_eq(get(&s, "/healthz", "", NULL), 200);
        broker_stop(&h.broker);
        check_soon(value(&s, "lessor_up") == 0, WAIT_MS);
        check_eq(get(&s, "/healthz", "", &text), 503);
        check_msg(strstr(text, h.broker.instance), "%s", text);
        free(text);
        server_stop(&s);
        broker_free(&h.broker);
        redis_stop(&h.redis);
}

TEST(metrics, who_sends_nothing_keeps_nobody_out) {
        struct host h;
        struct server s;
        int crowd[CROWD];

        host_start(&h, "max_connections: 5");
        server_start(&s, &h.broker);
        for (int i = 0; i < CROWD; i++) {
                crowd[i] = dial(&s);
                check_eq(send(crowd[i], "GET /met", i % 2 ? 8 : 1, MSG_NOSIGNAL), i % 2 ? 8 : 1);
        }
        check(value(&s, "lessor_up") == 1);
        check(fd_count(s.pid) < CROWD + 10);
        free(drain(crowd[0])); /* closed by the server, without an answer */
        for (int i = 1; i < CROWD; i++)
                close(crowd[i]);
        server_stop(&s);
        host_end(&h);
}

static int status_of(const struct server *s, const char *request, size_t size) {
        int fd = dial(s), status = 0;
        send(fd, request, size, MSG_NOSIGNAL);
        char *all = drain(fd);
        check_msg(sscanf(all, "HTTP/1.1 %d ", &status) == 1, "%s", all);
        free(all);
        return status;
}

TEST(metrics, what_the_server_does_not_do_it_refuses) {
        static char large[20000];
        struct host h;
        struct server s;

        host_start(&h, "max_connections: 5");
        server_start(&s, &h.broker);
        check_eq(get(&s, "/", "", NULL), 200);
        check_eq(get(&s, "/nothing", "", NULL), 404);
#define STATUS(text) status_of(&s, text, sizeof(text) - 1)
        check_eq(STATUS("POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"), 405);
        check_eq(STATUS("\x16\x03\x01 hello\r\n\r\n"), 400);
        check_eq(STATUS("GET /healthz HTTP/1.0\r\n\r\n"), 200);
        memset(large, 'x', sizeof(large));
        memcpy(large, "GET / HTTP/1.1\r\nX: ", 19);
        check_eq(status_of(&s, large, sizeof(large)), 431);
        server_stop(&s);
        host_end(&h);
}

TEST(metrics, an_address_that_is_none_is_a_usage_error) {
        static const char *const bad[] = {"",         "9721",   "localhost", "localhost:", "localhost:http",
                                          "::1:9721", "x:99999"};
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                check_msg(program_run((const char *[]){tool_path(), "metrics", "--listen", bad[i], NULL}, NULL,
                                      WAIT_MS) == 64,
                          "%s", bad[i]);
        check_eq(program_run((const char *[]){tool_path(), "metrics", "--listen", "192.0.2.1:1", NULL}, NULL, WAIT_MS),
                 71);
}

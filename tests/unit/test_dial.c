/* SPDX-License-Identifier: MIT */
/*
 * Dialling a name of several addresses. getaddrinfo() is the test's own: a name leads where the test says, and nothing leaves
 * this machine. Servers are threads that say what they are told to.
 */
#include "upstream/dial.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "support/check.h"

#define GOOD "+OK\r\n:7\r\n+PONG\r\n"

enum { ADDRESSES = 4 };

/* ---- names -------------------------------------------------------------------------------------------------------- */

static unsigned ports[ADDRESSES], n_ports;

static struct addrinfo *entry(unsigned port, struct addrinfo *next) {
        struct {
                struct addrinfo info;
                struct sockaddr_in address;
        } *e = calloc(1, sizeof(*e));
        e->address = (struct sockaddr_in){
                .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        e->info = (struct addrinfo){.ai_family = AF_INET,
                                    .ai_socktype = SOCK_STREAM,
                                    .ai_addr = (struct sockaddr *)&e->address,
                                    .ai_addrlen = sizeof(e->address),
                                    .ai_next = next};
        return &e->info;
}

/* Instead of the C library's: the dial's, since this program comes first in the search. */
int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **ret) {
        struct addrinfo *list = NULL;
        if (hints->ai_flags & AI_NUMERICHOST || strcmp(host, "several.test") != 0)
                return EAI_NONAME;
        for (unsigned i = n_ports; i > 0; i--)
                list = entry(ports[i - 1], list);
        *ret = list;
        return 0;
}

void freeaddrinfo(struct addrinfo *list) {
        while (list) {
                struct addrinfo *next = list->ai_next;
                free(list);
                list = next;
        }
}

/* ---- servers ------------------------------------------------------------------------------------------------------- */

static int loopback(unsigned *ret_port) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t size = sizeof(address);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        check(fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0 &&
              getsockname(fd, (struct sockaddr *)&address, &size) == 0);
        *ret_port = ntohs(address.sin_port);
        return fd;
}

struct server {
        int listener;
        const char *answer;
        _Atomic unsigned asked;
};

static void *serve(void *arg) {
        struct server *s = arg;
        char buffer[512];
        for (;;) {
                int fd = accept(s->listener, NULL, NULL);
                if (fd < 0)
                        return NULL;
                atomic_fetch_add(&s->asked, 1);
                if (recv(fd, buffer, sizeof(buffer), 0) > 0)
                        (void)send(fd, s->answer, strlen(s->answer), MSG_NOSIGNAL);
                while (recv(fd, buffer, sizeof(buffer), 0) > 0)
                        ;
                close(fd);
        }
}

/* The next address leads here. Lives as long as the test. */
static struct server *add_server(const char *answer) {
        struct server *s = calloc(1, sizeof(*s));
        pthread_t thread;
        s->answer = answer;
        s->listener = loopback(&ports[n_ports++]);
        check(listen(s->listener, 16) == 0);
        check(pthread_create(&thread, NULL, serve, s) == 0);
        pthread_detach(thread);
        return s;
}

/* Bound, and nobody listens: refused. */
static void add_deaf(void) { (void)loopback(&ports[n_ports++]); }

/* Its queue of newcomers is full: what comes is dropped, as in a black hole. */
static void add_hole(void) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int fd = loopback(&ports[n_ports]);
        address.sin_port = htons((uint16_t)ports[n_ports++]);
        check(listen(fd, 0) == 0);
        for (unsigned i = 0; i < 2; i++) {
                int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
                check(connect(client, (struct sockaddr *)&address, sizeof(address)) == 0 || errno == EINPROGRESS);
        }
}

/* ---- dials --------------------------------------------------------------------------------------------------------- */

struct outcome {
        struct event_base *base;
        struct dial_result result;
        unsigned times;
};

static void on_done(void *userdata, const struct dial_result *result) {
        struct outcome *o = userdata;
        o->result = *result;
        o->times++;
        event_base_loopbreak(o->base);
}

static struct dial_result dial_name(const char *name, uint64_t timeout_ns) {
        struct upstream_target target = {
                .host = name, .port = 1, .client_name = "lessor:test:main", .connect_timeout_ns = timeout_ns};
        struct outcome o = {.base = event_base_new()};
        struct resolver *resolver;
        struct dial *dial;

        check(o.base && resolver_new(o.base, &resolver) == 0);
        check_eq(dial_start(o.base, resolver, &target, on_done, &o, &dial), 0);
        event_base_dispatch(o.base);
        check_eq(o.times, 1);
        resolver_free(resolver);
        event_base_free(o.base);
        return o.result;
}

static void check_connected(struct dial_result result) {
        check_msg(result.outcome == LESSOR_OK, "%d: %s", result.outcome, result.text);
        check_eq(result.client_id, 7);
        check_eq(result.trouble, LESSOR_TROUBLE_NONE);
        fd_close(result.fd);
}

TEST(dial, when_the_first_address_of_a_name_refuses_the_second_serves) {
        add_deaf();
        struct server *good = add_server(GOOD);
        check_connected(dial_name("several.test", 10 * NS_PER_S));
        check_eq(atomic_load(&good->asked), 1);
}

TEST(dial, the_first_address_that_serves_is_the_only_one_asked) {
        struct server *good = add_server(GOOD), *spare = add_server(GOOD);
        check_connected(dial_name("several.test", 10 * NS_PER_S));
        check_eq(atomic_load(&good->asked), 1);
        check_eq(atomic_load(&spare->asked), 0);
}

TEST(dial, an_address_that_swallows_connections_costs_its_own_time_and_no_more) {
        add_hole();
        add_server(GOOD);
        uint64_t began = clock_now();
        check_connected(dial_name("several.test", 300 * NS_PER_MS));
        check(clock_now() - began >= 300 * NS_PER_MS);
}

TEST(dial, one_that_is_no_redis_and_one_that_stops_half_way_are_passed_by) {
        add_server("HTTP/1.1 400 Bad Request\r\n\r\n");
        add_server("+OK\r\n:7\r\n+PO");
        add_server(GOOD);
        check_connected(dial_name("several.test", 300 * NS_PER_MS));
}

TEST(dial, when_no_address_serves_the_last_ones_error_is_told) {
        add_server("HTTP/1.1 400 Bad Request\r\n\r\n");
        add_hole();
        add_deaf();
        struct dial_result result = dial_name("several.test", 300 * NS_PER_MS);
        check_eq(result.outcome, LESSOR_E_UPSTREAM);
        check_eq(result.fd, -1);
        check_msg(strstr(result.text, strerror(ECONNREFUSED)), "%s", result.text);
        check_eq(result.trouble, LESSOR_TROUBLE_UNREACHABLE);
}

TEST(dial, one_that_loads_or_refuses_the_password_is_not_passed_by) {
        struct server *loads = add_server("-LOADING Redis is loading the dataset in memory\r\n"),
                      *good = add_server(GOOD);
        struct dial_result result = dial_name("several.test", 10 * NS_PER_S);
        check_eq(result.outcome, LESSOR_E_LOADING);
        check_eq(result.trouble, LESSOR_TROUBLE_LOADING);
        loads->answer = "-NOAUTH Authentication required.\r\n";
        result = dial_name("several.test", 10 * NS_PER_S);
        check_eq(result.outcome, LESSOR_E_CREDENTIALS);
        check_eq(result.trouble, LESSOR_TROUBLE_NOAUTH);
        check_eq(atomic_load(&good->asked), 0);
}

TEST(dial, a_name_that_leads_nowhere_is_said) {
        struct dial_result result = dial_name("nobody.test", NS_PER_S);
        check_eq(result.outcome, LESSOR_E_UPSTREAM);
        check_eq(result.trouble, LESSOR_TROUBLE_UNREACHABLE);
        check_msg(strstr(result.text, "nobody.test"), "%s", result.text);
        result = dial_name("several.test", NS_PER_S); /* no ports */
        check_msg(strstr(result.text, "no address"), "%s", result.text);
}

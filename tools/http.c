/* SPDX-License-Identifier: MIT */
/*
 * A connection reads a head of at most HEAD_MAX bytes, is answered, and is closed once the client has closed it after
 * reading the answer (a close of ours with something unread would be a reset, which can overtake the answer). All of
 * that must be over within LIFETIME_S of the accept. At CONNECTIONS_MAX the listener rests, the kernel's queue keeps who
 * comes, and CROWDED_S is all that a client gets to say what it wants, so that a scrape is answered within its own
 * timeout of ten seconds although others dawdle.
 */
#include "http.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

#include <base/cleanup.h>
#include <base/clock.h>
#include <base/list.h>

enum { CONNECTIONS_MAX = 32, HEAD_MAX = 8192, LIFETIME_S = 15, CROWDED_S = 5, BACKLOG = 64 };

struct http_server {
        struct event_base *base;
        struct evconnlistener *listener;
        struct event *sweep;
        http_answer *answer;
        void *arg;
        struct list connections; /* oldest first */
        unsigned n_connections;
        char address[NI_MAXHOST + 8];
};

struct connection {
        struct list link;
        struct http_server *server;
        struct bufferevent *stream;
        uint64_t since;
        bool answered;
};

/* ---- requests and replies -------------------------------------------------------------------------------------- */

static bool accepts_openmetrics(const char *head) {
        for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
                line += 2;
                if (strncasecmp(line, "accept:", 7) != 0)
                        continue;
                const char *end = strstr(line, "\r\n"), *found = strcasestr(line, "application/openmetrics-text");
                if (found && (!end || found < end))
                        return true;
        }
        return false;
}

int http_parse(const char *head, struct http_request *ret) {
        size_t method = strcspn(head, " \r\n"), path;
        const char *target = head + method + 1;

        if (head[method] != ' ' || method == 0)
                return 400;
        path = strcspn(target, "? \r\n");
        if (target[0] != '/' || strncmp(target + strcspn(target, " \r\n"), " HTTP/1.", 8) != 0)
                return 400;
        *ret = (struct http_request){.openmetrics = accepts_openmetrics(head)};
        snprintf(ret->method, sizeof(ret->method), "%.*s", (int)method, head);
        if (strcmp(ret->method, "GET") != 0 && strcmp(ret->method, "HEAD") != 0)
                return 405;
        if (path >= sizeof(ret->path))
                return 414;
        snprintf(ret->path, sizeof(ret->path), "%.*s", (int)path, target);
        return 0;
}

static const char *reason(int status) {
        switch (status) {
        case 200:
                return "OK";
        case 404:
                return "Not Found";
        case 405:
                return "Method Not Allowed";
        case 414:
                return "URI Too Long";
        case 431:
                return "Request Header Fields Too Large";
        case 503:
                return "Service Unavailable";
        default:
                return "Bad Request";
        }
}

static void free_body(const void *data, size_t size, void *body) { free(body); }

static void send_reply(struct connection *c, const struct http_reply *reply, bool head_only) {
        struct evbuffer *out = bufferevent_get_output(c->stream);
        evbuffer_add_printf(out,
                            "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n%s"
                            "Connection: close\r\n\r\n",
                            reply->status, reason(reply->status), reply->type, reply->size,
                            reply->status == 405 ? "Allow: GET, HEAD\r\n" : "");
        if (head_only || evbuffer_add_reference(out, reply->body, reply->size, free_body, reply->body) < 0)
                free(reply->body);
        c->answered = true;
}

static void refuse(struct connection *c, int status) {
        char *body = NULL;
        int size = asprintf(&body, "%d %s\n", status, reason(status));
        struct http_reply reply = {.status = status, .type = "text/plain", .body = body, .size = (size_t)size};
        if (size >= 0)
                send_reply(c, &reply, false);
}

/* ---- connections ----------------------------------------------------------------------------------------------- */

static struct connection *oldest(struct http_server *s) {
        return container_of(list_first(&s->connections), struct connection, link);
}

static void connection_free(struct connection *c) {
        struct http_server *s = c->server;
        list_remove(&c->link);
        bufferevent_free(c->stream); /* and its socket */
        free(c);
        if (s->n_connections-- == CONNECTIONS_MAX && s->listener)
                evconnlistener_enable(s->listener);
}

static void answer(struct connection *c, const char *head) {
        struct http_request request;
        struct http_reply reply = {.status = 200, .type = "text/plain; charset=utf-8"};
        int refused = http_parse(head, &request);

        if (refused) {
                refuse(c, refused);
                return;
        }
        c->server->answer(&request, &reply, c->server->arg);
        send_reply(c, &reply, strcmp(request.method, "HEAD") == 0);
}

static void on_read(struct bufferevent *stream, void *arg) {
        struct evbuffer *in = bufferevent_get_input(stream);
        struct connection *c = arg;
        size_t size = evbuffer_get_length(in);
        char head[HEAD_MAX + 1];
        struct evbuffer_ptr end;

        if (c->answered) { /* the client says more than we listen to */
                evbuffer_drain(in, size);
                return;
        }
        end = evbuffer_search(in, "\r\n\r\n", 4, NULL);
        if (end.pos < 0 && size < HEAD_MAX)
                return;
        if (end.pos < 0 || end.pos > HEAD_MAX - 4) {
                evbuffer_drain(in, size);
                refuse(c, 431);
                return;
        }
        evbuffer_copyout(in, head, (size_t)end.pos + 2);
        head[end.pos + 2] = '\0';
        evbuffer_drain(in, size);
        answer(c, head);
}

/* All is written: the client may close now. */
static void on_written(struct bufferevent *stream, void *arg) {
        const struct connection *c = arg;
        if (c->answered)
                shutdown(bufferevent_getfd(stream), SHUT_WR);
}

static void on_event(struct bufferevent *stream, short what, void *arg) { connection_free(arg); }

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int size,
                      void *arg) {
        struct http_server *s = arg;
        struct connection *c = s->n_connections < CONNECTIONS_MAX ? calloc(1, sizeof(*c)) : NULL;
        struct bufferevent *stream = c ? bufferevent_socket_new(s->base, fd, BEV_OPT_CLOSE_ON_FREE) : NULL;

        if (!stream) {
                evutil_closesocket(fd);
                free(c);
                return;
        }
        *c = (struct connection){.server = s, .stream = stream, .since = clock_now()};
        list_push_back(&s->connections, &c->link);
        bufferevent_setcb(stream, on_read, on_written, on_event, c);
        bufferevent_setwatermark(stream, EV_READ, 0, HEAD_MAX);
        bufferevent_enable(stream, EV_READ | EV_WRITE);
        if (++s->n_connections == CONNECTIONS_MAX)
                evconnlistener_disable(listener);
}

/* Out of descriptors or memory: the listener would report it again at once, and again. */
static void on_accept_error(struct evconnlistener *listener, void *arg) { evconnlistener_disable(listener); }

static void on_sweep(evutil_socket_t fd, short what, void *arg) {
        struct http_server *s = arg;
        bool crowded = s->n_connections == CONNECTIONS_MAX;
        uint64_t now = clock_now();

        list_for_each_safe (&s->connections, it, next) {
                struct connection *c = container_of(it, struct connection, link);
                if (now - c->since > (crowded && !c->answered ? CROWDED_S : LIFETIME_S) * NS_PER_S)
                        connection_free(c);
        }
        if (s->n_connections < CONNECTIONS_MAX)
                evconnlistener_enable(s->listener); /* after an error */
}

/* ---- the server ------------------------------------------------------------------------------------------------ */

/* The parts of `address`, in `host` and `*ret_port`. False: it is no such address. */
static bool split(const char *address, char *host, size_t size, const char **ret_port) {
        const char *colon = strrchr(address, ':');
        size_t n = colon ? (size_t)(colon - address) : 0;

        if (!colon || !colon[1] || strspn(colon + 1, "0123456789") != strlen(colon + 1) || strlen(colon) > 6 ||
            atoi(colon + 1) > UINT16_MAX)
                return false;
        if (address[0] == '[' && n > 2 && address[n - 1] == ']') {
                address++;
                n -= 2;
        } else if (memchr(address, ':', n))
                return false;
        if (n >= size)
                return false;
        memcpy(host, address, n);
        host[n] = '\0';
        *ret_port = colon + 1;
        return true;
}

static int listen_on(struct http_server *s, const struct addrinfo *a) {
        const unsigned flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE;
        errno = 0;
        s->listener = evconnlistener_new_bind(s->base, on_accept, s, flags, BACKLOG, a->ai_addr, (int)a->ai_addrlen);
        if (!s->listener)
                return errno ? -errno : -EADDRNOTAVAIL;
        evconnlistener_set_error_cb(s->listener, on_accept_error);
        return 0;
}

static void name_address(struct http_server *s) {
        struct sockaddr_storage a;
        socklen_t size = sizeof(a);
        char host[NI_MAXHOST], port[8];

        if (getsockname(evconnlistener_get_fd(s->listener), (struct sockaddr *)&a, &size) < 0 ||
            getnameinfo((struct sockaddr *)&a, size, host, sizeof(host), port, sizeof(port),
                        NI_NUMERICHOST | NI_NUMERICSERV) != 0)
                return;
        snprintf(s->address, sizeof(s->address), a.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

static int open_listener(struct http_server *s, const char *address) {
        static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
        char host[256];
        const char *port;
        struct addrinfo *list;
        int r;

        if (!split(address, host, sizeof(host), &port))
                return -EINVAL;
        if (getaddrinfo(host[0] ? host : "0.0.0.0", port, &hints, &list) != 0)
                return -EADDRNOTAVAIL;
        r = listen_on(s, list);
        freeaddrinfo(list);
        if (r == 0)
                name_address(s);
        return r;
}

int http_server_new(struct event_base *base, const char *address, http_answer *page, void *arg,
                    struct http_server **ret) {
        struct http_server *s = calloc(1, sizeof(*s));
        struct timeval second = {.tv_sec = 1};
        int r;

        if (!s)
                return -ENOMEM;
        *s = (struct http_server){.base = base, .answer = page, .arg = arg};
        list_init(&s->connections);
        s->sweep = event_new(base, -1, EV_PERSIST, on_sweep, s);
        r = s->sweep && event_add(s->sweep, &second) == 0 ? open_listener(s, address) : -ENOMEM;
        if (r < 0) {
                http_server_free(s);
                return r;
        }
        *ret = s;
        return 0;
}

void http_server_free(struct http_server *s) {
        if (!s)
                return;
        while (!list_empty(&s->connections))
                connection_free(oldest(s));
        if (s->listener)
                evconnlistener_free(s->listener);
        if (s->sweep)
                event_free(s->sweep);
        free(s);
}

const char *http_server_address(const struct http_server *s) { return s->address; }

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A very small HTTP server for pages that anybody may read: GET and HEAD, one request a connection, no body. What
 * clients can make it spend is bounded, in number and in time (http.c). libevent's own evhttp of 2.1 bounds neither the
 * number of connections nor their age, and a client who sends a byte now and then would hold each for ever.
 */
#include <stdbool.h>
#include <stddef.h>

struct event_base;
struct http_server;

struct http_request {
        char method[8];
        char path[64];    /* without what follows a `?` */
        bool openmetrics; /* its Accept names application/openmetrics-text */
};

struct http_reply {
        int status;
        const char *type; /* Content-Type */
        char *body;       /* malloc'ed; becomes the server's */
        size_t size;
};

typedef void http_answer(const struct http_request *request, struct http_reply *reply, void *arg);

/*
 * The head of a request, NUL-terminated, as far as we care. 0, or the status that refuses it: 400 when it is none, 405
 * for other methods, 414 for a path longer than any of ours. Pure.
 */
int http_parse(const char *head, struct http_request *ret);

/*
 * HOST:PORT, [ADDRESS]:PORT or :PORT (all IPv4 addresses); port 0: any free one. 0; -EINVAL not such an address;
 * -errno: nobody can listen there. *ret is the caller's, for http_server_free().
 */
int http_server_new(struct event_base *base, const char *address, http_answer *answer, void *arg,
                    struct http_server **ret);
void http_server_free(struct http_server *s); /* NULL ok; ends the connections, too */
/* "127.0.0.1:9721": where it listens. The string is the server's. */
const char *http_server_address(const struct http_server *s);

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Names to addresses, off the loop: getaddrinfo(3) may block for many seconds, so every look-up runs in a short-lived
 * thread of its own and the answer comes back through an eventfd. One look-up that hangs delays nobody else's. Numeric
 * addresses do not come here (resolve_numeric()). One resolver belongs to one loop.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include <event2/event.h>

#define RESOLVED_MAX 8U

struct resolved {
        int error; /* 0, or an EAI_ code */
        unsigned n;
        struct {
                struct sockaddr_storage address;
                socklen_t size;
        } at[RESOLVED_MAX];
};

struct resolver;
struct resolver_job;
typedef void resolver_done(void *userdata, const struct resolved *resolved);

int resolver_new(struct event_base *base, struct resolver **ret); /* 0; -errno */
void resolver_free(struct resolver *resolver);                    /* look-ups under way end by themselves, unheard */

/* `done` is called from the loop, once, unless cancelled. 0; -errno. */
int resolver_start(struct resolver *resolver, const char *host, unsigned port, resolver_done *done, void *userdata,
                   struct resolver_job **ret);
void resolver_cancel(struct resolver_job *job); /* NULL ok */

/* True when host is an address and needs no look-up. Never blocks. */
bool resolve_numeric(const char *host, unsigned port, struct resolved *ret);

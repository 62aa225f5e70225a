/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What a service manager gives the broker and is told in turn: sockets that listen already ($LISTEN_FDS), readiness,
 * reloads and a line of status ($NOTIFY_SOCKET), and signs of life ($WATCHDOG_USEC). Built without libsystemd, or started
 * by a shell, all of it does nothing. Control thread only.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct service {
        uint64_t watchdog_ns; /* how often it wants a sign of life; 0: never */
        uint64_t fed_ns;      /* when it got the last */
        bool refused;         /* the last reload was */
        char status[256];     /* the line it has been told */
};

struct service_health {
        unsigned databases, degraded, failed; /* those served; of them */
};

void service_init(struct service *service);

/*
 * A listening SOCK_SEQPACKET Unix socket that was passed to us, whose path must be `path`: its fd, the caller's. -1: none;
 * -EADDRNOTAVAIL: one is there, at another path (logged). Sockets of other kinds are told of and closed. Only once.
 */
int service_take_listener(const char *path);

void service_ready(struct service *service);
void service_reloading(struct service *service);
void service_reloaded(struct service *service, bool well);
void service_stopping(struct service *service);

/* Every data thread has just shown that it makes progress: feeds the watchdog, and tells what has changed. */
void service_progress(struct service *service, const struct service_health *health, uint64_t now);

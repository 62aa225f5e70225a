/* SPDX-License-Identifier: MIT */
/*
 * The watchdog is fed from nowhere but service_progress(), which the control thread calls when the figures of *all* data
 * threads have come back. A data thread that hangs, or the control thread itself, ends the feeding, and the manager
 * starts another broker: held leases go on meanwhile.
 *
 * Fed at a third of the interval, so that one late turn of the loop costs nothing.
 */
#include "service.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "log.h"

#ifdef LESSOR_SYSTEMD
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

/* Whoever does not hear us is no reason to stop. */
static void tell(const char *state) { (void)sd_notify(false, state); }

static void tell_status(const char *state, const char *status) {
        char text[512];
        snprintf(text, sizeof(text), "%sSTATUS=%s", state, status);
        tell(text);
}

void service_init(struct service *s) {
        uint64_t usec = 0;
        *s = (struct service){0};
        if (sd_watchdog_enabled(false, &usec) > 0)
                s->watchdog_ns = usec * NS_PER_US;
}

static bool has_path(int fd, const char *path) {
        struct sockaddr_un address = {0};
        socklen_t length = sizeof(address) - 1; /* so that a path of the whole length ends, too */
        return getsockname(fd, (struct sockaddr *)&address, &length) == 0 && strcmp(address.sun_path, path) == 0;
}

int service_take_listener(const char *path) {
        int n = sd_listen_fds(true), taken = -1;
        for (int fd = SD_LISTEN_FDS_START; fd < SD_LISTEN_FDS_START + n; fd++) {
                bool ours = sd_is_socket_unix(fd, SOCK_SEQPACKET, true, NULL, 0) > 0;
                if (taken == -1 && ours && has_path(fd, path) &&
                    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0) {
                        taken = fd;
                        continue;
                }
                log_error("socket: the service manager passes fd %d, which is %s", fd,
                          ours ? "not the socket of this configuration" : "no listening Unix socket of type SEQPACKET");
                fd_close(fd);
                if (ours && taken == -1)
                        taken = -EADDRNOTAVAIL;
        }
        return taken;
}

void service_ready(struct service *s) { tell("READY=1"); }

void service_reloading(struct service *s) {
        char text[128];
        snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%llu\n",
                 (unsigned long long)(clock_now() / NS_PER_US));
        tell_status(text, "reading the configuration again");
}

void service_reloaded(struct service *s, bool well) {
        s->refused = !well;
        s->status[0] = '\0'; /* to be told anew */
        tell("READY=1");
}

void service_stopping(struct service *s) { tell_status("STOPPING=1\n", "stopping; leases that are held go on"); }

static void describe(const struct service *s, const struct service_health *h, char *ret, size_t size) {
        char health[96] = "all healthy";
        if (h->degraded + h->failed > 0)
                snprintf(health, sizeof(health), "%u degraded, %u failed (lessor health says why)", h->degraded,
                         h->failed);
        snprintf(ret, size, "%u database%s, %s%s", h->databases, h->databases == 1 ? "" : "s", health,
                 s->refused ? "; the last reload was refused (the log says why)" : "");
}

void service_progress(struct service *s, const struct service_health *health, uint64_t now) {
        char status[sizeof(s->status)];
        if (s->watchdog_ns && now - s->fed_ns >= s->watchdog_ns / 3) {
                s->fed_ns = now;
                tell("WATCHDOG=1");
        }
        describe(s, health, status, sizeof(status));
        if (strcmp(status, s->status) == 0)
                return;
        memcpy(s->status, status, sizeof(status));
        tell_status("", status);
}

#else

void service_init(struct service *s) { *s = (struct service){0}; }
int service_take_listener(const char *path) { return -1; }
void service_ready(struct service *s) {}
void service_reloading(struct service *s) {}
void service_reloaded(struct service *s, bool well) {}
void service_stopping(struct service *s) {}
void service_progress(struct service *s, const struct service_health *health, uint64_t now) {}

#endif

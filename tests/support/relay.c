/* SPDX-License-Identifier: MIT */
#include "relay.h"

#include <errno.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "check.h"
#include "process.h"
#include "sandbox.h"

enum { PAIRS = 64 };

struct pair {
        int client, server; /* -1: none */
        char answer[65536]; /* not yet passed on */
        size_t size;
        uint64_t next_us; /* when the next byte may go */
};

static struct pair pairs[PAIRS];

static uint64_t now_us(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static struct sockaddr_un address_of(const char *path) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        return address;
}

static void part(struct pair *p) {
        close(p->client);
        close(p->server);
        p->client = p->server = -1;
        p->size = 0;
}

static void join(int client, const char *server_socket) {
        struct sockaddr_un address = address_of(server_socket);
        struct pair *p = pairs;
        while (p < pairs + PAIRS && p->client >= 0)
                p++;
        int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (p == pairs + PAIRS || connect(server, (struct sockaddr *)&address, sizeof(address)) < 0) {
                close(client);
                close(server);
                return;
        }
        p->client = client;
        p->server = server;
}

static void from_client(struct pair *p) {
        char data[16384];
        ssize_t n = recv(p->client, data, sizeof(data), 0);
        if (n <= 0 || send(p->server, data, (size_t)n, MSG_NOSIGNAL) != n)
                part(p);
}

static void from_server(struct pair *p) {
        ssize_t n = recv(p->server, p->answer + p->size, sizeof(p->answer) - p->size, 0);
        if (n <= 0)
                part(p);
        else
                p->size += (size_t)n;
}

static void pass_on(struct pair *p, struct relay_manner *m) {
        unsigned pace = atomic_load(&m->pace_us);
        uint64_t now = now_us();
        if (p->client < 0 || !p->size || atomic_load(&m->mute) || (pace && now < p->next_us))
                return;
        ssize_t n = send(p->client, p->answer, pace ? 1 : p->size, MSG_NOSIGNAL);
        if (n <= 0) {
                part(p);
                return;
        }
        p->size -= (size_t)n;
        memmove(p->answer, p->answer + n, p->size);
        p->next_us = now + pace;
        atomic_fetch_add(&m->bytes_out, (uint64_t)n);
}

static void turn(int listener, const char *server_socket, struct relay_manner *m) {
        struct pollfd fds[1 + 2 * PAIRS] = {{.fd = listener, .events = POLLIN}};
        for (unsigned i = 0; i < PAIRS; i++) {
                fds[1 + 2 * i] = (struct pollfd){.fd = pairs[i].client, .events = POLLIN};
                fds[2 + 2 * i] = (struct pollfd){.fd = pairs[i].server, .events = POLLIN};
        }
        (void)poll(fds, 1 + 2 * PAIRS, 1);
        for (unsigned i = 0; i < PAIRS; i++) {
                if (fds[1 + 2 * i].revents)
                        from_client(&pairs[i]);
                if (pairs[i].client >= 0 && fds[2 + 2 * i].revents)
                        from_server(&pairs[i]);
                pass_on(&pairs[i], m);
        }
        if (fds[0].revents)
                join(accept(listener, NULL, NULL), server_socket);
}

void relay_start(struct relay *r, const char *server_socket) {
        r->manner = shared_memory(sizeof(*r->manner));
        r->path = sandbox_path("relay.sock");
        struct sockaddr_un address = address_of(r->path);
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        check(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 64) == 0);
        r->pid = fork();
        check(r->pid >= 0);
        if (r->pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (unsigned i = 0; i < PAIRS; i++)
                        pairs[i].client = pairs[i].server = -1;
                for (;;)
                        turn(fd, server_socket, r->manner);
        }
        close(fd);
}

void relay_end(struct relay *r) {
        program_end(r->pid, SIGKILL, 5000);
        unlink(r->path);
        free(r->path);
}

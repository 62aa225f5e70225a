/* SPDX-License-Identifier: MIT */
#include "client/fake.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fdpass.h"
#include "base/pidfd.h"
#include "support/check.h"

enum { PATIENCE_MS = 10000, FAKE_DATABASES = 3 };

/* A sealed memfd of `size` bytes, mapped. */
static void *fake_memory(const char *name, size_t size, int *ret_fd) {
        int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
        void *map;

        check(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
        map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        check(map != MAP_FAILED);
        check(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
        *ret_fd = fd;
        return map;
}

static void fake_init_control(struct fake *f) {
        static const char *const names[FAKE_DATABASES] = {"main", "cache", "jobs"};
        struct lessor_control *c = fake_memory("control", sizeof(*c), &f->control_fd);

        c->magic = LESSOR_CONTROL_MAGIC;
        c->version = LESSOR_CONTROL_VERSION;
        c->database_size = sizeof(c->database[0]);
        c->instance = 7;
        for (unsigned i = 0; i < FAKE_DATABASES; i++) {
                wire_string(c->database[i].name, LESSOR_NAME_SIZE, names[i]);
                c->database[i].max_connections = 20;
                c->database[i].wait_timeout_ns = f->wait_ns;
                c->database[i].socket_timeout_ns = f->socket_timeout_ns;
                __atomic_store_n(&c->database[i].state, LESSOR_CONTROL_OPEN, __ATOMIC_RELEASE);
        }
        __atomic_store_n(&c->databases, FAKE_DATABASES, __ATOMIC_RELEASE);
        f->control = c;
}

static void fake_init_segment(struct fake *f) {
        size_t size = sizeof(struct lessor_segment) + FAKE_DATABASES * sizeof(struct lessor_segment_database);
        struct lessor_segment *s = fake_memory("segment", size, &f->segment_fd);

        s->magic = LESSOR_SEGMENT_MAGIC;
        s->version = LESSOR_SEGMENT_VERSION;
        s->database_offset = sizeof(*s);
        s->database_size = sizeof(struct lessor_segment_database);
        s->databases = FAKE_DATABASES;
        s->session = 11;
        s->instance = 7;
        f->segment = s;
        f->attached.segment_size = size;
}

static void fake_init_attached(struct fake *f) {
        union wire_message m;

        wire_init(&m, LESSOR_MSG_ATTACHED, 1);
        m.attached.version = 1;
        m.attached.databases = FAKE_DATABASES;
        m.attached.features = LESSOR_FEATURE_SEGMENT;
        m.attached.session = 11;
        m.attached.instance = 7;
        m.attached.control_size = sizeof(struct lessor_control);
        m.attached.segment_size = f->attached.segment_size;
        m.attached.broker_pid = getpid();
        m.attached.requests_max = 64;
        f->attached = m.attached;
}

void fake_init(struct fake *f) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};

        *f = (struct fake){.session = -1, .pidfd = -1, .wait_ns = NS_PER_S, .socket_timeout_ns = 2 * NS_PER_S};
        strcpy(f->directory, "/tmp/lessor-fake.XXXXXX");
        check(mkdtemp(f->directory));
        snprintf(f->path, sizeof(f->path), "%s/broker.sock", f->directory);
        fake_init_control(f);
        fake_init_segment(f);
        fake_init_attached(f);
        f->quit = eventfd(0, EFD_CLOEXEC);
        f->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", f->path);
        check(bind(f->listener, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(f->listener, 64) == 0);
}

static void *fake_thread(void *data) {
        struct fake *f = data;
        f->script(f, f->data);
        return NULL;
}

void fake_run(struct fake *f, fake_script script, void *data) {
        f->script = script;
        f->data = data;
        check_eq(pthread_create(&f->thread, NULL, fake_thread, f), 0);
}

void fake_stop(struct fake *f) {
        check_eq(eventfd_write(f->quit, 1), 0);
        pthread_join(f->thread, NULL);
        f->quit = fd_close(f->quit);
        fake_hang_up(f);
        f->listener = fd_close(f->listener);
        f->pidfd = fd_close(f->pidfd);
        f->control_fd = fd_close(f->control_fd);
        f->segment_fd = fd_close(f->segment_fd);
        munmap(f->control, sizeof(*f->control));
        munmap(f->segment, sizeof(struct lessor_segment) + FAKE_DATABASES * sizeof(struct lessor_segment_database));
        unlink(f->path);
        rmdir(f->directory);
        check_msg(!f->failure[0], "%s", f->failure);
}

/* What the library waits for now never comes: hang up, so that it says so. */
void fake_fail(struct fake *f, const char *file, int line, const char *what) {
        snprintf(f->failure, sizeof(f->failure), "%s:%d: script: %s", file, line, what);
        fake_hang_up(f);
}

static bool fake_wait(int fd, short events) {
        struct pollfd p = {.fd = fd, .events = events};
        return poll(&p, 1, PATIENCE_MS) == 1;
}

bool fake_accept(struct fake *f) {
        struct fdpass_packet packet;
        union wire_message buffer, m;

        fake_hang_up(f);
        if (!fake_wait(f->listener, POLLIN))
                return false;
        f->session = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC);
        if (f->session < 0 || !fake_wait(f->session, POLLIN) ||
            fdpass_receive(f->session, &buffer, sizeof(buffer), &packet) != 0)
                return false;
        if (wire_decode(WIRE_FROM_WORKER, &buffer, packet.size, packet.n_fds, &m) ||
            m.header.type != LESSOR_MSG_ATTACH) {
                fdpass_close(&packet);
                return false;
        }
        fd_close(f->pidfd);
        f->pidfd = packet.n_fds > 0 ? fd_steal(&packet.fds[0]) : pidfd_of_peer(f->session);
        f->attached.header.request = m.header.request;
        return true;
}

bool fake_attached(struct fake *f) {
        return fake_send(f, &f->attached, sizeof(f->attached), (int[]){f->control_fd, f->segment_fd}, 2);
}

bool fake_receive(struct fake *f, enum lessor_message type, union wire_message *ret) {
        struct fdpass_packet packet;
        union wire_message buffer;

        if (!fake_wait(f->session, POLLIN) || fdpass_receive(f->session, &buffer, sizeof(buffer), &packet) != 0)
                return false;
        return !wire_decode(WIRE_FROM_WORKER, &buffer, packet.size, packet.n_fds, ret) && ret->header.type == type;
}

bool fake_gone(struct fake *f) {
        char skipped[sizeof(union wire_message)];

        while (fake_wait(f->session, POLLIN))
                if (recv(f->session, skipped, sizeof(skipped), MSG_DONTWAIT) <= 0)
                        return true;
        return false;
}

bool fake_send(struct fake *f, const void *message, size_t size, const int *fds, unsigned n_fds) {
        return fdpass_send(f->session, message, size, fds, n_fds) == 0;
}

bool fake_grant_fd(struct fake *f, const union wire_message *lease, int fd) {
        union wire_message m;

        wire_init(&m, LESSOR_MSG_GRANT, lease->header.request);
        m.grant.database = lease->lease.database;
        m.grant.slot = 3;
        m.grant.generation = 5;
        m.grant.lease = ++f->leases;
        m.grant.client_id = 99;
        m.grant.word = m.grant.forget = LESSOR_WORD_NONE;
        return fake_send(f, &m, m.header.size, &fd, 1);
}

int fake_grant(struct fake *f, const union wire_message *lease) {
        int pair[2];
        bool sent;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                return -1;
        sent = fake_grant_fd(f, lease, pair[1]);
        close(pair[1]);
        return sent ? pair[0] : fd_close(pair[0]);
}

bool fake_refuse(struct fake *f, uint64_t request, enum lessor_outcome outcome, unsigned flags, const char *text) {
        union wire_message m;

        wire_init(&m, LESSOR_MSG_ERROR, request);
        m.error.outcome = outcome;
        m.error.flags = flags;
        m.error.retry_ns = 1500000;
        wire_string(m.error.text, sizeof(m.error.text), text);
        return fake_send(f, &m, m.header.size, NULL, 0);
}

void fake_hang_up(struct fake *f) { f->session = fd_close(f->session); }

bool fake_expect(int fd, const char *bytes) {
        for (size_t i = 0; bytes[i]; i++) {
                char c;
                if (!fake_wait(fd, POLLIN) || recv(fd, &c, 1, 0) != 1)
                        return false;
                if (c != bytes[i]) {
                        fprintf(stderr, "byte %zu is %d, expected %d of %s\n", i, c, bytes[i], bytes);
                        return false;
                }
        }
        return true;
}

bool fake_say(int fd, const char *bytes) {
        return send(fd, bytes, strlen(bytes), MSG_NOSIGNAL) == (ssize_t)strlen(bytes);
}

bool fake_ended(int fd) {
        char c;
        return fake_wait(fd, POLLIN) && recv(fd, &c, 1, MSG_DONTWAIT) <= 0;
}

/* One thread plays every session and every Redis: each chunk that comes on a connection is taken for one command. */
enum served_kind { SERVED_QUIT, SERVED_LISTENER, SERVED_SESSION, SERVED_REDIS };
struct served {
        struct pollfd polls[256];
        enum served_kind kinds[256];
        nfds_t n;
};

static void served_add(struct served *s, enum served_kind kind, int fd) {
        if (fd < 0)
                return;
        check(s->n < ARRAY_SIZE(s->polls));
        s->kinds[s->n] = kind;
        s->polls[s->n++] = (struct pollfd){.fd = fd, .events = POLLIN};
}

static void served_remove(struct served *s, nfds_t i) {
        close(s->polls[i].fd);
        s->n--;
        s->polls[i] = s->polls[s->n];
        s->kinds[i] = s->kinds[s->n];
}

static void served_redis(struct served *s, nfds_t i) {
        char buffer[4096];
        ssize_t n = recv(s->polls[i].fd, buffer, sizeof(buffer), MSG_DONTWAIT);

        if (n > 0)
                fake_say(s->polls[i].fd, "+PONG\r\n");
        else if (n == 0 || errno != EAGAIN)
                served_remove(s, i);
}

static void served_session(struct fake *f, struct served *s, nfds_t i) {
        struct fdpass_packet packet;
        union wire_message m;
        int r = fdpass_receive(s->polls[i].fd, &m, sizeof(m), &packet);

        if (r == -EAGAIN)
                return;
        if (r < 0 || packet.size == 0)
                served_remove(s, i);
        else if (m.header.type == LESSOR_MSG_LEASE) {
                f->session = s->polls[i].fd;
                served_add(s, SERVED_REDIS, fake_grant(f, &m));
                f->session = -1;
        } else if (m.header.type == LESSOR_MSG_RETURN) {
                f->returned++;
                f->returned_clean += m.giveback.flags & LESSOR_RETURN_CLEAN;
        }
}

static void served_listener(struct fake *f, struct served *s) {
        if (!fake_attach(f))
                return;
        f->sessions++;
        served_add(s, SERVED_SESSION, fd_steal(&f->session));
}

static void served_turn(struct fake *f, struct served *s, nfds_t i) {
        switch (s->kinds[i]) {
        case SERVED_QUIT:
                break;
        case SERVED_LISTENER:
                served_listener(f, s);
                break;
        case SERVED_SESSION:
                served_session(f, s, i);
                break;
        case SERVED_REDIS:
                served_redis(s, i);
                break;
        }
}

void fake_serve(struct fake *f, void *unused) {
        struct served s = {.n = 0};
        bool more = true;

        served_add(&s, SERVED_QUIT, f->quit);
        served_add(&s, SERVED_LISTENER, f->listener);
        while (more && poll(s.polls, s.n, -1) > 0) {
                more = !s.polls[0].revents;
                for (nfds_t i = s.n; i > 1; i--)
                        if (s.polls[i - 1].revents) {
                                served_turn(f, &s, i - 1);
                                more = true; /* the end comes when all that was said before it is dealt with */
                        }
        }
        while (s.n > 2)
                served_remove(&s, s.n - 1);
}

/* SPDX-License-Identifier: MIT */
/*
 * A whole session, fed with messages and fds: the broker's own session, peer, database and upstream code on one loop,
 * against a Redis that only knows the handshake. The input is a program of steps, so that the fuzzer reaches states
 * (granted, queued, returned) as well as malformed packets. After each input nothing may be left: no lease, no waiter, no
 * session, and the same number of fds as before.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fdpass.h"
#include "broker.h"
#include "log.h"
#include "session.h"

#define DATABASES 2U

static struct directory directory;
static struct control_page page;
static struct session_host host;
static struct session_set set;
static struct database *databases[DATABASES];
static struct config_database configs[DATABASES];
static char socket_path[64];
static struct event *listener;

/* ---- a Redis that only knows the handshake ---------------------------------------------------------------------- */

struct fake {
        struct event *event;
};

static void on_fake_readable(evutil_socket_t fd, short what, void *userdata) {
        struct fake *fake = userdata;
        char buffer[1024];
        ssize_t n = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
        if (n > 0 && memmem(buffer, (size_t)n, "PING", 4))
                (void)send(fd, "+OK\r\n:7\r\n+PONG\r\n", 16, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0 || (n < 0 && errno == EAGAIN))
                return;
        event_free(fake->event);
        close(fd);
        free(fake);
}

static void on_fake_accept(evutil_socket_t fd, short what, void *userdata) {
        struct fake *fake = calloc(1, sizeof(*fake));
        int accepted = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (!fake || accepted < 0)
                abort();
        fake->event = event_new(set.loop.base, accepted, EV_READ | EV_PERSIST, on_fake_readable, fake);
        event_add(fake->event, NULL);
}

static void remove_socket(void) { (void)unlink(socket_path); }

static void start_fake(void) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        snprintf(socket_path, sizeof(socket_path), "/tmp/lessor-fuzz-%d.sock", (int)getpid());
        memcpy(address.sun_path, socket_path, strlen(socket_path) + 1);
        if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 64) < 0)
                abort();
        atexit(remove_socket);
        listener = event_new(set.loop.base, fd, EV_READ | EV_PERSIST, on_fake_accept, NULL);
        event_add(listener, NULL);
}

/* ---- the broker's parts ------------------------------------------------------------------------------------------ */

static void bury(struct letter *letter) {
        struct directory_session *session = session_of_letter(letter);
        synchronize_rcu();
        session_free(session);
}

static void make_database(struct directory_names *names, unsigned i) {
        struct config_database *c = &configs[i];
        struct database_options options = {.config = c,
                                           .instance = "fuzz",
                                           .index = i,
                                           .generation = 1,
                                           .loop = &set.loop,
                                           .ops = &session_database_ops};
        struct control_entry entry = {.name = c->name, .max_connections = 2};
        snprintf(c->name, sizeof(c->name), "db%u", i);
        c->unix_socket = socket_path;
        c->max_connections = 2;
        c->max_waiters = 4;
        c->max_pinned = i == 0;
        c->wait_timeout_ns = 1000000;
        c->socket_connect_timeout_ns = 1000000000;
        c->retry_base_ns = c->retry_max_ns = 1000000;
        c->retry_attempts = 5;
        c->allow.everyone = i == 0;
        if (database_new(&options, &databases[i]) < 0)
                abort();
        names->databases[i] = databases[i];
        control_page_set(&page, i, &entry);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) {
        struct directory_names *names = calloc(1, sizeof(*names) + DATABASES * sizeof(struct database *));
        log_set_level(LOG_LEVEL_ERROR);
        rcu_register_thread();
        if (!names || loop_init(&set.loop, true) < 0 || directory_init(&directory, 64) < 0 ||
            control_page_init(&page, 1) < 0)
                abort();
        session_set_init(&set, &host);
        host = (struct session_host){.directory = &directory,
                                     .control = &page,
                                     .undertaker = &set.loop.inbox,
                                     .bury = bury,
                                     .instance = 1,
                                     .max_sessions = 2};
        users_init(&host.users);
        start_fake();
        names->n = DATABASES;
        for (unsigned i = 0; i < DATABASES; i++)
                make_database(names, i);
        directory_publish(&directory, names);
        return 0;
}

static void turn(unsigned n) {
        while (n--)
                event_base_loop(set.loop.base, EVLOOP_NONBLOCK);
}

/* ---- the worker --------------------------------------------------------------------------------------------------- */

struct worker {
        int fd;
        const uint8_t *data;
        size_t size;
        struct lessor_msg_grant grants[8];
        unsigned n_grants;
        char *segment; /* NULL: none was granted, or none was looked for */
        size_t segment_size;
};

static uint8_t take(struct worker *w) {
        if (!w->size)
                return 0;
        w->size--;
        return *w->data++;
}

static void send_message(struct worker *w, union wire_message *m, const int *fds, unsigned n_fds) {
        (void)fdpass_send(w->fd, m, m->header.size, fds, n_fds);
}

static void attach(struct worker *w) {
        union wire_message m;
        int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
        wire_init(&m, LESSOR_MSG_ATTACH, 1);
        m.attach.version_min = take(w) & 3;
        m.attach.version_max = m.attach.version_min | 1;
        m.attach.features = take(w) & (LESSOR_FEATURE_SEGMENT | LESSOR_FEATURE_WORDS);
        send_message(w, &m, &pidfd, 1);
        close(pidfd);
}

static void lease(struct worker *w) {
        union wire_message m;
        wire_init(&m, LESSOR_MSG_LEASE, take(w));
        m.lease.database = take(w) & 3;
        uint8_t how = take(w);
        m.lease.wait_ns = how & 1 ? 1000000 : 0;
        m.lease.flags = how & 2 ? LESSOR_LEASE_PINNED : 0;
        m.lease.ticket = how >> 3 & 31; /* one that does not exist ends the session */
        send_message(w, &m, NULL, 0);
}

/* A word of the segment in one of its first pages, where header, tickets, words and counters are: garbage, or nearly right. */
static void scribble(struct worker *w) {
        static const uint64_t values[] = {0, 1, 2, 3, 4, 5, 6, UINT64_MAX, UINT64_C(1) << 27, UINT64_C(1) << 63};
        size_t at = (take(w) | (size_t)(take(w) & 15) << 8) * sizeof(uint64_t);
        uint8_t how = take(w);
        if (!w->segment || at + sizeof(uint64_t) > w->segment_size)
                return;
        uint64_t *word = (uint64_t *)(void *)(w->segment + at), value = __atomic_load_n(word, __ATOMIC_RELAXED);
        if (how & 128) /* of a lease word: the state, WANTED, the sequence */
                value = (value ^ (how & 7)) + ((uint64_t)(how >> 3 & 7) << 27);
        else if (how & 64)
                value += values[how % ARRAY_SIZE(values)];
        else
                value = values[how % ARRAY_SIZE(values)];
        __atomic_store_n(word, value, __ATOMIC_RELAXED);
}

/* As a worker should: parks what it holds, or takes it again. */
static void park_or_retake(struct worker *w) {
        const struct lessor_msg_grant *g = &w->grants[take(w) % 8];
        size_t offset =
                128 + LESSOR_TICKETS * sizeof(struct lessor_ticket) + g->word * sizeof(struct lessor_slot_layout);
        if (!w->segment || !g->lease || g->word == LESSOR_WORD_NONE ||
            offset + sizeof(struct lessor_slot_layout) > w->segment_size)
                return;
        uint64_t *word = (uint64_t *)(void *)(w->segment + offset), value = __atomic_load_n(word, __ATOMIC_RELAXED);
        if ((value & 7) == 1)
                __atomic_store_n(word, value + 1, __ATOMIC_RELEASE);
        else if ((value & 7) == 2)
                __atomic_store_n(word, value - 1 + (UINT64_C(1) << 27), __ATOMIC_RELEASE);
}

/* Of a lease it has, nearly: a byte of the input says what is wrong with it. */
static void give_back(struct worker *w) {
        union wire_message m;
        const struct lessor_msg_grant *g = &w->grants[take(w) % 8];
        uint8_t wrong = take(w);
        wire_init(&m, LESSOR_MSG_RETURN, 0);
        m.giveback.database = g->database ^ (wrong == 1);
        m.giveback.slot = g->slot + (wrong == 2 ? 99 : 0);
        m.giveback.generation = g->generation + (wrong == 3);
        m.giveback.lease = g->lease + (wrong == 4);
        m.giveback.flags = wrong & 8 ? LESSOR_RETURN_CLEAN : 0;
        m.giveback.flags |= wrong & 16 ? LESSOR_RETURN_KEPT : 0;
        m.giveback.flags |= wrong & 4 ? LESSOR_RETURN_RESETTABLE | LESSOR_RETURN_UNKNOWN : 0;
        send_message(w, &m, NULL, 0);
}

static void others(struct worker *w) {
        union wire_message m;
        uint8_t which = take(w);
        wire_init(&m,
                  which & 1   ? LESSOR_MSG_CANCEL
                  : which & 2 ? LESSOR_MSG_LOOKUP
                              : LESSOR_MSG_REPORT,
                  which & 3 ? take(w) : 0);
        if (which & 1) {
                m.cancel.database = take(w) & 3;
        } else if (which & 2) {
                snprintf(m.lookup.name, sizeof(m.lookup.name), "db%u", take(w) & 3);
        } else {
                const struct lessor_msg_grant *g = &w->grants[take(w) % 8];
                m.report.slot = g->slot;
                m.report.generation = g->generation;
                m.report.lease = g->lease;
                m.report.kind = take(w) & 7;
        }
        send_message(w, &m, NULL, 0);
}

/* Bytes of the input as they are, with up to three fds that do not belong there. */
static void garbage(struct worker *w) {
        int fds[3] = {w->fd, w->fd, w->fd};
        size_t n = take(w);
        n = n < w->size ? n : w->size;
        (void)fdpass_send(w->fd, w->data, n, fds, n ? w->data[0] & 3 : 0);
        w->data += n;
        w->size -= n;
}

static void map_segment(struct worker *w, int fd, size_t size) {
        w->segment = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (w->segment == MAP_FAILED)
                abort();
        w->segment_size = size;
}

/* What was granted at tickets, as if it had come by message. */
static void look_at_tickets(struct worker *w) {
        struct lessor_ticket *t = (struct lessor_ticket *)(void *)(w->segment + 128);
        for (unsigned i = 0; w->segment && i < LESSOR_TICKETS; i++) {
                if (t[i].state != LESSOR_TICKET_GRANTED)
                        continue;
                t[i].state = LESSOR_TICKET_EMPTY;
                w->grants[w->n_grants++ % 8] = (struct lessor_msg_grant){
                        .slot = t[i].slot, .generation = t[i].generation, .lease = t[i].lease, .word = t[i].word};
        }
}

static void receive(struct worker *w) {
        union wire_message m;
        struct fdpass_packet packet;
        while (fdpass_receive(w->fd, &m, sizeof(m), &packet) == 0 && packet.size > 0) {
                if (wire_decode(WIRE_FROM_BROKER, &m, packet.size, packet.n_fds, &m))
                        abort(); /* the broker never says what the protocol forbids */
                if (m.header.type == LESSOR_MSG_GRANT)
                        w->grants[w->n_grants++ % 8] = m.grant;
                if (m.header.type == LESSOR_MSG_ATTACHED && packet.n_fds == 2)
                        map_segment(w, packet.fds[1], m.attached.segment_size);
                fdpass_close(&packet);
        }
        if (w->segment)
                look_at_tickets(w);
}

static void step(struct worker *w) {
        switch (take(w) % 10) {
        case 0:
                attach(w);
                break;
        case 1:
        case 2:
                lease(w);
                break;
        case 3:
                give_back(w);
                break;
        case 4:
                others(w);
                break;
        case 5:
                garbage(w);
                break;
        case 6:
                receive(w);
                break;
        case 7:
                scribble(w);
                break;
        case 8:
                park_or_retake(w);
                break;
        default:
                turn(3);
        }
}

/* ---- what must hold ----------------------------------------------------------------------------------------------- */

static unsigned count_fds(void) {
        unsigned n = 0;
        DIR *d = opendir("/proc/self/fd");
        while (d && readdir(d))
                n++;
        if (d)
                closedir(d);
        return n;
}

static void check_nothing_is_left(void) {
        static struct lessor_status_database record;
        static struct lessor_status_connection *connections;
        if (!connections)
                connections = calloc(database_places(databases[0]), sizeof(*connections));
        if (!connections)
                abort();
        if (!list_empty(&set.sessions) || !list_empty(&set.newcomers) || atomic_load(&host.attached))
                abort();
        for (unsigned i = 0; i < DATABASES; i++) {
                database_snapshot(databases[i], &record, connections);
                if (record.in_use_connections || record.waiting || record.open_connections > 2)
                        abort();
        }
}

/* Connections come and go with the inputs, two fds each: only what grows beyond all of them is a leak. */
static void check_fds(void) {
        static unsigned runs, most;
        if (runs++ % 256)
                return;
        if (!most)
                most = count_fds() + 2 * DATABASES * 2;
        if (count_fds() > most)
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
                abort();
        struct worker w = {.fd = pair[1], .data = data, .size = size};
        session_accept(&set, pair[0]);
        while (w.size)
                step(&w);
        turn(2);
        receive(&w);
        close(w.fd);
        if (w.segment)
                munmap(w.segment, w.segment_size);
        for (unsigned i = 0; i < 1000 && !(list_empty(&set.sessions) && list_empty(&set.newcomers)); i++)
                turn(1);
        turn(3);
        check_nothing_is_left();
        check_fds();
        return 0;
}

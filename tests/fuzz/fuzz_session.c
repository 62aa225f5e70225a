/* SPDX-License-Identifier: MIT */
/*
 * A whole session, fed with messages and fds, and with a lane: the broker's own session, peer, port, pipeline, database and
 * upstream code on one loop, against a Redis that answers as its commands say. The input is a program of steps, so that the
 * fuzzer reaches states (granted, queued, returned, submitted) as well as malformed packets. After each input nothing may be left: no
 * lease, no waiter, no session, no lane, no memory for replies, and the same number of fds as before.
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
#include "base/lane.h"
#include "base/resp.h"
#include "broker.h"
#include "log.h"
#include "session.h"

#define DATABASES 2U
#define LANE_SIZE 4096U

static struct directory directory;
static struct control_page page;
static struct session_host host;
static struct session_set set;
static struct database *databases[DATABASES];
static struct config_database configs[DATABASES];
static char socket_path[64];
static struct event *listener;
static struct reply_budget budget = {.limit = 64 * 1024};

/* ---- a Redis ------------------------------------------------------------------------------------------------------- */

struct fake {
        struct event *event;
        char buffer[16384]; /* requests, the last of them not whole yet */
        size_t size;
};

static bool fake_send(int fd, const char *data, size_t size) {
        return send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size;
}

static bool fake_say(int fd, const char *text) { return fake_send(fd, text, strlen(text)); }

/* A bulk string: some fit into a lane, some do not, some not even into the budget. */
static bool fake_say_bulk(int fd, size_t size) {
        static char reply[128 * 1024];
        int n = snprintf(reply, sizeof(reply), "$%zu\r\n", size);
        memset(reply + n, 'x', size);
        memcpy(reply + (size_t)n + size, "\r\n", 2);
        return fake_send(fd, reply, (size_t)n + size + 2);
}

/* ECHO's argument says how it is answered. False: not at all, the connection ends. */
static bool fake_echo(int fd, char how) {
        switch (how) {
        case 'e':
                return fake_say(fd, "-ERR no\r\n");
        case 'm':
                return fake_say(fd, "-READONLY no\r\n");
        case 'a':
                return fake_say(fd, "*2\r\n$-1\r\n*1\r\n:5\r\n");
        case 's': /* silence, and whatever follows is out of step */
                return true;
        case 't': /* one too many */
                return fake_say(fd, "+A\r\n+B\r\n");
        case 'g':
                return fake_say(fd, "garbage\r\n");
        case 'c':
                return false;
        default:
                return fake_say_bulk(fd, how >= '0' && how <= '9' ? (size_t)100 << (how - '0') : 1);
        }
}

static bool fake_answer(int fd, const struct resp_request *r) {
        if (r->name_len == 4 && memcmp(r->name, "PING", 4) == 0)
                return fake_say(fd, "+PONG\r\n");
        if (r->name_len == 6 && memcmp(r->name, "CLIENT", 6) == 0)
                return r->sub_len == 2 ? fake_say(fd, ":7\r\n") : fake_say(fd, "+OK\r\n");
        if (r->name_len == 4 && memcmp(r->name, "ECHO", 4) == 0)
                return fake_echo(fd, r->sub_len > 0 ? r->sub[0] : '0');
        if (r->name_len == 7 && memcmp(r->name, "COMMAND", 7) == 0)
                return fake_say(fd, "*0\r\n");
        return r->name_len == 5 || fake_say(fd, "+OK\r\n"); /* RESET is not answered */
}

static bool fake_answer_all(int fd, struct fake *fake) {
        struct resp_request r;
        size_t n, used = 0;
        bool good = true;
        while (good && (n = resp_command_size(fake->buffer + used, fake->size - used)) > 0) {
                good = resp_request_read(fake->buffer + used, n, &r) && fake_answer(fd, &r);
                used += n;
        }
        memmove(fake->buffer, fake->buffer + used, fake->size - used);
        fake->size -= used;
        return good;
}

static void on_fake_readable(evutil_socket_t fd, short what, void *userdata) {
        struct fake *fake = userdata;
        ssize_t n = recv(fd, fake->buffer + fake->size, sizeof(fake->buffer) - fake->size, MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
                return;
        fake->size += n > 0 ? (size_t)n : 0;
        if (n > 0 && fake_answer_all(fd, fake))
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
                                           .ops = &session_database_ops,
                                           .page = &page,
                                           .lanes = &set.lanes};
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
        c->breaker_failures = 1000000;
        c->socket_timeout_ns = 2000000;
        c->path = i == 0 ? CONFIG_ROUTE_LANE : CONFIG_ROUTE_AUTO;
        c->allow.everyone = i == 0;
        if (database_new(&options, &databases[i]) < 0)
                abort();
        names->databases[i] = databases[i];
        control_page_set(&page, i, &entry);
}

static void make_lanes(void) {
        struct lanes_options options = {.loop = &set.loop,
                                        .size = LANE_SIZE,
                                        .directory = &directory,
                                        .ops = &session_lanes_ops,
                                        .budget = &budget,
                                        .bell = &page.map->bells[0]};
        if (lanes_init(&set.lanes, &options) < 0)
                abort();
        host.threads = &set;
        host.n_threads = 1;
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
        make_lanes();
        start_fake();
        names->n = DATABASES;
        for (unsigned i = 0; i < DATABASES; i++)
                make_database(names, i);
        directory_publish(&directory, names);
        return 0;
}

static void turn(unsigned n) {
        while (n--) {
                if (!lanes_turn(&set.lanes))
                        (void)lanes_may_sleep(&set.lanes);
                event_base_loop(set.loop.base, EVLOOP_NONBLOCK);
                lanes_awake(&set.lanes);
        }
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
        char *lane; /* NULL: there is none */
        size_t lane_size;
        int doorbell;
        struct lane_worker rings; /* the lane's, as an honest worker's */
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
        m.attach.features = take(w) & (LESSOR_FEATURE_SEGMENT | LESSOR_FEATURE_WORDS | LESSOR_FEATURE_LANES);
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

static char *map(int fd, size_t size) {
        char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (memory == MAP_FAILED)
                abort();
        return memory;
}

/* ---- its lane ----------------------------------------------------------------------------------------------------- */

static void open_lane(struct worker *w) {
        union wire_message m;
        wire_init(&m, LESSOR_MSG_LANE, take(w) | 1);
        m.lane.thread = take(w) < 250 ? 0 : take(w);
        send_message(w, &m, NULL, 0);
}

static void have_lane(struct worker *w, const struct lessor_msg_lane_opened *m, int memory, int doorbell) {
        if (w->lane)
                abort(); /* there is one to a session and thread */
        w->lane_size = m->size;
        w->lane = map(memory, w->lane_size);
        w->doorbell = dup(doorbell);
        if (!lane_worker_init(&w->rings, w->lane, w->lane_size))
                abort();
}

static void ring(struct worker *w) {
        uint64_t one = 1;
        if (w->lane && write(w->doorbell, &one, sizeof(one)) < 0 && errno != EAGAIN)
                abort();
}

/* A command that says how it wants to be answered; or one that may not go by lane; or bytes of the input. */
static void submit(struct worker *w) {
        static const char *const others[] = {"*1\r\n$5\r\nMULTI\r\n", "*2\r\n$6\r\nSELECT\r\n$1\r\n1\r\n",
                                             "*1\r\n$4\r\nPING\r\n", "*1\r\n$4\r\nPIN"};
        struct lane_request r = {.tag = take(w), .deadline_ns = UINT64_MAX};
        uint8_t how = take(w), n = 1 + (take(w) & 15);
        char text[64];
        uint64_t position;
        if (!w->lane)
                return;
        snprintf(text, sizeof(text), "*2\r\n$4\r\nECHO\r\n$1\r\n%c\r\n", "0123456789emastgc"[how % 17]);
        if (how >= 240)
                snprintf(text, sizeof(text), "%s", others[how & 3]);
        if (how == 239)
                r.deadline_ns = 1;
        r.database = (how & 128) && how < 200 ? 1 : how == 238 ? take(w) : 0;
        r.flags = how & 64 ? LANE_LINKED : 0;
        r.length = (uint32_t)strlen(text);
        for (; n > 0; n--, r.tag++)
                if (lane_submit(&w->rings, &r, text, &position) != LANE_SUBMIT_DONE)
                        break;
        if (how % 5 == 0)
                (void)lane_cancel(&w->rings, w->rings.next - 1);
        ring(w);
}

/* What was said of it is nonsense by now, perhaps. */
static void reap(struct worker *w) {
        struct lane_answer answer;
        for (unsigned n = take(w); n > 0 && w->lane && lane_reap(&w->rings, &answer) == LANE_REAP_DONE; n--)
                if (lane_release(&w->rings))
                        ring(w);
}

/* Header, entries, completions or bytes: garbage, or nearly right. */
static void scribble_lane(struct worker *w) {
        static const uint64_t values[] = {0, 1, 2, 3, 255, 256, UINT32_MAX, UINT64_MAX, UINT64_C(1) << 63};
        size_t at = (take(w) | (size_t)take(w) << 8) * sizeof(uint32_t);
        uint8_t how = take(w);
        if (!w->lane || at + sizeof(uint64_t) > w->lane_size)
                return;
        uint32_t *word = (uint32_t *)(void *)(w->lane + at), value = __atomic_load_n(word, __ATOMIC_RELAXED);
        value = how & 128 ? value + (how & 15) - 7 : (uint32_t)values[how % ARRAY_SIZE(values)];
        __atomic_store_n(word, value, __ATOMIC_RELAXED);
}

static void lane_step(struct worker *w, uint8_t which) {
        switch (which % 6) {
        case 0:
                open_lane(w);
                break;
        case 1:
        case 2:
                submit(w);
                break;
        case 3:
                reap(w);
                break;
        case 4:
                scribble_lane(w);
                break;
        default:
                ring(w);
                break;
        }
}

/* ---- what it hears ------------------------------------------------------------------------------------------------ */

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
                if (m.header.type == LESSOR_MSG_ATTACHED && packet.n_fds == 2) {
                        w->segment_size = m.attached.segment_size;
                        w->segment = map(packet.fds[1], w->segment_size);
                }
                if (m.header.type == LESSOR_MSG_LANE_OPENED && packet.n_fds == 2)
                        have_lane(w, &m.lane_opened, packet.fds[0], packet.fds[1]);
                fdpass_close(&packet);
        }
        if (w->segment)
                look_at_tickets(w);
}

static void step(struct worker *w) {
        uint8_t which = take(w);
        if (which >= 160) {
                lane_step(w, which);
                return;
        }
        switch (which % 10) {
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
        if (!list_empty(&set.lanes.active) || !list_empty(&set.lanes.quiet) || !list_empty(&set.lanes.told))
                abort();
        if (atomic_load(&budget.used))
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
        struct worker w = {.fd = pair[1], .data = data, .size = size, .doorbell = -1};
        session_accept(&set, pair[0]);
        while (w.size)
                step(&w);
        turn(2);
        receive(&w);
        close(w.fd);
        if (w.segment)
                munmap(w.segment, w.segment_size);
        if (w.lane)
                munmap(w.lane, w.lane_size);
        fd_close(w.doorbell);
        for (unsigned i = 0; i < 1000 && !(list_empty(&set.sessions) && list_empty(&set.newcomers)); i++)
                turn(1);
        turn(3);
        check_nothing_is_left();
        check_fds();
        return 0;
}

/* SPDX-License-Identifier: MIT */
#include "words.h"

#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "process.h"

enum { STATE = 3, HELD = 1, PARKED = 2, WANTED = 4 };

static bool say_attach(int socket) {
        struct lessor_msg_attach attach = raw_attach_message(LESSOR_FEATURE_SEGMENT | LESSOR_FEATURE_WORDS);
        int pidfd = raw_pidfd(getpid()), r;
        r = pidfd < 0 ? pidfd : raw_send(socket, &attach, sizeof(attach), &pidfd, 1);
        if (pidfd >= 0)
                close(pidfd);
        return r == 0;
}

/* ATTACHED's fds: the control page, of no use here, and the segment. */
static bool map_segment(struct words *w) {
        union raw_message answer;
        int fds[RAW_FDS];
        unsigned n_fds;
        bool good = raw_receive(w->socket, &answer, fds, &n_fds) > 0 && answer.header.type == LESSOR_MSG_ATTACHED &&
                    n_fds == 2 && answer.attached.features & LESSOR_FEATURE_WORDS;
        if (good) {
                w->size = answer.attached.segment_size;
                w->segment = mmap(NULL, w->size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[1], 0);
                good = w->segment != MAP_FAILED;
        }
        while (n_fds > 0)
                close(fds[--n_fds]);
        return good;
}

bool words_attach(struct words *w, const char *path, const char *database) {
        *w = (struct words){.socket = raw_connect(path)};
        if (w->socket < 0 || !say_attach(w->socket) || !map_segment(w))
                return false;
        int number = raw_lookup(w->socket, database);
        w->database = (uint32_t)number;
        return number >= 0;
}

void words_detach(struct words *w) {
        munmap(w->segment, w->size);
        close(w->socket);
}

struct lessor_slot_layout *words_slot(const struct words *w, uint32_t word) {
        /* The broker's own layout, not what the header says by now: tests fill it with garbage. */
        enum { WORDS_OFFSET = 128 + LESSOR_TICKETS * sizeof(struct lessor_ticket) };
        return (struct lessor_slot_layout *)(void *)(w->segment + WORDS_OFFSET) + word;
}

uint64_t words_load(const struct words *w, uint32_t word) {
        return __atomic_load_n(&words_slot(w, word)->word, __ATOMIC_ACQUIRE);
}

void words_store(const struct words *w, uint32_t word, uint64_t value) {
        __atomic_store_n(&words_slot(w, word)->word, value, __ATOMIC_RELEASE);
}

static bool change(const struct words *w, uint32_t word, uint64_t from, uint64_t to, uint64_t sequences) {
        uint64_t value = words_load(w, word);
        if ((value & (STATE | WANTED)) != from)
                return false;
        return __atomic_compare_exchange_n(&words_slot(w, word)->word, &value, (value ^ from ^ to) + (sequences << 27),
                                           false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

bool words_park(const struct words *w, uint32_t word) { return change(w, word, HELD, PARKED, 0); }
bool words_retake(const struct words *w, uint32_t word) { return change(w, word, PARKED, HELD, 1); }

int words_ask(const struct words *w, uint64_t request, uint64_t wait_ns) {
        struct lessor_msg_lease lease = raw_lease_message(request, w->database, wait_ns);
        return raw_say(w->socket, &lease);
}

int words_answer(const struct words *w, struct lessor_msg_grant *ret) {
        union raw_message answer = {0};
        int fds[RAW_FDS];
        unsigned n_fds = 0;

        if (raw_receive(w->socket, &answer, fds, &n_fds) <= 0)
                return -LESSOR_E_UNAVAILABLE;
        bool kept = answer.header.type == LESSOR_MSG_GRANT && answer.grant.flags & LESSOR_GRANT_KEPT;
        if (answer.header.type == LESSOR_MSG_GRANT && n_fds == !kept) {
                *ret = answer.grant;
                return kept ? WORDS_FD_KEPT : fds[0];
        }
        while (n_fds > 0)
                close(fds[--n_fds]);
        return answer.header.type == LESSOR_MSG_ERROR && answer.error.outcome > 0 ? -answer.error.outcome
                                                                                  : -LESSOR_E_PROTOCOL;
}

int words_lease(const struct words *w, uint64_t wait_ns, struct lessor_msg_grant *ret) {
        return words_ask(w, 3, wait_ns) < 0 ? -LESSOR_E_UNAVAILABLE : words_answer(w, ret);
}

int words_return(const struct words *w, const struct lessor_msg_grant *g, uint32_t flags) {
        struct lessor_msg_return giveback = raw_return_message(g, flags);
        return raw_say(w->socket, &giveback);
}

bool words_ping(int fd) {
        static const char request[] = "PING\r\n", expected[] = "+PONG\r\n";
        char reply[sizeof(expected)] = "";
        size_t got = 0;
        ssize_t n = send(fd, request, strlen(request), MSG_NOSIGNAL);

        while (n > 0 && got < strlen(expected)) {
                struct pollfd readable = {.fd = fd, .events = POLLIN};
                if (poll(&readable, 1, RAW_MS * PROCESS_SLOW) <= 0)
                        return false;
                n = recv(fd, reply + got, strlen(expected) - got, 0);
                got += n > 0 ? (size_t)n : 0;
        }
        return strcmp(reply, expected) == 0;
}

/* SPDX-License-Identifier: MIT */
/*
 * A worker may send what he likes: what the protocol does not allow ends his own session, and nothing else. While each
 * abuse runs, a well-behaved session holds a lease and works on; afterwards the broker has the fds it had before.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "support/check.h"
#include "support/host.h"
#include "support/process.h"
#include "support/raw.h"

enum { WAIT_MS = 20000 };
static const uint64_t WAIT_NS = UINT64_C(20000000000);

struct scene {
        struct host host;
        lessor *bystander;
        lessor_lease *held;
        uint32_t main; /* the number of database "main" */
        unsigned fds;  /* of the broker, with the bystander attached and his lease held */
};

static void scene_start(struct scene *s) {
        lessor_error e = {0};
        host_start(&s->host, "max_connections: 3");
        s->bystander = client_open(&s->host.broker);
        s->held = lessor_acquire(client_database(s->bystander, NULL), WAIT_MS, &e);
        check_msg(s->held, "%s", e.text);
        int fd = raw_attach(s->host.broker.socket, 0, NULL);
        check(fd >= 0);
        s->main = (uint32_t)raw_lookup(fd, "main");
        close(fd);
        check_soon(broker_sessions_now(&s->host.broker) == 1, WAIT_MS);
        s->fds = fd_count(s->host.broker.pid);
}

/* The bystander works on, nothing is held for anybody else, and the broker has as many fds as before. */
static void check_undisturbed(struct scene *s, const char *after) {
        struct broker *b = &s->host.broker;
        lessor_error e = {0};
        struct lessor_status_database d;

        redisReply *reply = lessor_lease_command(s->held, &e, "PING");
        bool even = reply && wait_until(broker_sessions_now(b) == 1, WAIT_MS) &&
                    wait_until((d = broker_figures(b, "main")).in_use_connections == 1 && d.waiting == 0 &&
                                       d.open_connections == d.available_connections + 1 &&
                                       fd_count(b->pid) == s->fds + d.available_connections,
                               WAIT_MS);
        if (!even)
                broker_dump_log(b);
        d = broker_figures(b, "main");
        check_msg(even, "after %s: %s%llu sessions, %llu in use, %llu waiting, %u fds, expected %u", after, e.text,
                  (unsigned long long)broker_sessions(b), (unsigned long long)d.in_use_connections,
                  (unsigned long long)d.waiting, fd_count(b->pid), (unsigned)(s->fds + d.available_connections));
        freeReplyObject(reply);
}

static void scene_end(struct scene *s) {
        check_undisturbed(s, "all of it");
        lessor_release(s->held);
        lessor_close(s->bystander);
        host_end(&s->host);
}

/* ---- before ATTACH ------------------------------------------------------------------------------------------------ */

static void check_attach_refused(struct scene *s, const char *what, const void *bytes, size_t size, const int *fds,
                                 unsigned n_fds) {
        int fd = raw_connect(s->host.broker.socket);
        check_msg(fd >= 0, "%s: connect: %s", what, strerror(-fd));
        int r = raw_send(fd, bytes, size, fds, n_fds);
        check_msg(r == 0 || r == -EPIPE, "%s: send: %s", what, strerror(-r));
        check_msg(raw_ended(fd, NULL), "%s: the session goes on", what);
        close(fd);
        check_undisturbed(s, what);
}

TEST(protocol_abuse, an_attach_that_is_not_in_order_is_refused) {
        struct scene s;
        int pidfd = raw_pidfd(getpid()), two[] = {pidfd, pidfd}, parent = raw_pidfd(getppid());
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        struct lessor_msg_attach good = raw_attach_message(0), bad;
        char longer[sizeof(good) + 8] = {0};

        scene_start(&s);
        check_attach_refused(&s, "two fds", &good, sizeof(good), two, 2);
        check_attach_refused(&s, "the pidfd of another process", &good, sizeof(good), &parent, 1);
        check_attach_refused(&s, "/dev/null as a pidfd", &good, sizeof(good), &null, 1);
        check_attach_refused(&s, "one byte", &good, 1, &pidfd, 1);
        check_attach_refused(&s, "half a header", &good, sizeof(good.header) / 2, &pidfd, 1);
        check_attach_refused(&s, "one byte less", &good, sizeof(good) - 1, &pidfd, 1);
        memcpy(longer, &good, sizeof(good));
        check_attach_refused(&s, "eight bytes more", longer, sizeof(longer), &pidfd, 1);
        bad = good, bad.header.size += 8;
        check_attach_refused(&s, "a size that is not the packet's", &bad, sizeof(bad), &pidfd, 1);
        bad = good, bad.header.type = 0;
        check_attach_refused(&s, "type 0", &bad, sizeof(bad), &pidfd, 1);
        bad = good, bad.header.type = LESSOR_MSG_ATTACHED;
        check_attach_refused(&s, "an answer of the broker's", &bad, sizeof(bad), &pidfd, 1);
        bad = good, bad.header.reserved = 1;
        check_attach_refused(&s, "a reserved bit", &bad, sizeof(bad), &pidfd, 1);
        bad = good, bad.version_min = 1000, bad.version_max = 2000;
        check_attach_refused(&s, "versions of another age", &bad, sizeof(bad), &pidfd, 1);
        bad = good, bad.version_min = 2, bad.version_max = 1;
        check_attach_refused(&s, "versions upside down", &bad, sizeof(bad), &pidfd, 1);
        bad = good, memset(bad.program, 'x', sizeof(bad.program));
        check_attach_refused(&s, "a name without an end", &bad, sizeof(bad), &pidfd, 1);
        bad = good, bad.program[sizeof(bad.program) - 1] = 'x';
        check_attach_refused(&s, "bytes after a name's end", &bad, sizeof(bad), &pidfd, 1);
        scene_end(&s);
        close(pidfd), close(parent), close(null);
}

TEST(protocol_abuse, a_version_without_a_common_one_is_told_so) {
        struct scene s;
        union raw_message answer;
        int pidfd = raw_pidfd(getpid());
        struct lessor_msg_attach attach = raw_attach_message(0);

        scene_start(&s);
        attach.version_min = 1000, attach.version_max = 2000;
        int fd = raw_connect(s.host.broker.socket);
        check_eq(raw_send(fd, &attach, sizeof(attach), &pidfd, 1), 0);
        check(raw_expect(fd, LESSOR_MSG_ERROR, &answer));
        check_eq(answer.error.outcome, LESSOR_E_VERSION);
        check(answer.error.flags & LESSOR_FATAL);
        check(raw_ended(fd, NULL));
        close(fd), close(pidfd);
        scene_end(&s);
}

TEST(protocol_abuse, the_highest_common_version_and_known_features_are_granted) {
        struct scene s;
        union raw_message answer;
        int pidfd = raw_pidfd(getpid());
        struct lessor_msg_attach attach = raw_attach_message(~UINT64_C(0) & ~LESSOR_FEATURE_SEGMENT);

        scene_start(&s);
        attach.version_min = 0, attach.version_max = 2000;
        int fd = raw_connect(s.host.broker.socket);
        check_eq(raw_send(fd, &attach, sizeof(attach), &pidfd, 1), 0);
        check(raw_expect(fd, LESSOR_MSG_ATTACHED, &answer));
        check_eq(answer.attached.version, LESSOR_PROTOCOL_MAX);
        check_eq(answer.attached.features, 0);
        check_eq(answer.attached.segment_size, 0);
        close(fd), close(pidfd);
        scene_end(&s);
}

TEST(protocol_abuse, who_connects_and_says_nothing_is_sent_away_or_harms_nobody) {
        struct scene s;
        int fds[50];

        scene_start(&s);
        for (unsigned i = 0; i < 50; i++)
                check((fds[i] = raw_connect(s.host.broker.socket)) >= 0);
        redisReply *reply = client_command(client_database(s.bystander, NULL), "PING");
        freeReplyObject(reply);
        for (unsigned i = 0; i < 50; i++)
                close(fds[i]);
        scene_end(&s);
}

/* No abuse at all, but the broker's own trouble: it must not be called the worker's fault. */
TEST(protocol_abuse, a_broker_out_of_fds_says_so_and_recovers) {
        struct lessor_msg_attach attach = raw_attach_message(LESSOR_FEATURE_SEGMENT);
        int pidfd = raw_pidfd(getpid()), fds[RAW_FDS];
        struct rlimit before, few;
        union raw_message answer;
        struct scene s;
        unsigned n_fds;

        scene_start(&s);
        check(prlimit(s.host.broker.pid, RLIMIT_NOFILE, NULL, &before) == 0);
        for (unsigned room = 1; room < 6; room++) { /* from the socket alone to all that an attach takes */
                few = (struct rlimit){.rlim_cur = s.fds + room, .rlim_max = before.rlim_max};
                check(prlimit(s.host.broker.pid, RLIMIT_NOFILE, &few, NULL) == 0);
                int fd = raw_connect(s.host.broker.socket);
                check(fd >= 0 && raw_send(fd, &attach, sizeof(attach), &pidfd, 1) == 0);
                check(raw_receive(fd, &answer, fds, &n_fds) > 0);
                while (n_fds > 0)
                        close(fds[--n_fds]);
                if (answer.header.type == LESSOR_MSG_ERROR)
                        check_msg(answer.error.outcome == LESSOR_E_LIMIT && strstr(answer.error.text, "file"),
                                  "with room for %u: %d: %s", room, answer.error.outcome, answer.error.text);
                close(fd);
                check_soon(fd_count(s.host.broker.pid) == s.fds, WAIT_MS);
        }
        check(prlimit(s.host.broker.pid, RLIMIT_NOFILE, &before, NULL) == 0);
        close(pidfd);
        scene_end(&s);
}

/* A socket whose last close() waits for half a minute: it has unsent data, SO_LINGER, and a peer who does not read. */
static int lingering_socket(int *ret_peer) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t size = sizeof(address);
        struct linger linger = {.l_onoff = 1, .l_linger = 30};
        static char data[65536];
        int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
            fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        check(bind(listener, (struct sockaddr *)&address, size) == 0 && listen(listener, 1) == 0 &&
              getsockname(listener, (struct sockaddr *)&address, &size) == 0 &&
              connect(fd, (struct sockaddr *)&address, size) == 0);
        *ret_peer = accept(listener, NULL, NULL);
        check(*ret_peer >= 0);
        close(listener);
        while (send(fd, data, sizeof(data), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
                ;
        check(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
        return fd;
}

static int send_and_close(int socket, const void *bytes, size_t size, int fd, unsigned n) {
        int fds[200];
        for (unsigned i = 0; i < n; i++)
                fds[i] = fd;
        int r = raw_send(socket, bytes, size, fds, n);
        close(fd); /* the last one is the broker's */
        return r;
}

TEST(protocol_abuse, an_fd_whose_close_takes_long_holds_up_nobody) {
        struct lessor_msg_attach attach = raw_attach_message(0);
        const unsigned copies[] = {1, 200, 1};
        struct scene s;
        int peer[3], fd[3];

        scene_start(&s);
        uint64_t began = now_ms();
        broker_pause(&s.host.broker); /* so that the last one is still unread when its session ends */
        for (unsigned i = 0; i < 3; i++) {
                check((fd[i] = raw_connect(s.host.broker.socket)) >= 0);
                if (i == 2)
                        check_eq(raw_send(fd[i], "what is this", 12, NULL, 0), 0);
                check_eq(send_and_close(fd[i], &attach, sizeof(attach), lingering_socket(&peer[i]), copies[i]), 0);
        }
        broker_resume(&s.host.broker);
        for (unsigned i = 0; i < 3; i++)
                check(raw_ended(fd[i], NULL));
        check_undisturbed(&s, "fds that linger");
        check_msg(now_ms() - began < 20000, "held up for %llu ms", (unsigned long long)(now_ms() - began));
        for (unsigned i = 0; i < 3; i++)
                close(fd[i]), close(peer[i]);
        scene_end(&s);
}

/* ---- of a session ------------------------------------------------------------------------------------------------- */

/* A session that holds a lease of its own and waits for nothing says something wrong: it ends, its lease comes back. */
static void check_session_ends(struct scene *s, const char *what, const void *bytes, size_t size, const int *fds,
                               unsigned n_fds) {
        struct lessor_msg_grant grant;
        int fd = raw_attach(s->host.broker.socket, LESSOR_FEATURE_SEGMENT, NULL);
        check_msg(fd >= 0, "%s: attach", what);
        int lease = raw_lease(fd, s->main, WAIT_NS, &grant);
        check_msg(lease >= 0, "%s: lease: outcome %d", what, -lease);
        int r = raw_send(fd, bytes, size, fds, n_fds);
        check_msg(r == 0, "%s: send: %s", what, strerror(-r));
        check_msg(raw_ended(fd, NULL), "%s: the session goes on", what);
        char byte;
        check_msg(recv(lease, &byte, 1, 0) <= 0, "%s: its connection lives on", what);
        close(lease);
        close(fd);
        check_undisturbed(s, what);
}

#define MESSAGE(m) &(m), sizeof(m), NULL, 0

TEST_WITH(protocol_abuse, a_malformed_message_ends_its_session_alone, .timeout = 120) {
        struct scene s;
        char large[65536] = {0};
        int null = open("/dev/null", O_RDWR | O_CLOEXEC), many[200];
        struct lessor_msg_lease lease;
        struct lessor_msg_lookup lookup;
        struct lessor_msg_header header = {0};

        scene_start(&s);
        lease = raw_lease_message(7, s.main, 0);
        check_session_ends(&s, "nothing", large, 0, NULL, 0);
        check_session_ends(&s, "one byte", large, 1, NULL, 0);
        check_session_ends(&s, "zeroes", large, 512, NULL, 0);
        check_session_ends(&s, "64 KiB", large, sizeof(large), NULL, 0);
        check_session_ends(&s, "an empty header", MESSAGE(header));
        check_session_ends(&s, "a truncated lease", &lease, sizeof(lease) - 1, NULL, 0);
        check_session_ends(&s, "a header alone", &lease, sizeof(lease.header), NULL, 0);
        check_session_ends(&s, "a lease with an fd", &lease, sizeof(lease), &null, 1);
        for (unsigned i = 0; i < 200; i++)
                many[i] = null;
        check_session_ends(&s, "a lease with 200 fds", &lease, sizeof(lease), many, 200);
        lease.header.request = 0;
        check_session_ends(&s, "request 0", MESSAGE(lease));
        lease = raw_lease_message(7, s.main, 0), lease.header.reserved = 1;
        check_session_ends(&s, "a reserved bit", MESSAGE(lease));
        lease = raw_lease_message(7, s.main, 0), memset(lease.site, 'x', sizeof(lease.site));
        check_session_ends(&s, "a call site without an end", MESSAGE(lease));
        lookup = raw_lookup_message(7, "main"), memset(lookup.name, 'x', sizeof(lookup.name));
        check_session_ends(&s, "a database name without an end", MESSAGE(lookup));
        for (unsigned type = 0; type < 70000; type += type < 20 ? 1 : 9973) {
                if (type == LESSOR_MSG_LOOKUP || type == LESSOR_MSG_LEASE)
                        continue;
                lease = raw_lease_message(7, s.main, 0), lease.header.type = (uint16_t)type;
                check_session_ends(&s, "a wrong type", MESSAGE(lease));
        }
        close(null);
        scene_end(&s);
}

TEST(protocol_abuse, a_second_attach_ends_the_session) {
        struct scene s;
        struct lessor_msg_attach attach = raw_attach_message(0);
        int pidfd = raw_pidfd(getpid());

        scene_start(&s);
        check_session_ends(&s, "a second ATTACH", &attach, sizeof(attach), &pidfd, 1);
        close(pidfd);
        scene_end(&s);
}

TEST(protocol_abuse, a_question_before_attach_ends_the_session) {
        struct scene s;
        struct lessor_msg_grant any = {0};

        scene_start(&s);
        struct lessor_msg_lookup lookup = raw_lookup_message(1, "main");
        struct lessor_msg_lease lease = raw_lease_message(1, s.main, 0);
        struct lessor_msg_return giveback = raw_return_message(&any, 0);
        const struct {
                const void *bytes;
                size_t size;
        } early[] = {{&lookup, sizeof(lookup)}, {&lease, sizeof(lease)}, {&giveback, sizeof(giveback)}};
        for (unsigned i = 0; i < 3; i++)
                check_attach_refused(&s, "a message before ATTACH", early[i].bytes, early[i].size, NULL, 0);
        scene_end(&s);
}

/* The grant of the bystander's lease, as the status segment shows it to everybody. */
static struct lessor_msg_grant bystanders_grant(struct scene *s) {
        struct lessor_status_connection c = broker_connection_held(&s->host.broker);
        struct lessor_msg_grant grant = {0};

        grant.database = s->main, grant.slot = c.slot, grant.generation = c.generation, grant.lease = c.lease;
        return grant;
}

TEST_WITH(protocol_abuse, nobody_gives_back_or_reports_a_lease_that_is_not_his, .timeout = 120) {
        struct scene s;
        struct lessor_msg_return giveback;
        struct lessor_msg_report report = {.header = {.type = LESSOR_MSG_REPORT, .size = sizeof(report)},
                                           .kind = LESSOR_REPORT_CONNECTION};

        scene_start(&s);
        struct lessor_msg_grant theirs = bystanders_grant(&s), wrong;
        giveback = raw_return_message(&theirs, LESSOR_RETURN_CLEAN);
        check_session_ends(&s, "the return of another's lease", MESSAGE(giveback));
        report.database = theirs.database, report.slot = theirs.slot, report.generation = theirs.generation;
        report.lease = theirs.lease;
        check_session_ends(&s, "the report of another's lease", MESSAGE(report));
        wrong = theirs, wrong.lease += 1000000;
        giveback = raw_return_message(&wrong, 0);
        check_session_ends(&s, "the return of a lease that never was", MESSAGE(giveback));
        wrong = theirs, wrong.slot = UINT32_MAX;
        giveback = raw_return_message(&wrong, 0);
        check_session_ends(&s, "a slot out of range", MESSAGE(giveback));
        wrong = theirs, wrong.database = UINT32_MAX;
        giveback = raw_return_message(&wrong, 0);
        check_session_ends(&s, "a database out of range", MESSAGE(giveback));
        giveback = raw_return_message(&theirs, UINT32_MAX);
        check_session_ends(&s, "flags unheard of", MESSAGE(giveback));
        report.kind = 1000;
        check_session_ends(&s, "a report unheard of", MESSAGE(report));
        scene_end(&s);
}

TEST(protocol_abuse, a_return_said_twice_ends_the_session) {
        struct scene s;
        struct lessor_msg_grant grant;

        scene_start(&s);
        int fd = raw_attach(s.host.broker.socket, 0, NULL), lease = raw_lease(fd, s.main, WAIT_NS, &grant);
        check(lease >= 0);
        struct lessor_msg_return giveback = raw_return_message(&grant, LESSOR_RETURN_CLEAN);
        close(lease);
        check_eq(raw_say(fd, &giveback), 0);
        check_eq(raw_say(fd, &giveback), 0);
        check(raw_ended(fd, NULL));
        close(fd);
        scene_end(&s);
}

TEST(protocol_abuse, a_wrong_generation_ends_the_session_and_frees_the_place) {
        struct scene s;
        struct lessor_msg_grant grant;

        scene_start(&s);
        int fd = raw_attach(s.host.broker.socket, 0, NULL), lease = raw_lease(fd, s.main, WAIT_NS, &grant);
        check(lease >= 0);
        grant.generation++;
        struct lessor_msg_return giveback = raw_return_message(&grant, LESSOR_RETURN_CLEAN);
        check_eq(raw_say(fd, &giveback), 0);
        check(raw_ended(fd, NULL));
        close(lease);
        close(fd);
        scene_end(&s);
}

TEST(protocol_abuse, one_request_number_used_twice_at_once_harms_nobody) {
        struct scene s;
        struct lessor_msg_grant grant;
        int leases[2];

        scene_start(&s);
        int fd = raw_attach(s.host.broker.socket, 0, NULL);
        for (unsigned i = 0; i < 2; i++)
                check((leases[i] = raw_lease(fd, s.main, WAIT_NS, &grant)) >= 0);
        struct lessor_msg_lease lease = raw_lease_message(7, s.main, WAIT_NS);
        struct lessor_msg_cancel cancel = {.header = {.type = LESSOR_MSG_CANCEL, .size = sizeof(cancel), .request = 7},
                                           .database = s.main};
        check_eq(raw_say(fd, &lease), 0); /* waits: all three places are taken */
        check_figure_soon(&s.host.broker, "main", waiting, 1, WAIT_MS);
        raw_say(fd, &lease);
        raw_say(fd, &cancel);
        for (unsigned i = 0; i < 2; i++)
                close(leases[i]);
        close(fd);
        scene_end(&s);
}

TEST(protocol_abuse, more_requests_than_allowed_are_refused_or_end_the_session) {
        struct scene s;
        struct lessor_msg_grant grant;
        union raw_message answer;
        unsigned refused = 0;

        scene_start(&s);
        int fd = raw_attach(s.host.broker.socket, 0, NULL);
        int first = raw_lease(fd, s.main, WAIT_NS, &grant), second = raw_lease(fd, s.main, WAIT_NS, &grant);
        check(first >= 0 && second >= 0);
        for (unsigned i = 0; i < LESSOR_REQUESTS_MAX + 10; i++) {
                struct lessor_msg_lease lease = raw_lease_message(100 + i, s.main, WAIT_NS);
                if (raw_say(fd, &lease) < 0)
                        break;
        }
        check(broker_figures_now(&s.host.broker, "main").peak_waiting <= LESSOR_REQUESTS_MAX);
        while (refused < 10 && raw_expect(fd, LESSOR_MSG_ERROR, &answer)) {
                refused++;
                check_eq(answer.error.outcome, LESSOR_E_LIMIT);
                if (answer.error.flags & LESSOR_FATAL)
                        break;
        }
        check(refused >= 1);
        close(first), close(second), close(fd);
        scene_end(&s);
}

TEST(protocol_abuse, who_never_reads_his_answers_is_cut_off_and_holds_up_nobody) {
        struct scene s;

        scene_start(&s);
        int fd = raw_attach(s.host.broker.socket, 0, NULL);
        struct lessor_msg_lookup lookup = raw_lookup_message(1, "no such name");
        int r = 0;
        fcntl(fd, F_SETFL, O_NONBLOCK);
        for (unsigned i = 0; i < 200000 && (r == 0 || r == -EAGAIN); i++) {
                r = raw_say(fd, &lookup);
                if (i % 1000 == 0)
                        freeReplyObject(client_command(client_database(s.bystander, NULL), "PING"));
        }
        check_msg(r == -EPIPE || r == -ECONNRESET || r == -EAGAIN, "%s", strerror(-r));
        close(fd);
        scene_end(&s);
}

/* All of them are answered in one turn of the broker's, far more than the socket has room for. */
TEST(protocol_abuse, as_many_requests_as_allowed_are_all_answered_though_they_end_together) {
        struct scene s;
        struct lessor_msg_grant grant;
        union raw_message answer;
        bool answered[LESSOR_REQUESTS_MAX] = {false};

        scene_start(&s);
        int fd = raw_attach(s.host.broker.socket, 0, NULL);
        int first = raw_lease(fd, s.main, WAIT_NS, &grant), second = raw_lease(fd, s.main, WAIT_NS, &grant);
        check(first >= 0 && second >= 0);
        for (unsigned i = 0; i < LESSOR_REQUESTS_MAX; i++) {
                struct lessor_msg_lease lease = raw_lease_message(100 + i, s.main, UINT64_C(500000000));
                check_eq(raw_say(fd, &lease), 0);
        }
        check_figure_soon(&s.host.broker, "main", lease_timeouts, LESSOR_REQUESTS_MAX, WAIT_MS);
        for (unsigned i = 0; i < LESSOR_REQUESTS_MAX; i++) {
                check_msg(raw_expect(fd, LESSOR_MSG_ERROR, &answer), "after %u answers", i);
                check_eq(answer.error.outcome, LESSOR_E_TIMEOUT);
                check(answer.header.request >= 100 && answer.header.request < 100 + LESSOR_REQUESTS_MAX);
                check(!answered[answer.header.request - 100]);
                answered[answer.header.request - 100] = true;
        }
        check_eq(raw_lookup(fd, "main"), (int)s.main); /* he is heard again */
        close(first), close(second), close(fd);
        scene_end(&s);
}

TEST(protocol_abuse, who_stops_reading_for_good_is_cut_off) {
        struct scene s;
        struct lessor_msg_grant grant;

        scene_start(&s);
        int fd = raw_attach(s.host.broker.socket, 0, NULL);
        int first = raw_lease(fd, s.main, WAIT_NS, &grant), second = raw_lease(fd, s.main, WAIT_NS, &grant);
        check(first >= 0 && second >= 0);
        for (unsigned i = 0; i < LESSOR_REQUESTS_MAX; i++) {
                struct lessor_msg_lease lease = raw_lease_message(100 + i, s.main, UINT64_C(500000000));
                check_eq(raw_say(fd, &lease), 0);
        }
        check_figure_soon(&s.host.broker, "main", reclaims, 2, WAIT_MS);
        close(first), close(second), close(fd);
        scene_end(&s);
}

TEST(protocol_abuse, a_cancelled_request_is_answered_once) {
        struct scene s;
        struct lessor_msg_grant grant;
        union raw_message answer;

        scene_start(&s);
        int fd = raw_attach(s.host.broker.socket, 0, NULL);
        int first = raw_lease(fd, s.main, WAIT_NS, &grant), second = raw_lease(fd, s.main, WAIT_NS, &grant);
        struct lessor_msg_lease lease = raw_lease_message(9, s.main, WAIT_NS);
        struct lessor_msg_cancel cancel = {.header = {.type = LESSOR_MSG_CANCEL, .size = sizeof(cancel), .request = 9},
                                           .database = s.main};
        check_eq(raw_say(fd, &lease), 0);
        check_eq(raw_say(fd, &cancel), 0);
        check(raw_expect(fd, LESSOR_MSG_ERROR, &answer));
        check_eq(answer.header.request, 9);
        check_eq(answer.error.outcome, LESSOR_E_CANCELLED);
        check_eq(raw_say(fd, &cancel), 0); /* too late: its answer was on the way already */
        check_eq(raw_lookup(fd, "main"), (int)s.main);
        check_figure_soon(&s.host.broker, "main", cancelled, 1, WAIT_MS);
        close(first), close(second), close(fd);
        scene_end(&s);
}

/* ---- no segment, no library: the protocol alone ----------------------------------------------------------------- */

static void say_and_read(int fd, const char *command, const char *expected) {
        char reply[256] = {0};
        size_t n = 0;
        check_eq(send(fd, command, strlen(command), MSG_NOSIGNAL), (ssize_t)strlen(command));
        while (n < strlen(expected)) {
                ssize_t more = recv(fd, reply + n, sizeof(reply) - n - 1, 0);
                check_msg(more > 0, "%s: %zd after `%s`", command, more, reply);
                n += (size_t)more;
        }
        check_str(reply, expected);
}

static void make_blocking(int fd) {
        int flags = fcntl(fd, F_GETFL);
        check(flags >= 0 && fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == 0);
}

TEST(protocol_abuse, a_client_without_memory_leases_and_returns_by_messages_alone) {
        struct host h;
        struct lessor_msg_attached attached;
        struct lessor_msg_grant grant, again;

        host_start(&h, "max_connections: 1");
        int fd = raw_attach(h.broker.socket, 0, &attached);
        check(fd >= 0);
        check_eq(attached.broker_pid, h.broker.pid);
        check_eq(attached.databases, 1);
        check_eq(attached.control_size, 0);
        check_eq(attached.requests_max, LESSOR_REQUESTS_MAX);
        int database = raw_lookup(fd, "main");
        check(database >= 0);
        check_eq(raw_lookup(fd, "nowhere"), -LESSOR_E_UNKNOWN_DATABASE);
        int lease = raw_lease(fd, (uint32_t)database, WAIT_NS, &grant);
        check(lease >= 0);
        make_blocking(lease);
        say_and_read(lease, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n", "+OK\r\n");
        struct lessor_msg_return giveback = raw_return_message(&grant, LESSOR_RETURN_CLEAN);
        giveback.requests = giveback.replies = 1;
        close(lease);
        check_eq(raw_say(fd, &giveback), 0);
        lease = raw_lease(fd, (uint32_t)database, WAIT_NS, &again);
        check(lease >= 0);
        check_eq(again.generation, grant.generation); /* the same connection, not another */
        check_eq(again.client_id, grant.client_id);
        check(again.lease != grant.lease);
        make_blocking(lease);
        say_and_read(lease, "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", "$5\r\nvalue\r\n");
        check_eq(raw_lease(fd, (uint32_t)database, 0, &grant), -LESSOR_E_EXHAUSTED);
        giveback = raw_return_message(&again, 0); /* without the proof: replaced */
        close(lease);
        check_eq(raw_say(fd, &giveback), 0);
        lease = raw_lease(fd, (uint32_t)database, WAIT_NS, &grant);
        check(lease >= 0);
        check(grant.generation != again.generation || grant.slot != again.slot);
        check_figure_soon(&h.broker, "main", discards_dirty, 1, WAIT_MS);
        close(lease);
        close(fd);
        host_end(&h);
}

TEST(protocol_abuse, an_unread_byte_on_a_connection_said_to_be_clean_is_found) {
        struct host h;
        struct lessor_msg_grant grant;

        host_start(&h, "max_connections: 1");
        int fd = raw_attach(h.broker.socket, 0, NULL), lease = raw_lease(fd, 0, WAIT_NS, &grant);
        check(lease >= 0);
        check_eq(send(lease, "PING\r\n", 6, MSG_NOSIGNAL), 6);
        char byte;
        make_blocking(lease);
        check_eq(recv(lease, &byte, 1, MSG_PEEK), 1); /* the reply is there, and stays there */
        struct lessor_msg_return giveback = raw_return_message(&grant, LESSOR_RETURN_CLEAN);
        check_eq(raw_say(fd, &giveback), 0);
        close(lease);
        lessor *l = client_open(&h.broker);
        redisReply *reply = client_command(client_database(l, NULL), "ECHO mine");
        check_str(reply->str, "mine");
        freeReplyObject(reply);
        lessor_close(l);
        check_figure_soon(&h.broker, "main", discards_stray, 1, WAIT_MS);
        close(fd);
        host_end(&h);
}

/* Silent connections fill neither max_sessions nor anything else that a worker needs. */
TEST(protocol_abuse, those_who_connect_and_say_nothing_keep_nobody_out) {
        struct redis r;
        struct broker b;
        int silent[200];

        redis_start(&r, NULL);
        broker_start(&b, "max_sessions: 4\ndatabases: {main: {%s}}\n", redis_address(&r));
        for (size_t i = 0; i < ARRAY_SIZE(silent); i++)
                silent[i] = raw_connect(b.socket);
        lessor *l = client_open(&b);
        freeReplyObject(client_command(client_database(l, NULL), "PING"));
        check_eq(broker_sessions_now(&b), 1);
        for (size_t i = 0; i < ARRAY_SIZE(silent); i++)
                close(silent[i]);
        lessor_close(l);
        check_settled(&b, &r);
        broker_free(&b);
        redis_stop(&r);
}

/* All workers of a host may start at once, and each be kept from the CPU between its connect and its ATTACH. */
TEST(protocol_abuse, many_who_connect_before_the_first_attaches_are_all_let_in) {
        enum { MANY = 300 };
        struct lessor_msg_attach hello = raw_attach_message(0);
        union raw_message answer;
        struct broker b;
        struct redis r;
        int sockets[MANY], pidfd = raw_pidfd(getpid());

        redis_start(&r, NULL);
        broker_start(&b, "databases: {main: {%s}}\n", redis_address(&r));
        for (unsigned i = 0; i < MANY; i++)
                sockets[i] = raw_connect(b.socket);
        for (unsigned i = 0; i < MANY; i++) {
                check_eq(raw_send(sockets[i], &hello, sizeof(hello), &pidfd, 1), 0);
                check_msg(raw_expect(sockets[i], LESSOR_MSG_ATTACHED, &answer), "connection %u was turned away", i);
        }
        check_eq(broker_sessions_now(&b), MANY);
        for (unsigned i = 0; i < MANY; i++)
                close(sockets[i]);
        close(pidfd);
        check_settled(&b, &r);
        broker_free(&b);
        redis_stop(&r);
}

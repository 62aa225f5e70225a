/* SPDX-License-Identifier: MIT */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/fdpass.h"
#include "support/check.h"

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif

struct pair {
        int a, b;
};

static struct pair pair_new(int type) {
        int fds[2];
        check_eq(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds), 0);
        return (struct pair){.a = fds[0], .b = fds[1]};
}

static void pair_free(struct pair p) {
        fd_close(p.a);
        fd_close(p.b);
}

static int open_null(void) {
        int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        check(fd >= 0);
        return fd;
}

static unsigned open_fds(void) {
        unsigned n = 0;
        DIR *dir = opendir("/proc/self/fd");
        check(dir);
        while (readdir(dir))
                n++;
        closedir(dir);
        return n;
}

static bool same_file(int a, int b) {
        struct stat x, y;
        return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* What fdpass_send() refuses to send: any number of fds, any size. */
static void send_raw(int socket, size_t size, const int *fds, size_t n) {
        char bytes[16] = {0};
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(sizeof(int) * 64)];
        } control = {0};
        struct iovec part = {.iov_base = bytes, .iov_len = size};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
        check(n <= 64);
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * n);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int) * n);
        memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * n);
        check_eq(sendmsg(socket, &message, 0), (ssize_t)size);
}

TEST(fdpass, a_packet_arrives_whole_with_any_number_of_fds_which_are_cloexec) {
        for (unsigned n = 0; n <= WIRE_FDS_MAX; n++) {
                struct pair p = pair_new(SOCK_SEQPACKET);
                struct fdpass_packet packet;
                int pipes[WIRE_FDS_MAX][2];
                int fds[WIRE_FDS_MAX];
                char buffer[16] = {0};
                for (unsigned i = 0; i < WIRE_FDS_MAX; i++) {
                        check_eq(pipe2(pipes[i], O_CLOEXEC), 0);
                        fds[i] = pipes[i][0];
                }
                check_eq(fdpass_send(p.a, "hello", 5, fds, n), 0);
                check_eq(fdpass_receive(p.b, buffer, sizeof(buffer), &packet), 0);
                check_eq(packet.size, 5);
                check_str(buffer, "hello");
                check(!packet.cut);
                check(!packet.fds_lost);
                check_eq(packet.n_fds, n);
                for (unsigned i = 0; i < WIRE_FDS_MAX; i++) {
                        if (i < n) {
                                check(same_file(packet.fds[i], fds[i]));
                                check(packet.fds[i] != fds[i]);
                                check(fcntl(packet.fds[i], F_GETFD) & FD_CLOEXEC);
                                check(fcntl(fds[i], F_GETFD) >= 0); /* stays the sender's */
                        } else
                                check_eq(packet.fds[i], -1);
                        close(pipes[i][0]);
                        close(pipes[i][1]);
                }
                fdpass_close(&packet);
                pair_free(p);
        }
}

TEST(fdpass, a_taken_fd_survives_the_closing_of_the_rest_which_may_be_said_twice) {
        struct pair p = pair_new(SOCK_SEQPACKET);
        struct fdpass_packet packet;
        int fds[3] = {open_null(), open_null(), open_null()}, taken, reused;
        unsigned before = open_fds();
        char buffer[4];
        check_eq(fdpass_send(p.a, "x", 1, fds, 3), 0);
        check_eq(fdpass_receive(p.b, buffer, sizeof(buffer), &packet), 0);
        check_eq(open_fds(), before + 3);
        taken = fd_steal(&packet.fds[1]);
        fdpass_close(&packet);
        check_eq(open_fds(), before + 1);
        check(fcntl(taken, F_GETFD) >= 0);
        reused = open_null(); /* takes a number that was just closed */
        fdpass_close(&packet);
        check(fcntl(reused, F_GETFD) >= 0);
        check_eq(packet.n_fds, 0);
        fd_close(taken);
        fd_close(reused);
        for (unsigned i = 0; i < 3; i++)
                fd_close(fds[i]);
        pair_free(p);
}

TEST(fdpass, nothing_there_is_eagain_and_leaves_the_result_untouched) {
        struct pair p = pair_new(SOCK_SEQPACKET); /* blocking sockets: it does not wait all the same */
        struct fdpass_packet packet = {.size = 99, .n_fds = 3};
        char buffer[4];
        check_eq(fdpass_receive(p.b, buffer, sizeof(buffer), &packet), -EAGAIN);
        check_eq(packet.size, 99);
        check_eq(packet.n_fds, 3);
        check_eq(fdpass_receive(-1, buffer, sizeof(buffer), &packet), -EBADF);
        check_eq(packet.size, 99);
        pair_free(p);
}

TEST(fdpass, a_peer_that_does_not_read_is_eagain_and_takes_no_fd) {
        struct pair p = pair_new(SOCK_SEQPACKET);
        int fd = open_null(), r = 0;
        unsigned before = open_fds();
        for (unsigned i = 0; i < 100000 && r == 0; i++)
                r = fdpass_send(p.a, "x", 1, NULL, 0);
        check_eq(r, -EAGAIN);
        check_eq(fdpass_send(p.a, "x", 1, &fd, 1), -EAGAIN);
        check(fcntl(fd, F_GETFD) >= 0);
        check_eq(open_fds(), before);
        fd_close(fd);
        pair_free(p);
}

TEST(fdpass, a_peer_that_is_gone_is_end_of_file_for_the_reader_and_epipe_without_a_signal_for_the_writer) {
        struct pair p = pair_new(SOCK_SEQPACKET);
        struct fdpass_packet packet;
        char buffer[4];
        signal(SIGPIPE, SIG_DFL); /* a signal would end the test */
        p.a = fd_close(p.a);
        check_eq(fdpass_receive(p.b, buffer, sizeof(buffer), &packet), 0);
        check_eq(packet.size, 0);
        check_eq(packet.n_fds, 0);
        check_eq(fdpass_send(p.b, "x", 1, NULL, 0), -EPIPE);
        pair_free(p);
}

/* SOCK_SEQPACKET raises none on Linux today; SOCK_STREAM does. */
TEST(fdpass, no_socket_raises_sigpipe) {
        struct pair p = pair_new(SOCK_STREAM);
        signal(SIGPIPE, SIG_DFL);
        p.a = fd_close(p.a);
        check_eq(fdpass_send(p.b, "x", 1, NULL, 0), -EPIPE);
        pair_free(p);
}

TEST(fdpass, a_peer_that_died_with_unread_packets_is_a_reset) {
        struct pair p = pair_new(SOCK_SEQPACKET);
        struct fdpass_packet packet = {.size = 99};
        char buffer[4];
        check_eq(fdpass_send(p.b, "x", 1, NULL, 0), 0);
        p.a = fd_close(p.a);
        check_eq(fdpass_receive(p.b, buffer, sizeof(buffer), &packet), -ECONNRESET);
        check_eq(packet.size, 99);
        pair_free(p);
}

TEST(fdpass, what_must_not_be_sent_is_refused) {
        struct pair p = pair_new(SOCK_SEQPACKET);
        struct fdpass_packet packet;
        int fds[WIRE_FDS_MAX + 1] = {0, 0, 0, 0, 0}, bad = -1;
        char buffer[4];
        check_eq(fdpass_send(p.a, "", 0, NULL, 0), -EINVAL); /* would read like an end of file */
        check_eq(fdpass_send(p.a, "x", 1, fds, WIRE_FDS_MAX + 1), -EINVAL);
        check_eq(fdpass_send(p.a, "x", 1, &bad, 1), -EBADF);
        check_eq(fdpass_receive(p.b, buffer, sizeof(buffer), &packet), -EAGAIN);
        pair_free(p);
}

TEST(fdpass, a_packet_longer_than_the_buffer_is_said_to_be_cut_and_does_not_spill_into_the_next) {
        struct pair p = pair_new(SOCK_SEQPACKET);
        struct fdpass_packet packet;
        char buffer[8] = "........";
        check_eq(fdpass_send(p.a, "12345", 5, NULL, 0), 0);
        check_eq(fdpass_send(p.a, "ab", 2, NULL, 0), 0);
        check_eq(fdpass_receive(p.b, buffer, 4, &packet), 0);
        check(packet.cut);
        check_eq(packet.size, 4);
        check(memcmp(buffer, "1234....", 8) == 0);
        check_eq(fdpass_receive(p.b, buffer, 4, &packet), 0);
        check(!packet.cut);
        check_eq(packet.size, 2);
        check(memcmp(buffer, "ab34....", 8) == 0);
        pair_free(p);
}

TEST(fdpass, more_fds_than_there_is_room_for_are_closed_and_reported) {
        struct pair p = pair_new(SOCK_SEQPACKET);
        int fds[64];
        unsigned before;
        for (unsigned i = 0; i < 64; i++)
                fds[i] = open_null();
        before = open_fds();
        for (unsigned n = WIRE_FDS_MAX; n <= 64; n++) {
                struct fdpass_packet packet;
                char buffer[4];
                send_raw(p.a, 1, fds, n);
                check_eq(fdpass_receive(p.b, buffer, sizeof(buffer), &packet), 0);
                check_eq(packet.fds_lost, n > WIRE_FDS_MAX);
                check_eq(packet.n_fds, WIRE_FDS_MAX);
                check_eq(open_fds(), before + WIRE_FDS_MAX);
                fdpass_close(&packet);
                check_eq(open_fds(), before);
        }
        for (unsigned i = 0; i < 64; i++)
                fd_close(fds[i]);
        pair_free(p);
}

TEST(fdpass, fds_with_an_empty_packet_are_closed_since_it_reads_like_an_end_of_file) {
        struct pair p = pair_new(SOCK_SEQPACKET);
        struct fdpass_packet packet;
        int fd = open_null();
        unsigned before = open_fds();
        char buffer[4];
        send_raw(p.a, 0, &fd, 1);
        check_eq(fdpass_receive(p.b, buffer, sizeof(buffer), &packet), 0);
        check_eq(packet.size, 0);
        check_eq(packet.n_fds, 0);
        check_eq(open_fds(), before);
        fd_close(fd);
        pair_free(p);
}

/* Lowers RLIMIT_NOFILE so that exactly `room` fds may still be opened; returns the limit before. */
static struct rlimit leave_room(unsigned room) {
        struct rlimit before, low;
        int fd = 0;
        for (unsigned unused = 0; unused <= room; fd++)
                unused += fcntl(fd, F_GETFD) < 0;
        check_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
        low = before;
        low.rlim_cur = (rlim_t)fd - 1;
        check_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
        return before;
}

/* At every limit: as many fds as have room arrive and are held, the rest is reported lost. */
TEST(fdpass, a_receiver_without_a_free_fd_is_told_and_leaks_nothing) {
        for (unsigned room = 0; room <= 4; room++) {
                struct pair p = pair_new(SOCK_SEQPACKET);
                int fds[3] = {open_null(), open_null(), open_null()};
                unsigned before = open_fds(), arrived = room < 3 ? room : 3;
                struct fdpass_packet packet;
                struct rlimit limit;
                char buffer[4];
                int r;
                check_eq(fdpass_send(p.a, "x", 1, fds, 3), 0);
                limit = leave_room(room);
                r = fdpass_receive(p.b, buffer, sizeof(buffer), &packet);
                check_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
                check_eq(r, 0);
                check_eq(packet.size, 1);
                check_eq(packet.n_fds, arrived);
                check_eq(packet.fds_lost, room < 3);
                check_eq(open_fds(), before + arrived);
                fdpass_close(&packet);
                check_eq(open_fds(), before);
                for (unsigned i = 0; i < 3; i++)
                        fd_close(fds[i]);
                pair_free(p);
        }
}

TEST(fdpass, credentials_and_timestamps_in_front_of_the_fds_do_not_confuse_the_receiver) {
        struct pair p = pair_new(SOCK_SEQPACKET);
        int fds[WIRE_FDS_MAX], on = 1;
        check_eq(setsockopt(p.b, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
        check_eq(setsockopt(p.b, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof(on)), 0);
        for (unsigned i = 0; i < WIRE_FDS_MAX; i++)
                fds[i] = open_null();
        for (unsigned n = 0; n <= WIRE_FDS_MAX; n++) {
                unsigned before = open_fds();
                struct fdpass_packet packet;
                char buffer[4];
                check_eq(fdpass_send(p.a, "x", 1, fds, n), 0);
                check_eq(fdpass_receive(p.b, buffer, sizeof(buffer), &packet), 0);
                check_eq(packet.n_fds, n);
                check(!packet.fds_lost);
                check_eq(open_fds(), before + n);
                fdpass_close(&packet);
        }
        for (unsigned i = 0; i < WIRE_FDS_MAX; i++)
                fd_close(fds[i]);
        pair_free(p);
}

TEST(fdpass, a_pidfd_that_the_kernel_adds_is_closed) {
        struct pair p = pair_new(SOCK_SEQPACKET);
        int fd = open_null(), on = 1;
        unsigned before = open_fds();
        struct fdpass_packet packet;
        char buffer[4];
        if (setsockopt(p.b, SOL_SOCKET, SO_PASSPIDFD, &on, sizeof(on)) < 0)
                test_skip("this kernel has no SO_PASSPIDFD (6.5)");
        check_eq(fdpass_send(p.a, "x", 1, &fd, 1), 0);
        check_eq(fdpass_receive(p.b, buffer, sizeof(buffer), &packet), 0);
        check_eq(packet.n_fds, 1);
        check(same_file(packet.fds[0], fd));
        check_eq(open_fds(), before + 1);
        fdpass_close(&packet);
        fd_close(fd);
        pair_free(p);
}

TEST(fdpass, an_fd_reaches_another_process) {
        struct pair p = pair_new(SOCK_SEQPACKET);
        int status = 0, ends[2];
        char got = 0;
        pid_t child;
        check_eq(pipe2(ends, O_CLOEXEC), 0);
        child = fork();
        if (child == 0) {
                struct fdpass_packet packet;
                char buffer[4];
                close(ends[1]);
                child_check(read(ends[0], buffer, 1) == 1); /* the packet is on its way */
                child_check(fdpass_receive(p.b, buffer, sizeof(buffer), &packet) == 0 && packet.n_fds == 1);
                child_check(write(packet.fds[0], "!", 1) == 1);
                _exit(0);
        }
        check(child > 0);
        check_eq(fdpass_send(p.a, "x", 1, &ends[1], 1), 0);
        check_eq(write(ends[1], "g", 1), 1);
        check_eq(waitpid(child, &status, 0), child);
        check_eq(status, 0);
        close(ends[1]);
        check_eq(read(ends[0], &got, 1), 1);
        check_eq(got, '!');
        close(ends[0]);
        pair_free(p);
}

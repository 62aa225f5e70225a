/* SPDX-License-Identifier: MIT */
#include "instance.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "log.h"

static int refuse_lock(const char *path, const char *why, int r) {
        log_error("instance: cannot lock /dev/shm%s: %s", path, why);
        return r;
}

static pid_t lock_holder(int fd) {
        char text[32] = {0};
        return pread(fd, text, sizeof(text) - 1, 0) > 0 ? (pid_t)strtol(text, NULL, 10) : 0;
}

int instance_lock(const char *name) {
        char path[128], pid[32];
        struct stat st;
        snprintf(path, sizeof(path), "/lessor.%s.lock", name);
        _cleanup_(fd_closep) int fd = shm_open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0)
                return refuse_lock(
                        path, errno == ELOOP ? "it is a symbolic link: somebody else's, remove it" : strerror(errno),
                        -errno);
        if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid())
                return refuse_lock(path, "it is not a file of ours: remove it, or use another --instance", -EEXIST);
        if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
                if (errno != EWOULDBLOCK)
                        return refuse_lock(path, strerror(errno), -errno);
                log_error(
                        "instance: a broker of instance `%s` runs already, pid %d: stop it, or use another --instance",
                        name, (int)lock_holder(fd));
                return -EBUSY;
        }
        int n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
        if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)n, 0) < 0)
                return refuse_lock(path, errno == ENOSPC ? "/dev/shm is full: make room" : strerror(errno), -errno);
        return fd_steal(&fd);
}

static int refuse_socket(const char *path, const char *why, int r) {
        log_error("socket: cannot listen on %s: %s", path, why);
        return r;
}

static int set_address(struct sockaddr_un *address, const char *path) {
        *address = (struct sockaddr_un){.sun_family = AF_UNIX};
        if (strlen(path) >= sizeof(address->sun_path))
                return -ENAMETOOLONG;
        memcpy(address->sun_path, path, strlen(path) + 1);
        return 0;
}

/* Is somebody listening there? True also when we cannot tell. */
static bool answers(const char *path) {
        struct sockaddr_un address;
        _cleanup_(fd_closep) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || set_address(&address, path) < 0)
                return true;
        return connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 || errno != ECONNREFUSED;
}

/* What stands at the path may be replaced: nothing, or a dead broker's socket. */
static int may_replace(const char *path) {
        struct stat st;
        if (lstat(path, &st) < 0)
                return errno == ENOENT ? 0 : refuse_socket(path, strerror(errno), -errno);
        if (S_ISLNK(st.st_mode))
                return refuse_socket(path, "it is a symbolic link: remove it", -EEXIST);
        if (!S_ISSOCK(st.st_mode))
                return refuse_socket(path, "what is there is no socket: remove it, or use another --socket", -EEXIST);
        if (st.st_uid != geteuid())
                return refuse_socket(
                        path, "the socket there belongs to another user: remove it, or use another --socket", -EEXIST);
        if (answers(path))
                return refuse_socket(path, "another process listens there: stop it, or use another --socket",
                                     -EADDRINUSE);
        return 0;
}

/* The directory of the default path may not exist yet: /run is made anew at each boot. */
static void make_directory(const char *path) {
        char *directory = strdup(path), *slash = directory ? strrchr(directory, '/') : NULL;
        if (slash && slash != directory) {
                *slash = '\0';
                (void)mkdir(directory, 0755); /* whatever goes wrong, bind says it better */
        }
        free(directory);
}

int instance_listen(const struct instance_socket *s) {
        struct sockaddr_un address;
        char temporary[sizeof(address.sun_path) + 16];
        snprintf(temporary, sizeof(temporary), "%s.%d", s->path, (int)getpid());
        if (set_address(&address, temporary) < 0)
                return refuse_socket(s->path, "the path is too long for a Unix socket (at most 96 bytes)",
                                     -ENAMETOOLONG);
        make_directory(s->path);
        int r = may_replace(s->path);
        if (r < 0)
                return r;
        _cleanup_(fd_closep) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return refuse_socket(s->path, strerror(errno), -errno);
        (void)unlink(temporary); /* of a broker that died half-way and had our pid */
        mode_t mask = umask(0177);
        r = bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
        umask(mask);
        if (r < 0)
                return refuse_socket(s->path, strerror(-r), r);
        if ((s->group != (gid_t)-1 && chown(temporary, (uid_t)-1, s->group) < 0) || chmod(temporary, s->mode) < 0 ||
            listen(fd, SOMAXCONN) < 0 || rename(temporary, s->path) < 0) {
                r = -errno;
                (void)unlink(temporary);
                return refuse_socket(s->path, strerror(-r), r);
        }
        return fd_steal(&fd);
}

void instance_unlisten(const char *path, int fd) {
        struct sockaddr_un address;
        /* Somebody may have replaced it by hand; then it is not ours to remove. A socket that refuses is nobody's. */
        fd_close(fd);
        if (set_address(&address, path) == 0 && !answers(path))
                (void)unlink(path);
}

int instance_raise_fds(uint64_t need) {
        struct rlimit limit;
        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return -errno;
        if (limit.rlim_cur >= need)
                return 0;
        if (limit.rlim_max >= need) {
                limit.rlim_cur = need;
                return setrlimit(RLIMIT_NOFILE, &limit) < 0 ? -errno : 0;
        }
        log_error("fds: %" PRIu64
                  " file descriptors may be needed (upstream connections and two for each of max_sessions), but "
                  "RLIMIT_NOFILE allows %" PRIu64
                  ": raise it (LimitNOFILE= in systemd, ulimit -Hn) or lower max_sessions",
                  need, (uint64_t)limit.rlim_max);
        return -EMFILE;
}

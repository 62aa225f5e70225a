/* SPDX-License-Identifier: MIT */
/*
 * The system calls. A path may lead anywhere (a FIFO, a device, a directory, a file that grows): it is opened without
 * blocking, must be a regular file, and no more is read than a configuration may have. What was read is wiped: it may
 * hold passwords.
 */
#include "load.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/cleanup.h>

#include "parse.h"
#include "tree.h"

enum { SECRET_MAX = 4096 };

struct contents {
        char *data; /* wiped and freed by contents_deinit() */
        size_t size, room;
        mode_t mode;
};

static void contents_deinit(struct contents *c) {
        if (c->data)
                explicit_bzero(c->data, c->room);
        free(c->data);
        c->data = NULL;
}

/* Reads up to `room` bytes. 0; -EISDIR; -EINVAL: another thing that is no file; -errno. */
static int contents_read(const char *path, size_t room, struct contents *ret) {
        struct contents c = {.room = room};
        struct stat st;
        ssize_t n = 0;
        _cleanup_(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd < 0 || fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode))
                return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
        c.mode = st.st_mode;
        c.data = malloc(room);
        if (!c.data)
                return -ENOMEM;
        while (c.size < room && (n = read(fd, c.data + c.size, room - c.size)) != 0) {
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0) {
                        int r = -errno;
                        contents_deinit(&c);
                        return r;
                }
                c.size += (size_t)n;
        }
        *ret = c;
        return 0;
}

/* The database may be LDAP or the like: EINTR is tried again, and a large entry given more room. */
static int lookup(bool user, const char *name, uint32_t *ret) {
        for (size_t size = 1024; size <= (size_t)1 << 22; size *= 4) {
                _cleanup_(freep) char *buffer = malloc(size);
                struct passwd pw, *pw_found = NULL;
                struct group gr, *gr_found = NULL;
                int r;
                if (!buffer)
                        return -ENOMEM;
                do {
                        r = user ? getpwnam_r(name, &pw, buffer, size, &pw_found)
                                 : getgrnam_r(name, &gr, buffer, size, &gr_found);
                } while (r == EINTR);
                if (r == ERANGE)
                        continue;
                if (pw_found)
                        *ret = pw_found->pw_uid;
                if (gr_found)
                        *ret = gr_found->gr_gid;
                /* "Not found" is 0 by POSIX; these are what getpwnam(3) has seen besides. */
                return pw_found || gr_found                                                             ? 0
                       : r == 0 || r == ENOENT || r == ESRCH || r == EBADF || r == EPERM || r == ENODEV ? -ENOENT
                                                                                                        : -r;
        }
        return -ENOMEM;
}

static int host_user(const char *name, uint32_t *ret) { return lookup(true, name, ret); }
static int host_group(const char *name, uint32_t *ret) { return lookup(false, name, ret); }

static int secret_check(const struct contents *c, size_t length) {
        if (c->mode & (S_IROTH | S_IWOTH))
                return CONFIG_SECRET_EXPOSED;
        if (length == 0)
                return CONFIG_SECRET_EMPTY;
        if (length > SECRET_MAX)
                return CONFIG_SECRET_UNFIT;
        for (size_t i = 0; i < length; i++)
                if (c->data[i] == '\0' || c->data[i] == '\n' || c->data[i] == '\r')
                        return CONFIG_SECRET_UNFIT;
        return 0;
}

static int host_secret(const char *path, char **ret) {
        struct contents c;
        int r = contents_read(path, SECRET_MAX + 3, &c);
        if (r < 0)
                return r == -EISDIR || r == -EINVAL ? CONFIG_SECRET_NOT_FILE : r;
        size_t length = c.size;
        length -= length > 0 && c.data[length - 1] == '\n';
        length -= length > 0 && length < c.size && c.data[length - 1] == '\r';
        r = secret_check(&c, length);
        char *password = r == 0 ? strndup(c.data, length) : NULL;
        if (r == 0 && !password)
                r = -ENOMEM;
        if (r == 0)
                *ret = password;
        contents_deinit(&c);
        return r;
}

static const struct config_host host = {host_user, host_group, host_secret};

static const char *variable(char *const *environment, const char *name) {
        size_t length = strlen(name);
        for (; environment && *environment; environment++)
                if (strncmp(*environment, name, length) == 0 && (*environment)[length] == '=')
                        return (*environment)[length + 1] ? *environment + length + 1 : NULL;
        return NULL;
}

static uint64_t descriptor_limit(void) {
        struct rlimit limit;
        if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_max == RLIM_INFINITY)
                return 0;
        return limit.rlim_max;
}

static void refuse_file(struct config_report *report, const char *path, int r, const char *named_by) {
        struct config_origin origin = {.source = CONFIG_SOURCE_FILE, .name = path};
        if (r == -EISDIR || r == -EINVAL)
                config_say(report, CONFIG_ERROR, &origin, "found %s: name a file (%s)",
                           r == -EISDIR ? "a directory" : "a device, a pipe or a socket", named_by);
        else
                config_say(report, CONFIG_ERROR, &origin, "it cannot be read: %s (%s)", strerror(-r), named_by);
}

/* 0, also when there is none to read; CONFIG_E_INVALID; -ENOMEM. */
static int find_file(const struct config_options *o, struct config_report *report, const char **ret_path,
                     struct contents *ret) {
        const char *named = variable(o->environment, "LESSOR_CONFIG");
        const char *path = o->file ? o->file : named ? named : CONFIG_FILE_DEFAULT;
        int r = contents_read(path, CONFIG_SIZE_MAX + 1, ret);
        if (r == -ENOENT && path != o->file && path != named) {
                config_say(report, CONFIG_NOTE, NULL,
                           "no " CONFIG_FILE_DEFAULT ": running with the built-in database `main`, db 0 at "
                           "127.0.0.1:6379 unless the environment or the command line says otherwise");
                return 0;
        }
        if (r == -ENOMEM)
                return r;
        if (r < 0) {
                refuse_file(report, path, r, o->file ? "by -c" : named ? "by $LESSOR_CONFIG" : "the default");
                return CONFIG_E_INVALID;
        }
        *ret_path = path;
        return 0;
}

int config_load(const struct config_options *o, struct config_report *report, struct config **ret) {
        _cleanup_(contents_deinit) struct contents c = {0};
        struct config_input input = {
                .instance = o->instance,
                .socket = o->socket,
                .sets = o->sets,
                .n_sets = o->n_sets,
                .environment = o->environment,
                .fd_limit = descriptor_limit(),
                .host = &host,
        };
        int r = find_file(o, report, &input.name, &c);
        if (r != 0)
                return r;
        input.data = c.data;
        input.size = c.size;
        input.exposed = c.mode & S_IROTH;
        return config_parse(&input, report, ret);
}

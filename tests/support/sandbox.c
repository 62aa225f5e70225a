/* SPDX-License-Identifier: MIT */
#include "sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "check.h"

static struct {
        pid_t owner;
        char directory[64];
        char instances[48]; /* the prefix of our instances' names */
        unsigned instance;
} box;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) { return remove(path); }

static void remove_segments(const char *prefix) {
        char name[NAME_MAX + 2];
        DIR *shm = opendir("/dev/shm");
        if (!shm)
                return;
        for (struct dirent *entry; (entry = readdir(shm));) {
                if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
                        continue;
                snprintf(name, sizeof(name), "/%s", entry->d_name);
                shm_unlink(name);
        }
        closedir(shm);
}

/* Keeps standard error open until all is swept: who waits for the test's output waits for that, too. */
_Noreturn static void sweep_after(int pidfd) {
        struct pollfd end = {.fd = pidfd, .events = POLLIN};
        char prefix[64];

        dup2(pidfd, 3);
        end.fd = 3;
        syscall(SYS_close_range, 4U, ~0U, 0U);
        setsid();
        signal(SIGALRM, SIG_IGN);
        while (poll(&end, 1, -1) < 0)
                ;
        nftw(box.directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
        snprintf(prefix, sizeof(prefix), "lessor.%s", box.instances);
        remove_segments(prefix);
        _exit(0);
}

static void make(void) {
        const char *run = getenv("LESSOR_TEST_RUN"), *tmp = getenv("TMPDIR");
        int pidfd;

        box.owner = getpid();
        if (!tmp || strlen(tmp) > sizeof(box.directory) - 20)
                tmp = "/tmp";
        snprintf(box.directory, sizeof(box.directory), "%s/lessortest-XXXXXX", tmp);
        snprintf(box.instances, sizeof(box.instances), "lessortest-%s%s%d-", run ? run : "", run ? "-" : "",
                 (int)box.owner);
        check_msg(mkdtemp(box.directory), "mkdtemp %s: %s", box.directory, strerror(errno));
        chmod(box.directory, 0755);
        pidfd = (int)syscall(SYS_pidfd_open, box.owner, 0);
        check_msg(pidfd >= 0, "pidfd_open: %s", strerror(errno));
        pid_t sweeper = fork();
        check(sweeper >= 0);
        if (sweeper == 0)
                sweep_after(pidfd);
        close(pidfd);
}

const char *sandbox(void) {
        if (box.owner == 0)
                make();
        return box.directory;
}

char *sandbox_path(const char *name) {
        char *path;
        check(asprintf(&path, "%s/%s", sandbox(), name) > 0);
        return path;
}

void sandbox_instance(char *ret, size_t size) {
        sandbox();
        snprintf(ret, size, "%s%u", box.instances, box.instance++);
}

void sandbox_write(const char *path, const char *text) {
        FILE *f = fopen(path, "we");
        check_msg(f && fputs(text, f) >= 0 && fclose(f) == 0, "%s: %s", path, strerror(errno));
}

char *sandbox_read(const char *path, size_t *ret_size) {
        size_t size = 0, room = 4096;
        char *text = malloc(room);
        FILE *f = fopen(path, "re");

        check(text != NULL);
        for (size_t n; f && (n = fread(text + size, 1, room - size - 1, f)) > 0;) {
                size += n;
                if (size == room - 1)
                        check((text = realloc(text, room *= 2)) != NULL);
        }
        if (f)
                fclose(f);
        text[size] = '\0';
        if (ret_size)
                *ret_size = size;
        return text;
}

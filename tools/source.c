/* SPDX-License-Identifier: MIT */
#include "source.h"

#include <dirent.h>

#include <base/clock.h>

#include "cli.h"
#include "format.h"

int source_open(const char *instance, struct lessor_status *ret) {
        int r = lessor_status_open(instance, ret);
        for (int attempt = 0; r == -ENODATA && attempt < 20; attempt++) {
                nanosleep(&(struct timespec){.tv_nsec = (long)(10 * NS_PER_MS)}, NULL);
                r = lessor_status_open(instance, ret);
        }
        return r;
}

int source_follow(struct source *s, const char *instance) {
        int r;
        if (s->open && lessor_status_replaced(&s->status))
                source_deinit(s);
        if (s->open)
                return 0;
        r = source_open(instance, &s->status);
        s->open = r == 0;
        return r;
}

void source_deinit(struct source *s) {
        if (s->open)
                lessor_status_close(&s->status);
        s->open = false;
}

static bool is_segment(const char *instance) {
        struct lessor_status s;
        if (lessor_status_open(instance, &s) < 0)
                return false;
        lessor_status_close(&s);
        return true;
}

/* Where /dev/shm is not what shm_open() uses, we only lose the hint. */
static void others(FILE *out) {
        static const char prefix[] = "lessor.";
        DIR *directory = opendir("/dev/shm");
        const char *lead = " Instances seen on this host: ";
        struct dirent *entry;

        while (directory && (entry = readdir(directory))) {
                char *name = entry->d_name + sizeof(prefix) - 1;
                if (strncmp(entry->d_name, prefix, sizeof(prefix) - 1) != 0 || !*name || !is_segment(name))
                        continue;
                fprintf(out, "%s%s", lead, format_clean(name));
                lead = ", ";
        }
        if (lead[0] == ',')
                fputs(".", out);
        if (directory)
                closedir(directory);
}

static void explain(FILE *out, int error, const char *name) {
        switch (error) {
        case -ENOENT:
                fprintf(out, "no broker of instance `%s` has run here, or it was stopped.\nStart one with `lessord",
                        name);
                if (strcmp(name, LESSOR_INSTANCE_DEFAULT) != 0)
                        fprintf(out, " --instance %s", name);
                fputs("`, or name another one with --instance.", out);
                others(out);
                break;
        case -EACCES:
                fprintf(out, "the status segment /dev/shm/lessor.%s is there, but this user may not read it.", name);
                break;
        case -EINVAL:
                fprintf(out, "`%s` cannot be the name of an instance: at most %u letters, without `/`.", name,
                        LESSOR_NAME_SIZE - 1);
                break;
        case -EPROTO:
                fprintf(out,
                        "the broker of instance `%s` writes another version of the status segment than %u, which this "
                        "lessor " LESSOR_RELEASE " reads.\nUse the `lessor` that was installed with that broker.",
                        name, LESSOR_STATUS_VERSION);
                break;
        case -ENODATA:
                fprintf(out,
                        "/dev/shm/lessor.%s is not a complete status segment: its broker died while it was making it, "
                        "or\nsomething else has made the file. A broker that starts replaces it.",
                        name);
                break;
        default:
                fprintf(out, "cannot read the status segment /dev/shm/lessor.%s: %s.", name, strerror(-error));
        }
}

char *source_explain(int error, const char *instance) {
        char *text = NULL;
        size_t size;
        FILE *out = open_memstream(&text, &size);
        if (!out)
                out_of_memory();
        explain(out, error, lessor_status_instance(instance));
        if (fclose(out) != 0)
                out_of_memory();
        return text;
}

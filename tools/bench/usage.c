/* SPDX-License-Identifier: MIT */
#include "usage.h"

#include <dirent.h>
#include <stdio.h>
#include <time.h>

#include <base/clock.h>

static double thread_switches(pid_t pid, const char *thread) {
        char path[320], line[128];
        unsigned long n;
        double sum = 0;
        FILE *in;

        snprintf(path, sizeof(path), "/proc/%d/task/%s/status", (int)pid, thread);
        in = fopen(path, "re");
        while (in && fgets(line, sizeof(line), in))
                if (sscanf(line, "voluntary_ctxt_switches: %lu", &n) == 1 ||
                    sscanf(line, "nonvoluntary_ctxt_switches: %lu", &n) == 1)
                        sum += (double)n;
        if (in)
                fclose(in);
        return sum;
}

void usage_add(pid_t pid, struct usage *ret) {
        char path[48];
        clockid_t clock; /* in nanoseconds; /proc/PID/stat counts ticks of 10 ms */
        struct dirent *entry;
        DIR *tasks;

        if (pid <= 0 || clock_getcpuclockid(pid, &clock) != 0)
                return;
        ret->cpu_us += (double)clock_ns(clock) / NS_PER_US;
        snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
        tasks = opendir(path);
        while (tasks && (entry = readdir(tasks)))
                if (entry->d_name[0] != '.')
                        ret->switches += thread_switches(pid, entry->d_name);
        if (tasks)
                closedir(tasks);
}

struct usage usage_between(const struct usage *before, const struct usage *after) {
        return (struct usage){after->cpu_us - before->cpu_us, after->switches - before->switches};
}

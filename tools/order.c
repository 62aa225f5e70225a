/* SPDX-License-Identifier: MIT */
/*
 * `lessor reload` and `lessor shutdown`: signals to the broker, and the waiting until the status segment shows what came of
 * it. Whoever may not send them is told so by the kernel.
 */
#include <errno.h>
#include <signal.h>

#include <base/clock.h>

#include "cli.h"
#include "source.h"

#define WAIT_NS (10 * NS_PER_S)

static void pause_a_little(void) { nanosleep(&(struct timespec){.tv_nsec = 10 * (long)NS_PER_MS}, NULL); }

/* The living broker's segment, and the signal sent. 0; an exit code, told. */
static int order(const struct command *self, const char *instance, int signal, struct lessor_status *ret) {
        int r = source_open(instance, ret);
        if (r < 0) {
                char *text = source_explain(r, instance);
                fprintf(stderr, "lessor %s: %s\n", self->name, text);
                free(text);
                return EXIT_ABSENT;
        }
        if (lessor_status_stale(ret)) {
                fprintf(stderr, "lessor %s: the broker is dead or hangs: pid %d has given no sign of life for %llu s\n",
                        self->name, ret->constants.broker_pid,
                        (unsigned long long)(lessor_status_heartbeat_age(ret) / NS_PER_S));
                lessor_status_close(ret);
                return EXIT_ABSENT;
        }
        if (signal && kill(ret->constants.broker_pid, signal) < 0) {
                fprintf(stderr, "lessor %s: cannot signal the broker, pid %d: %s\n", self->name,
                        ret->constants.broker_pid, strerror(errno));
                lessor_status_close(ret);
                return EXIT_TROUBLE;
        }
        return 0;
}

static int wait_for_reload(const struct lessor_status *s, uint64_t well, uint64_t failed) {
        for (uint64_t end = clock_now() + WAIT_NS; clock_now() < end; pause_a_little()) {
                if (lessor_status_word(&s->header->reloads_failed) != failed) {
                        fputs("lessor reload: refused, nothing has changed; the broker's log says why\n", stderr);
                        return EXIT_NO_SUCH;
                }
                if (lessor_status_word(&s->header->reloads) != well) {
                        puts("reloaded");
                        return EXIT_FIGURES;
                }
        }
        fputs("lessor reload: the broker has not answered within 10 s\n", stderr);
        return EXIT_TROUBLE;
}

static int reload(const struct command *self, const char *instance) {
        struct lessor_status s;
        int r = order(self, instance, 0, &s);
        if (r)
                return r;
        uint64_t well = lessor_status_word(&s.header->reloads), failed = lessor_status_word(&s.header->reloads_failed);
        lessor_status_close(&s);
        r = order(self, instance, SIGHUP, &s);
        if (r)
                return r;
        r = wait_for_reload(&s, well, failed);
        lessor_status_close(&s);
        return r;
}

static int shut_down(const struct command *self, const char *instance, bool cut) {
        struct lessor_status s;
        int r = order(self, instance, cut ? SIGQUIT : SIGTERM, &s);
        if (r)
                return r;
        for (uint64_t end = clock_now() + WAIT_NS; clock_now() < end && !lessor_status_replaced(&s);)
                pause_a_little();
        r = lessor_status_replaced(&s) ? EXIT_FIGURES : EXIT_TROUBLE;
        if (r)
                fputs("lessor shutdown: the broker has not ended within 10 s\n", stderr);
        lessor_status_close(&s);
        return r;
}

static int run(const struct command *self, int argc, char **argv) {
        bool reloads = self == &command_reload, cut = false;
        const char *instance = NULL;
        const struct command_flag flags[] = {{"cut", .on = &cut}, {"instance", .value = &instance}, {0}};
        int r = command_flags(self, argc, argv, flags + reloads, NULL);
        if (r != COMMAND_RUN)
                return r;
        return reloads ? reload(self, instance) : shut_down(self, instance, cut);
}

const struct command command_reload = {
        .name = "reload",
        .arguments = "[--instance NAME]",
        .summary = "makes the broker read its configuration again, and says whether it took it over",
        .help = "  --instance NAME   another broker than $LESSOR_INSTANCE, or `default`\n"
                "\n"
                "The configuration is checked whole before anything changes; the broker's log lists what did. Leases "
                "that\n"
                "are held are not disturbed. Exit: 0 reloaded, 1 refused, 2 no living broker, 64 usage, 71 other "
                "trouble.\n",
        .run = run,
};

const struct command command_shutdown = {
        .name = "shutdown",
        .arguments = "[--cut] [--instance NAME]",
        .summary = "stops the broker; leases that are held go on unless --cut ends them",
        .help = "  --cut             end the connections of all leases, too\n"
                "  --instance NAME   another broker than $LESSOR_INSTANCE, or `default`\n"
                "\n"
                "Exit: 0 it has stopped, 2 no living broker, 64 usage, 71 other trouble.\n",
        .run = run,
};

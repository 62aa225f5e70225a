/* SPDX-License-Identifier: MIT */
/* `lessor health`: the verdict, by text and by exit code, for people, probes and scripts. */
#include "cli.h"
#include "json.h"
#include "reading.h"
#include "render.h"
#include "source.h"

#define X(name, number, word, help) word " "
#define TROUBLE_WORDS LESSOR_TROUBLES(X)

static void print(json_t *value) {
        if (!value)
                out_of_memory();
        json_print(stdout, value);
        json_decref(value);
}

static int absent(int error, const char *instance, bool json) {
        char *text;
        if (!json)
                return reading_absent(&command_health, error, instance);
        text = source_explain(error, instance);
        print(json_pack("{s:s, s:b, s:o}", "status", "absent", "overall_healthy", 0, "error", json_text(text)));
        free(text);
        return EXIT_ABSENT;
}

static int health(const char *instance, bool json) {
        struct model m;
        int r = reading_take(instance, &m);

        if (r < 0)
                return absent(r, instance, json);
        if (json)
                print(json_health(&m));
        else
                render_health(stdout, &m);
        r = (int)model_verdict(&m);
        model_deinit(&m);
        return r;
}

static int run(const struct command *self, int argc, char **argv) {
        const char *instance = NULL;
        bool json = false;
        const struct command_flag flags[] = {{"json", .on = &json}, {"instance", .value = &instance}, {0}};
        int r = command_flags(self, argc, argv, flags, NULL);
        return r == COMMAND_RUN ? health(instance, json) : r;
}

const struct command command_health = {
        .name = "health",
        .arguments = "[--json] [--instance NAME]",
        .summary = "is everything well? exit 0 healthy, 1 degraded, 2 failed or no broker",
        .help = "  --json            one object {status, overall_healthy, ..., databases: {NAME: {state, reason,\n"
                "                    trouble, last_error}}}\n"
                "  --instance NAME   another broker than $LESSOR_INSTANCE, or `default`\n"
                "\n"
                "A database is degraded while its circuit breaker probes, while it cannot connect but still has "
                "connections,\n"
                "near exhaustion (requests were refused or timed out in its queue within 10 s, or soon will; or every\n"
                "connection has been held for 5 s), on a demoted server, and when more than 10 % of the operations of "
                "the\n"
                "last 10 s failed. It has failed while its breaker is open, or it cannot connect and has no "
                "connection.\n"
                "What keeps it from connecting is told by one word: " TROUBLE_WORDS ".\n"
                "\n"
                "A database that nobody has used yet counts as healthy. Exit: 0 healthy, 1 a database is degraded,\n"
                "2 one has failed, or the broker is dead, hung (stale) or was never started, 64 usage.\n",
        .run = run,
};

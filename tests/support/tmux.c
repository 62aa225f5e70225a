/* SPDX-License-Identifier: MIT */
#include "tmux.h"

#include <sys/stat.h>

#include "check.h"
#include "process.h"
#include "sandbox.h"

enum { TMUX_WAIT_MS = 20000 };

bool tmux_available(void) {
        return program_run((const char *[]){"sh", "-c", "command -v tmux >/dev/null", NULL}, NULL, TMUX_WAIT_MS) == 0;
}

/* `tmux -S socket` and the arguments. Its status. */
static int tmux(const struct tmux *t, char **ret, const char *const arguments[]) {
        const char *argv[16] = {"tmux", "-S", t->socket};
        unsigned n = 3;
        for (unsigned i = 0; arguments[i]; i++)
                argv[n++] = arguments[i];
        return program_run(argv, ret, TMUX_WAIT_MS);
}

static bool exists(const char *path) {
        struct stat st;
        return stat(path, &st) == 0;
}

/* -D: in the foreground, as our child. The environment of the server is that of what runs in it. */
void tmux_start(struct tmux *t, const char *environment, const char *command) {
        static unsigned started;
        char *said = NULL, text[1024], name[32];
        snprintf(name, sizeof(name), "tmux%u.sock", started++); /* what an earlier one left would look like this one */
        t->socket = sandbox_path(name);
        t->pid = program_start(sandbox_path("tmux.log"),
                               (const char *[]){"env", "-u", "TMUX", "-u", "NO_COLOR", "LC_ALL=C.UTF-8", "tmux", "-S",
                                                t->socket, "-f", "/dev/null", "-D", NULL});
        check_soon(exists(t->socket), TMUX_WAIT_MS);
        snprintf(text, sizeof(text), "exec env %s %s", environment, command);
        int status = tmux(t, &said, (const char *[]){"new-session", "-d", "-x", "80", "-y", "24", text, NULL});
        check_msg(status == 0, "tmux: %s", said);
        free(said);
        check_eq(tmux(t, NULL, (const char *[]){"set-option", "-g", "remain-on-exit", "on", NULL}), 0);
        check_eq(tmux(t, NULL, (const char *[]){"set-option", "-g", "window-size", "manual", NULL}), 0);
}

void tmux_stop(struct tmux *t) {
        tmux(t, NULL, (const char *[]){"kill-server", NULL});
        program_end(t->pid, SIGTERM, TMUX_WAIT_MS);
}

char *tmux_screen(const struct tmux *t, bool colours) {
        char *text;
        tmux(t, &text, (const char *[]){"capture-pane", "-p", colours ? "-e" : NULL, NULL});
        return text;
}

bool tmux_shows(const struct tmux *t, const char *part) {
        char *text = tmux_screen(t, false);
        bool has = strstr(text, part) != NULL;
        free(text);
        return has;
}

bool tmux_ended(const struct tmux *t, int status) {
        char *text, expected[32];
        snprintf(expected, sizeof(expected), "1 %d\n", status);
        /* tmux 3.3a was seen with a zombie that it had not been told of, or had not listened: it listens at the next one. */
        kill(t->pid, SIGCHLD);
        tmux(t, &text, (const char *[]){"list-panes", "-F", "#{pane_dead} #{pane_dead_status}", NULL});
        bool ended = strcmp(text, expected) == 0;
        free(text);
        return ended;
}

void tmux_press(const struct tmux *t, const char *key) {
        check_eq(tmux(t, NULL, (const char *[]){"send-keys", key, NULL}), 0);
}

void tmux_resize(const struct tmux *t, unsigned columns, unsigned rows) {
        char x[12], y[12];
        snprintf(x, sizeof(x), "%u", columns);
        snprintf(y, sizeof(y), "%u", rows);
        check_eq(tmux(t, NULL, (const char *[]){"resize-window", "-x", x, "-y", y, NULL}), 0);
}

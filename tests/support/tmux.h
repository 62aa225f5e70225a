/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * A terminal: a tmux server of the test's own, with one window of 80 by 24, whose screen can be read. It is a child of
 * the test and dies with it, and what runs in it with it.
 */
#include <stdbool.h>
#include <sys/types.h>

struct tmux {
        pid_t pid;
        char *socket;
};

bool tmux_available(void);
/* `environment` is for env(1): "TERM=vt100 NO_COLOR=1"; the locale is C.UTF-8 unless it says otherwise. */
void tmux_start(struct tmux *t, const char *environment, const char *command);
void tmux_stop(struct tmux *t);
char *tmux_screen(const struct tmux *t, bool colours); /* for free(); colours: with escape sequences */
bool tmux_shows(const struct tmux *t, const char *text);
bool tmux_ended(const struct tmux *t, int status);      /* has the command, with this exit status? */
void tmux_press(const struct tmux *t, const char *key); /* a name of tmux send-keys: "q", "Enter", "Down" */
void tmux_resize(const struct tmux *t, unsigned columns, unsigned rows);

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What a command leaves behind on its connection. Pure. The table covers Redis 7.0's commands; what it does not know
 * (modules, newer servers) counts as leaving state that nothing undoes.
 */
#include <stdbool.h>
#include <stddef.h>

enum command_effect {
        COMMAND_HARMLESS, /* nothing: the connection is as before once its reply is read */
        COMMAND_MULTI,    /* opens a transaction */
        COMMAND_WATCH,    /* watches keys until EXEC, DISCARD or UNWATCH */
        COMMAND_UNWATCH,  /* ends the watching */
        COMMAND_EXEC,     /* EXEC, DISCARD: end the transaction, and with it the watching */
        COMMAND_STATE,    /* leaves state that RESET undoes: SELECT, SUBSCRIBE, AUTH, READONLY ... */
        COMMAND_STICKY,   /* leaves state, or may, that RESET may not undo: CLIENT, MONITOR, SCRIPT, unknown ones ... */
};

enum command_effect command_effect(const char *name, size_t len); /* any case */
bool command_known(const char *name, size_t len);                 /* is it in the table? */
/* Is it among `names`, in upper case, each with its NUL, `size` bytes in all? */
bool command_listed(const char *names, size_t size, const char *name, size_t len);

/* Does it, as a rule, keep its connection waiting for others (BLPOP, WAIT ...)? XREAD does only when told to: false. */
bool command_blocks(const char *name, size_t len);

/* Does it go by lane, as far as we know? The broker has the last word. */
bool command_goes_by_lane(const char *name, size_t len);

/* What the commands of one lease have left behind so far. Zero-initialised is clean. */
struct command_trail {
        bool multi, watch, state, sticky;
};

/* The command is sent: counts on its doing what its name says ... */
void command_trail_add(struct command_trail *t, const char *name, size_t len);
/* ... unless it is answered by an error: a DISCARD refused by an ACL ends no transaction. */
void command_trail_error(struct command_trail *t, const char *name, size_t len);
static inline bool command_trail_clean(const struct command_trail *t) {
        return !t->multi && !t->watch && !t->state && !t->sticky;
}
static inline bool command_trail_resettable(const struct command_trail *t) { return !t->sticky; }

/* SPDX-License-Identifier: MIT */
/* Apart from curses.c since term.h makes macros of `lines`, `columns` and other words. */
#include <stdbool.h>

#include <curses.h>
#include <term.h>

#include "terminfo.h"

bool terminfo_places_cursor(void) {
        char *position;
        bool places;
        int error;

        if (setupterm(NULL, 1, &error) != OK)
                return false;
        position = tigetstr("cup");
        places = position && position != (char *)-1;
        del_curterm(cur_term); /* newterm() makes one of its own */
        return places;
}

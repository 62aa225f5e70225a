/* SPDX-License-Identifier: MIT */
#pragma once
#include <stdbool.h>

bool terminfo_places_cursor(void); /* can this terminal put its cursor anywhere, or only write line by line? */

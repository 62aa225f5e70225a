/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * What is to be said about a configuration: errors, warnings and notes, each with the place it is about. Never holds a
 * secret. Bounded: of each severity CONFIG_REPORT_MAX messages are kept, the others are only counted.
 */
#include <stdbool.h>
#include <stdio.h>

#include "config.h"

#define CONFIG_REPORT_MAX 100U

enum config_severity { CONFIG_NOTE, CONFIG_WARNING, CONFIG_ERROR };

struct config_message {
        enum config_severity severity;
        char *where; /* "/etc/lessor/lessor.yaml:12:9", "$LESSOR_REDIS_PORT", "--set main.db" or "" */
        char *text;
};

struct config_report { /* starts zeroed: `struct config_report report = {0};` */
        struct config_message *messages;
        unsigned n;
        unsigned errors, warnings, notes; /* those not kept included */
        bool out_of_memory;               /* a message is missing */
};

void config_report_deinit(struct config_report *);
const char *config_severity_text(enum config_severity); /* "note", "warning", "error" */

/* One line a message: "lessor.yaml:3:9: error: unknown key `prot`: did you mean `port`?" */
void config_report_write(const struct config_report *, FILE *);

/* Says it once: the same text about the same place is not repeated, nor is the same note about any other. */
void config_say(struct config_report *, enum config_severity, const struct config_origin *where, const char *fmt, ...)
        __attribute__((format(printf, 4, 5)));
char *config_origin_text(const struct config_origin *, char *buffer, size_t size); /* returns `buffer` */

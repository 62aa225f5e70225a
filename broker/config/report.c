/* SPDX-License-Identifier: MIT */
/* Messages are kept in the order in which they were said, which for a file is the order of its lines, mostly. */
#include "report.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

const char *config_severity_text(enum config_severity severity) {
        switch (severity) {
        case CONFIG_NOTE:
                return "note";
        case CONFIG_WARNING:
                return "warning";
        case CONFIG_ERROR:
                return "error";
        }
        return "error";
}

char *config_origin_text(const struct config_origin *o, char *buffer, size_t size) {
        switch (o->source) {
        case CONFIG_SOURCE_DEFAULT:
                snprintf(buffer, size, "default");
                break;
        case CONFIG_SOURCE_FILE:
                if (o->line)
                        snprintf(buffer, size, "%s:%u:%u", o->name, o->line, o->column);
                else
                        snprintf(buffer, size, "%s", o->name);
                break;
        case CONFIG_SOURCE_ENVIRONMENT:
                snprintf(buffer, size, "$%s", o->name);
                break;
        case CONFIG_SOURCE_CREDENTIAL:
        case CONFIG_SOURCE_COMMAND_LINE:
                snprintf(buffer, size, "%s", o->name);
                break;
        }
        return buffer;
}

static unsigned *counter(struct config_report *r, enum config_severity severity) {
        switch (severity) {
        case CONFIG_NOTE:
                return &r->notes;
        case CONFIG_WARNING:
                return &r->warnings;
        case CONFIG_ERROR:
                return &r->errors;
        }
        return &r->errors;
}

/* A note is about a kind of thing: it is enough to show the first of them. */
static bool said(const struct config_report *r, enum config_severity severity, const char *where, const char *text) {
        for (unsigned i = 0; i < r->n; i++)
                if (strcmp(r->messages[i].text, text) == 0 &&
                    (severity == CONFIG_NOTE || strcmp(r->messages[i].where, where) == 0))
                        return true;
        return false;
}

/* Takes both strings. The array grows by doubling at powers of two. */
static void append(struct config_report *r, enum config_severity severity, char *where, char *text) {
        struct config_message *messages = r->messages;
        if (where && text && (r->n & (r->n - 1)) == 0)
                messages = realloc(r->messages, (r->n ? 2 * (size_t)r->n : 1) * sizeof(*messages));
        if (!where || !text || !messages) {
                r->out_of_memory = true;
                free(where);
                free(text);
                return;
        }
        r->messages = messages;
        r->messages[r->n++] = (struct config_message){severity, where, text};
}

void config_say(struct config_report *r, enum config_severity severity, const struct config_origin *origin,
                const char *fmt, ...) {
        char where[4352] = "", text[1024];
        va_list args;
        va_start(args, fmt);
        vsnprintf(text, sizeof(text), fmt, args);
        va_end(args);
        if (origin && origin->source != CONFIG_SOURCE_DEFAULT)
                config_origin_text(origin, where, sizeof(where));
        if (said(r, severity, where, text))
                return;
        if ((*counter(r, severity))++ < CONFIG_REPORT_MAX)
                append(r, severity, strdup(where), strdup(text));
}

void config_report_write(const struct config_report *r, FILE *f) {
        for (unsigned i = 0; i < r->n; i++) {
                const struct config_message *m = &r->messages[i];
                fprintf(f, "%s%s%s: %s\n", m->where, *m->where ? ": " : "", config_severity_text(m->severity), m->text);
        }
        if (r->errors + r->warnings + r->notes > r->n || r->errors >= CONFIG_REPORT_MAX)
                fprintf(f, "... and more: mend these first\n");
}

void config_report_deinit(struct config_report *r) {
        for (unsigned i = 0; i < r->n; i++) {
                free(r->messages[i].where);
                free(r->messages[i].text);
        }
        free(r->messages);
        *r = (struct config_report){0};
}

/* SPDX-License-Identifier: MIT */
/*
 * The bytes of a file, before anything reads them as YAML: libyaml would say "control characters are not allowed" of an
 * executable, and guess UTF-16 from a byte order mark. And texts from outside, made fit for a message.
 */
#include <stdio.h>
#include <string.h>

#include "text.h"

/* The length of the UTF-8 sequence at p, 0: not valid (overlong forms, surrogates and beyond U+10FFFF included). */
static size_t utf8_length(const unsigned char *p, size_t left) {
        static const struct {
                unsigned char low, high, second_low, second_high, length;
        } forms[] = {
                {0x00, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
                {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
                {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
        };
        for (size_t f = 0; f < sizeof(forms) / sizeof(forms[0]); f++) {
                size_t length = forms[f].length;
                if (*p < forms[f].low || *p > forms[f].high)
                        continue;
                if (length > left || (length > 1 && (p[1] < forms[f].second_low || p[1] > forms[f].second_high)))
                        return 0;
                for (size_t i = 2; i < length; i++)
                        if ((p[i] & 0xc0) != 0x80)
                                return 0;
                return length;
        }
        return 0;
}

bool config_utf8_valid(const char *text, size_t length) {
        const unsigned char *p = (const unsigned char *)text;
        for (size_t i = 0, step; i < length; i += step) {
                step = utf8_length(p + i, length - i);
                if (step == 0)
                        return false;
        }
        return true;
}

static bool control(unsigned char c) { return (c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7f; }

/* libyaml compares each %TAG with all before it: a mebibyte of them takes it 18 s. No file of ours has a use for one. */
static bool tag_directive(const char *data, size_t size, size_t i) {
        return (i == 0 || data[i - 1] == '\n' || data[i - 1] == '\r') && size - i >= 4 &&
               memcmp(data + i, "%TAG", 4) == 0;
}

static int bytes_check(const char *data, size_t size, struct config_origin *at, struct config_report *report) {
        const unsigned char *p = (const unsigned char *)data;
        for (size_t i = 0, step; i < size; i += step) {
                step = utf8_length(p + i, size - i);
                if (step == 0) {
                        config_say(report, CONFIG_ERROR, at,
                                   "found the byte 0x%02x, which is not UTF-8: save the file as UTF-8", p[i]);
                        return CONFIG_E_INVALID;
                }
                if (control(p[i])) {
                        config_say(report, CONFIG_ERROR, at,
                                   "found the control character 0x%02x: this is not a text file; write YAML", p[i]);
                        return CONFIG_E_INVALID;
                }
                if (tag_directive(data, size, i)) {
                        config_say(report, CONFIG_ERROR, at,
                                   "found a %%TAG directive, which means nothing here: remove it");
                        return CONFIG_E_INVALID;
                }
                at->column++;
                if (p[i] == '\n') {
                        at->line++;
                        at->column = 1;
                }
        }
        return 0;
}

int config_text_check(const char *data, size_t size, const struct config_origin *origin, struct config_report *report) {
        struct config_origin at = *origin;
        if (at.source == CONFIG_SOURCE_FILE)
                at.line = at.column = 1;
        if (size > CONFIG_SIZE_MAX) {
                config_say(report, CONFIG_ERROR, &at,
                           "the file is larger than %zu bytes: this is not a configuration of lessord",
                           CONFIG_SIZE_MAX);
                return CONFIG_E_INVALID;
        }
        if (size >= 2 && (memcmp(data, "\xff\xfe", 2) == 0 || memcmp(data, "\xfe\xff", 2) == 0)) {
                config_say(report, CONFIG_ERROR, &at, "found UTF-16: save the file as UTF-8");
                return CONFIG_E_INVALID;
        }
        return bytes_check(data, size, &at, report);
}

static size_t put_escaped(char *to, unsigned char c) {
        static const char digits[] = "0123456789abcdef";
        if (c == '\n' || c == '\t' || c == '\r') {
                to[0] = '\\';
                to[1] = c == '\n' ? 'n' : c == '\t' ? 't' : 'r';
                return 2;
        }
        memcpy(to, "\\x", 2);
        to[2] = digits[c >> 4];
        to[3] = digits[c & 15];
        return 4;
}

char *config_quote(const char *text, size_t length, char *buffer, size_t size) {
        const unsigned char *p = (const unsigned char *)text;
        size_t out = 0, signs = 0, step;
        if (out + 1 < size)
                buffer[out++] = '`';
        for (size_t i = 0; i < length && out + 12 < size; i += step) {
                if (++signs > 40) {
                        memcpy(buffer + out, "...", 3);
                        out += 3;
                        break;
                }
                step = utf8_length(p + i, length - i);
                if (step == 0 || control(p[i]) || p[i] == '\n' || p[i] == '\t' || p[i] == '\r') {
                        out += put_escaped(buffer + out, p[i]);
                        step = 1;
                } else {
                        memcpy(buffer + out, p + i, step);
                        out += step;
                }
        }
        if (out + 1 < size)
                buffer[out++] = '`';
        buffer[out] = '\0';
        return buffer;
}

/* SPDX-License-Identifier: MIT */
/*
 * Numbers, durations and sizes, exactly: no floating point, so that what is printed reads back as the same value. A
 * fraction finer than a nanosecond (or a byte) is cut off.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <base/cleanup.h>

#include "value.h"

struct unit {
        const char *name;
        uint64_t factor;
};

/* The first of each factor is the one that is written; from large to small. */
static const struct unit durations[] = {
        {"d", CONFIG_S(86400)}, {"h", CONFIG_S(3600)}, {"m", CONFIG_S(60)}, {"min", CONFIG_S(60)},
        {"s", CONFIG_S(1)},     {"ms", CONFIG_MS(1)},  {"us", 1000},        {"ns", 1},
};
static const struct unit sizes[] = {
        {"TiB", UINT64_C(1) << 40},
        {"GiB", UINT64_C(1) << 30},
        {"MiB", CONFIG_MIB(1)},
        {"KiB", CONFIG_KIB(1)},
        {"B", 1},
        {"T", UINT64_C(1) << 40},
        {"G", UINT64_C(1) << 30},
        {"M", CONFIG_MIB(1)},
        {"K", CONFIG_KIB(1)},
        {"TB", UINT64_C(1000000000000)},
        {"GB", 1000000000},
        {"MB", 1000000},
        {"KB", 1000},
};

static bool digit(char c) { return c >= '0' && c <= '9'; }

/* Digits to a number; stops at what is none. false: beyond 64 bits. */
static bool digits(const char **p, uint64_t *ret) {
        *ret = 0;
        for (; digit(**p); (*p)++)
                if (__builtin_mul_overflow(*ret, 10, ret) || __builtin_add_overflow(*ret, (uint64_t)(**p - '0'), ret))
                        return false;
        return true;
}

int config_parse_count(const char *text, uint64_t *ret) {
        const char *p = text;
        uint64_t number;
        /* In YAML 1.1 010 is eight: nobody who writes it means that, so nobody is guessed at. */
        if (!digit(*p) || (p[0] == '0' && digit(p[1])))
                return -EINVAL;
        bool fits = digits(&p, &number);
        p += strspn(p, "0123456789");
        if (*p)
                return -EINVAL;
        if (!fits)
                return -ERANGE;
        *ret = number;
        return 0;
}

static const struct unit *find_unit(const struct unit *units, size_t n, const char *name) {
        for (size_t i = 0; i < n; i++)
                if (strcasecmp(units[i].name, name) == 0)
                        return &units[i];
        return NULL;
}

/* The part of `factor` that the digits after the point stand for; those beyond the twelfth would not be seen. */
static uint64_t fraction_of(const char *p, uint64_t factor) {
        uint64_t numerator = 0, denominator = 1;
        for (unsigned i = 0; i < 12 && digit(*p); i++, p++) {
                numerator = numerator * 10 + (uint64_t)(*p - '0');
                denominator *= 10;
        }
        return (uint64_t)((unsigned __int128)numerator * factor / denominator);
}

/* whole[.fraction][ ][unit], `factor` when no unit is given. */
static int parse_scaled(const char *text, const struct unit *units, size_t n, uint64_t factor, uint64_t *ret) {
        const char *p = text, *fraction = "";
        uint64_t whole;
        if (!digit(*p))
                return -EINVAL;
        bool fits = digits(&p, &whole);
        p += strspn(p, "0123456789");
        if (*p == '.') {
                fraction = ++p;
                if (!digit(*p))
                        return -EINVAL;
                p += strspn(p, "0123456789");
        }
        p += p[0] == ' ' && p[1];
        if (*p) {
                const struct unit *unit = find_unit(units, n, p);
                if (!unit)
                        return -EINVAL;
                factor = unit->factor;
        }
        if (!fits || __builtin_mul_overflow(whole, factor, &whole))
                return -ERANGE;
        if (__builtin_add_overflow(whole, fraction_of(fraction, factor), &whole))
                return -ERANGE;
        *ret = whole;
        return 0;
}

int config_parse_duration(const char *text, uint64_t *ret) {
        return parse_scaled(text, durations, ARRAY_SIZE(durations), CONFIG_S(1), ret);
}

int config_parse_size(const char *text, uint64_t *ret) { return parse_scaled(text, sizes, ARRAY_SIZE(sizes), 1, ret); }

int config_parse_mode(const char *text, uint64_t *ret) {
        const char *p = text;
        uint64_t mode = 0;
        /* Without its 0, 660 would be a decimal number to YAML and an octal one to everybody else. */
        if (*p++ != '0')
                return -EINVAL;
        p += *p == 'o';
        if (!*p)
                return -EINVAL;
        for (; *p >= '0' && *p <= '7'; p++) {
                if (mode > UINT32_MAX)
                        return -ERANGE;
                mode = mode * 8 + (uint64_t)(*p - '0');
        }
        if (*p)
                return -EINVAL;
        *ret = mode;
        return 0;
}

int config_parse_bool(const char *text, uint64_t *ret) {
        static const char *const words[][3] = {{"no", "false", "off"}, {"yes", "true", "on"}};
        for (unsigned truth = 0; truth < 2; truth++)
                for (unsigned i = 0; i < 3; i++)
                        if (strcasecmp(text, words[truth][i]) == 0) {
                                *ret = truth;
                                return 0;
                        }
        return -EINVAL;
}

/* The largest of the first `n` units that leaves no rest. */
static char *scaled_text(const struct unit *units, size_t n, uint64_t number, const char *zero, char *buffer,
                         size_t size) {
        snprintf(buffer, size, "%s", zero);
        for (size_t i = 0; i < n && number; i++)
                if (number % units[i].factor == 0) {
                        snprintf(buffer, size, "%llu%s", (unsigned long long)(number / units[i].factor), units[i].name);
                        break;
                }
        return buffer;
}

/* Minutes and hours only where they are whole; 90 s stay 90s, and the defaults 60 s and 300 s read best as they are. */
char *config_duration_text(uint64_t ns, char *buffer, size_t size) {
        bool seconds = ns % CONFIG_S(1) == 0 && ns < CONFIG_S(3600);
        const struct unit *units = seconds ? &durations[4] : durations;
        return scaled_text(units, ARRAY_SIZE(durations) - (size_t)(units - durations), ns, "0s", buffer, size);
}

char *config_size_text(uint64_t bytes, char *buffer, size_t size) {
        return scaled_text(sizes, 5, bytes, "0", buffer, size);
}

char *config_number_text(const struct config_key *key, uint64_t number, char *buffer, size_t size) {
        const char *word = config_word(key->type, (unsigned)number);
        if (word)
                snprintf(buffer, size, "%s", word);
        else if (key->type == CONFIG_TYPE_DURATION)
                config_duration_text(number, buffer, size);
        else if (key->type == CONFIG_TYPE_SIZE)
                config_size_text(number, buffer, size);
        else if (key->type == CONFIG_TYPE_MODE)
                snprintf(buffer, size, "0%llo", (unsigned long long)number);
        else
                snprintf(buffer, size, "%llu", (unsigned long long)number);
        return buffer;
}

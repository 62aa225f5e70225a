/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a configuration. Up to the first NUL: the file. What follows, each up to the next NUL: a variable of the
 * environment, or, if it begins with `-`, the argument of a --set. What loads must print, load again and be the same.
 *
 *      fuzz_config NEW_CORPUS tests/unit/config/valid tests/unit/config/invalid
 */
#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/diff.h"
#include "config/parse.h"
#include "config/print.h"

enum { EXTRA_MAX = 64 };

static int fake_id(const char *name, uint32_t *ret) {
        *ret = 0;
        for (; *name; name++)
                *ret = *ret * 31 + (unsigned char)*name;
        return *ret % 7 == 0 ? -ENOENT : 0;
}

static int fake_secret(const char *path, char **ret) {
        size_t length = strlen(path);
        if (length % 5 == 0)
                return -ENOENT;
        if (length % 7 == 0)
                return CONFIG_SECRET_EXPOSED;
        *ret = strdup("secret");
        return *ret ? 0 : -ENOMEM;
}

static const struct config_host host = {fake_id, fake_id, fake_secret};

static void check_report(const struct config_report *report, int r) {
        assert(r == 0 || r == CONFIG_E_INVALID);
        assert((r == 0) == (report->errors == 0));
        assert(report->n <= 3 * CONFIG_REPORT_MAX);
        for (unsigned i = 0; i < report->n; i++)
                assert(*report->messages[i].text);
}

/* A password is not printed, so neither is it read again; what depends on one cannot be compared. */
static bool has_password(const struct config *c) {
        for (unsigned i = 0; i < c->n_databases; i++)
                if (c->databases[i].password || c->databases[i].password_file)
                        return true;
        return false;
}

static void check_model(const struct config *c) {
        assert(c->n_databases >= 1 && c->n_databases <= LESSOR_DATABASES_MAX);
        for (unsigned i = 0; i < c->n_databases; i++) {
                const struct config_database *db = &c->databases[i];
                assert(*db->name && (*db->host || db->unix_socket) && db->max_connections >= 1);
                assert(db->min_idle <= db->max_connections && db->retry_base_ns <= db->retry_max_ns);
                assert(db->allow.everyone || db->allow.uids.n + db->allow.gids.n > 0);
        }
}

static void check_round_trip(const struct config *c) {
        struct config_report report = {0};
        struct config *again = NULL;
        struct config_diff diff;
        char *text;
        size_t size;
        FILE *f = open_memstream(&text, &size);
        config_write(c, f);
        fclose(f);
        if (!has_password(c)) {
                struct config_input input = {.name = "printed", .data = text, .size = size, .host = &host};
                assert(config_parse(&input, &report, &again) == 0);
                assert(config_diff(c, again, &diff) == 0 && diff.n == 0);
                config_diff_deinit(&diff);
                config_free(again);
        }
        config_report_deinit(&report);
        free(text);
}

/* Cuts the texts after the file's apart. */
static void split(char *text, const char *end, struct config_input *input, char **environment, const char **sets) {
        unsigned n_environment = 0;
        for (; text < end; text += strlen(text) + 1) {
                if (*text == '-' && input->n_sets < EXTRA_MAX)
                        sets[input->n_sets++] = text + 1;
                else if (n_environment < EXTRA_MAX)
                        environment[n_environment++] = text;
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        char *environment[EXTRA_MAX + 1] = {NULL}, *copy = malloc(size + 1);
        const char *sets[EXTRA_MAX];
        struct config_report report = {0};
        struct config *c = NULL;
        if (!copy)
                return 0;
        memcpy(copy, data, size);
        copy[size] = '\0';
        size_t length = strlen(copy);
        struct config_input input = {.name = "fuzz.yaml",
                                     .data = copy,
                                     .size = length,
                                     .exposed = size & 1,
                                     .environment = environment,
                                     .sets = sets,
                                     .fd_limit = 20000,
                                     .host = &host};
        if (length < size)
                split(copy + length + 1, copy + size, &input, environment, sets);
        int r = config_parse(&input, &report, &c);
        check_report(&report, r);
        if (r == 0) {
                check_model(c);
                check_round_trip(c);
                config_free(c);
        }
        config_report_deinit(&report);
        free(copy);
        return 0;
}

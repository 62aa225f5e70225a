/* SPDX-License-Identifier: MIT */
#include "proof.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

static const char *const step_names[] = {"RESET", "ECHO", "RESET, SELECT or CLIENT"};

static void say(struct proof *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct proof *p, const char *fmt, ...) {
        va_list args;
        va_start(args, fmt);
        p->request_size +=
                (size_t)vsnprintf(p->request + p->request_size, sizeof(p->request) - p->request_size, fmt, args);
        va_end(args);
}

static enum proof_result begin(struct proof *p, enum proof_step step) {
        char db[16];
        p->step = step;
        p->request_size = p->received = 0;
        switch (step) {
        case PROOF_RESET:
                say(p, "*1\r\n$5\r\nRESET\r\n");
                break;
        case PROOF_ECHO:
                say(p, "*2\r\n$4\r\nECHO\r\n$%zu\r\n%s\r\n", strlen(p->nonce), p->nonce);
                break;
        case PROOF_RESTORE:
                say(p, "*1\r\n$5\r\nRESET\r\n");
                snprintf(db, sizeof(db), "%u", p->target->db);
                if (p->target->db != 0)
                        say(p, "*2\r\n$6\r\nSELECT\r\n$%zu\r\n%s\r\n", strlen(db), db);
                say(p, "*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$%zu\r\n%s\r\n", strlen(p->target->client_name),
                    p->target->client_name);
                say(p, "*2\r\n$6\r\nCLIENT\r\n$4\r\nINFO\r\n");
                break;
        }
        return PROOF_SAY;
}

void proof_start(struct proof *p, const struct upstream_target *target, uint64_t client_id,
                 const uint8_t nonce[PROOF_NONCE_SIZE]) {
        *p = (struct proof){.target = target, .client_id = client_id};
        for (unsigned i = 0; i < PROOF_NONCE_SIZE; i++)
                snprintf(p->nonce + 2 * i, 3, "%02x", nonce[i]);
        begin(p, PROOF_RESET);
}

/* Of an error its code; nothing else of what came: it may be somebody's data. */
static enum proof_result fail(struct proof *p) {
        size_t code = 0;
        while (p->reply[0] == '-' && code < p->received && code < 20 && p->reply[code] > ' ' && p->reply[code] < 127)
                code++;
        if (code)
                snprintf(p->text, sizeof(p->text), "%s was answered by %.*s", step_names[p->step], (int)code, p->reply);
        else
                snprintf(p->text, sizeof(p->text), "%s was answered by something else", step_names[p->step]);
        return PROOF_FAILED;
}

static enum proof_result fail_field(struct proof *p, const char *name) {
        snprintf(p->text, sizeof(p->text), "after RESET, `%s` of CLIENT INFO is not as on a fresh connection", name);
        return PROOF_FAILED;
}

/* The reply is `expected`, whole and alone. */
static enum proof_result expect(struct proof *p, const char *expected, enum proof_step next) {
        size_t size = strlen(expected);
        if (p->received > size || memcmp(p->reply, expected, p->received) != 0)
                return fail(p);
        return p->received < size ? PROOF_WAIT : begin(p, next);
}

struct field {
        const char *name;
        bool needed; /* Redis 6.2, the first that knows RESET, has it */
        char value[2 * LESSOR_NAME_SIZE + 16];
        bool seen;
};

static bool field_is(const struct field *field, const char *value, size_t size) {
        /* U: it came by a Unix socket. */
        if (strcmp(field->name, "flags") == 0 && size == 1 && *value == 'U')
                return true;
        return strlen(field->value) == size && memcmp(field->value, value, size) == 0;
}

/* NULL; the name of the field that is not as it must be. */
static const char *find_difference(struct field *fields, size_t n, const char *text, size_t size) {
        const char *end = text + size;
        while (text < end) {
                const char *space = memchr(text, ' ', (size_t)(end - text));
                const char *stop = space ? space : end, *equals = memchr(text, '=', (size_t)(stop - text));
                for (size_t i = 0; equals && i < n; i++) {
                        if (strlen(fields[i].name) != (size_t)(equals - text) ||
                            memcmp(fields[i].name, text, (size_t)(equals - text)) != 0)
                                continue;
                        if (!field_is(&fields[i], equals + 1, (size_t)(stop - equals - 1)))
                                return fields[i].name;
                        fields[i].seen = true;
                }
                text = stop + 1;
        }
        for (size_t i = 0; i < n; i++)
                if (fields[i].needed && !fields[i].seen)
                        return fields[i].name;
        return NULL;
}

static enum proof_result check_info(struct proof *p, const char *text, size_t size) {
        struct field fields[] = {
                {"id", true, "", false},      {"name", true, "", false},        {"db", true, "", false},
                {"flags", true, "N", false},  {"sub", true, "0", false},        {"psub", true, "0", false},
                {"ssub", false, "0", false},  {"multi", true, "-1", false},     {"multi-mem", false, "0", false},
                {"watch", false, "0", false}, {"user", true, "default", false}, {"redir", true, "-1", false},
                {"resp", false, "2", false},  {"lib-name", false, "", false},   {"lib-ver", false, "", false},
        };
        size_t skip = p->client_id ? 0 : 1;
        snprintf(fields[0].value, sizeof(fields[0].value), "%" PRIu64, p->client_id);
        snprintf(fields[1].value, sizeof(fields[1].value), "%s", p->target->client_name);
        snprintf(fields[2].value, sizeof(fields[2].value), "%u", p->target->db);
        const char *different = find_difference(fields + skip, ARRAY_SIZE(fields) - skip, text, size);
        return different ? fail_field(p, different) : PROOF_CLEAN;
}

/* The length of a bulk string, whose digits begin at `at`; *ret_text is where its bytes begin. */
static enum proof_result bulk(struct proof *p, size_t at, size_t *ret_text, size_t *ret_size) {
        size_t size = 0, digits = at;
        while (digits < p->received && p->reply[digits] >= '0' && p->reply[digits] <= '9' && size < sizeof(p->reply))
                size = size * 10 + (size_t)(p->reply[digits++] - '0');
        if (size >= sizeof(p->reply) || (digits < p->received && (digits == at || p->reply[digits] != '\r')))
                return fail(p);
        *ret_text = digits + 2;
        *ret_size = size;
        return digits + 2 <= p->received ? PROOF_SAY : PROOF_WAIT;
}

static enum proof_result take_restored(struct proof *p) {
        const char *before = p->target->db ? "+RESET\r\n+OK\r\n+OK\r\n$" : "+RESET\r\n+OK\r\n$";
        size_t n = strlen(before), text = 0, size = 0;
        if (memcmp(p->reply, before, p->received < n ? p->received : n) != 0)
                return fail(p);
        if (p->received <= n)
                return PROOF_WAIT;
        enum proof_result r = bulk(p, n, &text, &size);
        if (r != PROOF_SAY)
                return r;
        if (p->received < text + size + 2)
                return PROOF_WAIT;
        if (p->received > text + size + 2 || memcmp(p->reply + text - 2, "\r\n", 2) != 0 ||
            memcmp(p->reply + text + size, "\r\n", 2) != 0)
                return fail(p);
        while (size > 0 && (p->reply[text + size - 1] == '\n' || p->reply[text + size - 1] == '\r'))
                size--;
        return check_info(p, p->reply + text, size);
}

enum proof_result proof_take(struct proof *p, const char *data, size_t size) {
        char echo[sizeof(p->nonce) + 32];
        if (size > sizeof(p->reply) - p->received)
                return fail(p);
        memcpy(p->reply + p->received, data, size);
        p->received += size;
        switch (p->step) {
        case PROOF_RESET:
                return expect(p, "+RESET\r\n", PROOF_ECHO);
        case PROOF_ECHO:
                snprintf(echo, sizeof(echo), "$%zu\r\n%s\r\n", strlen(p->nonce), p->nonce);
                return expect(p, echo, PROOF_RESTORE);
        case PROOF_RESTORE:
                return take_restored(p);
        }
        return PROOF_FAILED;
}

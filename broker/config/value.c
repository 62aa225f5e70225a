/* SPDX-License-Identifier: MIT */
/* One value, checked: each type has one reader, and each refusal says what was found and what to write instead. */
#include "value.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void config_value_deinit(struct config_value *v) {
        if (v->text)
                explicit_bzero(v->text, strlen(v->text));
        free(v->text);
        config_allow_deinit(&v->allow);
        *v = (struct config_value){0};
}

bool config_name_valid(const char *name, size_t length) {
        if (length == 0 || length >= LESSOR_NAME_SIZE)
                return false;
        for (size_t i = 0; i < length; i++) {
                char c = name[i];
                if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
                      c == '.' || c == '-'))
                        return false;
        }
        return true;
}

static char *expected_range(const struct config_key *key, const char *what, const char *more, char *buffer,
                            size_t size) {
        char min[32], max[32];
        snprintf(buffer, size, "%s from %s to %s%s", what, config_number_text(key, key->min, min, sizeof(min)),
                 config_number_text(key, key->max, max, sizeof(max)), more);
        return buffer;
}

static char *expected_word(const struct config_key *key, char *buffer, size_t size) {
        size_t at = 0;
        for (unsigned i = 0; config_word(key->type, i) && at < size; i++) {
                const char *before = i == 0 ? "" : config_word(key->type, i + 1) ? ", " : " or ";
                at += (size_t)snprintf(buffer + at, size - at, "%s%s", before, config_word(key->type, i));
        }
        return buffer;
}

char *config_expected(const struct config_key *key, char *buffer, size_t size) {
        const char *text = "";
        switch (key->type) {
        case CONFIG_TYPE_COUNT:
                return expected_range(key, "a whole number", "", buffer, size);
        case CONFIG_TYPE_DURATION:
                return expected_range(key, "a duration", ", such as 5s, 250ms or 1.5 (seconds)", buffer, size);
        case CONFIG_TYPE_SIZE:
                return expected_range(key, "a size", ", such as 64KiB or 65536 (bytes)", buffer, size);
        case CONFIG_TYPE_MODE:
                return expected_range(key, "an octal file mode", ", such as 0660", buffer, size);
        case CONFIG_TYPE_BOOL:
                text = "yes or no";
                break;
        case CONFIG_TYPE_HANDOVER:
        case CONFIG_TYPE_ROUTE:
        case CONFIG_TYPE_LOG_LEVEL:
                return expected_word(key, buffer, size);
        case CONFIG_TYPE_NAME:
                text = "a name of 1 to 63 letters, digits, `_`, `.` and `-`";
                break;
        case CONFIG_TYPE_HOST:
                text = "a host name or address alone, such as redis.example or 127.0.0.1";
                break;
        case CONFIG_TYPE_PATH:
                snprintf(buffer, size, "a path that begins with `/`, of at most %llu bytes",
                         (unsigned long long)key->max);
                return buffer;
        case CONFIG_TYPE_TEXT:
        case CONFIG_TYPE_SECRET:
                snprintf(buffer, size, "a text of at most %llu bytes, without control characters",
                         (unsigned long long)key->max);
                return buffer;
        case CONFIG_TYPE_GROUP:
                text = "the name or number of a group of this host";
                break;
        case CONFIG_TYPE_ALLOW:
                text = "everyone, or a map such as {users: [www-data], groups: [redis]}";
                break;
        }
        snprintf(buffer, size, "%s", text);
        return buffer;
}

static bool text_type(enum config_type type) {
        switch (type) {
        case CONFIG_TYPE_TEXT:
        case CONFIG_TYPE_PATH:
        case CONFIG_TYPE_SECRET:
        case CONFIG_TYPE_GROUP:
                return true;
        case CONFIG_TYPE_COUNT:
        case CONFIG_TYPE_BOOL:
        case CONFIG_TYPE_DURATION:
        case CONFIG_TYPE_SIZE:
        case CONFIG_TYPE_MODE:
        case CONFIG_TYPE_NAME:
        case CONFIG_TYPE_HOST:
        case CONFIG_TYPE_HANDOVER:
        case CONFIG_TYPE_ROUTE:
        case CONFIG_TYPE_LOG_LEVEL:
        case CONFIG_TYPE_ALLOW:
                return false;
        }
        return false;
}

/*
 * What stands at a secret's place is not repeated; nor what stands in the place of a password file's path, which may well
 * be the password, nor what looks like a URL with a password in it.
 */
static const char *found(const struct config_key *key, const struct config_node *node, char *buffer, size_t size) {
        if (node->kind != CONFIG_NODE_SCALAR || config_node_null(node) || node->length == 0)
                return config_found(node, buffer, size);
        if (key->type == CONFIG_TYPE_SECRET || key->id == CONFIG_KEY_password_file)
                return "a text that does not fit";
        if (strchr(node->text, '@'))
                return "a text with `@` in it";
        return config_found(node, buffer, size);
}

static int refuse(const struct config_reader *reader, const struct config_key *key, const struct config_node *node,
                  const struct config_origin *at) {
        char found_buffer[CONFIG_QUOTE_SIZE], expected[CONFIG_QUOTE_SIZE];
        config_say(reader->report, CONFIG_ERROR, at, "`%s`: found %s: write %s", key->name,
                   found(key, node, found_buffer, sizeof(found_buffer)),
                   config_expected(key, expected, sizeof(expected)));
        return CONFIG_E_INVALID;
}

static int read_word(enum config_type type, const char *text, uint64_t *ret) {
        for (unsigned i = 0; config_word(type, i); i++)
                if (strcmp(config_word(type, i), text) == 0) {
                        *ret = i;
                        return 0;
                }
        return -EINVAL;
}

static int read_number(const struct config_key *key, const char *text, uint64_t *ret) {
        switch (key->type) {
        case CONFIG_TYPE_COUNT:
                return config_parse_count(text, ret);
        case CONFIG_TYPE_BOOL:
                return config_parse_bool(text, ret);
        case CONFIG_TYPE_DURATION:
                return config_parse_duration(text, ret);
        case CONFIG_TYPE_SIZE:
                return config_parse_size(text, ret);
        case CONFIG_TYPE_MODE:
                return config_parse_mode(text, ret);
        case CONFIG_TYPE_HANDOVER:
        case CONFIG_TYPE_ROUTE:
        case CONFIG_TYPE_LOG_LEVEL:
                return read_word(key->type, text, ret);
        case CONFIG_TYPE_NAME:
        case CONFIG_TYPE_TEXT:
        case CONFIG_TYPE_HOST:
        case CONFIG_TYPE_PATH:
        case CONFIG_TYPE_SECRET:
        case CONFIG_TYPE_GROUP:
        case CONFIG_TYPE_ALLOW:
                break;
        }
        return -EINVAL;
}

static bool host_valid(const char *text) {
        for (const char *p = text; *p; p++)
                if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
                      strchr(".-_:%", *p)))
                        return false;
        /* One colon would be host:port; an IPv6 address has two at least. */
        const char *colon = strchr(text, ':');
        return !colon || strchr(colon + 1, ':');
}

static bool printable(const char *text, size_t length) {
        for (size_t i = 0; i < length; i++)
                if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
                        return false;
        return config_utf8_valid(text, length);
}

static bool text_valid(const struct config_key *key, const struct config_node *node) {
        if (node->length < 1 || node->length > key->max || !printable(node->text, node->length))
                return false;
        if (key->type == CONFIG_TYPE_PATH)
                return node->text[0] == '/';
        if (key->type == CONFIG_TYPE_NAME)
                return config_name_valid(node->text, node->length);
        if (key->type == CONFIG_TYPE_HOST)
                return host_valid(node->text);
        return true;
}

static int read_gid(const struct config_reader *reader, const char *text, uint64_t *ret) {
        uint32_t gid;
        if (config_parse_count(text, ret) == 0)
                return *ret < UINT32_MAX ? 0 : -ENOENT;
        int r = reader->host->group(text, &gid);
        if (r == 0)
                *ret = gid;
        return r;
}

static int read_text(const struct config_reader *reader, const struct config_key *key, const struct config_node *node,
                     struct config_value *value) {
        if (!text_valid(key, node))
                return -EINVAL;
        if (key->type == CONFIG_TYPE_GROUP && read_gid(reader, node->text, &value->number) < 0)
                return -EINVAL;
        value->text = strdup(node->text);
        return value->text ? 0 : -ENOMEM;
}

static bool number_type(enum config_type type) {
        return !text_type(type) && type != CONFIG_TYPE_NAME && type != CONFIG_TYPE_HOST && type != CONFIG_TYPE_ALLOW;
}

int config_value_read(const struct config_reader *reader, const struct config_key *key, const struct config_node *node,
                      const struct config_origin *origin, struct config_value *ret) {
        struct config_origin at = config_node_origin(node, origin);
        struct config_value value = {0};
        int r = 0;
        if (key->type == CONFIG_TYPE_ALLOW)
                r = config_allow_read(reader, node, origin, &value.allow);
        else if (node->kind != CONFIG_NODE_SCALAR)
                return refuse(reader, key, node, &at);
        else if (text_type(key->type) && (config_node_null(node) || node->length == 0))
                r = 0; /* none: what a database says that will not have the top level's */
        else if (!number_type(key->type))
                r = read_text(reader, key, node, &value);
        else
                r = read_number(key, node->text, &value.number);
        if (r == 0 && number_type(key->type) && (value.number < key->min || value.number > key->max))
                r = -ERANGE;
        if (r == -EINVAL || r == -ERANGE)
                return refuse(reader, key, node, &at);
        if (r == 0)
                *ret = value;
        return r;
}

/* SPDX-License-Identifier: MIT */
/*
 * An entry of the reply: name, arity, flags, first key, last key, step; since 6.0 ACL categories; since 7.0 hints, key
 * specifications, subcommands.
 */
#include "vocabulary.h"

#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/command.h"

enum { NAME = 0, FLAGS = 2, ENTRY_MIN = 6, CATEGORIES = 6, SUBCOMMANDS = 9 };

#define NAME_MAX_SIZE 32U

static bool is_word(const redisReply *r) { return r->type == REDIS_REPLY_STATUS || r->type == REDIS_REPLY_STRING; }

static bool has_any(const redisReply *words, const char *const list[], size_t n) {
        for (size_t i = 0; i < words->elements; i++)
                for (size_t j = 0; is_word(words->element[i]) && j < n; j++)
                        if (strcasecmp(words->element[i]->str, list[j]) == 0)
                                return true;
        return false;
}

static bool is_array(const redisReply *r) { return r->type == REDIS_REPLY_ARRAY; }

static bool is_harmless(const redisReply *entry) {
        static const char *const data[] = {"readonly", "write"};
        static const char *const bad_flags[] = {"admin",    "pubsub",  "noscript", "blocking",          "no_multi",
                                                "no-multi", "no_auth", "monitor",  "no_mandatory_keys", "asking"};
        static const char *const bad_categories[] = {"@admin",  "@blocking",  "@connection", "@dangerous",
                                                     "@pubsub", "@scripting", "@transaction"};
        const redisReply *flags = entry->element[FLAGS];
        if (!is_array(flags) || !has_any(flags, data, ARRAY_SIZE(data)) ||
            has_any(flags, bad_flags, ARRAY_SIZE(bad_flags)))
                return false;
        if (entry->elements > CATEGORIES &&
            (!is_array(entry->element[CATEGORIES]) ||
             has_any(entry->element[CATEGORIES], bad_categories, ARRAY_SIZE(bad_categories))))
                return false;
        return entry->elements <= SUBCOMMANDS ||
               (is_array(entry->element[SUBCOMMANDS]) && /* a container's: each its own */
                entry->element[SUBCOMMANDS]->elements == 0);
}

/* In upper case; false: no name that a worker could send. */
static bool take_name(const redisReply *name, char ret[NAME_MAX_SIZE]) {
        if (!is_word(name) || name->len == 0 || (size_t)name->len >= NAME_MAX_SIZE)
                return false;
        for (size_t i = 0; i < (size_t)name->len; i++) {
                char c = name->str[i];
                if (c <= ' ' || c > '~')
                        return false;
                ret[i] = c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
        }
        ret[name->len] = 0;
        return true;
}

bool vocabulary_derive(const redisReply *reply, char *names, size_t room, size_t *ret_size) {
        size_t used = 0;
        if (!is_array(reply) || reply->elements == 0)
                return false;
        for (size_t i = 0; i < reply->elements; i++) {
                const redisReply *entry = reply->element[i];
                char name[NAME_MAX_SIZE];
                if (!is_array(entry) || entry->elements < ENTRY_MIN || !is_word(entry->element[NAME]))
                        return false;
                if (!take_name(entry->element[NAME], name) || command_known(name, strlen(name)) || !is_harmless(entry))
                        continue;
                size_t size = strlen(name) + 1;
                if (size > room - used)
                        continue;
                memcpy(names + used, name, size);
                used += size;
        }
        *ret_size = used;
        return true;
}

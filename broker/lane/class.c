/* SPDX-License-Identifier: MIT */
/*
 * The table is open-addressed, filled once, at most half full: names and "NAME|SUBCOMMAND"s in upper case, each with its
 * class. A name of which a subcommand is listed is a container: its own entry then says nothing, the subcommand's does.
 */
#include "class.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/command.h"

#define NAME_SIZE 64U      /* longer ones are unknown */
#define COMMANDS_MAX 8192U /* Redis 7.0 has 370, subcommands included */
#define CATEGORIES_AT 6U   /* places in an entry of COMMAND */
#define SUBCOMMANDS_AT 9U

struct entry {
        char name[NAME_SIZE]; /* "": vacant */
        enum lane_class class;
        bool container;
};

struct lane_classes {
        size_t count, size; /* a power of two */
        struct entry entries[];
};

/* ---- what is built in -------------------------------------------------------------------------------------------- */

struct rule {
        const char *name;
        enum lane_class class;
};

/* Sorted by strcmp(). Whatever the server says. */
static const struct rule rules[] = {
        {"ACL", LANE_CLASS_MONITOR},
        {"ASKING", LANE_CLASS_CONNECTION},
        {"AUTH", LANE_CLASS_CONNECTION},
        {"BGREWRITEAOF", LANE_CLASS_MONITOR},
        {"BGSAVE", LANE_CLASS_MONITOR},
        {"BLMOVE", LANE_CLASS_BLOCKING},
        {"BLMPOP", LANE_CLASS_BLOCKING},
        {"BLPOP", LANE_CLASS_BLOCKING},
        {"BRPOP", LANE_CLASS_BLOCKING},
        {"BRPOPLPUSH", LANE_CLASS_BLOCKING},
        {"BZMPOP", LANE_CLASS_BLOCKING},
        {"BZPOPMAX", LANE_CLASS_BLOCKING},
        {"BZPOPMIN", LANE_CLASS_BLOCKING},
        {"CLIENT", LANE_CLASS_CONNECTION},
        {"CLUSTER", LANE_CLASS_MONITOR},
        {"COMMAND", LANE_CLASS_CONNECTION}, /* so the server says */
        {"CONFIG", LANE_CLASS_MONITOR},
        {"DEBUG", LANE_CLASS_MONITOR},
        {"DISCARD", LANE_CLASS_TRANSACTION},
        {"ECHO", LANE_CLASS_SAFE},
        {"EVAL", LANE_CLASS_SAFE},
        {"EVALSHA", LANE_CLASS_SAFE},
        {"EVALSHA_RO", LANE_CLASS_SAFE},
        {"EVAL_RO", LANE_CLASS_SAFE},
        {"EXEC", LANE_CLASS_TRANSACTION},
        {"FAILOVER", LANE_CLASS_MONITOR},
        {"FCALL", LANE_CLASS_SAFE},
        {"FCALL_RO", LANE_CLASS_SAFE},
        {"FUNCTION|KILL", LANE_CLASS_MONITOR}, /* would wait behind the function it is to kill */
        {"HELLO", LANE_CLASS_CONNECTION},
        {"HOST:", LANE_CLASS_CONNECTION}, /* closes it */
        {"LASTSAVE", LANE_CLASS_MONITOR},
        {"LATENCY", LANE_CLASS_MONITOR},
        {"MODULE", LANE_CLASS_MONITOR},
        {"MONITOR", LANE_CLASS_MONITOR},
        {"MULTI", LANE_CLASS_TRANSACTION},
        {"PFDEBUG", LANE_CLASS_MONITOR},
        {"PFSELFTEST", LANE_CLASS_MONITOR},
        {"PING", LANE_CLASS_SAFE},
        {"POST", LANE_CLASS_CONNECTION}, /* closes it */
        {"PSUBSCRIBE", LANE_CLASS_PUBSUB},
        {"PSYNC", LANE_CLASS_MONITOR},
        {"PUBLISH", LANE_CLASS_SAFE},
        {"PUBSUB", LANE_CLASS_SAFE},
        {"PUBSUB|CHANNELS", LANE_CLASS_SAFE},
        {"PUBSUB|HELP", LANE_CLASS_SAFE},
        {"PUBSUB|NUMPAT", LANE_CLASS_SAFE},
        {"PUBSUB|NUMSUB", LANE_CLASS_SAFE},
        {"PUBSUB|SHARDCHANNELS", LANE_CLASS_SAFE},
        {"PUBSUB|SHARDNUMSUB", LANE_CLASS_SAFE},
        {"PUNSUBSCRIBE", LANE_CLASS_PUBSUB},
        {"QUIT", LANE_CLASS_CONNECTION},
        {"READONLY", LANE_CLASS_CONNECTION},
        {"READWRITE", LANE_CLASS_CONNECTION},
        {"REPLCONF", LANE_CLASS_MONITOR},
        {"REPLICAOF", LANE_CLASS_MONITOR},
        {"RESET", LANE_CLASS_CONNECTION},
        {"ROLE", LANE_CLASS_MONITOR},
        {"SAVE", LANE_CLASS_MONITOR},
        {"SCRIPT|DEBUG", LANE_CLASS_CONNECTION}, /* the next EVAL would be debugged */
        {"SCRIPT|KILL", LANE_CLASS_MONITOR},
        {"SELECT", LANE_CLASS_CONNECTION},
        {"SHUTDOWN", LANE_CLASS_MONITOR},
        {"SLAVEOF", LANE_CLASS_MONITOR},
        {"SLOWLOG", LANE_CLASS_MONITOR},
        {"SPUBLISH", LANE_CLASS_SAFE},
        {"SSUBSCRIBE", LANE_CLASS_PUBSUB},
        {"SUBSCRIBE", LANE_CLASS_PUBSUB},
        {"SUNSUBSCRIBE", LANE_CLASS_PUBSUB},
        {"SYNC", LANE_CLASS_MONITOR},
        {"UNSUBSCRIBE", LANE_CLASS_PUBSUB},
        {"UNWATCH", LANE_CLASS_TRANSACTION},
        {"WAIT", LANE_CLASS_BLOCKING},
        {"WAITAOF", LANE_CLASS_BLOCKING},
        {"WATCH", LANE_CLASS_TRANSACTION},
        {"XREAD", LANE_CLASS_BLOCKING},
        {"XREADGROUP", LANE_CLASS_BLOCKING},
};

static int rule_compare(const void *name, const void *rule) { return strcmp(name, ((const struct rule *)rule)->name); }

static const struct rule *find_rule(const char *name) {
        return bsearch(name, rules, ARRAY_SIZE(rules), sizeof(rules[0]), rule_compare);
}

/* What is known to leave nothing behind, and stands in no rule, does neither block nor subscribe: Redis 7.0's commands. */
static enum lane_class built_in(const char *name) {
        const struct rule *rule = find_rule(name);
        if (rule)
                return rule->class;
        return command_effect(name, strlen(name)) == COMMAND_HARMLESS ? LANE_CLASS_SAFE : LANE_CLASS_UNKNOWN;
}

const char *lane_class_reason(enum lane_class c) {
        switch (c) {
        case LANE_CLASS_SAFE:
                return "may be sent in a lane";
        case LANE_CLASS_BLOCKING:
                return "may block";
        case LANE_CLASS_CONNECTION:
                return "concerns the connection";
        case LANE_CLASS_TRANSACTION:
                return "belongs to a transaction";
        case LANE_CLASS_PUBSUB:
                return "subscribes";
        case LANE_CLASS_MONITOR:
                return "administers the server or takes over the connection";
        case LANE_CLASS_UNKNOWN:
                break;
        }
        return "is not known";
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

/* "NAME" or "NAME|SUB", in upper case. False: no name of a command. A bar of its own would pass for a subcommand. */
static bool append(char *to, size_t *at, const char *part, size_t len, bool may_have_bar) {
        if (len == 0 || len >= NAME_SIZE - *at)
                return false;
        for (size_t i = 0; i < len; i++) {
                char c = part[i];
                if (c <= ' ' || c > '~' || (c == '|' && !may_have_bar))
                        return false;
                to[(*at)++] = c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
        }
        to[*at] = 0;
        return true;
}

static size_t hash(const char *name) {
        uint32_t h = 2166136261U; /* FNV-1a: the names are the server's, not a stranger's */
        for (; *name; name++)
                h = (h ^ (unsigned char)*name) * 16777619U;
        return h;
}

/* Its place, or the vacant one where it would be. */
static size_t place_of(const struct lane_classes *t, const char *name) {
        size_t at = hash(name) & (t->size - 1);
        while (t->entries[at].name[0] && strcmp(t->entries[at].name, name) != 0)
                at = (at + 1) & (t->size - 1);
        return at;
}

/* ---- what the server says ---------------------------------------------------------------------------------------- */

static const redisReply *element(const redisReply *r, size_t at) {
        return r && r->type == REDIS_REPLY_ARRAY && at < r->elements ? r->element[at] : NULL;
}

static bool is_text(const redisReply *r) {
        return r && (r->type == REDIS_REPLY_STRING || r->type == REDIS_REPLY_STATUS) && r->str;
}

/* Is `word` among the flags, or the categories? */
static bool has(const redisReply *list, const char *word) {
        for (size_t i = 0; list && list->type == REDIS_REPLY_ARRAY && i < list->elements; i++)
                if (is_text(list->element[i]) && strcmp(list->element[i]->str, word) == 0)
                        return true;
        return false;
}

static enum lane_class said_of(const redisReply *command) {
        static const struct {
                const char *flag, *category;
                enum lane_class class;
        } meanings[] = {
                {"blocking", "@blocking", LANE_CLASS_BLOCKING},
                {"pubsub", "@pubsub", LANE_CLASS_PUBSUB},
                {"admin", "@admin", LANE_CLASS_MONITOR},
                {"transaction", "@transaction", LANE_CLASS_TRANSACTION},
                {"connection", "@connection", LANE_CLASS_CONNECTION},
        };
        const redisReply *flags = element(command, 2), *categories = element(command, CATEGORIES_AT);
        for (size_t i = 0; i < ARRAY_SIZE(meanings); i++)
                if (has(flags, meanings[i].flag) || has(categories, meanings[i].category))
                        return meanings[i].class;
        return LANE_CLASS_SAFE;
}

/*
 * Before 7.0 a command cannot say everything: what Redis itself does not have (a module's) may block without a word, and
 * subcommands are not told apart.
 */
static enum lane_class class_of(const char *name, const redisReply *command) {
        const struct rule *rule = find_rule(name);
        enum lane_class said = said_of(command);
        if (rule)
                return rule->class;
        if (said == LANE_CLASS_SAFE && !element(command, SUBCOMMANDS_AT))
                return built_in(name);
        return said;
}

static void add(struct lane_classes *t, const char *name, enum lane_class class, bool container) {
        struct entry *e = &t->entries[place_of(t, name)];
        if (!e->name[0]) {
                memcpy(e->name, name, strlen(name) + 1);
                e->class = class;
                t->count++;
        } else if (class != LANE_CLASS_SAFE) { /* said twice: the stricter counts */
                e->class = class;
        }
        e->container = e->container || container;
}

static void add_subcommands(struct lane_classes *t, const redisReply *list) {
        for (size_t i = 0; i < list->elements && t->count < t->size / 2; i++) {
                const redisReply *name = element(list->element[i], 0);
                char upper[NAME_SIZE];
                size_t len = 0;
                if (is_text(name) && append(upper, &len, name->str, name->len, true))
                        add(t, upper, class_of(upper, list->element[i]), false);
        }
}

static void add_command(struct lane_classes *t, const redisReply *command) {
        const redisReply *name = element(command, 0), *subs = element(command, SUBCOMMANDS_AT);
        bool container = subs && subs->type == REDIS_REPLY_ARRAY && subs->elements > 0;
        char upper[NAME_SIZE];
        size_t len = 0;
        if (!is_text(name) || !element(command, 2) || !append(upper, &len, name->str, name->len, false))
                return;
        add(t, upper, class_of(upper, command), container);
        if (container)
                add_subcommands(t, subs);
}

/* So many names at most. */
static size_t count_names(const redisReply *commands) {
        size_t n = commands->elements;
        for (size_t i = 0; i < commands->elements && n < COMMANDS_MAX; i++) {
                const redisReply *subs = element(commands->element[i], SUBCOMMANDS_AT);
                n += subs && subs->type == REDIS_REPLY_ARRAY ? subs->elements : 0;
        }
        return n < COMMANDS_MAX ? n : COMMANDS_MAX;
}

int lane_classes_new(const struct redisReply *commands, struct lane_classes **ret) {
        struct lane_classes *t;
        size_t size = 16;
        if (!commands || commands->type != REDIS_REPLY_ARRAY || commands->elements == 0)
                return -EPROTO;
        while (size < 2 * count_names(commands))
                size *= 2;
        t = calloc(1, sizeof(*t) + size * sizeof(t->entries[0]));
        if (!t)
                return -ENOMEM;
        t->size = size;
        for (size_t i = 0; i < commands->elements && t->count < size / 2; i++)
                add_command(t, commands->element[i]);
        if (t->count == 0) {
                free(t);
                return -EPROTO;
        }
        *ret = t;
        return 0;
}

void lane_classes_free(struct lane_classes *classes) { free(classes); }
size_t lane_classes_count(const struct lane_classes *classes) { return classes->count; }

/* ---- the question ------------------------------------------------------------------------------------------------ */

/* Of a container the subcommand counts; one that the server has not named is as unknown as a command. */
static enum lane_class said_by_server(const struct lane_classes *classes, const char *name, const char *full) {
        const struct entry *e = &classes->entries[place_of(classes, name)];
        if (!e->name[0])
                return LANE_CLASS_UNKNOWN;
        if (!e->container || strcmp(name, full) == 0) /* COMMAND alone is a command, too */
                return e->class;
        e = &classes->entries[place_of(classes, full)];
        return e->name[0] ? e->class : LANE_CLASS_UNKNOWN;
}

/* A rule for the name counts whatever the subcommand (CONFIG), one for both (SCRIPT DEBUG) whatever the server says. */
enum lane_class lane_class_of(const struct lane_classes *classes, const char *name, size_t name_len, const char *sub,
                              size_t sub_len) {
        char upper[NAME_SIZE], full[NAME_SIZE];
        const struct rule *rule;
        size_t len = 0;

        if (!append(upper, &len, name, name_len, false))
                return LANE_CLASS_UNKNOWN;
        rule = find_rule(upper);
        if (rule && rule->class != LANE_CLASS_SAFE)
                return rule->class;
        memcpy(full, upper, len + 1);
        if (sub && !(append(full, &len, "|", 1, true) && append(full, &len, sub, sub_len, false)))
                strcpy(full, "|"); /* no subcommand is called that */
        rule = find_rule(full);
        if (rule && rule->class != LANE_CLASS_SAFE)
                return rule->class;
        return classes ? said_by_server(classes, upper, full) : built_in(upper);
}

/* SPDX-License-Identifier: MIT */
/*
 * What each command of Redis 7.0 leaves behind on the connection it was sent on. The question is the connection alone:
 * what a command does to the data, the server or other clients is not asked. Decided by name, without the arguments: a
 * container command of which one subcommand leaves something behind leaves something behind.
 *
 * Harmless, though it may not look so:
 *   EVAL, FCALL ...        a script has a client of its own: its SELECT and its RESP version end with it
 *   BLPOP, XREAD, WAIT ... once the reply is read, nothing waits any longer
 *   MIGRATE, COPY ...      the server uses sockets of its own
 *   SWAPDB, FLUSHALL ...   the connection stays on the database number it has
 *   CONFIG, ACL, MODULE ...
 *                          change the server, its users and limits for all connections alike
 *   RESTORE-ASKING         implies ASKING for itself only
 *
 * Counted as leaving state, though they may not:
 *   CLIENT                 REPLY, TRACKING, CACHING, NO-EVICT, SETNAME
 *   SCRIPT                 DEBUG changes what the next EVAL does
 *   DEBUG                  for developers; some subcommands change the connection or answer out of turn
 *   UNSUBSCRIBE ...        gives as many replies as there are channels: they no longer match the requests
 *   RESET, QUIT            undo what the broker has set up: user, database, the connection itself
 *   REPLICAOF, SLAVEOF, FAILOVER
 *                          the server behind the connection has another role afterwards: a new one finds that out
 *   SHUTDOWN               answers nothing when it succeeds
 *
 * Sticky, which RESET may not undo, so that the connection has to go:
 *   CLIENT                 NO-EVICT (and SETINFO, of 7.2) survive RESET
 *   SCRIPT, DEBUG          SCRIPT DEBUG survives RESET, and nothing shows it
 *   MONITOR, SYNC, PSYNC, REPLCONF
 *                          the server goes on talking, or takes the connection for a replica
 *   REPLICAOF, SLAVEOF, FAILOVER, QUIT, SHUTDOWN
 *                          see above: a new connection is the point
 *   what is not known
 */
#include "command.h"

#include <stdlib.h>
#include <string.h>

#include "cleanup.h"

struct command {
        const char *name;
        unsigned what; /* enum command_effect, and one of these */
};

#define BY_LEASE                                                                                                       \
        16U /* refused by the broker although it leaves nothing behind: it may block, or administers (lane/class.c) */
#define BLOCKS 32U /* likewise: it does, as a rule */
#define EFFECT(command) ((enum command_effect)((command)->what & 15U))

#define COMMAND_NAME_SIZE 32U /* no name of the table is longer */

/* Sorted by strcmp(), for bsearch(). */
static const struct command commands[] = {
        {"ACL", COMMAND_HARMLESS | BY_LEASE},
        {"APPEND", COMMAND_HARMLESS},
        {"ASKING", COMMAND_STATE},
        {"AUTH", COMMAND_STATE},
        {"BGREWRITEAOF", COMMAND_HARMLESS | BY_LEASE},
        {"BGSAVE", COMMAND_HARMLESS | BY_LEASE},
        {"BITCOUNT", COMMAND_HARMLESS},
        {"BITFIELD", COMMAND_HARMLESS},
        {"BITFIELD_RO", COMMAND_HARMLESS},
        {"BITOP", COMMAND_HARMLESS},
        {"BITPOS", COMMAND_HARMLESS},
        {"BLMOVE", COMMAND_HARMLESS | BLOCKS},
        {"BLMPOP", COMMAND_HARMLESS | BLOCKS},
        {"BLPOP", COMMAND_HARMLESS | BLOCKS},
        {"BRPOP", COMMAND_HARMLESS | BLOCKS},
        {"BRPOPLPUSH", COMMAND_HARMLESS | BLOCKS},
        {"BZMPOP", COMMAND_HARMLESS | BLOCKS},
        {"BZPOPMAX", COMMAND_HARMLESS | BLOCKS},
        {"BZPOPMIN", COMMAND_HARMLESS | BLOCKS},
        {"CLIENT", COMMAND_STICKY},
        {"CLUSTER", COMMAND_HARMLESS | BY_LEASE},
        {"COMMAND", COMMAND_HARMLESS | BY_LEASE},
        {"CONFIG", COMMAND_HARMLESS | BY_LEASE},
        {"COPY", COMMAND_HARMLESS},
        {"DBSIZE", COMMAND_HARMLESS},
        {"DEBUG", COMMAND_STICKY},
        {"DECR", COMMAND_HARMLESS},
        {"DECRBY", COMMAND_HARMLESS},
        {"DEL", COMMAND_HARMLESS},
        {"DISCARD", COMMAND_EXEC},
        {"DUMP", COMMAND_HARMLESS},
        {"ECHO", COMMAND_HARMLESS},
        {"EVAL", COMMAND_HARMLESS},
        {"EVALSHA", COMMAND_HARMLESS},
        {"EVALSHA_RO", COMMAND_HARMLESS},
        {"EVAL_RO", COMMAND_HARMLESS},
        {"EXEC", COMMAND_EXEC},
        {"EXISTS", COMMAND_HARMLESS},
        {"EXPIRE", COMMAND_HARMLESS},
        {"EXPIREAT", COMMAND_HARMLESS},
        {"EXPIRETIME", COMMAND_HARMLESS},
        {"FAILOVER", COMMAND_STICKY},
        {"FCALL", COMMAND_HARMLESS},
        {"FCALL_RO", COMMAND_HARMLESS},
        {"FLUSHALL", COMMAND_HARMLESS},
        {"FLUSHDB", COMMAND_HARMLESS},
        {"FUNCTION", COMMAND_HARMLESS},
        {"GEOADD", COMMAND_HARMLESS},
        {"GEODIST", COMMAND_HARMLESS},
        {"GEOHASH", COMMAND_HARMLESS},
        {"GEOPOS", COMMAND_HARMLESS},
        {"GEORADIUS", COMMAND_HARMLESS},
        {"GEORADIUSBYMEMBER", COMMAND_HARMLESS},
        {"GEORADIUSBYMEMBER_RO", COMMAND_HARMLESS},
        {"GEORADIUS_RO", COMMAND_HARMLESS},
        {"GEOSEARCH", COMMAND_HARMLESS},
        {"GEOSEARCHSTORE", COMMAND_HARMLESS},
        {"GET", COMMAND_HARMLESS},
        {"GETBIT", COMMAND_HARMLESS},
        {"GETDEL", COMMAND_HARMLESS},
        {"GETEX", COMMAND_HARMLESS},
        {"GETRANGE", COMMAND_HARMLESS},
        {"GETSET", COMMAND_HARMLESS},
        {"HDEL", COMMAND_HARMLESS},
        {"HELLO", COMMAND_STATE},
        {"HEXISTS", COMMAND_HARMLESS},
        {"HGET", COMMAND_HARMLESS},
        {"HGETALL", COMMAND_HARMLESS},
        {"HINCRBY", COMMAND_HARMLESS},
        {"HINCRBYFLOAT", COMMAND_HARMLESS},
        {"HKEYS", COMMAND_HARMLESS},
        {"HLEN", COMMAND_HARMLESS},
        {"HMGET", COMMAND_HARMLESS},
        {"HMSET", COMMAND_HARMLESS},
        {"HRANDFIELD", COMMAND_HARMLESS},
        {"HSCAN", COMMAND_HARMLESS},
        {"HSET", COMMAND_HARMLESS},
        {"HSETNX", COMMAND_HARMLESS},
        {"HSTRLEN", COMMAND_HARMLESS},
        {"HVALS", COMMAND_HARMLESS},
        {"INCR", COMMAND_HARMLESS},
        {"INCRBY", COMMAND_HARMLESS},
        {"INCRBYFLOAT", COMMAND_HARMLESS},
        {"INFO", COMMAND_HARMLESS},
        {"KEYS", COMMAND_HARMLESS},
        {"LASTSAVE", COMMAND_HARMLESS | BY_LEASE},
        {"LATENCY", COMMAND_HARMLESS | BY_LEASE},
        {"LCS", COMMAND_HARMLESS},
        {"LINDEX", COMMAND_HARMLESS},
        {"LINSERT", COMMAND_HARMLESS},
        {"LLEN", COMMAND_HARMLESS},
        {"LMOVE", COMMAND_HARMLESS},
        {"LMPOP", COMMAND_HARMLESS},
        {"LOLWUT", COMMAND_HARMLESS},
        {"LPOP", COMMAND_HARMLESS},
        {"LPOS", COMMAND_HARMLESS},
        {"LPUSH", COMMAND_HARMLESS},
        {"LPUSHX", COMMAND_HARMLESS},
        {"LRANGE", COMMAND_HARMLESS},
        {"LREM", COMMAND_HARMLESS},
        {"LSET", COMMAND_HARMLESS},
        {"LTRIM", COMMAND_HARMLESS},
        {"MEMORY", COMMAND_HARMLESS},
        {"MGET", COMMAND_HARMLESS},
        {"MIGRATE", COMMAND_HARMLESS},
        {"MODULE", COMMAND_HARMLESS | BY_LEASE},
        {"MONITOR", COMMAND_STICKY},
        {"MOVE", COMMAND_HARMLESS},
        {"MSET", COMMAND_HARMLESS},
        {"MSETNX", COMMAND_HARMLESS},
        {"MULTI", COMMAND_MULTI},
        {"OBJECT", COMMAND_HARMLESS},
        {"PERSIST", COMMAND_HARMLESS},
        {"PEXPIRE", COMMAND_HARMLESS},
        {"PEXPIREAT", COMMAND_HARMLESS},
        {"PEXPIRETIME", COMMAND_HARMLESS},
        {"PFADD", COMMAND_HARMLESS},
        {"PFCOUNT", COMMAND_HARMLESS},
        {"PFDEBUG", COMMAND_HARMLESS | BY_LEASE},
        {"PFMERGE", COMMAND_HARMLESS},
        {"PFSELFTEST", COMMAND_HARMLESS | BY_LEASE},
        {"PING", COMMAND_HARMLESS},
        {"PSETEX", COMMAND_HARMLESS},
        {"PSUBSCRIBE", COMMAND_STATE},
        {"PSYNC", COMMAND_STICKY},
        {"PTTL", COMMAND_HARMLESS},
        {"PUBLISH", COMMAND_HARMLESS},
        {"PUBSUB", COMMAND_HARMLESS},
        {"PUNSUBSCRIBE", COMMAND_STATE},
        {"QUIT", COMMAND_STICKY},
        {"RANDOMKEY", COMMAND_HARMLESS},
        {"READONLY", COMMAND_STATE},
        {"READWRITE", COMMAND_STATE},
        {"RENAME", COMMAND_HARMLESS},
        {"RENAMENX", COMMAND_HARMLESS},
        {"REPLCONF", COMMAND_STICKY},
        {"REPLICAOF", COMMAND_STICKY},
        {"RESET", COMMAND_STATE},
        {"RESTORE", COMMAND_HARMLESS},
        {"RESTORE-ASKING", COMMAND_HARMLESS},
        {"ROLE", COMMAND_HARMLESS | BY_LEASE},
        {"RPOP", COMMAND_HARMLESS},
        {"RPOPLPUSH", COMMAND_HARMLESS},
        {"RPUSH", COMMAND_HARMLESS},
        {"RPUSHX", COMMAND_HARMLESS},
        {"SADD", COMMAND_HARMLESS},
        {"SAVE", COMMAND_HARMLESS | BY_LEASE},
        {"SCAN", COMMAND_HARMLESS},
        {"SCARD", COMMAND_HARMLESS},
        {"SCRIPT", COMMAND_STICKY},
        {"SDIFF", COMMAND_HARMLESS},
        {"SDIFFSTORE", COMMAND_HARMLESS},
        {"SELECT", COMMAND_STATE},
        {"SET", COMMAND_HARMLESS},
        {"SETBIT", COMMAND_HARMLESS},
        {"SETEX", COMMAND_HARMLESS},
        {"SETNX", COMMAND_HARMLESS},
        {"SETRANGE", COMMAND_HARMLESS},
        {"SHUTDOWN", COMMAND_STICKY},
        {"SINTER", COMMAND_HARMLESS},
        {"SINTERCARD", COMMAND_HARMLESS},
        {"SINTERSTORE", COMMAND_HARMLESS},
        {"SISMEMBER", COMMAND_HARMLESS},
        {"SLAVEOF", COMMAND_STICKY},
        {"SLOWLOG", COMMAND_HARMLESS | BY_LEASE},
        {"SMEMBERS", COMMAND_HARMLESS},
        {"SMISMEMBER", COMMAND_HARMLESS},
        {"SMOVE", COMMAND_HARMLESS},
        {"SORT", COMMAND_HARMLESS},
        {"SORT_RO", COMMAND_HARMLESS},
        {"SPOP", COMMAND_HARMLESS},
        {"SPUBLISH", COMMAND_HARMLESS},
        {"SRANDMEMBER", COMMAND_HARMLESS},
        {"SREM", COMMAND_HARMLESS},
        {"SSCAN", COMMAND_HARMLESS},
        {"SSUBSCRIBE", COMMAND_STATE},
        {"STRLEN", COMMAND_HARMLESS},
        {"SUBSCRIBE", COMMAND_STATE},
        {"SUBSTR", COMMAND_HARMLESS},
        {"SUNION", COMMAND_HARMLESS},
        {"SUNIONSTORE", COMMAND_HARMLESS},
        {"SUNSUBSCRIBE", COMMAND_STATE},
        {"SWAPDB", COMMAND_HARMLESS},
        {"SYNC", COMMAND_STICKY},
        {"TIME", COMMAND_HARMLESS},
        {"TOUCH", COMMAND_HARMLESS},
        {"TTL", COMMAND_HARMLESS},
        {"TYPE", COMMAND_HARMLESS},
        {"UNLINK", COMMAND_HARMLESS},
        {"UNSUBSCRIBE", COMMAND_STATE},
        {"UNWATCH", COMMAND_UNWATCH},
        {"WAIT", COMMAND_HARMLESS | BLOCKS},
        {"WATCH", COMMAND_WATCH},
        {"XACK", COMMAND_HARMLESS},
        {"XADD", COMMAND_HARMLESS},
        {"XAUTOCLAIM", COMMAND_HARMLESS},
        {"XCLAIM", COMMAND_HARMLESS},
        {"XDEL", COMMAND_HARMLESS},
        {"XGROUP", COMMAND_HARMLESS},
        {"XINFO", COMMAND_HARMLESS},
        {"XLEN", COMMAND_HARMLESS},
        {"XPENDING", COMMAND_HARMLESS},
        {"XRANGE", COMMAND_HARMLESS},
        {"XREAD", COMMAND_HARMLESS | BY_LEASE},
        {"XREADGROUP", COMMAND_HARMLESS | BY_LEASE},
        {"XREVRANGE", COMMAND_HARMLESS},
        {"XSETID", COMMAND_HARMLESS},
        {"XTRIM", COMMAND_HARMLESS},
        {"ZADD", COMMAND_HARMLESS},
        {"ZCARD", COMMAND_HARMLESS},
        {"ZCOUNT", COMMAND_HARMLESS},
        {"ZDIFF", COMMAND_HARMLESS},
        {"ZDIFFSTORE", COMMAND_HARMLESS},
        {"ZINCRBY", COMMAND_HARMLESS},
        {"ZINTER", COMMAND_HARMLESS},
        {"ZINTERCARD", COMMAND_HARMLESS},
        {"ZINTERSTORE", COMMAND_HARMLESS},
        {"ZLEXCOUNT", COMMAND_HARMLESS},
        {"ZMPOP", COMMAND_HARMLESS},
        {"ZMSCORE", COMMAND_HARMLESS},
        {"ZPOPMAX", COMMAND_HARMLESS},
        {"ZPOPMIN", COMMAND_HARMLESS},
        {"ZRANDMEMBER", COMMAND_HARMLESS},
        {"ZRANGE", COMMAND_HARMLESS},
        {"ZRANGEBYLEX", COMMAND_HARMLESS},
        {"ZRANGEBYSCORE", COMMAND_HARMLESS},
        {"ZRANGESTORE", COMMAND_HARMLESS},
        {"ZRANK", COMMAND_HARMLESS},
        {"ZREM", COMMAND_HARMLESS},
        {"ZREMRANGEBYLEX", COMMAND_HARMLESS},
        {"ZREMRANGEBYRANK", COMMAND_HARMLESS},
        {"ZREMRANGEBYSCORE", COMMAND_HARMLESS},
        {"ZREVRANGE", COMMAND_HARMLESS},
        {"ZREVRANGEBYLEX", COMMAND_HARMLESS},
        {"ZREVRANGEBYSCORE", COMMAND_HARMLESS},
        {"ZREVRANK", COMMAND_HARMLESS},
        {"ZSCAN", COMMAND_HARMLESS},
        {"ZSCORE", COMMAND_HARMLESS},
        {"ZUNION", COMMAND_HARMLESS},
        {"ZUNIONSTORE", COMMAND_HARMLESS},
};

static int command_compare(const void *name, const void *command) {
        return strcmp(name, ((const struct command *)command)->name);
}

/* Not toupper(): what a name is must not depend on the host program's locale. */
static char command_upper(char c) { return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c; }

static const struct command *command_find(const char *name, size_t len) {
        char upper[COMMAND_NAME_SIZE];

        if (len >= sizeof(upper))
                return NULL;
        for (size_t i = 0; i < len; i++) {
                if (name[i] == '\0')
                        return NULL;
                upper[i] = command_upper(name[i]);
        }
        upper[len] = 0;
        return bsearch(upper, commands, ARRAY_SIZE(commands), sizeof(commands[0]), command_compare);
}

bool command_known(const char *name, size_t len) { return command_find(name, len) != NULL; }

enum command_effect command_effect(const char *name, size_t len) {
        const struct command *command = command_find(name, len);
        return command ? EFFECT(command) : COMMAND_STICKY;
}

bool command_blocks(const char *name, size_t len) {
        const struct command *command = command_find(name, len);
        return command && command->what & BLOCKS;
}

bool command_goes_by_lane(const char *name, size_t len) {
        const struct command *command = command_find(name, len);
        return command && command->what == COMMAND_HARMLESS;
}

bool command_listed(const char *names, size_t size, const char *name, size_t len) {
        const char *end = names + size;
        while (names < end) {
                size_t n = strnlen(names, (size_t)(end - names)), i = 0;
                while (n == len && i < n && names[i] == command_upper(name[i]))
                        i++;
                if (n == len && i == n && n > 0)
                        return true;
                names += n + 1;
        }
        return false;
}

/* Outside a transaction EXEC and DISCARD are errors and end no watching; inside one UNWATCH is queued, no more. */
void command_trail_add(struct command_trail *t, const char *name, size_t len) {
        switch (command_effect(name, len)) {
        case COMMAND_HARMLESS:
                break;
        case COMMAND_MULTI:
                t->multi = true;
                break;
        case COMMAND_WATCH:
                t->watch = true;
                break;
        case COMMAND_UNWATCH:
                t->watch = t->watch && t->multi;
                break;
        case COMMAND_EXEC:
                t->watch = t->watch && !t->multi;
                t->multi = false;
                break;
        case COMMAND_STATE:
                t->state = true;
                break;
        case COMMAND_STICKY:
                t->sticky = true;
                break;
        }
}

void command_trail_error(struct command_trail *t, const char *name, size_t len) {
        if (command_effect(name, len) != COMMAND_HARMLESS)
                t->state = true;
}

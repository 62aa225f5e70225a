/* SPDX-License-Identifier: MIT */
#include <ctype.h>

#include "base/cleanup.h"
#include "base/command.h"
#include "support/check.h"

/* Every name in the COMMAND reply of redis-server 7.0.15, by what it does to its connection. */
static const char harmless[] =
        "ACL APPEND BGREWRITEAOF BGSAVE BITCOUNT BITFIELD BITFIELD_RO BITOP BITPOS BLMOVE BLMPOP BLPOP BRPOP "
        "BRPOPLPUSH BZMPOP BZPOPMAX BZPOPMIN CLUSTER COMMAND CONFIG COPY DBSIZE DECR DECRBY DEL DUMP ECHO EVAL "
        "EVALSHA EVALSHA_RO EVAL_RO EXISTS EXPIRE EXPIREAT EXPIRETIME FCALL FCALL_RO FLUSHALL FLUSHDB FUNCTION "
        "GEOADD GEODIST GEOHASH GEOPOS GEORADIUS GEORADIUSBYMEMBER GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH "
        "GEOSEARCHSTORE GET GETBIT GETDEL GETEX GETRANGE GETSET HDEL HEXISTS HGET HGETALL HINCRBY HINCRBYFLOAT "
        "HKEYS HLEN HMGET HMSET HRANDFIELD HSCAN HSET HSETNX HSTRLEN HVALS INCR INCRBY INCRBYFLOAT INFO KEYS "
        "LASTSAVE LATENCY LCS LINDEX LINSERT LLEN LMOVE LMPOP LOLWUT LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET LTRIM "
        "MEMORY MGET MIGRATE MODULE MOVE MSET MSETNX OBJECT PERSIST PEXPIRE PEXPIREAT PEXPIRETIME PFADD PFCOUNT "
        "PFDEBUG PFMERGE PFSELFTEST PING PSETEX PTTL PUBLISH PUBSUB RANDOMKEY RENAME RENAMENX RESTORE "
        "RESTORE-ASKING ROLE RPOP RPOPLPUSH RPUSH RPUSHX SADD SAVE SCAN SCARD SDIFF SDIFFSTORE SET SETBIT SETEX "
        "SETNX SETRANGE SINTER SINTERCARD SINTERSTORE SISMEMBER SLOWLOG SMEMBERS SMISMEMBER SMOVE SORT SORT_RO SPOP "
        "SPUBLISH SRANDMEMBER SREM SSCAN STRLEN SUBSTR SUNION SUNIONSTORE SWAPDB TIME TOUCH TTL TYPE UNLINK WAIT "
        "XACK XADD XAUTOCLAIM XCLAIM XDEL XGROUP XINFO XLEN XPENDING XRANGE XREAD XREADGROUP XREVRANGE XSETID XTRIM "
        "ZADD ZCARD ZCOUNT ZDIFF ZDIFFSTORE ZINCRBY ZINTER ZINTERCARD ZINTERSTORE ZLEXCOUNT ZMPOP ZMSCORE ZPOPMAX "
        "ZPOPMIN ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANGESTORE ZRANK ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK "
        "ZREMRANGEBYSCORE ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE ZUNION ZUNIONSTORE";
static const char state[] =
        "ASKING AUTH HELLO PSUBSCRIBE PUNSUBSCRIBE READONLY READWRITE RESET SELECT SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE "
        "UNSUBSCRIBE";
static const char sticky[] = "CLIENT DEBUG FAILOVER MONITOR PSYNC QUIT REPLCONF REPLICAOF SCRIPT SHUTDOWN SLAVEOF SYNC";
static const char transaction[] = "MULTI EXEC DISCARD WATCH UNWATCH";

static unsigned check_effects(const char *names, enum command_effect effect) {
        unsigned n = 0;
        for (const char *name = names; *name; name += strspn(name, " ")) {
                size_t len = strcspn(name, " ");
                enum command_effect got = command_effect(name, len);
                check_msg(got == effect, "%.*s is %d, expected %d", (int)len, name, (int)got, (int)effect);
                name += len;
                n++;
        }
        return n;
}

static enum command_effect effect_of(const char *name) { return command_effect(name, strlen(name)); }

static struct command_trail trail_of(const char *names) {
        struct command_trail t = {0};
        for (const char *name = names; *name; name += strspn(name, " ")) {
                size_t len = strcspn(name, " ");
                command_trail_add(&t, name, len);
                name += len;
        }
        return t;
}

static bool clean_after(const char *names) {
        struct command_trail t = trail_of(names);
        return command_trail_clean(&t);
}

TEST(command, every_command_of_redis_7_0_is_known_for_what_it_leaves_behind) {
        check_eq(check_effects(harmless, COMMAND_HARMLESS), 210);
        check_eq(check_effects(state, COMMAND_STATE), 13);
        check_eq(check_effects(sticky, COMMAND_STICKY), 12);
        check_eq(effect_of("MULTI"), COMMAND_MULTI);
        check_eq(effect_of("EXEC"), COMMAND_EXEC);
        check_eq(effect_of("DISCARD"), COMMAND_EXEC);
        check_eq(effect_of("WATCH"), COMMAND_WATCH);
        check_eq(effect_of("UNWATCH"), COMMAND_UNWATCH);
}

TEST(command, a_name_means_the_same_in_any_case) {
        const char *lists[] = {harmless, state, sticky, transaction};
        for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
                for (const char *name = lists[i]; *name; name += strspn(name, " ")) {
                        size_t len = strcspn(name, " ");
                        char lower[32], mixed[32];
                        for (size_t c = 0; c < len; c++) {
                                lower[c] = (char)tolower(name[c]);
                                mixed[c] = c % 2 ? lower[c] : name[c];
                        }
                        check_eq(command_effect(lower, len), command_effect(name, len));
                        check_eq(command_effect(mixed, len), command_effect(name, len));
                        name += len;
                }
}

/* A name cut short, lengthened, or with a byte changed is another command, or none: never taken for one it is not. */
TEST(command, only_the_whole_name_counts) {
        check_eq(effect_of(""), COMMAND_STICKY);
        check_eq(command_effect(NULL, 0), COMMAND_STICKY);
        check_eq(effect_of("GE"), COMMAND_STICKY);
        check_eq(effect_of("GETX"), COMMAND_STICKY);
        check_eq(effect_of("GET "), COMMAND_STICKY);
        check_eq(effect_of(" GET"), COMMAND_STICKY);
        check_eq(effect_of("JSON.GET"), COMMAND_STICKY);
        check_eq(effect_of("CLIENT|ID"), COMMAND_STICKY);
        check_eq(command_effect("GET", 4), COMMAND_STICKY); /* with its NUL */
        check_eq(command_effect("GET\0X", 5), COMMAND_STICKY);
        check_eq(command_effect("GETDEL", 3), COMMAND_HARMLESS); /* GET: the rest is not the name */
        check_eq(command_effect("SELECTION", 6), COMMAND_STATE);
}

TEST(command, a_name_of_any_length_and_any_byte_is_read_within_its_bounds) {
        for (size_t len = 0; len < 200; len++) {
                char *name = malloc(len + 1);
                check(name);
                memset(name, 'A', len + 1);
                check_eq(command_effect(name, len), COMMAND_STICKY);
                free(name);
        }
        for (unsigned a = 0; a < 256; a++)
                for (unsigned b = 0; b < 256; b++) {
                        char name[3] = {'G', (char)a, (char)b};
                        bool get = (a | 32) == 'e' && (b | 32) == 't' && isalpha((int)a) && isalpha((int)b);
                        if ((command_effect(name, 3) == COMMAND_HARMLESS) != get)
                                check_msg(false, "G, %u, %u", a, b);
                }
}

static bool resettable_after(const char *names) {
        struct command_trail t = trail_of(names);
        return command_trail_resettable(&t);
}

TEST(command, what_reset_undoes_is_told_from_what_it_may_not) {
        check(resettable_after(""));
        check(resettable_after("GET MULTI SET"));
        check(resettable_after("WATCH SELECT AUTH HELLO SUBSCRIBE PSUBSCRIBE READONLY RESET"));
        check(!resettable_after("CLIENT"));
        check(!resettable_after("SELECT MONITOR"));
        check(!resettable_after("SCRIPT SELECT"));
        check(!resettable_after("JSON.GET"));
        check(!clean_after("CLIENT"));
        check(!clean_after("MULTI CLIENT EXEC"));
}

TEST(command, a_list_of_names_is_searched_for_whole_names_in_any_case) {
        static const char names[] = "JSON.GET\0BF.ADD";
        check(command_listed(names, sizeof(names), "json.get", 8));
        check(command_listed(names, sizeof(names), "BF.ADD", 6));
        check(!command_listed(names, sizeof(names), "BF.AD", 5));
        check(!command_listed(names, sizeof(names), "BF.ADDX", 7));
        check(!command_listed(names, sizeof(names), "", 0));
        check(!command_listed(names, 0, "BF.ADD", 6));
        check(!command_listed(names, 12, "BF.ADD", 6)); /* cut short */
        check(command_known("get", 3) && command_known("CLIENT", 6) && !command_known("JSON.GET", 8));
}

TEST(command, nothing_and_harmless_commands_leave_no_trail) {
        check(clean_after(""));
        check(clean_after("GET SET BLPOP EVAL XREAD WAIT PING MIGRATE"));
}

TEST(command, a_transaction_is_clean_again_when_it_ends) {
        check(!clean_after("MULTI"));
        check(!clean_after("MULTI SET GET"));
        check(clean_after("MULTI SET EXEC"));
        check(clean_after("MULTI SET DISCARD"));
        check(!clean_after("WATCH"));
        check(!clean_after("WATCH GET"));
        check(clean_after("WATCH UNWATCH"));
        check(clean_after("WATCH MULTI SET EXEC"));
        check(clean_after("WATCH MULTI SET DISCARD"));
        check(!clean_after("WATCH MULTI EXEC WATCH"));
        check(!clean_after("MULTI EXEC MULTI"));
}

/* redis-server: "EXEC without MULTI" leaves the keys watched; UNWATCH within a transaction is only queued. */
TEST(command, an_exec_outside_a_transaction_ends_no_watching_and_an_unwatch_inside_one_neither) {
        check(!clean_after("WATCH EXEC"));
        check(!clean_after("WATCH DISCARD"));
        check(trail_of("WATCH MULTI UNWATCH").watch);
        check(trail_of("WATCH MULTI UNWATCH").multi);
        check(clean_after("WATCH MULTI UNWATCH EXEC"));
        check(clean_after("EXEC"));
        check(clean_after("UNWATCH"));
}

TEST(command, state_is_for_ever) {
        check(!clean_after("SELECT"));
        check(!clean_after("NOSUCH GET"));
        check(!clean_after("SELECT MULTI EXEC"));
        check(!clean_after("SUBSCRIBE UNSUBSCRIBE"));
        check(!clean_after("SELECT RESET"));
        check(!clean_after("MULTI SELECT EXEC"));
}

/* Every trail of up to six commands of one of each effect, against the rules said the long way round. */
TEST(command, all_sequences_of_effects_agree_with_the_rules) {
        const char *const names[] = {"GET", "MULTI", "WATCH", "UNWATCH", "EXEC", "SELECT"};
        for (unsigned code = 0; code < 6 * 6 * 6 * 6 * 6 * 6; code++) {
                struct command_trail t = {0};
                bool multi = false, watch = false, selected = false;
                for (unsigned i = 0, left = code; i < 6; i++, left /= 6) {
                        const char *name = names[left % 6];
                        command_trail_add(&t, name, strlen(name));
                        if (*name == 'M')
                                multi = true;
                        else if (*name == 'W')
                                watch = true;
                        else if (*name == 'U' && !multi)
                                watch = false;
                        else if (*name == 'E' && multi)
                                multi = watch = false;
                        else if (*name == 'S')
                                selected = true;
                }
                if (t.multi != multi || t.watch != watch || t.state != selected)
                        check_msg(false, "sequence %u", code);
        }
}

/* redis-server, for a user without the right to DISCARD: -NOPERM, and the transaction goes on. */
TEST(command, what_is_refused_may_have_ended_nothing) {
        struct command_trail t = trail_of("MULTI SET DISCARD");
        check(command_trail_clean(&t));
        command_trail_error(&t, "discard", 7);
        check(!command_trail_clean(&t));
        t = trail_of("GET");
        command_trail_error(&t, "GET", 3); /* -WRONGTYPE and the like */
        check(command_trail_clean(&t));
        t = trail_of("WATCH UNWATCH");
        command_trail_error(&t, "UNWATCH", 7);
        check(!command_trail_clean(&t));
        t = trail_of("MULTI EXEC");
        command_trail_error(&t, "MULTI", 5);
        check(!command_trail_clean(&t));
}

TEST(command, what_blocks_administers_or_leaves_something_behind_does_not_go_by_lane) {
        static const char *const by_lane[] = {"GET", "set", "EVAL", "PUBLISH", "ECHO", "PING", "Xadd"};
        static const char *const by_lease[] = {"SELECT", "MULTI",  "WATCH", "SUBSCRIBE", "BLPOP", "wait",
                                               "xread",  "CONFIG", "ACL",   "FT.SEARCH", "",      "GETX"};
        for (size_t i = 0; i < ARRAY_SIZE(by_lane); i++)
                check_msg(command_goes_by_lane(by_lane[i], strlen(by_lane[i])), "%s", by_lane[i]);
        for (size_t i = 0; i < ARRAY_SIZE(by_lease); i++)
                check_msg(!command_goes_by_lane(by_lease[i], strlen(by_lease[i])), "%s", by_lease[i]);
}

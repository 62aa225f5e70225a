/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The configuration model: what lessord runs by, and where each value came from. Pure data; load.h (or, without any
 * system call, parse.h) makes it, nobody changes it afterwards. The fields are those of the keys in schema.h.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <lessor/protocol.h>

#define CONFIG_MS(n) ((uint64_t)(n)*UINT64_C(1000000))
#define CONFIG_S(n) ((uint64_t)(n)*UINT64_C(1000000000))
#define CONFIG_KIB(n) ((uint64_t)(n) << 10)
#define CONFIG_MIB(n) ((uint64_t)(n) << 20)

enum config_outcome {
        CONFIG_OK = 0,
        CONFIG_E_INVALID = 1, /* the report says why: at least one error */
};

/* CONFIG_KEY_instance, ... CONFIG_KEY_allow */
enum config_key_id {
#define CONFIG_BROKER_KEY(name, ...) CONFIG_KEY_##name,
#define CONFIG_DATABASE_KEY(name, ...) CONFIG_KEY_##name,
#include "schema.h"
        CONFIG_KEYS
};

enum config_handover { CONFIG_HANDOVER_AUTO, CONFIG_HANDOVER_RESET, CONFIG_HANDOVER_CLOSE };
enum config_route { CONFIG_ROUTE_AUTO, CONFIG_ROUTE_LEASE, CONFIG_ROUTE_LANE }; /* of single commands: `path` */

/* In the order of enum log_level in broker/log.h. */
enum config_log_level {
        CONFIG_LOG_DEBUG,
        CONFIG_LOG_INFO,
        CONFIG_LOG_WARNING,
        CONFIG_LOG_ERROR,
};

struct config_ids {
        uint32_t *ids; /* NULL: none */
        unsigned n;
};

struct config_allow {
        bool everyone; /* whoever may connect to the socket */
        struct config_ids uids, gids;
        char *text; /* as written, for --print-config; NULL: everyone */
};

/* In the order of precedence, for one scope; a database's own value beats one of the top level whatever their sources. */
enum config_source {
        CONFIG_SOURCE_DEFAULT,
        CONFIG_SOURCE_CREDENTIAL,   /* name: the file in $CREDENTIALS_DIRECTORY */
        CONFIG_SOURCE_FILE,         /* name: the file; line, column */
        CONFIG_SOURCE_ENVIRONMENT,  /* name: the variable */
        CONFIG_SOURCE_COMMAND_LINE, /* name: the option, without its value */
};

struct config_origin {
        enum config_source source;
        bool own;              /* the database's own, not one for all */
        unsigned line, column; /* from 1; 0: none */
        const char *name;      /* the config's; NULL for defaults */
};

/* From the type in the schema to the field of the model. */
#define CONFIG_FIELD_COUNT(name) unsigned name;
#define CONFIG_FIELD_BOOL(name) bool name;
#define CONFIG_FIELD_DURATION(name) uint64_t name##_ns;
#define CONFIG_FIELD_SIZE(name) uint64_t name;
#define CONFIG_FIELD_MODE(name) unsigned name;
#define CONFIG_FIELD_NAME(name) char name[LESSOR_NAME_SIZE];
#define CONFIG_FIELD_TEXT(name) char *name; /* NULL: none */
#define CONFIG_FIELD_HOST(name) char *name;
#define CONFIG_FIELD_PATH(name) char *name;   /* NULL: none */
#define CONFIG_FIELD_SECRET(name) char *name; /* NULL: none; wiped when freed */
#define CONFIG_FIELD_GROUP(name) char *name;  /* NULL: none */
#define CONFIG_FIELD_HANDOVER(name) enum config_handover name;
#define CONFIG_FIELD_ROUTE(name) enum config_route name;
#define CONFIG_FIELD_LOG_LEVEL(name) enum config_log_level name;
#define CONFIG_FIELD_ALLOW(name) struct config_allow name;

struct config_database {
        char name[LESSOR_NAME_SIZE];
#define CONFIG_DATABASE_KEY(name, type, ...) CONFIG_FIELD_##type(name)
#include "schema.h"
        struct config_origin origin[CONFIG_KEYS]; /* of the database's keys */
        struct config_origin declared;            /* where the database's name stands */
};

struct config {
#define CONFIG_BROKER_KEY(name, type, ...) CONFIG_FIELD_##type(name)
#include "schema.h"
        gid_t socket_gid;                  /* of socket_group; (gid_t)-1: none */
        char *file;                        /* what was read; NULL: no file, the built-in database */
        struct config_database *databases; /* sorted as in the file */
        unsigned n_databases;
        struct config_origin origin[CONFIG_KEYS]; /* of the broker's keys */
        char **strings;                           /* what the origins' names point to */
        unsigned n_strings;
};

void config_wipe_secrets(struct config *config); /* nobody dials by it any more: no password of it stays in memory */
void config_free(struct config *);               /* NULL ok; wipes secrets */

const struct config_database *config_find(const struct config *, const char *name); /* NULL: no such database */

/* Where it is: "127.0.0.1:6379", "[::1]:6379", "unix:/run/redis.sock"; returns `buffer`. */
char *config_server_text(const struct config_database *db, char *buffer, size_t size);
bool config_same_server(const struct config_database *a, const struct config_database *b);

/* File descriptors the broker may need at once: upstream connections, sessions, threads and itself. */
uint64_t config_fd_need(const struct config *);

uint64_t config_connections(const struct config *); /* the host-wide cap: the sum of all max_connections */

/* Likewise of those databases that are on the same server as database `i`: to compare with its maxclients. */
uint64_t config_server_connections(const struct config *, unsigned i);

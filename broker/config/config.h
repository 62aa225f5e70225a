/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The configuration model: what lessord runs by. Pure data; config/parse.h makes it, nobody changes it afterwards.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <lessor/protocol.h>

struct config_ids {
        uint32_t *ids; /* NULL: none */
        unsigned n;
};

struct config_allow {
        bool everyone; /* no `allow` key: whoever may connect to the socket */
        struct config_ids uids, gids;
};

struct config_database {
        char name[LESSOR_NAME_SIZE];
        unsigned db;
        char *host; /* name or address */
        unsigned port;
        char *unix_socket; /* NULL: TCP */
        char *username;    /* NULL: none */
        char *password;    /* NULL: none; wiped when freed */
        unsigned max_connections, min_idle, max_waiters;
        bool socket_keepalive;
        uint64_t socket_timeout_ns, socket_connect_timeout_ns, wait_timeout_ns;
        uint64_t retry_base_ns, retry_max_ns;
        unsigned retry_attempts;
        struct config_allow allow;
};

struct config {
        char instance[LESSOR_NAME_SIZE];
        char *socket;         /* path of the listening socket */
        unsigned socket_mode; /* 0660 */
        unsigned threads;     /* data threads, >= 1 */
        unsigned max_sessions;
        struct config_database *databases; /* sorted as in the file */
        unsigned n_databases;
};

void config_free(struct config *); /* NULL ok; wipes secrets */

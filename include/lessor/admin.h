/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Orders to a broker: the administration socket. `lessor pause`, `kill`, `reload` ... speak it; so may you.
 *
 * WHERE: a Unix datagram socket, /dev/shm/lessor.<instance>.admin, beside the status segment, so that the instance's name
 * is enough to find it. Mode 0600: root and the broker's own user reach it. The broker looks at the credentials that the
 * kernel attaches to each datagram (SCM_CREDENTIALS) as well, and obeys no other uid.
 *
 * HOW: bind a datagram socket of your own to a path in /dev/shm that the broker may write to (by convention the path
 * above with `.<pid>` after it, mode 0777), connect() it to the broker's, which lets nobody else answer, send one struct
 * lessor_admin_request, receive one struct lessor_admin_answer, remove your path. All numbers are in the machine's
 * own byte order, all texts NUL-terminated and padded with NULs. A datagram of another size, magic or version is answered with
 * LESSOR_ADMIN_INVALID or _VERSION, if it can be answered.
 *
 * Why datagrams: the broker needs no fd for a client, so that it can be administered when it has run out of them; who sends
 * nothing, or does not read, holds nobody up; an answer for which there is no room is dropped, that to a refused request first.
 *
 * An order for a database goes to the data thread that owns it. If that does not answer within LESSOR_ADMIN_PATIENCE_NS the
 * answer is LESSOR_ADMIN_LATE: it may still be carried out. No more than LESSOR_ADMIN_CALLS orders are under way at once.
 * While the broker stops it obeys SHUTDOWN alone, so that a stop can be made a cut.
 */
#include <stdint.h>

#include <lessor/protocol.h>

#define LESSOR_ADMIN_PATH "/dev/shm/lessor.%s.admin"
#define LESSOR_ADMIN_MAGIC 0x4c53414dU /* "LSAM" as a big-endian number */
#define LESSOR_ADMIN_VERSION 1U
#define LESSOR_ADMIN_TEXT_SIZE 1024U
#define LESSOR_ADMIN_WHY_SIZE 96U
#define LESSOR_ADMIN_CALLS 64U
#define LESSOR_ADMIN_PATIENCE_NS UINT64_C(10000000000)

enum lessor_admin_command {
        /* Of `database`: */
        LESSOR_ADMIN_PAUSE = 1,     /* nothing more is leased; who holds a lease keeps it, who waits waits on. `why` */
        LESSOR_ADMIN_RESUME = 2,    /* ends PAUSE and DRAIN */
        LESSOR_ADMIN_DRAIN = 3,     /* PAUSE, and each connection is closed as it comes back. `why` */
        LESSOR_ADMIN_RECONNECT = 4, /* each connection there is now is replaced as it comes back */
        LESSOR_ADMIN_BREAKER_OPEN = 5,  /* nothing is leased, who asks is told so at once, until it is closed. `why` */
        LESSOR_ADMIN_BREAKER_CLOSE = 6, /* closed, without waiting for a probe; failures are counted from 0 */
        LESSOR_ADMIN_BREAKER_RESET = 7, /* likewise, and whatever else was learnt of the server is forgotten */
        LESSOR_ADMIN_KILL_LEASE = 8,    /* `number`: its connection is cut off, as by lease_timeout */
        /* Of the broker: */
        LESSOR_ADMIN_KILL_SESSION = 9, /* `number`: it is ended, and what it held comes back; with BY_PID, a process' */
        LESSOR_ADMIN_RELOAD = 10,      /* the configuration is read again; answered when it has been taken over */
        LESSOR_ADMIN_LOG_LEVEL = 11,   /* `why`: debug, info, warn or error, until the next reload */
        LESSOR_ADMIN_SHUTDOWN = 12,    /* answered before it ends; with CUT, held leases are ended, too */
};

#define LESSOR_ADMIN_CUT 1U
#define LESSOR_ADMIN_BY_PID 2U

enum lessor_admin_outcome {
        LESSOR_ADMIN_DONE = 0,
        LESSOR_ADMIN_INVALID = 1, /* no request of this protocol, or one that makes no sense */
        LESSOR_ADMIN_VERSION_UNKNOWN = 2,
        LESSOR_ADMIN_DENIED = 3,   /* neither root nor the broker's user */
        LESSOR_ADMIN_NO_SUCH = 4,  /* no such database, lease or session (any more) */
        LESSOR_ADMIN_REFUSED = 5,  /* a reload: the configuration has errors, nothing has changed */
        LESSOR_ADMIN_BUSY = 6,     /* LESSOR_ADMIN_CALLS are under way */
        LESSOR_ADMIN_LATE = 7,     /* not done yet, and perhaps never */
        LESSOR_ADMIN_STOPPING = 8, /* the broker is stopping */
};

struct lessor_admin_request {
        uint32_t magic, version;
        uint32_t command; /* enum lessor_admin_command */
        uint32_t flags;
        uint64_t number;
        uint64_t tag; /* comes back in the answer */
        char database[LESSOR_NAME_SIZE];
        char why[LESSOR_ADMIN_WHY_SIZE]; /* shown to those who wait, and in `lessor health` */
};

struct lessor_admin_answer {
        uint32_t magic, version;
        uint32_t command;
        uint32_t outcome; /* enum lessor_admin_outcome */
        uint64_t tag;
        uint64_t concerned;                /* connections closed or replaced, leases or sessions ended, those refused */
        uint64_t open, in_use, waiting;    /* of the database, afterwards */
        char text[LESSOR_ADMIN_TEXT_SIZE]; /* what was done, or why not; perhaps several lines */
};

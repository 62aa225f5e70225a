/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The wire protocol between a worker process and lessord. Enough to write a client in another language; liblessor
 * (lessor.h) is the one for C.
 *
 * TRANSPORT. A Unix socket of type SOCK_SEQPACKET at `/run/lessor/<instance>.sock` (or where $LESSOR_SOCKET points).
 * One message is one packet: a fixed-size struct of this file in the machine's own byte order, no padding that carries
 * meaning, every reserved field 0. A packet's length must be exactly the size of its type. File descriptors travel as
 * SCM_RIGHTS ancillary data of the packet they belong to; receive them with MSG_CMSG_CLOEXEC, and treat MSG_CTRUNC as
 * "the fd is lost: I am out of fds". Never send a packet of length 0: it reads like an end of file.
 *
 * WHO SPEAKS WHEN. The worker sends ATTACH first, with one fd: its own pidfd (pidfd_open(getpid(), 0)); the broker
 * compares it with SO_PEERCRED and watches it, so that a worker's death is seen even while a forked child keeps the
 * socket open. It may be left out where the kernel makes one itself (SO_PEERPIDFD, Linux 6.5: getsockopt() on a socket
 * not connected yet fails otherwise than by ENOPROTOOPT); then whoever called connect() is the worker. The broker
 * answers ATTACHED (or ERROR, and closes). After that the worker may send, in any order:
 *
 *     LOOKUP name          -> DATABASE | ERROR
 *     LEASE database       -> GRANT (with one fd) | ERROR      exactly one answer for each, whenever it is decided
 *     CANCEL request       -> nothing of its own: the LEASE of that number is answered by ERROR CANCELLED, unless its
 *                             answer is on the way already
 *     RETURN lease         -> nothing
 *     REPORT lease         -> nothing
 *     LANE thread          -> LANE_OPENED (with two fds) | ERROR
 *
 * An answer carries the `request` number of its question; a worker chooses the numbers, unique among those it has open
 * (whoever uses one twice cannot tell the answers apart) and not 0. Answers may overtake each other. A message that is
 * malformed, out of order, of an unknown type, with a reserved bit set, with an fd where none belongs, or that names a
 * lease which is not the sender's ends the session: the broker sends ERROR with LESSOR_FATAL if it can, closes the
 * socket, and takes back everything the session held.
 *
 * VERSIONS. ATTACH names the lowest and highest version the worker speaks; ATTACHED names the one in force, the highest
 * both know. Features are bits both sides must name; a bit not granted is not there.
 *
 * A LEASE is a connection, exclusively: the fd of a GRANT is a connected stream socket that speaks RESP, authenticated
 * and with its database selected. Its O_NONBLOCK and socket timeouts are shared with the broker's dup: set what you
 * need. Give it back with RETURN and close your fd. Say LESSOR_RETURN_CLEAN only if every request was sent whole, every
 * reply read whole, and none left state behind (SELECT, MULTI, WATCH, SUBSCRIBE, CLIENT ..., AUTH, MONITOR). If state was left
 * behind, but by nothing other than SELECT, MULTI, WATCH, SUBSCRIBE and its kin, AUTH, HELLO, READONLY or READWRITE, say
 * LESSOR_RETURN_RESETTABLE: the broker resets the connection, if it may, and looks whether that has helped. Otherwise the
 * broker replaces the connection. LESSOR_RETURN_UNKNOWN may be said as well: that a command was used of which the worker
 * does not know what it leaves behind. The broker then asks the server for its list, once, on a connection that nobody has
 * touched, and publishes the names in the control page. A worker that dies returns everything: nothing to do.
 *
 * WARM LEASES. With LESSOR_FEATURE_WORDS a GRANT names a word of the session segment, in which the lease lives on: the
 * worker may park the connection and take it again by compare-and-swap, without a message, until the broker recalls it.
 * States, layout and order of accesses stand at struct lessor_slot below. A word belongs to one database for as long as
 * the session lives; the worker keeps the fd under it, until a GRANT says another one for this word, or names the word
 * in `forget`. A lease whose word is WANTED, or that is not clean, is given back by RETURN; so is one that the broker has
 * ended meanwhile (the word is VACANT): that RETURN changes nothing, it tells the broker that the fd is no longer in use.
 *
 * LANES. With LESSOR_FEATURE_LANES a worker may hand single commands to the broker, which pipelines all workers' over few
 * connections of its own. LANE asks, once a session, for the lane to the data thread that owns the database; the answer
 * carries [0] its memory, to be mapped read-write, and [1] its doorbell, an eventfd to write 1 to (never to be read).
 * Layout and order of accesses stand at struct lessor_lane_layout below. A reply that is larger than the lane's whole reply
 * area comes by LANE_REPLY, a sealed memfd, before or after its completion, which is marked. Whoever waits with
 * LESSOR_LANE_WAIT_MESSAGE is woken by LANE_WAKE: for event loops, which watch the socket. What cannot go by lane is refused
 * with LESSOR_E_NEEDS_LEASE, and was not sent.
 *
 * MEMORY. With LESSOR_FEATURE_SEGMENT, ATTACHED carries two fds: [0] the control page, mapped read-only, the same for
 * all sessions and written by the broker alone; [1] the session segment, mapped read-write, shared by this session and
 * the broker. Multi-byte fields are naturally aligned and accessed as C11 atomics of their size.
 */
#include <stdint.h>

#include <lessor/outcome.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LESSOR_PROTOCOL_MIN 1U
#define LESSOR_PROTOCOL_MAX 1U

#define LESSOR_SOCKET_DEFAULT "/run/lessor/default.sock"
#define LESSOR_INSTANCE_DEFAULT "default"

#define LESSOR_NAME_SIZE 64U      /* database and program names, with the ending NUL, rest zeroed */
#define LESSOR_SITE_SIZE 64U      /* a call site "file.c:123", with the ending NUL, rest zeroed */
#define LESSOR_TEXT_SIZE 488U     /* an error text, with the ending NUL */
#define LESSOR_DATABASES_MAX 128U /* databases of one broker */
#define LESSOR_REQUESTS_MAX 1024U /* unanswered LEASE requests of one session */

#define LESSOR_WAIT_DEFAULT UINT64_MAX /* wait_ns: the database's own wait_timeout */

/* Features of version 1. */
#define LESSOR_FEATURE_SEGMENT (UINT64_C(1) << 0) /* control page and session segment, as fds of ATTACHED */
#define LESSOR_FEATURE_WORDS (UINT64_C(1) << 1)   /* leases with a word in the segment; needs LESSOR_FEATURE_SEGMENT */
#define LESSOR_FEATURE_LANES (UINT64_C(1) << 2)   /* LANE; needs LESSOR_FEATURE_SEGMENT */

enum lessor_message {
        LESSOR_MSG_ATTACH = 1,   /* worker -> broker, 1 fd: pidfd; none, see above */
        LESSOR_MSG_ATTACHED = 2, /* broker -> worker, 2 fds with LESSOR_FEATURE_SEGMENT, else none */
        LESSOR_MSG_LOOKUP = 3,
        LESSOR_MSG_DATABASE = 4,
        LESSOR_MSG_LEASE = 5,
        LESSOR_MSG_GRANT = 6, /* broker -> worker, 1 fd: the connection; none with LESSOR_GRANT_KEPT */
        LESSOR_MSG_ERROR = 7,
        LESSOR_MSG_CANCEL = 8,
        LESSOR_MSG_RETURN = 9,
        LESSOR_MSG_REPORT = 10,
        LESSOR_MSG_LANE = 11,        /* with LESSOR_FEATURE_LANES, and likewise below */
        LESSOR_MSG_LANE_OPENED = 12, /* broker -> worker, 2 fds: the lane's memory, its doorbell */
        LESSOR_MSG_LANE_REPLY = 13,  /* broker -> worker, 1 fd: the reply */
        LESSOR_MSG_LANE_WAKE = 14,   /* broker -> worker */
};

struct lessor_msg_header {
        uint16_t type;     /* enum lessor_message */
        uint16_t size;     /* of the whole message in bytes, this header included: the type's struct, exactly */
        uint32_t reserved; /* 0 */
        uint64_t request;  /* the question's number, repeated in its answer; 0 where there is no answer */
};

struct lessor_msg_attach {
        struct lessor_msg_header header;
        uint32_t version_min, version_max;
        uint64_t features;              /* wanted; the answer says which are granted */
        char program[LESSOR_NAME_SIZE]; /* shown to the operator; may be empty */
};

struct lessor_msg_attached {
        struct lessor_msg_header header;
        uint32_t version;
        uint32_t databases;    /* entries of the name table in use */
        uint64_t features;     /* granted: a subset of those wanted */
        uint64_t session;      /* this session's number, never reused by an instance */
        uint64_t instance;     /* the instance's generation: differs after a restart of the broker */
        uint64_t control_size; /* bytes of the control page; 0 without LESSOR_FEATURE_SEGMENT */
        uint64_t segment_size; /* bytes of the session segment; 0 likewise */
        int32_t broker_pid;
        uint32_t requests_max; /* LEASE requests this session may have unanswered */
};

struct lessor_msg_lookup {
        struct lessor_msg_header header;
        char name[LESSOR_NAME_SIZE];
};

struct lessor_msg_database {
        struct lessor_msg_header header;
        uint32_t database; /* its number in LEASE; stable while the instance runs */
        uint32_t max_connections;
        uint64_t wait_timeout_ns;
        uint64_t socket_timeout_ns;
};

#define LESSOR_TICKET_NONE 0U
#define LESSOR_LEASE_PINNED 1U /* flags: the worker will block on it (BLPOP, SUBSCRIBE): counts against max_pinned */
struct lessor_msg_lease {
        struct lessor_msg_header header;
        uint32_t database;
        int32_t tid;      /* the asking thread, for `lessor leases`; 0 if unknown */
        uint64_t wait_ns; /* from receipt; 0: answer at once; LESSOR_WAIT_DEFAULT */
        uint32_t ticket;  /* where the worker waits: 1 + its place in the segment; LESSOR_TICKET_NONE: at the socket */
        uint32_t flags;   /* LESSOR_LEASE_PINNED */
        char site[LESSOR_SITE_SIZE];
};

#define LESSOR_GRANT_KEPT 1U                  /* flags: no fd comes along, the worker still has it under that word */
#define LESSOR_WORD_NONE UINT32_C(0xffffffff) /* word, forget: none */
struct lessor_msg_grant {
        struct lessor_msg_header header;
        uint32_t database;
        uint32_t slot;       /* the connection's place in its pool */
        uint64_t generation; /* of the slot: +1 whenever its socket is replaced */
        uint64_t lease;      /* this lease's number, never reused by an instance */
        uint64_t client_id;  /* Redis' CLIENT ID of the connection; 0 if the server has none */
        uint64_t sequence;   /* what the word was granted with; 0 without one */
        uint32_t word;       /* where the lease has its word; LESSOR_WORD_NONE: it is given back by RETURN alone */
        uint32_t flags;      /* LESSOR_GRANT_KEPT */
        uint32_t forget;     /* the word of another connection whose fd the worker is to close; LESSOR_WORD_NONE */
        uint32_t reserved;   /* 0 */
};

#define LESSOR_FATAL 1U /* flags: the session is over, the broker closes the socket */
struct lessor_msg_error {
        struct lessor_msg_header header;
        int32_t outcome; /* enum lessor_outcome */
        uint32_t flags;
        uint64_t retry_ns; /* earliest sensible retry, 0 if unknown */
        char text[LESSOR_TEXT_SIZE];
};

struct lessor_msg_cancel {
        struct lessor_msg_header header; /* request: the LEASE to take back */
        uint32_t database;               /* that LEASE's */
        uint32_t reserved;
};

#define LESSOR_RETURN_CLEAN 1U      /* flags: the clean proof, see above */
#define LESSOR_RETURN_RESETTABLE 4U /* flags: sent whole, read whole, and RESET undoes what is left; see above */
#define LESSOR_RETURN_UNKNOWN 8U    /* flags: a command was used that the worker does not know: what is it? */
#define LESSOR_RETURN_KEPT 2U       /* flags: the worker keeps its fd, for a later grant of the same word */
struct lessor_msg_return {
        struct lessor_msg_header header; /* request: 0 */
        uint32_t database;
        uint32_t slot;
        uint64_t generation;
        uint64_t lease;
        uint32_t flags;
        uint32_t reserved;
        uint64_t requests; /* sent whole on this lease */
        uint64_t replies;  /* parsed whole on this lease; clean and resettable need as many as requests */
};

enum lessor_report {
        LESSOR_REPORT_CONNECTION = 1, /* the connection broke (EOF, ECONNRESET ...): `error` is the errno */
        LESSOR_REPORT_TIMEOUT = 2,    /* no reply within socket_timeout */
        LESSOR_REPORT_PROTOCOL = 3,   /* Redis sent what is not RESP */
        LESSOR_REPORT_READONLY = 4,   /* Redis answered -READONLY */
        LESSOR_REPORT_MOVED = 5,      /* Redis answered -MOVED or -ASK */
        LESSOR_REPORT_LOADING = 6,    /* Redis answered -LOADING */
};

struct lessor_msg_report {
        struct lessor_msg_header header; /* request: 0 */
        uint32_t database;
        uint32_t slot;
        uint64_t generation;
        uint64_t lease;
        uint32_t kind; /* enum lessor_report */
        int32_t error; /* errno, or 0 */
};

struct lessor_msg_lane {
        struct lessor_msg_header header;
        uint32_t thread; /* of a database, as its entry in the control page says */
        uint32_t reserved;
};

struct lessor_msg_lane_opened {
        struct lessor_msg_header header;
        uint32_t thread;
        uint32_t reserved; /* 0 */
        uint64_t size;     /* bytes of the lane's memory */
};

struct lessor_msg_lane_reply {
        struct lessor_msg_header header; /* request: 0 */
        uint32_t thread;
        uint32_t reserved; /* 0 */
        uint64_t tag;      /* of the submission whose completion says LANE_REPLY_APART */
        uint64_t size;     /* bytes of the reply, from the fd's beginning */
};

struct lessor_msg_lane_wake {
        struct lessor_msg_header header; /* request: 0 */
        uint32_t thread;
        uint32_t reserved; /* 0 */
};

/* ---- the control page: written by the broker alone ------------------------------------------------------------- */

#define LESSOR_CONTROL_MAGIC UINT64_C(0x4c4553534f524350) /* "LESSORCP" as a big-endian number */
#define LESSOR_CONTROL_VERSION 1U

enum lessor_control_state {
        LESSOR_CONTROL_ABSENT = 0, /* the entry is not in use: a number out of range, or a database removed */
        LESSOR_CONTROL_OPEN = 1,   /* ask away */
};

/*
 * A database's circuit breaker, in the two lowest bits of `breaker`; the bits above change with every change. While it is
 * not CLOSED, requests would be refused: do not ask, say what stands in breaker_text. To read that: load `breaker`
 * (acquire); copy; fence (acquire); load `breaker` again: if it is another, or CHANGING, what was copied is worthless.
 */
enum lessor_breaker {
        LESSOR_BREAKER_CLOSED = 0,
        LESSOR_BREAKER_OPEN = 1,
        LESSOR_BREAKER_HALF_OPEN = 2, /* a probe is under way */
        LESSOR_BREAKER_CHANGING = 3,  /* in `breaker` only: open or half-open, and being written */
};
#define LESSOR_BREAKER_TEXT_SIZE LESSOR_TEXT_SIZE

/* How single commands go best at this time: an advice, which changes with the load. */
enum lessor_path {
        LESSOR_PATH_LEASE = 0,  /* by lease: there are no lanes to this database */
        LESSOR_PATH_DIRECT = 1, /* few callers are active: by lease */
        LESSOR_PATH_LANE = 2,   /* many are: by lane what may go there */
};

/* One database. `state` is stored with release after every other field; load it with acquire before you read them. */
struct lessor_control_database {
        uint32_t state; /* enum lessor_control_state */
        uint32_t max_connections;
        uint64_t wait_timeout_ns;
        uint64_t socket_timeout_ns;
        uint32_t max_pinned;       /* 0: pinned leases are leases like others */
        uint32_t thread;           /* the data thread that owns it: by which lane its commands go */
        uint64_t breaker;          /* enum lessor_breaker, see there */
        uint64_t breaker_retry_ns; /* CLOCK_MONOTONIC: of the next probe */
        uint64_t breaker_length;   /* of breaker_text */
        uint32_t path;             /* enum lessor_path; relaxed */
        uint32_t reserved;
        char name[LESSOR_NAME_SIZE];
        char breaker_text[LESSOR_BREAKER_TEXT_SIZE]; /* the server's own error, ended by a NUL */
};

#define LESSOR_COMMANDS_SIZE 8184U

/*
 * Commands that neither 7.0's list nor its readers know, of which one database's server says itself that they leave nothing
 * behind on a connection. In upper case, each with an ending NUL. `size` is stored once, with release, after the names;
 * load it with acquire; 0: nothing is known.
 */
struct lessor_control_commands {
        uint32_t size; /* of the names in bytes, the NULs included */
        uint32_t reserved;
        char names[LESSOR_COMMANDS_SIZE];
};

#define LESSOR_THREADS_MAX 64U

/* A data thread's bell: 1 while it sleeps, or is about to, and must be rung to look at its lanes. */
struct lessor_control_bell {
        uint32_t armed;
        uint32_t reserved[15]; /* a cache line of its own */
};

struct lessor_control {
        uint64_t magic;
        uint32_t version;
        uint32_t database_size;   /* sizeof(struct lessor_control_database) the broker was built with: the stride */
        uint32_t databases;       /* entries ever used; grows; load with acquire */
        uint32_t commands_offset; /* of commands[0] from the page's start; 0: there are none */
        uint64_t instance;        /* as in ATTACHED */
        uint32_t bells_offset;    /* of bells[0] from the page's start; 0: there are none */
        uint32_t reserved1;
        uint64_t reserved2[3];
        struct lessor_control_database database[LESSOR_DATABASES_MAX];
        struct lessor_control_commands commands[LESSOR_DATABASES_MAX];
        struct lessor_control_bell bells[LESSOR_THREADS_MAX];
};

/* ---- the session segment: written by one worker and the broker; evidence, never authority ---------------------- */

#define LESSOR_SEGMENT_MAGIC UINT64_C(0x4c4553534f525347) /* "LESSORSG" */
#define LESSOR_SEGMENT_VERSION 1U
#define LESSOR_CALL_BUCKETS 112U /* see lessor/status.h: the buckets of every histogram */

/*
 * What the worker did on one database; written by the worker's threads (relaxed atomic adds), summed by the broker,
 * which takes only growth into account: a counter that falls, or leaps, is clamped.
 */
struct lessor_segment_database {
        uint64_t operations_ok;     /* commands whose reply came and was no error of Redis */
        uint64_t operations_failed; /* commands answered by an error, or not at all */
        uint64_t timeouts;          /* of those: no reply within socket_timeout */
        uint64_t last_success_ns;   /* CLOCK_REALTIME of the last good reply */
        uint64_t holds_sampled;     /* warm leases measured: one in 64 of each word */
        uint64_t reserved[3];
        uint32_t call_time[LESSOR_CALL_BUCKETS]; /* histogram of request to reply, wraps at 2^32 */
        uint32_t hold_time[LESSOR_CALL_BUCKETS]; /* histogram of the sampled holds, likewise */
};

struct lessor_segment {
        uint64_t magic;
        uint32_t version;
        uint32_t database_offset; /* of database[0] from the segment's start */
        uint32_t database_size;   /* the stride */
        uint32_t databases;       /* room for that many */
        uint64_t session;         /* as in ATTACHED */
        uint64_t instance;
        uint64_t words_offset; /* of struct lessor_slot [words]; 0: not offered */
        uint64_t reserved1;    /* 0 */
        uint32_t words;
        uint32_t tickets_offset; /* of struct lessor_ticket [LESSOR_TICKETS]; 0: not offered */
        uint32_t sites_offset; /* of char site[LESSOR_SITES][LESSOR_SITE_SIZE], written by the worker; 0: not offered */
        uint32_t reserved;     /* 0 */
};

/*
 * Where a thread may wait for the answer to its LEASE, asleep on `state` (a futex), with LESSOR_FEATURE_WORDS: a grant of a
 * connection whose fd the worker has kept is written here, instead of being sent. The worker stores EMPTY before it
 * asks; the broker stores the state last (release; load it with acquire), once for each request, and wakes.
 */
enum lessor_ticket_state {
        LESSOR_TICKET_EMPTY = 0,
        LESSOR_TICKET_GRANTED = 1, /* here it is: a GRANT with LESSOR_GRANT_KEPT */
        LESSOR_TICKET_MAIL = 2,    /* the answer is in the socket, or about to be */
};

struct lessor_ticket {
        uint32_t state; /* enum lessor_ticket_state */
        uint32_t slot;
        uint32_t word;
        uint32_t forget;
        uint64_t request;
        uint64_t generation;
        uint64_t lease;
        uint64_t client_id;
        uint64_t sequence;
        uint64_t reserved;
};

#define LESSOR_TICKETS 16U /* tickets of a session: more threads than that wait at the socket */
#define LESSOR_WORDS_MAX                                                                                               \
        4096U             /* words of a session: leases and cached fds of all databases together; not all numbers */
#define LESSOR_SITES 255U /* call sites of a session: a slot's `site` is 1 + the place; all others are 0 */

/*
 * A lease word and its counters, as they lie in the segment. Bits 0-1 of the word are the state: 0 VACANT, 1 HELD, 2
 * PARKED. Bit 2 is WANTED: as long as it is set the worker changes nothing. Bits 3-26 are the low bits of the grant's
 * generation, 27-63 the sequence.
 *      park    compare-and-swap (release) from exactly the value held to the same with state PARKED
 *      retake  compare-and-swap (acquire) from PARKED, not WANTED, to HELD with the sequence one higher
 * Whoever does not succeed gives back by RETURN, or asks by LEASE. The fields after the word are written by whoever
 * holds it. libclient/base/word.h is the implementation.
 */
struct lessor_slot_layout {
        uint64_t word;
        uint64_t retakes;      /* warm leases begun here */
        uint64_t held_samples; /* holds measured: one in 64 */
        uint64_t held_ns;      /* their sum */
        uint32_t tid;          /* of the thread that holds or held it last; 0: unknown */
        uint32_t site;         /* where it was taken: 1 + the place among the sites; 0: unknown */
        uint64_t reserved[3];  /* 0 */
};

/* ---- a lane's memory: written by one worker and the broker; evidence, never authority -------------------------- */

enum lessor_lane_state {
        LESSOR_LANE_SUBMITTED = 1, /* by the worker */
        LESSOR_LANE_TAKEN = 2,     /* by the broker: one completion follows */
        LESSOR_LANE_CANCELLED = 3, /* by the worker */
};

enum lessor_lane_waiting {
        LESSOR_LANE_WAIT_NOT = 0,
        LESSOR_LANE_WAIT_FUTEX = 1,
        LESSOR_LANE_WAIT_MESSAGE = 2,
};

#define LESSOR_LANE_MAGIC UINT64_C(0x4c4553534f524c4e) /* "LESSORLN" as a big-endian number */
#define LESSOR_LANE_VERSION 1U
#define LESSOR_LANE_ENTRIES_MAX 256U

/*
 * A lane is two rings and two areas of bytes: header, submissions, completions, requests, replies, each where the header
 * says. Positions count from 0 on for as long as the lane lives; what has position p stands in place p modulo
 * `entries`, a power of two, of its ring. Submissions and completions have positions of their own: answers overtake each other,
 * and `tag` tells which is which. All words are used as atomics of their size. `seq-cst` below are sequentially
 * consistent accesses; a client that cannot make them rings the doorbell after each submission, which does no harm, with
 * `waiting` stored before it.
 *
 * To submit, one thread at a time: no more than `entries` may be under way, that is submitted, and neither cancelled nor reaped;
 * and `taken` (acquire) must have passed the submission that had the place before. Put the command, which is one whole
 * RESP2 array of bulk strings, anywhere in the request area where no submission lies that `taken` has not passed.
 * Fill in the fields, then store `state` = p << 2 | LESSOR_LANE_SUBMITTED (seq-cst). Then load (seq-cst) `quiet`, and
 * `armed` of the data thread's bell in the control page: if one of them is not 0, write the 64-bit number 1 to the doorbell.
 *
 * To take a submission back: compare-and-swap `state` from p << 2 | LESSOR_LANE_SUBMITTED to p << 2 |
 * LESSOR_LANE_CANCELLED. Whoever succeeds gets no completion, and nothing was sent. Otherwise the broker has set it to
 * LESSOR_LANE_TAKEN: the command may run, and its completion comes.
 *
 * To reap position q: load `state` (acquire); when it is q + 1 the completion is there. Read its fields and its bytes, store
 * `reaped` = q + 1 (seq-cst), and load `starved` (seq-cst): if it is not 0, write to the doorbell, the broker waits for
 * room in the reply area.
 *
 * To wait, one thread at a time: store `waiting` (seq-cst), load `done` (seq-cst), look once more for the completion. If it
 * is not there, sleep: by FUTEX_WAIT, not private, on `done` for the value loaded (LESSOR_LANE_WAIT_FUTEX), or until LANE_WAKE
 * comes (LESSOR_LANE_WAIT_MESSAGE). Then look again, for one may be woken for nothing, and set `waiting` to 0 when done.
 *
 * Deadlines are the broker's to keep: a command that cannot be sent before `deadline_ns` is answered by an outcome, unsent. What is
 * sent is answered within the database's socket_timeout, by an outcome with LESSOR_LANE_MAY_HAVE_RUN if need be. One
 * worker's commands to one database run in the order in which they were submitted, but for those that are refused.
 *
 * A submission that is no whole command, or lies outside its area, or a `reaped` that cannot be, ends the session.
 *
 * This is the header. Its offsets count from its own beginning; fields up to `replies_size` never change.
 */
struct lessor_lane_layout {
        uint64_t magic;
        uint32_t version;
        uint32_t entries; /* of either ring */
        uint32_t submissions_offset, completions_offset;
        uint32_t requests_offset, requests_size;
        uint32_t replies_offset, replies_size;
        uint64_t reserved[3];
        uint64_t reaped;  /* worker: completions below this position are read, and their bytes, too */
        uint32_t waiting; /* worker: enum lessor_lane_waiting */
        uint32_t reserved1[13];
        uint64_t taken;   /* broker: submissions below this position are copied, or passed over as cancelled */
        uint32_t done;    /* broker: moves on with completions */
        uint32_t starved; /* broker: replies wait for room */
        uint32_t quiet;   /* broker: not 0: it looks at this lane only when the doorbell rings */
        uint32_t reserved2[11];
};

struct lessor_submission_layout {
        uint64_t state;       /* position << 2 | enum lessor_lane_state; 0: never used */
        uint64_t tag;         /* the worker's own; comes back in the completion */
        uint64_t deadline_ns; /* CLOCK_MONOTONIC */
        uint32_t database;    /* its number, as in DATABASE */
        uint32_t offset;      /* of the command, in the request area */
        uint32_t length;      /* of the command, not 0 */
        uint32_t flags;       /* 0 */
        uint64_t reserved[3];
};

#define LESSOR_LANE_MAY_HAVE_RUN 1U /* flags of a completion: with an outcome but 0 */
#define LESSOR_LANE_REPLY_APART                                                                                        \
        2U /* flags of a completion: the reply comes by LANE_REPLY, it is too large for the area */

struct lessor_completion_layout {
        uint64_t state;  /* position + 1; 0: never used */
        uint64_t tag;    /* of the submission */
        int32_t outcome; /* enum lessor_outcome; 0: the reply is here */
        uint32_t flags;  /* LESSOR_LANE_MAY_HAVE_RUN, LESSOR_LANE_REPLY_APART */
        uint32_t offset; /* in the reply area: of the reply as Redis sent it; with an outcome but 0, of an error text */
        uint32_t length;
};

#ifdef __cplusplus
}
#endif

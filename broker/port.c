/* SPDX-License-Identifier: MIT */
#include "port.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/futex.h"
#include "database.h"
#include "lane/roll.h"
#include "lanes.h"
#include "peer/program.h"
#include "pipeline.h"
#include "status/session_memory.h"

#define HELD_MAX (256U * 1024U)
#define TAKES_PER_TURN 32U
#define QUIET_NS (100 * NS_PER_MS) /* nothing for so long: the lane rings when there is */
#define LANE_TEXT 256U

/* A request that waits to be sent. */
struct held {
        struct list link; /* in the share's list */
        uint64_t since;
        struct call call;
        char data[];
};

/* A completion that found no room in the lane. */
struct backlog {
        struct list link;
        struct lane_answer answer;
        char data[];
};

/* A reply apart that the worker has not reaped: it counts against the budget until then. */
struct pending {
        struct list link;
        uint64_t position, reserved;
};

struct port {
        struct list link; /* in the thread's active or quiet list */
        struct list told_link;
        struct letter begin, end;
        struct lanes *lanes;
        struct loop *home;
        uint64_t session;
        struct session_memory *memory;
        struct peer_identity *identity;
        struct program program;
        void *map;
        size_t size;
        struct lane_broker lane;
        int doorbell;
        struct event bell;
        struct share *shares, *last; /* last: the one used last */
        size_t held_bytes;
        unsigned n_held;
        struct list backlog, pending;
        uint64_t seen; /* when there was something last */
        bool bad;      /* its session ends: nothing is taken from it any more */
};

struct port *port_of_link(struct list *link) {
        return container_of(link, struct port, link);
}
struct port *port_of_told_link(struct list *link) {
        return container_of(link, struct port, told_link);
}
uint64_t port_size(const struct lanes *lanes) { return lane_size(&lanes->geometry); }

/* ---- birth and end ------------------------------------------------------------------------------------------------ */

static void on_ring(evutil_socket_t fd, short what, void *userdata) {
        struct port *p = userdata;
        p->seen = clock_now();
        port_set_quiet(p, false);
        if (p->last)
                pipelines_note_ring(p->last->database);
}

static int make_memory(struct port *p, int *ret_fd) {
        _cleanup_(fd_closep) int fd = memfd_create("lessor-lane", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0 || ftruncate(fd, (off_t)p->size) < 0 ||
            fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
                return -errno;
        p->map = mmap(NULL, p->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (p->map == MAP_FAILED) {
                p->map = NULL;
                return -errno;
        }
        p->doorbell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (p->doorbell < 0)
                return -errno;
        *ret_fd = fd_steal(&fd);
        return 0;
}

int port_new(const struct port_options *o, struct port **ret, int fds[2]) {
        struct port *p = calloc(1, sizeof(*p));
        int r;
        if (!p) {
                free(o->identity);
                return -ENOMEM;
        }
        *p = (struct port){.lanes = o->lanes,
                           .home = o->home,
                           .session = o->session,
                           .memory = session_memory_ref(o->memory),
                           .identity = o->identity,
                           .program = {.pid = o->identity->pid},
                           .size = lane_size(&o->lanes->geometry),
                           .doorbell = -1};
        wire_string(p->program.name, sizeof(p->program.name), o->program);
        list_init(&p->link);
        list_init(&p->told_link);
        list_init(&p->backlog);
        list_init(&p->pending);
        event_assign(&p->bell, o->lanes->loop->base, -1, 0, on_ring, p);
        r = make_memory(p, &fds[0]);
        if (r < 0) {
                port_free(p);
                return r;
        }
        lane_broker_init(&p->lane, p->map, &o->lanes->geometry);
        fds[1] = p->doorbell;
        *ret = p;
        return 0;
}

static void drop_held(struct port *p, struct held *h) {
        p->held_bytes -= h->call.length;
        p->n_held--;
        list_remove(&h->link);
        free(h);
}

static void drop_pending(struct port *p, struct pending *pending) {
        reply_budget_give(p->lanes->budget, pending->reserved);
        list_remove(&pending->link);
        free(pending);
}

void port_free(struct port *p) {
        for (struct share *s = p->shares, *next; s; s = next) {
                next = s->next;
                list_for_each_safe (&s->held, it, more)
                        drop_held(p, container_of(it, struct held, link));
                pipelines_forget(s->database, s);
                free(s);
        }
        list_for_each_safe (&p->backlog, it, next)
                free(container_of(it, struct backlog, link));
        list_for_each_safe (&p->pending, it, next)
                drop_pending(p, container_of(it, struct pending, link));
        event_del(&p->bell);
        list_remove(&p->link);
        list_remove(&p->told_link);
        if (p->map)
                munmap(p->map, p->size);
        fd_close(p->doorbell);
        session_memory_unref(p->memory);
        free(p->identity);
        free(p);
}

static void begin(struct port *p) {
        /* Edge-triggered and never read: whatever the worker does with his dup, a ring is one event, and none is lost. */
        event_assign(&p->bell, p->lanes->loop->base, p->doorbell, EV_READ | EV_ET | EV_PERSIST, on_ring, p);
        p->seen = clock_now();
        list_push_back(&p->lanes->active, &p->link);
        if (event_add(&p->bell, NULL) < 0) {
                p->bad = true;
                p->lanes->ops->violated(p->lanes->loop, p->home, p->session, "the broker cannot watch a doorbell");
        }
}

static void open_begin(struct letter *letter) { begin(container_of(letter, struct port, begin)); }
static void open_end(struct letter *letter) { port_free(container_of(letter, struct port, end)); }

void port_begin(struct port *p) {
        if (p->home == p->lanes->loop)
                begin(p);
        else
                mailbox_post(&p->lanes->loop->inbox, &p->begin, open_begin);
}

/* By letter from the own thread, too: it may be within a turn that walks the ports. */
void port_end(struct port *p) { mailbox_post(&p->lanes->loop->inbox, &p->end, open_end); }

void port_set_quiet(struct port *p, bool quiet) {
        lessor_atomic32 *word = &p->lane.map->quiet;
        list_remove(&p->link);
        list_push_back(quiet ? &p->lanes->quiet : &p->lanes->active, &p->link);
        if (quiet)
                lane_arm(word);
        else
                lane_disarm(word);
}

static void violated(struct port *p, const char *why) {
        if (!p->bad)
                p->lanes->ops->violated(p->lanes->loop, p->home, p->session, why);
        p->bad = true;
}

/* ---- completions -------------------------------------------------------------------------------------------------- */

void port_wake(struct port *p) {
        union wire_message message;
        if (p->bad)
                return;
        switch (lane_wake(&p->lane)) {
        case LANE_WAITING_NOT:
                break;
        case LANE_WAITING_FUTEX:
                futex_wake(&p->lane.map->done);
                break;
        case LANE_WAITING_MESSAGE:
                wire_init(&message, LESSOR_MSG_LANE_WAKE, 0);
                message.lane_wake.thread = p->lanes->thread;
                p->lanes->ops->send(p->lanes->loop, p->home, p->session, &message, -1);
                break;
        }
}

static void tell(struct port *p) {
        if (list_empty(&p->told_link))
                list_push_back(&p->lanes->told, &p->told_link);
}

/* True: it is in the lane, or nothing can be done for it. */
static bool put(struct port *p, const struct lane_answer *answer) {
        struct lane_answer empty = *answer;
        switch (lane_complete(&p->lane, answer)) {
        case LANE_COMPLETE_DONE:
                tell(p);
                return true;
        case LANE_COMPLETE_STARVED:
                if (answer->outcome == LESSOR_OK)
                        return false;
                empty.length = 0; /* better without its text than late */
                return put(p, &empty);
        case LANE_COMPLETE_TOO_LARGE: /* see pipeline.c: not handed here */
        case LANE_COMPLETE_BAD:
                break;
        }
        violated(p, "a lane whose positions no worker may have written");
        return true;
}

static void keep(struct port *p, const struct lane_answer *answer) {
        struct backlog *b = malloc(sizeof(*b) + answer->length);
        if (!b) {
                violated(p, "the broker is out of memory");
                return;
        }
        b->answer = *answer;
        b->answer.data = b->data;
        if (answer->length > 0)
                memcpy(b->data, answer->data, answer->length);
        list_push_back(&p->backlog, &b->link);
}

void port_complete(struct port *p, const struct lane_answer *answer) {
        if (p->bad)
                return;
        p->seen = p->lanes->now;
        if (!list_empty(&p->backlog) || !put(p, answer))
                keep(p, answer);
}

/* The worker has made room, or has he? */
static void clear_backlog(struct port *p) {
        list_for_each_safe (&p->backlog, it, next) {
                struct backlog *b = container_of(it, struct backlog, link);
                if (p->bad || !put(p, &b->answer))
                        return;
                list_remove(&b->link);
                free(b);
        }
}

static void clear_pending(struct port *p) {
        if (!lane_recover(&p->lane)) {
                violated(p, "a lane whose positions no worker may have written");
                return;
        }
        list_for_each_safe (&p->pending, it, next) {
                struct pending *pending = container_of(it, struct pending, link);
                if (p->lane.reaped < pending->position)
                        return;
                drop_pending(p, pending);
        }
}

void port_complete_apart(struct port *p, uint64_t tag, int fd, uint64_t size, uint64_t reserved) {
        struct pending *pending = p->bad ? NULL : malloc(sizeof(*pending));
        union wire_message message;
        if (!pending) {
                reply_budget_give(p->lanes->budget, reserved);
                fd_close(fd);
                violated(p, "the broker is out of memory");
                return;
        }
        wire_init(&message, LESSOR_MSG_LANE_REPLY, 0);
        message.lane_reply.thread = p->lanes->thread;
        message.lane_reply.tag = tag;
        message.lane_reply.size = size;
        p->lanes->ops->send(p->lanes->loop, p->home, p->session, &message, fd);
        fd_close(fd);
        port_complete(p, &(struct lane_answer){.tag = tag, .flags = LANE_REPLY_APART});
        /* One that waits in the backlog has a later position; then this one is given back a little early. */
        *pending = (struct pending){.position = p->lane.completed, .reserved = reserved};
        list_push_back(&p->pending, &pending->link);
}

static void refuse(struct port *p, const struct call *call, int outcome, const char *text) {
        port_complete(
                p, &(struct lane_answer){.tag = call->tag, .outcome = outcome, .data = text, .length = strlen(text)});
}

/* ---- submissions -------------------------------------------------------------------------------------------------- */

static struct share *share_of(struct port *p, struct database *db) {
        struct share *s;
        for (s = p->shares; s; s = s->next)
                if (s->database == db)
                        return s;
        s = calloc(1, sizeof(*s));
        if (!s)
                return NULL;
        s->port = p;
        s->database = db;
        batch_lane_init(&s->lane, s);
        list_init(&s->held);
        session_memory_note_use(p->memory, database_index(db));
        s->next = p->shares;
        return p->shares = s;
}

static bool is_allowed(struct port *p, struct share *s) {
        const struct config_database *config = database_config(s->database);
        if (s->judged != config) {
                s->allowed = database_admits(s->database, p->identity);
                s->judged = config;
        }
        return s->allowed;
}

static void refuse_unsent(struct share *s, const struct call *call, int outcome) {
        char text[LANE_TEXT];
        pipelines_trouble(s->database, outcome, text, sizeof(text));
        refuse(s->port, call, outcome, text);
}

static void hold(struct share *s, const struct call *call, uint64_t now) {
        struct port *p = s->port;
        struct held *h;
        if (call->deadline <= now) { /* he will not wait */
                refuse_unsent(s, call, LESSOR_E_EXHAUSTED);
                return;
        }
        h = malloc(sizeof(*h) + call->length);
        if (!h) {
                refuse(p, call, LESSOR_E_LIMIT, "the broker is out of memory");
                return;
        }
        h->since = now;
        h->call = *call;
        h->call.data = h->data;
        memcpy(h->data, call->data, call->length);
        list_push_back(&s->held, &h->link);
        p->held_bytes += call->length;
        p->n_held++;
        lanes_wake_at(p->lanes, call->deadline);
}

static void submit(struct share *s, const struct call *call, uint64_t now) {
        int outcome = LESSOR_E_LIMIT;
        if (!list_empty(&s->held)) {
                hold(s, call, now);
                return;
        }
        switch (pipelines_offer(s->database, s, call, now, &outcome)) {
        case OFFER_SENT:
                break;
        case OFFER_LATER:
                hold(s, call, now);
                break;
        case OFFER_REFUSED:
                refuse_unsent(s, call, outcome);
                break;
        }
}

/* The database of that number, if it is this thread's; under RCU. */
static struct database *find_database(const struct port *p, uint32_t index) {
        struct database *db = index < LESSOR_DATABASES_MAX ? directory_database(p->lanes->directory, index) : NULL;
        return db && !database_removed(db) && database_loop(db) == p->lanes->loop ? db : NULL;
}

static void accept_call(struct port *p, uint32_t index, const struct call *call, uint64_t now) {
        struct database *db = find_database(p, index);
        struct share *s = db ? share_of(p, db) : NULL;
        char text[LANE_TEXT];
        bool malformed = false;
        const char *unfit;
        if (!s) {
                refuse(p, call, db ? LESSOR_E_LIMIT : LESSOR_E_UNKNOWN_DATABASE,
                       db ? "the broker is out of memory" : "no database of that number on this lane");
                return;
        }
        p->last = s;
        if (!is_allowed(p, s)) {
                snprintf(text, sizeof(text), "database `%s`: uid %u is not in its `allow` list",
                         database_config(db)->name, p->identity->uid);
                refuse(p, call, LESSOR_E_DENIED, text);
                return;
        }
        unfit = pipelines_unfit(db, call->data, call->length, &malformed);
        if (malformed)
                violated(p, "a submission that is not one whole command");
        else if (unfit)
                refuse(p, call, LESSOR_E_NEEDS_LEASE, unfit);
        else
                submit(s, call, now);
}

/* What waits to be sent: those in time, in order; the others are told. */
static bool resume(struct port *p, uint64_t now) {
        bool any = false;
        for (struct share *s = p->shares; s && p->n_held > 0; s = s->next)
                list_for_each_safe (&s->held, it, next) {
                        struct held *h = container_of(it, struct held, link);
                        int outcome = LESSOR_E_TIMEOUT;
                        enum offer offer = h->call.deadline <= now
                                                   ? OFFER_REFUSED
                                                   : pipelines_offer(s->database, s, &h->call, now, &outcome);
                        if (offer == OFFER_LATER) {
                                lanes_wake_at(p->lanes, h->call.deadline);
                                break;
                        }
                        if (offer == OFFER_REFUSED)
                                refuse_unsent(s, &h->call, outcome);
                        else
                                pipelines_note_queued(s->database, now - h->since);
                        drop_held(p, h);
                        any = true;
                }
        return any;
}

static bool is_full(const struct port *p) { return p->bad || p->held_bytes > HELD_MAX || !list_empty(&p->backlog); }

static bool take_one(struct port *p, uint64_t now) {
        struct lanes *l = p->lanes;
        struct lane_request r;
        struct call call;
        switch (lane_take(&p->lane, l->request, p->lane.requests_size, &r)) {
        case LANE_TAKE_DONE:
                call = (struct call){.tag = r.tag, .deadline = r.deadline_ns, .data = l->request, .length = r.length};
                accept_call(p, r.database, &call, now);
                return true;
        case LANE_TAKE_SKIPPED:
                return true;
        case LANE_TAKE_NOTHING:
                return false;
        case LANE_TAKE_NO_ROOM:
        case LANE_TAKE_BAD:
                break;
        }
        violated(p, "a submission that no worker may write");
        return false;
}

bool port_collect(struct port *p, uint64_t now) {
        bool any = false;
        if (p->bad)
                return false;
        if (!list_empty(&p->pending))
                clear_pending(p);
        if (!list_empty(&p->backlog))
                clear_backlog(p);
        if (p->n_held > 0)
                any = resume(p, now);
        rcu_read_lock();
        for (unsigned i = 0; i < TAKES_PER_TURN && !is_full(p) && take_one(p, now); i++)
                any = true;
        rcu_read_unlock();
        if (any)
                p->seen = now;
        return any;
}

bool port_has_more(struct port *p) { return !is_full(p) && lane_has_submission(&p->lane); }

bool port_is_idle(struct port *p, uint64_t now) {
        return now > p->seen + QUIET_NS && !p->n_held && list_empty(&p->backlog) && list_empty(&p->pending) &&
               !lane_unanswered(&p->lane);
}

/* ---- for the figures ----------------------------------------------------------------------------------------------- */

/* Those that could not be sent yet: the first is the oldest. */
static void show_held(const struct share *s, struct lessor_status_lane *entry) {
        *entry = (struct lessor_status_lane){.since_ns = TIME_NEVER};
        list_for_each (&s->held, it)
                if (entry->queued++ == 0)
                        entry->since_ns = container_of(it, struct held, link)->since;
}

void port_show(struct port *p, struct roll *roll) {
        struct lessor_status_lane entry;
        for (struct share *s = p->shares; s; s = s->next) {
                show_held(s, &entry);
                if (!pipelines_show(s->database, s, &entry))
                        continue;
                entry.session = p->session;
                entry.holder_pid = (int32_t)p->program.pid;
                entry.holder_uid = p->identity->uid;
                wire_string(entry.holder, sizeof(entry.holder), program_name(&p->program));
                roll_note(roll, &entry);
        }
}

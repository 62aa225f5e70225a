/* SPDX-License-Identifier: MIT */
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fdpass.h"
#include "log.h"
#include "peer/peer.h"
#include "port.h"

#define USED_WORDS (LESSOR_DATABASES_MAX / 64)

struct session {
        struct directory_session entry;
        struct session_set *set;
        struct list link; /* in set->newcomers, then in set->sessions */
        bool newcomer, admitted;
        struct peer peer;
        struct letter letter; /* to the undertaker */
        struct session_memory *memory;
        bool words;                                   /* LESSOR_FEATURE_WORDS */
        bool lanes;                                   /* LESSOR_FEATURE_LANES */
        struct port **ports;                          /* one a thread; NULL: none was asked for */
        struct tenant *tenants[LESSOR_DATABASES_MAX]; /* the databases': not to be looked into here */
        char program[LESSOR_NAME_SIZE];               /* as he calls himself */
};

static struct session *session_of_peer(struct peer *peer) { return container_of(peer, struct session, peer); }

/* ---- letters between a session's thread and a database's --------------------------------------------------------- */

/* Everything but a lease request, which is its own letter. */
struct errand {
        struct letter letter;
        struct database *database;
        struct tenant *tenant;
        union wire_message message;
};

static struct errand *errand_new(struct database *db, struct tenant *tenant) {
        struct errand *errand = calloc(1, sizeof(*errand));
        if (errand) {
                errand->database = db;
                errand->tenant = tenant;
        }
        return errand;
}

static void open_lease(struct letter *letter) { database_lease(container_of(letter, struct database_request, letter)); }

static void do_errand(struct database *db, struct tenant *tenant, const union wire_message *message) {
        switch ((enum lessor_message)message->header.type) {
        case LESSOR_MSG_CANCEL:
                database_cancel(db, tenant, message->header.request);
                break;
        case LESSOR_MSG_RETURN:
                database_return(db, tenant, &message->giveback);
                break;
        case LESSOR_MSG_REPORT:
                database_report(db, tenant, &message->report);
                break;
        case LESSOR_MSG_ATTACH:
        case LESSOR_MSG_ATTACHED:
        case LESSOR_MSG_LOOKUP:
        case LESSOR_MSG_DATABASE:
        case LESSOR_MSG_LEASE:
        case LESSOR_MSG_GRANT:
        case LESSOR_MSG_ERROR:
        case LESSOR_MSG_LANE:
        case LESSOR_MSG_LANE_OPENED:
        case LESSOR_MSG_LANE_REPLY:
        case LESSOR_MSG_LANE_WAKE:
                break;
        }
}

static void open_errand(struct letter *letter) {
        struct errand *errand = container_of(letter, struct errand, letter);
        do_errand(errand->database, errand->tenant, &errand->message);
        free(errand);
}

static void open_ended(struct letter *letter) {
        struct errand *errand = container_of(letter, struct errand, letter);
        database_session_ended(errand->database, errand->tenant);
        free(errand);
}

/* An answer on its way home: the message, and a dup of the granted fd. */
struct answer {
        struct letter letter;
        struct loop *home;
        uint64_t session;
        int fd;
        int end; /* the outcome that ends the session, for `why`; 0: the message is to be delivered */
        const char *why;
        union wire_message message;
};

/* ---- answers -------------------------------------------------------------------------------------------------- */

static struct session *find(struct loop *here, uint64_t id) {
        struct session_set *set = container_of(here, struct session_set, loop);
        rcu_read_lock();
        struct directory_session *entry = directory_session(set->host->directory, id);
        rcu_read_unlock();
        /* Only this thread removes sessions of its own: what is found stays. */
        return entry ? container_of(entry, struct session, entry) : NULL;
}

static void deliver(struct loop *here, uint64_t id, const union wire_message *message, int fd) {
        struct session *s = find(here, id);
        if (!s)
                return;                   /* ended meanwhile; the database hears of that and takes the lease back */
        if (message->header.request != 0) /* else it answers no question: news of a lane */
                atomic_fetch_sub_explicit(session_memory_open_requests(s->memory), 1, memory_order_relaxed);
        peer_send(&s->peer, message, fd);
}

static void open_answer(struct letter *letter) {
        struct answer *answer = container_of(letter, struct answer, letter);
        struct session *s = answer->end ? find(answer->home, answer->session) : NULL;
        if (s)
                peer_end(&s->peer, answer->end, answer->why);
        else if (!answer->end)
                deliver(answer->home, answer->session, &answer->message, answer->fd);
        fd_close(answer->fd);
        free(answer);
}

static void send_home(struct loop *home, uint64_t session, const union wire_message *message, int fd, const char *why) {
        struct answer *answer = calloc(1, sizeof(*answer));
        if (!answer) {
                log_error("session: out of memory, an answer is lost session=%" PRIu64, session);
                return;
        }
        answer->home = home;
        answer->session = session;
        answer->end = why ? LESSOR_E_PROTOCOL : 0;
        answer->why = why;
        answer->fd = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
        if (message)
                answer->message = *message;
        if (fd >= 0 && answer->fd < 0) {
                /* Out of fds: the worker cannot be served; ending him frees the lease again. */
                answer->end = LESSOR_E_LIMIT;
                answer->why = "the broker is out of file descriptors";
        }
        mailbox_post(&home->inbox, &answer->letter, open_answer);
}

static void on_granted(struct loop *here, const struct tenant *tenant, const union wire_message *grant, int fd) {
        if (tenant->home == here)
                deliver(here, tenant->session, grant, fd);
        else
                send_home(tenant->home, tenant->session, grant, fd, NULL);
}

static void on_refused(struct loop *here, const struct tenant *tenant, const union wire_message *error) {
        on_granted(here, tenant, error, -1);
}

static void on_violated(struct loop *here, const struct tenant *tenant, const char *why) {
        struct session *s;
        if (tenant->home != here)
                send_home(tenant->home, tenant->session, NULL, -1, why);
        else if ((s = find(here, tenant->session)))
                peer_end(&s->peer, LESSOR_E_PROTOCOL, why);
}

const struct database_ops session_database_ops = {
        .granted = on_granted, .refused = on_refused, .violated = on_violated};

/* ---- news of lanes ------------------------------------------------------------------------------------------------ */

static void on_lane_message(struct loop *here, struct loop *home, uint64_t session, const union wire_message *message,
                            int fd) {
        struct session *s;
        if (home != here)
                send_home(home, session, message, fd, NULL);
        else if ((s = find(here, session)))
                peer_send(&s->peer, message, fd);
}

static void on_lane_violated(struct loop *here, struct loop *home, uint64_t session, const char *why) {
        struct session *s;
        if (home != here)
                send_home(home, session, NULL, -1, why);
        else if ((s = find(here, session)))
                peer_end(&s->peer, LESSOR_E_PROTOCOL, why);
}

const struct lanes_ops session_lanes_ops = {.send = on_lane_message, .violated = on_lane_violated};

/* ---- what a worker says --------------------------------------------------------------------------------------- */

/* Counts him among the attached, if there is room for him and his like. 0; an outcome, and why. */
static int admit(struct session *s, char text[LESSOR_TEXT_SIZE]) {
        struct session_host *host = s->set->host;
        uid_t uid = s->peer.cred.uid;
        unsigned most = atomic_load_explicit(&host->max_sessions_per_user, memory_order_relaxed);

        if (atomic_fetch_add_explicit(&host->attached, 1, memory_order_relaxed) >= host->max_sessions) {
                snprintf(text, LESSOR_TEXT_SIZE, "the broker has reached max_sessions (%u)", host->max_sessions);
        } else {
                int r = users_enter(&host->users, uid, most);
                s->admitted = r == 0;
                snprintf(text, LESSOR_TEXT_SIZE,
                         r == -ENOMEM ? "the broker is out of memory" : "uid %u has reached max_sessions_per_user (%u)",
                         uid, most);
        }
        if (s->admitted) {
                atomic_fetch_add_explicit(&host->total, 1, memory_order_relaxed);
                return 0;
        }
        atomic_fetch_sub_explicit(&host->attached, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&host->refused, 1, memory_order_relaxed);
        log_warning("session: refused pid=%d why=%s", (int)s->peer.cred.pid, LOG_QUOTE(text));
        return LESSOR_E_LIMIT;
}

static void leave_attached(struct session *s) {
        struct session_host *host = s->set->host;
        if (!s->admitted)
                return;
        s->admitted = false;
        atomic_fetch_sub_explicit(&host->attached, 1, memory_order_relaxed);
        users_leave(&host->users, s->peer.cred.uid);
}

static void leave_newcomers(struct session *s) {
        if (s->newcomer) {
                s->set->n_newcomers--;
                atomic_fetch_sub_explicit(&s->set->host->newcomers, 1, memory_order_relaxed);
        }
        s->newcomer = false;
        list_remove(&s->link);
}

static int on_attach(struct peer *peer, const struct lessor_msg_attach *msg, struct lessor_msg_attached *ret,
                     int fds[2], char text[LESSOR_TEXT_SIZE]) {
        struct session *s = session_of_peer(peer);
        struct session_host *host = s->set->host;
        _cleanup_(fd_closep) int memory_fd = -1;
        int r = admit(s, text);
        if (r != 0)
                return r;
        struct session_memory *memory;
        r = session_memory_new(s->entry.id, host->instance, &memory, &memory_fd);
        if (r < 0) {
                snprintf(text, LESSOR_TEXT_SIZE, "the broker cannot make a session segment: %s", strerror(-r));
                log_error("session: %s pid=%d", text, (int)peer->cred.pid);
                return LESSOR_E_LIMIT;
        }
        __atomic_store_n(&s->memory, memory, __ATOMIC_RELEASE); /* pairs with the acquire in session_harvest() */
        leave_newcomers(s);
        list_push_back(&s->set->sessions, &s->link);
        memcpy(s->program, msg->program, sizeof(s->program));
        ret->features = msg->features & LESSOR_FEATURE_SEGMENT;
        if (ret->features) /* words lie in the segment, lanes need the control page */
                ret->features |= msg->features & (LESSOR_FEATURE_WORDS | LESSOR_FEATURE_LANES);
        s->words = ret->features & LESSOR_FEATURE_WORDS;
        s->lanes = ret->features & LESSOR_FEATURE_LANES;
        ret->session = s->entry.id;
        ret->instance = host->instance;
        ret->databases = host->control->map->databases;
        ret->broker_pid = (int32_t)getpid();
        ret->requests_max = LESSOR_REQUESTS_MAX;
        if (ret->features & LESSOR_FEATURE_SEGMENT) {
                ret->control_size = sizeof(struct lessor_control);
                ret->segment_size = session_memory_size();
                fds[0] = host->control->fd;
                fds[1] = fd_steal(&memory_fd);
        }
        return 0;
}

static const char *on_lookup(struct peer *peer, const struct lessor_msg_lookup *msg) {
        struct session *s = session_of_peer(peer);
        union wire_message answer;
        char text[LESSOR_TEXT_SIZE], known[LESSOR_TEXT_SIZE - 100];

        rcu_read_lock();
        struct database *db = directory_find(s->set->host->directory, msg->name);
        if (!db) {
                directory_list(s->set->host->directory, known, sizeof(known));
                snprintf(text, sizeof(text), "no database `%.63s`; known are %s", msg->name, known);
                peer_send_error(peer, msg->header.request, LESSOR_E_UNKNOWN_DATABASE, 0, text);
        } else {
                const struct config_database *config = database_config(db);
                wire_init(&answer, LESSOR_MSG_DATABASE, msg->header.request);
                answer.database.database = database_index(db);
                answer.database.max_connections = config->max_connections;
                answer.database.wait_timeout_ns = config->wait_timeout_ns;
                answer.database.socket_timeout_ns = config->socket_timeout_ns;
                peer_send(peer, &answer, -1);
        }
        rcu_read_unlock();
        return NULL;
}

/* His standing at the database, made at his first request; NULL: out of memory. */
static struct tenant *tenant_at(struct session *s, unsigned database) {
        struct tenant *t = s->tenants[database];
        if (t || !(t = tenant_new(&s->set->loop, s->entry.id, s->words ? s->memory : NULL)))
                return t;
        t->program.pid = s->peer.cred.pid;
        t->uid = s->peer.cred.uid;
        memcpy(t->program.name, s->program, sizeof(t->program.name));
        return s->tenants[database] = t;
}

static void request_lease(struct session *s, struct database *db, const struct lessor_msg_lease *msg) {
        struct tenant *tenant = tenant_at(s, msg->database);
        struct database_request *request = tenant ? calloc(1, sizeof(*request)) : NULL;
        if (!request) {
                peer_send_error(&s->peer, msg->header.request, LESSOR_E_LIMIT, 0, "the broker is out of memory");
                return;
        }
        request->database = db;
        request->tenant = tenant;
        request->wait_ns = msg->wait_ns;
        request->number = msg->header.request;
        request->tid = msg->tid;
        request->pinned = msg->flags & LESSOR_LEASE_PINNED;
        request->ticket = s->words ? msg->ticket : LESSOR_TICKET_NONE;
        memcpy(request->site, msg->site, sizeof(request->site));
        atomic_fetch_add_explicit(session_memory_open_requests(s->memory), 1, memory_order_relaxed);
        session_memory_note_use(s->memory, msg->database);
        if (database_loop(db) == &s->set->loop)
                database_lease(request);
        else
                mailbox_post(&database_loop(db)->inbox, &request->letter, open_lease);
}

static const char *on_lease(struct peer *peer, const struct lessor_msg_lease *msg) {
        struct session *s = session_of_peer(peer);
        char text[LESSOR_TEXT_SIZE];

        rcu_read_lock();
        struct database *db = directory_database(s->set->host->directory, msg->database);
        if (!db || database_removed(db)) {
                peer_send_error(peer, msg->header.request, LESSOR_E_UNKNOWN_DATABASE, 0, "no database of that number");
        } else if (!database_allows(db, peer)) {
                snprintf(text, sizeof(text), "database `%s`: uid %u is not in its `allow` list",
                         database_config(db)->name, peer->cred.uid);
                peer_send_error(peer, msg->header.request, LESSOR_E_DENIED, 0, text);
        } else if (atomic_load_explicit(session_memory_open_requests(s->memory), memory_order_relaxed) >=
                   LESSOR_REQUESTS_MAX) {
                peer_send_error(peer, msg->header.request, LESSOR_E_LIMIT, 0,
                                "too many unanswered requests of one session");
        } else {
                request_lease(s, db, msg);
        }
        rcu_read_unlock();
        return NULL;
}

static const char *send_errand(struct session *s, struct database *db, struct tenant *tenant,
                               const union wire_message *message) {
        if (database_loop(db) == &s->set->loop) {
                do_errand(db, tenant, message);
                return NULL;
        }
        struct errand *errand = errand_new(db, tenant);
        if (!errand)
                return "the broker is out of memory"; /* ending the session takes everything back */
        errand->message = *message;
        mailbox_post(&database_loop(db)->inbox, &errand->letter, open_errand);
        return NULL;
}

/* To the database's thread, by a call or by a letter. */
static const char *forward(struct peer *peer, unsigned index, const void *message, size_t size) {
        struct session *s = session_of_peer(peer);
        const char *wrong = NULL;
        union wire_message copy;

        memcpy(&copy, message, size);
        rcu_read_lock();
        struct database *db = directory_database(s->set->host->directory, index);
        if (!db)
                wrong = "a database of that number does not exist";
        else if (s->tenants[index])
                wrong = send_errand(s, db, s->tenants[index], &copy);
        else if (copy.header.type != LESSOR_MSG_CANCEL) /* that one crosses answers; here nothing was asked yet */
                wrong = "a lease of a database that this session never asked for";
        rcu_read_unlock();
        return wrong;
}

static const char *on_cancel(struct peer *peer, const struct lessor_msg_cancel *msg) {
        return forward(peer, msg->database, msg, sizeof(*msg));
}
static const char *on_giveback(struct peer *peer, const struct lessor_msg_return *msg) {
        return forward(peer, msg->database, msg, sizeof(*msg));
}
static const char *on_report(struct peer *peer, const struct lessor_msg_report *msg) {
        return forward(peer, msg->database, msg, sizeof(*msg));
}

static int open_lane(struct session *s, unsigned thread, int fds[2]) {
        struct session_host *host = s->set->host;
        struct port_options o = {.lanes = &host->threads[thread].lanes,
                                 .memory = s->memory,
                                 .home = &s->set->loop,
                                 .session = s->entry.id,
                                 .program = s->program,
                                 .identity = peer_identify(&s->peer)};
        if (!s->ports)
                s->ports = calloc(host->n_threads, sizeof(struct port *));
        if (!o.identity || !s->ports) {
                free(o.identity);
                return -ENOMEM;
        }
        return port_new(&o, &s->ports[thread], fds);
}

static const char *on_lane(struct peer *peer, const struct lessor_msg_lane *msg) {
        struct session *s = session_of_peer(peer);
        struct session_host *host = s->set->host;
        char text[LESSOR_TEXT_SIZE];
        union wire_message answer;
        int fds[2] = {-1, -1};
        if (!s->lanes)
                return "a lane without LESSOR_FEATURE_LANES";
        if (msg->thread >= host->n_threads)
                return "a lane to a thread that does not exist";
        if (s->ports && s->ports[msg->thread])
                return "a second lane to the same thread";
        int r = open_lane(s, msg->thread, fds);
        if (r < 0) {
                snprintf(text, sizeof(text), "the broker cannot make a lane: %s", strerror(-r));
                log_warning("session: %s pid=%d", text, (int)peer->cred.pid);
                peer_send_error(peer, msg->header.request, LESSOR_E_LIMIT, 0, text);
                return NULL;
        }
        wire_init(&answer, LESSOR_MSG_LANE_OPENED, msg->header.request);
        answer.lane_opened.thread = msg->thread;
        answer.lane_opened.size = port_size(&host->threads[msg->thread].lanes);
        port_begin(s->ports[msg->thread]);
        peer_send_two(peer, &answer, fds);
        fd_close(fds[0]);
        return NULL;
}

static void close_lanes(struct session *s) {
        for (unsigned i = 0; s->ports && i < s->set->host->n_threads; i++)
                if (s->ports[i])
                        port_end(s->ports[i]);
        free(s->ports);
        s->ports = NULL;
}

/* ---- the end ---------------------------------------------------------------------------------------------------- */

static void tell_database(struct session *s, struct database *db, struct tenant *tenant) {
        if (database_loop(db) == &s->set->loop) {
                database_session_ended(db, tenant);
                return;
        }
        struct errand *errand = errand_new(db, tenant);
        if (!errand) {
                log_error("session: out of memory, leases of pid %d in `%s` are not taken back", (int)s->peer.cred.pid,
                          database_config(db)->name);
                return;
        }
        mailbox_post(&database_loop(db)->inbox, &errand->letter, open_ended);
}

static void tell_databases(struct session *s) {
        rcu_read_lock();
        for (unsigned i = 0; i < LESSOR_DATABASES_MAX; i++) {
                if (!s->tenants[i])
                        continue;
                tell_database(s, directory_database(s->set->host->directory, i), s->tenants[i]);
                s->tenants[i] = NULL;
        }
        rcu_read_unlock();
}

static void on_ended(struct peer *peer, const char *why) {
        struct session *s = session_of_peer(peer);
        struct session_host *host = s->set->host;
        log_debug("session: ended id=%" PRIu64 " pid=%d program=%s why=\"%s\"", s->entry.id, (int)peer->cred.pid,
                  LOG_QUOTE(s->program), why);
        peer_deinit(peer);
        leave_newcomers(s);
        directory_remove(host->directory, &s->entry);
        tell_databases(s);
        close_lanes(s);
        leave_attached(s);
        mailbox_post(host->undertaker, &s->letter, host->bury);
}

static const struct peer_ops ops = {.attach = on_attach,
                                    .lookup = on_lookup,
                                    .lease = on_lease,
                                    .cancel = on_cancel,
                                    .giveback = on_giveback,
                                    .report = on_report,
                                    .lane = on_lane,
                                    .ended = on_ended};

static void turn_away(int fd, int outcome, const char *text) {
        union wire_message message;
        wire_init(&message, LESSOR_MSG_ERROR, 0);
        message.error.outcome = outcome;
        message.error.flags = LESSOR_FATAL;
        wire_string(message.error.text, sizeof(message.error.text), text);
        (void)fdpass_send(fd, &message, message.header.size, NULL, 0);
        fd_close(fd);
}

/* Whoever means it attaches within a moment: the one who has been silent longest makes room. */
static void limit_newcomers(struct session_set *set) {
        struct session_host *host = set->host;
        uint64_t others = atomic_load_explicit(&host->newcomers, memory_order_relaxed) +
                          atomic_load_explicit(&host->attached, memory_order_relaxed);
        if (set->n_newcomers < SESSION_NEWCOMERS_MAX || others < host->max_sessions)
                return;
        struct session *oldest = container_of(list_first(&set->newcomers), struct session, link);
        leave_newcomers(oldest);
        list_push_back(&set->sessions, &oldest->link); /* until his end has come round */
        peer_end(&oldest->peer, LESSOR_E_PROTOCOL, "no ATTACH yet, and others want to");
}

void session_accept(struct session_set *set, int fd) {
        struct session_host *host = set->host;
        if (set->ended) { /* the first thread handed him over before it was told to stop itself */
                turn_away(fd, LESSOR_E_UNAVAILABLE, "the broker is stopping");
                return;
        }
        struct session *s = calloc(1, sizeof(*s));
        if (!s || peer_init(&s->peer, set->loop.base, fd, &ops) < 0) {
                free(s);
                turn_away(fd, LESSOR_E_LIMIT, "the broker is out of memory");
                return;
        }
        limit_newcomers(set);
        s->set = set;
        s->entry.id = atomic_fetch_add_explicit(&host->last_id, 1, memory_order_relaxed) + 1;
        s->newcomer = true;
        set->n_newcomers++;
        atomic_fetch_add_explicit(&host->newcomers, 1, memory_order_relaxed);
        list_push_back(&set->newcomers, &s->link);
        directory_add(host->directory, &s->entry);
}

void session_set_init(struct session_set *set, struct session_host *host) {
        set->host = host;
        list_init(&set->sessions);
        list_init(&set->newcomers);
}

static void end_list(struct session_set *set, struct list *list, const char *why) {
        list_for_each_safe (list, it, next) {
                struct session *s = container_of(it, struct session, link);
                peer_end(&s->peer, LESSOR_E_UNAVAILABLE, why);
                peer_deinit(&s->peer);
                leave_newcomers(s);
                directory_remove(set->host->directory, &s->entry);
                mailbox_post(set->host->undertaker, &s->letter, set->host->bury);
        }
}

void session_end_all(struct session_set *set, const char *why) {
        set->ended = true;
        end_list(set, &set->sessions, why);
        end_list(set, &set->newcomers, why);
}

unsigned session_kill(struct session_set *set, uint64_t id, pid_t pid, pid_t *ret_pid) {
        unsigned n = 0;
        list_for_each (&set->sessions, it) {
                struct session *s = container_of(it, struct session, link);
                if (s->peer.state != PEER_ATTACHED || (id ? s->entry.id != id : s->peer.cred.pid != pid))
                        continue;
                if (n++ == 0)
                        *ret_pid = s->peer.cred.pid;
                peer_end(&s->peer, LESSOR_E_UNAVAILABLE, "the session was ended by an operator");
        }
        return n;
}

/* ---- the undertaker's part -------------------------------------------------------------------------------------- */

void session_harvest(struct directory_session *entry, session_totals *visit, void *userdata) {
        const struct session *s = container_of(entry, struct session, entry);
        /* Pairs with the release in on_attach(): it is whole. */
        struct session_memory *memory = __atomic_load_n(&s->memory, __ATOMIC_ACQUIRE);
        for (unsigned w = 0; memory && w < USED_WORDS; w++)
                for (uint64_t used = session_memory_used(memory, w); used; used &= used - 1)
                        visit(userdata, w * 64 + (unsigned)__builtin_ctzll(used), memory);
}

struct directory_session *session_of_letter(struct letter *letter) {
        return &container_of(letter, struct session, letter)->entry;
}

void *session_undertaker(struct letter *letter) {
        return container_of(letter, struct session, letter)->set->host->undertaker_data;
}

void session_free(struct directory_session *entry) {
        struct session *s = container_of(entry, struct session, entry);
        session_memory_unref(s->memory);
        free(s->ports); /* the broker has stopped: the ports went with their threads */
        free(s);
}

/* SPDX-License-Identifier: MIT */
/*
 * A connection is borrowed when a call needs one and given back as soon as nothing is under way on it: parked, with the clean
 * proof, like anybody's. Calls that follow are sent behind each other, without waiting for replies, as long as nobody
 * else on the host waits for it.
 *
 * Its I/O is MSG_DONTWAIT alone, readiness the epoll's. It leaves the epoll before it is given back: the description is the broker's,
 * too, and would go on telling us.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "async_core.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "error.h"
#include "lease.h"
#include "warm.h"

enum { DEAD_MAX = 64 };                         /* as in acquire.c */
enum { BUFFER = 16 * 1024, READS_A_TURN = 16 }; /* so nobody is kept waiting by one large reply */
enum { BATCH = 64 };
enum {
        FLIGHT_MAX = 256
}; /* as in a lane: so many may have run when the connection breaks, and are waited for when it is wanted */

static struct async_call *flight_first(const struct async_conn *conn) {
        struct list *first = list_first(&conn->flight);
        return first ? container_of(first, struct async_call, link) : NULL;
}

static struct async_call *flight_next(struct async_conn *conn, struct async_call *c) {
        return c->link.next == &conn->flight ? NULL : container_of(c->link.next, struct async_call, link);
}

/* ---- taking and giving back ------------------------------------------------------------------------------------------- */

static void conn_watch(lessor_async_db *db, uint32_t events) {
        struct async_conn *conn = &db->conn;
        struct epoll_event e = {.events = events, .data.ptr = &conn->source};

        if (conn->watched && events == conn->events)
                return;
        epoll_ctl(guard_fd(db->async->inbox.epoll), conn->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD,
                  conn->lease->stream.fd, &e);
        conn->watched = true;
        conn->events = events;
}

static void conn_took(lessor_async_db *db, struct lessor_lease *l) {
        db->conn.lease = l;
        db->conn.fed = 0;
        db->conn.watched = false;
        conn_watch(db, EPOLLIN);
}

static void conn_give(lessor_async_db *db) {
        struct async_conn *conn = &db->conn;
        struct lessor_lease *l = ptr_steal(&conn->lease);

        epoll_ctl(guard_fd(db->async->inbox.epoll), EPOLL_CTL_DEL, l->stream.fd, NULL);
        conn->watched = false;
        conn->write = NULL;
        async_give(db->async, l);
        if (!list_empty(&db->pending))
                inbox_poke(&db->async->inbox);
}

static void conn_answered(struct async_ask *ask, struct lessor_lease *l, const lessor_error *error) {
        lessor_async_db *db = ask->db;
        struct list *first = list_first(&db->pending);
        struct async_call *c = first ? container_of(first, struct async_call, link) : NULL;

        if (l)
                conn_took(db, l);
        else if (c && c->number == db->conn.asked_for)
                call_finish(c, error);
        inbox_poke(&db->async->inbox);
}

static int remaining_ms(struct async_call *c) {
        uint64_t ms = (time_left(clock_now(), call_deadline(c)) + NS_PER_MS - 1) / NS_PER_MS;
        return ms < INT_MAX ? (int)ms : INT_MAX;
}

static bool conn_take(lessor_async_db *db, struct async_call *c, bool parked) {
        struct request request = {.wait_ms = remaining_ms(c), .pinned = c->blocks, .site.file = "lessor_async_command"};
        struct lessor_lease *l;

        if (db->conn.ask.state != ASYNC_ASK_NONE)
                return false;
        l = async_take_parked(db, &request);
        if (l)
                conn_took(db, l);
        else if (!parked) {
                db->conn.asked_for = c->number;
                async_ask(&db->conn.ask, &request);
        }
        return l != NULL;
}

/* ---- ends ------------------------------------------------------------------------------------------------------------- */

static void flight_leave(struct async_conn *conn, struct async_call *c) {
        conn->in_flight--;
        if (conn->write == c)
                conn->write = flight_next(conn, c);
        list_remove(&c->link);
}

static void flight_finish(struct async_call *c, const lessor_error *error) {
        if (!c->let_go)
                call_finish(c, error);
        else if (c->told)
                call_dispose(c); /* else when it is called back */
}

/* Of all in flight: nothing that follows on this connection can be told apart. */
static void conn_fail(lessor_async_db *db, int result, int error_number) {
        struct async_conn *conn = &db->conn;
        struct lessor_lease *l = conn->lease;
        struct async_call *c;

        while ((c = flight_first(conn))) {
                bool unsent = c->x.written == 0 && c->x.got == 0 && !c->let_go && c->dead++ < DEAD_MAX;
                lessor_error error;
                flight_leave(conn, c);
                if (unsent) {
                        call_again(c);
                        continue;
                }
                c->x.error = error_number;
                c->x.text = c->x.text ? c->x.text : "in an earlier reply";
                lease_exchange_end(l, &c->x, result, &error);
                flight_finish(c, &error);
        }
        l->touched = true;
        l->broken = result;
        conn_give(db);
}

void conn_let_go(struct async_call *c) {
        struct async_conn *conn = &c->db->conn;
        lessor_error e;

        if (c->x.written == 0) {
                flight_leave(conn, c);
                error_set(&e, LESSOR_E_CANCELLED, "the command was taken back; it was not sent");
                call_finish(c, &e);
                return;
        }
        error_set(&e, LESSOR_E_CANCELLED, "the command was taken back; the command may have run");
        e.may_have_run = true;
        c->let_go = true;
        c->code = e.code;
        c->may_have_run = true;
        list_push_back(&c->db->async->finished, &c->ended);
        inbox_poke(&c->db->async->inbox);
}

/* ---- writing and reading ------------------------------------------------------------------------------------------------ */

bool conn_feed(lessor_async_db *db, struct async_call *c, bool parked) {
        struct async_conn *conn = &db->conn;
        struct lessor_lease *l;
        int r;

        if (conn->lease && c->blocks && !conn->lease->pinned && conn->lease->set->control->max_pinned > 0) {
                if (list_empty(&conn->flight))
                        conn_give(db);
                else
                        return false;
        }
        if (!conn->lease && !conn_take(db, c, parked))
                return false;
        l = conn->lease;
        if (conn->in_flight >= FLIGHT_MAX)
                return false;
        if (conn->fed > 0 && l->slot && word_is_wanted(atomic_load_explicit(&l->slot->word, memory_order_relaxed)))
                return false;
        r = lease_exchange_begin(l, &c->x);
        list_remove(&c->link);
        if (list_empty(&conn->flight))
                conn->reply_by = time_after(c->x.now, l->timeout_ns);
        list_push_back(&conn->flight, &c->link);
        c->way = ASYNC_CONN;
        conn->fed++;
        conn->in_flight++;
        if (!conn->write)
                conn->write = c;
        if (r != 0)
                conn_fail(db, r, c->x.error);
        return true;
}

/* As many as fit; false: the socket takes no more now, or it has failed. */
static bool conn_write_some(lessor_async_db *db) {
        struct async_conn *conn = &db->conn;
        struct exchange *x[BATCH];
        struct async_call *c = conn->write;
        int r, error = 0;
        size_t n = 0;

        for (; c && n < BATCH; c = flight_next(conn, c))
                x[n++] = &c->x;
        r = stream_send(&conn->lease->stream, x, n, &error);
        if (r != 0) {
                conn_fail(db, r, error);
                return false;
        }
        while (conn->write && conn->write->x.written == conn->write->x.size)
                conn->write = flight_next(conn, conn->write);
        return x[n - 1]->written == x[n - 1]->size;
}

void conn_write(lessor_async_db *db) {
        struct async_conn *conn = &db->conn;

        while (conn->lease && conn->write && conn_write_some(db))
                ;
        if (conn->lease)
                conn_watch(db, conn->write ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* False: the connection is gone. */
static bool conn_parse(lessor_async_db *db) {
        struct async_conn *conn = &db->conn;
        struct lessor_lease *l = conn->lease;
        struct async_call *c;
        bool any = false;

        while ((c = flight_first(conn))) {
                size_t before = c->x.got;
                int r = stream_parse(&l->stream, &c->x);
                if (r != 0) {
                        conn_fail(db, r, 0);
                        return false;
                }
                any = any || c->x.got > before;
                if (c->x.got < c->x.expected)
                        break;
                flight_leave(conn, c);
                lease_exchange_end(l, &c->x, 0, NULL);
                flight_finish(c, NULL);
                if (l->broken) {
                        conn_fail(db, l->broken, 0);
                        return false;
                }
        }
        if (any)
                conn->reply_by = time_after(clock_now(), l->timeout_ns);
        return true;
}

static void conn_read(lessor_async_db *db) {
        struct async_conn *conn = &db->conn;
        char buffer[BUFFER];

        for (int i = 0; i < READS_A_TURN; i++) {
                struct async_call *c = flight_first(conn);
                struct exchange none = {0}, *x = c ? &c->x : &none;
                int r = stream_receive(&conn->lease->stream, x, buffer, sizeof(buffer));
                if (r == -EAGAIN)
                        return;
                if ((r == 0 || r == STREAM_MORE) && !c)
                        r = LESSOR_E_PROTOCOL; /* what nobody asked for */
                if (r != 0 && r != STREAM_MORE) {
                        conn_fail(db, r, x->error);
                        return;
                }
                if (!conn_parse(db) || r == 0)
                        return;
        }
}

static void conn_ready(struct async_source *source, uint32_t events) {
        struct async_conn *conn = container_of(source, struct async_conn, source);
        lessor_async_db *db = container_of(conn, lessor_async_db, conn);

        /* Reading first: after an error or hangup there may still be replies. */
        if (conn->lease && (events & ~(uint32_t)EPOLLOUT))
                conn_read(db);
        if (conn->lease && (events & EPOLLOUT))
                conn_write(db);
}

/* ---- the turn ------------------------------------------------------------------------------------------------------- */

void conn_init(lessor_async_db *db) {
        db->conn.source.ready = conn_ready;
        db->conn.ask = (struct async_ask){.db = db, .answered = conn_answered};
        list_init(&db->conn.flight);
}

uint64_t conn_look_at(const lessor_async_db *db) {
        return list_empty(&db->conn.flight) ? TIME_NEVER : db->conn.reply_by;
}

void conn_turn(lessor_async_db *db, uint64_t now) {
        if (conn_look_at(db) <= now)
                conn_fail(db, LESSOR_E_REPLY_TIMEOUT, 0);
}

void conn_settle(lessor_async_db *db) {
        if (db->conn.lease && list_empty(&db->conn.flight))
                conn_give(db);
}

void conn_end(lessor_async_db *db) {
        struct async_conn *conn = &db->conn;
        struct async_call *c;

        async_ask_drop(&conn->ask);
        if (!conn->lease)
                return;
        while ((c = flight_first(conn))) { /* all of them were let go of */
                conn->lease->broken = LESSOR_E_CANCELLED;
                flight_leave(conn, c);
                flight_finish(c, NULL);
        }
        conn_give(db);
}

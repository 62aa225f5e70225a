/* SPDX-License-Identifier: MIT */
/*
 * Threads: the caller's becomes the control thread; `threads` data threads own the sessions and the databases, dealt out
 * in turn. The first data thread listens and hands each newcomer to the next thread.
 *
 * Stopping: the control loop ends, every data thread is told to end its sessions and its loop, is joined, and then
 * everything is freed by the caller's thread alone. Leased sockets are closed without shutdown: those leases go on.
 */
#include "broker_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "instance.h"
#include "log.h"

/* After running out of fds accept() would fail in a circle, at full speed: rest a little. */
#define ACCEPT_PAUSE_MS 100
#define ACCEPTS_PER_TURN 32

/* ---- newcomers ---------------------------------------------------------------------------------------------------- */

struct newcomer {
        struct letter letter;
        struct session_set *thread;
        int fd;
};

static void open_newcomer(struct letter *letter) {
        struct newcomer *n = container_of(letter, struct newcomer, letter);
        session_accept(n->thread, n->fd);
        free(n);
}

static void hand_out(struct broker *b, int fd) {
        struct session_set *thread = &b->threads[b->next_thread++ % b->config->threads];
        struct newcomer *n;
        if (thread == &b->threads[0]) {
                session_accept(thread, fd);
        } else if ((n = calloc(1, sizeof(*n)))) {
                n->thread = thread;
                n->fd = fd;
                mailbox_post(&thread->loop.inbox, &n->letter, open_newcomer);
        } else {
                fd_close(fd);
        }
}

static void pause_accepting(struct broker *b, int error) {
        struct timeval pause = {.tv_usec = ACCEPT_PAUSE_MS * 1000};
        log_warning("socket: cannot accept a worker, trying again in %d ms: %s", ACCEPT_PAUSE_MS, strerror(error));
        event_del(b->accept);
        event_add(b->accept_pause, &pause);
}

static void on_accept(evutil_socket_t listener, short what, void *userdata) {
        struct broker *b = userdata;
        for (unsigned i = 0; i < ACCEPTS_PER_TURN; i++) {
                int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
                if (fd >= 0) {
                        hand_out(b, fd);
                } else if (errno == EAGAIN) {
                        return;
                } else if (errno != EINTR && errno != ECONNABORTED) {
                        pause_accepting(b, errno);
                        return;
                }
        }
}

static void on_accept_pause(evutil_socket_t fd, short what, void *userdata) {
        struct broker *b = userdata;
        event_add(b->accept, NULL);
}

/* ---- putting it together ------------------------------------------------------------------------------------------ */

static int make_segments(struct broker *b) {
        const struct config *c = b->config;
        struct status_shape shape = {.instance = c->instance,
                                     .release = LESSOR_RELEASE,
                                     .generation = b->generation,
                                     .start_time = clock_wall(),
                                     .databases = LESSOR_DATABASES_MAX,
                                     .connections = b->connection_capacity,
                                     .lanes = c->threads * LANES_SHOWN};
        int r = status_segment_new(&shape, &b->segment);
        if (r == -EEXIST)
                log_error("status: /dev/shm/lessor.%s is not a file of ours: remove it, or use another --instance",
                          c->instance);
        else if (r == -ENOSPC)
                log_error("status: /dev/shm is full: make room for the status segment of %s", c->instance);
        else if (r < 0)
                log_error("status: cannot make /dev/shm/lessor.%s: %s", c->instance, strerror(-r));
        if (r < 0)
                return r;
        r = control_page_init(&b->page, b->generation);
        if (r < 0)
                log_error("status: cannot make the control page: %s", strerror(-r));
        return r;
}

static bool turn(void *lanes) { return lanes_turn(lanes); }
static bool may_sleep(void *lanes) { return lanes_may_sleep(lanes); }
static void awake(void *lanes) { lanes_awake(lanes); }

static int make_lanes(struct broker *b, unsigned i) {
        struct session_set *thread = &b->threads[i];
        struct lanes_options options = {.loop = &thread->loop,
                                        .thread = i,
                                        .size = (uint32_t)b->config->lane_size,
                                        .directory = &b->directory,
                                        .ops = &session_lanes_ops,
                                        .budget = &b->reply_budget,
                                        .bell = &b->page.map->bells[i]};
        thread->loop.turns =
                (struct loop_turns){.turn = turn, .may_sleep = may_sleep, .awake = awake, .userdata = &thread->lanes};
        return lanes_init(&thread->lanes, &options);
}

static int make_threads(struct broker *b) {
        b->threads = calloc(b->config->threads, sizeof(*b->threads));
        if (!b->threads)
                return -ENOMEM;
        for (unsigned i = 0; i < b->config->threads; i++) {
                struct session_set *thread = &b->threads[i];
                session_set_init(thread, &b->host);
                b->n_threads_ready++;
                int r = loop_init(&thread->loop, true);
                if (r == 0)
                        r = make_lanes(b, i);
                if (r < 0)
                        return r;
        }
        b->host.threads = b->threads;
        b->host.n_threads = b->config->threads;
        return 0;
}

int broker_make_database(struct broker *b, const struct config_database *c, unsigned i) {
        struct database_options options = {.config = c,
                                           .instance = b->config->instance,
                                           .index = i,
                                           .first_connection = b->n_connections,
                                           .fd_cache = b->current->fd_cache,
                                           .generation = b->generation,
                                           .loop = &b->threads[i % b->config->threads].loop,
                                           .ops = &session_database_ops,
                                           .page = &b->page,
                                           .lanes = &b->threads[i % b->config->threads].lanes};
        int r = database_new(&options, &b->databases[i]);
        if (r < 0)
                return r;
        if (b->n_connections + database_places(b->databases[i]) > b->connection_capacity) {
                database_free(b->databases[i]);
                b->databases[i] = NULL;
                return -ENOSPC;
        }
        b->first_connection[i] = b->n_connections;
        b->n_connections += database_places(b->databases[i]);
        b->n_databases = i + 1;
        return 0;
}

void broker_show_database(struct broker *b, const struct config_database *c, unsigned i) {
        struct control_entry entry = {.name = c->name,
                                      .max_connections = c->max_connections,
                                      .max_pinned = c->max_pinned,
                                      .thread = i % b->config->threads,
                                      .wait_timeout_ns = c->wait_timeout_ns,
                                      .socket_timeout_ns = c->socket_timeout_ns};
        control_page_set(&b->page, i, &entry);
}

static int make_databases(struct broker *b) {
        unsigned n = b->config->n_databases;
        struct directory_names *names = calloc(1, sizeof(*names) + n * sizeof(struct database *));
        b->databases = calloc(LESSOR_DATABASES_MAX, sizeof(struct database *));
        b->first_connection = calloc(LESSOR_DATABASES_MAX, sizeof(*b->first_connection));
        if (!names || !b->databases || !b->first_connection) {
                free(names);
                return -ENOMEM;
        }
        directory_publish(&b->directory, names);
        for (unsigned i = 0; i < n; i++) {
                int r = broker_make_database(b, &b->config->databases[i], i);
                if (r < 0)
                        return r;
                names->databases[names->n++] = b->databases[i];
                broker_show_database(b, &b->config->databases[i], i);
        }
        return 0;
}

static int make_listener(struct broker *b) {
        struct instance_socket s = {
                .path = b->config->socket, .mode = (mode_t)b->config->socket_mode, .group = b->config->socket_gid};
        b->listener = service_take_listener(s.path);
        b->activated = b->listener >= 0;
        if (b->listener == -1)
                b->listener = instance_listen(&s);
        if (b->listener < 0)
                return b->listener;
        struct event_base *base = b->threads[0].loop.base;
        b->accept = event_new(base, b->listener, EV_READ | EV_PERSIST, on_accept, b);
        b->accept_pause = evtimer_new(base, on_accept_pause, b);
        return b->accept && b->accept_pause && event_add(b->accept, NULL) == 0 ? 0 : -ENOMEM;
}

static int make_control(struct broker *b) {
        struct control_options options = {.host = &b->host,
                                          .threads = b->threads,
                                          .n_threads = b->config->threads,
                                          .databases = b->databases,
                                          .n_databases = b->n_databases,
                                          .first_connection = b->first_connection,
                                          .n_connections = b->n_connections,
                                          .segment = b->segment,
                                          .service = &b->service,
                                          .reload = administer_reload,
                                          .userdata = b};
        return control_new(&b->control_loop, &options, &b->control);
}

static void make_host(struct broker *b) {
        b->host.directory = &b->directory;
        b->host.control = &b->page;
        b->host.undertaker = &b->control_loop.inbox;
        b->host.bury = control_bury;
        b->host.instance = b->generation;
        b->host.max_sessions = b->config->max_sessions;
        b->host.max_sessions_per_user = b->config->max_sessions_per_user;
        users_init(&b->host.users);
        atomic_init(&b->reply_budget.limit, b->config->reply_budget);
}

static int assemble(struct broker *b) {
        int r = instance_raise_fds(config_fd_need(b->config));
        if (r < 0)
                return r;
        b->lock = instance_lock(b->config->instance);
        if (b->lock < 0)
                return b->lock;
        if ((r = make_segments(b)) < 0 || (r = directory_init(&b->directory, b->config->max_sessions)) < 0 ||
            (r = loop_init(&b->control_loop, false)) < 0 || (r = make_threads(b)) < 0 || (r = make_databases(b)) < 0 ||
            (r = make_control(b)) < 0)
                return r;
        administer_start(b);
        /* The socket comes last: whoever can connect finds everything there. */
        return make_listener(b);
}

int broker_new(const struct config *config, const struct broker_loader *loader, struct broker **ret) {
        struct broker *b = calloc(1, sizeof(*b));
        if (!b)
                return -ENOMEM;
        rcu_register_thread();
        b->config = b->current = config;
        b->loader = *loader;
        b->generation = clock_wall();
        service_init(&b->service);
        b->lock = b->listener = b->page.fd = -1;
        b->connection_capacity = BROKER_SPARE_CONNECTIONS;
        for (unsigned i = 0; i < config->n_databases; i++)
                b->connection_capacity += dialling_places(&config->databases[i]);
        list_init(&b->reloads_wanted);
        list_init(&b->reloads_begun);
        make_host(b);
        int r = assemble(b);
        if (r < 0) {
                if (r == -ENOMEM)
                        log_error("broker: out of memory");
                broker_free(b);
                return r;
        }
        *ret = b;
        return 0;
}

/* ---- running and stopping ------------------------------------------------------------------------------------------ */

struct stop {
        struct letter letter;
        struct broker *broker;
        struct session_set *thread;
};

static void open_stopped(struct letter *letter) {
        struct stop *stop = container_of(letter, struct stop, letter);
        stop->broker->n_stopping--;
        event_base_loopbreak(stop->broker->control_loop.base);
        free(stop);
}

static void open_stop(struct letter *letter) {
        struct stop *stop = container_of(letter, struct stop, letter);
        session_end_all(stop->thread, "the broker is stopping");
        event_base_loopbreak(stop->thread->loop.base);
        mailbox_post(&stop->broker->control_loop.inbox, &stop->letter, open_stopped);
}

static void stop_threads(struct broker *b) {
        b->stopping = true;
        admin_stop(b->admin);
        control_stopping(b->control);
        for (unsigned i = 0; i < b->n_threads_ready; i++) {
                struct session_set *thread = &b->threads[i];
                if (!thread->loop.running) {
                        session_end_all(thread, "the broker is stopping");
                        continue;
                }
                struct stop *stop = calloc(1, sizeof(*stop));
                if (!stop)
                        _exit(EXIT_FAILURE); /* out of memory while stopping: no worse than being killed */
                stop->broker = b;
                stop->thread = thread;
                b->n_stopping++;
                mailbox_post(&thread->loop.inbox, &stop->letter, open_stop);
        }
        /* One of them may hang: orders are taken until the last has stopped, and a stop can still be made a cut. */
        while (b->n_stopping > 0)
                event_base_dispatch(b->control_loop.base);
        for (unsigned i = 0; i < b->n_threads_ready; i++)
                loop_join(&b->threads[i].loop);
}

int broker_run(struct broker *b) {
        int r = 0;
        for (unsigned i = 0; i < b->n_databases; i++)
                database_start(b->databases[i]);
        for (unsigned i = 0; r == 0 && i < b->config->threads; i++)
                r = loop_start(&b->threads[i].loop, "lessord-data");
        if (r == 0) {
                log_info("broker: ready instance=%s socket=%s databases=%u max_connections=%u threads=%u",
                         b->config->instance, b->config->socket, b->config->n_databases,
                         (unsigned)config_connections(b->config), b->config->threads);
                service_ready(&b->service);
                event_base_dispatch(b->control_loop.base);
                service_stopping(&b->service);
        } else {
                log_error("broker: cannot start a thread: %s", strerror(-r));
        }
        stop_threads(b);
        for (unsigned i = 0; control_cut(b->control) && i < b->n_databases; i++)
                database_cut(b->databases[i]);
        return r;
}

void broker_free(struct broker *b) {
        if (!b)
                return;
        if (b->listener >= 0 && b->activated)
                fd_close(b->listener);
        else if (b->listener >= 0)
                instance_unlisten(b->config->socket, b->listener);
        if (b->accept)
                event_free(b->accept);
        if (b->accept_pause)
                event_free(b->accept_pause);
        /* What is still in the mailboxes owns memory and fds: open it while everything it may ask for is there. */
        for (unsigned i = 0; i < b->n_threads_ready; i++)
                if (b->threads[i].loop.base)
                        mailbox_drain(&b->threads[i].loop.inbox);
        for (unsigned i = 0; i < b->n_threads_ready; i++)
                lanes_deinit(&b->threads[i].lanes);
        control_free(b->control);
        b->control = NULL;
        administer_end(b);
        reload_free(b->reload);
        for (unsigned i = 0; b->databases && i < b->n_databases; i++)
                database_free(b->databases[i]);
        for (unsigned i = 0; i < b->n_threads_ready; i++)
                loop_deinit(&b->threads[i].loop);
        loop_deinit(&b->control_loop);
        users_deinit(&b->host.users);
        directory_deinit(&b->directory);
        control_page_deinit(&b->page);
        status_segment_free(b->segment);
        free(b->threads);
        free(b->databases);
        free(b->first_connection);
        fd_close(b->lock);
        if (b->current != b->config)
                config_free((struct config *)(uintptr_t)b->current);
        free(b);
        rcu_unregister_thread();
}

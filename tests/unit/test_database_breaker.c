/* SPDX-License-Identifier: MIT */
/* An administrator's word on a breaker: one database on a loop of the test's own, a server that says what it is told to. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "config/load.h"
#include "database.h"
#include "status/control_page.h"
#include "support/check.h"
#include "support/process.h"
#include "support/sandbox.h"

enum { WAIT_MS = 20000 };

static const char good[] = "+OK\r\n:7\r\n+PONG\r\n", wrong[] = "-WRONGPASS invalid username-password pair\r\n";

static struct {
        struct loop loop;
        struct control_page page;
        struct config *config;
        struct database *db;
        int listener;
        _Atomic(const char *) answer;
        _Atomic unsigned asked;
} t;

static void *serve(void *arg) {
        for (;;) {
                char buffer[512];
                int fd = accept(t.listener, NULL, NULL);
                if (fd < 0)
                        return NULL;
                atomic_fetch_add(&t.asked, 1);
                const char *answer = atomic_load(&t.answer);
                if (recv(fd, buffer, sizeof(buffer), 0) > 0)
                        (void)send(fd, answer, strlen(answer), MSG_NOSIGNAL);
                if (answer != good)
                        close(fd); /* others stay open until the test ends */
        }
}

static void serve_at(const char *path) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        pthread_t thread;
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        t.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        check(bind(t.listener, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(t.listener, 16) == 0);
        check(pthread_create(&thread, NULL, serve, NULL) == 0);
        pthread_detach(thread);
}

/* With min_idle it dials though nobody asks. */
static void setup_with(const char *answer) {
        char *path = sandbox_path("server.sock"), *file = sandbox_path("lessor.yaml"), text[512];
        struct config_report report = {0};
        atomic_store(&t.answer, answer);
        serve_at(path);
        snprintf(text, sizeof(text), "databases: {main: {unix_socket: %s, min_idle: 1, breaker_failures: 1}}\n", path);
        sandbox_write(file, text);
        check_eq(config_load(&(struct config_options){.file = file}, &report, &t.config), 0);
        config_report_deinit(&report);
        check_eq(loop_init(&t.loop, true), 0);
        check_eq(control_page_init(&t.page, 1), 0);
        struct database_options o = {
                .config = &t.config->databases[0], .instance = "test", .loop = &t.loop, .page = &t.page};
        check_eq(database_new(&o, &t.db), 0);
        free(path);
        free(file);
}

static void teardown(void) {
        database_free(t.db);
        loop_deinit(&t.loop);
        control_page_deinit(&t.page);
        config_free(t.config);
}

static struct lessor_status_database figures(void) {
        static struct lessor_status_connection connections[64];
        struct lessor_status_database d;
        check(database_places(t.db) <= 64);
        database_snapshot(t.db, &d, connections);
        return d;
}

static bool turned_until(bool (*met)(void)) {
        uint64_t deadline = deadline_in(WAIT_MS);
        while (!met()) {
                event_base_loop(t.loop.base, EVLOOP_NONBLOCK);
                if (!look_again_before(deadline))
                        return false;
        }
        return true;
}

static bool is_connected(void) { return figures().available_connections == 1; }
static bool is_refused(void) { return figures().trouble == LESSOR_TROUBLE_WRONGPASS; }

static enum lessor_breaker published(void) {
        return (enum lessor_breaker)(__atomic_load_n(&t.page.map->database[0].breaker, __ATOMIC_ACQUIRE) & 3);
}

TEST(database_breaker, opened_by_hand_it_is_open_for_all_and_nothing_is_dialled) {
        setup_with(good);
        check(database_breaker_open(t.db));
        check(!database_breaker_open(t.db));
        database_start(t.db);
        for (unsigned i = 0; i < 10; i++)
                event_base_loop(t.loop.base, EVLOOP_NONBLOCK);
        check_eq(published(), LESSOR_BREAKER_OPEN);
        check(strstr(t.page.map->database[0].breaker_text, "circuit breaker"));
        struct lessor_status_database d = figures();
        check_eq(d.breaker_state, LESSOR_BREAKER_OPEN);
        check_eq(d.breaker_by_hand, 1);
        check_eq(d.breaker_retry_at, 0);
        check(d.breaker_opened_at > 0);
        check_eq(d.breaker_trips, 0);
        check_eq(d.health, LESSOR_HEALTH_FAILED);
        check_str(d.reason, "circuit breaker open: by an administrator");
        check_eq(d.dialling_connections, 0);
        check_eq(atomic_load(&t.asked), 0);
        teardown();
}

TEST(database_breaker, closed_by_hand_it_serves_again) {
        setup_with(good);
        check(!database_breaker_close(t.db)); /* it is */
        check(database_breaker_open(t.db));
        database_start(t.db);
        check(database_breaker_close(t.db));
        check_eq(published(), LESSOR_BREAKER_CLOSED);
        check_eq(figures().breaker_by_hand, 0);
        check(turned_until(is_connected));
        check_eq(figures().health, LESSOR_HEALTH_HEALTHY);
        teardown();
}

static uint64_t said;
static bool is_said_again(void) {
        (void)figures(); /* as ten times a second */
        return __atomic_load_n(&t.page.map->database[0].breaker_retry_ns, __ATOMIC_RELAXED) > said;
}

TEST(database_breaker, while_it_is_held_it_is_said_again_and_again_so_that_a_dead_brokers_word_grows_old) {
        setup_with(good);
        check(database_breaker_open(t.db));
        said = t.page.map->database[0].breaker_retry_ns;
        check(said > clock_now() && said < clock_now() + 10 * NS_PER_S);
        check(turned_until(is_said_again));
        teardown();
}

TEST(database_breaker, a_reset_tries_at_once_what_an_operator_has_mended) {
        setup_with(wrong);
        database_start(t.db);
        check(turned_until(is_refused));
        check_eq(published(), LESSOR_BREAKER_CLOSED);
        atomic_store(&t.answer, good);
        uint64_t began = now_ms();
        check(database_breaker_reset(t.db));
        check(turned_until(is_connected));
        check(now_ms() - began < 15000); /* and not after retry_max, 30 s */
        check_eq(figures().trouble, LESSOR_TROUBLE_NONE);
        check(!database_breaker_reset(t.db));
        teardown();
}

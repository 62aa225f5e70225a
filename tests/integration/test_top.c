/* SPDX-License-Identifier: MIT */
/* `lessor top` on a real terminal (tmux): in load, with the breaker open, when the broker dies and the next one comes. */
#include "support/check.h"
#include "support/host.h"
#include "support/process.h"
#include "support/sandbox.h"
#include "support/tmux.h"

enum { WAIT_MS = 30000, WORKERS = 4 };

/* What stands on the screen says why a wait failed. */
#define check_shows(t, part)                                                                                           \
        do {                                                                                                           \
                bool shown_ = wait_until(tmux_shows(t, part), WAIT_MS);                                                \
                char *screen_ = shown_ ? NULL : tmux_screen(t, false);                                                 \
                check_msg(shown_, "no `%s` on the screen:\n%s", part, screen_);                                        \
                free(screen_);                                                                                         \
        } while (0)

static void top_start(struct tmux *t, const struct broker *b, const char *environment) {
        char command[512];
        if (!tmux_available())
                test_skip("tmux is not here (tools/setup --dev installs it)");
        snprintf(command, sizeof(command), "%s top --instance %s", tool_path(), b->instance);
        tmux_start(t, environment, command);
}

struct load {
        struct broker *broker;
        struct stage stop;
};

static int work(unsigned index, void *arg) {
        struct load *load = arg;
        lessor *l;
        lessor_db *db;
        child_check(lessor_open(load->broker->socket, &l) == 0);
        child_check(lessor_database(l, NULL, &db, NULL) == 0);
        while (atomic_load(&load->stop.count) == 0)
                freeReplyObject(lessor_command(db, NULL, "PING"));
        lessor_close(l);
        return 0;
}

TEST_WITH(top, load_is_seen_on_the_screen, .timeout = 180) {
        struct host h;
        struct tmux t;
        struct workers w;
        struct load *load = shared_memory(sizeof(*load));

        host_start(&h, "max_connections: 3");
        load->broker = &h.broker;
        top_start(&t, &h.broker, "X=1");
        check_shows(&t, "main       unused");
        workers_start(&w, WORKERS, work, load);
        check_shows(&t, "main       healthy");
        check_shows(&t, "4 sessions");
        check_shows(&t, "LEASE/S");
        tmux_press(&t, "t");
        check_shows(&t, "CALL P50");
        check_shows(&t, "\xe2\x96\x88"); /* the sparkline's highest, a full block */
        tmux_press(&t, "Enter");
        check_shows(&t, "main at unix:");
        check_shows(&t, " times, p50");
        tmux_press(&t, "Escape");
        check_shows(&t, "Enter database");
        tmux_press(&t, "?");
        check_shows(&t, "probes in 12 s");
        tmux_press(&t, "Escape");
        tmux_press(&t, "p");
        check_shows(&t, "PAUSED");
        tmux_press(&t, "p");
        stage_advance(&load->stop);
        check_eq(workers_wait(&w, WAIT_MS), WORKERS);
        tmux_press(&t, "q");
        check_soon(tmux_ended(&t, 0), WAIT_MS);
        tmux_stop(&t);
        host_end(&h);
}

TEST_WITH(top, holders_are_named_with_their_call_site, .timeout = 180) {
        struct host h;
        struct tmux t;
        char site[64];

        host_start(&h, "max_connections: 3");
        top_start(&t, &h.broker, "X=1");
        lessor *l = client_open(&h.broker);
        lessor_lease *lease = lessor_acquire(client_database(l, NULL), WAIT_MS, NULL);
        snprintf(site, sizeof(site), "test_top.c:%d", __LINE__ - 1);
        check(lease);
        check_shows(&t, "1 held");
        tmux_press(&t, "l");
        check_shows(&t, site);
        check_shows(&t, "test_top ");
        lessor_release(lease);
        check_shows(&t, "nothing is leased");
        lessor_close(l);
        tmux_stop(&t);
        host_end(&h);
}

static bool can_lease(lessor_db *db) {
        lessor_lease *lease = lessor_acquire(db, 1000, NULL);
        lessor_release(lease);
        return lease != NULL;
}

TEST_WITH(top, an_open_breaker_counts_down_to_its_probe, .timeout = 180) {
        struct host h;
        struct tmux t;

        host_start(&h, "max_connections: 3, retry_base: 50ms, retry_max: 50ms, breaker_early_probe: no, "
                       "breaker_open_time: 5s");
        top_start(&t, &h.broker, "X=1");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        check(can_lease(db));
        redis_kill(&h.redis);
        check_soon(!can_lease(db), WAIT_MS);
        check_shows(&t, "main       open ");
        check_shows(&t, "1 failed");
        check_shows(&t, "next probe in");
        redis_restart(&h.redis);
        check_shows(&t, "main       healthy");
        lessor_close(l);
        tmux_stop(&t);
        host_end(&h);
}

TEST_WITH(top, a_dead_broker_is_stale_and_the_next_one_is_followed, .timeout = 180) {
        struct host h;
        struct tmux t;

        host_start(&h, "max_connections: 3");
        top_start(&t, &h.broker, "X=1");
        check_shows(&t, "1 healthy");
        broker_kill(&h.broker);
        check_shows(&t, "STALE: no heartbeat for");
        check_shows(&t, "is dead");
        check(tmux_shows(&t, "main       unused")); /* the last figures */
        broker_launch(&h.broker);
        check_shows(&t, "1 healthy");
        check(!tmux_shows(&t, "STALE"));
        broker_stop(&h.broker);
        check_shows(&t, "no figures:");
        broker_launch(&h.broker);
        check_shows(&t, "1 healthy");
        tmux_resize(&t, 140, 30);
        check_shows(&t, "LAST MINUTES");
        tmux_stop(&t);
        host_end(&h);
}

/* A wide character, or a colour's escape sequence (SGR 3x), on the screen? */
static bool has_colour(const struct tmux *t) {
        char *text = tmux_screen(t, true);
        bool has =
                strstr(text, "\033[31") || strstr(text, "\033[32") || strstr(text, "\033[33") || strstr(text, ";32m");
        free(text);
        return has;
}

static bool has_wide(const struct tmux *t) {
        bool wide = false;
        char *text = tmux_screen(t, false);
        for (const char *p = text; *p; p++)
                wide = wide || *p < 0;
        free(text);
        return wide;
}

TEST_WITH(top, terminals_without_colour_or_utf8_are_served_too, .timeout = 180) {
        static const struct {
                const char *environment;
                bool colour, wide;
        } cases[] = {{"X=1", true, true},
                     {"NO_COLOR=1", false, true},
                     {"TERM=vt100", false, true},
                     {"LC_ALL=C", true, false},
                     {"TERM=vt100 LC_ALL=POSIX", false, false}};
        struct host h;
        struct tmux t;

        host_start(&h, "max_connections: 3");
        lessor *l = client_open(&h.broker);
        check(can_lease(client_database(l, NULL)));
        check_figure_soon(&h.broker, "main", health, LESSOR_HEALTH_HEALTHY, WAIT_MS);
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                top_start(&t, &h.broker, cases[i].environment);
                check_shows(&t, "q quit");
                check_msg(has_colour(&t) == cases[i].colour, "%s", cases[i].environment);
                check_msg(has_wide(&t) == cases[i].wide, "%s", cases[i].environment);
                tmux_stop(&t);
        }
        top_start(&t, &h.broker, "TERM=dumb");
        check_shows(&t, "main       healthy"); /* line by line, without a cursor */
        tmux_stop(&t);
        lessor_close(l);
        host_end(&h);
}

TEST(top, a_batch_is_text) {
        struct host h;
        char *text;

        host_start(&h, "max_connections: 3");
        const char *argv[] = {tool_path(), "top", "--batch", "--count", "1", "--instance", h.broker.instance, NULL};
        check_eq(program_run(argv, &text, WAIT_MS), 0);
        check_msg(strstr(text, "main") && strstr(text, "LAST MINUTES") && !strchr(text, '\033'), "%s", text);
        free(text);
        broker_stop(&h.broker);
        check_eq(program_run(argv, &text, WAIT_MS), 2);
        check_msg(strstr(text, "no figures"), "%s", text);
        free(text);
        broker_free(&h.broker);
        redis_stop(&h.redis);
}

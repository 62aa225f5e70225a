/* SPDX-License-Identifier: MIT */
/* The screens of `lessor top`, without a terminal. */
#include "top/draw.h"

#include "test_top_fake.h"

static struct history history;
static struct top top;
static struct model model;
static struct grid grid;
static char text[65536];

static void setup(void) {
        fake_databases();
        top = (struct top){.ascii = true};
        model = fake_model(100);
}

static void teardown(void) {
        history_deinit(&history);
        grid_deinit(&grid);
}

#define VIEW_TEST(name) TEST_WITH(top_view, name, .init = setup, .fini = teardown, .timeout = 60)

/* Into `text`; every row must fit. */
static const char *draw(const struct model *m, unsigned rows, unsigned columns) {
        struct top_scene s = {.top = &top, .m = m, .history = &history, .absent = "no broker has run here.\nStart one"};
        FILE *out = fmemopen(text, sizeof(text), "w");
        grid_deinit(&grid);
        grid_init(&grid, rows, columns);
        top_draw(&s, &grid);
        grid_write(&grid, out);
        fclose(out);
        return text;
}

#define check_has(part) check_msg(strstr(text, part), "no `%s` in:\n%s", part, text)
#define check_has_not(part) check_msg(!strstr(text, part), "`%s` in:\n%s", part, text)

static char row_text[512];
static const char *row(unsigned r) {
        char *s = grid_row(&grid, r);
        snprintf(row_text, sizeof(row_text), "%s", s);
        free(s);
        return row_text;
}

VIEW_TEST(thirteen_columns_of_load_fit_into_eighty) {
        fakes[0].in_use_connections = 5;
        fakes[0].available_connections = 10;
        fakes[0].parked_connections = 5;
        fakes[0].open_connections = 17;
        fakes[0].waiting = 12;
        fakes[0].oldest_wait = 1500000000;
        draw(&model, 24, 80);
        check_str(row(0), "lessord 1.2.3, instance here, pid 42, up 90s, 3 sessions");
        check_str(row(1), "3 databases: 3 healthy, 0 degraded, 0 failed; 100% of operations succeeded");
        check_str(row(2), "DATABASE   STATE     POOL            USED WAIT OLDEST LEASE/S LANE/S WARM ERR/S");
        check_str(row(5), "main       healthy   ###===---x..    5/20   12   1.5s       -      -    -     -");
        check_has("q quit");
}

VIEW_TEST(the_other_columns_are_a_key_away_and_all_stand_on_a_wide_screen) {
        top.times = true;
        draw(&model, 24, 80);
        check_str(row(2), "DATABASE   STATE     WAIT P50    P99 CALL P50    P99 LAST MINUTES");
        draw(&model, 24, 132);
        check_has("LEASE/S");
        check_has("CALL P50");
        check_has("LAST MINUTES");
}

VIEW_TEST(an_open_breaker_counts_down) {
        fakes[0].health = LESSOR_HEALTH_FAILED;
        fakes[0].breaker_state = 1;
        fakes[0].breaker_retry_at = model.wall + 11500000000;
        snprintf(fakes[0].reason, LESSOR_STATUS_TEXT_SIZE, "the circuit breaker is open");
        snprintf(fakes[0].last_error, LESSOR_STATUS_TEXT_SIZE, "connecting: Connection refused\033[2J");
        snprintf(top.selected, LESSOR_NAME_SIZE, "main");
        draw(&model, 24, 80);
        check_has("main       open 12s");
        check_has("failed, the circuit breaker is open");
        check_has("next probe in 11.5s");
        check_has("Connection refused?[2J");
        fakes[0].breaker_state = 2;
        draw(&model, 24, 80);
        check_has("main       probing");
}

VIEW_TEST(a_dead_broker_is_said_to_be_stale) {
        model.instance.stale = model.instance.gone = true;
        model.instance.heartbeat_age_ns = 12 * SECOND;
        draw(&model, 24, 80);
        check_str(row(1), "STALE: no heartbeat for 12s: the broker is dead. Its last figures.");
        check_eq(grid.cells[80].attribute, GRID_BAD);
        check_has("was up 90s");
}

VIEW_TEST(without_a_broker_the_screen_says_why) {
        draw(NULL, 24, 80);
        check_str(row(0), "no figures:");
        check_str(row(1), "no broker has run here.");
        check_str(row(2), "Start one");
        top.page = TOP_DATABASE;
        draw(NULL, 24, 80);
        check_has("no broker has run here.");
}

VIEW_TEST(bars_are_drawn_by_share_and_one_is_always_seen) {
        static const struct {
                unsigned used, parked, free, open, max;
                const char *bar;
        } cases[] = {{0, 0, 0, 0, 20, ".........."},   {20, 0, 0, 20, 20, "##########"},
                     {1, 0, 0, 1, 1000, "#........."}, {10, 5, 5, 20, 20, "#####==---"},
                     {0, 0, 0, 5, 20, "xx........"},   {50, 0, 0, 50, 20, "##########"},
                     {0, 0, 0, 0, 0, ".........."}};
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct lessor_status_database d = {.in_use_connections = cases[i].used,
                                                   .parked_connections = cases[i].parked,
                                                   .available_connections = cases[i].parked + cases[i].free,
                                                   .open_connections = cases[i].open,
                                                   .max_connections = cases[i].max};
                grid_deinit(&grid);
                grid_init(&grid, 1, 10);
                draw_bar(&grid, 0, 0, 10, &d, true);
                check_str(row(0), cases[i].bar);
        }
}

VIEW_TEST(outside_ascii_the_glyphs_are_utf8) {
        top.ascii = false;
        fakes[0].in_use_connections = fakes[0].open_connections = 20;
        draw(&model, 24, 80);
        check_has("\xe2\x96\x88\xe2\x96\x88");
        top.ascii = true;
        draw(&model, 24, 80);
        for (const char *p = text; *p; p++)
                check(*p > 0);
}

VIEW_TEST(histograms_are_drawn_to_their_highest) {
        struct lessor_status_histogram h = {.count = 6, .max_ns = 3000000};
        h.bucket[1] = 4; /* 1.28 us: the column from 1 to 2 us */
        h.bucket[41] = 2;
        grid_init(&grid, 8, 80);
        check_eq(draw_histogram(&grid, 0, "wait_time", &h, true), 6);
        check_str(row(0), " wait_time       6 times, p50 1.28us, p90 1.31ms, p99 1.31ms, longest 3ms");
        check_str(row(1), "    ##");
        check_str(row(3), "    ##                  ##");
        check_str(row(4), "    ##                  ##");
        check_msg(strncmp(row(5), "  --1us---", 10) == 0 && strstr(row(5), "1ms"), "%s", row(5));
}

VIEW_TEST(the_page_of_a_database_scrolls_and_shows_its_connections) {
        fake_leases[0] = (struct model_lease){.database = "main", .age_ns = 5 * SECOND};
        fake_leases[0].connection = (struct lessor_status_connection){
                .slot = 3, .state = LESSOR_CONNECTION_LEASED, .holder_pid = 777, .client_id = 99};
        snprintf(fake_leases[0].connection.site, LESSOR_SITE_SIZE, "job.c:12");
        model.n_leases = model.n_connections = 1;
        fakes[0].leases = 12345;
        top.page = TOP_DATABASE;
        snprintf(top.selected, LESSOR_NAME_SIZE, "main");
        draw(&model, 24, 80);
        check_has("main at unix:/run/redis.sock/0");
        check_has("wait_time");
        check_has("3 held");
        check_has("777");
        check_has("job.c:12");
        top.scroll = 1000;
        draw(&model, 24, 80);
        check_has("leases                      12.3k");
        top.page = TOP_HOLDERS;
        draw(&model, 24, 80);
        check_has("main             777");
        snprintf(top.filter, sizeof(top.filter), "cache");
        draw(&model, 24, 80);
        check_has("nothing is leased");
        check_has_not("777");
}

VIEW_TEST(the_holders_page_shows_who_has_commands_in_lanes) {
        static struct model_lane lanes[1] = {{.database = "main", .age_ns = 1500000000}};
        lanes[0].record = (struct lessor_status_lane){.session = 51, .holder_pid = 777, .sent = 12, .queued = 3};
        snprintf(lanes[0].record.holder, LESSOR_NAME_SIZE, "gunicorn");
        model.lanes = lanes;
        model.n_lanes = 1;
        top.page = TOP_HOLDERS;
        draw(&model, 24, 80);
        check_has("nothing is leased");
        check_has("BY LANE");
        check_has("main             777      51 gunicorn            1.5s     12      3");
        snprintf(top.filter, sizeof(top.filter), "cache");
        draw(&model, 24, 80);
        check_has_not("BY LANE");
        check_has_not("gunicorn");
}

VIEW_TEST(a_database_that_goes_away_while_one_looks_at_it) {
        top.page = TOP_DATABASE;
        snprintf(top.selected, LESSOR_NAME_SIZE, "gone");
        draw(&model, 24, 80);
        check_has("no longer configured");
}

VIEW_TEST(no_screen_is_too_small) {
        static const unsigned sizes[][2] = {{1, 1}, {2, 10}, {4, 20}, {10, 40}, {24, 80}, {60, 300}};
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
                for (int page = 0; page <= TOP_HELP; page++) {
                        top.page = (enum top_page)page;
                        draw(&model, sizes[i][0], sizes[i][1]);
                        draw(NULL, sizes[i][0], sizes[i][1]);
                }
        model.n_databases = 0;
        top.page = TOP_OVERVIEW;
        draw(&model, 24, 80);
        check_has("no database");
}

VIEW_TEST(help_fits_into_twenty_four_rows) {
        top.page = TOP_HELP;
        draw(&model, 24, 80);
        check_has("the end");
        check_has("five seconds");
}

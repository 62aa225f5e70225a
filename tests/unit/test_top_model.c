/* SPDX-License-Identifier: MIT */
/* What `lessor top` makes of readings and keys. */
#include "test_top_fake.h"

static struct history history;
static struct top top;

static void setup(void) {
        fake_databases();
        top = (struct top){0};
}

static void teardown(void) { history_deinit(&history); }

#define TOP_TEST(name) TEST_WITH(top_model, name, .init = setup, .fini = teardown, .timeout = 60)

static struct model read_at(unsigned second) {
        struct model m = fake_model(second);
        history_add(&history, &m);
        return m;
}

static struct history_figures figures_at(unsigned second) {
        struct history_figures f;
        struct model m = read_at(second);
        history_figures(&history, &m, &fakes[0], &f);
        return f;
}

/* ---- rates ----------------------------------------------------------------------------------------------------- */

TOP_TEST(a_first_reading_has_no_rates) {
        struct history_figures f = figures_at(100);
        check(f.leases < 0 && f.errors < 0 && f.warm_share < 0);
        check_eq(f.wait.count, 0);
}

TOP_TEST(rates_are_of_the_last_second_and_errors_of_the_last_ten) {
        figures_at(100);
        for (unsigned s = 101; s <= 109; s++) {
                fakes[0].leases += 100;
                fakes[0].warm_leases += 300;
                fakes[0].lane_calls += 7;
                figures_at(s);
        }
        fakes[0].leases += 10;
        fakes[0].operations_failed = 50;
        struct history_figures f = figures_at(110);
        check(f.leases == 10);
        check(f.lane_calls == 0);
        check(f.errors == 5);
        check(f.warm_share > 74 && f.warm_share < 75);
}

TOP_TEST(times_are_those_of_the_window_alone) {
        fakes[0].wait_time.bucket[100] = 1000;
        figures_at(100);
        fakes[0].wait_time.bucket[1] = 5;
        fakes[0].wait_time.max_ns = 50 * SECOND;
        struct history_figures f = figures_at(101);
        check_eq(f.wait.count, 5);
        check_eq(lessor_status_percentile(&f.wait, 0.99), lessor_status_bucket_below_ns(1));
        for (unsigned s = 102; s <= 113; s++)
                f = figures_at(s);
        check_eq(f.wait.count, 0);
}

TOP_TEST(another_instance_begins_anew) {
        fakes[0].operations_ok = 1000000;
        figures_at(100);
        struct model m = fake_model(101);
        m.instance.generation = 8;
        fakes[0].operations_ok = 3;
        history_add(&history, &m);
        struct history_figures f;
        history_figures(&history, &m, &fakes[0], &f);
        check(f.operations < 0);
        check_eq(history_find(&history, "main")->n_bins, 0);
}

TOP_TEST(counters_that_fall_and_clocks_that_stand_make_no_nonsense) {
        fakes[0].operations_ok = 1000;
        figures_at(100);
        figures_at(100);
        fakes[0].operations_ok = 10; /* removed and added again by a reload */
        struct history_figures f = figures_at(101);
        check(f.operations < 0);
        fakes[0].operations_ok = 30;
        f = figures_at(102);
        check(f.operations == 20);
        f = figures_at(50);
        check(f.operations < 0);
}

TOP_TEST(what_is_no_longer_there_is_forgotten) {
        figures_at(100);
        check(history_find(&history, "audit"));
        struct model m = fake_model(101);
        m.n_databases = 2;
        history_add(&history, &m);
        check(!history_find(&history, "audit"));
        check(history_find(&history, "cache"));
}

TOP_TEST(the_last_minutes_are_bins_of_five_seconds) {
        int levels[4];
        figures_at(100);
        for (unsigned s = 101; s <= 110; s++) {
                fakes[0].operations_ok += s <= 105 ? 100 : 1;
                figures_at(s);
        }
        const struct history_row *r = history_find(&history, "main");
        check_eq(r->n_bins, 2);
        check(r->bins[0] == 100 && r->bins[1] == 1);
        history_spark(r, levels, 4, 8);
        check_eq(levels[0], -1);
        check_eq(levels[1], -1);
        check_eq(levels[2], 7);
        check_eq(levels[3], 1); /* little is not nothing */
        for (unsigned s = 115; s < 115 + 5 * HISTORY_BINS * 2; s += 5)
                figures_at(s);
        check_eq(r->n_bins, HISTORY_BINS);
        history_spark(r, levels, 4, 8);
        check_eq(levels[3], 0);
}

TOP_TEST(a_long_pause_is_its_average) {
        figures_at(100);
        fakes[0].operations_ok = 3000;
        figures_at(130);
        const struct history_row *r = history_find(&history, "main");
        check_eq(r->n_bins, 6);
        check(r->bins[0] == 100 && r->bins[5] == 100);
}

/* ---- order and keys -------------------------------------------------------------------------------------------- */

static void check_order(const char *a, const char *b, const char *c) {
        unsigned order[TOP_FAKES];
        struct model m = fake_model(100);
        check_eq(top_order(&top, &m, &history, order), 3);
        check_str(fakes[order[0]].name, a);
        check_str(fakes[order[1]].name, b);
        check_str(fakes[order[2]].name, c);
}

static void press(int key) {
        struct model m = fake_model(100);
        top_key(&top, &m, &history, key);
}

TOP_TEST(databases_are_sorted_by_what_s_chooses) {
        check_order("audit", "cache", "main");
        fakes[0].in_use_connections = 10;
        press('s');
        check_order("main", "audit", "cache");
        press('r');
        check_order("cache", "audit", "main");
        fakes[1].waiting = 3;
        press('s');
        check_order("cache", "audit", "main");
        press('S');
        check_str(top_sort_text(top.sort), "use");
}

TOP_TEST(a_filter_is_typed_kept_and_dropped) {
        unsigned order[TOP_FAKES];
        struct model m = fake_model(100);
        press('/');
        press('A');
        press('u');
        check_eq(top_order(&top, &m, &history, order), 1);
        press('q'); /* typed, not obeyed */
        check(!top.quit);
        check_eq(top_order(&top, &m, &history, order), 0);
        press(TOP_ERASE);
        press(TOP_ENTER);
        check_eq(top_order(&top, &m, &history, order), 1);
        check_str(top_selected(&top, &m, &history)->name, "audit");
        press(TOP_BACK);
        check_eq(top_order(&top, &m, &history, order), 3);
        press('q');
        check(top.quit);
}

TOP_TEST(the_selection_stays_with_its_database) {
        struct model m = fake_model(100);
        check_str(top_selected(&top, &m, &history)->name, "audit");
        press(TOP_DOWN);
        press('j');
        press('j'); /* there are no more */
        check_str(top_selected(&top, &m, &history)->name, "main");
        fakes[1].in_use_connections = 5;
        press('s');
        check_str(top_selected(&top, &m, &history)->name, "main");
        press(TOP_HOME);
        check_str(top_selected(&top, &m, &history)->name, "cache");
        press(TOP_ENTER);
        check_eq(top.page, TOP_DATABASE);
        press('?');
        check_eq(top.page, TOP_HELP);
        press(TOP_BACK);
        check_eq(top.page, TOP_DATABASE);
        press(TOP_BACK);
        check_eq(top.page, TOP_OVERVIEW);
}

TOP_TEST(keys_without_a_broker_do_no_harm) {
        for (int key = 0; key < TOP_ERASE + 5; key++) {
                top_key(&top, NULL, &history, key);
                if (top.typing)
                        top_key(&top, NULL, &history, TOP_ENTER);
        }
        check(top.quit);
}

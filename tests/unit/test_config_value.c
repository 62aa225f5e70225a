/* SPDX-License-Identifier: MIT */
/* Single values: what their parsers take and refuse, what is written for them, and that the schema is true to itself. */
#include "support/check.h"

#include <errno.h>

#include <base/cleanup.h>

#include "config/keys.h"
#include "config/value.h"

struct example {
        const char *text;
        int result;
        uint64_t value;
};

static void check_examples(int (*parser)(const char *, uint64_t *), const struct example *examples, size_t n) {
        for (size_t i = 0; i < n; i++) {
                uint64_t value = 12345;
                int r = parser(examples[i].text, &value);
                check_msg(r == examples[i].result, "`%s`: result %d, expected %d", examples[i].text, r,
                          examples[i].result);
                check_msg(value == (r == 0 ? examples[i].value : 12345), "`%s`: %llu", examples[i].text,
                          (unsigned long long)value);
        }
}

TEST(config_value, durations_have_units_or_are_seconds) {
        static const struct example examples[] = {
                {"5s", 0, CONFIG_S(5)},
                {"5", 0, CONFIG_S(5)},
                {"5.0", 0, CONFIG_S(5)},
                {"0.25", 0, CONFIG_MS(250)},
                {"250ms", 0, CONFIG_MS(250)},
                {"1.5ms", 0, 1500000},
                {"10us", 0, 10000},
                {"7ns", 0, 7},
                {"1.9ns", 0, 1},
                {"1m", 0, CONFIG_S(60)},
                {"1min", 0, CONFIG_S(60)},
                {"1.5h", 0, CONFIG_S(5400)},
                {"2d", 0, CONFIG_S(172800)},
                {"30 s", 0, CONFIG_S(30)},
                {"5S", 0, CONFIG_S(5)},
                {"0", 0, 0},
                {"0.000000001", 0, 1},
                {"0.0000000001", 0, 0},
                {"0.9999999999999999999999999", 0, 999999999},
                {"18446744073", 0, CONFIG_S(18446744073)},
                {"18446744074", -ERANGE, 0},
                {"99999999999999999999", -ERANGE, 0},
                {"18446744073.999999999", -ERANGE, 0},
                {"", -EINVAL, 0},
                {"s", -EINVAL, 0},
                {"-1s", -EINVAL, 0},
                {"+1s", -EINVAL, 0},
                {".5", -EINVAL, 0},
                {"5.", -EINVAL, 0},
                {"5.s", -EINVAL, 0},
                {"1e3", -EINVAL, 0},
                {"5  s", -EINVAL, 0},
                {"5s ", -EINVAL, 0},
                {"5 ", -EINVAL, 0},
                {"1h30m", -EINVAL, 0},
                {"5 parsecs", -EINVAL, 0},
                {"0x10", -EINVAL, 0},
                {"inf", -EINVAL, 0},
        };
        check_examples(config_parse_duration, examples, ARRAY_SIZE(examples));
}

TEST(config_value, sizes_have_units_or_are_bytes) {
        static const struct example examples[] = {
                {"64KiB", 0, 65536},
                {"65536", 0, 65536},
                {"1MiB", 0, CONFIG_MIB(1)},
                {"1.25KiB", 0, 1280},
                {"1.5MiB", 0, 1572864},
                {"2k", 0, 2048},
                {"1MB", 0, 1000000},
                {"3 GiB", 0, CONFIG_MIB(3072)},
                {"1TiB", 0, CONFIG_MIB(1048576)},
                {"12B", 0, 12},
                {"0", 0, 0},
                {"1.5", 0, 1},
                {"16777216TiB", -ERANGE, 0},
                {"1XiB", -EINVAL, 0},
                {"KiB", -EINVAL, 0},
                {"-1", -EINVAL, 0},
        };
        check_examples(config_parse_size, examples, ARRAY_SIZE(examples));
}

TEST(config_value, counts_are_decimal_without_leading_zeros) {
        static const struct example examples[] = {
                {"0", 0, 0},
                {"20", 0, 20},
                {"18446744073709551615", 0, UINT64_MAX},
                {"18446744073709551616", -ERANGE, 0},
                {"", -EINVAL, 0},
                {"010", -EINVAL, 0},
                {"1_000", -EINVAL, 0},
                {"0x1f", -EINVAL, 0},
                {"1.0", -EINVAL, 0},
                {" 1", -EINVAL, 0},
                {"1 ", -EINVAL, 0},
                {"-1", -EINVAL, 0},
        };
        check_examples(config_parse_count, examples, ARRAY_SIZE(examples));
}

TEST(config_value, modes_are_octal_and_say_so_by_their_zero) {
        static const struct example examples[] = {
                {"0660", 0, 0660},
                {"0o600", 0, 0600},
                {"00", 0, 0},
                {"01777", 0, 01777},
                {"0", -EINVAL, 0},
                {"660", -EINVAL, 0},
                {"0680", -EINVAL, 0},
                {"0o", -EINVAL, 0},
                {"", -EINVAL, 0},
                {"u=rw", -EINVAL, 0},
                {"077777777777777777777777777", -ERANGE, 0},
        };
        check_examples(config_parse_mode, examples, ARRAY_SIZE(examples));
}

TEST(config_value, booleans_are_the_words_of_yaml) {
        static const struct example examples[] = {
                {"yes", 0, 1}, {"true", 0, 1},    {"On", 0, 1},     {"no", 0, 0},         {"FALSE", 0, 0},
                {"off", 0, 0}, {"1", -EINVAL, 0}, {"", -EINVAL, 0}, {"yess", -EINVAL, 0},
        };
        check_examples(config_parse_bool, examples, ARRAY_SIZE(examples));
}

TEST(config_value, what_is_written_for_a_duration_or_size_reads_back_as_the_same) {
        static const uint64_t values[] = {0,
                                          1,
                                          999,
                                          1000,
                                          1500000,
                                          CONFIG_MS(250),
                                          CONFIG_S(1),
                                          CONFIG_S(60),
                                          CONFIG_S(90),
                                          CONFIG_S(3600),
                                          CONFIG_S(5400),
                                          CONFIG_S(86400),
                                          CONFIG_S(31536000),
                                          1023,
                                          1024,
                                          1280,
                                          1 << 20,
                                          CONFIG_MIB(1048576),
                                          UINT64_MAX,
                                          CONFIG_S(3) + 1};
        for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
                char text[64];
                uint64_t back = 1;
                check_eq(config_parse_duration(config_duration_text(values[i], text, sizeof(text)), &back), 0);
                check_msg(back == values[i], "%s", text);
                check_eq(config_parse_size(config_size_text(values[i], text, sizeof(text)), &back), 0);
                check_msg(back == values[i], "%s", text);
        }
        char text[64];
        check_str(config_duration_text(CONFIG_S(300), text, sizeof(text)), "300s");
        check_str(config_duration_text(CONFIG_S(7200), text, sizeof(text)), "2h");
        check_str(config_size_text(65536, text, sizeof(text)), "64KiB");
}

static int nobody(const char *name, uint32_t *ret) { return -ENOENT; }
static int no_secret(const char *path, char **ret) { return -ENOENT; }

TEST(config_value, each_default_of_the_schema_is_a_value_its_key_takes) {
        static const struct config_host host = {nobody, nobody, no_secret};
        struct config_report report = {0};
        struct config_reader reader = {&host, &report};
        struct config_origin origin = {.source = CONFIG_SOURCE_DEFAULT};
        for (unsigned i = 0; i < CONFIG_KEYS; i++) {
                const struct config_key *key = &config_keys[i];
                struct config_value value = {0};
                check_eq(key->id, i);
                check(config_key_find(key->name, strlen(key->name)) == key);
                check_msg(*key->help && strlen(key->help) < 200, "%s", key->name);
                if (!key->fallback)
                        continue;
                char *text = strdup(key->fallback), buffer[64];
                struct config_node node = {.kind = CONFIG_NODE_SCALAR, .text = text, .length = strlen(text)};
                check_msg(config_value_read(&reader, key, &node, &origin, &value) == 0, "%s", key->name);
                if (!value.text && key->type != CONFIG_TYPE_ALLOW)
                        check_str(config_number_text(key, value.number, buffer, sizeof(buffer)), key->fallback);
                config_value_deinit(&value);
                free(text);
        }
        check_eq(report.n, 0);
}

/* Else LESSOR_REDIS_A_B could be key `a_b` of all databases as well as key `b` of database `a`. */
TEST(config_value, no_key_is_the_end_of_another_after_an_underscore) {
        for (unsigned i = 0; i < CONFIG_KEYS; i++)
                for (unsigned j = 0; j < CONFIG_KEYS; j++) {
                        const char *a = config_keys[i].name, *b = config_keys[j].name;
                        size_t na = strlen(a), nb = strlen(b);
                        if (config_keys[i].database && config_keys[j].database && na > nb + 1)
                                check_msg(strcmp(a + na - nb, b) != 0 || a[na - nb - 1] != '_', "%s, %s", a, b);
                }
}

TEST(config_value, edits_are_counted_with_swaps_as_one) {
        check_eq(config_edits("", 0, "abc", 3), 3);
        check_eq(config_edits("host", 4, "host", 4), 0);
        check_eq(config_edits("hots", 4, "host", 4), 1);
        check_eq(config_edits("prot", 4, "port", 4), 1);
        check_eq(config_edits("kitten", 6, "sitting", 7), 3);
        check_eq(config_edits("abc", 3, "", 0), 3);
        char longest[200];
        memset(longest, 'x', sizeof(longest));
        check_eq(config_edits(longest, sizeof(longest), "x", 1), CONFIG_EDITS_MAX);
}

TEST(config_value, the_nearest_key_is_named_only_if_it_is_near) {
        check_str(config_key_nearest("max_conections", 14, false), "max_connections");
        check_str(config_key_nearest("redis_database", 14, true), "redis_databases");
        check_str(config_key_nearest("thread", 6, true), "threads");
        check(config_key_nearest("thread", 6, false) == NULL);
        check(config_key_nearest("completely_different", 20, true) == NULL);
}

TEST(config_value, names_are_of_1_to_63_safe_letters) {
        char longest[65];
        memset(longest, 'a', sizeof(longest));
        check(config_name_valid("main", 4) && config_name_valid("a.b-c_D9", 8) && config_name_valid(longest, 63));
        check(!config_name_valid("", 0) && !config_name_valid(longest, 64) && !config_name_valid("a/b", 3));
        check(!config_name_valid("a b", 3) && !config_name_valid("\xc3\xbc", 2) && !config_name_valid("a\0b", 3));
}

TEST(config_value, a_quoted_text_is_short_and_safe_for_a_terminal) {
        char buffer[CONFIG_QUOTE_SIZE], longest[300];
        check_str(config_quote("a\x1b[31m\n\t\xff", 9, buffer, sizeof(buffer)), "`a\\x1b[31m\\n\\t\\xff`");
        memset(longest, 'y', sizeof(longest));
        config_quote(longest, sizeof(longest), buffer, sizeof(buffer));
        check_eq(strlen(buffer), 45);
        memset(longest, 1, sizeof(longest));
        check(strlen(config_quote(longest, sizeof(longest), buffer, sizeof(buffer))) < sizeof(buffer));
        char tiny[20];
        check(strlen(config_quote(longest, sizeof(longest), tiny, sizeof(tiny))) < sizeof(tiny));
}

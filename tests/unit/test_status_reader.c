/* SPDX-License-Identifier: MIT */
/* The header-only reader, lessor/status.h, against segments that are sound, torn, cut short and not ours. */
#include <pthread.h>
#include <stdatomic.h>

#include "test_status_fake.h"

static struct fake fake;

static void setup(void) { fake_make(&fake); }
static void teardown(void) { fake_remove(&fake); }

#define READER_TEST(name) TEST_WITH(status_reader, name, .init = setup, .fini = teardown, .timeout = 60)

static int open_error(void) {
        struct lessor_status s = {.size = 77};
        int r = lessor_status_open(fake.instance, &s);
        check_eq(s.size, 77); /* untouched on failure */
        return r;
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

READER_TEST(a_sound_segment_opens_and_is_read) {
        struct lessor_status_database d = {.leases = 3};
        struct lessor_status s;

        snprintf(d.name, sizeof(d.name), "main");
        fake.header.databases = 1;
        fake_header(&fake);
        fake_database(&fake, 0, &d);
        check_eq(lessor_status_open(fake.instance, &s), 0);
        check_eq(lessor_status_databases(&s), 1);
        d.leases = 0;
        check_eq(lessor_status_read_database(&s, 0, LESSOR_STATUS_ALL, &d), 0);
        check_str(d.name, "main");
        check_eq(d.leases, 3);
        check_eq(lessor_status_read_database(&s, 1, LESSOR_STATUS_ALL, &d), -ENOENT);
        lessor_status_close(&s);
        lessor_status_close(&s); /* may be said twice */
}

READER_TEST(the_environment_names_the_instance) {
        struct lessor_status s;
        setenv("LESSOR_INSTANCE", fake.instance, 1);
        check_eq(lessor_status_open(NULL, &s), 0);
        lessor_status_close(&s);
        check_str(lessor_status_instance("x"), "x");
        setenv("LESSOR_INSTANCE", "", 1);
        check_str(lessor_status_instance(NULL), LESSOR_INSTANCE_DEFAULT);
}

READER_TEST(no_segment_is_enoent) {
        shm_unlink(fake.path);
        check_eq(open_error(), -ENOENT);
}

READER_TEST(names_that_are_no_names_are_einval) {
        struct lessor_status s;
        char longest[LESSOR_NAME_SIZE + 1];
        memset(longest, 'x', sizeof(longest));
        longest[LESSOR_NAME_SIZE] = '\0';
        check_eq(lessor_status_open("../etc/passwd", &s), -EINVAL);
        check_eq(lessor_status_open(longest, &s), -EINVAL);
}

READER_TEST(a_short_file_is_enodata) {
        check(ftruncate(fake.fd, 0) == 0);
        check_eq(open_error(), -ENODATA);
        check(ftruncate(fake.fd, (off_t)sizeof(fake.header) - 1) == 0);
        check_eq(open_error(), -ENODATA);
}

READER_TEST(a_file_shorter_than_its_header_says_is_enodata) {
        check(ftruncate(fake.fd, (off_t)fake.header.segment_size - 1) == 0);
        check_eq(open_error(), -ENODATA);
}

READER_TEST(a_wrong_magic_is_enodata) {
        fake.header.magic = 0; /* not complete yet */
        fake_header(&fake);
        check_eq(open_error(), -ENODATA);
        fake.header.magic = LESSOR_CONTROL_MAGIC;
        fake_header(&fake);
        check_eq(open_error(), -ENODATA);
}

READER_TEST(a_wrong_version_is_eproto) {
        fake.header.version = LESSOR_STATUS_VERSION + 1;
        fake_header(&fake);
        check_eq(open_error(), -EPROTO);
}

READER_TEST(records_outside_the_segment_are_enodata) {
        const struct lessor_status_header sound = fake.header;
        for (int i = 0; i < 13; i++) {
                fake.header = sound;
                uint32_t *fields[] = {&fake.header.header_size,         &fake.header.database_offset,
                                      &fake.header.database_offset,     &fake.header.database_size,
                                      &fake.header.database_capacity,   &fake.header.connection_offset,
                                      &fake.header.connection_offset,   &fake.header.connection_size,
                                      &fake.header.connection_capacity, &fake.header.lane_offset,
                                      &fake.header.lane_offset,         &fake.header.lane_size,
                                      &fake.header.lane_capacity};
                uint32_t wrong[] = {8,          8,    4097,           8,  UINT32_MAX, 4096, UINT32_MAX - 7, 16,
                                    UINT32_MAX, 4096, UINT32_MAX - 7, 16, UINT32_MAX};
                *fields[i] = wrong[i];
                fake_header(&fake);
                check_msg(open_error() == -ENODATA, "case %d was taken for sound", i);
        }
}

READER_TEST(a_fifo_under_the_name_is_refused_without_waiting) {
        char path[96];
        shm_unlink(fake.path);
        snprintf(path, sizeof(path), "/dev/shm%s", fake.path);
        check(mkfifo(path, 0600) == 0);
        check_eq(open_error(), -ENODATA);
        unlink(path);
}

READER_TEST(nothing_that_changes_after_the_check_leads_outside) {
        struct lessor_status_connection c;
        struct lessor_status_lane l;
        struct lessor_status s;

        check_eq(lessor_status_open(fake.instance, &s), 0);
        fake.header.lane_capacity = UINT32_MAX;
        fake.header.lane_offset = UINT32_MAX - 7;
        fake.header.databases = fake.header.connections = UINT64_MAX;
        fake.header.database_capacity = fake.header.connection_capacity = UINT32_MAX;
        fake.header.connection_offset = UINT32_MAX - 7;
        fake_header(&fake);
        check_eq(lessor_status_databases(&s), FAKE_DATABASES);
        check_eq(lessor_status_connections(&s), FAKE_CONNECTIONS);
        check_eq(lessor_status_read_connection(&s, FAKE_CONNECTIONS - 1, &c), 0);
        check_eq(lessor_status_read_connection(&s, FAKE_CONNECTIONS, &c), -ENOENT);
        check_eq(lessor_status_lanes(&s), FAKE_LANES);
        check_eq(lessor_status_read_lane(&s, FAKE_LANES - 1, &l), 0);
        check_eq(lessor_status_read_lane(&s, FAKE_LANES, &l), -ENOENT);
        lessor_status_close(&s);
}

/* ---- freshness ------------------------------------------------------------------------------------------------- */

READER_TEST(a_heartbeat_over_three_seconds_old_is_stale) {
        struct lessor_status s;
        check_eq(lessor_status_open(fake.instance, &s), 0);
        check(!lessor_status_stale(&s));
        fake_beat(&fake, LESSOR_STATUS_STALE_NS + 1);
        check(lessor_status_stale(&s));
        check(lessor_status_heartbeat_age(&s) >= LESSOR_STATUS_STALE_NS);
        fake.header.heartbeat = UINT64_MAX; /* a beat after our look at the clock: no age, not a huge one */
        fake_header(&fake);
        check_eq(lessor_status_heartbeat_age(&s), 0);
        lessor_status_close(&s);
}

READER_TEST(a_new_segment_under_the_name_is_noticed) {
        struct lessor_status s;
        check_eq(lessor_status_open(fake.instance, &s), 0);
        check(!lessor_status_replaced(&s));
        shm_unlink(fake.path);
        check(lessor_status_replaced(&s));
        int other = shm_open(fake.path, O_RDWR | O_CREAT | O_EXCL, 0644);
        check(other >= 0);
        check(lessor_status_replaced(&s));
        close(other);
        lessor_status_close(&s);
}

/* ---- one record under its sequence number ---------------------------------------------------------------------- */

READER_TEST(a_record_left_half_written_is_eagain) {
        struct lessor_status_database d = {.leases = 5}, half;
        struct lessor_status s;
        uint64_t odd = 3;

        fake.header.databases = 1;
        fake_header(&fake);
        fake_database(&fake, 0, &d);
        fake_put(&fake, &odd, 8, fake.header.database_offset);
        check_eq(lessor_status_open(fake.instance, &s), 0);
        check_eq(lessor_status_read_database(&s, 0, LESSOR_STATUS_ALL, &half), -EAGAIN);
        lessor_status_close(&s);
}

READER_TEST(histograms_may_be_left_out) {
        struct lessor_status_database d = {.leases = 5, .wait_time.count = 9};
        struct lessor_status s;

        fake.header.databases = 1;
        fake_header(&fake);
        fake_database(&fake, 0, &d);
        d = (struct lessor_status_database){.wait_time.count = 42};
        check_eq(lessor_status_open(fake.instance, &s), 0);
        check_eq(lessor_status_read_database(&s, 0, LESSOR_STATUS_NO_HISTOGRAMS, &d), 0);
        check_eq(d.leases, 5);
        check_eq(d.wait_time.count, 42);
        lessor_status_close(&s);
}

static atomic_bool writer_ends;

/* Every field of the record carries the same number: a reader that sees two of them has been given a mixture. */
static void *write_on(void *argument) {
        static struct lessor_status_database d;
        for (uint64_t n = 1; !atomic_load(&writer_ends); n++) {
                d.leases = d.last_lease_time = d.wait_time.count = n;
                for (unsigned i = 0; i < LESSOR_CALL_BUCKETS; i++)
                        d.call_time.bucket[i] = n;
                fake_database(&fake, 0, &d);
        }
        return NULL;
}

static void check_uniform(const struct lessor_status_database *d) {
        check_eq(d->last_lease_time, d->leases);
        check_eq(d->wait_time.count, d->leases);
        for (unsigned i = 0; i < LESSOR_CALL_BUCKETS; i++)
                check_eq(d->call_time.bucket[i], d->leases);
}

READER_TEST(a_snapshot_under_a_concurrent_writer_is_of_one_moment) {
        struct lessor_status_database d = {0};
        struct lessor_status s;
        pthread_t writer;
        unsigned read = 0;
        uint64_t last = 0;

        fake.header.databases = 1;
        fake_header(&fake);
        check_eq(lessor_status_open(fake.instance, &s), 0);
        check_eq(pthread_create(&writer, NULL, write_on, NULL), 0);
        while (read < 20000) {
                int r = lessor_status_read_database(&s, 0, LESSOR_STATUS_ALL, &d);
                check(r == 0 || r == -EAGAIN);
                if (r < 0)
                        continue;
                check(d.leases >= last);
                check_uniform(&d);
                last = d.leases;
                read++;
        }
        atomic_store(&writer_ends, true);
        pthread_join(writer, NULL);
        check(last > 0);
        lessor_status_close(&s);
}

/* ---- histograms ------------------------------------------------------------------------------------------------ */

TEST(status_histogram, bucket_limits_are_as_documented) {
        check_eq(lessor_status_bucket_below_ns(0), 1024);
        check_eq(lessor_status_bucket_below_ns(1), 1280);
        check_eq(lessor_status_bucket_below_ns(4), 2048);
        check_eq(lessor_status_bucket_below_ns(1 + 4 * 26 + 3), UINT64_C(8) << 34);
        check(lessor_status_bucket_below_ns(LESSOR_CALL_BUCKETS - 1) == UINT64_MAX);
        for (unsigned i = 1; i < LESSOR_CALL_BUCKETS; i++)
                check(lessor_status_bucket_below_ns(i) > lessor_status_bucket_below_ns(i - 1));
}

TEST(status_histogram, percentiles_are_limits_of_buckets_and_never_above_the_maximum) {
        struct lessor_status_histogram h = {.max_ns = 1900};
        check_eq(lessor_status_percentile(&h, 0.99), 0);
        h.bucket[0] = 90;
        h.bucket[4] = 10; /* 1792 .. 2047 */
        check_eq(lessor_status_percentile(&h, 0.5), 1024);
        check_eq(lessor_status_percentile(&h, 0.9), 1024);
        check_eq(lessor_status_percentile(&h, 0.91), 1900);
        check_eq(lessor_status_percentile(&h, 1), 1900);
        h.bucket[LESSOR_CALL_BUCKETS - 1] = 1000;
        h.max_ns = UINT64_C(200000000000);
        check(lessor_status_percentile(&h, 0.99) == h.max_ns);
}

/* ---- it compiles alone, in C and in C++ ------------------------------------------------------------------------ */

static void compiles(const char *compiler) {
        char command[1024];
        snprintf(command, sizeof(command),
                 "printf '#include <lessor/status.h>\\nint main(void) { struct lessor_status s; return "
                 "lessor_status_open(0, &s); }\\n' | %s -Wall -Wextra -Wpedantic -Wcast-qual -Werror -fsyntax-only "
                 "-I %s/include -",
                 compiler, LESSOR_SOURCE_DIR);
        check_msg(system(command) == 0, "not with `%s`", compiler);
}

TEST(status_header, compiles_as_c11_and_c17) {
        if (system("cc --version >/dev/null 2>&1") != 0)
                test_skip("no C compiler here");
        compiles("cc -x c -std=c11 -D_POSIX_C_SOURCE=200809L");
        compiles("cc -x c -std=c17 -D_POSIX_C_SOURCE=200809L");
        compiles("cc -x c -std=gnu17");
}

TEST(status_header, compiles_as_cpp17) {
        if (system("c++ --version >/dev/null 2>&1") != 0)
                test_skip("no C++ compiler here");
        compiles("c++ -x c++ -std=c++17");
}

/* SPDX-License-Identifier: MIT */
/* The figures in shared memory equal what happened; whoever reads them can tell whether they are fresh. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"

enum { WAIT_MS = 20000 };

TEST(status, limits_are_those_configured) {
        struct host h;

        host_start(&h, "max_connections: 7, max_waiters: 9, wait_timeout: 1500ms, socket_timeout: 2s");
        struct lessor_status_database d = broker_figures_now(&h.broker, "main");
        check_eq(d.max_connections, 7);
        check_eq(d.max_waiters, 9);
        check_eq(d.wait_timeout, 1500000000);
        check_eq(d.socket_timeout, 2000000000);
        check_eq(d.health, LESSOR_HEALTH_UNUSED);
        check_eq(d.open_connections + d.created_connections + d.leases + d.operations_ok, 0);
        check_eq(d.last_success_time + d.last_error_time + d.last_lease_time, 0);
        check_msg(strstr(d.endpoint, h.redis.socket), "%s", d.endpoint);
        host_end(&h);
}

TEST(status, counters_equal_what_happened) {
        struct host h;
        lessor_error e = {0};
        uint64_t began = (uint64_t)time(NULL) * 1000000000U;

        host_start(&h, "max_connections: 3");
        long long connections = redis_info(&h.redis, "total_connections_received");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_lease *lease[3];
        for (unsigned i = 0; i < 3; i++)
                check((lease[i] = lessor_acquire(db, WAIT_MS, &e)));
        check_figure_soon(&h.broker, "main", in_use_connections, 3, 5000);
        for (unsigned i = 0; i < 10; i++)
                freeReplyObject(lessor_lease_command(lease[0], &e, "INCR n"));
        freeReplyObject(lessor_lease_command(lease[0], &e, "HGET n field")); /* an error of Redis */
        for (unsigned i = 0; i < 3; i++)
                lessor_release(lease[i]);
        for (unsigned i = 0; i < 5; i++)
                freeReplyObject(client_command(db, "PING"));
        check_figure_soon(&h.broker, "main", operations_ok, 15, 5000);
        check_figure_soon(&h.broker, "main", in_use_connections, 0, 5000);
        struct lessor_status_database d = broker_figures_now(&h.broker, "main");
        check_eq(d.health, LESSOR_HEALTH_HEALTHY);
        check_eq(d.operations_failed, 1);
        check_eq(d.created_connections, 3);
        check_eq(redis_info(&h.redis, "total_connections_received") - connections, 3);
        check_eq(d.open_connections, 3);
        check_eq(d.available_connections, 3);
        check_eq(d.parked_connections, 3);
        check_eq(d.peak_connections, 3);
        check_eq(d.leases, 3);
        check_eq(d.warm_leases, 5);
        check_eq(d.wait_time.count, 3);
        check_eq(d.hold_time.count, 3 + 1); /* each that the broker granted, and one in 64 of the others */
        check_eq(d.call_time.count, 16);
        check_eq(d.failed_connections + d.reconnections + d.retry_attempts + d.lease_timeouts + d.exhausted + d.denied,
                 0);
        check_eq(d.cancelled + d.reclaims + d.timeouts + d.reports, 0);
        check_eq(d.discards_dirty + d.discards_stray + d.discards_holder + d.discards_lost, 0);
        check(d.last_success_time >= began && d.last_lease_time >= began);
        check_eq(d.last_error_time, 0);
        lessor_close(l);
        host_end(&h);
}

TEST(status, operations_of_a_worker_that_is_gone_stay_counted) {
        struct host h;

        host_start(&h, "max_connections: 3");
        for (unsigned round = 1; round <= 3; round++) {
                lessor *l = client_open(&h.broker);
                lessor_db *db = client_database(l, NULL);
                for (unsigned i = 0; i < 7; i++)
                        freeReplyObject(client_command(db, "PING"));
                lessor_close(l);
                check_figure_soon(&h.broker, "main", operations_ok, 7 * round, 5000);
        }
        host_end(&h);
}

TEST(status, a_holder_is_shown_with_process_thread_and_call_site) {
        struct host h;
        lessor_error e = {0};
        char site[64];

        host_start(&h, "max_connections: 3");
        lessor *l = client_open(&h.broker);
        lessor_db *db = client_database(l, NULL);
        lessor_lease *lease = lessor_acquire(db, WAIT_MS, &e);
        snprintf(site, sizeof(site), "test_status.c:%d", __LINE__ - 1);
        check_figure_soon(&h.broker, "main", in_use_connections, 1, 5000);
        redisReply *id = lessor_lease_command(lease, &e, "CLIENT ID");
        struct lessor_status_connection c = broker_connection_held(&h.broker);
        check_eq(c.database, 0);
        check_eq(c.holder_tid, gettid());
        check_eq(c.holder_uid, getuid());
        check_eq(c.client_id, id->integer);
        check_msg(strstr(c.site, site), "%s, expected %s", c.site, site);
        check_msg(strncmp(c.holder, "test_status", 11) == 0, "%s", c.holder);
        check(c.since_ns <= lessor_status_now_ns() && lessor_status_now_ns() - c.since_ns < 60000000000U);
        freeReplyObject(id);
        lessor_release(lease);
        lessor_close(l);
        host_end(&h);
}

TEST(status, the_heartbeat_advances_while_the_broker_lives_and_goes_stale_when_it_is_killed) {
        struct lessor_status status = {0};
        struct host h;

        host_start(&h, "max_connections: 3");
        check_eq(lessor_status_open(h.broker.instance, &status), 0);
        uint64_t first = lessor_status_word(&status.header->heartbeat);
        check_soon(lessor_status_word(&status.header->heartbeat) > first, 5000);
        check(!lessor_status_stale(&status));
        check_eq(status.constants.broker_pid, h.broker.pid);
        check_str(status.constants.name, h.broker.instance);
        broker_kill(&h.broker);
        check_soon(lessor_status_stale(&status), 10000);
        lessor_status_close(&status);
        broker_launch(&h.broker);
        host_end(&h);
}

TEST(status, a_stopped_broker_is_stale_too) {
        struct lessor_status status = {0};
        struct host h;

        host_start(&h, "max_connections: 3");
        check_eq(lessor_status_open(h.broker.instance, &status), 0);
        broker_pause(&h.broker);
        check_soon(lessor_status_stale(&status), 10000);
        broker_resume(&h.broker);
        check_soon(!lessor_status_stale(&status), 10000);
        lessor_status_close(&status);
        host_end(&h);
}

TEST(status, sessions_are_counted) {
        struct lessor_status status = {0};
        struct host h;

        host_start(&h, "max_connections: 3");
        check_eq(lessor_status_open(h.broker.instance, &status), 0);
        check_eq(broker_sessions_now(&h.broker), 0);
        uint64_t total = lessor_status_word(&status.header->sessions_total);
        lessor *l = client_open(&h.broker), *m = client_open(&h.broker);
        client_database(l, NULL);
        client_database(m, NULL);
        check_soon(lessor_status_word(&status.header->sessions) == 2, 5000);
        check_eq(lessor_status_word(&status.header->sessions_total) - total, 2);
        lessor_close(l);
        lessor_close(m);
        check_soon(lessor_status_word(&status.header->sessions) == 0, 5000);
        lessor_status_close(&status);
        host_end(&h);
}

TEST(status, readers_may_be_anybody_and_writers_nobody_else) {
        char path[128];
        struct stat st;
        struct host h;

        host_start(&h, "max_connections: 3");
        snprintf(path, sizeof(path), "/dev/shm/lessor.%s", h.broker.instance);
        check(stat(path, &st) == 0);
        check_eq(st.st_mode & 07777, 0644);
        host_end(&h);
}

/* What a worker maps of others' concern, the control page, cannot be written by whoever holds its fd. */
TEST(status, the_control_page_cannot_be_mapped_writable) {
        char path[64], target[128];
        unsigned sealed = 0;
        struct host h;

        host_start(&h, "max_connections: 3");
        lessor *l = client_open(&h.broker);
        client_database(l, NULL);
        FILE *maps = fopen("/proc/self/maps", "re");
        char line[512];
        while (fgets(line, sizeof(line), maps)) {
                unsigned long from, to;
                char mode[8];
                if (!strstr(line, "memfd:") || sscanf(line, "%lx-%lx %7s", &from, &to, mode) != 3 || mode[1] == 'w')
                        continue;
                snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", from, to);
                int fd = open(path, O_RDWR | O_CLOEXEC);
                if (fd < 0)
                        continue;
                check(mmap(NULL, to - from, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
                check(write(fd, target, 1) < 0);
                check(ftruncate(fd, 0) < 0);
                sealed++;
                close(fd);
        }
        fclose(maps);
        lessor_close(l);
        host_end(&h);
        if (sealed == 0)
                test_skip("the map_files of /proc cannot be opened here (needs CAP_CHECKPOINT_RESTORE)");
}

/* SPDX-License-Identifier: MIT */
/* lessor-demo: options, the course of the show, and an end that leaves nothing behind. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <base/cleanup.h>
#include <base/clock.h>

#include "cli.h"
#include "demo.h"

const char *const demo_databases[DEMO_DATABASES] = {"main",  "knowledge", "prompts",   "agents", "metrics",
                                                    "cache", "sessions",  "workflows", "logs",   "temp",
                                                    "audit", "analytics", "codebase"};

static volatile sig_atomic_t interrupted;
static void on_signal(int number) { interrupted = 1; }

/* ---- setting the scene ------------------------------------------------------------------------------------------- */

/* "HOST:PORT", "[::1]:6379" or "/path" -> keys of the configuration. */
static int place_keys(struct demo *d, char *ret, size_t size) {
        const char *where = d->o.redis ? d->o.redis : d->servers->redis_socket, *colon = strrchr(where, ':');
        char host[256];

        snprintf(d->redis_place, sizeof(d->redis_place), "%s", d->o.redis ? where : "a private Unix socket");
        if (where[0] == '/') {
                snprintf(ret, size, "unix_socket: \"%s\"", where);
                return 0;
        }
        if (!colon || colon == where || (size_t)(colon - where) >= sizeof(host) || atoi(colon + 1) <= 0)
                return servers_fail(d->servers, -EINVAL, "--redis %s: write HOST:PORT or the path of a Unix socket",
                                    where);
        bool brackets = where[0] == '[' && colon[-1] == ']';
        snprintf(host, sizeof(host), "%.*s", (int)(colon - where) - 2 * brackets, where + brackets);
        snprintf(ret, size, "host: \"%s\", port: %d", host, atoi(colon + 1));
        return 0;
}

static int start_broker(struct demo *d) {
        char place[512];
        size_t size;
        int r = place_keys(d, place, sizeof(place));
        FILE *out = r == 0 ? open_memstream(&d->config, &size) : NULL;

        if (r < 0 || !out)
                return r < 0 ? r : -ENOMEM;
        fprintf(out, "max_connections: %u\nwait_timeout: 30s\nsocket_timeout: 30s\ndatabases:\n", d->o.connections);
        for (unsigned i = 0; i < DEMO_DATABASES; i++)
                fprintf(out, "  %s: {db: %u, %s}\n", demo_databases[i], i < 12 ? i : 11, place);
        fclose(out);
        return servers_start_broker(d->servers, d->config);
}

static redisContext *connect_given(const char *where) {
        const char *colon = strrchr(where, ':');
        bool brackets = where[0] == '[';
        char host[256];

        if (where[0] == '/' || !colon)
                return redisConnectUnix(where);
        snprintf(host, sizeof(host), "%.*s", (int)(colon - where) - 2 * brackets, where + brackets);
        return redisConnect(host, atoi(colon + 1));
}

/* A Redis that was given may want a password: from where the broker takes it, too. */
static int connect_redis(struct demo *d) {
        const char *password = getenv("LESSOR_REDIS_PASSWORD"), *user = getenv("LESSOR_REDIS_USERNAME");
        redisReply *r = NULL;

        d->redis = d->o.redis ? connect_given(d->o.redis) : servers_connect(d->servers);
        if (!d->redis)
                return -EIO;
        if (d->redis->err)
                return servers_fail(d->servers, -EIO, "%s: %s", d->o.redis, d->redis->errstr);
        if (d->o.redis && password)
                r = user ? redisCommand(d->redis, "AUTH %s %s", user, password)
                         : redisCommand(d->redis, "AUTH %s", password);
        freeReplyObject(r);
        r = redisCommand(d->redis, "PING");
        bool good = r && r->type == REDIS_REPLY_STATUS;
        int result = good ? 0 : servers_fail(d->servers, -EIO, "%s: %s", d->redis_place, r ? r->str : d->redis->errstr);
        freeReplyObject(r);
        return result;
}

static int make_board(struct demo *d) {
        size_t size = sizeof(*d->board) + d->o.workers * sizeof(struct demo_tally);
        void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
                return servers_fail(d->servers, -errno, "mmap: %s", strerror(errno));
        d->board = memory;
        snprintf(d->board->prefix, sizeof(d->board->prefix), "lessor-demo:%d:", (int)getpid());
        return 0;
}

static int set_up(struct demo *d) {
        int r = make_board(d);
        if (r == 0 && !d->o.redis)
                r = servers_start_redis(d->servers);
        if (r == 0)
                r = start_broker(d);
        if (r == 0)
                r = connect_redis(d);
        if (r == 0)
                r = demo_watch_start(d);
        if (r == 0)
                r = lessor_open(d->servers->broker_socket, &d->handle);
        return r;
}

/* ---- the show ---------------------------------------------------------------------------------------------------- */

/* About nine times in a run, the last time well before its end. */
static uint64_t kill_period(const struct demo *d) {
        uint64_t ns = d->o.seconds * NS_PER_S / 10;
        return ns > 300 * NS_PER_MS ? ns : 300 * NS_PER_MS;
}

/* -9, and another one takes its place; the workers go on. */
static int kill_broker(struct demo *d) {
        demo_expect_two(d);
        atomic_store(&d->board->broker_killed, true);
        servers_kill_broker(d->servers);
        int r = servers_start_broker(d->servers, d->config);
        return r < 0 ? r : demo_watch_next(d);
}

static int perform(struct demo *d) {
        uint64_t now, end, next_kill;
        int r = demo_crew_start(d);

        d->began_ns = now = clock_now();
        end = now + d->o.seconds * NS_PER_S;
        next_kill = now + kill_period(d);
        struct demo_screen *screen = r == 0 ? demo_screen_new(d) : NULL;
        while (r == 0 && !interrupted && (now = clock_now()) < end) {
                if (now >= next_kill && next_kill + kill_period(d) / 2 < end) {
                        demo_crew_kill_one(d);
                        next_kill = now + kill_period(d);
                }
                if (!atomic_load(&d->board->broker_killed) && end - now < (end - d->began_ns) / 4)
                        r = kill_broker(d);
                demo_crew_mind(d);
                demo_watch_connections(d);
                demo_screen_draw(screen, d, now);
                nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        }
        if (r == 0 && !interrupted && !atomic_load(&d->board->broker_killed)) /* the machine stood still meanwhile */
                r = kill_broker(d);
        d->ended_ns = clock_now();
        demo_screen_free(screen);
        demo_crew_end(d);
        demo_watch_connections(d);
        return r;
}

static int run(struct servers *servers, void *argument) {
        struct demo *d = argument;
        struct sigaction action = {.sa_handler = on_signal};
        bool good = false;

        /* A group of our own: ctrl-c reaches the one who started us, and he tells us alone, not the broker and Redis. */
        setpgid(0, 0);
        signal(SIGTTOU, SIG_IGN);
        sigaction(SIGTERM, &action, NULL);
        sigaction(SIGINT, &action, NULL);
        d->servers = servers;
        int r = set_up(d);
        if (r == 0)
                r = perform(d);
        if (r == 0) {
                (void)servers_wait_status(servers, demo_settled, d);
                good = demo_report(d);
                if (!d->o.redis && !d->o.json && !d->o.no_comparison && !interrupted)
                        r = demo_compare(d);
        }
        if (r < 0)
                fprintf(stderr, "lessor-demo: %s\n", servers->error[0] ? servers->error : strerror(-r));
        demo_clean_up(d);
        lessor_close(d->handle);
        lessor_status_close(&d->status);
        if (d->redis)
                redisFree(d->redis);
        free(d->config);
        return r < 0 ? EXIT_TROUBLE : !good;
}

/* ---- options ----------------------------------------------------------------------------------------------------- */

static void usage(FILE *out) {
        fputs("usage: lessor-demo [--seconds N] [--workers N] [--connections N] [--redis HOST:PORT | PATH]\n"
              "                   [--no-comparison] [--json]\n"
              "  --seconds N      how long, 15\n"
              "  --workers N      forked worker processes, 64\n"
              "  --connections N  the cap of each of the thirteen databases, 4\n"
              "  --redis WHERE    a Redis that runs already, in the place of a private one; its password is taken "
              "from\n"
              "                   $LESSOR_REDIS_PASSWORD (and $LESSOR_REDIS_USERNAME); keys begin with lessor-demo:\n"
              "                   and are removed at the end\n"
              "  --no-comparison  not the 200 workers at the end, who there are only on a private Redis\n"
              "  --json           the last line is one JSON object, and there is no comparison\n"
              "Exit status 0 if nothing was lost and nothing was wrong, 1 if something was.\n",
              out);
}

static bool number(const char *text, unsigned max, unsigned *ret) {
        char *end;
        unsigned long n = strtoul(text, &end, 10);
        if (*text < '0' || *text > '9' || *end || n < 1 || n > max)
                return false;
        *ret = (unsigned)n;
        return true;
}

static bool parse(int argc, char **argv, struct demo_options *o) {
        static const struct option options[] = {{"seconds", required_argument, NULL, 's'},
                                                {"workers", required_argument, NULL, 'w'},
                                                {"connections", required_argument, NULL, 'c'},
                                                {"redis", required_argument, NULL, 'r'},
                                                {"no-comparison", no_argument, NULL, 'n'},
                                                {"json", no_argument, NULL, 'j'},
                                                {"help", no_argument, NULL, 'h'},
                                                {0}};
        bool good = true;
        for (int option; good && (option = getopt_long(argc, argv, "", options, NULL)) >= 0;) {
                if (option == 's')
                        good = number(optarg, 86400, &o->seconds);
                else if (option == 'w')
                        good = number(optarg, DEMO_WORKERS_MAX, &o->workers);
                else if (option == 'c')
                        good = number(optarg, 1000, &o->connections);
                else if (option == 'r')
                        o->redis = optarg;
                else if (option == 'n')
                        o->no_comparison = true;
                else if (option == 'j')
                        o->json = true;
                else if (option == 'h') {
                        usage(stdout);
                        exit(0);
                } else
                        good = false;
        }
        return good && !argv[optind];
}

int main(int argc, char **argv) {
        static struct demo demo = {.o = {.seconds = 15, .workers = 64, .connections = 4}};
        if (!parse(argc, argv, &demo.o)) {
                usage(stderr);
                return EXIT_USAGE;
        }
        return servers_supervised(run, &demo);
}

/* SPDX-License-Identifier: MIT */
/*
 * Everything at once in the same processes: threads that call by lane, lease, pipe, block, work raw on a context, fill
 * queues and throw them away, while workers are killed, the broker is killed, stopped and reloaded, and Redis restarts. Every
 * answer carries whose question it was. At the end nobody has more fds than one session needs. What each of these does alone
 * has its own test; this is about what they do to each other.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include <lessor/queue.h>

#include "support/check.h"
#include "support/host.h"
#include "support/process.h"

enum { WORKERS = 8, THREADS = 2, CAP = 6, ROUNDS = 12, TURNS = 20, WAIT_MS = 60000, FDS = 40, IN_QUEUE = 20 };

struct scene {
        const char *socket;
        _Atomic bool end;
        _Atomic uint32_t turns[WORKERS][THREADS];
        _Atomic uint64_t answered, failed;
};

struct player {
        struct scene *scene;
        lessor *client;
        lessor_db *db;
        unsigned worker, thread, turn;
        char words[64]; /* this turn's */
};

/* Takes the reply. NULL: there is an error of ours, which the weather explains. */
static bool is_mine(struct player *p, redisReply *reply, const char *words) {
        bool mine = !reply || (reply->type == REDIS_REPLY_STRING && strcmp(reply->str, words) == 0);

        if (!mine)
                fprintf(stderr, "`%s`, expected `%s`\n", reply->str ? reply->str : "(none)", words);
        atomic_fetch_add(reply ? &p->scene->answered : &p->scene->failed, 1);
        freeReplyObject(reply);
        return mine;
}

static bool by_command(struct player *p) {
        return is_mine(p, lessor_command(p->db, NULL, "ECHO %s", p->words), p->words);
}

static bool by_lease(struct player *p) {
        lessor_lease *lease = lessor_acquire(p->db, WAIT_MS, NULL);
        bool good = true;

        for (unsigned i = 0; lease && good && i < 3; i++)
                good = is_mine(p, lessor_lease_command(lease, NULL, "ECHO %s", p->words), p->words);
        if (lease && p->turn % 4 == 0) /* which leaves something behind */
                freeReplyObject(lessor_lease_command(lease, NULL, "SELECT 5"));
        lessor_release(lease);
        return good;
}

static bool raw(struct player *p) {
        lessor_lease *lease = lessor_acquire(p->db, WAIT_MS, NULL);
        redisContext *c = lease ? lessor_context(lease) : NULL;
        bool good = !c || is_mine(p, redisCommand(c, "ECHO %s", p->words), p->words);

        if (c && p->turn % 3 == 0) /* and nobody reads the answer */
                redisAppendCommand(c, "PING");
        lessor_release(lease);
        return good;
}

static bool by_pipe(struct player *p) {
        lessor_pipe *pipe = lessor_pipe_new(p->db, p->turn % 2 ? LESSOR_ATOMIC : 0);
        redisReply **replies = NULL;
        bool good = pipe != NULL;
        size_t n = 0;

        for (unsigned i = 0; good && i < 5; i++)
                good = lessor_pipe_add(pipe, "ECHO %s-%u", p->words, i) == 0;
        if (good && lessor_pipe_run(pipe, WAIT_MS, &replies, &n, NULL) == 0) {
                good = n == 5;
                for (unsigned i = 0; good && i < n; i++) {
                        char words[96];
                        snprintf(words, sizeof(words), "%s-%u", p->words, i);
                        good = is_mine(p, replies[i], words);
                        replies[i] = NULL;
                }
                lessor_pipe_replies_free(replies, n);
        }
        lessor_pipe_free(pipe);
        return good;
}

static bool blocking(struct player *p) {
        redisReply *reply = lessor_command(p->db, NULL, "BLPOP nothing:%s 0.01", p->words);
        bool good = !reply || reply->type == REDIS_REPLY_NIL || reply->type == REDIS_REPLY_ERROR;

        freeReplyObject(reply);
        return good;
}

/* One in three leaves its queue with all that is under way in it. */
static bool by_queue(struct player *p) {
        const char *argv[] = {"ECHO", p->words};
        lessor_result result;
        lessor_queue *queue;
        bool good = true;

        if (lessor_queue_new(p->client, &queue) != 0)
                return false;
        for (unsigned i = 0; i < IN_QUEUE; i++)
                if (lessor_submit(queue, p->db, WAIT_MS, 2, argv, NULL, p, NULL) != 0)
                        break;
        while (good && p->turn % 3 > 0 && lessor_queue_in_flight(queue) > 0)
                good = lessor_reap(queue, WAIT_MS, &result) == 1 && is_mine(p, result.reply, p->words);
        lessor_queue_free(queue);
        return good;
}

static bool play(struct player *p) {
        static bool (*const ways[])(struct player *) = {by_command, by_lease, by_command, by_pipe,
                                                        by_queue,   raw,      by_command, blocking};
        uint64_t odds = (p->worker * UINT64_C(40503) + p->thread * UINT64_C(977) + p->turn) * UINT64_C(2654435761);

        snprintf(p->words, sizeof(p->words), "process %d, thread %u, turn %u", (int)getpid(), p->thread, p->turn);
        return ways[(odds >> 16) % (sizeof(ways) / sizeof(ways[0]))](p);
}

static void *plays(void *arg) {
        struct player *p = arg;

        for (; !atomic_load(&p->scene->end); p->turn++) {
                if (!play(p))
                        return p;
                atomic_fetch_add(&p->scene->turns[p->worker][p->thread], 1);
        }
        return NULL;
}

struct seat {
        struct scene *scene;
        unsigned number;
        struct workers workers; /* one */
};

static int be_a_worker(unsigned index, void *arg) {
        struct player players[THREADS];
        pthread_t threads[THREADS];
        const struct seat *seat = arg;
        unsigned before = fd_count(getpid());
        lessor_db *db;
        lessor *l;
        void *bad;

        (void)index;
        signal(SIGPIPE, SIG_IGN); /* those who work raw need it */
        child_check(lessor_open(seat->scene->socket, &l) == 0);
        child_check(wait_until(lessor_database(l, NULL, &db, NULL) == 0, WAIT_MS));
        for (unsigned i = 0; i < THREADS; i++) {
                players[i] = (struct player){
                        .scene = seat->scene, .client = l, .db = db, .worker = seat->number, .thread = i};
                child_check(pthread_create(&threads[i], NULL, plays, &players[i]) == 0);
        }
        for (unsigned i = 0; i < THREADS; i++)
                child_check(pthread_join(threads[i], &bad) == 0 && !bad);
        child_check(fd_count(getpid()) <= before + FDS);
        lessor_close(l);
        return 0;
}

static bool all_play(struct scene *scene) {
        uint32_t so_far[WORKERS * THREADS];
        bool good = true;

        for (unsigned i = 0; i < WORKERS * THREADS; i++)
                so_far[i] = atomic_load(&scene->turns[i / THREADS][i % THREADS]);
        for (unsigned i = 0; good && i < WORKERS * THREADS; i++)
                good = wait_until(atomic_load(&scene->turns[i / THREADS][i % THREADS]) >= so_far[i] + TURNS, WAIT_MS);
        return good;
}

static void change_weather(struct host *h, struct seat *seat, unsigned round) {
        switch (round % 5) {
        case 0:
                broker_kill(&h->broker);
                broker_relaunch(&h->broker);
                break;
        case 1:
                redis_kill(&h->redis);
                redis_restart(&h->redis);
                break;
        case 2:
                workers_kill(&seat->workers, 0);
                workers_start(&seat->workers, 1, be_a_worker, seat);
                break;
        case 3:
                broker_stop(&h->broker);
                broker_relaunch(&h->broker);
                break;
        default:
                broker_pause(&h->broker);
                broker_resume(&h->broker);
                break;
        }
}

static void check_mixture(const char *path) {
        struct scene *scene = shared_memory(sizeof(*scene));
        struct seat seats[WORKERS];
        unsigned good = 0;
        struct host h;
        char keys[160];

        snprintf(keys, sizeof(keys), "max_connections: %d, path: %s, wait_timeout: 60s, socket_timeout: 60s", CAP,
                 path);
        host_start(&h, keys);
        scene->socket = h.broker.socket;
        for (unsigned i = 0; i < WORKERS; i++) {
                seats[i] = (struct seat){.scene = scene, .number = i};
                workers_start(&seats[i].workers, 1, be_a_worker, &seats[i]);
        }
        for (unsigned i = 0; i < ROUNDS; i++) {
                check_msg(all_play(scene), "before round %u", i);
                change_weather(&h, &seats[i % WORKERS], i);
        }
        check(all_play(scene));
        atomic_store(&scene->end, true);
        for (unsigned i = 0; i < WORKERS; i++)
                good += workers_wait(&seats[i].workers, WAIT_MS);
        check_eq(good, WORKERS);
        fprintf(stderr, "%llu answers, %llu failed\n", (unsigned long long)scene->answered,
                (unsigned long long)scene->failed);
        host_end(&h);
}

TEST_WITH(mixture, everything_at_once_where_the_broker_chooses, .timeout = 240) { check_mixture("auto"); }
TEST_WITH(mixture, everything_at_once_by_lane, .timeout = 240) { check_mixture("lane"); }

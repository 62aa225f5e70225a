/* SPDX-License-Identifier: MIT */
/*
 * Lanes with somebody at both ends: workers that submit, cancel, sleep on the futex or the eventfd, and a broker that sleeps
 * on its doorbell. Nobody sleeps for a guess: who is not woken within a long time has been forgotten, and fails.
 */
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "base/lane.h"
#include "support/check.h"

#define LANES 3U
#define CALLS 50000U
#define FORGOTTEN_S 20

static const struct lane_geometry geometry = {.entries = 8, .requests_size = 300, .replies_size = 600};

struct stress;
struct end { /* one lane */
        struct lane_broker broker;
        struct lane_worker worker;
        int event; /* completions, for a worker who waits that way */
        struct stress *stress;
        enum lane_waiting how;
        uint64_t kept_tag; /* the broker's: a reply without room; 0: none */
        uint32_t kept_length;
        uint64_t last_rung;
        uint64_t cancelled, answered, slept, rung; /* the worker's figures */
};

struct stress {
        struct end ends[LANES];
        lessor_atomic32 bell, quiet;
        uint32_t armed;
        int doorbell;
        _Atomic(const char *) fault;
        _Atomic(unsigned) running;
        uint64_t slept, starved, taken; /* the broker's figures */
};

static uint32_t chance(uint32_t *state) {
        *state ^= *state << 13, *state ^= *state >> 17, *state ^= *state << 5;
        return *state;
}

static void fault(struct stress *s, const char *what) { atomic_store(&s->fault, what); }

static void ring(int fd) {
        uint64_t one = 1;
        if (write(fd, &one, sizeof(one)) < 0)
                abort();
}

/* False: nothing came. */
static bool wait_event(int fd) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        uint64_t count;
        int n;
        while ((n = poll(&p, 1, FORGOTTEN_S * 1000)) < 0 && errno == EINTR)
                ;
        return n == 1 && read(fd, &count, sizeof(count)) > 0;
}

static bool wait_futex(lessor_atomic32 *word, uint32_t value) {
        struct timespec t = {.tv_sec = FORGOTTEN_S};
        return syscall(SYS_futex, word, FUTEX_WAIT, value, &t, NULL, 0) == 0 || errno == EAGAIN || errno == EINTR;
}

/* What a tag's request and reply look like: byte k of both. */
static char byte_of(uint64_t tag, uint32_t k) { return (char)(tag * 31 + k * 7); }
static uint32_t request_length(uint64_t tag) { return 1 + (uint32_t)(tag * 2654435761U >> 8) % 100; }
static uint32_t reply_length(uint64_t tag) { return (uint32_t)(tag * 2246822519U >> 9) % 1500; }

static void fill(char *data, uint64_t tag, uint32_t length) {
        for (uint32_t k = 0; k < length; k++)
                data[k] = byte_of(tag, k);
}

static bool is_filled(const char *data, uint64_t tag, uint32_t length) {
        for (uint32_t k = 0; k < length; k++)
                if (data[k] != byte_of(tag, k))
                        return false;
        return true;
}

/* ---- workers ----------------------------------------------------------------------------------------------------- */

static void reap(struct end *e) {
        struct lane_answer a;
        enum lane_reap what;
        while ((what = lane_reap(&e->worker, &a)) == LANE_REAP_DONE) {
                if (a.length != reply_length(a.tag) || !is_filled(a.data, a.tag, (uint32_t)a.length))
                        fault(e->stress, "a reply is not what was sent");
                e->answered++;
                if (lane_release(&e->worker))
                        ring(e->stress->doorbell);
        }
        if (what == LANE_REAP_BAD)
                fault(e->stress, "a bad completion");
}

static void sleep_until_completion(struct end *e) {
        uint32_t value;
        if (!lane_wait(&e->worker, e->how, &value))
                return;
        e->slept++;
        if (e->how == LANE_WAITING_FUTEX ? !wait_futex(lane_futex(&e->worker), value) : !wait_event(e->event))
                fault(e->stress, "a worker was not woken");
        lane_awake(&e->worker);
}

/* Some at a time, some of them cancelled. The tag is never 0. */
static uint64_t submit_some(struct end *e, uint64_t tag, uint32_t random) {
        char data[128];
        uint64_t position;
        for (unsigned n = random % 4; n > 0 && tag <= CALLS; n--, tag++) {
                struct lane_request r = {.tag = tag, .database = 1, .deadline_ns = tag, .length = request_length(tag)};
                fill(data, tag, r.length);
                if (lane_submit(&e->worker, &r, data, &position) != LANE_SUBMIT_DONE)
                        break;
                if ((random >> 8) % 8 == n && lane_cancel(&e->worker, position))
                        e->cancelled++;
        }
        return tag;
}

/* Once for each sleep of the broker's. */
static void ring_if_armed(struct end *e) {
        uint64_t bells = lane_bells(&e->stress->bell, &e->stress->quiet);
        if (bells == 0 || bells == e->last_rung)
                return;
        e->rung++;
        ring(e->stress->doorbell);
        e->last_rung = bells;
}

static void *run_worker(void *argument) {
        struct end *e = argument;
        struct stress *s = e->stress;
        uint32_t random = 88675123 + (uint32_t)(e - s->ends);
        uint64_t tag = 1;
        while (!atomic_load(&s->fault) && (tag <= CALLS || e->answered + e->cancelled < CALLS)) {
                tag = submit_some(e, tag, chance(&random));
                ring_if_armed(e);
                reap(e);
                if (e->worker.unanswered > 0 && chance(&random) % 3)
                        sleep_until_completion(e);
        }
        atomic_fetch_sub(&s->running, 1);
        ring(s->doorbell);
        return NULL;
}

/* ---- the broker -------------------------------------------------------------------------------------------------- */

/* False: it is kept. */
static bool answer(struct stress *s, struct end *e, uint64_t tag) {
        char data[1500];
        struct lane_answer a = {.tag = tag, .data = data, .length = reply_length(tag)};
        enum lane_complete what;
        fill(data, tag, (uint32_t)a.length);
        what = lane_complete(&e->broker, &a);
        if (what == LANE_COMPLETE_STARVED) {
                e->kept_tag = tag;
                s->starved++;
                return false;
        }
        if (what != LANE_COMPLETE_DONE)
                fault(s, "a completion was refused");
        e->kept_tag = 0;
        return true;
}

/* True: there was something to do. */
static bool serve(struct stress *s, struct end *e) {
        struct lane_request r;
        char data[128];
        enum lane_take what = LANE_TAKE_NOTHING;
        bool done = false;
        if (e->kept_tag && !answer(s, e, e->kept_tag))
                return false;
        while (!e->kept_tag && (what = lane_take(&e->broker, data, sizeof(data), &r)) != LANE_TAKE_NOTHING) {
                done = true;
                if (what == LANE_TAKE_BAD || what == LANE_TAKE_NO_ROOM) {
                        fault(s, "an honest worker was taken for a bad one");
                        return false;
                }
                if (what == LANE_TAKE_SKIPPED)
                        continue;
                s->taken++;
                if (r.length != request_length(r.tag) || !is_filled(data, r.tag, r.length))
                        fault(s, "a request is not what was submitted");
                answer(s, e, r.tag);
        }
        return done;
}

static void serve_all(struct stress *s, bool *ret_busy) {
        *ret_busy = false;
        for (unsigned i = 0; i < LANES; i++) {
                struct end *e = &s->ends[i];
                enum lane_waiting how;
                *ret_busy = serve(s, e) || *ret_busy;
                how = lane_wake(&e->broker);
                if (how == LANE_WAITING_FUTEX)
                        syscall(SYS_futex, &e->broker.map->done, FUTEX_WAKE, 1, NULL, NULL, 0);
                else if (how == LANE_WAITING_MESSAGE)
                        ring(e->event);
        }
}

static void *run_broker(void *argument) {
        struct stress *s = argument;
        bool busy;
        while (!atomic_load(&s->fault) && atomic_load(&s->running) > 0) {
                serve_all(s, &busy);
                if (busy)
                        continue;
                lane_arm(&s->bell, ++s->armed);
                serve_all(s, &busy);
                if (!busy && atomic_load(&s->running) > 0) {
                        s->slept++;
                        if (!wait_event(s->doorbell))
                                fault(s, "the broker was not rung for");
                }
                lane_disarm(&s->bell);
        }
        return NULL;
}

TEST_WITH(lane_threads, nobody_who_sleeps_is_forgotten_and_no_byte_is_mixed_up, .timeout = 240) {
        static struct stress s;
        pthread_t workers[LANES], broker;
        uint64_t answered = 0, slept = 0;
        s.doorbell = eventfd(0, EFD_CLOEXEC);
        s.running = LANES;
        for (unsigned i = 0; i < LANES; i++) {
                struct end *e = &s.ends[i];
                size_t size = lane_size(&geometry);
                void *memory = aligned_alloc(LANE_PAGE, size);
                memset(memory, 0, size);
                lane_broker_init(&e->broker, memory, &geometry);
                check(lane_worker_init(&e->worker, memory, size));
                e->stress = &s;
                e->event = eventfd(0, EFD_CLOEXEC);
                e->how = i == 0 ? LANE_WAITING_MESSAGE : LANE_WAITING_FUTEX;
        }
        check_eq(pthread_create(&broker, NULL, run_broker, &s), 0);
        for (unsigned i = 0; i < LANES; i++)
                check_eq(pthread_create(&workers[i], NULL, run_worker, &s.ends[i]), 0);
        for (unsigned i = 0; i < LANES; i++)
                pthread_join(workers[i], NULL);
        pthread_join(broker, NULL);
        check_msg(!atomic_load(&s.fault), "%s", atomic_load(&s.fault));
        for (unsigned i = 0; i < LANES; i++) {
                check_eq(s.ends[i].answered + s.ends[i].cancelled, CALLS);
                check(s.ends[i].cancelled > 0);
                answered += s.ends[i].answered;
                slept += s.ends[i].slept;
                close(s.ends[i].event);
                free(s.ends[i].broker.map);
        }
        check_eq(s.taken, answered);
        check(slept > 0 && s.slept > 0 && s.starved > 0);
        close(s.doorbell);
}

/* ---- death ------------------------------------------------------------------------------------------------------- */

static void submit_for_ever(void *memory, size_t size) {
        struct lane_worker w;
        struct lane_answer a;
        uint64_t tag = 1, position;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        child_check(lane_worker_init(&w, memory, size));
        for (;;) {
                struct lane_request r = {.tag = tag, .length = request_length(tag)};
                char data[128];
                fill(data, tag, r.length);
                if (lane_submit(&w, &r, data, &position) == LANE_SUBMIT_DONE && tag++ % 5 == 0)
                        lane_cancel(&w, position);
                if (lane_reap(&w, &a) == LANE_REAP_DONE)
                        lane_release(&w);
        }
}

TEST(lane_threads, a_worker_killed_at_any_instant_leaves_a_lane_that_is_not_bad) {
        size_t size = lane_size(&geometry);
        for (unsigned round = 0; round < 60; round++) {
                void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
                static struct stress s;
                struct end *e = &s.ends[0];
                pid_t child;
                int status;
                check(memory != MAP_FAILED);
                s = (struct stress){0};
                lane_broker_init(&e->broker, memory, &geometry);
                child = fork();
                check(child >= 0);
                if (child == 0)
                        submit_for_ever(memory, size);
                while (s.taken < 50 + round * 13)
                        if (!serve(&s, e))
                                sched_yield();
                check_eq(kill(child, SIGKILL), 0);
                check_eq(waitpid(child, &status, 0), child);
                /* What he had submitted is there; what he had not, is not. */
                for (unsigned turn = 0; turn < 2 * geometry.entries; turn++)
                        serve(&s, e);
                check_msg(!atomic_load(&s.fault), "%s", atomic_load(&s.fault));
                munmap(memory, size);
        }
}

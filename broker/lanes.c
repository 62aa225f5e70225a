/* SPDX-License-Identifier: MIT */
#include "lanes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "lane/roll.h"
#include "pipeline.h"
#include "port.h"

#define ENTRIES 64U /* calls under way in one lane: more cost memory, see README.md, Decisions */

static void on_timer(evutil_socket_t fd, short what, void *userdata) {
        struct lanes *l = userdata;
        l->timer_at = TIME_NEVER; /* the turn that follows looks at everything */
}

int lanes_init(struct lanes *l, const struct lanes_options *o) {
        *l = (struct lanes){.loop = o->loop,
                            .thread = o->thread,
                            .directory = o->directory,
                            .ops = o->ops,
                            .budget = o->budget,
                            .bell = (lessor_atomic32 *)&o->bell->armed,
                            .geometry = {.entries = ENTRIES, .requests_size = o->size, .replies_size = o->size},
                            .timer_at = TIME_NEVER};
        list_init(&l->active);
        list_init(&l->quiet);
        list_init(&l->told);
        list_init(&l->dirty);
        l->request = malloc(o->size + LANE_PAGE); /* the area fills its last page */
        l->replies = malloc(LANES_READ_SIZE);
        l->timer = evtimer_new(o->loop->base, on_timer, l);
        return l->request && l->replies && l->timer ? 0 : -ENOMEM;
}

static void free_ports(struct list *ports) {
        list_for_each_safe (ports, it, next)
                port_free(port_of_link(it));
}

void lanes_deinit(struct lanes *l) {
        if (!l->loop)
                return;
        free_ports(&l->active);
        free_ports(&l->quiet);
        if (l->timer)
                event_free(l->timer);
        free(l->request);
        free(l->replies);
        l->loop = NULL;
}

void lanes_wake_at(struct lanes *l, uint64_t at) {
        if (at >= l->timer_at)
                return;
        uint64_t us = (time_left(clock_now(), at) + NS_PER_US - 1) / NS_PER_US;
        struct timeval pause = {.tv_sec = (time_t)(us / 1000000), .tv_usec = (suseconds_t)(us % 1000000)};
        l->timer_at = at;
        event_add(l->timer, &pause);
}

static void write_all(struct lanes *l) {
        list_for_each_safe (&l->dirty, it, next) {
                list_remove(it);
                pipeline_flush(pipe_of_dirty(it));
        }
}

static void wake_all(struct lanes *l) {
        list_for_each_safe (&l->told, it, next) {
                list_remove(it);
                port_wake(port_of_told_link(it));
        }
}

bool lanes_turn(struct lanes *l) {
        bool any = false;
        if (list_empty(&l->active) && list_empty(&l->dirty) && list_empty(&l->told))
                return false;
        l->now = clock_now();
        wake_all(l); /* first those whose replies have been read since */
        list_for_each_safe (&l->active, it, next)
                any |= port_collect(port_of_link(it), l->now);
        write_all(l);
        wake_all(l);
        return any;
}

void lanes_arm(struct lanes *l, lessor_atomic32 *bell) {
        if (++l->armed == 0)
                l->armed = 1;
        lane_arm(bell, l->armed);
}

static void hush(struct lanes *l) {
        list_for_each_safe (&l->active, it, next) {
                struct port *port = port_of_link(it);
                if (!port_is_idle(port, l->now))
                        continue;
                port_set_quiet(port, true);
                if (port_has_more(port)) /* it came in between: the worker may not have seen that he is to ring */
                        port_set_quiet(port, false);
        }
}

bool lanes_may_sleep(struct lanes *l) {
        if (list_empty(&l->active))
                return true;
        hush(l);
        lanes_arm(l, l->bell);
        list_for_each (&l->active, it)
                if (port_has_more(port_of_link(it))) {
                        lane_disarm(l->bell);
                        return false;
                }
        return true;
}

void lanes_awake(struct lanes *l) { lane_disarm(l->bell); }

void lanes_show(struct lanes *l, struct lessor_status_lane entries[LANES_SHOWN]) {
        struct roll roll = {.entries = entries, .room = LANES_SHOWN};
        memset(entries, 0, LANES_SHOWN * sizeof(entries[0]));
        list_for_each (&l->active, it) /* a quiet lane has nothing under way */
                port_show(port_of_link(it), &roll);
}

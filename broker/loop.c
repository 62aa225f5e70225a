/* SPDX-License-Identifier: MIT */
#include "loop.h"

#include <errno.h>
#include <signal.h>

int loop_init(struct loop *loop, bool with_upstream) {
        struct event_config *config = event_config_new();
        *loop = (struct loop){.inbox = {.wake = -1}};
        if (!config)
                return -ENOMEM;
        /* One thread per base: no locks. */
        event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
        loop->base = event_base_new_with_config(config);
        event_config_free(config);
        if (!loop->base)
                return -ENOMEM;
        int r = mailbox_init(&loop->inbox, loop->base);
        if (r == 0 && with_upstream)
                r = resolver_new(loop->base, &loop->resolver);
        if (r == 0 && with_upstream)
                r = link_watch_new(loop->base, &loop->links);
        return r;
}

void loop_deinit(struct loop *loop) {
        if (!loop->base)
                return;
        resolver_free(loop->resolver);
        link_watch_free(loop->links);
        mailbox_deinit(&loop->inbox);
        event_base_free(loop->base);
        loop->base = NULL;
}

/* libevent 2.1 has no hook before its wait: one turn of it at a time. */
static void take_turns(struct loop *loop) {
        const struct loop_turns *t = &loop->turns;
        do {
                if (t->turn(t->userdata) || !t->may_sleep(t->userdata)) {
                        event_base_loop(loop->base, EVLOOP_NONBLOCK);
                        continue;
                }
                event_base_loop(loop->base, EVLOOP_ONCE);
                t->awake(t->userdata);
        } while (!event_base_got_break(loop->base));
}

static void *run(void *userdata) {
        struct loop *loop = userdata;
        rcu_register_thread();
        if (loop->turns.turn)
                take_turns(loop);
        else
                event_base_dispatch(loop->base);
        rcu_unregister_thread();
        return NULL;
}

int loop_start(struct loop *loop, const char *name) {
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        int r = pthread_create(&loop->thread, NULL, run, loop);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (r)
                return -r;
        (void)pthread_setname_np(loop->thread, name);
        loop->running = true;
        return 0;
}

void loop_join(struct loop *loop) {
        if (loop->running)
                pthread_join(loop->thread, NULL);
        loop->running = false;
}

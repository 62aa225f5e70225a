/* SPDX-License-Identifier: MIT */
/*
 * A job is shared by its look-up thread and the loop; `resolver_queue`, reference-counted, outlives the resolver while
 * threads are still out. The loop alone touches done, userdata and cancelled; the queue's lock orders the hand-over.
 */
#include "resolver.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/list.h"

struct resolver_queue {
        pthread_mutex_t lock;
        unsigned references; /* the resolver's and one per thread under way */
        struct list finished;
        int wake; /* eventfd; -1 once the resolver is gone */
};

struct resolver {
        struct resolver_queue *queue;
        struct event *event;
};

struct resolver_job {
        struct list link; /* in queue->finished */
        struct resolver_queue *queue;
        char *host;
        unsigned port;
        struct resolved resolved;
        resolver_done *done; /* NULL: cancelled */
        void *userdata;
};

static void job_free(struct resolver_job *job) {
        free(job->host);
        free(job);
}

static void queue_unref(struct resolver_queue *queue) {
        pthread_mutex_lock(&queue->lock);
        unsigned left = --queue->references;
        pthread_mutex_unlock(&queue->lock);
        if (left)
                return;
        list_for_each_safe (&queue->finished, it, next)
                job_free(container_of(it, struct resolver_job, link));
        pthread_mutex_destroy(&queue->lock);
        free(queue);
}

static void look_up(const char *host, unsigned port, int flags, struct resolved *ret) {
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV}, *found = NULL;
        char service[16];
        snprintf(service, sizeof(service), "%u", port);
        *ret = (struct resolved){.error = getaddrinfo(host, service, &hints, &found)};
        for (struct addrinfo *a = ret->error ? NULL : found; a && ret->n < RESOLVED_MAX; a = a->ai_next) {
                memcpy(&ret->at[ret->n].address, a->ai_addr, a->ai_addrlen);
                ret->at[ret->n++].size = a->ai_addrlen;
        }
        if (!ret->error)
                freeaddrinfo(found);
}

bool resolve_numeric(const char *host, unsigned port, struct resolved *ret) {
        struct resolved resolved;
        look_up(host, port, AI_NUMERICHOST, &resolved);
        if (resolved.error)
                return false;
        *ret = resolved;
        return true;
}

static void *job_thread(void *userdata) {
        struct resolver_job *job = userdata;
        struct resolver_queue *queue = job->queue;
        look_up(job->host, job->port, AI_ADDRCONFIG, &job->resolved);
        pthread_mutex_lock(&queue->lock);
        list_push_back(&queue->finished, &job->link);
        if (queue->wake >= 0)
                (void)eventfd_write(queue->wake, 1);
        pthread_mutex_unlock(&queue->lock);
        queue_unref(queue);
        return NULL;
}

static void on_finished(evutil_socket_t fd, short what, void *userdata) {
        struct resolver *resolver = userdata;
        struct list batch;
        eventfd_t value;
        (void)eventfd_read(fd, &value);
        list_init(&batch);
        pthread_mutex_lock(&resolver->queue->lock);
        list_for_each_safe (&resolver->queue->finished, it, next) {
                list_remove(it);
                list_push_back(&batch, it);
        }
        pthread_mutex_unlock(&resolver->queue->lock);
        list_for_each_safe (&batch, done, after) {
                struct resolver_job *job = container_of(done, struct resolver_job, link);
                list_remove(done);
                if (job->done)
                        job->done(job->userdata, &job->resolved);
                job_free(job);
        }
}

int resolver_new(struct event_base *base, struct resolver **ret) {
        struct resolver *resolver = calloc(1, sizeof(*resolver));
        struct resolver_queue *queue = calloc(1, sizeof(*queue));
        if (!resolver || !queue) {
                free(resolver);
                free(queue);
                return -ENOMEM;
        }
        pthread_mutex_init(&queue->lock, NULL);
        list_init(&queue->finished);
        queue->references = 1;
        queue->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        resolver->queue = queue;
        int r = queue->wake < 0 ? -errno : 0;
        if (r == 0) {
                resolver->event = event_new(base, queue->wake, EV_READ | EV_PERSIST, on_finished, resolver);
                r = resolver->event && event_add(resolver->event, NULL) == 0 ? 0 : -ENOMEM;
        }
        if (r < 0) {
                resolver_free(resolver);
                return r;
        }
        *ret = resolver;
        return 0;
}

void resolver_free(struct resolver *resolver) {
        if (!resolver)
                return;
        if (resolver->event)
                event_free(resolver->event);
        pthread_mutex_lock(&resolver->queue->lock);
        resolver->queue->wake = fd_close(resolver->queue->wake);
        pthread_mutex_unlock(&resolver->queue->lock);
        queue_unref(resolver->queue);
        free(resolver);
}

static int start_thread(struct resolver_job *job) {
        pthread_attr_t attr;
        pthread_t thread;
        int r = pthread_attr_init(&attr);
        if (r)
                return -r;
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attr, 256U << 10); /* glibc's resolver wants some 100 KiB */
        r = pthread_create(&thread, &attr, job_thread, job);
        pthread_attr_destroy(&attr);
        return -r;
}

int resolver_start(struct resolver *resolver, const char *host, unsigned port, resolver_done *done, void *userdata,
                   struct resolver_job **ret) {
        struct resolver_job *job = calloc(1, sizeof(*job));
        if (!job || !(job->host = strdup(host))) {
                free(job);
                return -ENOMEM;
        }
        list_init(&job->link);
        job->queue = resolver->queue;
        job->port = port;
        job->done = done;
        job->userdata = userdata;
        pthread_mutex_lock(&job->queue->lock);
        job->queue->references++;
        pthread_mutex_unlock(&job->queue->lock);
        int r = start_thread(job);
        if (r < 0) {
                queue_unref(job->queue);
                job_free(job);
                return r;
        }
        *ret = job;
        return 0;
}

void resolver_cancel(struct resolver_job *job) {
        if (job)
                job->done = NULL;
}

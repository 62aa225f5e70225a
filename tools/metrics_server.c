/* SPDX-License-Identifier: MIT */
#include "metrics_server.h"

#include <signal.h>

#include <event2/event.h>

#include "cli.h"
#include "http.h"
#include "metrics_text.h"
#include "render.h"
#include "source.h"

struct pages {
        struct source source;
        const char *instance;
};

/* The figures, or NULL and, in *ret_error, why there are none. */
static struct model *read_model(struct pages *p, struct model *m, int *ret_error) {
        *ret_error = source_follow(&p->source, p->instance);
        if (*ret_error < 0)
                return NULL;
        if (model_read(&p->source.status, m) < 0)
                out_of_memory();
        return m;
}

static void metrics_page(struct pages *p, FILE *out, const struct http_request *request, struct http_reply *reply) {
        struct model m = {0};
        int error;
        metrics_print(out, read_model(p, &m, &error), request->openmetrics ? METRICS_OPENMETRICS : METRICS_PROMETHEUS);
        reply->type = request->openmetrics ? METRICS_OPENMETRICS_TYPE : METRICS_PROMETHEUS_TYPE;
        model_deinit(&m);
}

/* 200 as long as callers are served, degraded or not; 503 when a database has failed or the broker is dead or absent. */
static void health_page(struct pages *p, FILE *out, struct http_reply *reply) {
        struct model m = {0};
        int error;
        if (read_model(p, &m, &error)) {
                reply->status = model_verdict(&m) == MODEL_FAILED ? 503 : 200;
                render_health(out, &m);
        } else {
                char *why = source_explain(error, p->instance);
                reply->status = 503;
                fprintf(out, "%s\n", why);
                free(why);
        }
        model_deinit(&m);
}

static void answer(const struct http_request *request, struct http_reply *reply, void *arg) {
        FILE *out = open_memstream(&reply->body, &reply->size);
        if (!out)
                out_of_memory();
        if (strcmp(request->path, "/metrics") == 0)
                metrics_page(arg, out, request, reply);
        else if (strcmp(request->path, "/healthz") == 0)
                health_page(arg, out, reply);
        else {
                reply->status = strcmp(request->path, "/") == 0 ? 200 : 404;
                fputs("Lessor's statistics: /metrics for Prometheus, /healthz for probes\n", out);
        }
        if (fclose(out) != 0)
                out_of_memory();
}

static void on_signal(evutil_socket_t fd, short what, void *base) { event_base_loopbreak(base); }

/* Runs until a signal. */
static void serve(struct event_base *base, const struct http_server *server) {
        struct event *ends[] = {evsignal_new(base, SIGTERM, on_signal, base),
                                evsignal_new(base, SIGINT, on_signal, base)};
        for (int i = 0; i < 2; i++)
                if (!ends[i] || event_add(ends[i], NULL) < 0)
                        out_of_memory();
        printf("listening on http://%s/metrics\n", http_server_address(server));
        fflush(stdout);
        event_base_dispatch(base);
        for (int i = 0; i < 2; i++)
                event_free(ends[i]);
}

int metrics_serve(const char *instance, const char *address) {
        struct pages pages = {.instance = instance};
        struct event_base *base = event_base_new();
        struct http_server *server = NULL;
        int r;

        if (!base)
                out_of_memory();
        signal(SIGPIPE, SIG_IGN);
        r = http_server_new(base, address, answer, &pages, &server);
        if (r == 0)
                serve(base, server);
        http_server_free(server);
        event_base_free(base);
        source_deinit(&pages.source);
        return r;
}

/* SPDX-License-Identifier: MIT */
/* The dashboard and the alerts of deploy/grafana: every metric and label they name is one that `lessor metrics` prints. */
#include <ctype.h>

#include <jansson.h>

#include "support/check.h"
#include "support/host.h"
#include "support/metrics.h"
#include "support/process.h"
#include "support/sandbox.h"

#define GRAFANA LESSOR_SOURCE_DIR "/deploy/grafana/"
enum { WAIT_MS = 20000 };

static void read_metrics(struct metrics *ret) {
        struct host h;
        char *text;

        host_start(&h, "max_connections: 5");
        const char *argv[] = {tool_path(), "metrics", "--instance", h.broker.instance, NULL};
        check_eq(program_run(argv, &text, WAIT_MS), 0);
        metrics_read(ret, text, true);
        free(text);
        host_end(&h);
}

static bool in_name(char c) { return isalnum((unsigned char)c) || c == '_'; }

/* Ours and OpenTelemetry's in the expression, but db_client_connection_pool_name and _state, which are labels. Their
 * number. */
static unsigned check_names(const struct metrics *m, const char *expression) {
        unsigned n = 0;
        for (const char *p = expression; *p;) {
                char name[128];
                size_t length = 0;
                while (in_name(p[length]))
                        length++;
                snprintf(name, sizeof(name), "%.*s", (int)length, p);
                p += length ? length : 1;
                if (strncmp(name, "lessor_", 7) != 0 && strncmp(name, "db_client_", 10) != 0)
                        continue;
                if (strcmp(name, "db_client_connection_pool_name") == 0 ||
                    strcmp(name, "db_client_connection_state") == 0)
                        continue;
                check_msg(metrics_has_name(m, name), "no metric `%s`, of: %s", name, expression);
                n++;
        }
        return n;
}

static unsigned check_panels(const struct metrics *m, json_t *panels) {
        size_t i, j;
        unsigned n = 0;
        json_t *panel, *target;
        json_array_foreach(panels, i, panel) {
                json_array_foreach(json_object_get(panel, "targets"), j, target) {
                        const char *expression = json_string_value(json_object_get(target, "expr"));
                        check(expression != NULL);
                        check_msg(check_names(m, expression) > 0, "of none of our metrics: %s", expression);
                        n++;
                }
        }
        return n;
}

TEST(grafana, every_metric_of_the_dashboard_exists) {
        struct metrics m;
        json_error_t error;
        json_t *dashboard = json_load_file(GRAFANA "lessor.json", 0, &error);

        check_msg(dashboard, "line %d: %s", error.line, error.text);
        read_metrics(&m);
        check(check_panels(&m, json_object_get(dashboard, "panels")) >= 20);
        size_t i;
        json_t *variable;
        json_array_foreach(json_object_get(json_object_get(dashboard, "templating"), "list"), i, variable) {
                const char *query = json_string_value(json_object_get(json_object_get(variable, "query"), "query"));
                check(!query || check_names(&m, query) == 1);
        }
        json_decref(dashboard);
        metrics_free(&m);
}

TEST(grafana, every_metric_of_the_alerts_exists) {
        static const char *const alerts[] = {"LessorStale", "LessorBreakerOpen", "LessorExhausted", "LessorLongHolder",
                                             "LessorSlowWait"};
        struct metrics m;
        char *text = sandbox_read(GRAFANA "lessor.rules.yml", NULL);
        unsigned n = 0;

        read_metrics(&m);
        for (size_t i = 0; i < sizeof(alerts) / sizeof(alerts[0]); i++)
                check_msg(strstr(text, alerts[i]), "no alert %s", alerts[i]);
        for (const char *p = strstr(text, "expr: "); p; p = strstr(p + 1, "expr: ")) {
                char line[512];
                snprintf(line, sizeof(line), "%.*s", (int)strcspn(p, "\n"), p);
                check(check_names(&m, line) > 0);
                n++;
        }
        check(n >= 5);
        free(text);
        metrics_free(&m);
}

TEST(grafana, promtool_takes_the_alerts) {
        char *said;
        if (program_run((const char *[]){"sh", "-c", "command -v promtool >/dev/null", NULL}, NULL, WAIT_MS) != 0)
                test_skip("promtool is not here (tools/setup --dev installs it)");
        int status = program_run((const char *[]){"promtool", "check", "rules", GRAFANA "lessor.rules.yml", NULL},
                                 &said, WAIT_MS);
        check_msg(status == 0 && strstr(said, "SUCCESS"), "%s", said);
        free(said);
}

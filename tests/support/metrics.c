/* SPDX-License-Identifier: MIT */
#include "metrics.h"

#include <ctype.h>
#include <math.h>

#include "check.h"

struct reader {
        struct metrics *m;
        bool openmetrics, ended, sampled; /* sampled: the present family has samples, no more of its head may come */
        char bucket[256];                 /* histogram: the series of the buckets before this one, without le */
        double last_le, last_count;
};

static char *copy(const char *s, size_t n) {
        char *c = strndup(s, n);
        check(c != NULL);
        return c;
}

static size_t name_length(const char *s) {
        size_t n = 0;
        while (isalnum((unsigned char)s[n]) || s[n] == '_' || s[n] == ':')
                n++;
        check_msg(n > 0 && !isdigit((unsigned char)s[0]), "no name: %.80s", s);
        return n;
}

static bool ends_with(const char *s, const char *end) {
        size_t n = strlen(s), m = strlen(end);
        return n >= m && strcmp(s + n - m, end) == 0;
}

bool metrics_has_family(const struct metrics *m, const char *name) {
        for (size_t i = 0; i < m->n_families; i++)
                if (strcmp(m->families[i].name, name) == 0)
                        return true;
        return false;
}

static void begin_family(struct reader *r, const char *name) {
        struct metrics *m = r->m;
        check_msg(!metrics_has_family(m, name), "family %s a second time", name);
        m->families = realloc(m->families, (m->n_families + 1) * sizeof(*m->families));
        m->families[m->n_families++] = (struct metrics_family){.name = copy(name, strlen(name))};
        r->sampled = false;
        r->bucket[0] = '\0';
}

/* `# HELP`, `# TYPE`, `# UNIT`: in this order, which is ours. */
static void read_comment(struct reader *r, const char *line) {
        char kind[8], name[128], *family;
        int at = 0;

        if (strcmp(line, "# EOF") == 0) {
                check(r->openmetrics && !r->ended);
                r->ended = true;
                return;
        }
        check_msg(sscanf(line, "# %7s %127s %n", kind, name, &at) == 2 && at && line[at], "%s", line);
        family = name;
        if (!r->openmetrics && ends_with(name, "_total"))
                name[strlen(name) - 6] = '\0';
        else
                check_msg(!ends_with(name, "_total"), "OpenMetrics' counters are declared without _total: %s", line);
        if (strcmp(kind, "HELP") == 0) {
                begin_family(r, family);
                check(!r->openmetrics || !strchr(line, '"') || strstr(line, "\\\""));
                return;
        }
        struct metrics_family *f = &r->m->families[r->m->n_families - 1];
        check_msg(r->m->n_families && strcmp(f->name, family) == 0 && !r->sampled, "out of place: %s", line);
        if (strcmp(kind, "TYPE") == 0) {
                check_msg(!f->type, "%s", line);
                f->type = copy(line + at, strlen(line + at));
                check_msg(strcmp(f->type, "gauge") == 0 || strcmp(f->type, "counter") == 0 ||
                                  strcmp(f->type, "histogram") == 0,
                          "%s", line);
        } else
                check_msg(strcmp(kind, "UNIT") == 0 && r->openmetrics && f->type && ends_with(f->name, line + at), "%s",
                          line);
}

/* {a="b",c="d"}: its length. *ret_le points behind le=". */
static size_t label_length(const char *s, const char **ret_le) {
        const char *p = s;
        if (*p != '{')
                return 0;
        do {
                p++;
                size_t n = name_length(p);
                if (n == 2 && strncmp(p, "le", 2) == 0)
                        *ret_le = p + 4;
                p += n;
                check_msg(p[0] == '=' && p[1] == '"', "%s", s);
                for (p += 2; *p && *p != '"'; p++)
                        if (*p == '\\')
                                check_msg(strchr("\\\"n", *++p) && *p, "an escape that is none: %s", s);
                check_msg(*p == '"', "%s", s);
                p++;
        } while (*p == ',');
        check_msg(*p == '}', "%s", s);
        return (size_t)(p + 1 - s);
}

static void check_histogram(struct reader *r, const char *line, const char *suffix, const char *le, double value) {
        char labels[256];

        if (strcmp(suffix, "_sum") == 0)
                return;
        if (strcmp(suffix, "_count") == 0) {
                check_msg(isinf(r->last_le) && value == r->last_count, "the count is not the last bucket's: %s", line);
                r->bucket[0] = '\0';
                return;
        }
        check_msg(strcmp(suffix, "_bucket") == 0 && le, "%s", line);
        snprintf(labels, sizeof(labels), "%.*s", (int)(le - line), line);
        double bound = strtod(le, NULL);
        if (strcmp(labels, r->bucket) == 0)
                check_msg(bound > r->last_le && value >= r->last_count, "not ascending: %s", line);
        else
                check_msg(!r->bucket[0], "a histogram without a count before: %s", line);
        snprintf(r->bucket, sizeof(r->bucket), "%s", labels);
        r->last_le = bound;
        r->last_count = value;
}

static void add_sample(struct reader *r, const char *series, size_t n, double value) {
        struct metrics *m = r->m;
        for (size_t i = 0; i < m->n_samples; i++)
                check_msg(strlen(m->samples[i].series) != n || strncmp(m->samples[i].series, series, n) != 0,
                          "a second time: %s", series);
        m->samples = realloc(m->samples, (m->n_samples + 1) * sizeof(*m->samples));
        m->samples[m->n_samples++] = (struct metrics_sample){.series = copy(series, n), .value = value};
}

static void read_sample(struct reader *r, const char *line) {
        size_t n = name_length(line), labels;
        const char *le = NULL;
        char *name = copy(line, n), *end;

        check_msg(r->m->n_families > 0, "%s", line);
        const struct metrics_family *f = &r->m->families[r->m->n_families - 1];
        check_msg(f->type && strncmp(name, f->name, strlen(f->name)) == 0, "of family %s: %s", f->name, line);
        labels = label_length(line + n, &le);
        check_msg(line[n + labels] == ' ', "%s", line);
        double value = strtod(line + n + labels + 1, &end);
        check_msg(!*end && end > line + n + labels + 1 && !isnan(value), "no number: %s", line);
        if (strcmp(f->type, "histogram") == 0)
                check_histogram(r, line, name + strlen(f->name), le, value);
        else
                check_msg(strcmp(name + strlen(f->name), strcmp(f->type, "counter") == 0 ? "_total" : "") == 0, "%s",
                          line);
        add_sample(r, line, n + labels, value);
        r->sampled = true;
        free(name);
}

void metrics_read(struct metrics *ret, const char *text, bool openmetrics) {
        struct reader r = {.m = ret, .openmetrics = openmetrics};
        char *all = copy(text, strlen(text)), *rest = all, *line;

        *ret = (struct metrics){0};
        check_msg(*text && text[strlen(text) - 1] == '\n', "the last line does not end: %s", text);
        while ((line = strsep(&rest, "\n")) && rest) {
                check_msg(!r.ended, "after the end: %s", line);
                check_msg(*line, "an empty line after %zu samples", ret->n_samples);
                if (*line == '#')
                        read_comment(&r, line);
                else
                        read_sample(&r, line);
        }
        check(r.ended == openmetrics);
        check_msg(!r.bucket[0], "a histogram without a count at the end");
        free(all);
}

void metrics_free(struct metrics *m) {
        for (size_t i = 0; i < m->n_families; i++) {
                free(m->families[i].name);
                free(m->families[i].type);
        }
        for (size_t i = 0; i < m->n_samples; i++)
                free(m->samples[i].series);
        free(m->families);
        free(m->samples);
        *m = (struct metrics){0};
}

double metrics_value(const struct metrics *m, const char *series) {
        for (size_t i = 0; i < m->n_samples; i++)
                if (strcmp(m->samples[i].series, series) == 0)
                        return m->samples[i].value;
        check_msg(false, "no series %s among %zu", series, m->n_samples);
        return 0;
}

bool metrics_has_name(const struct metrics *m, const char *name) {
        size_t n = strlen(name);
        for (size_t i = 0; i < m->n_samples; i++)
                if (strncmp(m->samples[i].series, name, n) == 0 &&
                    (m->samples[i].series[n] == '{' || m->samples[i].series[n] == '\0'))
                        return true;
        return false;
}

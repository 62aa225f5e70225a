/* SPDX-License-Identifier: MIT */
#include "draw.h"

#include <base/cleanup.h>

#define SECOND_NS UINT64_C(1000000000)

/* ---- a pool as a bar ------------------------------------------------------------------------------------------- */

struct part {
        uint64_t count;
        uint32_t character, ascii;
        enum grid_attribute attribute;
};

void draw_bar(struct grid *g, unsigned row, unsigned at, unsigned width, const struct lessor_status_database *d,
              bool ascii) {
        uint64_t free = d->available_connections - d->parked_connections;
        uint64_t used = d->in_use_connections + d->available_connections;
        bool full = d->in_use_connections >= d->max_connections;
        const struct part parts[] = {
                {d->in_use_connections, 0x2588, '#', full ? GRID_BAD : GRID_GOOD}, /* full block */
                {d->parked_connections, 0x2592, '=', GRID_GOOD},                   /* shades */
                {free, 0x2591, '-', GRID_PLAIN},
                {d->open_connections > used ? d->open_connections - used : 0, 0x2573, 'x', GRID_WARN}, /* on its way */
                {UINT64_MAX, 0xb7, '.', GRID_DIM},
        };
        uint64_t sum = 0, max = d->max_connections ? d->max_connections : 1;
        unsigned done = 0;

        for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
                uint64_t count = parts[i].count < max ? parts[i].count : max;
                sum = sum + count < max ? sum + count : max;
                unsigned end = (unsigned)(sum * width / max);
                if (count && end == done && i + 1 < ARRAY_SIZE(parts) && done < width)
                        end = done + 1; /* one is to be seen, however small its share */
                for (; done < end; done++)
                        grid_put(g, row, at + done, parts[i].attribute, ascii ? parts[i].ascii : parts[i].character);
        }
}

/* ---- the last minutes ------------------------------------------------------------------------------------------ */

static const char ascii_levels[] = "_.:-=+*#";

static uint32_t level_character(int level, bool ascii) {
        return ascii ? (unsigned char)ascii_levels[level] : 0x2581 + (unsigned)level; /* lower one eighth .. full */
}

void draw_spark(struct grid *g, unsigned row, unsigned at, unsigned width, const struct history_row *r, bool ascii) {
        int levels[HISTORY_BINS];
        unsigned n = width < HISTORY_BINS ? width : HISTORY_BINS;

        if (!r)
                return;
        history_spark(r, levels, n, 8);
        for (unsigned i = 0; i < n; i++)
                if (levels[i] >= 0)
                        grid_put(g, row, at + i, levels[i] ? GRID_GOOD : GRID_DIM, level_character(levels[i], ascii));
}

/* ---- histograms ------------------------------------------------------------------------------------------------ */

enum { HEIGHT = 4, BINS = (LESSOR_CALL_BUCKETS + 2) / 4 + 1, BIN_WIDTH = 2, LEFT = 2 };

/* By powers of two: bucket 0, then four and four. */
static uint64_t gather(const struct lessor_status_histogram *h, uint64_t *bins) {
        uint64_t most = 0;
        for (unsigned i = 0; i < LESSOR_CALL_BUCKETS; i++) {
                unsigned bin = (i + 3) / 4;
                bins[bin] += h->bucket[i];
                most = bins[bin] > most ? bins[bin] : most;
        }
        return most;
}

/* Eighths of the bar in the row `up` from the ground, 0 to 8. */
static int eighths(uint64_t count, uint64_t most, int up) {
        int all = count ? (int)((double)count / (double)most * HEIGHT * 8 + 0.5) : 0;
        all = count && all == 0 ? 1 : all;
        all -= up * 8;
        return all < 0 ? 0 : all > 8 ? 8 : all;
}

static void draw_bin(struct grid *g, unsigned row, unsigned at, uint64_t count, uint64_t most, bool ascii) {
        for (int up = 0; up < HEIGHT; up++) {
                int level = eighths(count, most, up);
                if (!level)
                        break;
                uint32_t character = ascii ? (level > 4 ? '#' : level > 1 ? '=' : '_') : 0x2580 + (unsigned)level;
                for (unsigned c = 0; c < BIN_WIDTH; c++)
                        grid_put(g, row + (unsigned)(HEIGHT - 1 - up), at + c, GRID_GOOD, character);
        }
}

unsigned draw_histogram(struct grid *g, unsigned row, const char *name, const struct lessor_status_histogram *h,
                        bool ascii) {
        uint64_t bins[BINS + 1] = {0}, most = gather(h, bins);
        unsigned at = grid_print(g, row, 1, GRID_BOLD, "%-16s", name);

        if (!h->count) {
                grid_print(g, row, at, GRID_DIM, "nothing measured yet");
                return row + 1;
        }
        grid_print(g, row, at, GRID_PLAIN, "%s times, p50 %s, p90 %s, p99 %s, longest %s", format_count(h->count).s,
                   draw_percentile(h, 0.5).s, draw_percentile(h, 0.9).s, draw_percentile(h, 0.99).s,
                   format_duration(h->max_ns).s);
        for (unsigned i = 0; i < BINS; i++)
                draw_bin(g, row + 1, LEFT + i * BIN_WIDTH, bins[i], most, ascii);
        for (unsigned i = 0; i < BINS * BIN_WIDTH; i++)
                grid_put(g, row + 1 + HEIGHT, LEFT + i, GRID_DIM, ascii ? '-' : 0x2500);
        for (unsigned i = 0; i + 1 < BINS; i += 5)
                grid_print(g, row + 1 + HEIGHT, LEFT + (i + 1) * BIN_WIDTH, GRID_DIM, "%.0f%s",
                           (double)(UINT64_C(1) << (10 + i)) / (i < 10   ? 1e3
                                                                : i < 20 ? 1e6
                                                                         : 1e9),
                           i < 10   ? "us"
                           : i < 20 ? "ms"
                                    : "s");
        return row + HEIGHT + 2;
}

/* ---- texts ----------------------------------------------------------------------------------------------------- */

struct text draw_state_text(const struct model *m, const struct lessor_status_database *d) {
        struct text t;
        uint64_t left = d->breaker_retry_at > m->wall ? d->breaker_retry_at - m->wall : 0;

        if (d->breaker_state == 2)
                snprintf(t.s, sizeof(t.s), "probing");
        else if (d->breaker_state == 1 && d->breaker_by_hand)
                snprintf(t.s, sizeof(t.s), "by hand");
        else if (d->breaker_state == 1)
                snprintf(t.s, sizeof(t.s), "open %us", (unsigned)((left + SECOND_NS - 1) / SECOND_NS));
        else
                snprintf(t.s, sizeof(t.s), "%s", model_health_text(d->health));
        return t;
}

enum grid_attribute draw_state_attribute(const struct lessor_status_database *d) {
        if (d->breaker_state == 1 || d->health >= LESSOR_HEALTH_FAILED)
                return GRID_BAD;
        if (d->breaker_state || d->health == LESSOR_HEALTH_DEGRADED)
                return GRID_WARN;
        return d->health == LESSOR_HEALTH_HEALTHY ? GRID_GOOD : GRID_DIM;
}

struct text draw_rate(double per_second) {
        if (per_second < 0)
                return (struct text){"-"};
        return per_second < 0.05 ? (struct text){"0"} : format_real(per_second);
}

struct text draw_percentile(const struct lessor_status_histogram *h, double share) {
        return h->count ? format_duration(lessor_status_percentile(h, share)) : (struct text){"-"};
}

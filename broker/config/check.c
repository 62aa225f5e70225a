/* SPDX-License-Identifier: MIT */
/*
 * What takes more than one value to see. Each check is said at the value that came later or is more specific, and not at
 * all about values that were refused already.
 */
#include <string.h>

#include "draft.h"

/* Redis' default: what a server allows unless it is told otherwise. */
#define MAXCLIENTS_USUAL 10000U

static bool sound(const struct config_draft *d, unsigned i, enum config_key_id id) {
        const struct config_setting *setting = config_draft_effective(d, d->databases[i], id);
        return !setting || !setting->invalid;
}

static bool said_after(const struct config_origin *a, const struct config_origin *b) {
        if (a->own != b->own)
                return a->own;
        if (a->source != b->source)
                return a->source > b->source;
        return a->line > b->line;
}

/* `low` must not be more than `high`. */
static void check_order(const struct config_draft *d, const struct config *c, unsigned i, enum config_key_id low,
                        enum config_key_id high, uint64_t low_value, uint64_t high_value) {
        const struct config_database *db = &c->databases[i];
        const struct config_key *l = &config_keys[low], *h = &config_keys[high];
        bool at_low = said_after(&db->origin[low], &db->origin[high]);
        char lows[32], highs[32];
        if (low_value <= high_value || !sound(d, i, low) || !sound(d, i, high))
                return;
        config_number_text(l, low_value, lows, sizeof(lows));
        config_number_text(h, high_value, highs, sizeof(highs));
        config_say(d->report, CONFIG_ERROR, &db->origin[at_low ? low : high],
                   "`%s` is %s, more than `%s`, which is %s: write %s %s here", l->name, lows, h->name, highs,
                   at_low ? "at most" : "at least", at_low ? highs : lows);
}

static void check_lease(const struct config_draft *d, const struct config_database *db) {
        const struct config_origin *warn = &db->origin[CONFIG_KEY_lease_warn];
        if (db->lease_timeout_ns && db->lease_warn_ns >= db->lease_timeout_ns && warn->source != CONFIG_SOURCE_DEFAULT)
                config_say(d->report, CONFIG_WARNING, warn,
                           "`lease_warn` never comes: `lease_timeout` ends a lease before it");
}

/* Not when a password was named and refused: that was said already. */
static void check_user(const struct config_draft *d, const struct config_database *db, unsigned i) {
        bool named = db->password || db->password_file || !sound(d, i, CONFIG_KEY_password) ||
                     !sound(d, i, CONFIG_KEY_password_file) ||
                     db->origin[CONFIG_KEY_password].source == CONFIG_SOURCE_CREDENTIAL;
        if (db->username && !named)
                config_say(d->report, CONFIG_ERROR, &db->origin[CONFIG_KEY_username],
                           "`username` without a password: add `password_file`, a credential, or `password`");
}

static void check_exposed(const struct config_draft *d, const struct config_database *db) {
        const struct config_origin *at = &db->origin[CONFIG_KEY_password];
        if (!db->password || db->password_file)
                return;
        if (at->source == CONFIG_SOURCE_COMMAND_LINE)
                config_say(d->report, CONFIG_WARNING, at,
                           "a password on the command line, which everybody on this host can see: use `password_file`");
        if (at->source == CONFIG_SOURCE_FILE && d->input->exposed)
                config_say(d->report, CONFIG_WARNING, at,
                           "a password in a file that others may read: chmod o= the file, or use `password_file`");
}

/* The invariant wins over the wish: see broker/README.md. */
static void check_handover(const struct config_draft *d, const struct config_database *db) {
        const struct config_origin *at = &db->origin[CONFIG_KEY_handover];
        if (db->handover == CONFIG_HANDOVER_RESET && (db->password || db->username))
                config_say(d->report, CONFIG_WARNING, at,
                           "`handover: reset` with a password would send it over sockets that workers have touched: "
                           "these connections are closed and dialled anew, as with `close`");
}

static bool same_text(const char *a, const char *b) { return a && b ? strcmp(a, b) == 0 : a == b; }

static bool same_keys(const struct config_database *a, const struct config_database *b) {
        return a->db == b->db && same_text(a->username, b->username) && config_same_server(a, b);
}

static void check_shared(const struct config_draft *d, const struct config *c, unsigned i) {
        const struct config_database *b = &c->databases[i];
        char server[512];
        for (unsigned j = 0; j < i; j++) {
                const struct config_database *a = &c->databases[j];
                if (!same_keys(a, b))
                        continue;
                config_say(d->report, CONFIG_NOTE, &b->declared,
                           "`%s` and `%s` share db %u of %s: two pools, one set of keys", a->name, b->name, b->db,
                           config_server_text(b, server, sizeof(server)));
                return;
        }
}

static void check_server(const struct config_draft *d, const struct config *c, unsigned i) {
        uint64_t sum = config_server_connections(c, i);
        char server[512];
        for (unsigned j = 0; j < i; j++)
                if (config_same_server(&c->databases[i], &c->databases[j]))
                        return; /* said already */
        if (sum > MAXCLIENTS_USUAL)
                config_say(
                        d->report, CONFIG_WARNING, NULL,
                        "the caps of all databases of %s add up to %llu connections: a Redis server allows %u unless "
                        "its `maxclients` says otherwise",
                        config_server_text(&c->databases[i], server, sizeof(server)), (unsigned long long)sum,
                        MAXCLIENTS_USUAL);
}

static void check_descriptors(const struct config_draft *d, const struct config *c) {
        uint64_t need = config_fd_need(c);
        if (!d->input->fd_limit || need <= d->input->fd_limit)
                return;
        config_say(d->report, CONFIG_WARNING, NULL,
                   "%llu connections and %u sessions may need %llu file descriptors, but the limit is %llu: raise it "
                   "(LimitNOFILE=, ulimit -n), or lower `max_sessions`",
                   (unsigned long long)config_connections(c), c->max_sessions, (unsigned long long)need,
                   (unsigned long long)d->input->fd_limit);
}

void config_check(const struct config_draft *d, const struct config *c) {
        for (unsigned i = 0; i < c->n_databases; i++) {
                const struct config_database *db = &c->databases[i];
                check_order(d, c, i, CONFIG_KEY_min_idle, CONFIG_KEY_max_connections, db->min_idle,
                            db->max_connections);
                check_order(d, c, i, CONFIG_KEY_retry_base, CONFIG_KEY_retry_max, db->retry_base_ns, db->retry_max_ns);
                check_user(d, db, i);
        }
        /* Warnings about a configuration that will look otherwise once it is mended would only be in the way. */
        for (unsigned i = 0; i < c->n_databases && d->report->errors == 0; i++) {
                check_lease(d, &c->databases[i]);
                check_exposed(d, &c->databases[i]);
                check_handover(d, &c->databases[i]);
                check_shared(d, c, i);
                check_server(d, c, i);
        }
        if (d->report->errors == 0)
                check_descriptors(d, c);
}

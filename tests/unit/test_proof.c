/* SPDX-License-Identifier: MIT */
/* The proof that a connection is as good as new: one exact conversation, and everything else. */
#include "upstream/proof.h"

#include "support/check.h"

static const struct upstream_target target = {.client_name = "lessor:test:main", .db = 3};
static const struct upstream_target zero = {.client_name = "lessor:test:main"};
static const uint8_t nonce[PROOF_NONCE_SIZE] = {0x00, 0x01, 0xab, 0xcd, 0xef, 0xff};

#define NONCE "0001abcdefff00000000000000000000"
#define ECHOED "$32\r\n" NONCE "\r\n"
#define INFO                                                                                                           \
        "id=7 addr=127.0.0.1:1 laddr=127.0.0.1:2 fd=8 name=lessor:test:main age=5 idle=0 flags=N db=3 sub=0 psub=0 "   \
        "ssub=0 multi=-1 qbuf=26 qbuf-free=0 argv-mem=10 multi-mem=0 obl=0 oll=0 omem=0 tot-mem=1 events=r "           \
        "cmd=client|info user=default redir=-1 resp=2"

static char *bulk_of(const char *info) {
        static char wire[8192];
        snprintf(wire, sizeof(wire), "+RESET\r\n+OK\r\n+OK\r\n$%zu\r\n%s\n\r\n", strlen(info) + 1, info);
        return wire;
}

static enum proof_result take(struct proof *p, const char *wire) { return proof_take(p, wire, strlen(wire)); }

static void request_is(const struct proof *p, const char *expected) {
        check_eq(p->request_size, strlen(expected));
        check(memcmp(p->request, expected, p->request_size) == 0);
}

/* Up to the answer of the last step. */
static void advance(struct proof *p, const struct upstream_target *t, uint64_t client_id) {
        proof_start(p, t, client_id, nonce);
        check_eq(take(p, "+RESET\r\n"), PROOF_SAY);
        check_eq(take(p, ECHOED), PROOF_SAY);
}

static struct proof p;

TEST(proof, each_step_is_said_alone_and_the_last_restores_database_and_name) {
        proof_start(&p, &target, 7, nonce);
        request_is(&p, "*1\r\n$5\r\nRESET\r\n");
        check_eq(take(&p, "+RESET\r\n"), PROOF_SAY);
        request_is(&p, "*2\r\n$4\r\nECHO\r\n$32\r\n" NONCE "\r\n");
        check_eq(take(&p, ECHOED), PROOF_SAY);
        request_is(&p, "*1\r\n$5\r\nRESET\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n"
                       "*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$16\r\nlessor:test:main\r\n"
                       "*2\r\n$6\r\nCLIENT\r\n$4\r\nINFO\r\n");
        check_eq(take(&p, bulk_of(INFO)), PROOF_CLEAN);
}

TEST(proof, database_zero_needs_no_select) {
        char wire[4096];
        advance(&p, &zero, 0);
        check(!strstr(p.request, "SELECT"));
        snprintf(wire, sizeof(wire), "+RESET\r\n+OK\r\n$%zu\r\n%s\n\r\n", strlen(INFO) + 1, INFO);
        *strstr(wire, "db=3") = 'D';            /* a field nobody knows is ignored, */
        check_eq(take(&p, wire), PROOF_FAILED); /* but then db is missing */
        advance(&p, &zero, 0);
        snprintf(wire, sizeof(wire), "+RESET\r\n+OK\r\n$%zu\r\n%s\n\r\n", strlen(INFO) + 1, INFO);
        strstr(wire, "db=3")[3] = '0';
        check_eq(take(&p, wire), PROOF_CLEAN);
}

TEST(proof, answers_may_come_byte_by_byte) {
        const char *answers[] = {"+RESET\r\n", ECHOED, bulk_of(INFO)};
        proof_start(&p, &target, 7, nonce);
        for (unsigned i = 0; i < 3; i++) {
                size_t n = strlen(answers[i]);
                for (size_t at = 0; at + 1 < n; at++)
                        check_eq(proof_take(&p, answers[i] + at, 1), PROOF_WAIT);
                check_eq(proof_take(&p, answers[i] + n - 1, 1), i < 2 ? PROOF_SAY : PROOF_CLEAN);
        }
}

TEST(proof, a_byte_too_many_at_any_step_is_no_proof) {
        char wire[8200];
        proof_start(&p, &target, 7, nonce);
        check_eq(take(&p, "+RESET\r\n+"), PROOF_FAILED);
        proof_start(&p, &target, 7, nonce);
        check_eq(take(&p, "+RESET\r\n"), PROOF_SAY);
        check_eq(take(&p, ECHOED ":"), PROOF_FAILED);
        advance(&p, &target, 7);
        snprintf(wire, sizeof(wire), "%s+", bulk_of(INFO));
        check_eq(take(&p, wire), PROOF_FAILED);
}

/* A byte more than enough, and each byte changed: nothing but the exact answer will do. */
TEST(proof, no_byte_of_the_fixed_answers_may_differ) {
        for (size_t i = 0; i < strlen("+RESET\r\n"); i++) {
                char wire[] = "+RESET\r\n";
                wire[i] ^= 1;
                proof_start(&p, &target, 7, nonce);
                check_eq(proof_take(&p, wire, i + 1), PROOF_FAILED);
        }
        for (size_t i = 0; i < strlen(ECHOED); i++) {
                char wire[] = ECHOED;
                wire[i] ^= 1;
                proof_start(&p, &target, 7, nonce);
                check_eq(take(&p, "+RESET\r\n"), PROOF_SAY);
                check_eq(proof_take(&p, wire, i + 1), PROOF_FAILED);
        }
}

TEST(proof, a_forged_reset_does_not_survive_the_nonce) {
        proof_start(&p, &target, 7, nonce);
        check_eq(take(&p, "+RESET\r\n"), PROOF_SAY);    /* a script's */
        check_eq(take(&p, "+RESET\r\n"), PROOF_FAILED); /* the true one, late */
}

TEST(proof, refusals_are_named_but_nobodys_data_is_quoted) {
        proof_start(&p, &target, 7, nonce);
        check_eq(take(&p, "-ERR unknown command `RESET`, with args beginning with: secret\r\n"), PROOF_FAILED);
        check_str(p.text, "RESET was answered by -ERR");
        proof_start(&p, &target, 7, nonce);
        check_eq(take(&p, "$6\r\nsecret\r\n"), PROOF_FAILED);
        check(!strstr(p.text, "secret"));
        proof_start(&p, &target, 7, nonce);
        check_eq(take(&p, "+RESET\r\n"), PROOF_SAY);
        check_eq(take(&p, "-NOAUTH Authentication required.\r\n"), PROOF_FAILED);
        check_str(p.text, "ECHO was answered by -NOAUTH");
}

TEST(proof, whatever_differs_from_a_fresh_connection_is_seen) {
        static const struct {
                const char *from, *to, *named;
        } changes[] = {
                {"flags=N", "flags=e", "flags"},
                {"flags=N", "flags=NT", "flags"},
                {"flags=N", "flags=", "flags"},
                {"sub=0 psub", "sub=1 psub", "sub"},
                {"psub=0", "psub=2", "psub"},
                {"ssub=0", "ssub=1", "ssub"},
                {"multi=-1", "multi=0", "multi"},
                {"db=3", "db=4", "db"},
                {"db=3", "db=33", "db"},
                {"name=lessor:test:main", "name=", "name"},
                {"name=lessor:test:main", "name=mine", "name"},
                {"user=default", "user=bob", "user"},
                {"redir=-1", "redir=7", "redir"},
                {"resp=2", "resp=3", "resp"},
                {"resp=2", "resp=2 lib-name=x", "lib-name"},
                {"resp=2", "resp=2 watch=1", "watch"},
                {"id=7", "id=8", "id"},
                {" flags=N", "", "flags"},
                {" user=default", "", "user"},
        };
        for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
                char info[1024], named[64];
                const char *at = strstr(INFO, changes[i].from);
                check(at);
                snprintf(info, sizeof(info), "%.*s%s%s", (int)(at - INFO), INFO, changes[i].to,
                         at + strlen(changes[i].from));
                advance(&p, &target, 7);
                check_eq(take(&p, bulk_of(info)), PROOF_FAILED);
                snprintf(named, sizeof(named), "`%s`", changes[i].named);
                check_msg(strstr(p.text, named), "%s -> %s: %s", changes[i].from, changes[i].to, p.text);
        }
}

TEST(proof, what_6_2_does_not_know_and_what_is_new_is_not_asked_for) {
        advance(&p, &target, 7);
        check_eq(take(&p, bulk_of("id=7 addr=/a b:0 name=lessor:test:main age=0 flags=U db=3 sub=0 psub=0 multi=-1 "
                                  "user=default redir=-1 novelty=9 =x y=")),
                 PROOF_CLEAN);
}

TEST(proof, lengths_that_lie_are_refused) {
        static const char *const tails[] = {"$\r\n",   "$-1\r\n",    "$99999\r\n",     "$99999999999999999999\r\n",
                                            "$3x\r\n", "$0\r\n\r\n", "$2\r\nabcd\r\n", "$2\rxab\r\n",
                                            "*1\r\n"};
        for (size_t i = 0; i < sizeof(tails) / sizeof(tails[0]); i++) {
                char wire[64];
                snprintf(wire, sizeof(wire), "+RESET\r\n+OK\r\n+OK\r\n%s", tails[i]);
                advance(&p, &target, 7);
                check_msg(take(&p, wire) == PROOF_FAILED, "taken: %s", tails[i]);
        }
}

TEST(proof, an_answer_without_end_is_refused) {
        char flood[5000];
        memset(flood, 'x', sizeof(flood));
        advance(&p, &target, 7);
        check_eq(take(&p, "+RESET\r\n+OK\r\n+OK\r\n$4000\r\n"), PROOF_WAIT);
        check_eq(proof_take(&p, flood, sizeof(flood)), PROOF_FAILED);
}

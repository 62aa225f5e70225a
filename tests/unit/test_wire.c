/* SPDX-License-Identifier: MIT */
#include <stddef.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/wire.h"
#include "support/check.h"

/* What each type may look like, said once more than in wire.c: by the header lessor/protocol.h alone. */
struct type {
        enum lessor_message type;
        size_t size;
        enum wire_side from;
        unsigned fds;
        bool request_zero, request_nonzero; /* allowed? */
        size_t string, string_size;
        size_t zero, zero_size; /* a field that must be 0 */
};

#define AT(type, field) offsetof(struct type, field), sizeof(((struct type *)NULL)->field)
#define NOTHING 0, 0

static const struct type types[] = {
        {LESSOR_MSG_ATTACH, 96, WIRE_FROM_WORKER, 1, false, true, AT(lessor_msg_attach, program), NOTHING},
        {LESSOR_MSG_ATTACHED, 72, WIRE_FROM_BROKER, 0, false, true, NOTHING, NOTHING},
        {LESSOR_MSG_LOOKUP, 80, WIRE_FROM_WORKER, 0, false, true, AT(lessor_msg_lookup, name), NOTHING},
        {LESSOR_MSG_DATABASE, 40, WIRE_FROM_BROKER, 0, false, true, NOTHING, NOTHING},
        {LESSOR_MSG_LEASE, 104, WIRE_FROM_WORKER, 0, false, true, AT(lessor_msg_lease, site), NOTHING},
        {LESSOR_MSG_GRANT, 72, WIRE_FROM_BROKER, 1, false, true, NOTHING, AT(lessor_msg_grant, reserved)},
        {LESSOR_MSG_ERROR, 520, WIRE_FROM_BROKER, 0, true, true, AT(lessor_msg_error, text), NOTHING},
        {LESSOR_MSG_CANCEL, 24, WIRE_FROM_WORKER, 0, false, true, NOTHING, AT(lessor_msg_cancel, reserved)},
        {LESSOR_MSG_RETURN, 64, WIRE_FROM_WORKER, 0, true, false, NOTHING, AT(lessor_msg_return, reserved)},
        {LESSOR_MSG_REPORT, 48, WIRE_FROM_WORKER, 0, true, false, NOTHING, NOTHING},
};

#define each_type(t) for (const struct type *t = types; t < types + ARRAY_SIZE(types); t++)

static union wire_message valid(const struct type *t) {
        union wire_message message;
        wire_init(&message, t->type, t->request_nonzero ? 7 : 0);
        if (t->type == LESSOR_MSG_ERROR)
                message.error.outcome = LESSOR_E_TIMEOUT;
        if (t->type == LESSOR_MSG_REPORT)
                message.report.kind = LESSOR_REPORT_TIMEOUT;
        return message;
}

/* What is refused must leave the result as it was. */
static const char *decode(const struct type *t, const union wire_message *message) {
        union wire_message ret, untouched;
        const char *wrong;
        memset(&untouched, 0x5a, sizeof(untouched));
        ret = untouched;
        wrong = wire_decode(t->from, message, t->size, t->fds, &ret);
        check(!wrong || memcmp(&ret, &untouched, sizeof(ret)) == 0);
        return wrong;
}

static const char *or_fine(const char *wrong) { return wrong ? wrong : "fine"; }

TEST(wire, a_fresh_message_of_every_type_is_let_through_unchanged) {
        each_type(t) {
                union wire_message message = valid(t), ret;
                memset(&ret, 0x5a, sizeof(ret));
                check_eq(wire_size(t->type), t->size);
                check_eq(message.header.size, t->size);
                check_eq(message.header.type, t->type);
                check_str(or_fine(wire_decode(t->from, &message, t->size, t->fds, &ret)), "fine");
                check(memcmp(&message, &ret, t->size) == 0);
        }
}

TEST(wire, there_are_no_types_but_these) {
        union wire_message message = {0}, ret;
        for (unsigned type = 0; type <= UINT16_MAX; type++) {
                if (type >= LESSOR_MSG_ATTACH && type <= LESSOR_MSG_LANE_WAKE)
                        continue;
                message.header.type = (uint16_t)type;
                message.header.request = 1;
                for (size_t size = sizeof(message.header); size <= sizeof(message); size += 8) {
                        const char *wrong;
                        message.header.size = (uint16_t)size;
                        wrong = wire_decode((enum wire_side)(size / 8 % 2), &message, size, 0, &ret);
                        if (!wrong || strcmp(wrong, "an unknown type") != 0)
                                check_msg(false, "type %u size %zu: %s", type, size, or_fine(wrong));
                }
        }
        check_eq(wire_size((enum lessor_message)0), 0);
        check_eq(wire_size((enum lessor_message)(LESSOR_MSG_LANE_WAKE + 1)), 0);
        check_eq(wire_size((enum lessor_message) - 1), 0);
}

TEST(wire, every_size_but_the_type_s_own_is_named_and_leaves_the_result_untouched) {
        each_type(t) {
                union wire_message message = valid(t), ret, untouched;
                memset(&untouched, 0x5a, sizeof(untouched));
                for (size_t size = 0; size <= sizeof(message) + 64; size++) {
                        char packet[sizeof(message) + 64] = {0};
                        const char *wrong, *expected = size == 0                       ? "an empty packet"
                                                       : size < sizeof(message.header) ? "shorter than a header"
                                                       : size > sizeof(message)        ? "longer than any message"
                                                       : size < t->size                ? "shorter than its type"
                                                       : size > t->size                ? "longer than its type"
                                                                                       : "fine";
                        memcpy(packet, &message, sizeof(message));
                        ret = untouched;
                        wrong = wire_decode(t->from, packet, size, t->fds, &ret);
                        check_str(or_fine(wrong), expected);
                        check(!wrong || memcmp(&ret, &untouched, sizeof(ret)) == 0);
                }
        }
}

TEST(wire, the_header_says_the_size_too) {
        each_type(t) {
                for (unsigned size = 0; size <= 1024; size++) {
                        union wire_message message = valid(t);
                        message.header.size = (uint16_t)size;
                        check_eq(decode(t, &message) == NULL, size == t->size);
                }
        }
}

TEST(wire, each_side_sends_its_own_types_only) {
        each_type(t) {
                union wire_message message = valid(t), ret;
                enum wire_side other = t->from == WIRE_FROM_WORKER ? WIRE_FROM_BROKER : WIRE_FROM_WORKER;
                check_str(or_fine(wire_decode(other, &message, t->size, t->fds, &ret)),
                          "a type that the other side sends");
        }
}

TEST(wire, each_type_carries_exactly_its_fds) {
        each_type(t) {
                union wire_message message = valid(t), ret;
                for (unsigned n = 0; n <= WIRE_FDS_MAX + 1; n++) {
                        const char *wrong = wire_decode(t->from, &message, t->size, n, &ret);
                        if (n == 0 && t->type == LESSOR_MSG_ATTACH) /* whether it may is the kernel's to say */
                                check_str(or_fine(wrong), "fine");
                        else
                                check_str(or_fine(wrong), n < t->fds   ? "an fd is missing"
                                                          : n > t->fds ? "an fd where none belongs"
                                                                       : "fine");
                }
        }
}

TEST(wire, attached_carries_two_fds_and_their_sizes_if_and_only_if_it_grants_the_segment) {
        const struct type *t = &types[1];
        for (unsigned segment = 0; segment <= 1; segment++)
                for (unsigned n = 0; n <= WIRE_FDS_MAX; n++)
                        for (unsigned control = 0; control <= 1; control++)
                                for (unsigned session = 0; session <= 1; session++) {
                                        union wire_message message = valid(t), ret;
                                        bool good = n == (segment ? 2 : 0) && control == segment && session == segment;
                                        message.attached.features = segment ? LESSOR_FEATURE_SEGMENT : 0;
                                        message.attached.control_size = control * 4096;
                                        message.attached.segment_size = session * 4096;
                                        check_eq(wire_decode(t->from, &message, t->size, n, &ret) == NULL, good);
                                }
}

TEST(wire, a_question_has_a_number_and_what_needs_no_answer_has_none) {
        each_type(t) {
                const uint64_t numbers[] = {0, 1, UINT64_C(1) << 32, UINT64_MAX};
                for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
                        union wire_message message = valid(t);
                        message.header.request = numbers[i];
                        check_eq(decode(t, &message) == NULL, numbers[i] ? t->request_nonzero : t->request_zero);
                }
        }
}

TEST(wire, reserved_fields_are_zero_in_every_bit) {
        each_type(t) {
                for (unsigned bit = 0; bit < 32; bit++) {
                        union wire_message message = valid(t);
                        message.header.reserved = UINT32_C(1) << bit;
                        check_str(or_fine(decode(t, &message)), "a reserved field is not 0");
                }
                for (size_t bit = 0; bit < t->zero_size * 8; bit++) {
                        union wire_message message = valid(t);
                        ((unsigned char *)&message)[t->zero + bit / 8] = (unsigned char)(1U << bit % 8);
                        check_str(or_fine(decode(t, &message)), "a reserved field is not 0");
                }
        }
}

TEST(wire, a_string_of_every_length_ends_and_is_zero_after_its_end) {
        each_type(t) {
                for (size_t len = 0; len <= t->string_size && t->string_size > 0; len++) {
                        union wire_message message = valid(t);
                        char *string = (char *)&message + t->string;
                        memset(string, 'x', len);
                        check_str(or_fine(decode(t, &message)),
                                  len < t->string_size ? "fine" : "a string does not end");
                        for (size_t i = len + 1; i < t->string_size; i++) {
                                string[i] = 1;
                                check_str(or_fine(decode(t, &message)), "bytes after the end of a string");
                                string[i] = 0;
                        }
                }
        }
}

TEST(wire, unknown_flags_are_refused_bit_by_bit) {
        for (unsigned bit = 0; bit < 64; bit++) {
                union wire_message message = valid(&types[LESSOR_MSG_ATTACHED - 1]), ret;
                message.attached.features = UINT64_C(1) << bit;
                message.attached.control_size = message.attached.segment_size = bit == 0 ? 4096 : 0;
                check_eq(wire_decode(WIRE_FROM_BROKER, &message, 72, bit == 0 ? 2 : 0, &ret) == NULL, bit == 0);
        }
        for (unsigned bit = 0; bit < 32; bit++) {
                union wire_message message = valid(&types[LESSOR_MSG_ERROR - 1]);
                message.error.flags = UINT32_C(1) << bit;
                check_eq(decode(&types[LESSOR_MSG_ERROR - 1], &message) == NULL, message.error.flags == LESSOR_FATAL);
                message = valid(&types[LESSOR_MSG_LEASE - 1]);
                message.lease.flags = UINT32_C(1) << bit;
                check_eq(decode(&types[LESSOR_MSG_LEASE - 1], &message) == NULL,
                         message.lease.flags == LESSOR_LEASE_PINNED);
                message = valid(&types[LESSOR_MSG_RETURN - 1]);
                message.giveback.flags = UINT32_C(1) << bit;
                check_eq(decode(&types[LESSOR_MSG_RETURN - 1], &message) == NULL,
                         (message.giveback.flags & ~(LESSOR_RETURN_CLEAN | LESSOR_RETURN_KEPT |
                                                     LESSOR_RETURN_RESETTABLE | LESSOR_RETURN_UNKNOWN)) == 0);
        }
}

TEST(wire, a_newer_worker_may_want_features_and_versions_that_we_do_not_know) {
        const struct type *t = &types[LESSOR_MSG_ATTACH - 1];
        union wire_message message = valid(t);
        message.attach.features = UINT64_MAX;
        message.attach.version_min = LESSOR_PROTOCOL_MAX;
        message.attach.version_max = UINT32_MAX;
        check_str(or_fine(decode(t, &message)), "fine");
        message.attach.version_min = 3;
        message.attach.version_max = 2;
        check_str(or_fine(decode(t, &message)), "the lowest version is above the highest");
}

TEST(wire, a_report_is_of_a_known_kind) {
        const struct type *t = &types[LESSOR_MSG_REPORT - 1];
        for (int64_t kind = -4; kind < 300; kind++) {
                union wire_message message = valid(t);
                message.report.kind = (uint32_t)kind;
                check_eq(decode(t, &message) == NULL,
                         kind >= LESSOR_REPORT_CONNECTION && kind <= LESSOR_REPORT_LOADING);
        }
}

TEST(wire, an_error_has_a_positive_outcome_even_one_of_a_later_release) {
        const struct type *t = &types[LESSOR_MSG_ERROR - 1];
        for (int outcome = -140; outcome < 140; outcome++) {
                union wire_message message = valid(t);
                message.error.outcome = outcome;
                check_eq(decode(t, &message) == NULL, outcome > 0);
        }
}

/* The packet ends where the mapping ends, at every address modulo 8: a byte too many is a crash, with or without ASan. */
TEST(wire, nothing_beyond_the_packet_is_read_wherever_it_stands) {
        long page = sysconf(_SC_PAGESIZE);
        char *map = mmap(NULL, (size_t)page * 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        check(map != MAP_FAILED);
        check_eq(mprotect(map + page, (size_t)page, PROT_NONE), 0);
        each_type(t) {
                union wire_message message = valid(t), ret;
                for (size_t size = 0; size <= t->size; size++) {
                        char *packet = map + page - size;
                        memcpy(packet, &message, size);
                        check_eq(wire_decode(t->from, packet, size, t->fds, &ret) == NULL, size == t->size);
                }
        }
        munmap(map, (size_t)page * 2);
}

TEST(wire, a_string_is_truncated_ended_and_padded_with_zeros) {
        for (size_t size = 1; size <= 12; size++)
                for (size_t len = 0; len <= 14; len++) {
                        char to[16], from[16] = "abcdefghijklmno";
                        size_t kept = len < size ? len : size - 1;
                        from[len] = 0;
                        memset(to, 0x5a, sizeof(to));
                        wire_string(to, size, from);
                        check(memcmp(to, from, kept) == 0);
                        for (size_t i = kept; i < size; i++)
                                check_eq(to[i], 0);
                        for (size_t i = size; i < sizeof(to); i++)
                                check_eq(to[i], 0x5a);
                }
}

TEST(wire, a_string_from_nowhere_is_empty_and_an_unended_one_is_read_no_further_than_it_fits) {
        char to[4] = "abc", from[3] = {'x', 'y', 'z'}; /* no NUL: ASan watches */
        wire_string(to, sizeof(to), from);
        check_str(to, "xyz");
        wire_string(to, sizeof(to), NULL);
        check(memcmp(to, "\0\0\0", 4) == 0);
}

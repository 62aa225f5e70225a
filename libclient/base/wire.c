/* SPDX-License-Identifier: MIT */
/*
 * The wire codec. What a message must look like stands in one table, a rule for each type; wire_decode() holds a packet
 * against the rule of its type. Only what the rules cannot say (a field that depends on another) is code of its own.
 *
 * Not checked here, since it needs a session's state: whether a number names a lease, a database or an open request.
 */
#include "wire.h"

#include <assert.h>
#include <string.h>

#include "cleanup.h"

enum wire_request { REQUEST_ANY, REQUEST_NONE, REQUEST_SOME };

#define FDS_ATTACHED UINT8_MAX     /* depends on the features granted */
#define FDS_GRANT (UINT8_MAX - 1)  /* depends on the flags */
#define FDS_ATTACH (UINT8_MAX - 2) /* depends on the kernel */

struct wire_rule {
        uint16_t size; /* 0: no such type */
        uint8_t from;  /* enum wire_side */
        uint8_t request;
        uint8_t fds;
        uint16_t string, string_size; /* size 0: the message has none; likewise below */
        uint16_t flags, flags_size;
        uint64_t flags_known;
        uint16_t reserved, reserved_size;
};

#define SIZE_OF(type, field) ((uint16_t)sizeof(((struct type *)NULL)->field))
#define STRING(type, field) .string = offsetof(struct type, field), .string_size = SIZE_OF(type, field)
#define FLAGS(type, field, known)                                                                                      \
        .flags = offsetof(struct type, field), .flags_size = SIZE_OF(type, field), .flags_known = (known)
#define RESERVED(type, field) .reserved = offsetof(struct type, field), .reserved_size = SIZE_OF(type, field)

/* ATTACH has no FLAGS: a newer worker may want features that we do not know, and is told so by what it is granted. */
static const struct wire_rule wire_rules[] = {
        [LESSOR_MSG_ATTACH] = {.size = sizeof(struct lessor_msg_attach),
                               .from = WIRE_FROM_WORKER,
                               .request = REQUEST_SOME,
                               .fds = FDS_ATTACH,
                               STRING(lessor_msg_attach, program)},
        [LESSOR_MSG_ATTACHED] = {.size = sizeof(struct lessor_msg_attached),
                                 .from = WIRE_FROM_BROKER,
                                 .request = REQUEST_SOME,
                                 .fds = FDS_ATTACHED,
                                 FLAGS(lessor_msg_attached, features,
                                       LESSOR_FEATURE_SEGMENT | LESSOR_FEATURE_WORDS | LESSOR_FEATURE_LANES)},
        [LESSOR_MSG_LOOKUP] = {.size = sizeof(struct lessor_msg_lookup),
                               .from = WIRE_FROM_WORKER,
                               .request = REQUEST_SOME,
                               STRING(lessor_msg_lookup, name)},
        [LESSOR_MSG_DATABASE] = {.size = sizeof(struct lessor_msg_database),
                                 .from = WIRE_FROM_BROKER,
                                 .request = REQUEST_SOME},
        [LESSOR_MSG_LEASE] = {.size = sizeof(struct lessor_msg_lease),
                              .from = WIRE_FROM_WORKER,
                              .request = REQUEST_SOME,
                              STRING(lessor_msg_lease, site),
                              FLAGS(lessor_msg_lease, flags, LESSOR_LEASE_PINNED)},
        [LESSOR_MSG_GRANT] = {.size = sizeof(struct lessor_msg_grant),
                              .from = WIRE_FROM_BROKER,
                              .request = REQUEST_SOME,
                              .fds = FDS_GRANT,
                              FLAGS(lessor_msg_grant, flags, LESSOR_GRANT_KEPT),
                              RESERVED(lessor_msg_grant, reserved)},
        /* A fatal ERROR may answer no question at all. */
        [LESSOR_MSG_ERROR] = {.size = sizeof(struct lessor_msg_error),
                              .from = WIRE_FROM_BROKER,
                              .request = REQUEST_ANY,
                              STRING(lessor_msg_error, text),
                              FLAGS(lessor_msg_error, flags, LESSOR_FATAL)},
        [LESSOR_MSG_CANCEL] = {.size = sizeof(struct lessor_msg_cancel),
                               .from = WIRE_FROM_WORKER,
                               .request = REQUEST_SOME,
                               RESERVED(lessor_msg_cancel, reserved)},
        [LESSOR_MSG_RETURN] = {.size = sizeof(struct lessor_msg_return),
                               .from = WIRE_FROM_WORKER,
                               .request = REQUEST_NONE,
                               FLAGS(lessor_msg_return, flags,
                                     LESSOR_RETURN_CLEAN | LESSOR_RETURN_KEPT | LESSOR_RETURN_RESETTABLE |
                                             LESSOR_RETURN_UNKNOWN),
                               RESERVED(lessor_msg_return, reserved)},
        [LESSOR_MSG_REPORT] = {.size = sizeof(struct lessor_msg_report),
                               .from = WIRE_FROM_WORKER,
                               .request = REQUEST_NONE},
        [LESSOR_MSG_LANE] = {.size = sizeof(struct lessor_msg_lane),
                             .from = WIRE_FROM_WORKER,
                             .request = REQUEST_SOME,
                             RESERVED(lessor_msg_lane, reserved)},
        [LESSOR_MSG_LANE_OPENED] = {.size = sizeof(struct lessor_msg_lane_opened),
                                    .from = WIRE_FROM_BROKER,
                                    .request = REQUEST_SOME,
                                    .fds = 2,
                                    RESERVED(lessor_msg_lane_opened, reserved)},
        [LESSOR_MSG_LANE_REPLY] = {.size = sizeof(struct lessor_msg_lane_reply),
                                   .from = WIRE_FROM_BROKER,
                                   .request = REQUEST_NONE,
                                   .fds = 1,
                                   RESERVED(lessor_msg_lane_reply, reserved)},
        [LESSOR_MSG_LANE_WAKE] = {.size = sizeof(struct lessor_msg_lane_wake),
                                  .from = WIRE_FROM_BROKER,
                                  .request = REQUEST_NONE,
                                  RESERVED(lessor_msg_lane_wake, reserved)},
};

/* The layout is the protocol: no padding may creep in, on any machine. */
_Static_assert(sizeof(struct lessor_msg_header) == 16, "layout");
_Static_assert(sizeof(struct lessor_msg_attach) == 16 + 16 + LESSOR_NAME_SIZE, "layout");
_Static_assert(sizeof(struct lessor_msg_attached) == 16 + 56, "layout");
_Static_assert(sizeof(struct lessor_msg_lookup) == 16 + LESSOR_NAME_SIZE, "layout");
_Static_assert(sizeof(struct lessor_msg_database) == 16 + 24, "layout");
_Static_assert(sizeof(struct lessor_msg_lease) == 16 + 24 + LESSOR_SITE_SIZE, "layout");
_Static_assert(sizeof(struct lessor_msg_grant) == 16 + 56, "layout");
_Static_assert(sizeof(struct lessor_msg_error) == 16 + 16 + LESSOR_TEXT_SIZE, "layout");
_Static_assert(sizeof(struct lessor_msg_cancel) == 16 + 8, "layout");
_Static_assert(sizeof(struct lessor_msg_return) == 16 + 48, "layout");
_Static_assert(sizeof(struct lessor_msg_report) == 16 + 32, "layout");
_Static_assert(sizeof(struct lessor_msg_lane) == 16 + 8, "layout");
_Static_assert(sizeof(struct lessor_msg_lane_opened) == 16 + 16, "layout");
_Static_assert(sizeof(struct lessor_msg_lane_reply) == 16 + 24, "layout");
_Static_assert(sizeof(struct lessor_msg_lane_wake) == 16 + 8, "layout");

static const struct wire_rule *wire_rule(unsigned type) {
        return type < ARRAY_SIZE(wire_rules) && wire_rules[type].size > 0 ? &wire_rules[type] : NULL;
}

static bool wire_zeroed(const char *from, size_t size) {
        for (size_t i = 0; i < size; i++)
                if (from[i] != 0)
                        return false;
        return true;
}

static const char *wire_check_string(const char *string, size_t size) {
        const char *end = memchr(string, 0, size);
        if (!end)
                return "a string does not end";
        return wire_zeroed(end, size - (size_t)(end - string)) ? NULL : "bytes after the end of a string";
}

static const char *wire_check_flags(const char *field, size_t size, uint64_t known) {
        uint64_t flags = 0;
        if (size == sizeof(uint32_t)) {
                uint32_t narrow;
                memcpy(&narrow, field, sizeof(narrow));
                flags = narrow;
        } else
                memcpy(&flags, field, sizeof(flags));
        return flags & ~known ? "an unknown flag is set" : NULL;
}

static const char *wire_check_header(const struct wire_rule *rule, const struct lessor_msg_header *header) {
        if (header->size != rule->size)
                return "the header's size does not match the packet";
        if (header->reserved != 0)
                return "a reserved field is not 0";
        if (rule->request == REQUEST_SOME && header->request == 0)
                return "the request number is 0";
        if (rule->request == REQUEST_NONE && header->request != 0)
                return "a request number where there is no answer";
        return NULL;
}

static const char *wire_check_attached(const struct lessor_msg_attached *attached) {
        bool segment = attached->features & LESSOR_FEATURE_SEGMENT;
        if (!segment && attached->features & LESSOR_FEATURE_WORDS)
                return "words without a segment";
        if (!segment && attached->features & LESSOR_FEATURE_LANES)
                return "lanes without a segment";
        if (segment != (attached->control_size > 0) || segment != (attached->segment_size > 0))
                return "the sizes of the shared memory do not match the features";
        return NULL;
}

/* What depends on the meaning of a field. */
static const char *wire_check_fields(const union wire_message *message) {
        switch ((enum lessor_message)message->header.type) {
        case LESSOR_MSG_ATTACH:
                return message->attach.version_min > message->attach.version_max
                               ? "the lowest version is above the highest"
                               : NULL;
        case LESSOR_MSG_ATTACHED:
                return wire_check_attached(&message->attached);
        case LESSOR_MSG_ERROR: /* 0 would be success, and an errno of the broker's is none of the worker's */
                return message->error.outcome <= 0 ? "the outcome is not an error" : NULL;
        case LESSOR_MSG_REPORT:
                return message->report.kind < LESSOR_REPORT_CONNECTION || message->report.kind > LESSOR_REPORT_LOADING
                               ? "an unknown kind of report"
                               : NULL;
        case LESSOR_MSG_LEASE:
                return message->lease.ticket > LESSOR_TICKETS ? "a ticket that does not exist" : NULL;
        case LESSOR_MSG_LOOKUP:
        case LESSOR_MSG_DATABASE:
        case LESSOR_MSG_GRANT:
        case LESSOR_MSG_CANCEL:
        case LESSOR_MSG_RETURN:
        case LESSOR_MSG_LANE_WAKE:
        case LESSOR_MSG_LANE_REPLY:
                return NULL;
        case LESSOR_MSG_LANE:
                return message->lane.thread >= LESSOR_THREADS_MAX ? "a thread that cannot exist" : NULL;
        case LESSOR_MSG_LANE_OPENED:
                return message->lane_opened.size == 0 ? "a lane of no size" : NULL;
        }
        return NULL;
}

static const char *wire_check_fds(const struct wire_rule *rule, const union wire_message *message, unsigned n_fds) {
        unsigned expected = rule->fds;
        if (rule->fds == FDS_ATTACHED)
                expected = message->attached.features & LESSOR_FEATURE_SEGMENT ? 2 : 0;
        else if (rule->fds == FDS_GRANT)
                expected = message->grant.flags & LESSOR_GRANT_KEPT ? 0 : 1;
        else if (rule->fds == FDS_ATTACH) /* whether it may be left out is for the broker to say */
                expected = n_fds > 0;
        if (n_fds < expected)
                return "an fd is missing";
        return n_fds > expected ? "an fd where none belongs" : NULL;
}

static const char *wire_check(const struct wire_rule *rule, const union wire_message *message, unsigned n_fds) {
        const char *bytes = (const char *)message, *wrong;

        wrong = wire_check_header(rule, &message->header);
        if (!wrong && rule->reserved_size > 0 && !wire_zeroed(bytes + rule->reserved, rule->reserved_size))
                wrong = "a reserved field is not 0";
        if (!wrong && rule->string_size > 0)
                wrong = wire_check_string(bytes + rule->string, rule->string_size);
        if (!wrong && rule->flags_size > 0)
                wrong = wire_check_flags(bytes + rule->flags, rule->flags_size, rule->flags_known);
        if (!wrong)
                wrong = wire_check_fields(message);
        if (!wrong)
                wrong = wire_check_fds(rule, message, n_fds);
        return wrong;
}

const char *wire_decode(enum wire_side from, const void *packet, size_t size, unsigned n_fds, union wire_message *ret) {
        const struct wire_rule *rule;
        union wire_message message;
        const char *wrong;

        if (size == 0)
                return "an empty packet";
        if (size < sizeof(message.header))
                return "shorter than a header";
        if (size > sizeof(message))
                return "longer than any message";
        memcpy(&message, packet, size); /* the packet may stand at any address */
        rule = wire_rule(message.header.type);
        if (!rule)
                return "an unknown type";
        if (rule->from != from)
                return "a type that the other side sends";
        if (size != rule->size)
                return size < rule->size ? "shorter than its type" : "longer than its type";
        wrong = wire_check(rule, &message, n_fds);
        if (!wrong)
                memcpy(ret, &message, size);
        return wrong;
}

void wire_init(union wire_message *message, enum lessor_message type, uint64_t request) {
        size_t size = wire_size(type);
        assert(size > 0);
        memset(message, 0, sizeof(*message));
        message->header.type = (uint16_t)type;
        message->header.size = (uint16_t)size;
        message->header.request = request;
}

size_t wire_size(enum lessor_message type) {
        const struct wire_rule *rule = wire_rule((unsigned)type);
        return rule ? rule->size : 0;
}

void wire_string(char *to, size_t size, const char *from) {
        size_t len;
        assert(size > 0);
        len = from ? strnlen(from, size - 1) : 0;
        memmove(to, from ? from : "", len);
        memset(to + len, 0, size - len);
}

/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * The wire codec: the messages of lessor/protocol.h, checked. Pure.
 *
 * wire_decode() takes one packet and answers whether it is a message the protocol allows: known type, exact size on
 * the wire and in the header, reserved fields and unknown flags 0, strings NUL-terminated and zero after their end,
 * and the number of fds its type carries. It never reads beyond the packet. What it lets through may be read as the type's struct.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lessor/protocol.h>

union wire_message {
        struct lessor_msg_header header;
        struct lessor_msg_attach attach;
        struct lessor_msg_attached attached;
        struct lessor_msg_lookup lookup;
        struct lessor_msg_database database;
        struct lessor_msg_lease lease;
        struct lessor_msg_grant grant;
        struct lessor_msg_error error;
        struct lessor_msg_cancel cancel;
        struct lessor_msg_return giveback;
        struct lessor_msg_report report;
        struct lessor_msg_lane lane;
        struct lessor_msg_lane_opened lane_opened;
        struct lessor_msg_lane_reply lane_reply;
        struct lessor_msg_lane_wake lane_wake;
};

#define WIRE_FDS_MAX 4U /* more than any message carries: what the receiver makes room for */

enum wire_side { WIRE_FROM_WORKER, WIRE_FROM_BROKER };

/*
 * NULL when `size` bytes and `n_fds` fds are a message that `from` may send; copied to *ret. Otherwise what is wrong, a
 * static text such as "size does not match the type", and *ret is untouched.
 */
const char *wire_decode(enum wire_side from, const void *packet, size_t size, unsigned n_fds, union wire_message *ret);

/* Zeroes *message and fills in the header of its type. */
void wire_init(union wire_message *message, enum lessor_message type, uint64_t request);
size_t wire_size(enum lessor_message type); /* 0: no such type */

/* Copies with truncation, NUL-terminates, zeroes the rest: what the protocol wants of its strings. */
void wire_string(char *to, size_t size, const char *from);

/* SPDX-License-Identifier: MIT */
#pragma once
/* What an administrator's datagram says, and whether he may say it. Pure; input from anybody who can reach the socket. */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <lessor/admin.h>

/*
 * LESSOR_ADMIN_DONE: *ret is a request that makes sense, its texts fit to be shown. Otherwise why not, in `text`; *ret
 * then holds what the answer repeats, as far as it could be read: command and tag.
 */
enum lessor_admin_outcome admin_request_read(const void *data, size_t size, struct lessor_admin_request *ret,
                                             char text[LESSOR_ADMIN_TEXT_SIZE]);

/* Root and the broker's own user may. `known`: the kernel has said who sent it. */
static inline bool admin_may(bool known, uid_t uid, uid_t own) { return known && (uid == 0 || uid == own); }

const char *admin_command_name(uint32_t command); /* "pause"; "?" */
bool admin_is_of_database(uint32_t command);

/* SPDX-License-Identifier: MIT */
/* An administrator's datagram: what is a request, what is not, and who may send one. */
#include "admin/request.h"
#include "support/check.h"

static char text[LESSOR_ADMIN_TEXT_SIZE];
static struct lessor_admin_request said, read_back;

static void setup(void) {
        said = (struct lessor_admin_request){.magic = LESSOR_ADMIN_MAGIC,
                                             .version = LESSOR_ADMIN_VERSION,
                                             .command = LESSOR_ADMIN_PAUSE,
                                             .tag = 42,
                                             .database = "main",
                                             .why = "new Redis"};
        text[0] = '\0';
}

static enum lessor_admin_outcome say_first(size_t size) { return admin_request_read(&said, size, &read_back, text); }
static enum lessor_admin_outcome say(void) { return say_first(sizeof(said)); }

#define ADMIN_TEST(name) TEST_WITH(admin, name, .init = setup, .timeout = 60)

ADMIN_TEST(a_request_is_read_as_it_was_said) {
        check_eq(say(), LESSOR_ADMIN_DONE);
        check_eq(read_back.command, LESSOR_ADMIN_PAUSE);
        check_eq(read_back.tag, 42);
        check_str(read_back.database, "main");
        check_str(read_back.why, "new Redis");
}

ADMIN_TEST(every_command_has_a_name_and_wants_what_it_needs) {
        for (uint32_t c = LESSOR_ADMIN_PAUSE; c <= LESSOR_ADMIN_SHUTDOWN; c++) {
                said.command = c;
                said.number = 7;
                check_eq(say(), LESSOR_ADMIN_DONE);
                check(strcmp(admin_command_name(c), "?") != 0);
                said.database[0] = '\0';
                check_eq(say(), admin_is_of_database(c) ? LESSOR_ADMIN_INVALID : LESSOR_ADMIN_DONE);
                snprintf(said.database, sizeof(said.database), "main");
                said.number = 0;
                check_eq(say(), c == LESSOR_ADMIN_KILL_LEASE || c == LESSOR_ADMIN_KILL_SESSION ? LESSOR_ADMIN_INVALID
                                                                                               : LESSOR_ADMIN_DONE);
        }
}

ADMIN_TEST(numbers_that_are_no_command_are_refused) {
        static const uint32_t wrong[] = {0, LESSOR_ADMIN_SHUTDOWN + 1, 1000000, UINT32_MAX};
        for (unsigned i = 0; i < 4; i++) {
                said.command = wrong[i];
                check_eq(say(), LESSOR_ADMIN_INVALID);
                check(text[0] != '\0');
                check_str(admin_command_name(wrong[i]), "?");
                check(!admin_is_of_database(wrong[i]));
        }
}

ADMIN_TEST(a_flag_is_taken_where_it_means_something_only) {
        said.flags = LESSOR_ADMIN_CUT;
        check_eq(say(), LESSOR_ADMIN_INVALID);
        said.command = LESSOR_ADMIN_SHUTDOWN;
        check_eq(say(), LESSOR_ADMIN_DONE);
        said.flags = LESSOR_ADMIN_BY_PID;
        check_eq(say(), LESSOR_ADMIN_INVALID);
        said.command = LESSOR_ADMIN_KILL_SESSION;
        said.number = 1;
        check_eq(say(), LESSOR_ADMIN_DONE);
}

ADMIN_TEST(a_request_of_any_other_size_is_none) {
        for (size_t size = 0; size < sizeof(said); size++)
                check_eq(say_first(size), LESSOR_ADMIN_INVALID);
        unsigned char more[sizeof(said) + 1] = {0};
        memcpy(more, &said, sizeof(said));
        check_eq(admin_request_read(more, sizeof(more), &read_back, text), LESSOR_ADMIN_INVALID);
}

ADMIN_TEST(another_magic_or_version_is_told_apart) {
        said.version++;
        check_eq(say(), LESSOR_ADMIN_VERSION_UNKNOWN);
        check_eq(say_first(8), LESSOR_ADMIN_VERSION_UNKNOWN); /* whatever its size is then */
        said.magic++;
        check_eq(say(), LESSOR_ADMIN_INVALID);
        check_eq(read_back.tag, 0); /* of what is no request nothing is repeated */
}

ADMIN_TEST(a_text_needs_an_end_and_steers_no_terminal) {
        memcpy(said.why, "a\033[2Jb\n\303\244", 10);
        check_eq(say(), LESSOR_ADMIN_DONE);
        check_str(read_back.why, "a?[2Jb???");
        memset(said.why, 'x', sizeof(said.why));
        check_eq(say(), LESSOR_ADMIN_INVALID);
        said.why[sizeof(said.why) - 1] = '\0';
        check_eq(say(), LESSOR_ADMIN_DONE);
        memset(said.database, 'x', sizeof(said.database));
        check_eq(say(), LESSOR_ADMIN_INVALID);
}

ADMIN_TEST(root_and_the_brokers_own_user_may_and_nobody_else) {
        check(admin_may(true, 0, 0) && admin_may(true, 0, 1000) && admin_may(true, 1000, 1000));
        check(!admin_may(true, 1000, 0) && !admin_may(true, 65534, 1000) && !admin_may(true, (uid_t)-1, 1000));
        check(!admin_may(false, 0, 0)); /* the kernel has not said who */
}

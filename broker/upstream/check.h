/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Asking an idle connection whether it still works: ECHO of a number nobody else knows, so that no late or forged
 * answer passes for this one; with ROLE before it when it is to be known whose server this is. Only for sockets that never left the broker.
 */
#include <stdbool.h>
#include <stdint.h>

#include <event2/event.h>
#include <lessor/status.h>

struct check;

enum check_outcome {
        CHECK_ANSWERED, /* also by an error: who may not ECHO, or is loading its data, is there */
        CHECK_SILENT,   /* not within the time, however many bytes came */
        CHECK_WRONG,    /* by what was not asked for */
        CHECK_LOST,     /* the connection ended, or is good for nothing any more */
};

struct check_result {
        enum check_outcome outcome;
        bool asked, replica; /* what ROLE said, if it was asked and answered */
        char text[LESSOR_STATUS_TEXT_SIZE];
};

typedef void check_done(void *userdata, const struct check_result *result);

struct check_options {
        struct event_base *base;
        int fd; /* borrowed */
        bool ask_role;
        uint64_t timeout_ns;
        uint8_t nonce[16];
        check_done *done; /* once, from the loop, never from within check_start(); the check is freed before */
        void *userdata;
};

int check_start(const struct check_options *options, struct check **ret); /* 0; -ENOMEM; -errno of writing */
void check_cancel(struct check *check);                                   /* NULL ok; `done` is not called */

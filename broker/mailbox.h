/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * How threads speak: a letter is put into another loop's mailbox and opened there. Wait-free for the sender (liburcu's
 * queue plus one write to an eventfd), in order per sender, never lost while the mailbox lives.
 */
#include <event2/event.h>

#include "rcu.h"

struct letter;
typedef void letter_open(struct letter *letter); /* owns the letter from then on */

struct letter {
        struct cds_wfcq_node node;
        letter_open *open;
};

struct mailbox {
        struct cds_wfcq_head head;
        struct cds_wfcq_tail tail;
        int wake;
        struct event *event;
};

int mailbox_init(struct mailbox *mailbox, struct event_base *base); /* 0; -errno */
/* Opens what is left first: letters own memory and fds. Nobody may post any more. */
void mailbox_deinit(struct mailbox *mailbox);
void mailbox_post(struct mailbox *mailbox, struct letter *letter, letter_open *open); /* from any thread */
void mailbox_drain(struct mailbox *mailbox);                                          /* opens what is there now */

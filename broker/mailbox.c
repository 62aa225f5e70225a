/* SPDX-License-Identifier: MIT */
#include "mailbox.h"

#include <errno.h>
#include <sys/eventfd.h>

#include "base/cleanup.h"

/*
 * A dequeue that would block has met a sender between the two steps of his enqueue: he wakes us once he is through,
 * because every sender writes to the eventfd after, not before.
 */
void mailbox_drain(struct mailbox *mailbox) {
        struct cds_wfcq_node *node;
        while ((node = __cds_wfcq_dequeue_nonblocking(&mailbox->head, &mailbox->tail)) && node != CDS_WFCQ_WOULDBLOCK) {
                struct letter *letter = container_of(node, struct letter, node);
                rcu_takeover(letter);
                letter->open(letter);
        }
}

static void on_wake(evutil_socket_t fd, short what, void *userdata) {
        eventfd_t value;
        (void)eventfd_read(fd, &value);
        mailbox_drain(userdata);
}

int mailbox_init(struct mailbox *mailbox, struct event_base *base) {
        cds_wfcq_init(&mailbox->head, &mailbox->tail);
        mailbox->event = NULL;
        mailbox->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (mailbox->wake < 0)
                return -errno;
        mailbox->event = event_new(base, mailbox->wake, EV_READ | EV_PERSIST, on_wake, mailbox);
        return mailbox->event && event_add(mailbox->event, NULL) == 0 ? 0 : -ENOMEM;
}

void mailbox_deinit(struct mailbox *mailbox) {
        mailbox_drain(mailbox);
        if (mailbox->event)
                event_free(mailbox->event);
        mailbox->wake = fd_close(mailbox->wake);
        cds_wfcq_destroy(&mailbox->head, &mailbox->tail);
}

void mailbox_post(struct mailbox *mailbox, struct letter *letter, letter_open *open) {
        cds_wfcq_node_init(&letter->node);
        letter->open = open;
        rcu_handover(letter);
        cds_wfcq_enqueue(&mailbox->head, &mailbox->tail, &letter->node);
        (void)eventfd_write(mailbox->wake, 1);
}

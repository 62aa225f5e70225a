/* SPDX-License-Identifier: MIT */
#pragma once
/* Queues (lessor/queue.h) from the inside: what lanes tell them. */
#include "lane.h"

/* LANE_WAKE: who is armed there looks. Lane lock held. */
void queues_told(struct lane_client *l);

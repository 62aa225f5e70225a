/* SPDX-License-Identifier: MIT */
#pragma once
/* The whole broker: puts the parts together, runs them, takes them apart. Logs what goes wrong. */
#include "config/config.h"

struct broker;

/* Locks the instance, makes the segments, listens. The config is borrowed. 0; -errno: nothing is left behind. */
int broker_new(const struct config *config, struct broker **ret);
int broker_run(struct broker *broker); /* until SIGTERM or SIGINT. 0; -errno */
void broker_free(struct broker *broker);

/* SPDX-License-Identifier: MIT */
#pragma once
/* The whole broker: puts the parts together, runs them, takes them apart. Logs what goes wrong. */
#include "config/config.h"

struct broker;

/* How a reload gets its configuration: what is wrong is logged. 0, and *ret is the broker's; else as config_load(). */
struct broker_loader {
        int (*load)(void *userdata, struct config **ret);
        void *userdata;
};

/* Locks the instance, makes the segments, listens. The config is borrowed. 0; -errno: nothing is left behind. */
int broker_new(const struct config *config, const struct broker_loader *loader, struct broker **ret);
int broker_run(struct broker *broker); /* until SIGTERM or SIGINT; reloads on SIGHUP. 0; -errno */
void broker_free(struct broker *broker);

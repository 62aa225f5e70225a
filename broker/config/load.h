/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Loading the configuration: the thin part with system calls. It finds and reads the file, then leaves everything to
 * parse.h, for which it looks up user and group names and reads password files.
 *
 *      struct config_report report = {0};
 *      r = config_load(&options, &report, &config);
 *      config_report_write(&report, stderr);      // also when r is 0: warnings and notes
 *      config_report_deinit(&report);
 *
 * --check-config: load, write the report, config_write_summary(); --print-config: config_write(); --help-config:
 * config_write_keys() (print.h).
 */
#include "config.h"
#include "report.h"

#define CONFIG_FILE_DEFAULT "/etc/lessor/lessor.yaml"

struct config_options {
        const char *file;        /* -c; NULL: $LESSOR_CONFIG, else CONFIG_FILE_DEFAULT, else the built-in database */
        const char *instance;    /* --instance; NULL: not given */
        const char *socket;      /* --socket; NULL: not given */
        const char *const *sets; /* --set, each "DB.KEY=VALUE" or "KEY=VALUE" */
        unsigned n_sets;
        char *const *environment; /* environ; NULL: none */
};

/* 0; CONFIG_E_INVALID; -ENOMEM. *ret is the caller's, for config_free(); untouched unless 0. */
int config_load(const struct config_options *options, struct config_report *report, struct config **ret);

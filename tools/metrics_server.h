/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * `lessor metrics --listen`: two pages over HTTP, from shared memory and nothing else. Needs no rights, holds no secrets,
 * and says so when the broker is dead. Serves until SIGTERM or SIGINT; prints where it listens. As http_server_new().
 */
int metrics_serve(const char *instance, const char *address);

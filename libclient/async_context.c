/* SPDX-License-Identifier: MIT */
/* Leases as redisAsyncContext. */
#include "async_core.h"

void async_contexts_end(lessor_async *a) { (void)a; }

/* SPDX-License-Identifier: MIT */
#pragma once
/* What pool.c (what happened) and next.c (what is to be done) share. */
#include "pool.h"

/* The one function that changes a state: asserts the diagram of pool.h, keeps lists and counts. */
void pool_move(struct pool *pool, struct pool_conn *conn, enum conn_state to, uint64_t now);
/* To CLOSING, for that reason. */
void pool_discard(struct pool *pool, struct pool_conn *conn, enum pool_discard why, uint64_t now);
/* The waiter has left the queue already. */
void pool_grant(struct pool *pool, struct pool_conn *conn, const struct pool_waiter *waiter, uint64_t now);
struct pool_waiter *pool_leave_queue(struct pool *pool, struct pool_waiter *waiter);

unsigned pool_vacancies(const struct pool *pool); /* so many more may be dialled */
unsigned pool_coming(const struct pool *pool);    /* connections that will be FREE by themselves, if all goes well */

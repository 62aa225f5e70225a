/* SPDX-License-Identifier: MIT */
/*
 * The schema of the statistics: every number of a database is declared here, once. The struct of the status segment
 * (lessor/status.h), the readers, the JSON, the metrics and the manual are made from it by X-macros.
 *
 *      X(name, kind, unit, help)
 *
 * name  the C field and the JSON name
 * kind  LIMIT (configured), GAUGE (now), COUNTER (only grows while the instance lives), TIME (CLOCK_REALTIME, 0: never)
 * unit  ONE (a count), NS (nanoseconds), ENUM (see the help)
 *
 * No include guard: this file is included once for each thing that is made from it. Append at the end of a group and
 * raise LESSOR_STATUS_VERSION whenever the list changes.
 */

#ifdef LESSOR_STATUS_FIELD
#define X LESSOR_STATUS_FIELD
X(health, GAUGE, ENUM, "0 unused, 1 healthy, 2 degraded, 3 failed; `reason` says why")
X(max_connections, LIMIT, ONE, "the cap: connections of this pool never exceed it, in whatever state")
X(max_waiters, LIMIT, ONE, "the bound of the queue; a request beyond it is refused at once")
X(wait_timeout, LIMIT, NS, "how long a request waits in the queue unless the caller says otherwise")
X(socket_timeout, LIMIT, NS, "how long a caller waits for a reply")
X(open_connections, GAUGE, ONE, "connections counted against the cap now, dialling and closing ones included")
X(available_connections, GAUGE, ONE, "connections ready to be leased")
X(parked_connections, GAUGE, ONE,
  "of the available: left with the worker that used them last, recalled when another waits")
X(in_use_connections, GAUGE, ONE, "connections held by a worker")
X(idle_connections, GAUGE, ONE, "of the available: unused for more than 60 s")
X(dialling_connections, GAUGE, ONE, "connections being established")
X(closing_connections, GAUGE, ONE, "connections closed here whose end Redis has not confirmed yet")
X(resetting_connections, GAUGE, ONE, "connections that came back with state on them, being made as good as new")
X(lane_connections, GAUGE, ONE, "connections of the broker's own, by which the commands of all lanes go")
X(peak_connections, GAUGE, ONE, "the most connections open at once since the start")
X(waiting, GAUGE, ONE, "requests in the queue")
X(peak_waiting, GAUGE, ONE, "the most requests in the queue at once since the start")
X(oldest_wait, GAUGE, NS, "how long the first in the queue has been waiting")
X(created_connections, COUNTER, ONE, "connections established")
X(failed_connections, COUNTER, ONE, "attempts to establish a connection that failed")
X(reconnections, COUNTER, ONE, "connections established in the place of one that was lost or discarded")
X(retry_attempts, COUNTER, ONE, "attempts to connect that followed a failed one")
X(leases, COUNTER, ONE, "connections granted to a worker")
X(warm_leases, COUNTER, ONE, "leases of a parked connection, taken by its worker without asking the broker")
X(recalls, COUNTER, ONE, "parked connections taken back from a worker")
X(revocations, COUNTER, ONE, "leases cut off: held for longer than lease_timeout")
X(overdue_leases, COUNTER, ONE, "leases reported: held for longer than lease_warn")
X(lease_timeouts, COUNTER, ONE, "requests whose deadline passed in the queue")
X(exhausted, COUNTER, ONE, "requests refused because the queue was full, or that would not wait")
X(denied, COUNTER, ONE, "requests refused by `allow`")
X(cancelled, COUNTER, ONE, "requests their worker took back, or died over")
X(reclaims, COUNTER, ONE, "leases taken back from a worker that died or broke the protocol")
X(lane_calls, COUNTER, ONE, "commands that went by lane")
X(lane_writes, COUNTER, ONE, "writes to Redis that carried them: lane_calls / lane_writes is the size of a batch")
X(lane_rings, COUNTER, ONE, "times a worker had to ring for his lane to be looked at")
X(lane_refused, COUNTER, ONE, "commands sent to a lane that only a lease can take")
X(lane_unsent, COUNTER, ONE,
  "commands in a lane whose deadline passed before they could be sent, or that nobody could be sent for")
X(lane_timeouts, COUNTER, ONE, "commands sent by lane and not answered within socket_timeout")
X(lane_discarded, COUNTER, ONE, "replies that came after their caller had left")
X(lane_apart, COUNTER, ONE, "replies too large for their lane, handed over as memory of their own")
X(lane_sessions, GAUGE, ONE, "sessions with commands under way in a lane: taken from it, and not answered")
X(lane_under_way, GAUGE, ONE, "those commands")
X(oldest_lane_call, GAUGE, NS, "how long the oldest of them has been under way")
X(path, GAUGE, ENUM, "how single commands go at this time: 0 by lease only, 1 direct (by lease), 2 by lane")
X(path_changes, COUNTER, ONE, "times that has changed")
X(operations_ok, COUNTER, ONE, "commands answered without an error, as counted by the workers")
X(operations_failed, COUNTER, ONE, "commands answered by an error or not at all, as counted by the workers")
X(timeouts, COUNTER, ONE, "of the failed operations: no reply within socket_timeout")
X(reports, COUNTER, ONE, "troubles reported by workers")
X(resets, COUNTER, ONE, "connections that came back with state on them, reset, proved and kept")
X(discards_dirty, COUNTER, ONE, "connections replaced: returned without the proof that they are clean")
X(discards_stray, COUNTER, ONE, "connections replaced: bytes that nobody asked for were found on them")
X(discards_holder, COUNTER, ONE, "connections replaced: their holder died or broke the protocol")
X(discards_revoked, COUNTER, ONE, "connections replaced: cut off under a holder who had them for too long")
X(discards_reset, COUNTER, ONE, "connections replaced: a reset failed, took too long, or proved nothing")
X(discards_lost, COUNTER, ONE, "connections replaced: Redis closed them")
X(discards_check, COUNTER, ONE, "connections replaced: they did not pass a health check")
X(discards_idle, COUNTER, ONE, "connections closed: idle for longer than idle_timeout")
X(discards_age, COUNTER, ONE, "connections closed: older than max_lifetime")
X(discards_outdated, COUNTER, ONE, "connections closed: the pool has turned away from their server")
X(discards_lane, COUNTER, ONE, "connections closed: a lane needed their place for one that no worker has ever held")
X(health_checks, COUNTER, ONE, "checks of idle connections")
X(health_checks_failed, COUNTER, ONE, "checks of idle connections that were not answered, or wrongly")
X(breaker_state, GAUGE, ENUM, "the circuit breaker: 0 closed, 1 open, 2 half-open (a probe is under way)")
X(breaker_by_hand, GAUGE, ONE, "1: an administrator has opened the circuit breaker, and nothing else closes it")
X(breaker_failures, GAUGE, ONE, "failures in a row that the broker has seen")
X(breaker_trips, COUNTER, ONE, "times the circuit breaker opened")
X(breaker_opened_at, TIME, NS, "when the circuit breaker opened; 0 while it is closed")
X(breaker_retry_at, TIME, NS, "when the next probe is due; 0 while the circuit breaker is not open")
X(paused, GAUGE, ENUM,
  "by an operator: 0 no, 1 paused, 2 draining, 3 drained; nothing is leased until `lessor resume`; `reason` says why")
X(paused_at, TIME, NS, "when it was paused or drained; 0 while it is not")
X(trouble, GAUGE, ENUM,
  "what keeps the broker from its server: 0 none, 1 unreachable, 2 silent, 3 not-redis, 4 loading, 5 busy, 6 "
  "maxclients, "
  "7 protected-mode, 8 noauth, 9 wrongpass, 10 noperm, 11 wrong-db, 12 refused, 13 broker")
X(peak_dial_rate, GAUGE, ONE, "the most attempts to connect begun within 100 ms since the start")
X(last_error_time, TIME, NS, "when `last_error` was set")
X(last_success_time, TIME, NS, "when a connection was established or a command succeeded")
X(last_lease_time, TIME, NS, "when a connection was last granted")
X(last_cleanup, TIME, NS, "when idle connections were last looked for")
#undef X
#undef LESSOR_STATUS_FIELD
#endif

#ifdef LESSOR_STATUS_HISTOGRAM
#define X LESSOR_STATUS_HISTOGRAM
X(wait_time, "from a request to its grant")
X(hold_time, "from taking a connection to giving it back; of warm leases one in 64 is measured")
X(lane_queue_time, "of commands in a lane that could not be sent at once: until they were")
X(lane_round_trip, "of commands by lane: from being sent to their reply")
X(call_time, "from a command to its reply, as measured by the workers")
#undef X
#undef LESSOR_STATUS_HISTOGRAM
#endif

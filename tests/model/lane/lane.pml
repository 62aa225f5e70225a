/* SPDX-License-Identifier: MIT */
/*
 * One lane (libclient/base/lane.h): a worker that submits, cancels, reads and sleeps; the broker with its bell, its one
 * connection to Redis and another session's command on it; Redis, who may fall silent; the worker's death at any point.
 * What must hold, and what is left out: see ../README.md. Each of the macros that `run` defines takes one essential
 * step away, or does it wrongly.
 *
 * A statement, an atomic or a d_step is what a thread does in one go: at most one access to what both sides share, and with
 * it what only this thread knows, what only the model notes, or a system call. Between any two of them anything may happen.
 */

/* Rings of two entries, and so many submissions that each entry is used again. */
#define SUBMISSIONS 3
#define SLOT(p) ((p) & 1)
#define NEXT(p) ((p) + 1)
#define DISTANCE(from, to) ((to) - (from))

/* Shared memory. */
#define SUBMITTED 1
#define TAKEN 2
#define CANCELLED 3
#define WORD(position, state) ((state) | ((position) << 2))
#define STATE(w) ((w) & 3)
byte word[2];   /* a submission's state and position; 0: never used */
byte bytes[2];  /* its request: the position + 1 of whose it is */
byte reply[2];  /* a completion: position + 1; 0: never used */
byte answer[2]; /* its tag: the position + 1 of the submission */
byte area;      /* the reply area, with room for one: the same */
byte taken, reaped;
byte done; /* the futex word */
bool waiting, starved, armed;

/* The kernel's. */
bool rung;     /* the doorbell, as an edge: rung since the broker last woke */
bool sleeping; /* the worker, in FUTEX_WAIT */
bool died;     /* its pidfd is readable */

/* The connection: what was sent, what has been answered. The worker's are by position. */
#define ANOTHER 9
chan sent = [3] of { byte };
chan replies = [3] of { byte };
chan in_flight = [3] of { byte }; /* the broker's own: whose the next reply is */

/* What the model notes. */
bool alive = true, may_have_run[SUBMISSIONS], never_sent[SUBMISSIONS], gone;
byte b_next, b_completed, b_unanswered;
bool b_kept; /* a reply that has found no room */
byte w_next, w_reaped, w_unanswered;

/* What must never be, by names that a report of spin shows. */
bool sent_though_cancelled, cancelled_another, bytes_of_another, reply_of_another, honest_taken_for_bad, answered_twice;
bool submission_not_seen, worker_not_woken, room_not_seen, left_with_the_dead;
#define never(name, condition)                                                                                         \
        name = (condition);                                                                                            \
        assert(!name)

#define IS_COMPLETED (reply[SLOT(w_reaped)] == w_reaped + 1)
#ifdef ROOM_IS_NOT_COUNTED
#define HAS_ROOM true
#else
#define HAS_ROOM (b_completed == reaped)
#endif

/* ---- the worker -------------------------------------------------------------------------------------------------- */

inline ring_if_armed() {
        if
        :: armed -> rung = true
        :: else
        fi
}

#if defined(ENTRY_IS_REUSED_WHEN_TAKEN)
#define IS_FREE(p) (STATE(word[SLOT(p)]) != SUBMITTED)
#elif defined(ENTRY_IS_REUSED_WHEN_CANCELLED)
#define IS_FREE(p) (DISTANCE(taken, p) < 2 || STATE(word[SLOT(p)]) == CANCELLED)
#else
#define IS_FREE(p) (DISTANCE(taken, p) < 2)
#endif

#define CAN_SUBMIT (w_next < SUBMISSIONS && w_unanswered < 2 && IS_FREE(w_next))

inline lane_submit() {
#ifdef RING_LOOKS_BEFORE_IT_SUBMITS
        looked = armed;
#endif
#ifdef SUBMIT_BEFORE_THE_BYTES
        word[SLOT(w_next)] = WORD(w_next, SUBMITTED);
        bytes[SLOT(w_next)] = w_next + 1;
#else
        bytes[SLOT(w_next)] = w_next + 1;
        word[SLOT(w_next)] = WORD(w_next, SUBMITTED);
#endif
        d_step {
                if /* one that may be cancelled later, even too late: another thread's, for whom its deadline is over */
                :: has_mine -> skip
                :: else -> mine = w_next; has_mine = true
                fi;
                w_next = NEXT(w_next);
                w_unanswered++
        }
#if defined(WITHOUT_RINGING)
#elif defined(RING_LOOKS_BEFORE_IT_SUBMITS)
        d_step {
                if
                :: looked -> rung = true
                :: else
                fi;
                looked = false
        }
#else
        ring_if_armed()
#endif
}

inline note_cancelled() {
        never(cancelled_another, word[SLOT(mine)] != WORD(mine, SUBMITTED) && word[SLOT(mine)] >> 2 != mine);
        word[SLOT(mine)] = (word[SLOT(mine)] & ~3) | CANCELLED;
        never(sent_though_cancelled, may_have_run[mine]);
        never_sent[mine] = true;
        w_unanswered--
}

inline lane_cancel() {
#if defined(CANCEL_BY_PLAIN_STORE)
        if
        :: word[SLOT(mine)] == WORD(mine, SUBMITTED) -> d_step { note_cancelled() }
        :: else
        fi;
        has_mine = false
#elif defined(CANCEL_WITHOUT_POSITION)
        d_step {
                if
                :: STATE(word[SLOT(mine)]) == SUBMITTED -> note_cancelled()
                :: else
                fi;
                has_mine = false;
                mine = 0
        }
#else
        d_step {
                if
                :: word[SLOT(mine)] == WORD(mine, SUBMITTED) -> note_cancelled()
                :: else
                fi;
                has_mine = false;
                mine = 0
        }
#endif
}

/* The completion that is there. */
inline lane_reap_and_release() {
        d_step {
                tag = answer[SLOT(w_reaped)];
                never(answered_twice, w_unanswered == 0 || tag == 0 || !may_have_run[tag - 1] || never_sent[tag - 1]);
                may_have_run[tag - 1] = false;
#ifdef UNANSWERED_UNTIL_READ_ONLY
                w_unanswered--
#endif
        }
#ifdef UNANSWERED_UNTIL_READ_ONLY
        if /* another thread submits meanwhile */
        :: CAN_SUBMIT -> lane_submit()
        :: true
        fi;
#endif
        d_step { never(bytes_of_another, area != tag); tag = 0 }
#ifdef RELEASE_LOOKS_BEFORE_IT_RELEASES
        looked = starved;
#endif
        d_step {
                w_reaped = NEXT(w_reaped);
                reaped = w_reaped;
#ifndef UNANSWERED_UNTIL_READ_ONLY
                w_unanswered--
#endif
        }
#if defined(RELEASE_LOOKS_BEFORE_IT_RELEASES)
        d_step {
                if
                :: looked -> rung = true
                :: else
                fi;
                looked = false
        }
#else
        d_step {
                if
                :: starved -> rung = true
                :: else
                fi
        }
#endif
}

inline lane_wait() {
        waiting = true;
        value = done;
#ifdef WAIT_WITHOUT_LOOKING_AGAIN
        futex_wait();
#else
        if
        :: IS_COMPLETED
        :: !IS_COMPLETED -> futex_wait()
        fi;
#endif
        d_step { waiting = false; value = 0 }
}

inline futex_wait() {
#ifdef FUTEX_WITHOUT_VALUE
        sleeping = true;
#else
        d_step {
                if
                :: done == value -> sleeping = true
                :: else
                fi
        }
#endif
        !sleeping
}

active proctype worker() {
        byte mine, tag, value;
        bool has_mine, looked;
        {
                do
                :: CAN_SUBMIT -> lane_submit()
                :: has_mine -> lane_cancel()
                :: IS_COMPLETED -> lane_reap_and_release()
                :: w_unanswered > 0 && !IS_COMPLETED -> lane_wait()
                :: break /* and does not come back */
                od
        } unless {
                !alive
        }
}

/* At any point, or never. */
active proctype death() {
        if
        :: d_step { alive = false; sleeping = false } died = true
        :: true
        fi
}

/* ---- Redis ------------------------------------------------------------------------------------------------------- */

active proctype redis() {
        byte whose;
        do
        :: atomic { sent?whose -> replies!whose; whose = 0 }
        :: break /* stopped: nobody hears of it */
        od
}

/* ---- the broker -------------------------------------------------------------------------------------------------- */

inline lane_take() {
        value = word[SLOT(b_next)];
        if
        :: value == WORD(b_next, SUBMITTED) ->
#ifdef TAKE_BY_PLAIN_STORE
                d_step { word[SLOT(b_next)] = WORD(b_next, TAKEN); value = TAKEN };
#else
                d_step {
                        if
                        :: word[SLOT(b_next)] == value -> word[SLOT(b_next)] = WORD(b_next, TAKEN); value = TAKEN
                        :: else -> never(honest_taken_for_bad, STATE(word[SLOT(b_next)]) != CANCELLED); value = CANCELLED
                        fi
                };
#endif
                if
                :: value == TAKEN ->
                        d_step {
                                never(honest_taken_for_bad, b_unanswered + DISTANCE(reaped, b_completed) >= 2);
                                never(sent_though_cancelled, never_sent[b_next]);
                                may_have_run[b_next] = true;
                                b_unanswered++
                        }
                        d_step { /* the bytes are copied, and sent */
                                never(bytes_of_another, bytes[SLOT(b_next)] != b_next + 1);
                                sent!b_next;
                                in_flight!b_next
                        }
                :: else
                fi;
                d_step { value = 0; busy = true; b_next = NEXT(b_next); taken = b_next }
        :: value == WORD(b_next, CANCELLED) -> d_step { value = 0; busy = true; b_next = NEXT(b_next); taken = b_next }
        :: else -> value = 0
        fi
}

/* kept: the tag of the reply to be delivered. */
inline publish() {
#ifdef WAKE_LOOKS_BEFORE_COMPLETION
        looked = waiting;
#endif
        d_step { area = kept + 1; answer[SLOT(b_completed)] = kept + 1 }
        d_step {
                reply[SLOT(b_completed)] = b_completed + 1;
                b_completed = NEXT(b_completed);
                b_unanswered--;
                b_kept = false;
                kept = 0;
                busy = true;
                untold = true
        }
}

inline lane_complete() {
        if
        :: HAS_ROOM -> starved = false; publish()
        :: !HAS_ROOM ->
                starved = true;
#ifdef STARVED_WITHOUT_LOOKING_AGAIN
                skip
#else
                if
                :: HAS_ROOM -> starved = false; publish()
                :: !HAS_ROOM
                fi
#endif
        fi
}

/* The next reply belongs to whose command was sent first: thrown away, if nobody is there any more. */
inline read_reply() {
        d_step {
                replies?kept;
                never(reply_of_another, empty(in_flight));
                in_flight?value;
                never(reply_of_another, kept != value);
                b_kept = kept != ANOTHER && !gone;
                try = b_kept;
                if
                :: b_kept -> skip
                :: else -> kept = 0
                fi;
                busy = true;
                value = 0
        }
}

inline lane_wake() {
        done++;
        d_step {
                if
#ifdef WAKE_LOOKS_BEFORE_COMPLETION
                :: looked -> sleeping = false
#else
                :: waiting -> sleeping = false
#endif
                :: else
                fi;
                looked = false;
                untold = false
        }
}

/* What is in flight stays in the queue: its reply comes, and is nobody's. */
inline bury() {
        d_step {
                died = false;
#ifndef WITHOUT_BURIAL
                gone = true;
                busy = true;
                b_kept = false;
                kept = 0;
                untold = false;
                b_unanswered = 0;
#endif
#ifdef BURIAL_EMPTIES_THE_QUEUE
                do
                :: in_flight??[0] -> in_flight??0
                :: in_flight??[1] -> in_flight??1
                :: in_flight??[2] -> in_flight??2
                :: else -> break
                od
#endif
        }
}

inline look_at_all() {
        busy = false;
        if
        :: !gone && !b_kept -> lane_take()
        :: else
        fi;
        if
        :: b_kept && try -> lane_complete(); try = false
        :: b_kept && !try
        :: !b_kept && nempty(replies) -> read_reply()
        :: !b_kept && empty(replies)
        fi;
        if
        :: untold -> lane_wake()
        :: else
        fi
}

/* Until something happens that it watches. */
inline block() {
        if
        :: d_step { rung -> rung = false; try = b_kept }
        :: nempty(replies) && !b_kept
        :: died
        fi;
        armed = false
}

active proctype broker() {
        byte value, kept, others;
        bool busy, untold, looked, try;
        do
        :: look_at_all();
           if /* another session's command, on the same connection */
           :: others < 1 -> d_step { sent!ANOTHER; in_flight!ANOTHER; others++; busy = true }
           :: true
           fi;
           if
           :: died -> bury()
           :: !died
           fi;
           if
           :: busy -> armed = false
#if defined(ARM_WITHOUT_LOOKING_AGAIN)
           :: !busy -> armed = true; block()
#else
#if defined(ARM_ONLY_WHEN_NOTHING_IS_IN_FLIGHT)
           :: !busy && !armed && nempty(in_flight) -> block()
           :: !busy && !armed && empty(in_flight) -> armed = true
#else
           :: !busy && !armed -> armed = true /* and looks once more */
#endif
           :: !busy && armed -> block()
#endif
           fi
        od
}

/* Nothing goes on any more. */
active proctype monitor() {
        timeout ->
        d_step {
                never(submission_not_seen, alive && !b_kept && word[SLOT(b_next)] == WORD(b_next, SUBMITTED));
                never(worker_not_woken, alive && sleeping && IS_COMPLETED);
                never(room_not_seen, alive && b_kept && HAS_ROOM);
                never(left_with_the_dead, !alive && (!gone || b_kept || b_unanswered > 0))
        }
}

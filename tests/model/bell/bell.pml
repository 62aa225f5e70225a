/* SPDX-License-Identifier: MIT */
/*
 * The two bells of a lane (libclient/base/lane.h, broker/lanes.c): the data thread's own, and the lane's, by which a quiet
 * lane says that it is not looked at. Two threads of one worker submit to it, and remember for which bells they have rung;
 * the broker looks at its active lanes, makes this one quiet, sleeps, and is woken by other things as well. One of the
 * threads may be held up for ever wherever it has no lock. What must hold: see ../README.md. Each of the macros that `run`
 * defines takes one essential step away, or does it wrongly.
 *
 * A statement, an atomic or a d_step is what a thread does in one go: at most one access to what both sides share, and with
 * it what only this thread knows, what only the model notes, or a system call. Between any two of them anything may happen.
 */

#define SUBMISSIONS 3 /* of both threads together */
#define OTHERS 1      /* so often something else wakes the broker */

/* Shared memory. */
byte submitted;   /* submissions below this position are published */
byte bell, quiet; /* 0, or the number of the arming */

/* The kernel's. */
bool rung; /* the doorbell, as an edge */

/* The worker's own. */
byte rung_bell, rung_quiet; /* as both stood when it was rung last: one word, accessed in one go */
byte saw_bell[2], saw_quiet[2]; /* by its threads */
bool locked;

/* What the model notes. */
byte seen;              /* submissions below it, by the broker */
bool done[SUBMISSIONS]; /* its thread goes its way: it has rung, or need not */
bool asleep, is_active = true;

/* What must never be, by names that a report of spin shows. */
bool submission_not_seen;
#define never(name, condition)                                                                                         \
        name = (condition);                                                                                            \
        assert(!name)

/* ---- the worker -------------------------------------------------------------------------------------------------- */

#if defined(RUNG_FOR_THE_THREADS_BELL_ONLY)
#define HAS_RUNG (saw_bell[me] == rung_bell)
#else
#define HAS_RUNG (saw_bell[me] == rung_bell && saw_quiet[me] == rung_quiet)
#endif

inline look_at_bells() {
        saw_bell[me] = bell;
#ifdef LOOKS_AT_THE_THREADS_BELL_ONLY
        skip
#else
        saw_quiet[me] = quiet
#endif
}

inline ring() {
#if defined(WITHOUT_RINGING)
        skip
#elif defined(REMEMBERED_BEFORE_IT_RINGS)
        d_step { rung_bell = saw_bell[me]; rung_quiet = saw_quiet[me] };
        if
        :: may_be_held_up -> goto held_up
        :: true
        fi;
        rung = true
#else
        if
        :: may_be_held_up -> goto held_up
        :: true
        fi;
        rung = true;
        d_step { rung_bell = saw_bell[me]; rung_quiet = saw_quiet[me] }
#endif
}

/* With the lock, which it gives back. */
inline submit() {
#ifdef RING_LOOKS_BEFORE_IT_SUBMITS
        look_at_bells();
        d_step { mine = submitted; submitted++ };
#else
        d_step { mine = submitted; submitted++ };
        look_at_bells();
#endif
        d_step { must_ring = (saw_bell[me] != 0 || saw_quiet[me] != 0) && !HAS_RUNG; locked = false };
        if
        :: must_ring -> ring()
        :: !must_ring
        fi;
        d_step { done[mine] = true; mine = 0; saw_bell[me] = 0; saw_quiet[me] = 0; must_ring = false }
}

proctype worker(bit me; bool may_be_held_up) {
        byte mine;
        bool must_ring;
        do
        :: d_step { !locked && submitted < SUBMISSIONS -> locked = true } submit()
        :: break
        od;
held_up:
        skip
}

/* ---- the broker -------------------------------------------------------------------------------------------------- */

/* The code counts. All that matters is that nobody knows the number, and so the model takes the least of those. */
#ifdef ARMED_BY_A_FLAG
#define arm(which) which = 1
#else
#define arm(which)                                                                                                     \
        number = 1;                                                                                                    \
        do                                                                                                             \
        :: number == which || number == saw_##which[0] || number == saw_##which[1] || number == rung_##which ->        \
                number++                                                                                               \
        :: else -> break                                                                                               \
        od;                                                                                                            \
        which = number;                                                                                                \
        number = 0
#endif

/* At the lane, if it is active. */
inline look() {
        d_step {
                busy = is_active && seen < submitted;
                if
                :: busy -> seen++
                :: else
                fi
        }
}

/* Nothing was there for a while. */
inline hush() {
#if defined(QUIET_WITHOUT_LOOKING_AGAIN)
        d_step { arm(quiet); is_active = false }
#elif defined(QUIET_AFTER_THE_LAST_LOOK)
        more = seen < submitted;
        if
        :: !more -> d_step { arm(quiet); is_active = false }
        :: more -> more = false
        fi
#else
        d_step { arm(quiet); is_active = false };
        more = seen < submitted;
        if
        :: more -> d_step { more = false; quiet = 0; is_active = true }
        :: !more
        fi
#endif
}

inline answer_doorbell() {
        rung = false; /* the event is taken */
#ifndef QUIET_THOUGH_IT_WAS_RUNG
        d_step { is_active = true; quiet = 0 }
#endif
}

inline sleep_until_something_happens() {
        asleep = true;
        if
        :: rung -> asleep = false; answer_doorbell()
        :: others < OTHERS -> d_step { asleep = false; others++ }
        fi;
        bell = 0
}

active proctype broker() {
        byte number, others;
        bool busy, more;
        run worker(0, true);
        run worker(1, false);
        do
        :: look();
           if
           :: busy -> /* goes on polling */
                if
                :: rung -> answer_doorbell()
                :: !rung
                fi
           :: !busy ->
                if
                :: is_active -> hush()
                :: true
                fi;
                d_step { arm(bell) };
#ifndef ARM_WITHOUT_LOOKING_AGAIN
                more = is_active && seen < submitted;
#endif
                if
                :: more -> d_step { more = false; bell = 0 }
                :: !more -> sleep_until_something_happens()
                fi
           fi
        od
}

/* Nothing goes on any more. Only he is not seen who is held up before he has rung, and after whom nobody has submitted. */
#define IS_FORGOTTEN(p) (seen <= (p) && (p) < submitted && done[p])
active proctype monitor() {
        timeout ->
        d_step { never(submission_not_seen, asleep && (IS_FORGOTTEN(0) || IS_FORGOTTEN(1) || IS_FORGOTTEN(2))) }
}

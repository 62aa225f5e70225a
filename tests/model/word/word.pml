/* SPDX-License-Identifier: MIT */
/*
 * The lease word (libclient/base/word.h) of one connection: two threads of one worker process, the broker, callers of
 * other processes, the worker process' death at any point, a revocation. What must hold, and what is left out: see
 * ../README.md. Each of the macros that `run` defines takes one essential step away, or does it wrongly.
 *
 * A statement, an atomic or a d_step is what a thread does in one go: at most one instruction on the word, and with it
 * what only this thread knows, what only the model notes, or a message. Between any two of them anything may happen.
 */

/* State, WANTED, generation and sequence as in word.h; the latter of two bits and of one: it wraps all the time. */
#define VACANT 0
#define HELD 1
#define PARKED 2
#define WANTED 4
#define STATE(w) ((w) & 3)
#define IS_WANTED(w) (((w) & WANTED) != 0)
#define GENERATION(w) (((w) >> 3) & 3)
#define AS_VACANT(w) ((w) & 56)
#define AS_OTHER(w) ((w) ^ (HELD ^ PARKED))
#define NEXT_SEQUENCE(w) (((w) & 32) ^ 32)
byte word = VACANT;

#ifdef SEPARATE_FLAG
bool flag;
#endif

mtype = { LEASE, RETURN, CANCEL, DIED, GRANTED, CANCELLED };
#define OUTSIDER 2                           /* a caller of another process; the threads are 0 and 1 */
chan mailbox = [3] of { mtype, byte, byte }; /* to the broker: kind, whose, generation */
chan granted[2] = [1] of { byte };           /* to a thread: the value of its lease */
chan answered = [1] of { mtype };            /* to the outsider */

/* The broker's own. */
mtype = { FREE, OURS, THEIRS };
mtype owner = FREE; /* the ledger: nobody's, the worker process', the outsider's */
byte generation = 0;
bool called; /* WANTED stands in the word */
bool gone;   /* the worker process is known to be dead */
chan queue = [3] of { byte };

/* What the model notes. */
bool alive = true;
bool waiting[3]; /* by caller: asked, and waits as long as it takes */
byte holds[3];   /* by caller: 0, or 1 + the generation of the socket that it has to itself, as it believes */

/* What must never be, by names that a report of spin shows. */
bool held_by_two, retaken_after_recall, honest_taken_for_bad, wanted_by_nobody, left_with_the_dead;
#define never(name, condition)                                                                                         \
        name = (condition);                                                                                            \
        assert(!name)

/* The socket of an earlier generation has been cut off: who still holds that does nobody harm. */
#define CLASH(a, b) (holds[a] != 0 && holds[a] == holds[b])
inline take(who, its_generation) {
        holds[who] = its_generation + 1;
        never(held_by_two, CLASH(0, 1) || CLASH(0, 2) || CLASH(1, 2))
}

/* ---- the worker -------------------------------------------------------------------------------------------------- */

#define me _pid /* the threads are the first two processes */

#if defined(RETAKE_IGNORES_WANTED)
#define RETAKABLE(w) (STATE(w) == PARKED)
#elif defined(SEPARATE_FLAG)
#define RETAKABLE(w) (STATE(w) == PARKED && !flag)
#else
#define RETAKABLE(w) (STATE(w) == PARKED && !IS_WANTED(w))
#endif

#ifdef RETAKE_BY_PLAIN_STORE
#define RETAKE_COMPARE(w, value) true
#else
#define RETAKE_COMPARE(w, value) ((w) == (value))
#endif

/* held stays 0 if it fails. */
inline word_retake() {
        d_step {
                if
                :: RETAKABLE(word) -> value = word
                :: else
                fi
        }
        d_step {
                if
                :: value != 0 && RETAKE_COMPARE(word, value) ->
                        held = HELD | (value & 24) | NEXT_SEQUENCE(value);
                        word = held | (value & WANTED);
                        never(retaken_after_recall, owner != OURS);
                        take(me, GENERATION(held))
                :: else
                fi;
                value = 0
        }
}

/* held becomes 0 if the grant does not stand any more. */
inline word_accept() {
#ifdef ACCEPT_WHAT_THE_WORD_SAYS
        if
        :: STATE(word) == HELD -> held = word & ~WANTED
        :: else
        fi;
#endif
        if
        :: (word & ~WANTED) == held -> take(me, GENERATION(held))
        :: else -> held = 0
        fi
}

#if defined(PARK_WHOEVER_HOLDS)
#define PARKABLE(w) (STATE(w) == HELD && !IS_WANTED(w))
#elif defined(PARK_IGNORES_WANTED)
#define PARKABLE(w) (((w) & ~WANTED) == held)
#else
#define PARKABLE(w) ((w) == held)
#endif

/* held becomes 0 unless the lease must be returned by a message. */
inline word_park() {
#if defined(PARK_BY_PLAIN_STORE)
        d_step { holds[me] = 0; value = word }
        d_step {
                if
                :: value == held -> word = AS_OTHER(held); held = 0
                :: value == (held | WANTED)
                :: else -> held = 0
                fi;
                value = 0
        }
#elif defined(SEPARATE_FLAG)
        d_step { holds[me] = 0; value = flag }
        d_step {
                if
                :: value == 0 && word == held -> word = AS_OTHER(held); held = 0
                :: value == 0 && word != held -> held = 0
                :: value != 0
                fi;
                value = 0
        }
#else
        d_step {
                holds[me] = 0;
                if
                :: PARKABLE(word) -> word = AS_OTHER(word); held = 0
                :: !PARKABLE(word) && word == (held | WANTED)
                :: else -> held = 0
                fi
        }
#endif
}

active [2] proctype thread() {
        byte value, held;
        {
                do
                :: word_retake();
                   if
                   :: held != 0
                   :: atomic { held == 0 -> mailbox!LEASE(me, 0); waiting[me] = true }
                      atomic { granted[me]?held; waiting[me] = false; word_accept() }
                   fi;
                   if
                   :: held != 0 -> word_park()
                   :: held == 0
                   fi;
                   if
                   :: atomic { held != 0 -> mailbox!RETURN(me, GENERATION(held)); held = 0 }
                   :: held == 0
                   fi
                :: break /* and does not come back: what it has parked stays parked */
                od
        } unless {
                !alive
        }
}

/* At any point, or never. The broker hears of it after the dead process' messages, or before. */
active proctype death() {
        if
        :: d_step { alive = false; holds[0] = 0; holds[1] = 0 } mailbox!DIED(0, 0)
        :: true
        fi
}

/* ---- other processes --------------------------------------------------------------------------------------------- */

active proctype outsider() {
        do
        :: atomic { mailbox!LEASE(OUTSIDER, 0); waiting[OUTSIDER] = true }
           atomic { answered?GRANTED; waiting[OUTSIDER] = false; take(OUTSIDER, generation) }
           atomic { holds[OUTSIDER] = 0; mailbox!RETURN(OUTSIDER, 0) }
        :: mailbox!LEASE(OUTSIDER, 0); /* and gives up waiting */
           mailbox!CANCEL(OUTSIDER, 0);
           if
           :: answered?CANCELLED
           :: answered?GRANTED -> mailbox!RETURN(OUTSIDER, 0)
           fi
        :: break
        od
}

/* ---- the broker -------------------------------------------------------------------------------------------------- */

inline ask_and_look() {
        word = word | WANTED;
        value = word;
        d_step {
                never(honest_taken_for_bad, !IS_WANTED(value) || GENERATION(value) != generation);
                if
                :: STATE(value) == HELD -> called = true
                :: else -> /* what is wanted stays as it is: the compare cannot fail */
                        never(honest_taken_for_bad, STATE(value) != PARKED || word != value);
                        word = AS_VACANT(value);
                        owner = FREE
                fi;
                value = 0
        }
}

inline word_recall() {
#if defined(RECALL_LOOKS_AT_PARKED_ONLY)
        value = word;
        d_step {
                if
                :: STATE(value) == PARKED && word == value -> word = AS_VACANT(value); owner = FREE
                :: else -> called = true
                fi;
                value = 0
        }
#elif defined(RECALL_LOOKS_BEFORE_IT_ASKS)
        value = word;
        d_step {
                if
                :: STATE(value) == PARKED && word == value -> word = AS_VACANT(value); owner = FREE
                :: else -> word = word | WANTED; called = true
                fi;
                value = 0
        }
#elif defined(SEPARATE_FLAG)
        flag = true;
        value = word;
        d_step {
                if
                :: STATE(value) == PARKED && word == value -> word = AS_VACANT(value); owner = FREE
                :: else -> called = true
                fi;
                value = 0
        }
#elif defined(RECALL_BY_PLAIN_STORE)
        value = word;
        if
        :: STATE(value) == PARKED -> d_step { word = AS_VACANT(value); owner = FREE; value = 0 }
        :: else -> ask_and_look()
        fi
#else
        ask_and_look()
#endif
}

inline word_unwant() {
#if defined(WITHOUT_UNWANT)
        called = false
#elif defined(SEPARATE_FLAG)
        d_step { flag = false; called = false }
#else
        value = word;
        d_step {
                if
                :: STATE(value) == HELD && IS_WANTED(value) && GENERATION(value) == generation && word == value ->
                        word = value & ~WANTED
                :: else
                fi;
                called = false;
                value = 0
        }
#endif
}

/* A free connection goes to who is first. */
inline give() {
        atomic {
                queue?who;
                if
                :: who == OUTSIDER -> owner = THEIRS; answered!GRANTED
                :: else ->
                        never(honest_taken_for_bad, STATE(word) != VACANT || IS_WANTED(word));
                        word = HELD | (generation << 3) | NEXT_SEQUENCE(word);
                        owner = OURS;
#ifdef SEPARATE_FLAG
                        flag = false;
#endif
#ifdef WITHOUT_RECALL_AFTER_GRANT
                        called = len(queue) > 0;
#endif
                        granted[who]!word
                fi;
                who = 0
        }
}

/* The worker process' lease is over. */
inline end_lease() {
#ifdef WITHOUT_VACATE
        owner = FREE;
#else
        word = AS_VACANT(word);
        owner = FREE;
#endif
        called = false
}

#ifdef RETURN_IS_BELIEVED
#define IS_HIS_LEASE(its_generation) (owner == OURS && !gone)
#else
#define IS_HIS_LEASE(its_generation) (owner == OURS && !gone && (its_generation) == generation)
#endif

inline bury() {
        gone = true;
        do
        :: queue??[0] -> queue??0
        :: queue??[1] -> queue??1
        :: !queue??[0] && !queue??[1] -> break
        od;
#ifndef WITHOUT_RECLAIM
        if
        :: owner == OURS -> generation++; end_lease()
        :: owner != OURS
        fi
#endif
}

/* Messages of a lease that the broker has ended, and of the dead, count for nothing. */
inline hear() {
        if
#ifdef BARGING
        :: kind == LEASE && (who == OUTSIDER || !gone) -> queue!!who /* the lowest number first */
#else
        :: kind == LEASE && (who == OUTSIDER || !gone) -> queue!who
#endif
        :: kind == LEASE && who != OUTSIDER && gone
        :: kind == RETURN && who == OUTSIDER -> owner = FREE
        :: kind == RETURN && who != OUTSIDER && IS_HIS_LEASE(its_generation) -> end_lease()
        :: kind == RETURN && who != OUTSIDER && !IS_HIS_LEASE(its_generation)
        :: kind == CANCEL && queue??[OUTSIDER] -> queue??OUTSIDER; answered!CANCELLED
        :: kind == CANCEL && !queue??[OUTSIDER] /* it has its answer */
        :: kind == DIED -> bury()
        fi;
        kind = 0;
        who = 0;
        its_generation = 0
}

/* What is free is given; while others wait, what is leased is wanted; and no longer. */
#define CAN_GIVE (owner == FREE && len(queue) > 0)
#define MUST_RECALL (owner == OURS && len(queue) > 0 && !called)
#define MUST_UNWANT (owner == OURS && len(queue) == 0 && called)

active proctype broker() {
        mtype kind;
        byte who, its_generation, value;
        bool revoked;
        do
        :: CAN_GIVE -> give()
        :: MUST_RECALL -> word_recall()
        :: MUST_UNWANT -> word_unwant()
        :: !CAN_GIVE && !MUST_RECALL && !MUST_UNWANT ->
                d_step {
                        never(wanted_by_nobody, owner == OURS && len(queue) == 0 && IS_WANTED(word));
                        never(left_with_the_dead, owner == OURS && gone)
                }
end_of_turn:    if
                :: atomic { mailbox?kind(who, its_generation) -> hear() }
                :: atomic { mailbox??DIED(0, 0) -> bury() }
#ifndef WITHOUT_REVOCATION
                :: atomic { owner == OURS && !revoked -> /* held for too long */
                        revoked = true;
                        generation++;
                        end_lease()
                   }
#endif
                fi
        od
}

/* If those who hold release (weak fairness: who can go on goes on), nobody waits for ever. */
ltl outsider_is_served { [](waiting[OUTSIDER] -> <>(!waiting[OUTSIDER])) }
ltl thread_is_served { [](waiting[0] -> <>(!waiting[0] || !alive)) }

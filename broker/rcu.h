/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * liburcu, memb flavour, in one place. ThreadSanitizer does not understand liburcu 0.13's own barriers: what they order is
 * told to it here, by the address handed over, and compiles to nothing otherwise.
 *
 * memb and not QSBR: libevent has no hook around its wait at which a thread could be reported quiescent.
 */
#ifdef __SANITIZE_THREAD__
#define LESSOR_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define LESSOR_TSAN 1
#endif
#endif

#define RCU_MEMBARRIER
#include <urcu.h>
#include <urcu/rculfhash.h>
#include <urcu/wfcqueue.h>

#ifdef LESSOR_TSAN
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#define rcu_handover(address) __tsan_release((void *)(uintptr_t)(address))
#define rcu_takeover(address) __tsan_acquire((void *)(uintptr_t)(address))
#else
#define rcu_handover(address) ((void)(address))
#define rcu_takeover(address) ((void)(address))
#endif

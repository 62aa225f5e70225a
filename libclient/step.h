/* SPDX-License-Identifier: MIT */
#pragma once
/*
 * Named steps on the way of a lease. Nothing at all, but in a build for tests (LESSOR_STEPS), where a process dies at each
 * of them: see tests/steps.
 */
#ifdef LESSOR_STEPS
void lessor_step(const char *name);
#define STEP(name) lessor_step(name)
#else
#define STEP(name) ((void)0)
#endif

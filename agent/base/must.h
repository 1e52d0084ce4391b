/*
 * must.h - memory that cannot be done without: a message between threads, positions that were collected. Whoever needs it
 * waits; the bytes to ship are in their files meanwhile.
 *
 *     struct must must = { 0 };
 *     while (vec_reserve(&v, size) < 0)
 *         must_wait(&must);
 *
 * Waits 100 ms and returns; says memory.exhausted once. After MUST_NS, or when the process is to end, it ends by abort():
 * a restart loses nothing.
 * Threads: any.
 */
#ifndef TAILRACE_BASE_MUST_H
#define TAILRACE_BASE_MUST_H

#include <stddef.h>

#include "agent/base/macros.h"

#define MUST_NS (30 * NS_PER_SEC)

struct must {
    unsigned tries;
};

void must_wait(struct must *must);
void *must_alloc(size_t bytes); /* zeroed, never NULL */
char *must_dup(const char *text); /* for free(); never NULL */
void must_not_wait(void); /* the process is to end */

#endif

/*
 * guard.h - bytes that end flush against an unreadable page: one byte too far crashes.
 */
#ifndef TAILRACE_TESTS_PARSERS_GUARD_H
#define TAILRACE_TESTS_PARSERS_GUARD_H

#include <assert.h>
#include <stdint.h>
#include <sys/mman.h>

#include "agent/base/slice.h"

#define GUARD_BYTES ((size_t)64 * 1024)

static char *guard_page; /* the first unreadable byte */

static inline void guard_open(void)
{
    char *p = mmap(NULL, GUARD_BYTES + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert(p != MAP_FAILED);
    guard_page = p + GUARD_BYTES;
    int r = mprotect(guard_page, 4096, PROT_NONE);
    assert(r == 0);
}

static inline void guard_close(void)
{
    (void)munmap(guard_page - GUARD_BYTES, GUARD_BYTES + 4096);
}

static inline struct slice guard_put(struct slice s)
{
    assert(s.len <= GUARD_BYTES);
    char *p = guard_page - s.len;
    if (s.len > 0)
        memmove(p, s.ptr, s.len);
    return slice_of(p, s.len);
}

#endif

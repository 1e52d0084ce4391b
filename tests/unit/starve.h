/*
 * starve.h - allocations that fail: of those of this thread while starve.is_on, the starve.at-th, counted from 1.
 *
 * For programs that are linked with --wrap (UNIT_LDFLAGS_… in the Makefile). Defines the wrappers: one test includes it once.
 */
#ifndef TAILRACE_TESTS_STARVE_H
#define TAILRACE_TESTS_STARVE_H

#include <libdeflate.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>
#include <zlib.h>

static struct {
    long at, n; /* at 0: none fails */
} starve;
static _Thread_local bool starve_is_on;

static bool starve_strikes(void)
{
    return starve_is_on && ++starve.n == starve.at;
}

/* True: there was an at-th, so the next run is to let a later one fail. */
static inline bool starve_was_reached(void)
{
    return starve.n >= starve.at;
}

static inline void starve_from(long at)
{
    starve.at = at;
    starve.n = 0;
}

#define STARVE(type, name, params, args, failed)                                                             \
    type __real_##name params;                                                                               \
    type __wrap_##name params;                                                                               \
    type __wrap_##name params                                                                                \
    {                                                                                                        \
        return starve_strikes() ? failed : __real_##name args;                                               \
    }

STARVE(void *, malloc, (size_t n), (n), NULL)
STARVE(void *, calloc, (size_t n, size_t size), (n, size), NULL)
STARVE(void *, realloc, (void *p, size_t n), (p, n), NULL)
STARVE(char *, strdup, (const char *s), (s), NULL)
STARVE(struct libdeflate_compressor *, libdeflate_alloc_compressor, (int level), (level), NULL)
STARVE(struct libdeflate_decompressor *, libdeflate_alloc_decompressor, (void), (), NULL)
/* Whoever waits for memory (agent/base/must.h) has it at once. */
int __real_nanosleep(const struct timespec *time, struct timespec *left);
int __wrap_nanosleep(const struct timespec *time, struct timespec *left);
int __wrap_nanosleep(const struct timespec *time, struct timespec *left)
{
    return starve_is_on ? 0 : __real_nanosleep(time, left);
}

STARVE(int, inflateInit2_, (z_streamp z, int bits, const char *version, int size), (z, bits, version, size), Z_MEM_ERROR)

#endif

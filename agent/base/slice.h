/*
 * slice.h - borrowed bytes. A slice never owns; it may hold any byte, NUL included, and has no terminator.
 */
#ifndef TAILRACE_BASE_SLICE_H
#define TAILRACE_BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "agent/base/macros.h"

struct slice {
    const char *ptr;
    size_t len;
};

/* For initialisers and for expressions, from a string literal. */
#define SLICE_INIT(lit)       \
    {                         \
        (lit), sizeof(lit) - 1 \
    }
#define SLICE(lit) ((struct slice)SLICE_INIT(lit))
/* For printf("%.*s"): SLICE_ARGS(s). */
#define SLICE_ARGS(s) (int)(s).len, (s).ptr

static inline struct slice slice_of(const void *ptr, size_t len)
{
    return (struct slice){ (const char *)ptr, len };
}

/* From a C string of our own (never from input); NULL gives the empty slice. */
static inline struct slice slice_cstr(const char *s)
{
    return s == NULL ? (struct slice){ "", 0 } : (struct slice){ s, strlen(s) };
}

static inline bool slice_eq(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static inline bool slice_starts(struct slice s, struct slice prefix)
{
    return s.len >= prefix.len && (prefix.len == 0 || memcmp(s.ptr, prefix.ptr, prefix.len) == 0);
}

static inline bool slice_ends(struct slice s, struct slice suffix)
{
    return s.len >= suffix.len &&
           (suffix.len == 0 || memcmp(s.ptr + (s.len - suffix.len), suffix.ptr, suffix.len) == 0);
}

/* The part from off on; off beyond the end gives the empty slice. */
static inline struct slice slice_from(struct slice s, size_t off)
{
    size_t o = MIN(off, s.len);
    return (struct slice){ o == 0 ? s.ptr : s.ptr + o, s.len - o }; /* the empty slice may have no address at all */
}

static inline struct slice slice_first(struct slice s, size_t len)
{
    return (struct slice){ s.ptr, MIN(len, s.len) };
}

bool slice_ieq(struct slice a, struct slice b);                 /* ASCII case-insensitive */
int slice_cmp(struct slice a, struct slice b);                  /* bytewise order, shorter first */
ptrdiff_t slice_find_byte(struct slice s, char c);              /* -1 = not there */
ptrdiff_t slice_rfind_byte(struct slice s, char c);
ptrdiff_t slice_find(struct slice s, struct slice needle);      /* -1 = not there */
struct slice slice_trim(struct slice s);                        /* ASCII blanks at both ends */
uint64_t slice_hash(struct slice s);                            /* fast, not for adversaries' tables; stable in a process */

/* Decimal digits only, the whole slice; false on empty, other bytes or overflow. */
NODISCARD bool slice_to_u64(struct slice s, uint64_t *ret_value);
NODISCARD bool slice_to_i64(struct slice s, int64_t *ret_value);

/* '*' any run, '?' one byte, '[abc]' '[a-z]' '[!x]' classes, '\' quotes; over the whole slice. Linear in s
 * for one '*', never exponential. */
bool slice_glob(struct slice pattern, struct slice s);

/* Length of the longest valid UTF-8 prefix. == len means all of it is valid. */
size_t slice_utf8_valid(struct slice s);

/* A malloc'd, NUL-terminated copy; the caller frees. NULL when out of memory. */
char *slice_dup(struct slice s);

#endif

/*
 * buf.h - a growing byte buffer that was told its maximum at birth, and the account its memory is counted in.
 *
 * Owns:   its heap memory; the struct lives in the caller's storage (_init/_deinit).
 * Errors: -ENOBUFS when max would be passed, -ENOMEM when malloc fails. The content is then as before the call.
 */
#ifndef TAILRACE_BASE_BUF_H
#define TAILRACE_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

#include "agent/base/budget.h"
#include "agent/base/slice.h"

struct buf {
    char *ptr;
    size_t len;
    size_t cap;
    uint32_t max;    /* 4 GiB at most */
    uint8_t account; /* that cap is counted in, wherever the struct is moved to; 0 = none */
};

/* No allocation yet. */
static inline void buf_init_in(struct buf *b, size_t max, uint8_t account)
{
    *b = (struct buf){ .max = (uint32_t)MIN(max, (size_t)UINT32_MAX), .account = account };
}
static inline void buf_init(struct buf *b, size_t max)
{
    buf_init_in(b, max, 0);
}

void buf_deinit(struct buf *b); /* zeroed and deinitialised are fine */

/* Forgets the content and keeps the memory. */
static inline void buf_reset(struct buf *b)
{
    b->len = 0;
}

static inline struct slice buf_slice(const struct buf *b)
{
    return (struct slice){ b->ptr, b->len };
}

NODISCARD int buf_grow(struct buf *b, size_t more); /* the slow half of buf_reserve */

/* Afterwards cap - len >= more. */
NODISCARD static inline int buf_reserve(struct buf *b, size_t more)
{
    return b->cap - b->len >= more ? 0 : buf_grow(b, more);
}

NODISCARD static inline int buf_append(struct buf *b, const void *ptr, size_t len)
{
    int r = buf_reserve(b, len);
    if (r < 0)
        return r;
    if (len > 0)
        memcpy(b->ptr + b->len, ptr, len);
    b->len += len;
    return 0;
}

NODISCARD static inline int buf_append_slice(struct buf *b, struct slice s)
{
    return buf_append(b, s.ptr, s.len);
}

NODISCARD static inline int buf_append_byte(struct buf *b, char c)
{
    return buf_append(b, &c, 1);
}

#define buf_append_lit(b, lit) buf_append((b), (lit), sizeof(lit) - 1)

NODISCARD int buf_append_cstr(struct buf *b, const char *s);
NODISCARD int buf_append_u64(struct buf *b, uint64_t v);
NODISCARD int buf_append_i64(struct buf *b, int64_t v);
NODISCARD int buf_append_fill(struct buf *b, char c, size_t count);

/* The content of a JSON string, without the quotes; bytes that are not UTF-8 become U+FFFD, control bytes \u00XX. */
NODISCARD int buf_append_json_escaped(struct buf *b, struct slice s);
/* The same, with the quotes. */
NODISCARD int buf_append_json_string(struct buf *b, struct slice s);

NODISCARD int buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Keeps the tail: removes the first n bytes. */
void buf_consume(struct buf *b, size_t n);

/* Gives memory above keep bytes back to the system; the content must fit in keep. */
void buf_shrink(struct buf *b, size_t keep);

/* NUL behind the content, not counted in len: for C interfaces. */
NODISCARD int buf_terminate(struct buf *b);

#endif

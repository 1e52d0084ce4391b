#include "agent/base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define BUF_CAP_MIN 64
/* Smaller ones double; larger ones grow by half, so that not half of a large one is air. */
#define BUF_DOUBLING_MAX (64 * KIB)

void buf_deinit(struct buf *b)
{
    budget_add(b->account, -(int64_t)b->cap);
    free(b->ptr);
    *b = (struct buf){ .max = b->max, .account = b->account };
}

int buf_grow(struct buf *b, size_t more)
{
    size_t need;
    if (__builtin_add_overflow(b->len, more, &need) || need > b->max)
        return -ENOBUFS;
    size_t cap = MAX(b->cap, (size_t)BUF_CAP_MIN);
    while (cap < need)
        cap += cap < BUF_DOUBLING_MAX ? cap : cap / 2; /* need is below 4 GiB */
    cap = MAX(MIN(cap, (size_t)b->max), need);
    char *ptr = realloc(b->ptr, cap);
    if (ptr == NULL)
        return -ENOMEM;
    budget_add(b->account, (int64_t)(cap - b->cap));
    b->ptr = ptr;
    b->cap = cap;
    return 0;
}

int buf_append_cstr(struct buf *b, const char *s)
{
    return buf_append(b, s, strlen(s));
}

int buf_append_u64(struct buf *b, uint64_t v)
{
    char digits[20];
    size_t n = sizeof(digits);
    do {
        digits[--n] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    return buf_append(b, digits + n, sizeof(digits) - n);
}

int buf_append_i64(struct buf *b, int64_t v)
{
    if (v >= 0)
        return buf_append_u64(b, (uint64_t)v);
    size_t before = b->len;
    int r = buf_append_byte(b, '-');
    if (r == 0)
        r = buf_append_u64(b, 0 - (uint64_t)v);
    if (r < 0)
        b->len = before;
    return r;
}

int buf_append_fill(struct buf *b, char c, size_t count)
{
    int r = buf_reserve(b, count);
    if (r < 0)
        return r;
    if (count > 0)
        memset(b->ptr + b->len, c, count);
    b->len += count;
    return 0;
}

/* Of plain_run(), whole steps of 16 bytes of plain ASCII. */
static size_t ascii_run(const char *p, size_t n)
{
    size_t i = 0;
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), blank = _mm_set1_epi8(' ');
    for (; n - i >= 16; i += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
        __m128i odd = _mm_or_si128(_mm_cmplt_epi8(v, blank), /* signed: bytes beyond ASCII too */
                                   _mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, backslash)));
        if (_mm_movemask_epi8(odd) != 0)
            break;
    }
#endif
    return i;
}

/* How many bytes at p need no escape: printable ASCII and whole UTF-8 sequences, but '"' and '\'. */
static size_t plain_run(const char *p, size_t n)
{
    size_t i = ascii_run(p, n);
    while (i < n) {
        unsigned char c = (unsigned char)p[i];
        if (c < 0x20 || c == '"' || c == '\\')
            break;
        if (c < 0x80) {
            i++;
            continue;
        }
        size_t valid = slice_utf8_valid(slice_of(p + i, MIN(n - i, (size_t)4)));
        if (valid == 0)
            break;
        i += valid;
        /* valid may end in ASCII that needs an escape: go back to the first such byte */
        for (size_t k = i - valid; k < i; k++) {
            unsigned char d = (unsigned char)p[k];
            if (d < 0x20 || d == '"' || d == '\\')
                return k;
        }
    }
    return i;
}

static int append_escape(struct buf *b, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    const char u[6] = { '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] };
    switch (c) {
    case '"':
        return buf_append_lit(b, "\\\"");
    case '\\':
        return buf_append_lit(b, "\\\\");
    case '\n':
        return buf_append_lit(b, "\\n");
    case '\r':
        return buf_append_lit(b, "\\r");
    case '\t':
        return buf_append_lit(b, "\\t");
    default:
        return c < 0x20 ? buf_append(b, u, sizeof(u)) : buf_append_lit(b, "\xef\xbf\xbd");
    }
}

int buf_append_json_escaped(struct buf *b, struct slice s)
{
    size_t before = b->len;
    while (s.len > 0) {
        size_t run = plain_run(s.ptr, s.len);
        int r = buf_append(b, s.ptr, run);
        s = slice_from(s, run);
        if (r == 0 && s.len > 0) {
            r = append_escape(b, (unsigned char)s.ptr[0]);
            s = slice_from(s, 1);
        }
        if (r < 0) {
            b->len = before;
            return r;
        }
    }
    return 0;
}

int buf_append_json_string(struct buf *b, struct slice s)
{
    size_t before = b->len;
    int r = buf_append_byte(b, '"');
    if (r == 0)
        r = buf_append_json_escaped(b, s);
    if (r == 0)
        r = buf_append_byte(b, '"');
    if (r < 0)
        b->len = before;
    return r;
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    int r = n < 0 ? -EINVAL : buf_reserve(b, (size_t)n + 1);
    if (r == 0) {
        (void)vsnprintf(b->ptr + b->len, (size_t)n + 1, fmt, again); /* its length is known */
        b->len += (size_t)n;
    }
    va_end(again);
    return r;
}

void buf_consume(struct buf *b, size_t n)
{
    size_t rest = b->len - MIN(n, b->len);
    if (rest > 0)
        memmove(b->ptr, b->ptr + (b->len - rest), rest);
    b->len = rest;
}

void buf_shrink(struct buf *b, size_t keep)
{
    if (b->cap <= keep || b->len > keep)
        return;
    if (keep == 0) {
        budget_add(b->account, -(int64_t)b->cap);
        free(b->ptr);
        b->ptr = NULL;
        b->cap = 0;
        return;
    }
    char *ptr = realloc(b->ptr, keep);
    if (ptr == NULL)
        return; /* the larger block is still good */
    budget_add(b->account, -(int64_t)(b->cap - keep));
    b->ptr = ptr;
    b->cap = keep;
}

int buf_terminate(struct buf *b)
{
    int r = buf_reserve(b, 1);
    if (r == 0)
        b->ptr[b->len] = '\0';
    return r;
}
